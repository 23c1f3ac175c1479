package issuer

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// Covers: INT-01 T16
func TestINT01_T16TokenIsPostedByteExact(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":true}`))
	c := client(t, s.URL+"/introspect")
	for _, token := range []string{"plain", "a+b/c==", "100%25", "x&token=y&client_id=z", "%", "a=b;c", "~._-*'()!@$,:", strings.Repeat("k", 16<<10)} {
		q := query()
		q.Token = watchword.Token(token)
		if _, err := c.Introspect(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		got := s.last(t)
		if got.method != "POST" || got.header.Get("Content-Type") != "application/x-www-form-urlencoded" || got.header.Get("Accept") != "application/json" {
			t.Errorf("%.20q: %s with %v", token, got.method, got.header)
		}
		if !slices.Equal(got.form["token"], []string{token}) || strings.Count("&"+got.body, "&token=") != 1 {
			t.Errorf("%.20q arrived as %.40q in %.60q", token, got.form["token"], got.body)
		}
		if got.uri != "/introspect" {
			t.Errorf("the URL is %.40q", got.uri)
		}
		if got.header.Get("Accept-Encoding") != "identity" {
			t.Errorf("compression was asked for: %q", got.header["Accept-Encoding"])
		}
	}
}

// Covers: INT-21 T16
func TestINT21_T16MalformedTokenNeverLeaves(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":true}`))
	c := client(t, s.URL)
	v, err := watchword.New(watchword.Config{Source: c, Issuers: []watchword.Issuer{c.Shape()}, Routes: []watchword.Route{{Policy: watchword.Policy{Name: "all"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"a\r\nX: y", "a\nb", "a\x00b", "a b", "caf\u00e9", "a\x7fb", strings.Repeat("k", 16<<10+1)} {
		if d := v.Verify(t.Context(), watchword.Request{Token: watchword.Token(token)}); d.Reason != watchword.MalformedToken {
			t.Errorf("%.10q: %v", token, d.Reason)
		}
	}
	if n := len(s.questions()); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	if d := v.Verify(t.Context(), watchword.Request{Token: canary}); d.Reason != watchword.OK {
		t.Errorf("a good token: %v, %v", d.Reason, d.Err)
	}
}

func TestINT02HintIsRegisteredOrNone(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":true}`))
	sent := func(hint string) []string {
		answer(t, client(t, s.URL, func(c *Config) { c.Hint = hint }))
		return s.last(t).form["token_type_hint"]
	}
	if got := sent(""); !slices.Equal(got, []string{"access_token"}) {
		t.Errorf("by default: %q", got)
	}
	if got := sent("none"); got != nil {
		t.Errorf("none: %q", got)
	}
	if got := sent("urn:x&y"); !slices.Equal(got, []string{"urn:x&y"}) {
		t.Errorf("configured: %q", got)
	}
}

func TestCAU01BasicIsFormEncodedFirst(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":true}`))
	sent := func(id, secret string) string {
		answer(t, client(t, s.URL, func(c *Config) { c.Auth = ClientSecretBasic(id, fixed(secret)) }))
		return s.last(t).header.Get("Authorization")
	}
	// the vector of STANDARDS CAU-01, encoded by hand
	if got, want := sent("78366401571920522@amce", "veryweaksecret!"), "Basic NzgzNjY0MDE1NzE5MjA1MjIlNDBhbWNlOnZlcnl3ZWFrc2VjcmV0JTIx"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, pair := range [][2]string{{"a:b", "c:d"}, {"a%b", "+"}, {"a b", "p q"}, {"@", "ü€"}} {
		user, password, _ := strings.Cut(string(must(base64.StdEncoding.DecodeString(strings.TrimPrefix(sent(pair[0], pair[1]), "Basic ")))), ":")
		if must(url.QueryUnescape(user)) != pair[0] || must(url.QueryUnescape(password)) != pair[1] {
			t.Errorf("%q arrived as %q:%q", pair, user, password)
		}
		if strings.ContainsAny(user+password, ": @") {
			t.Errorf("%q was not form-encoded: %q:%q", pair, user, password)
		}
	}
}

func TestEveryMethodSendsItsCredentialAndNoOther(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":true}`))
	sent := func(a ClientAuth) (authorization []string, form string) {
		answer(t, client(t, s.URL, func(c *Config) { c.Auth = a }))
		got := s.last(t)
		got.form.Del("token")
		got.form.Del("token_type_hint")
		return got.header["Authorization"], got.form.Encode()
	}
	if header, form := sent(ClientSecretPost("r s", fixed("a&b"))); header != nil || form != "client_id=r+s&client_secret=a%26b" {
		t.Errorf("post: %q %q", header, form)
	}
	if header, form := sent(Bearer(fixed("abc"))); !slices.Equal(header, []string{"Bearer abc"}) || form != "" {
		t.Errorf("bearer: %q %q", header, form)
	}
	if header, form := sent(None()); header != nil || form != "" {
		t.Errorf("none: %q %q", header, form)
	}
	if header, form := sent(ClientSecretBasic("rs", fixed("x"))); len(header) != 1 || form != "" {
		t.Errorf("basic: %q %q", header, form)
	}
}

func TestCacheControlIsTheBoundRoundedDown(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":true}`))
	c := client(t, s.URL)
	at := time.Now()
	sent := func(max time.Duration, since time.Time) string {
		q := watchword.Query{Token: canary, Issuer: "main", At: at, AskedSince: since, Freshness: watchword.Freshness{MaxStaleness: max}}
		if _, err := c.Introspect(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		return s.last(t).header.Get("Cache-Control")
	}
	for _, c := range []struct {
		max   time.Duration
		since time.Time
		want  string
	}{
		{0, time.Time{}, "max-age=0"},
		{999 * time.Millisecond, time.Time{}, "max-age=0"},
		{10*time.Second + 999*time.Millisecond, time.Time{}, "max-age=10"},
		{time.Minute, at.Add(-5500 * time.Millisecond), "max-age=5"}, // only what was asked since counts
		{time.Minute, at.Add(time.Nanosecond), "max-age=0"},
	} {
		if got := sent(c.max, c.since); got != c.want {
			t.Errorf("bound %v since %v: %s, want %s", c.max, c.since, got, c.want)
		}
	}
}

func TestForwardedCredentialGoesAsItCame(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":true}`))
	c := client(t, s.URL)
	q := query()
	q.Credential = &watchword.Credential{Authorization: "Basic Zm9vOmJhcg==", Parameters: [][2]string{{"client_id", "a&b"}, {"client_assertion", "x=y"}}, Hint: "refresh_token"}
	if _, err := c.Introspect(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	got := s.last(t)
	if !slices.Equal(got.header["Authorization"], []string{"Basic Zm9vOmJhcg=="}) || got.body != "token="+canary+"&token_type_hint=refresh_token&client_id=a%26b&client_assertion=x%3Dy" {
		t.Errorf("%q %q", got.header["Authorization"], got.body)
	}
	q.Credential = &watchword.Credential{}
	if _, err := c.Introspect(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if got := s.last(t); got.header["Authorization"] != nil || got.body != "token="+canary {
		t.Errorf("without anything: %q %q", got.header["Authorization"], got.body)
	}
	for _, name := range []string{"token", "token_type_hint"} {
		q.Credential = &watchword.Credential{Parameters: [][2]string{{name, "other"}}}
		failureOf(t, c, q, watchword.ProtocolError)
	}
	if n := len(s.questions()); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

// Covers: T3
func TestT03NobodyElsesQuestion(t *testing.T) {
	t.Parallel()
	a, b := serve(t, says(`{"active":true,"sub":"a"}`)), serve(t, says(`{"active":false}`))
	one, two := client(t, a.URL), client(t, b.URL, func(c *Config) { c.Name = "other" })
	r := Router{"main": one, "other": two}
	q := query()
	if got, err := r.Introspect(t.Context(), q); err != nil || !got.Active() || got.Issuer() != "main" {
		t.Errorf("main: %v, %v", got, err)
	}
	q.Issuer = "other"
	if got, err := r.Introspect(t.Context(), q); err != nil || got.Active() || got.Issuer() != "other" {
		t.Errorf("other: %v, %v", got, err)
	}
	failureOf(t, one, q, watchword.ConfigError)
	for _, name := range []string{"", "none"} {
		q.Issuer = name
		if _, err := r.Introspect(t.Context(), q); err == nil || !strings.Contains(err.Error(), "no such issuer") {
			t.Errorf("issuer %q: %v", name, err)
		}
	}
	if len(a.questions()) != 1 || len(b.questions()) != 1 {
		t.Error("a token went astray")
	}
}

// Covers: T3
func TestT03ShapeTellsAskingsApart(t *testing.T) {
	t.Parallel()
	base := Config{Name: "main", IntrospectionEndpoint: "https://as.example/i", Auth: ClientSecretBasic("rs", fixed("one"))}
	asking := func(edit func(*Config)) string {
		c := base
		edit(&c)
		return must(New(c)).Shape().Asking
	}
	same := asking(func(*Config) {})
	if got := asking(func(c *Config) { c.Auth = ClientSecretBasic("rs", fixed("two")) }); got != same {
		t.Error("a new secret is a cold start")
	}
	seen := map[string]bool{same: true}
	for i, edit := range []func(*Config){
		func(c *Config) { c.IntrospectionEndpoint = "https://as.example/j" },
		func(c *Config) { c.IntrospectionEndpoint, c.Issuer = "", "https://as.example/i" },
		func(c *Config) { c.Issuer = "https://as.example/i" },
		func(c *Config) { c.Auth = ClientSecretBasic("rt", fixed("one")) },
		func(c *Config) { c.Auth = ClientSecretPost("rs", fixed("one")) },
		func(c *Config) { c.Hint = "none" },
		func(c *Config) { c.Quirks.StringBooleans = true },
		func(c *Config) { c.MaxAgeHint = true },
		func(c *Config) { c.Quirks.ScopeArray = true },
		func(c *Config) { c.Leeway = time.Second },
		func(c *Config) { c.Auth = ClientSecretBasic(`rs" "access_token`, fixed("one")) },
	} {
		got := asking(edit)
		if seen[got] {
			t.Errorf("edit %d asks the same: %s", i, got)
		}
		seen[got] = true
		discreet(t, got)
	}
	c := base
	c.Issuer, c.Prefixes = "https://as.example", []string{"ory_at_"}
	shape := must(New(c)).Shape()
	if shape.Name != "main" || shape.ID != "https://as.example" || !slices.Equal(shape.Prefixes, c.Prefixes) {
		t.Errorf("%+v", shape)
	}
}

func TestNothingPrintsWhatAClientHolds(t *testing.T) {
	t.Parallel()
	auth := ClientSecretPost("rs", fixed(hush))
	c := client(t, "https://as.example/i", func(c *Config) { c.Auth = auth })
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		discreet(t, fmt.Sprintf(verb+verb+verb, c, auth, c.config))
	}
}
