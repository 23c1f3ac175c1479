package watchword_test

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// fake is a Source that remembers what it was asked.
type fake struct {
	answer func(n int, q watchword.Query) (*watchword.Answer, error)
	asked  []watchword.Query
}

func (f *fake) Introspect(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
	f.asked = append(f.asked, q)
	return f.answer(len(f.asked), q)
}

// says answers body to every question, asked just then.
func says(body string) *fake {
	return &fake{answer: func(_ int, q watchword.Query) (*watchword.Answer, error) {
		return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
	}}
}

func verifier(t testing.TB, c watchword.Config) *watchword.Verifier {
	t.Helper()
	v, err := watchword.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// mistakes expects New to refuse c and to name every one of wants.
func mistakes(t *testing.T, c watchword.Config, wants ...string) {
	t.Helper()
	v, err := watchword.New(c)
	if err == nil || v != nil {
		t.Errorf("accepted, want %q", wants)
		return
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %q", err, want)
		}
	}
}

// policyOf tells which of routes decides r.
func policyOf(t *testing.T, r watchword.Request, routes ...watchword.Route) string {
	t.Helper()
	v := verifier(t, watchword.Config{Source: says(`{"active":true}`), Issuers: []watchword.Issuer{{Name: "main"}}, Routes: routes})
	r.Token = "t"
	d := v.Verify(t.Context(), r)
	if (d.Policy == nil) != (d.Reason == watchword.PolicyDenied) {
		t.Errorf("%v by %v", d.Reason, d.Policy)
	}
	if d.Policy == nil {
		return ""
	}
	return d.Policy.Name
}

func TestPathsMatch(t *testing.T) {
	t.Parallel()
	f := func(pattern, path string, want bool) {
		t.Helper()
		if got := policyOf(t, watchword.Request{Path: path}, watchword.Route{Match: watchword.Match{Paths: []string{"/nowhere", pattern}}, Policy: watchword.Policy{Name: "p"}}) == "p"; got != want {
			t.Errorf("%s matches %q: %v", pattern, path, got)
		}
	}
	f("/orders", "/orders", true)
	f("/orders", "/orders/", false)
	f("/orders", "/Orders", false)
	f("/orders", "/orders/1", false)
	f("/orders", "", false)
	f("/orders/*", "/orders/", true)
	f("/orders/*", "/orders/1/2", true)
	f("/orders/*", "/orders", false)
	f("/orders/*", "/ordersx", false)
	f("/orders/*", "/ORDERS/1", false)
	f("/orders*", "/orders", true)
	f("/orders*", "/ordersx", true)
	f("/*", "/", true)
	f("/*", "/x", true)
	f("/*", "", false)
	f("/", "/", true)
	f("/", "/x", false)
	f("/a b", "/a b", true) // percent-decoded
	f("/a", "/a?x", false)
}

func TestHostsMatch(t *testing.T) {
	t.Parallel()
	f := func(pattern, host string, want bool) {
		t.Helper()
		if got := policyOf(t, watchword.Request{Host: host}, watchword.Route{Match: watchword.Match{Hosts: []string{"nowhere.example", pattern}}, Policy: watchword.Policy{Name: "p"}}) == "p"; got != want {
			t.Errorf("%s matches %q: %v", pattern, host, got)
		}
	}
	for _, host := range []string{"api.example", "API.Example", "api.example.", "api.example:443", "api.example.:8080", "API.EXAMPLE.:1"} {
		f("api.example", host, true)
		f("Api.Example.:80", host, true)
	}
	for _, host := range []string{"", "example", "x.api.example", "api.example.evil", "api.example..", "api.example:80:90", "api.example/x", "user@api.example", "api.example ", "\u212aapi.example"} {
		f("api.example", host, false)
	}
	f("kube.example", "\u212aube.example", false) // only ASCII letters fold: no name server folds more
	f("[::1]", "[::1]:8080", true)
	f("[::1]", "[::1]", true)
	f("[::1]:80", "[::1]", true)
	f("[::1]", "[::2]", false)
	f("[::a]", "[::A]", true)
	f("::1", "::2", false)
	f("10.0.0.1", "10.0.0.1:1", true)
}

