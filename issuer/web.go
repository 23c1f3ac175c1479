package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
)

// WebConfig makes a client for what a server offers beside introspection: RFC 7009, the SSF stream API.
type WebConfig struct {
	Hosts  []string // host names that an operator wrote; any other host, named by a document, must be a public address
	CAFile string   // PEM that the server's certificate must chain to; empty: the system's
}

// NewWeb makes an http.Client that goes to https, or to http on loopback, follows no redirect, carries no certificate of
// ours (it would vouch for whoever's request is passed on), and takes no compressed answer. The caller bounds time and
// size.
func NewWeb(c WebConfig) (*http.Client, error) {
	var roots *x509.CertPool
	if c.CAFile != "" {
		pem, err := readPEM(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls: ca: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: ca: file %s holds no certificate in PEM", c.CAFile)
		}
	}
	hosts := slices.Clone(c.Hosts)
	transport := func(plain bool) *http.Transport {
		t := &http.Transport{
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    5 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        poolSize,
			IdleConnTimeout:        idleTimeout,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				d := net.Dialer{Timeout: 5 * time.Second}
				host, _, _ := net.SplitHostPort(address)
				known := slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
				switch {
				case plain:
					d.Control = only(netip.Addr.IsLoopback, "http goes to loopback only")
				case !known:
					d.Control = only(public, "a document may not name a private address")
				}
				return d.DialContext(ctx, network, address)
			},
		}
		if !plain {
			t.Proxy = http.ProxyFromEnvironment
		}
		return t
	}
	return &http.Client{
		Transport:     web{transport(true), transport(false)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// web chooses by scheme.
type web struct{ plain, secure *http.Transport }

// RoundTrip sends r where it may go. Errors hold nothing that the server sent.
func (w web) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header["Accept-Encoding"], r.Header["User-Agent"] = identity, agent
	var resp *http.Response
	var err error
	switch r.URL.Scheme {
	case "http":
		resp, err = w.plain.RoundTrip(r)
	case "https":
		resp, err = w.secure.RoundTrip(r)
	default:
		return nil, errors.New("neither https nor http")
	}
	if err != nil && r.Context().Err() == nil {
		err = describe(err, 5*time.Second)
	}
	return resp, err
}

// CloseIdleConnections lets what is not in use go.
func (w web) CloseIdleConnections() {
	w.plain.CloseIdleConnections()
	w.secure.CloseIdleConnections()
}

// RevocationEndpoint finds the revocation_endpoint of the server's metadata (RFC 8414 §2), which needs Config.Issuer.
// One on another host is not taken: callers' credentials go there, so an operator has to write it. Errors are
// *watchword.Error.
func (c *Client) RevocationEndpoint(ctx context.Context) (where string, err error) {
	if c.config.Issuer == "" {
		return "", c.fail(watchword.ConfigError, errors.New("revocation_endpoint is not configured, and without issuer it cannot be discovered"))
	}
	own, err := url.Parse(c.config.Issuer)
	if err != nil {
		return "", c.fail(watchword.ConfigError, errors.New("issuer is no URL")) // not reached: New parsed it
	}
	err = c.search(ctx, "where it revokes; set revocation_endpoint", func(claims watchword.Claims, peer net.Addr) error {
		named, _ := claims.Text("revocation_endpoint")
		if named == "" {
			return errors.New("it names no revocation_endpoint")
		}
		u, _, err := c.named(named, peer)
		if err != nil {
			return fmt.Errorf("revocation_endpoint %w", err)
		}
		if !strings.EqualFold(u.Hostname(), own.Hostname()) {
			return errors.New("its revocation_endpoint is on another host, where callers' credentials go only if revocation_endpoint says so")
		}
		where = u.String()
		return nil
	})
	return where, err
}
