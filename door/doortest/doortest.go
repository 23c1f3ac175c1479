// Package doortest drives one list of decisions through any HTTP door, so that doors cannot disagree about what a
// Reason means. It is for tests only.
package doortest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
)

// Token is what the requests of Run carry. It must come out of no door.
const Token = "canary-7f1c0b9e2d6a4835"

// Claims are those of the Answer in every decision that has one.
const Claims = `{"active":true,"sub":"ann","client_id":"web","scope":"orders:read","aud":"https://api.example"}`

// Case is one decision and what a door that is free to speak plain HTTP answers to it.
type Case struct {
	Name     string
	Decision watchword.Decision
	Answer   Answer
}

// Answer is what a client sees.
type Answer struct {
	Status     int
	Challenge  string // WWW-Authenticate; empty: it must be absent
	RetryAfter string // empty: it must be absent
	Degraded   string // X-Watchword-Degraded; empty: it must be absent
	Body       string
}

// Verifier gives the same Decision always, except that a Request with a Problem is refused for it, and keeps what it
// was asked. Safe for concurrent use.
type Verifier struct {
	Decision watchword.Decision
	mu       sync.Mutex
	asked    []watchword.Request
}

// Verify decides.
func (v *Verifier) Verify(_ context.Context, r watchword.Request) watchword.Decision {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = append(v.asked, r)
	if r.Problem != watchword.OK {
		return watchword.Decision{Reason: r.Problem}
	}
	return v.Decision
}

// Asked returns every Request so far.
func (v *Verifier) Asked() []watchword.Request {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]watchword.Request(nil), v.asked...)
}