func TestMethodsMatchExactly(t *testing.T) {
	t.Parallel()
	f := func(methods []string, method string, want bool) {
		t.Helper()
		if got := policyOf(t, watchword.Request{Method: method}, watchword.Route{Match: watchword.Match{Methods: methods}, Policy: watchword.Policy{Name: "p"}}) == "p"; got != want {
			t.Errorf("%v matches %q: %v", methods, method, got)
		}
	}
	f([]string{"GET", "POST"}, "POST", true)
	f([]string{"GET"}, "get", false)
	f([]string{"GET"}, "HEAD", false)
	f([]string{"GET"}, "", false)
	f(nil, "BREW", true)
}

// Abuse 4: all lists of a match must hold, and the first route that matches decides.
func TestFirstMatchDecides(t *testing.T) {
	t.Parallel()
	routes := []watchword.Route{
		{Match: watchword.Match{Hosts: []string{"a"}, Paths: []string{"/x/*"}, Methods: []string{"GET"}}, Policy: watchword.Policy{Name: "1"}},
		{Match: watchword.Match{Paths: []string{"/x/y"}}, Policy: watchword.Policy{Name: "2"}},
		{Match: watchword.Match{Hosts: []string{"b"}}, Policy: watchword.Policy{Name: "3"}},
	}
	f := func(method, host, path, want string) {
		t.Helper()
		if got := policyOf(t, watchword.Request{Method: method, Host: host, Path: path}, routes...); got != want {
			t.Errorf("%s %s%s: %q, want %q", method, host, path, got, want)
		}
	}
	f("GET", "a", "/x/y", "1")
	f("POST", "a", "/x/y", "2")
	f("GET", "b", "/x/y", "2")
	f("GET", "b", "/x/z", "3")
	f("POST", "a", "/x/z", "") // nothing matches: PolicyDenied
	f("GET", "a", "/y", "")
}

func jwt(payload string) watchword.Token {
	return watchword.Token("eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln")
}

// asks tells which of issuers is shown token, under a policy that accepts accepted.
func asks(t *testing.T, token watchword.Token, accepted []string, issuers ...watchword.Issuer) string {
	t.Helper()
	src := says(`{"active":true}`)
	v := verifier(t, watchword.Config{Source: src, Issuers: issuers, Callers: []watchword.Policy{{Name: "c", Issuers: accepted}}})
	d := v.Verify(t.Context(), watchword.Request{Token: token, Caller: "c"})
	switch {
	case len(src.asked) == 0 && d.Reason == watchword.UnknownIssuer && d.Issuer == "" && d.Key == watchword.Key{} && d.Answer == nil:
		return ""
	case len(src.asked) != 1 || d.Reason != watchword.OK || src.asked[0].Issuer != d.Issuer:
		t.Errorf("%v by %q after %d questions", d.Reason, d.Issuer, len(src.asked))
	}
	return d.Issuer
}

