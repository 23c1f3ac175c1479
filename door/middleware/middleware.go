// Package middleware protects net/http handlers with a Verifier in the same process.
package middleware

import (
	"context"
	"net/http"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
)

// Config of the middleware. The zero value is complete.
type Config struct {
	Realm   string     // of challenges; empty: none
	Trusted door.Peers // proxies whose X-Forwarded-For says who the client is; empty: the peer is the client
}

// Protect is Config{}.Protect.
func Protect(v door.Verifier, next http.Handler) http.Handler { return Config{}.Protect(v, next) }

// Protect lets requests that v allows reach next, which finds the Decision by FromContext, and answers all others as
// RFC 6750 §3 says. It panics if v or next is nil. Safe for concurrent use.
//
// Policies see the method and host of r and the path of r.URL, percent-decoded: behind http.StripPrefix that is the
// rest. Two credentials, and paths that door.Path finds ambiguous, are 400. The Authorization header stays on the
// request for a next that exchanges the token; one that logs headers or passes the request on must remove it. Bodies
// are not read, so an access_token in a form (RFC 6750 §2.2) is neither accepted nor noticed.
func (c Config) Protect(v door.Verifier, next http.Handler) http.Handler {
	if v == nil || next == nil {
		panic("middleware: Protect needs a Verifier and a handler")
	}
	challenge := door.Challenge{Realm: c.Realm}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask := c.request(w, r)
		d := v.Verify(r.Context(), ask)
		if !d.Allowed() {
			challenge.Refuse(w, d)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, &passed{d, ask})))
	})
}

func (c Config) request(w http.ResponseWriter, r *http.Request) watchword.Request {
	id, trace := door.Trace(w, r)
	ask := watchword.Request{Door: "middleware", ID: id, Trace: trace, Method: r.Method, Host: r.Host, UserAgent: r.UserAgent()}
	var xff []string
	if c.Trusted.Trusts(r.RemoteAddr) {
		xff = r.Header["X-Forwarded-For"]
	}
	ask.Peer = c.Trusted.Client(r.RemoteAddr, xff)
	raw := r.URL.RawPath // as it came, where escaping Path would write it differently
	if raw == "" {
		raw = r.URL.EscapedPath()
	}
	path, ok := door.Path(raw)
	if !ok || path != r.URL.Path { // what next routes by must be what is judged
		ask.Problem = watchword.InvalidRequest
		return ask
	}
	ask.Path = path
	ask.Token, ask.Problem = door.Credential(r.Header, r.URL.RawQuery)
	return ask
}

type key struct{}

// passed is what is known of a request that was let through.
type passed struct {
	watchword.Decision
	ask watchword.Request
}

// FromContext returns the Decision that let a request through; not ok: it came another way. Its Answer says whose
// token it is; under a policy that says DangerouslyAllowUnknown, and no other, it may be nil: the request is nobody's.
func FromContext(ctx context.Context) (d watchword.Decision, ok bool) {
	p, ok := ctx.Value(key{}).(*passed)
	if !ok {
		return watchword.Decision{}, false
	}
	return p.Decision, true
}

// Watcher is what Stream needs of a *watchword.Verifier. Safe for concurrent use.
type Watcher interface {
	door.Verifier
	Watch(ctx context.Context, r watchword.Request) watchword.Decision
}

// Ended is why Stream ended a request's context: context.Cause returns it.
type Ended struct{ Decision watchword.Decision }

// Error names the reason.
func (e *Ended) Error() string {
	return "the token is no longer accepted: " + e.Decision.Reason.String()
}

// Stream is Config{}.Stream.
func Stream(v Watcher, next http.Handler) http.Handler { return Config{}.Stream(v, next) }

// Stream is Protect for answers that last: server-sent events, WebSockets, long polls. The context of the request that
// next sees ends when the token stops being acceptable (watchword.Verifier.Watch says how soon), and context.Cause is
// then an *Ended. next must return when its context ends; a connection that it has hijacked it must close itself.
func (c Config) Stream(v Watcher, next http.Handler) http.Handler {
	return c.Protect(v, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := context.WithCancelCause(r.Context())
		watched := make(chan struct{})
		p, _ := ctx.Value(key{}).(*passed) // Protect put it there
		go func() {
			defer close(watched)
			end(&Ended{v.Watch(ctx, p.ask)})
		}()
		defer func() {
			end(nil) // next is done: what Watch says now concerns nobody
			<-watched
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
	}))
}
