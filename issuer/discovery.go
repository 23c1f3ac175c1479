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
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	id, err := url.Parse(c.config.Issuer)
	if err != nil {
		return c.fail(watchword.ConfigError, errors.New("issuer is no URL")) // not reached: New parsed it
	}
	var reasons []error
	for _, at := range wellKnown(id) {
		found, err := c.look(ctx, at)
		if err == nil {
			c.target.Store(found.target)
			c.warn(ctx, found.methods)
			return nil
		}
		err = fmt.Errorf("%s: %w", at, err)
		if e, is := errors.AsType[*watchword.Error](err); is { // it could not be asked: what comes next may not be what it means
			e.Cause = fmt.Errorf("%s: %w", at, e.Cause)
			return e
		}
		reasons = append(reasons, err)
	}
	return c.fail(watchword.ConfigError, fmt.Errorf("no metadata that says where it introspects; set introspection_endpoint if it has none: %w", errors.Join(reasons...)))
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

// look reads one document. An *watchword.Error says that the server could not be asked, another error that this
// document is of no use.
func (c *Client) look(ctx context.Context, at *url.URL) (*metadata, error) {
	var peer net.Addr
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { peer = i.Conn.RemoteAddr() }}
	req := (&http.Request{Method: http.MethodGet, URL: at, Host: at.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Accept": acceptJSON, "Accept-Encoding": identity, "User-Agent": agent}}).WithContext(httptrace.WithClientTrace(ctx, trace))
	resp, err := c.transport.Load().RoundTrip(req)
	if err != nil {
		return nil, c.fail(watchword.Unavailable, describe(err, discoveryTimeout))
	}
	r, err := readReply(resp, new(bytes.Buffer))
	switch {
	case err != nil:
		return nil, c.fail(watchword.Unavailable, describe(err, discoveryTimeout))
	case r.status == http.StatusTooManyRequests || r.status >= 500:
		e := c.fail(watchword.Unavailable, fmt.Errorf("status %d", r.status))
		e.RetryAfter = retryAfter(r.header, time.Now())
		return nil, e
	case r.status != http.StatusOK:
		return nil, fmt.Errorf("status %d", r.status)
	}
	if err := r.isJSON(); err != nil {
		return nil, err
	}
	claims, err := watchword.ParseClaims(r.body)
	if err != nil {
		return nil, err
	}
	return c.understand(claims, peer)
}

// understand takes what is ours out of metadata. The issuer in it must be the configured one, byte for byte
// (RFC 8414 §3.3): else anybody's document could say where our tokens and credentials go.
func (c *Client) understand(claims watchword.Claims, peer net.Addr) (*metadata, error) {
	if iss, _ := claims.Text("issuer"); iss != c.config.Issuer {
		return nil, fmt.Errorf("it is the metadata of another issuer than %q: they must be equal byte for byte, a final slash counts (RFC 8414 §3.3)", c.config.Issuer)
	}
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
	u, err := endpoint(where)
	switch {
	case err != nil:
		return nil, fmt.Errorf("introspection_endpoint %w", err)
	case u.Scheme == "http" && !c.plain:
		return nil, errors.New("introspection_endpoint is http, though the issuer is https")
	}
	m := &metadata{target: newTarget(u), methods: methods(claims)}
	if own, err := url.Parse(c.config.Issuer); err == nil && !strings.EqualFold(u.Hostname(), own.Hostname()) && !private(peer) {
		m.target.foreign = net.JoinHostPort(u.Hostname(), port(u))
	}
	return m, nil
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
