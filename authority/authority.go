// Package authority is a small OAuth 2.0 authorization server for demos, drills and tests. It is not for production.
//
// It issues opaque access tokens that begin with TokenPrefix and answers for them: client_credentials (RFC 6749 §4.4),
// authorization code with PKCE (RFC 7636) behind a login form that a plain HTTP client can post, rotating refresh
// tokens, introspection (RFC 7662), revocation (RFC 7009) and metadata at both well-known places (RFC 8414, OpenID
// Connect Discovery). Tokens and revocations live in one SQLite file and survive a restart.
//
//	socket, err := config.Listen("127.0.0.1:0")
//	config.Issuer = "http://" + socket.Addr().String()
//	as, err := authority.New(config)
//	defer as.Close()
//	http.Serve(socket, as)
//
// The endpoints are /authorize, /token, /introspect, /revoke, /userinfo and /jwks. A user logs in without a browser by
// one POST to /authorize: the members of the authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3) with username and
// password beside them; the answer is 303 with the code in its Location. A GET of /authorize shows a form that posts the
// same two members.
//
// What the file holds: access tokens, refresh tokens, authorization codes and login ids only as SHA-256 digests (each is
// 130 random bits, so a digest cannot be searched), the subject, client, scope and times of each grant, and, in the
// clear, the private key that signs ID tokens; so the file is created with mode 0600. Client secrets and passwords come
// from Config at every start and are never written. One process uses a file at a time. A commit survives the death of
// the process; after a power cut the last ones may be missing (WAL, synchronous=NORMAL).
//
// It answers on loopback only, unless Config.DangerouslyListenAnywhere is set, whatever socket it is served from.
//
// Faults makes an authority slow, failing or lying; nothing of it is reachable unless somebody calls NewFaults.
package authority

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// TokenPrefix begins every access token, and nothing else that this package issues.
const TokenPrefix = "wwat_"

const (
	refreshPrefix = "wwrt_"
	maxForm       = 64 << 10

	introspectPath = "/introspect"
	tokenPath      = "/token"
	revokePath     = "/revoke"
	openIDPath     = "/.well-known/openid-configuration"
	oauthPath      = "/.well-known/oauth-authorization-server"
)

// Secret is a password or client secret. However it is printed or marshalled it reads REDACTED.
type Secret string

// Format prints REDACTED for every verb.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "REDACTED") }

// MarshalText returns REDACTED.
func (Secret) MarshalText() ([]byte, error) { return []byte("REDACTED"), nil }

// Client is a registered client (RFC 6749 §2). What it may do follows from what it has: with Secret and Scopes it gets
// tokens for itself, with RedirectURIs it may send users to log in, with Introspects it may ask about tokens.
type Client struct {
	ID           string   // required; letters, digits and -._~ only, so that no encoding can change it
	Secret       Secret   // empty: a public client, which needs PKCE (as all do here) and no credential
	AuthMethod   string   // client_secret_basic (the default) or client_secret_post
	RedirectURIs []string // compared exactly, ports included
	Scopes       []string // what it may ask for; a request that asks for none gets none
	Audience     []string // becomes the aud of its tokens; empty: they have none
	Introspects  bool     // false: every token is inactive to it (RFC 7662 §2.2)
}

// User is somebody who can log in. Its name is the sub and the username of its tokens.
type User struct {
	Name     string // required; not the ID of a client, or a token would not say whose it is
	Password Secret // required
}

// Config says what an Authority knows. The zero value lacks an Issuer and clients.
type Config struct {
	Path                      string // the SQLite file, created where missing; empty: in memory, gone at Close
	Issuer                    string // required: its own origin, as clients write it: https://as.example or http://127.0.0.1:9000
	Clients                   []Client
	Users                     []User
	AccessTokenLifetime       time.Duration // whole seconds; 0: 5m
	RefreshTokenLifetime      time.Duration // whole seconds; 0: 24h
	DangerouslyListenAnywhere bool          // answer on addresses other than loopback too
	Report                    func(error)   // told of the authority's own failures, such as a full disk; never of a token; nil: nobody
}

