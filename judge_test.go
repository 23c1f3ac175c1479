package watchword_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// everything wrong at once; each clause is then mended in turn, so the order of the clauses is what is tested.
func TestClausesInOrder(t *testing.T) {
	t.Parallel()
	p := &watchword.Policy{Audience: []string{"api"}, Scopes: []string{"read"}, NoDelegation: true}
	members := []string{`"active":false`, `"exp":1`, `"nbf":4102444800`, `"aud":"other"`, `"cnf":{"jkt":"x"}`, `"act":{}`, `"scope":"write"`}
	mended := []string{`"active":true`, `"exp":4102444800`, `"nbf":1`, `"aud":"api"`, `"a":1`, `"may_act":{}`, `"scope":"read"`}
	want := []watchword.Reason{watchword.Inactive, watchword.Expired, watchword.NotYetValid, watchword.WrongAudience, watchword.NotBound, watchword.PolicyDenied, watchword.InsufficientScope, watchword.OK}
	var words []string
	for i, reason := range want {
		a := answer(t, "{"+strings.Join(members, ",")+"}")
		if got := watchword.Judge(p, a, both(0)); got != reason {
			t.Errorf("{%s}: %v, want %v", strings.Join(members, ","), got, reason)
		}
		if i < len(mended) {
			members[i] = mended[i]
			words = append(words, reason.String())
		}
	}
	// Explain says the same, clause by clause.
	var clauses []string
	for _, f := range watchword.Explain(p, answer(t, "{"+strings.Join(members, ",")+"}"), both(0)) {
		if !f.Holds || f.Clause == "" || f.Detail == "" {
			t.Errorf("%+v", f)
		}
		clauses = append(clauses, f.Otherwise)
	}
	if !slices.Equal(clauses, words) {
		t.Errorf("%v, want %v", clauses, words)
	}
}

func TestExplainAgreesWithJudge(t *testing.T) {
	t.Parallel()
	p := &watchword.Policy{Audience: []string{"api", "b"}, Scopes: []string{"read", "write"}}
	detail := func(body string, p *watchword.Policy, clause string) string {
		t.Helper()
		a := answer(t, body)
		first := ""
		text := ""
		for _, f := range watchword.Explain(p, a, both(0)) {
			if !f.Holds && first == "" {
				first = f.Otherwise
			}
			if f.Clause == clause {
				text = f.Detail
			}
		}
		if first == "" {
			first = "ok"
		}
		if got := watchword.Judge(p, a, both(0)).String(); got != first {
			t.Errorf("%s: Judge says %s, Explain %s", body, got, first)
		}
		return text
	}
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f(detail(`{"active":false,"exp":1}`, p, "active"), "the authorization server says inactive")
	f(detail(`{"active":false}`, p, "scope"), "")
	f(detail(`{"active":true}`, p, "active"), "the authorization server says active")
	f(detail(`{"active":true,"token_type":"Refresh"}`, p, "active"), "it is a refresh token, which no resource accepts")
	f(detail(`{"active":true}`, p, "not expired"), "the authorization server gives no end")
	f(detail(`{"active":true,"expires_in":61}`, p, "not expired"), "lives for 1m1s")
	f(detail(`{"active":true,"nbf":4102444800}`, p, "valid already"), "nbf 2100-01-01T00:00:00Z")
	f(detail(`{"active":true}`, p, "valid already"), "no nbf")
	f(detail(`{"active":true,"aud":"x"}`, p, "audience"), "one of api b required")
	f(detail(`{"active":true}`, anyone, "audience"), "none required")
	f(detail(`{"active":true,"scope":"write x"}`, p, "scope"), "all of read write required; missing read")
	f(detail(`{"active":true,"scope":"write read"}`, p, "scope"), "all of read write required")
	f(detail(`{"active":true,"cnf":{}}`, p, "binding"), "bound to a key (cnf), and no proof of possession is understood in this version")
	f(detail(`{"active":true,"cnf":{}}`, &watchword.Policy{Relay: true}, "binding"), "bound to a key (cnf); the caller checks the proof")
	f(detail(`{"active":true}`, p, "delegation"), "nobody acts for the subject")
	f(detail(`{"active":true,"act":{"sub":"x"}}`, p, "delegation"), "somebody acts for the subject (act)")
	f(detail(`{"active":true,"act":{"sub":"x"}}`, &watchword.Policy{NoDelegation: true}, "delegation"), "somebody acts for the subject (act), which is forbidden here")
	if !slices.Equal(p.Scopes, []string{"read", "write"}) {
		t.Error("Explain changed the policy")
	}
}

