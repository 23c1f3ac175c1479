// Package issuer asks one authorization server: finds where it introspects, authenticates to it, asks it about one
// token (RFC 7662), and tells an answer from not knowing. It remembers no answers: package cache does.
package issuer

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/watchword-dev/watchword"
)

// DefaultTimeout is Config.Timeout where it is zero.
const DefaultTimeout = 2 * time.Second

const maxLeeway = time.Minute

// NoIntrospection is a Config.IntrospectionEndpoint that says that there is none: the Client asks nothing, and is good
// for KeySet only.
const NoIntrospection = "none"

// Config is one authorization server. Name and Auth are required, and IntrospectionEndpoint or Issuer.
type Config struct {
	Name                  string           // ours, in metrics and logs
	Issuer                string           // its issuer identifier (RFC 8414 §2): discovered from, and compared with iss; empty: unknown
	IntrospectionEndpoint string           // https, or http on loopback; empty: discovered from Issuer; or NoIntrospection
	Auth                  ClientAuth       // how it knows us
	Prefixes              []string         // how its tokens begin; empty: it takes what no other issuer claims
	Hint                  string           // token_type_hint (RFC 7662 §2.1); empty: access_token; "none": not sent
	MaxAgeHint            bool             // its Cache-Control: max-age bounds the age of its answers from above
	Quirks                watchword.Quirks // declared departures from RFC 7662 §2.2
	Timeout               time.Duration    // bounds one whole asking, retries included; zero: DefaultTimeout
	Leeway                time.Duration    // how far clocks may differ when exp and nbf are read; zero: not at all; at most a minute
	Skew                  time.Duration    // how far the server's clock may differ from ours before Logger hears of it; zero: only by what Date cannot tell
	TLS                   TLS
	Signed                Open                                     // asks for signed answers (RFC 9701), accepts no other, and reads them; nil: plain JSON
	Observe               func(outcome string, took time.Duration) // called after every asking that called the server (Outcomes); nil: nobody looks
	Logger                *slog.Logger                             // hears of discovery and its failures, and why askings fail; nil: nobody
}

// Open verifies a signed answer (RFC 9701 §5) to a question that left us at asked, and returns the introspection
// response in it. Errors are *watchword.Error. (*jose.Responses).Open is one.
type Open func(ctx context.Context, jwt []byte, asked time.Time) (response []byte, err error)

// TLS is how connections are protected, at least with TLS 1.2. The zero value trusts the system's authorities and has
// no certificate of its own.
type TLS struct {
	CAFile            string // PEM; only these authorities are trusted; read by New; empty: the system's
	CertFile, KeyFile string // PEM, our certificate, read anew for every connection; empty: none
}

// Client is the Source of one authorization server: it asks, always. Make it with New. Safe for concurrent use.
type Client struct {
	config    Config
	hint      string // "&token_type_hint=…", or empty
	plain     bool   // http on loopback
	keys      keyring
	cert      *certificate   // nil: none
	roots     *x509.CertPool // nil: the system's
	transport atomic.Pointer[http.Transport]
	other     func() *http.Transport // for documents that are served the other way, with or without TLS
	target    atomic.Pointer[target] // nil: not discovered yet
	hold      atomic.Pointer[time.Time]
	warned    atomic.Pointer[string]
	skewed    atomic.Bool // the server's clock is off, and that was said
	said      said
	clock     clock
}

// target is where a server introspects.
type target struct {
	request *http.Request // without context, header and body: copied for every attempt
	name    string        // for errors: without query
	foreign string        // host:port named by metadata from a public address, so never a private one; empty: configured
}

// New makes a Client, or reports every mistake of c at once. It reads secrets, keys and certificates, and touches no
// network.
func New(c Config) (*Client, error) {
	c.Timeout, c.Hint = cmp.Or(c.Timeout, DefaultTimeout), cmp.Or(c.Hint, "access_token")
	c.Prefixes = slices.Clone(c.Prefixes)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	cl := &Client{config: c}
	errs := c.mistakes()
	given := c.IntrospectionEndpoint
	if given == NoIntrospection {
		given = ""
	}
	configured := cmp.Or(given, c.Issuer)
	if u, err := endpoint(configured); err != nil {
		errs = append(errs, fmt.Errorf("%s %w", where(&c), err))
	} else {
		cl.plain = u.Scheme == "http"
		if given != "" {
			cl.target.Store(newTarget(u))
		} else if u.RawQuery != "" || u.ForceQuery {
			errs = append(errs, errors.New("issuer has a query: an issuer identifier has none (RFC 8414 §2)"))
		}
	}
	if cl.plain && c.TLS != (TLS{}) {
		errs = append(errs, errors.New("tls is set, but the server is asked without TLS: use https, or leave tls out"))
	}
	if c.Hint != "none" {
		cl.hint = "&token_type_hint=" + url.QueryEscape(c.Hint)
	}
	if err := cl.secure(); err != nil {
		errs = append(errs, err)
	}
	cl.keys.load = c.Auth.loader(cl)
	if cl.keys.load != nil {
		live, err := cl.keys.load()
		if err != nil {
			errs = append(errs, err)
		}
		cl.keys.live = live
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("issuer %q: %w", c.Name, err)
	}
	return cl, nil
}

