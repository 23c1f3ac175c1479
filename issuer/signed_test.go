package issuer

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// Covers: JIR-01 JIR-03
func TestJIR03SignedAnswersAreAskedForAndNothingElseAccepted(t *testing.T) {
	t.Parallel()
	kind := ""
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write([]byte(`{"active":true,"sub":"plain"}`))
	})
	var at time.Time
	var fails error
	c := client(t, s.URL, func(c *Config) {
		c.Signed = func(_ context.Context, jwt []byte, asked time.Time) ([]byte, error) {
			if at = asked; !strings.Contains(string(jwt), "plain") {
				t.Errorf("opens %s", jwt)
			}
			return []byte(`{"active":true,"sub":"opened"}`), fails
		}
	})
	for _, kind = range []string{"application/token-introspection+jwt", "Application/Token-Introspection+JWT; charset=utf-8"} {
		before := time.Now()
		if a := answer(t, c); a.Subject() != "opened" || at.Before(before) || at.After(time.Now()) {
			t.Errorf("%s: %s, asked at %v", kind, a.Subject(), at)
		}
		if q := s.last(t); q.header.Get("Accept") != "application/token-introspection+jwt" || len(q.header["Accept"]) != 1 {
			t.Errorf("Accept: %v", q.header["Accept"])
		}
	}
	for _, kind = range []string{"application/json", "application/jwt", "text/plain"} {
		_, err := c.Introspect(t.Context(), query())
		wanted(t, nil, err, watchword.ProtocolError)
	}
	kind = "application/token-introspection+jwt"
	fails = &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", RetryAfter: time.Second, Cause: errors.New("no keys")}
	_, err := c.Introspect(t.Context(), query())
	if e := wanted(t, nil, err, watchword.Unavailable); e.RetryAfter != time.Second || !strings.Contains(e.Error(), s.URL) {
		t.Error(e)
	}
	if plain := client(t, s.URL); plain.Shape().Asking == c.Shape().Asking {
		t.Error("a signed answer and a plain one are one entry")
	}
}