// Authority is a running authorization server: an http.Handler that owns its store, not its sockets. It is safe for
// concurrent use.
type Authority struct {
	config   Config
	provider http.Handler
	store    *store
	writing  sync.Mutex // the provider reads, changes and writes a grant in three steps: those take turns
}

// New opens the store, makes the signing key where there is none yet, and returns a server that is ready. It prints
// nothing and starts no goroutine of its own; the error names every mistake in c.
func New(c Config) (*Authority, error) {
	if c.AccessTokenLifetime == 0 {
		c.AccessTokenLifetime = 5 * time.Minute
	}
	if c.RefreshTokenLifetime == 0 {
		c.RefreshTokenLifetime = 24 * time.Hour
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	st, err := openStore(c.Path, c.AccessTokenLifetime)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a := &Authority{config: c, store: st}
	if a.provider, err = newProvider(c, st); err != nil {
		return nil, errors.Join(fmt.Errorf("authority: %w", err), st.close())
	}
	return a, nil
}

// Close closes the store. Requests after it get 500. Closing twice is fine.
func (a *Authority) Close() error { return a.store.close() }

// ServeHTTP answers one request. One that arrived on a socket that is not loopback is refused with 403 unless
// Config.DangerouslyListenAnywhere is set.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !a.config.DangerouslyListenAnywhere && !arrivedLocally(r) {
		http.Error(w, "this development authority answers on loopback only (DangerouslyListenAnywhere changes that)", http.StatusForbidden)
		return
	}
	if r.URL.Path == oauthPath { // RFC 8414 §3: the provider knows only the OpenID name of the same document
		r = r.Clone(r.Context())
		r.URL.Path = openIDPath
	}
	if r.Method != http.MethodPost {
		a.provider.ServeHTTP(w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil { // read whole before any turn is taken: a slow sender holds up nobody
		refuseForm(w, err)
		return
	}
	switch r.URL.Path {
	case introspectPath:
		a.hideForeign(r)
		a.provider.ServeHTTP(challenger{w}, r)
	case tokenPath, revokePath:
		a.writing.Lock()
		defer a.writing.Unlock()
		a.provider.ServeHTTP(challenger{w}, r)
	default:
		a.writing.Lock()
		defer a.writing.Unlock()
		a.provider.ServeHTTP(w, r)
	}
}

// hideForeign makes an introspection ask about nothing where the caller may not see the answer (RFC 7662 §2.2: that is
// active:false, not an error) and where the token is no access token: the provider would call a refresh token an active
// Bearer token, and a resource server would let it in.
func (a *Authority) hideForeign(r *http.Request) {
	caller, _, ok := r.BasicAuth()
	if !ok {
		caller = r.PostForm.Get("client_id")
	}
	may := slices.ContainsFunc(a.config.Clients, func(c Client) bool { return c.ID == caller && c.Introspects })
	if token := r.PostForm.Get("token"); token != "" && (!may || !strings.HasPrefix(token, TokenPrefix)) {
		r.PostForm.Set("token", TokenPrefix)
	}
}

// challenger adds the challenge that RFC 6749 §5.2 wants on every 401.
type challenger struct{ http.ResponseWriter }

func (c challenger) WriteHeader(status int) {
	if status == http.StatusUnauthorized {
		c.Header().Set("WWW-Authenticate", `Basic realm="authority"`)
	}
	c.ResponseWriter.WriteHeader(status)
}

func refuseForm(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	if errors.As(err, new(*http.MaxBytesError)) {
		status = http.StatusRequestEntityTooLarge
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"error":"invalid_request"}`)
}

// Listen opens a TCP socket and refuses an address that is not loopback unless c.DangerouslyListenAnywhere is set.
// Port 0 takes a free one. Names other than localhost are refused too: what they mean can change.
func (c Config) Listen(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("authority: listen address %q: %w (write host:port, such as 127.0.0.1:0)", address, err)
	}
	if !c.DangerouslyListenAnywhere && !loopback(host) {
		return nil, fmt.Errorf("authority: listen address %q is not loopback and this is a development authority: use 127.0.0.1, ::1 or localhost, or set DangerouslyListenAnywhere", address)
	}
	socket, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	// localhost is whatever the hosts file says.
	if !c.DangerouslyListenAnywhere && !loopbackAddr(socket.Addr()) {
		return nil, errors.Join(fmt.Errorf("authority: listen address %q turned out to be %s, which is not loopback", address, socket.Addr()), socket.Close())
	}
	return socket, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// loopbackAddr is true for loopback and for what is no network at all: a unix socket, a pipe.
func loopbackAddr(addr net.Addr) bool {
	if !strings.HasPrefix(addr.Network(), "tcp") && !strings.HasPrefix(addr.Network(), "udp") {
		return true
	}
	host, _, err := net.SplitHostPort(addr.String())
	return err == nil && loopback(host)
}

// arrivedLocally looks at our end of the connection; a request without one came from inside the process.
func arrivedLocally(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return !ok || loopbackAddr(addr)
}

// check returns all mistakes at once, each with its fix.
func (c Config) check() error {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(c.Issuer); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || c.Issuer != u.Scheme+"://"+u.Host {
		wrong("Issuer %q is not an origin: write scheme and host without a final slash, such as http://127.0.0.1:9000", c.Issuer)
	}
	for name, d := range map[string]time.Duration{"AccessTokenLifetime": c.AccessTokenLifetime, "RefreshTokenLifetime": c.RefreshTokenLifetime} {
		if d < time.Second || d%time.Second != 0 {
			wrong("%s %s is not a positive number of whole seconds", name, d)
		}
	}
	if len(c.Clients) == 0 {
		wrong("Clients is empty: nobody could ask for anything; name at least one")
	}
	seen := map[string]bool{}
	for i, client := range c.Clients {
		if err := client.check(); err != nil {
			wrong("Clients[%d]: %w", i, err)
		}
		if seen[client.ID] {
			wrong("Clients[%d]: ID %q is taken: give each its own", i, client.ID)
		}
		seen[client.ID] = true
	}
	for i, user := range c.Users {
		if user.Name == "" || user.Password == "" {
			wrong("Users[%d] needs a Name and a Password", i)
		}
		if seen[user.Name] {
			wrong("Users[%d]: Name %q is taken by a client or another user: give each its own", i, user.Name)
		}
		seen[user.Name] = true
	}
	return errors.Join(mistakes...)
}

func (c Client) check() error {
	switch {
	case c.ID == "" || url.QueryEscape(c.ID) != c.ID:
		return fmt.Errorf("ID %q: use letters, digits and -._~", c.ID)
	case c.AuthMethod != "" && c.AuthMethod != "client_secret_basic" && c.AuthMethod != "client_secret_post":
		return fmt.Errorf("AuthMethod %q: use client_secret_basic or client_secret_post", c.AuthMethod)
	case c.Secret == "" && c.AuthMethod != "":
		return fmt.Errorf("AuthMethod %q without a Secret: set one, or remove the method for a public client", c.AuthMethod)
	case c.Secret == "" && c.Introspects:
		return errors.New("Introspects without a Secret: who asks about tokens must authenticate (RFC 7662 §2.1)")
	case c.Secret == "" && len(c.RedirectURIs) == 0:
		return errors.New("neither Secret nor RedirectURIs: it could do nothing")
	}
	for _, scope := range c.Scopes {
		if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return fmt.Errorf("scope %q: use one printable ASCII word without quotes or backslash (RFC 6749 §3.3)", scope)
		}
	}
	for _, redirect := range c.RedirectURIs {
		if u, err := url.Parse(redirect); err != nil || !u.IsAbs() || u.Fragment != "" {
			return fmt.Errorf("redirect URI %q: write an absolute URI without a fragment (RFC 6749 §3.1.2)", redirect)
		}
	}
	return nil
}
