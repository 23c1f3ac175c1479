package forwardauth

import (
	"context"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

func reads(path string, scopes ...string) watchword.Route {
	return watchword.Route{Match: watchword.Match{Paths: []string{path}}, Policy: watchword.Policy{Name: path, Scopes: scopes, Freshness: watchword.Freshness{MaxStaleness: time.Hour}}}
}

func status(t *testing.T, d *Door, want int, challenge, uri string, lines ...string) {
	t.Helper()
	w := httptest.NewRecorder()
	d.ServeHTTP(w, ask("GET", "/check", append(lines, "X-Forwarded-Method: GET", "X-Forwarded-Uri: "+uri)...))
	if got := w.Header().Get("WWW-Authenticate"); w.Code != want || got != challenge {
		t.Errorf("%s: %d %q, want %d %q", uri, w.Code, got, want, challenge)
	}
}

const bearer = "Authorization: Bearer abc"

// Covers: POP-14 POP-20
func TestPOP14_POP20BoundTokenAsBearer(t *testing.T) {
	t.Parallel()
	for _, cnf := range []string{`{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`, `{"x5t#S256":"abc"}`, `{"new":"thing"}`, `{}`} {
		status(t, realDoor(t, `{"active":true,"token_type":"DPoP","cnf":`+cnf+`}`), 401, `Bearer error="invalid_token"`, "/", bearer)
	}
	status(t, realDoor(t, `{"active":true}`), 200, "", "/", bearer)
}

// Covers: T1 CHA-01 CHA-03 CHA-04
func TestT1_CHA04ScopeIsAskedOnEveryRoute(t *testing.T) {
	t.Parallel()
	// One answer for all: the second request is a hit, and must be judged by its own policy.
	kept, err := watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann","scope":"read"}`), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
		asked.Add(1)
		return kept, nil
	})
	d := open(t, Config{Verifier: verifier(t, src, reads("/a", "read"), reads("/b", "write", "read"))})
	for range 3 {
		status(t, d, 200, "", "/a", bearer)
		status(t, d, 403, `Bearer error="insufficient_scope", scope="write read"`, "/b", bearer)
		status(t, d, 403, "", "/c", bearer) // no policy
	}
	if asked.Load() != 6 {
		t.Errorf("the source was asked %d times", asked.Load())
	}
	status(t, d, 401, "Bearer", "/a")
	status(t, d, 401, "Bearer", "/c") // what is wrong with the request comes first
	status(t, d, 401, `Bearer error="invalid_token"`, "/a", "Authorization: Bearer a b")
	status(t, d, 400, `Bearer error="invalid_request"`, "/a/../b", bearer)
	status(t, d, 400, `Bearer error="invalid_request"`, "/a", bearer, "Authorization: Basic YTpi")
	status(t, realDoor(t, `{"active":false}`), 401, `Bearer error="invalid_token"`, "/", bearer)
}

// Covers: CHA-06
func TestCHA06OutageIs503(t *testing.T) {
	t.Parallel()
	f := func(failure watchword.Failure, want int) {
		t.Helper()
		src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
			return nil, &watchword.Error{Failure: failure, Issuer: "main", RetryAfter: 7 * time.Second}
		})
		d := open(t, Config{Verifier: verifier(t, src)})
		w := httptest.NewRecorder()
		d.ServeHTTP(w, ask("GET", "/", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /", bearer))
		if w.Code != want || w.Header().Get("WWW-Authenticate") != "" || want != 499 && w.Header().Get("Retry-After") != "7" {
			t.Errorf("%v: %d, %v", failure, w.Code, w.Header())
		}
	}
	f(watchword.Unavailable, 503)
	f(watchword.ProtocolError, 503)
	f(watchword.ClientRejected, 503)
	f(watchword.ConfigError, 503)
	f(watchword.Throttled, 429)
	f(watchword.Canceled, 499)
}

// Method tricks do not reach another policy.
func TestMethodsAreCompared(t *testing.T) {
	t.Parallel()
	get := reads("/orders")
	get.Match.Methods = []string{"GET"}
	kept := `{"active":true}`
	d := realDoor(t, kept, get)
	f := func(want int, method string, lines ...string) {
		t.Helper()
		w := httptest.NewRecorder()
		d.ServeHTTP(w, ask("GET", "/check", append(lines, bearer, "X-Forwarded-Method: "+method, "X-Forwarded-Uri: /orders")...))
		if w.Code != want {
			t.Errorf("%s %q: %d, want %d", method, lines, w.Code, want)
		}
	}
	f(200, "GET")
	f(403, "get")
	f(403, "TRACE")
	f(403, "POST", "X-HTTP-Method-Override: GET", "X-HTTP-Method: GET")
	f(400, "GET,POST")
}