// CONTRACT §1, whom to ask: the longest prefix, else the issuer that a JWT names, else the one without prefixes; and
// no issuer is ever shown what another configured one issued.
//
// Covers: POL-07
func TestT3_T33WhomToAsk(t *testing.T) {
	t.Parallel()
	a := watchword.Issuer{Name: "a", ID: "https://a.example", Prefixes: []string{"ory_at_", "ory_"}}
	b := watchword.Issuer{Name: "b", ID: "https://b.example", Prefixes: []string{"ory_b_"}}
	c := watchword.Issuer{Name: "c", ID: "https://c.example"}
	d := watchword.Issuer{Name: "d", Prefixes: []string{"eyJ"}}
	f := func(token watchword.Token, want string, accepted []string, issuers ...watchword.Issuer) {
		t.Helper()
		if got := asks(t, token, accepted, issuers...); got != want {
			t.Errorf("%.30q of %v: %q, want %q", string(token), accepted, got, want)
		}
	}
	f("ory_at_1", "a", nil, a, b, c)
	f("ory_1", "a", nil, a, b, c)
	f("ory_b_1", "b", nil, a, b, c) // the longest, in any order
	f("ory_b_1", "b", nil, b, a, c)
	f("opaque", "c", nil, a, b, c)
	f("opaque", "", nil, a, b) // nobody takes it
	f("ory_", "a", nil, a, b)
	f("Ory_at_1", "", nil, a, b)
	f("ory_b_1", "a", []string{"a", "c"}, a, b, c) // b is not accepted here, and an opaque token names nobody
	f("opaque", "", []string{"a"}, a, b, c)

	f(jwt(`{"iss":"https://a.example"}`), "a", nil, a, b, c)
	f(jwt(`{"iss":"https://b.example"}`), "b", nil, a, b, c)
	f(jwt(`{"iss":"https://c.example"}`), "c", nil, a, b, c)
	f(jwt(`{"iss":"https://stranger.example"}`), "c", nil, a, b, c)
	f(jwt(`{"iss":"https://stranger.example"}`), "", nil, a, b)
	f(jwt(`{"iss":"https://a.example"}`), "", []string{"b", "c"}, a, b, c) // never to c, though c takes the rest
	f(jwt(`{"iss":"https://a.example"}`), "", []string{"c"}, a, c)
	f(jwt(`{"iss":"https://a.example/"}`), "c", []string{"c"}, a, c) // another identifier
	f(jwt(`{"iss":"https://A.example"}`), "c", []string{"c"}, a, c)
	f(jwt(`{"iss":"https://a.example"}`), "", nil, d, a, c) // d's prefix, a's token: to nobody
	f(jwt(`{"iss":"https://stranger.example"}`), "d", nil, d, a, c)
	f(jwt(`{"sub":"x"}`), "d", nil, d, a, c)
	f(jwt(`{"iss":"https://a.example"}`), "c", nil, c) // c knows of no other
	f(jwt(`{"iss":["https://a.example"]}`), "c", []string{"c"}, a, c)
	f(jwt(`{"x":{"iss":"https://a.example"}}`), "c", []string{"c"}, a, c)
	f(jwt(`{"iss":"\u0068ttps://a.example"}`), "", []string{"c"}, a, c)

	// An object that cannot be read for sure may be another's: to nobody.
	f(jwt(`{"iss":"https://a.example","iss":"https://c.example"}`), "", []string{"c"}, a, c)
	f(jwt(`{"iss":"https://c.example","iss":"https://a.example"}`), "", nil, a, c)
	f(jwt(`{"ISS":"https://a.example"}`), "", []string{"c"}, a, c)
	f(jwt(`{"iss":"https://a.example","x":{"y":1,"y":2}}`), "", []string{"c"}, a, c)
	f(jwt(`{"iss":"https://a.example","Scope":"x"}`), "c", nil, c)

	// What is no JWT is opaque.
	for _, opaque := range []watchword.Token{"a.b.c", "..", "a..c", ".b.", jwt(`[]`), jwt(`"x"`), jwt(`{`), jwt(`null`), "x." + watchword.Token(base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://a.example"}`))),
		jwt(`{"iss":"https://a.example"}`) + ".x.y", watchword.Token(base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://a.example"}`)))} {
		f(opaque, "c", nil, a, b, c)
	}
}

func TestT3ChanceIsAMistake(t *testing.T) {
	t.Parallel()
	src := says(`{"active":true}`)
	f := func(p watchword.Policy, issuers []watchword.Issuer, wants ...string) {
		t.Helper()
		c := watchword.Config{Source: src, Issuers: issuers, Callers: []watchword.Policy{p}}
		p.Name = "route"
		r := watchword.Config{Source: src, Issuers: issuers, Routes: []watchword.Route{{Policy: p}}}
		if len(wants) > 0 {
			mistakes(t, c, wants...)
			mistakes(t, r, wants...)
			return
		}
		verifier(t, c)
		verifier(t, r)
	}
	open := []watchword.Issuer{{Name: "a"}, {Name: "b"}, {Name: "p", Prefixes: []string{"p_"}}}
	f(watchword.Policy{Name: "x"}, open, `issuers "a" and "b"`)
	f(watchword.Policy{Name: "x", Issuers: []string{"a", "b"}}, open, `issuers "a" and "b"`)
	f(watchword.Policy{Name: "x", Issuers: []string{"a", "p"}}, open)
	f(watchword.Policy{Name: "x", Issuers: []string{"b"}}, open)
	same := []watchword.Issuer{{Name: "a", Prefixes: []string{"x_", "t_"}}, {Name: "b", Prefixes: []string{"t_"}}}
	f(watchword.Policy{Name: "x"}, same, `issuers "a" and "b"`, `"t_"`)
	f(watchword.Policy{Name: "x", Issuers: []string{"a"}}, same)
	f(watchword.Policy{Name: "x", Issuers: []string{"a", "nobody", "noone"}}, same, `"nobody"`, `"noone"`)
	f(watchword.Policy{Name: "x"}, []watchword.Issuer{{Name: "a", Prefixes: []string{""}}}, `issuer "a"`, "empty prefix")
	f(watchword.Policy{Name: "x", Scopes: []string{""}}, open[:1], "scope")
	f(watchword.Policy{Name: "x", Scopes: []string{"a b"}}, open[:1], `scope "a b"`)
	f(watchword.Policy{Name: "x", Scopes: []string{"a\"b"}}, open[:1], "scope")
	f(watchword.Policy{Name: "x", Scopes: []string{"a\\b"}}, open[:1], "scope")
	f(watchword.Policy{Name: "x", Scopes: []string{"é"}}, open[:1], "scope")
	f(watchword.Policy{Name: "x", Scopes: []string{"https://a.example/x!#[]~"}}, open[:1])
	f(watchword.Policy{Name: "x", Audience: []string{"a", ""}}, open[:1], "audience")
	f(watchword.Policy{Name: "x", Freshness: watchword.Freshness{MaxStaleness: -1}}, open[:1], "max_staleness")
}

// Every mistake of a configuration at once.
func TestCAC05EveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	mistakes(t, watchword.Config{}, "Source is missing", "Issuers is empty")
	mistakes(t, watchword.Config{
		Issuers: []watchword.Issuer{{Name: "a"}, {Name: "a"}, {Name: ""}},
		Routes: []watchword.Route{
			{Match: watchword.Match{Paths: []string{"x", "/a*b", "/**"}, Hosts: []string{""}}, Policy: watchword.Policy{Name: "r1", Issuers: []string{"z"}, Freshness: watchword.Freshness{MaxAge: -1}}},
			{Match: watchword.Match{Methods: []string{""}, Hosts: []string{":80"}}, Policy: watchword.Policy{Name: "r2", Audience: []string{""}}},
		},
		Callers: []watchword.Policy{{Name: "c"}, {Name: "c"}, {Name: ""}},
	}, "Source is missing", `issuer name "a"`, `issuer name ""`, `path "x"`, `path "/a*b"`, `path "/**"`, `"r1"`, `"z"`, "max_age", `"r2"`, "audience", "empty host or method", `host ":80"`, `caller name "c"`, `caller name ""`)
}

// A configuration is copied: what its maker does to it afterwards changes no decision.
func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	seen := 0
	count := observer(func(watchword.Request, watchword.Decision) { seen++ })
	c := watchword.Config{Source: says(`{"active":true,"scope":"read","aud":"api"}`), Issuers: []watchword.Issuer{{Name: "main", Prefixes: []string{"t_"}}},
		Observers: []watchword.Observer{count},
		Routes: []watchword.Route{{Match: watchword.Match{Hosts: []string{"h"}, Paths: []string{"/p"}, Methods: []string{"GET"}},
			Policy: watchword.Policy{Name: "p", Issuers: []string{"main"}, Scopes: []string{"read"}, Audience: []string{"api"}}}},
		Callers: []watchword.Policy{{Name: "c", Scopes: []string{"read"}}}}
	v := verifier(t, c)
	c.Issuers[0].Prefixes[0], c.Issuers[0].Name = "x_", "x"
	c.Routes[0].Match = watchword.Match{Hosts: []string{"x"}}
	c.Routes[0].Policy.Issuers[0], c.Routes[0].Policy.Scopes[0], c.Routes[0].Policy.Audience[0] = "x", "x", "x"
	c.Callers[0].Scopes[0] = "x"
	c.Observers[0] = nil
	for _, r := range []watchword.Request{{Token: "t_1", Host: "h", Path: "/p", Method: "GET"}, {Token: "t_1", Caller: "c"}} {
		if d := v.Verify(t.Context(), r); d.Reason != watchword.OK || d.Issuer != "main" {
			t.Errorf("%v by %q", d.Reason, d.Issuer)
		}
	}
	if seen != 2 {
		t.Errorf("observed %d times", seen)
	}
}