// Cases are all of them: every Reason, what scopes are told, how long to wait, and an OK of every degradation. The table is written
// out, not derived from Reason.Row: it is what that is checked against.
func Cases() []Case {
	answer, err := watchword.ParseAnswer([]byte(Claims), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	if err != nil {
		panic(err)
	}
	policy := &watchword.Policy{Name: "orders", Scopes: []string{"orders:write", "orders:read"}}
	decided := func(reason watchword.Reason) watchword.Decision {
		return watchword.Decision{Reason: reason, Policy: policy, Issuer: "main", Answer: answer}
	}
	ignorant := func(reason watchword.Reason, wait time.Duration) watchword.Decision {
		return watchword.Decision{Reason: reason, Policy: policy, Issuer: "main", RetryAfter: wait}
	}
	early := func(reason watchword.Reason) watchword.Decision {
		return watchword.Decision{Reason: reason, Policy: policy}
	}
	degraded := func(by watchword.Degradation) watchword.Decision {
		d := decided(watchword.OK)
		d.Degraded, d.Age = by, 2*time.Minute
		d.Err = &watchword.Error{Failure: watchword.Unavailable, Issuer: "main"}
		return d
	}
	nobody := watchword.Decision{Reason: watchword.OK, Policy: policy, Issuer: "main", Degraded: watchword.ServedUnknown,
		Err: &watchword.Error{Failure: watchword.Unavailable, Issuer: "main"}}
	invalid := Answer{Status: 401, Challenge: `Bearer error="invalid_token"`}
	return []Case{
		{"ok", decided(watchword.OK), Answer{Status: 200}},
		{"ok, stale", degraded(watchword.ServedStale), Answer{Status: 200, Degraded: "stale"}},
		{"ok, any age", degraded(watchword.ServedAnyAge), Answer{Status: 200, Degraded: "allow"}},
		{"ok, on hold", degraded(watchword.ServedOnHold), Answer{Status: 200, Degraded: "hold"}},
		{"ok, nobody", nobody, Answer{Status: 200, Degraded: "unknown"}},
		{"no_token", early(watchword.NoToken), Answer{Status: 401, Challenge: "Bearer"}},
		{"no_token, no policy", watchword.Decision{Reason: watchword.NoToken}, Answer{Status: 401, Challenge: "Bearer"}},
		{"invalid_request", early(watchword.InvalidRequest), Answer{Status: 400, Challenge: `Bearer error="invalid_request"`}},
		{"malformed_token", early(watchword.MalformedToken), invalid},
		{"inactive", decided(watchword.Inactive), invalid},
		{"expired", decided(watchword.Expired), invalid},
		{"not_yet_valid", decided(watchword.NotYetValid), invalid},
		{"revoked", decided(watchword.Revoked), invalid},
		{"unknown_issuer", early(watchword.UnknownIssuer), invalid},
		{"audience", decided(watchword.WrongAudience), invalid},
		{"binding", decided(watchword.NotBound), invalid},
		{"scope", decided(watchword.InsufficientScope), Answer{Status: 403, Challenge: `Bearer error="insufficient_scope", scope="orders:write orders:read"`}},
		{"step_up", decided(watchword.StepUp), Answer{Status: 401, Challenge: `Bearer error="insufficient_user_authentication"`}},
		{"policy", decided(watchword.PolicyDenied), Answer{Status: 403}},
		{"policy, none matches", watchword.Decision{Reason: watchword.PolicyDenied}, Answer{Status: 403}},
		{"throttled", ignorant(watchword.TooManyUnknown, 30*time.Second), Answer{Status: 429, RetryAfter: "30"}},
		{"canceled", ignorant(watchword.CallerLeft, 0), Answer{Status: 499}},
		{"unavailable", ignorant(watchword.CannotKnow, 0), Answer{Status: 503, RetryAfter: "1"}},
		{"unavailable, wait", ignorant(watchword.CannotKnow, 1500*time.Millisecond), Answer{Status: 503, RetryAfter: "2"}},
		{"misconfigured", ignorant(watchword.Misconfigured, time.Minute), Answer{Status: 503, RetryAfter: "60"}},
		{"internal", ignorant(watchword.Internal, 0), Answer{Status: 500}},
	}
}

// Run opens a door over every Case and asks it once. ask makes a request that carries token and that nothing else is
// wrong with; want says what this door answers, from the plain Answer in the Case.
func Run(t *testing.T, open func(door.Verifier) http.Handler, ask func(token string) *http.Request, want func(Case) Answer) {
	t.Helper()
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			v := &Verifier{Decision: c.Decision}
			w := httptest.NewRecorder()
			open(v).ServeHTTP(w, ask(Token))
			check(t, w.Result(), want(c))
			if !c.Decision.Allowed() && w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control is %q: a cache may keep this refusal", w.Header()["Cache-Control"])
			}
			asked := v.Asked()
			if len(asked) != 1 {
				t.Fatalf("the Verifier was asked %d times", len(asked))
			}
			if r := asked[0]; string(r.Token) != Token || r.Problem != watchword.OK || r.Door == "" || r.ID == "" {
				t.Errorf("the Verifier was asked with problem %v, door %q, id %q, the right token: %v", r.Problem, r.Door, r.ID, string(r.Token) == Token)
			}
		})
	}
}

func check(t *testing.T, got *http.Response, want Answer) {
	t.Helper()
	if got.StatusCode != want.Status {
		t.Errorf("status %d, want %d", got.StatusCode, want.Status)
	}
	for name, value := range map[string]string{"WWW-Authenticate": want.Challenge, "Retry-After": want.RetryAfter, "X-Watchword-Degraded": want.Degraded} {
		switch v := got.Header.Values(name); {
		case value == "" && len(v) > 0:
			t.Errorf("%s: %q, want none", name, v)
		case value != "" && (len(v) != 1 || v[0] != value):
			t.Errorf("%s: %q, want %q", name, v, value)
		}
	}
	body, err := io.ReadAll(got.Body)
	if err != nil || string(body) != want.Body {
		t.Errorf("body %q (%v), want %q", body, err, want.Body)
	}
	var all strings.Builder
	if err := got.Header.Write(&all); err != nil {
		t.Error(err)
	}
	if strings.Contains(all.String()+string(body), Token) {
		t.Error("the token came out")
	}
}