func where(c *Config) string {
	if c.IntrospectionEndpoint != "" && c.IntrospectionEndpoint != NoIntrospection {
		return "introspection_endpoint"
	}
	return "issuer"
}

// mistakes finds what is wrong with c by itself.
func (c *Config) mistakes() (errs []error) {
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Name == "" {
		mistake("name is missing")
	}
	if c.Timeout < 0 {
		mistake("timeout is %v: it cannot be negative; leave it out for %v", c.Timeout, DefaultTimeout)
	}
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		mistake("leeway is %v: it must be from 0 to %v", c.Leeway, maxLeeway)
	}
	if c.Skew < 0 {
		mistake("skew is %v: it cannot be negative", c.Skew)
	}
	if slices.Contains(c.Prefixes, "") {
		mistake("an empty token prefix: leave prefixes out for an issuer that takes every other token")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		mistake("tls: cert and key are of use only together")
	}
	for _, err := range c.Auth.mistakes(c) {
		mistake("client_auth: %w", err)
	}
	return errs
}

// Shape is how its tokens are told from others', and what identifies the asking, for watchword.Config. Asking holds
// no secret and survives the rotation of one.
func (c *Client) Shape() watchword.Issuer {
	where := c.config.IntrospectionEndpoint
	if where == "" {
		where = "discovered"
	}
	asking := fmt.Sprintf("%q %v %v", []string{where, c.config.Issuer, c.config.Auth.method, c.config.Auth.id, c.config.Hint}, c.config.Quirks, c.config.Leeway)
	if c.config.Signed != nil {
		asking += " signed"
	}
	if c.config.MaxAgeHint { // answers that were remembered without the hint
		asking += " max-age"
	}
	return watchword.Issuer{Name: c.config.Name, ID: c.config.Issuer, Prefixes: slices.Clone(c.config.Prefixes), Asking: asking}
}

// Format prints the issuer's name for every verb, and nothing of what the Client holds.
func (c *Client) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "issuer %q", c.config.Name) }

// Outcomes lists the words that Config.Observe is called with: ok, inactive, the words of the failures that a Client
// knows, and caller_rejected, where the server refused a caller's own Credential.
func Outcomes() []string {
	words := []string{"ok", "inactive", "caller_rejected"}
	for _, f := range watchword.Failures() {
		if f != watchword.Throttled {
			words = append(words, f.Error())
		}
	}
	return words
}

// Router sends every Query to the Source of its issuer, by our name for it, and to no other. Not to be changed while
// in use.
type Router map[string]watchword.Source

// Introspect asks the Source of q.Issuer; without one it is a ConfigError.
func (r Router) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	if s := r[q.Issuer]; s != nil {
		return s.Introspect(ctx, q)
	}
	return nil, &watchword.Error{Failure: watchword.ConfigError, Issuer: q.Issuer, Cause: errors.New("no such issuer is configured")}
}

// endpoint reads an absolute URL to which tokens and credentials may go: https, or http on loopback, and nothing in it
// that is secret. Errors say what is wrong and repeat none of it.
func endpoint(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errors.New("is missing: set introspection_endpoint, or issuer for discovery")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("is no absolute URL")
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r >= utf8.RuneSelf }):
		return nil, errors.New("has a host that is not ASCII: write its xn-- form")
	case u.User != nil:
		return nil, errors.New("holds a user or password: credentials belong into client_auth")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, errors.New("has a fragment")
	case u.Scheme == "http" && !loopbackName(u.Hostname()):
		return nil, errors.New("is http: use https (http only on 127.0.0.0/8, ::1 and localhost)")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("is neither https nor http")
	}
	return u, nil
}

func newTarget(u *url.URL) *target {
	return &target{
		request: &http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1},
		name:    u.Scheme + "://" + u.Host + u.EscapedPath(),
	}
}
