package door

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
)

func credential(t *testing.T, want watchword.Reason, token, query string, authorization ...string) {
	t.Helper()
	h := http.Header{}
	if authorization != nil {
		h["Authorization"] = authorization
	}
	got, reason := Credential(h, query)
	if reason != want || string(got) != token {
		t.Errorf("%q, query %q: reason %v, token right: %v; want %v", authorization, query, reason, string(got) == token, want)
	}
}

// Covers: MW-01
func TestMW01OneBearerCredential(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"Bearer", "bearer", "BEARER", "bEaReR"} {
		credential(t, watchword.OK, "abc", "", scheme+" abc")
	}
	credential(t, watchword.OK, "abc", "", "Bearer    abc") // RFC 6750 §2.1: 1*SP
	credential(t, watchword.OK, "aZ09-._~+/==", "", "Bearer aZ09-._~+/==")
	credential(t, watchword.OK, "a", "token=x&access_tokens=y&xaccess_token=z&access%5ftoke", "Bearer a")
	longest := strings.Repeat("a", watchword.MaxTokenBytes)
	credential(t, watchword.OK, longest, "", "Bearer "+longest)
	credential(t, watchword.MalformedToken, "", "", "Bearer "+longest+"a")
}

// Covers: CHA-01
func TestCHA01NoCredential(t *testing.T) {
	t.Parallel()
	credential(t, watchword.NoToken, "", "")
	credential(t, watchword.NoToken, "", "", "")
	for _, other := range []string{"Basic YTpi", "DPoP abc", "Bearerabc", "Bear abc", "Negotiate", "Token abc", `Digest username="a", realm="b c"`, "Béarer abc", "=Bearer abc", "abc"} {
		credential(t, watchword.NoToken, "", "", other)
	}
	credential(t, watchword.NoToken, "", "access_token=abc") // RFC 6750 §2.3: not supported
}

// Covers: CHA-02 MW-01 T16
func TestCHA02_MW01_T16TwoCredentials(t *testing.T) {
	t.Parallel()
	two := watchword.InvalidRequest
	credential(t, two, "", "", "Bearer a", "Bearer a")
	credential(t, two, "", "", "Bearer a", "Basic YTpi")
	credential(t, two, "", "", "Basic YTpi", "Bearer a")
	credential(t, two, "", "", "", "")
	for _, q := range []string{"access_token=b", "x=1&access_token=b", "access_token", "access_token=", "a;access_token=b", "%61ccess_token=b", "access%5Ftoken=b", "access%5ftoken=b", "&&access_token"} {
		credential(t, two, "", q, "Bearer a")
		credential(t, two, "", q, "Basic YTpi")
	}
	for _, merged := range []string{"Bearer a, Bearer b", "Bearer a,Bearer b", "Bearer a,\tDPoP b", "Bearer a, DPoP b", "Basic YTpi, Bearer b", "Bearer , Bearer b", "Bearer a,,x,Bearer b"} {
		credential(t, two, "", "", merged)
	}
}

// Covers: T16 MW-01
func TestT16_MW01MalformedTokens(t *testing.T) {
	t.Parallel()
	for _, junk := range []string{"Bearer", "Bearer ", "Bearer\tabc", "Bearer \tabc", "Bearer abc ", "Bearer abc\t", "Bearer a b", "Bearer abc def=", "Bearer =", "Bearer ==", "Bearer a=b", "Bearer a,b", "Bearer a,",
		"Bearer a\r\nX: y", "Bearer a\x00", "Bearer a\x7f", "Bearer a\xff", "Bearer é", `Bearer "abc"`, "Bearer a&token=b", "Bearer a%20b", "Bearer:abc", "Bearer,abc", "Bearer/abc", "Bearer/abc d"} {
		credential(t, watchword.MalformedToken, "", "", junk)
	}
}

func TestCredentialAllocatesNothing(t *testing.T) {
	h := http.Header{"Authorization": {"Bearer 0123456789012345678901234567890123456789abc"}}
	if n := testing.AllocsPerRun(100, func() { Credential(h, "page=2&sort=%61sc") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzCredential(f *testing.F) {
	f.Add("Bearer abc", "", false)
	f.Add("Bearer a, Bearer b", "x=1", false)
	f.Add("bearer a==", "access%5ftoken=1", true)
	accepted := regexp.MustCompile(`^(?i:bearer) +([A-Za-z0-9._~+/-]+=*)$`)
	f.Fuzz(func(t *testing.T, value, query string, twice bool) {
		h := http.Header{"Authorization": {value}}
		if twice {
			h.Add("Authorization", "Bearer x")
		}
		token, reason := Credential(h, query)
		if (reason == watchword.OK) != (token != "") {
			t.Fatalf("reason %v and a token: %v", reason, token != "")
		}
		inQuery, _ := url.ParseQuery(query)
		m := accepted.FindStringSubmatch(value)
		switch {
		case twice && reason != watchword.InvalidRequest:
			t.Fatalf("two headers: %v", reason)
		case reason != watchword.OK:
			if m != nil && len(m[1]) <= watchword.MaxTokenBytes && !twice && !strings.Contains(query, "token") && !strings.Contains(query, "%") {
				t.Fatalf("a good credential is refused: %v", reason)
			}
		case m == nil || m[1] != string(token) || len(token) > watchword.MaxTokenBytes:
			t.Fatalf("accepted %q", value)
		case inQuery.Has("access_token"):
			t.Fatalf("accepted beside query %q", query)
		}
	})
}
