package forwardauth

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
	"github.com/watchword-dev/watchword/door/doortest"
)

const gateway = "10.0.0.1:4711"

var gateways = door.Peers{netip.MustParsePrefix("10.0.0.0/8")}

func open(t testing.TB, c Config) *Door {
	t.Helper()
	if c.Trusted == nil && !c.TrustAll {
		c.Trusted = gateways
	}
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ask is the request of a gateway: its target, then header lines.
func ask(method, target string, lines ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = gateway
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func allow() *doortest.Verifier { return &doortest.Verifier{Decision: doortest.Cases()[0].Decision} }

func plain(c doortest.Case) doortest.Answer { return c.Answer }

// Covers: CHA-01 CHA-02 CHA-03 CHA-04 CHA-06
func TestCHA01_CHA03_CHA04_CHA06StandardProfile(t *testing.T) {
	t.Parallel()
	doortest.Run(t, func(v door.Verifier) http.Handler { return open(t, Config{Verifier: v}) }, func(token string) *http.Request {
		return ask("GET", "/check", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders/1", "Authorization: Bearer "+token)
	}, plain)
}

// Covers: ENV-06
func TestENV06EnvoyProfile(t *testing.T) {
	t.Parallel()
	doortest.Run(t, func(v door.Verifier) http.Handler {
		return open(t, Config{Verifier: v, Profile: Envoy, PathPrefix: "/authz"})
	}, func(token string) *http.Request {
		return ask("GET", "/authz/orders/1", "Authorization: Bearer "+token)
	}, plain)
}

// Covers: FWD-01
func TestFWD01NginxProfile(t *testing.T) {
	t.Parallel()
	request := func(token string) *http.Request {
		return ask("GET", "/check", "X-Original-Method: GET", "X-Original-URI: /orders/1", "Authorization: Bearer "+token)
	}
	doortest.Run(t, func(v door.Verifier) http.Handler { return open(t, Config{Verifier: v, Profile: Nginx}) }, request, func(c doortest.Case) doortest.Answer {
		a := c.Answer
		if a.Status != 200 && a.Status != 401 {
			a.Status = 403
		}
		return a
	})
	for _, c := range doortest.Cases() {
		for _, p := range []Profile{Standard, Nginx, Envoy} {
			w := httptest.NewRecorder()
			open(t, Config{Verifier: &doortest.Verifier{Decision: c.Decision}, Profile: p}).ServeHTTP(w, request("abc"))
			got := w.Header()["X-Watchword-Reason"]
			if p == Nginx && (len(got) != 1 || got[0] != c.Decision.Reason.String()) || p != Nginx && got != nil {
				t.Errorf("%s, profile %s: X-Watchword-Reason %q", c.Name, p, got)
			}
		}
	}
}

func TestFWD01UnknownReasonIsInternal(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	open(t, Config{Verifier: &doortest.Verifier{Decision: watchword.Decision{Reason: 200}}, Profile: Nginx}).ServeHTTP(w, ask("GET", "/", bearer, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /"))
	if got := w.Header().Get("X-Watchword-Reason"); w.Code != 403 || got != "internal" {
		t.Errorf("%d %q", w.Code, got)
	}
}

func TestDegradedIsMarked(t *testing.T) {
	t.Parallel()
	for _, c := range doortest.Cases() {
		w := httptest.NewRecorder()
		open(t, Config{Verifier: &doortest.Verifier{Decision: c.Decision}}).ServeHTTP(w, ask("GET", "/", bearer, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /"))
		if got, want := w.Header().Get("X-Watchword-Degraded"), c.Answer.Degraded; got != want {
			t.Errorf("%s: X-Watchword-Degraded %q, want %q", c.Name, got, want)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: it may be cached", c.Name)
		}
	}
}

// Covers: FWD-04 T19
func TestFWD04_T19IdentityHeadersInEvery200(t *testing.T) {
	t.Parallel()
	headers := map[string]string{"X-Auth-Subject": "sub", "X-Auth-Groups": "groups", "X-Auth-Audience": "aud", "X-Auth-Odd": "odd"}
	odd, err := watchword.ParseAnswer([]byte(`{"active":true,"sub":"a\u00e9","odd":{}}`), watchword.Evidence{})
	if err != nil {
		t.Fatal(err)
	}
	f := func(decision watchword.Decision, want string, unheaderable int) {
		t.Helper()
		n := 0
		d := open(t, Config{Verifier: &doortest.Verifier{Decision: decision}, Headers: headers, OnUnheaderable: func(string) { n++ }})
		w := httptest.NewRecorder()
		d.ServeHTTP(w, ask("GET", "/", bearer, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /", "X-Auth-Subject: mallory", "X-Auth-Groups: admin", "X-Auth-Odd: x"))
		var got []string
		for _, name := range []string{"X-Auth-Subject", "X-Auth-Groups", "X-Auth-Audience", "X-Auth-Odd"} {
			if v := w.Header()[name]; len(v) == 1 {
				got = append(got, "<"+v[0]+">")
			}
		}
		if s := strings.Join(got, ""); s != want || n != unheaderable {
			t.Errorf("%v: %s, %d unheaderable; want %s, %d", decision.Reason, s, n, want, unheaderable)
		}
	}
	f(allow().Decision, "<ann><><https://api.example><>", 0)
	f(watchword.Decision{Answer: odd}, "<><><><>", 2)
	f(watchword.Decision{}, "<><><><>", 0)
	f(watchword.Decision{Reason: watchword.InsufficientScope, Answer: allow().Decision.Answer}, "", 0)
}

// Covers: T22 FWD-02
func TestT22_FWD02NewAsksWhoIsTrusted(t *testing.T) {
	t.Parallel()
	f := func(want string, c Config) {
		t.Helper()
		d, err := New(c)
		switch {
		case want == "" && err != nil:
			t.Errorf("%+v: %v", c, err)
		case want != "" && (err == nil || d != nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%+v: %v, want something about %q", c, err, want)
		}
	}
	v := allow()
	f("no peer is trusted", Config{Verifier: v})
	f("", Config{Verifier: v, TrustAll: true})
	f("", Config{Verifier: v, Trusted: gateways, Profile: Envoy, PathPrefix: "/a/b"})
	f("leave one out", Config{Verifier: v, Trusted: gateways, TrustAll: true})
	f("as IPv4", Config{Verifier: v, Trusted: door.Peers{netip.MustParsePrefix("::ffff:10.0.0.0/104")}})
	f("as IPv4", Config{Verifier: v, Trusted: door.Peers{{}}})
	f("Verifier", Config{TrustAll: true})
	f("none of standard", Config{Verifier: v, TrustAll: true, Profile: "traefik"})
	f("profile envoy only", Config{Verifier: v, TrustAll: true, PathPrefix: "/authz"})
	for _, prefix := range []string{"authz", "/authz/", "/", "/a%20", "/../a", "//"} {
		f("plain path", Config{Verifier: v, TrustAll: true, Profile: Envoy, PathPrefix: prefix})
	}
	f("identity header", Config{Verifier: v, TrustAll: true, Headers: map[string]string{"X_A": "sub"}})
	_, err := New(Config{Profile: "x", PathPrefix: "y"})
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("not every mistake at once: %v", err)
	}
}
