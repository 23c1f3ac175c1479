package issuer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
)

const (
	refreshEvery     = time.Hour
	discoveryTimeout = 10 * time.Second // one round
)

// Run discovers at once and every hour, and more often while that fails, until ctx ends. With a configured endpoint
// there is nothing to do, and it returns at once. What was found last stays in use.
func (c *Client) Run(ctx context.Context) {
	if c.config.IntrospectionEndpoint != "" {
		return
	}
	for failures := 0; ; {
		wait := refreshEvery
		if err := c.Discover(ctx); err != nil && ctx.Err() == nil {
			wait = pause(failures, rand.Float64())
			if e, ok := errors.AsType[*watchword.Error](err); ok {
				wait = max(wait, e.RetryAfter)
			}
			failures++
			c.config.Logger.LogAttrs(ctx, slog.LevelWarn, "discovery failed", slog.String("issuer", c.config.Name),
				slog.String("error", err.Error()), slog.Bool("kept", c.target.Load() != nil), slog.Duration("again_in", wait))
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// pause is how long to wait after the nth failure in a row, counted from 0: it doubles from a second to a minute,
// and u in [0,1) takes up to half of it away, so that a fleet does not come back as one.
func pause(n int, u float64) time.Duration {
	d := time.Minute
	if n < 6 {
		d = min(d, time.Second<<n)
	}
	return d - time.Duration(u*float64(d)/2)
}

// Discover reads the server's metadata once (RFC 8414 §3, OpenID Connect Discovery 1.0 §4) and asks there from now on.
// On error, an *watchword.Error, what was found before stays. With a configured endpoint it does nothing.
func (c *Client) Discover(ctx context.Context) error {
	if c.config.IntrospectionEndpoint != "" {
		return nil
	}
	return c.search(ctx, "where it introspects; set introspection_endpoint if it has none", func(claims watchword.Claims, peer net.Addr) error {
		found, err := c.understand(claims, peer)
		if err == nil {
			c.target.Store(found.target)
			c.warn(ctx, found.methods)
		}
		return err
	})
}

// search shows the server's metadata, document by document, until one is of use; what says what is looked for.
func (c *Client) search(ctx context.Context, what string, use func(claims watchword.Claims, peer net.Addr) error) error {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	id, err := url.Parse(c.config.Issuer)
	if err != nil {
		return c.fail(watchword.ConfigError, errors.New("issuer is no URL")) // not reached: New parsed it
	}
	var reasons []error
	for _, at := range wellKnown(id) {
		claims, peer, err := c.look(ctx, at)
		if err == nil {
			err = use(claims, peer)
		}
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s: %w", at, err)
		if e, is := errors.AsType[*watchword.Error](err); is { // it could not be asked: what comes next may not be what it means
			e.Cause = fmt.Errorf("%s: %w", at, e.Cause)
			return e
		}
		reasons = append(reasons, err)
	}
	return c.fail(watchword.ConfigError, fmt.Errorf("no metadata that says %s: %w", what, errors.Join(reasons...)))
}

// wellKnown lists where metadata may be: RFC 8414 §3.1, then the two readings of OpenID Connect Discovery.
func wellKnown(issuer *url.URL) []*url.URL {
	at := func(path string) *url.URL {
		u, err := url.Parse(issuer.Scheme + "://" + issuer.Host + path)
		if err != nil {
			u = &url.URL{Scheme: issuer.Scheme, Host: issuer.Host, Path: path} // not reached: path was parsed before
		}
		return u
	}
	path := strings.TrimSuffix(issuer.EscapedPath(), "/")
	list := []*url.URL{at("/.well-known/oauth-authorization-server" + path), at("/.well-known/openid-configuration" + path)}
	if path != "" {
		list = append(list, at(path+"/.well-known/openid-configuration"))
	}
	return list
}

type metadata struct {
	target  *target
	methods []string // that the server says it accepts; nil: it says nothing
}

// look reads one document of metadata. An *watchword.Error says that the server could not be asked, another error that
// this document is of no use. The issuer in it must be the configured one, byte for byte (RFC 8414 §3.3): else anybody's
// document could say where our tokens and credentials go, and whose signatures count.
func (c *Client) look(ctx context.Context, at *url.URL) (claims watchword.Claims, peer net.Addr, err error) {
	r, peer, err := c.get(ctx, at, acceptJSON, 0)
	if err != nil {
		return claims, nil, err
	}
	if claims, err = watchword.ParseClaims(r.body); err != nil {
		return claims, nil, err
	}
	if iss, _ := claims.Text("issuer"); iss != c.config.Issuer {
		return claims, nil, fmt.Errorf("it is the metadata of another issuer than %q: they must be equal byte for byte, a final slash counts (RFC 8414 §3.3)", c.config.Issuer)
	}
	return claims, peer, nil
}

// get reads one JSON document of one of these media types. Whoever keeps it in between should not hand out one that is
// older than fresh; zero: nothing is said about that. Errors are as those of look.
func (c *Client) get(ctx context.Context, at *url.URL, kinds []string, fresh time.Duration) (reply, net.Addr, error) {
	var peer net.Addr
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { peer = i.Conn.RemoteAddr() }}
	req := (&http.Request{Method: http.MethodGet, URL: at, Host: at.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Accept": {strings.Join(kinds, ", ")}, "Accept-Encoding": identity, "User-Agent": agent}}).WithContext(httptrace.WithClientTrace(ctx, trace))
	if fresh > 0 {
		req.Header.Set("Cache-Control", "max-age="+strconv.FormatInt(int64(fresh/time.Second), 10))
	}
	asked := time.Now()
	resp, err := c.reach(at).RoundTrip(req) // no http.Client: it follows redirects
	if err != nil {
		return reply{}, nil, c.fail(watchword.Unavailable, describe(err, discoveryTimeout))
	}
	r, err := readReply(resp, new(bytes.Buffer))
	r.asked = asked
	switch {
	case err != nil:
		return reply{}, nil, c.fail(watchword.Unavailable, describe(err, discoveryTimeout))
	case r.status == http.StatusTooManyRequests || r.status >= 500:
		e := c.fail(watchword.Unavailable, fmt.Errorf("status %d", r.status))
		e.RetryAfter = retryAfter(r.header, time.Now())
		return reply{}, nil, e
	case r.status != http.StatusOK:
		return reply{}, nil, fmt.Errorf("status %d", r.status)
	}
	return r, peer, r.is(kinds...)
}

// understand takes out of metadata where the server introspects.
func (c *Client) understand(claims watchword.Claims, peer net.Addr) (*metadata, error) {
	where, _ := claims.Text("introspection_endpoint")
	if aliases, ok := claims.Get("mtls_endpoint_aliases"); ok && c.cert != nil { // RFC 8705 §5
		inner, err := watchword.ParseClaims([]byte(aliases))
		if err != nil {
			return nil, fmt.Errorf("mtls_endpoint_aliases: %w", err)
		}
		if alias, ok := inner.Text("introspection_endpoint"); ok {
			where = alias
		}
	}
	if where == "" {
		return nil, errors.New("it names no introspection_endpoint")
	}
	u, foreign, err := c.named(where, peer)
	if err != nil {
		return nil, fmt.Errorf("introspection_endpoint %w", err)
	}
	m := &metadata{target: newTarget(u), methods: methods(claims)}
	m.target.foreign = foreign
	return m, nil
}

// named reads a URL that metadata from peer names. foreign is its host:port if that may not be a private address.
func (c *Client) named(where string, peer net.Addr) (u *url.URL, foreign string, err error) {
	u, err = endpoint(where)
	if err != nil {
		return nil, "", err
	}
	own, err := url.Parse(c.config.Issuer)
	if err != nil {
		return nil, "", err // not reached: New parsed it
	}
	if u.Scheme == "http" && own.Scheme != "http" {
		return nil, "", errors.New("is http, though the issuer is https")
	}
	if !strings.EqualFold(u.Hostname(), own.Hostname()) && !private(peer) {
		foreign = net.JoinHostPort(u.Hostname(), port(u))
	}
	return u, foreign, nil
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

// private reports a peer that is known not to be a public address: its metadata may name its neighbours.
func private(peer net.Addr) bool {
	if peer == nil {
		return false
	}
	a, err := netip.ParseAddrPort(peer.String())
	return err == nil && !public(a.Addr().Unmap())
}

// methods is how clients may authenticate. RFC 8414 §2 gives the introspection endpoint no default; servers that say
// nothing of it mean what they say of the token endpoint.
func methods(claims watchword.Claims) []string {
	for _, name := range []string{"introspection_endpoint_auth_methods_supported", "token_endpoint_auth_methods_supported"} {
		if v, ok := claims.Get(name); ok {
			if list, is := watchword.Strings(v); is {
				return append([]string{}, list...) // an empty list names none
			}
		}
	}
	return nil
}

// warn says, once while it is so, that the server does not name our method. It is asked all the same: metadata is
// wrong about this more often than operators are.
func (c *Client) warn(ctx context.Context, supported []string) {
	mine := c.config.Auth.method
	ok := supported == nil || mine == "bearer" // a bearer is no registered method
	for _, m := range supported {
		ok = ok || m == mine || mine == "tls_client_auth" && m == "self_signed_tls_client_auth"
	}
	now := ""
	if !ok {
		now = mine
	}
	if old := c.warned.Swap(&now); !ok && (old == nil || *old != now) {
		c.config.Logger.LogAttrs(ctx, slog.LevelWarn, "the server's metadata does not name our client_auth method",
			slog.String("issuer", c.config.Name), slog.String("method", mine))
	}
}
