package door

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

func refusal(c Challenge, d watchword.Decision) http.Header {
	w := httptest.NewRecorder()
	c.Refuse(w, d)
	return w.Header()
}

func challenge(t *testing.T, realm string, d watchword.Decision, want string) {
	t.Helper()
	got := refusal(Challenge{Realm: realm}, d)["Www-Authenticate"]
	if want == "" && got != nil || want != "" && (len(got) != 1 || got[0] != want) {
		t.Errorf("realm %q, %v: %q, want %q", realm, d.Reason, got, want)
	}
}

// Covers: CHA-01 CHA-03
func TestCHA01_CHA03Challenges(t *testing.T) {
	t.Parallel()
	challenge(t, "", watchword.Decision{Reason: watchword.NoToken}, "Bearer")
	challenge(t, "api", watchword.Decision{Reason: watchword.NoToken}, `Bearer realm="api"`)
	challenge(t, "", watchword.Decision{Reason: watchword.Inactive}, `Bearer error="invalid_token"`)
	challenge(t, "api", watchword.Decision{Reason: watchword.Inactive}, `Bearer realm="api", error="invalid_token"`)
	challenge(t, "", watchword.Decision{Reason: watchword.InvalidRequest}, `Bearer error="invalid_request"`)
	challenge(t, "api", watchword.Decision{Reason: watchword.PolicyDenied}, "")
}

// Covers: CHA-04
func TestCHA04AllRequiredScopes(t *testing.T) {
	t.Parallel()
	lacks := func(scopes ...string) watchword.Decision {
		return watchword.Decision{Reason: watchword.InsufficientScope, Policy: &watchword.Policy{Scopes: scopes}}
	}
	challenge(t, "", lacks("write", "read", "a:b"), `Bearer error="insufficient_scope", scope="write read a:b"`)
	challenge(t, "api", lacks("read"), `Bearer realm="api", error="insufficient_scope", scope="read"`)
	challenge(t, "", watchword.Decision{Reason: watchword.InsufficientScope}, `Bearer error="insufficient_scope"`)
	for _, bad := range []string{`a"b`, `a\b`, "a\r\nX: y", "é"} { // RFC 6750 §3: not in a scope attribute
		challenge(t, "", lacks("read", bad), `Bearer error="insufficient_scope"`)
	}
}

// Covers: CHA-06
func TestCHA06IgnoranceIsNoInvalidToken(t *testing.T) {
	t.Parallel()
	for _, realm := range []string{"", "api"} {
		for _, r := range []watchword.Reason{watchword.CannotKnow, watchword.Misconfigured, watchword.TooManyUnknown, watchword.CallerLeft, watchword.Internal, 250} {
			challenge(t, realm, watchword.Decision{Reason: r}, "")
		}
	}
}

// Covers: CHA-07
func TestCHA07Realm(t *testing.T) {
	t.Parallel()
	f := func(realm, want string) {
		t.Helper()
		challenge(t, realm, watchword.Decision{Reason: watchword.Inactive}, want)
	}
	f(`my "api"`, `Bearer realm="my \"api\"", error="invalid_token"`)
	f(`a\b`, `Bearer realm="a\\b", error="invalid_token"`)
	f(`a", error="x`, `Bearer realm="a\", error=\"x", error="invalid_token"`)
	for _, dropped := range []string{"a\r\nSet-Cookie: x=1", "a\nb", "a\x00", "caf\u00e9", "a\tb", "a\x7f", "\xff"} {
		f(dropped, `Bearer error="invalid_token"`)
		challenge(t, dropped, watchword.Decision{Reason: watchword.NoToken}, "Bearer")
	}
}

func TestRefuseIsNeverConsent(t *testing.T) {
	t.Parallel()
	for r := range watchword.Reason(255) {
		w := httptest.NewRecorder()
		Challenge{}.Refuse(w, watchword.Decision{Reason: r})
		if w.Code < 400 || w.Body.Len() > 0 || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%v: status %d, body %q, headers %v", r, w.Code, w.Body, w.Header())
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	f := func(d time.Duration, want string) {
		t.Helper()
		for _, r := range []watchword.Reason{watchword.CannotKnow, watchword.Misconfigured, watchword.TooManyUnknown} {
			if got := refusal(Challenge{}, watchword.Decision{Reason: r, RetryAfter: d})["Retry-After"]; len(got) != 1 || got[0] != want {
				t.Errorf("%v, %v: %q, want %q", r, d, got, want)
			}
		}
	}
	f(0, "1")
	f(-time.Hour, "1")
	f(time.Nanosecond, "1")
	f(time.Second, "1")
	f(time.Second+1, "2")
	f(time.Minute, "60")
	f(time.Minute+1, "61")
	f(time.Hour, "3600")
	if got := refusal(Challenge{}, watchword.Decision{Reason: watchword.Internal, RetryAfter: time.Hour})["Retry-After"]; got != nil {
		t.Errorf("internal: Retry-After %q", got)
	}
}

func TestRefuseSharesItsHeaders(t *testing.T) {
	w := &discard{h: http.Header{}}
	for _, r := range []watchword.Reason{watchword.NoToken, watchword.Inactive, watchword.CannotKnow} {
		d := watchword.Decision{Reason: r, RetryAfter: 3 * time.Second}
		if n := testing.AllocsPerRun(100, func() { clear(w.h); Challenge{}.Refuse(w, d) }); n != 0 {
			t.Errorf("%v: %v allocations", r, n)
		}
	}
}