// POL-01, POL-02, T12: an audience is met by an equal string and by nothing else.
func TestPOL01_POL02_T12Audience(t *testing.T) {
	t.Parallel()
	p := &watchword.Policy{Audience: []string{"https://api.example", "b"}}
	f := func(aud string, want watchword.Reason) {
		t.Helper()
		if got := watchword.Judge(p, answer(t, `{"active":true`+aud+`}`), both(0)); got != want {
			t.Errorf("%s: %v, want %v", aud, got, want)
		}
	}
	f(`,"aud":"https://api.example"`, watchword.OK)
	f(`,"aud":["x","b"]`, watchword.OK)
	for _, aud := range []string{``, `,"aud":[]`, `,"aud":""`, `,"aud":"https://api.example/"`, `,"aud":"https://API.example"`, `,"aud":"https://api.example.evil"`, `,"aud":"https://api.exampl"`, `,"aud":"https://api.example b"`,
		`,"aud":["https://other.example"]`, `,"aud":"*"`, `,"ext":{"aud":"b"}`, `,"azp":"b"`, `,"client_id":"b"`, `,"resource":"b"`} {
		f(aud, watchword.WrongAudience)
	}
}

// POL-03: all scopes, each by an equal word.
func TestPOL03Scope(t *testing.T) {
	t.Parallel()
	f := func(required []string, scope string, want watchword.Reason) {
		t.Helper()
		if got := watchword.Judge(&watchword.Policy{Scopes: required}, answer(t, `{"active":true,"scope":`+fmt.Sprintf("%q", scope)+`}`), both(0)); got != want {
			t.Errorf("%v of %q: %v, want %v", required, scope, got, want)
		}
	}
	f(nil, "", watchword.OK)
	f([]string{"read"}, "read", watchword.OK)
	f([]string{"read", "write"}, "write  read read", watchword.OK)
	f([]string{"read", "read"}, "read", watchword.OK)
	for _, scope := range []string{"", "read:all", "Read", "rea", "reading", "write", "read,write", "read\\u00a0x"} {
		f([]string{"read"}, scope, watchword.InsufficientScope)
	}
	f([]string{"read", "write"}, "read", watchword.InsufficientScope)
	f([]string{"read:all"}, "read", watchword.InsufficientScope) // no hierarchy
	if got := watchword.Judge(&watchword.Policy{Scopes: []string{"read"}}, answer(t, `{"active":true}`), both(0)); got != watchword.InsufficientScope {
		t.Error("no scope at all:", got)
	}
}

// A route that forbids delegation looks at the outermost act alone: that there is one. What an act deeper in the answer
// says of earlier actors, and who may act, change nothing; and a remembered answer is judged as a new one.
//
// Covers: POL-04
func TestPOL04DelegationForbidden(t *testing.T) {
	t.Parallel()
	for claims, want := range map[string]watchword.Reason{
		``: watchword.OK, `,"may_act":{"sub":"svc"}`: watchword.OK, `,"ext":{"act":{"sub":"svc"}}`: watchword.OK, `,"cnf":{"act":{}}`: watchword.NotBound,
		`,"act":{"sub":"svc"}`: watchword.PolicyDenied, `,"act":{}`: watchword.PolicyDenied, `,"act":{"act":{"sub":"earlier"}}`: watchword.PolicyDenied,
		`,"act":{"sub":"ann"},"sub":"ann"`: watchword.PolicyDenied, `,"act":{"sub":"svc"},"aud":"other"`: watchword.PolicyDenied,
	} {
		a := answer(t, `{"active":true`+claims+`}`)
		for _, forbids := range []bool{true, false} {
			p := watchword.Policy{NoDelegation: forbids, Freshness: watchword.Freshness{MaxStaleness: time.Hour}}
			expected := want
			if !forbids && want == watchword.PolicyDenied {
				expected = watchword.OK
			}
			if got := watchword.Judge(&p, a, both(0)); got != expected {
				t.Errorf("%s, forbidden %v: %v, want %v", claims, forbids, got, expected)
			}
			src := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
				return watchword.ParseAnswer([]byte(`{"active":true`+claims+`}`), watchword.Evidence{Issuer: "main", Asked: q.At.Add(-time.Minute)})
			})
			v := verifier(t, watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: p}}})
			if d := v.Verify(t.Context(), watchword.Request{Token: "t"}); d.Reason != expected {
				t.Errorf("%s, remembered: %v, want %v", claims, d.Reason, expected)
			}
		}
	}
	nonsense(t, `{"active":true,"act":null}`, watchword.Quirks{})
	nonsense(t, `{"active":true,"act":"svc"}`, watchword.Quirks{})
	nonsense(t, `{"active":true,"Act":{}}`, watchword.Quirks{})
}