type observer func(watchword.Request, watchword.Decision)

func (o observer) Observe(r watchword.Request, d watchword.Decision, _ time.Duration) { o(r, d) }

// What is wrong with the request comes before its policy, and nobody is asked.
//
// Covers: INT-21 T16 CHA-01
func TestProblemsComeFirst(t *testing.T) {
	t.Parallel()
	src := says(`{"active":true}`)
	v := verifier(t, watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Match: watchword.Match{Paths: []string{"/p"}}, Policy: watchword.Policy{Name: "p"}}}, Callers: []watchword.Policy{{Name: "c"}}})
	f := func(r watchword.Request, want watchword.Reason) {
		t.Helper()
		d := v.Verify(t.Context(), r)
		if d.Reason != want || d.Allowed() || d.Answer != nil || d.Issuer != "" || d.Source() != "none" {
			t.Errorf("%+v: %v, %+v", r, d.Reason, d)
		}
		if len(src.asked) > 0 {
			t.Errorf("%+v: somebody was asked", r)
		}
	}
	for _, path := range []string{"/p", "/nowhere"} {
		f(watchword.Request{Path: path}, watchword.NoToken)
		f(watchword.Request{Path: path, Token: "a b"}, watchword.MalformedToken)
		f(watchword.Request{Path: path, Token: "t", Problem: watchword.InvalidRequest}, watchword.InvalidRequest)
		f(watchword.Request{Path: path, Problem: watchword.InvalidRequest}, watchword.InvalidRequest)
		f(watchword.Request{Path: path, Token: "t", Problem: watchword.NoToken}, watchword.NoToken)
	}
	f(watchword.Request{Path: "/nowhere", Token: "t"}, watchword.PolicyDenied)
	f(watchword.Request{Path: "/p", Token: "t", Caller: "stranger"}, watchword.PolicyDenied) // not the route's policy
	f(watchword.Request{Token: watchword.Token(strings.Repeat("x", watchword.MaxTokenBytes+1)), Path: "/p"}, watchword.MalformedToken)
	if d := v.Verify(t.Context(), watchword.Request{Path: "/p"}); d.Policy == nil || d.Policy.Name != "p" {
		t.Error("the policy is known, for metrics")
	}
}

func TestErrorsAreFound(t *testing.T) {
	t.Parallel()
	cause := errors.New("connection refused")
	var err error = &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", Cause: cause}
	if !errors.Is(err, watchword.Unavailable) || !errors.Is(err, cause) || errors.Is(err, watchword.ConfigError) {
		t.Error(err)
	}
	if s := err.Error(); s != `issuer "main": unavailable: connection refused` {
		t.Error(s)
	}
	if s := (&watchword.Error{Failure: watchword.Throttled, Issuer: "main"}).Error(); s != `issuer "main": throttled` {
		t.Error(s)
	}
	var words []string
	for _, f := range watchword.Failures() {
		words = append(words, f.Error())
	}
	if want := []string{"unavailable", "client_rejected", "protocol_error", "config_error", "throttled", "canceled"}; !slices.Equal(words, want) {
		t.Error(words)
	}
	if s := watchword.Failure(99).Error(); s != "unknown" {
		t.Error(s)
	}
}
