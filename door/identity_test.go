package door

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

func answer(t testing.TB, members string) *watchword.Answer {
	t.Helper()
	a, err := watchword.ParseAnswer([]byte(`{"active":true,`+members+`}`), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Covers: FWD-04 T19
func TestFWD04_T19EveryHeaderIsSet(t *testing.T) {
	t.Parallel()
	unheaderable := map[string]int{}
	id, err := NewIdentity(map[string]string{"X-Auth-Subject": "sub", "x-auth-claim": "c"}, func(h string) { unheaderable[h]++ })
	if err != nil {
		t.Fatal(err)
	}
	f := func(members, subject, claim string, counted int) {
		t.Helper()
		clear(unheaderable)
		h := http.Header{"X-Auth-Subject": {"mallory"}, "X-Auth-Claim": {"admin", "root"}}
		id.Set(h, answer(t, members))
		if s, c := h["X-Auth-Subject"], h["X-Auth-Claim"]; len(s) != 1 || s[0] != subject || len(c) != 1 || c[0] != claim {
			t.Errorf("%s: %q and %q, want %q and %q", members, s, c, subject, claim)
		}
		if n := unheaderable["X-Auth-Subject"] + unheaderable["X-Auth-Claim"]; n != counted {
			t.Errorf("%s: %v counted, want %d", members, unheaderable, counted)
		}
	}
	f(`"sub":"ann"`, "ann", "", 0)
	f(`"c":"x y"`, "", "x y", 0)
	f(`"sub":"ann","c":"a\"b\\\u0041"`, "ann", `a"b\A`, 0)
	f(`"c":["a","b c"]`, "", "a b c", 0)
	f(`"c":[]`, "", "", 0)
	f(`"c":1.50e1`, "", "1.50e1", 0)
	f(`"c":12345678901234567890`, "", "12345678901234567890", 0)
	f(`"c":true`, "", "true", 0)
	f(`"c":false`, "", "false", 0)
	f(`"c":null`, "", "", 1)
	f(`"c":{"a":"b"}`, "", "", 1)
	f(`"c":["a",1]`, "", "", 1)
	f(`"sub":"a\r\nX-Auth-Roles: admin"`, "", "", 1)
	f(`"sub":"é","c":"\u0000"`, "", "", 2)
	f(`"c":["ok","a\nb"]`, "", "", 1)
	f(`"c":"\u007f"`, "", "", 1)
	h := http.Header{"X-Auth-Subject": {"mallory"}, "X-Auth-Claim": {"admin"}}
	if id.Set(h, nil); len(h["X-Auth-Subject"]) != 1 || h["X-Auth-Subject"][0]+h["X-Auth-Claim"][0] != "" {
		t.Errorf("nobody: %v", h)
	}
}

// Covers: T20
func TestT20IdentityNamesWithoutAliases(t *testing.T) {
	t.Parallel()
	f := func(want int, headers map[string]string) {
		t.Helper()
		_, err := NewIdentity(headers, nil)
		if (err == nil) != (want == 0) || err != nil && len(strings.Split(err.Error(), "\n")) != want {
			t.Errorf("%v: %v, want %d mistakes", headers, err, want)
		}
	}
	f(0, nil)
	f(0, map[string]string{"X-Auth-Subject": "sub", "x-auth-scopes": "scope", "Remote-User": "username"})
	f(1, map[string]string{"X-Auth-Subject": "sub", "x-auth-subject": "client_id"})
	for _, alias := range []string{"X_Auth_Subject", "X.Auth.Subject", "X-Auth-Subject ", "X Auth", "X-Auth:", "", "X-Auth-\r\n", "X-Äuth", "X~A"} {
		f(1, map[string]string{alias: "sub"})
	}
	for _, steers := range []string{"Connection", "content-length", "X-Watchword-Reason", "x-request-id", "WWW-Authenticate", "Transfer-Encoding", "Set-Cookie"} {
		f(1, map[string]string{steers: "sub"})
	}
	f(3, map[string]string{"X-A": "", "X-B": "expires_in", "X_C": "sub"})
}

func TestIdentityAllocatesOnce(t *testing.T) {
	id, err := NewIdentity(map[string]string{"X-Auth-Subject": "sub", "X-Auth-Scopes": "scope", "X-Auth-Client": "client_id", "X-Auth-User": "username"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := answer(t, `"sub":"ann","scope":"a b","client_id":"web","username":"Ann","aud":["x","y"]`)
	h := http.Header{}
	if n := testing.AllocsPerRun(100, func() { clear(h); id.Set(h, a) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