// POP-14, POP-20: a bound token without a proof is refused whatever binds it, unless its caller checks the proof.
func TestPOP14_POP20BoundTokens(t *testing.T) {
	t.Parallel()
	for _, cnf := range []string{`{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`, `{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}`, `{"unknown":1}`, `{}`, `{"jwk":{"kty":"oct"}}`} {
		a := answer(t, `{"active":true,"cnf":`+cnf+`}`)
		if got := watchword.Judge(anyone, a, both(0)); got != watchword.NotBound {
			t.Errorf("cnf %s: %v", cnf, got)
		}
		if got := watchword.Judge(&watchword.Policy{Relay: true}, a, both(0)); got != watchword.OK {
			t.Errorf("cnf %s, relayed: %v", cnf, got)
		}
	}
	nonsense(t, `{"active":true,"cnf":null}`, watchword.Quirks{})
	nonsense(t, `{"active":true,"cnf":"secret"}`, watchword.Quirks{})
	nonsense(t, `{"active":true,"CNF":{}}`, watchword.Quirks{})
}

// CONTRACT §3: a refresh token is inactive where Watchword decides.
func TestRefreshTokensAreInactive(t *testing.T) {
	t.Parallel()
	f := func(member string, want watchword.Reason) {
		t.Helper()
		a := answer(t, `{"active":true,`+member+`}`)
		if got := watchword.Judge(anyone, a, both(0)); got != want {
			t.Errorf("%s: %v, want %v", member, got, want)
		}
		if got := watchword.Judge(&watchword.Policy{Relay: true}, a, both(0)); got != watchword.OK {
			t.Errorf("%s, relayed: %v", member, got)
		}
	}
	for _, m := range []string{`"token_type":"Refresh"`, `"token_type":"refresh"`, `"token_type":"refresh_token"`, `"token_type":"REFRESH_TOKEN"`, `"token_use":"refresh_token"`, `"token_use":"Refresh_Token"`, `"token_type":"Bearer","token_use":"refresh_token"`, `"token_type":"\u0052efresh"`} {
		f(m, watchword.Inactive)
	}
	for _, m := range []string{`"token_type":"Bearer"`, `"token_type":"access_token"`, `"token_type":"DPoP"`, `"token_use":"access_token"`, `"token_use":1`, `"token_use":null`, `"token_type":"refreshed"`, `"x":"refresh_token"`} {
		f(m, watchword.OK)
	}
}

// Judge is a function of its arguments: the same answer under the same policy at the same time, however often and in
// whatever order.
func TestT1JudgeIsPure(t *testing.T) { // not parallel: it counts allocations
	p := &watchword.Policy{Audience: []string{"api"}, Scopes: []string{"read"}}
	a := answer(t, `{"active":true,"aud":"api","scope":"read","exp":1893456010}`)
	for _, d := range []time.Duration{20 * time.Second, 0, 20 * time.Second, 0} {
		want := map[bool]watchword.Reason{true: watchword.OK, false: watchword.Expired}[d == 0]
		if got := watchword.Judge(p, a, both(d)); got != want {
			t.Error(got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { watchword.Judge(p, a, both(0)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Every Reason has a row of its own, as CONTRACT §2 lists them, and every ignorance a Reason that is no 401 (CHA-06).
func TestReasonsTable(t *testing.T) {
	t.Parallel()
	want := `ok 200 0 ""
no_token 401 16 ""
invalid_request 400 3 "invalid_request"
malformed_token 401 16 "invalid_token"
inactive 401 16 "invalid_token"
expired 401 16 "invalid_token"
not_yet_valid 401 16 "invalid_token"
revoked 401 16 "invalid_token"
unknown_issuer 401 16 "invalid_token"
audience 401 16 "invalid_token"
binding 401 16 "invalid_token"
scope 403 7 "insufficient_scope"
step_up 401 16 "insufficient_user_authentication"
policy 403 7 ""
throttled 429 8 ""
canceled 499 1 ""
unavailable 503 14 ""
misconfigured 503 14 ""
internal 500 13 ""
`
	var got strings.Builder
	for _, r := range watchword.Reasons() {
		row := r.Row()
		fmt.Fprintf(&got, "%s %d %d %q\n", r, row.HTTP, row.GRPC, row.OAuth)
	}
	if got.String() != want {
		t.Errorf("got\n%s", got.String())
	}
	if r := watchword.Reason(200); r.String() != "internal" || r.Row().HTTP != 500 {
		t.Error("an unknown Reason is a fault of ours:", r)
	}
}
