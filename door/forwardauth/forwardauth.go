// Package forwardauth answers the gateways that ask about a request before they pass it on: nginx auth_request, Traefik
// ForwardAuth, Caddy forward_auth, HAProxy, Envoy HTTP ext_authz. 200 lets the request pass, with the identity headers;
// everything else refuses it.
package forwardauth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
)

// Profile is how a gateway says what the original request was, and which statuses it understands.
type Profile string

// The profiles.
const (
	Standard Profile = "standard" // X-Forwarded-* or X-Original-*; every status. What the empty Profile means
	Nginx    Profile = "nginx"    // as Standard, but only 200, 401 and 403 leave, since auth_request turns all others into 500
	Envoy    Profile = "envoy"    // method, host and path are those of the request line itself
)

// Config of the door. Verifier is required, and either Trusted or TrustAll.
type Config struct {
	Verifier       door.Verifier
	Profile        Profile             // empty: Standard
	Headers        map[string]string   // identity headers: header name to claim name; empty: none
	OnUnheaderable func(header string) // called when a claim cannot be written into that header, which is then empty; nil: nobody is told
	Trusted        door.Peers          // the gateways; every other peer is refused
	TrustAll       bool                // whoever can connect is a gateway: for unix sockets, whose file mode says who that is
	PathPrefix     string              // what Envoy puts before the original path (path_prefix); empty: nothing
	Realm          string              // of challenges; empty: none
}

// Door is the http.Handler. Safe for concurrent use.
//
// An http.Server answers `OPTIONS *` by itself with 200, which a gateway would take for consent: its
// DisableGeneralOptionsHandler must be set.
type Door struct {
	config    Config
	identity  *door.Identity
	challenge door.Challenge
}

// New makes a Door, or reports every mistake of c at once.
func New(c Config) (*Door, error) {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf("forward_auth: "+format, args...)) }
	if c.Verifier == nil {
		mistake("Config.Verifier is missing: nobody could decide")
	}
	switch c.Profile {
	case "":
		c.Profile = Standard
	case Standard, Nginx, Envoy:
	default:
		mistake("profile %q is none of standard, nginx, envoy", c.Profile)
	}
	switch {
	case len(c.Trusted) == 0 && !c.TrustAll:
		mistake("no peer is trusted: name the gateways' addresses, or listen on a unix socket; anybody else could claim any request")
	case len(c.Trusted) > 0 && c.TrustAll:
		mistake("trusted peers are named and all are trusted: leave one out")
	}
	for _, p := range c.Trusted {
		if !p.IsValid() || p.Addr().Is4In6() {
			mistake("trusted peer %v matches nobody: write an IPv4 prefix as IPv4", p)
		}
	}
	if c.PathPrefix != "" {
		if _, ok := door.Path(c.PathPrefix); !ok || strings.HasSuffix(c.PathPrefix, "/") || strings.Contains(c.PathPrefix, "%") {
			mistake("path prefix %q must be a plain path without a final slash, such as /authz", c.PathPrefix)
		}
		if c.Profile != Envoy {
			mistake("path prefix %q is used by profile envoy only", c.PathPrefix)
		}
	}
	identity, err := door.NewIdentity(c.Headers, c.OnUnheaderable)
	if err != nil {
		mistake("%w", err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Door{config: c, identity: identity, challenge: door.Challenge{Realm: c.Realm}}, nil
}

// Shared header values: nobody may write to them.
var (
	closing = []string{"close"}
	noStore = []string{"no-store"}
	words   = func() (all [][]string) {
		for _, r := range watchword.Reasons() {
			all = append(all, []string{r.String()})
		}
		return all
	}()
)

// ServeHTTP decides about the original request. Every path and method is answered, HEAD like GET, and no body is ever
// read.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// nginx announces the client's body and never sends it; a server that keeps the connection waits for it first.
		h["Connection"] = closing
	}
	decision := d.decide(w, r)
	status := decision.Reason.Row().HTTP
	if d.config.Profile == Nginx {
		h["X-Watchword-Reason"] = words[min(int(decision.Reason), len(words)-1)] // the last is internal, as in Row
		if status != http.StatusOK && status != http.StatusUnauthorized {
			status = http.StatusForbidden
		}
	}
	if !decision.Allowed() {
		d.challenge.Header(h, decision)
		w.WriteHeader(status)
		return
	}
	h["Cache-Control"] = noStore
	door.Degraded(h, decision.Degraded)
	d.identity.Set(h, decision.Answer)
	w.WriteHeader(status)
}

// decide asks the Verifier about the original request. One that cannot be told goes there as well, as a problem: it is
// counted and logged like any other.
func (d *Door) decide(w http.ResponseWriter, r *http.Request) watchword.Decision {
	id, trace := door.Trace(w, r)
	ask := watchword.Request{Door: "forward_auth", ID: id, Trace: trace, Problem: watchword.InvalidRequest}
	ask.Peer = d.config.Trusted.Client(r.RemoteAddr, r.Header["X-Forwarded-For"])
	if d.config.TrustAll || d.config.Trusted.Trusts(r.RemoteAddr) {
		if o, ok := d.original(r); ok {
			ask.Method, ask.Host, ask.Path = o.method, o.host, o.path
			ask.UserAgent = r.UserAgent() // gateways pass the client's on
			ask.Token, ask.Problem = door.Credential(r.Header, o.query)
		}
	}
	return d.config.Verifier.Verify(r.Context(), ask)
}
