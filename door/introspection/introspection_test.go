package introspection_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
	"github.com/watchword-dev/watchword/door/doortest"
	"github.com/watchword-dev/watchword/door/introspection"
)

const secret = "canary-secret-5b1d77"

// one gives a caller its secrets.
func one(secrets ...string) func() ([]string, error) {
	return func() ([]string, error) { return secrets, nil }
}

func open(t testing.TB, c introspection.Config) *introspection.Door {
	t.Helper()
	if c.Paths == nil {
		c.Paths = []string{"/introspect"}
	}
	if c.Callers == nil && c.Forward == "" {
		c.Callers = []introspection.Caller{{Name: "rs", ClientID: "rs", Secrets: one(secret)}}
	}
	d, err := introspection.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// judge is a real Verifier over source, with a policy for each caller; without any, for rs.
func judge(t testing.TB, source watchword.SourceFunc, callers ...watchword.Policy) *watchword.Verifier {
	t.Helper()
	if len(callers) == 0 {
		callers = []watchword.Policy{{Name: "rs", Freshness: watchword.Freshness{MaxStaleness: 30 * time.Second}}}
	}
	for i := range callers {
		callers[i].Relay = true
	}
	v, err := watchword.New(watchword.Config{Source: source, Issuers: []watchword.Issuer{{Name: "main"}}, Callers: callers})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// says is an authorization server that gives one answer to every question.
func says(body string) watchword.SourceFunc {
	return func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		a, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
		if err != nil {
			return nil, &watchword.Error{Failure: watchword.ProtocolError, Issuer: q.Issuer, Cause: err}
		}
		return a, nil
	}
}

// post makes a question that nothing is wrong with; change may spoil it.
func post(form string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/introspect", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("rs", secret)
	for _, f := range change {
		f(r)
	}
	return r
}

func header(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header[http.CanonicalHeaderKey(name)] = values
		if values == nil {
			r.Header.Del(name)
		}
	}
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// expect asks and compares status, body, type, and that nothing may be kept.
func expect(t *testing.T, h http.Handler, r *http.Request, status int, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := serve(h, r)
	if w.Code != status || w.Body.String() != body {
		t.Errorf("%d %s, want %d %s", w.Code, w.Body, status, body)
	}
	if v := w.Header().Values("Content-Type"); body != "" && (len(v) != 1 || v[0] != "application/json") {
		t.Errorf("Content-Type %q", v)
	}
	if v := w.Header().Values("Cache-Control"); len(v) != 1 || v[0] != "no-store" {
		t.Errorf("Cache-Control %q, want no-store", v)
	}
	return w
}

func headerIs(t *testing.T, w *httptest.ResponseRecorder, name, want string) {
	t.Helper()
	if got := w.Header().Values(name); want == "" && got != nil || want != "" && (len(got) != 1 || got[0] != want) {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

const (
	dead           = `{"active":false}`
	invalidRequest = `{"error":"invalid_request"}`
	invalidClient  = `{"error":"invalid_client"}`
	notNow         = `{"error":"temporarily_unavailable"}`
)

// Covers: PXY-04 PXY-07 CHA-06
func TestEveryReason(t *testing.T) {
	t.Parallel()
	doortest.Run(t, func(v door.Verifier) http.Handler {
		return open(t, introspection.Config{Verifier: v})
	}, func(token string) *http.Request {
		return post("token=" + token)
	}, func(c doortest.Case) doortest.Answer {
		switch c.Decision.Reason {
		case watchword.OK:
			if c.Decision.Answer == nil { // nobody: there is nothing to say to who asks what a token can do
				return doortest.Answer{Status: 503, RetryAfter: "1", Body: notNow}
			}
			return doortest.Answer{Status: 200, Degraded: c.Answer.Degraded, Body: doortest.Claims}
		case watchword.InvalidRequest:
			return doortest.Answer{Status: 400, Body: invalidRequest}
		case watchword.TooManyUnknown:
			return doortest.Answer{Status: 429, RetryAfter: c.Answer.RetryAfter, Body: notNow}
		case watchword.CannotKnow, watchword.Misconfigured:
			return doortest.Answer{Status: 503, RetryAfter: c.Answer.RetryAfter, Body: notNow}
		case watchword.CallerLeft, watchword.Internal:
			return doortest.Answer{Status: 500, Body: `{"error":"server_error"}`}
		}
		return doortest.Answer{Status: 200, Body: dead}
	})
}

func TestPXY02MethodAndPath(t *testing.T) {
	t.Parallel()
	v := &doortest.Verifier{}
	h := open(t, introspection.Config{Verifier: v, Paths: []string{"/introspect", "/oauth2/introspect"}})
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "post"} {
		w := expect(t, h, post("token=x", func(r *http.Request) { r.Method = method }), 405, "")
		headerIs(t, w, "Allow", "POST")
	}
	for _, path := range []string{"/", "/introspect/", "/introspection", "/Introspect", "/oauth2", "//introspect", "/introspect/x"} {
		expect(t, h, post("token=x", func(r *http.Request) { r.URL.Path = path }), 404, "")
	}
	if n := len(v.Asked()); n != 0 {
		t.Fatalf("the Verifier was asked %d times about what is no question", n)
	}
	for _, path := range []string{"/introspect", "/oauth2/introspect"} {
		serve(h, post("token=x", func(r *http.Request) { r.URL.Path = path }))
	}
	if n := len(v.Asked()); n != 2 {
		t.Errorf("%d questions on two paths", n)
	}
}

func TestPXY02TokenInURL(t *testing.T) {
	t.Parallel()
	v := &doortest.Verifier{}
	h := open(t, introspection.Config{Verifier: v})
	for _, query := range []string{"token=" + doortest.Token, "a=b&token=" + doortest.Token, "%74oke%6e=" + doortest.Token, "a=1;token=" + doortest.Token,
		"token", "client_secret=x", "client_assertion=x", "x=%zz"} {
		w := expect(t, h, post("token=x", func(r *http.Request) { r.URL.RawQuery = query }), 400, invalidRequest)
		if all := fmt.Sprint(w.Header(), w.Body); strings.Contains(all, doortest.Token) {
			t.Errorf("%s comes out: %s", query, all)
		}
	}
	for _, r := range v.Asked() {
		if r.Problem != watchword.InvalidRequest || r.Token != "" || strings.Contains(fmt.Sprintf("%+v", r), doortest.Token) {
			t.Errorf("asked %+v", r)
		}
	}
	h = open(t, introspection.Config{Verifier: judge(t, says(`{"active":true}`))})
	expect(t, h, post("token=x", func(r *http.Request) { r.URL.RawQuery = "tenant=acme&tokens=1" }), 200, `{"active":true}`)
}

func TestPXY03BadForm(t *testing.T) {
	t.Parallel()
	v := &doortest.Verifier{}
	h := open(t, introspection.Config{Verifier: v})
	for _, form := range []string{"", "token=", "token", "tokens=x", "Token=x", "token=x&token=x", "token=x&token=y", "token=x&token=", "token=&token=x",
		"token=%", "token=%4", "token=%4g", "token=x&a=%", "%=1&token=x", "token_type_hint=access_token"} {
		expect(t, h, post(form), 400, invalidRequest)
	}
	for _, contentType := range [][]string{nil, {""}, {"application/json"}, {"text/plain"}, {"multipart/form-data; boundary=x"},
		{"application/x-www-form-urlencodedx"}, {"x-application/x-www-form-urlencoded"}, {"application/x-www-form-urlencoded", "application/x-www-form-urlencoded"}} {
		expect(t, h, post("token=x", header("Content-Type", contentType...)), 400, invalidRequest)
	}
	for _, r := range v.Asked() {
		if r.Problem != watchword.InvalidRequest || r.Token != "" || r.Caller != "rs" || r.ID == "" {
			t.Errorf("asked %+v", r)
		}
	}
	h = open(t, introspection.Config{Verifier: judge(t, says(`{"active":true}`))})
	for _, form := range []string{"token=x", "&&token=x&", "token_type_hint=nonsense&token=x&token_type_hint=more", "a=1;token=y&token=x", "scope=a&scope=b&token=x", "=&token=x"} {
		expect(t, h, post(form), 200, `{"active":true}`)
	}
	for _, contentType := range []string{"Application/X-WWW-Form-URLEncoded", "application/x-www-form-urlencoded;charset=UTF-8", "application/x-www-form-urlencoded ; charset=utf-8"} {
		expect(t, h, post("token=x", header("Content-Type", contentType)), 200, `{"active":true}`)
	}
}

// The remembered token of another audience, the revoked, the unknown: not one byte tells them apart, in the headers
// neither (the request's id and the date aside, which come before any token).
func TestPXY04InactiveIsByteIdentical(t *testing.T) {
	t.Parallel()
	const hour = 3600
	answers := map[string]string{
		"dead":     dead,
		"told":     `{"active":false,"sub":"ann","error":"revoked","exp":4102444800}`,
		"expired":  `{"active":true,"aud":"api","exp":1500000000}`,
		"ended":    `{"active":true,"aud":"api","expires_in":0}`,
		"early":    `{"active":true,"aud":"api","nbf":4102444800}`,
		"foreign":  `{"active":true,"aud":"other","exp":4102444800}`,
		"nobodys":  `{"active":true,"exp":4102444800}`,
		"revoked":  `{"active":true,"aud":"api","exp":4102444800}`,
		"good":     `{"active":true,"aud":["api"]}`,
		"prefixed": dead,
	}
	source := func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
		return watchword.ParseAnswer([]byte(answers[string(q.Token)]), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now().Add(-5 * time.Second)})
	}
	v, err := watchword.New(watchword.Config{Source: watchword.SourceFunc(source), Ledger: revokes{}, Issuers: []watchword.Issuer{{Name: "main", ID: "https://as.example"}, {Name: "other", ID: "https://other.example", Prefixes: []string{"other_"}}},
		Callers: []watchword.Policy{{Name: "rs", Relay: true, Issuers: []string{"main"}, Audience: []string{"api"}, Freshness: watchword.Freshness{MaxStaleness: hour * time.Second}}}})
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, introspection.Config{Verifier: v})
	answer := func(token string) string {
		w := serve(h, post("token="+url.QueryEscape(token), header("X-Request-ID", "same")))
		var b strings.Builder
		fmt.Fprintln(&b, w.Code)
		if err := w.Header().Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String() + w.Body.String()
	}
	if got := answer("good"); !strings.HasSuffix(got, `{"active":true,"aud":["api"]}`) || !strings.Contains(got, "Age: 6\r\n") && !strings.Contains(got, "Age: 5\r\n") {
		t.Fatalf("the good token: %s", got)
	}
	const want = "200\nAge: 0\r\nCache-Control: no-store\r\nContent-Type: application/json\r\nX-Request-Id: same\r\n" + dead
	otherIssuers := "e30.eyJpc3MiOiJodHRwczovL290aGVyLmV4YW1wbGUifQ.x" // {"iss":"https://other.example"}
	for _, token := range []string{"dead", "told", "expired", "ended", "early", "foreign", "nobodys", "revoked", otherIssuers, "mal formed", "malf\u00f6rmed", "nul\x00", strings.Repeat("a", 17<<10)} {
		if got := answer(token); got != want {
			t.Errorf("token %.20q: %s", token, got)
		}
	}
}

// revokes is a Ledger that heard of one token.
type revokes struct{}

func (revokes) Coverage(string) watchword.Coverage { return watchword.Coverage{} }
func (revokes) Voids(q watchword.Query, _ *watchword.Answer) watchword.Void {
	return watchword.Void{Revoked: string(q.Token) == "revoked"}
}

// Covers: T16 INT-21
func TestTokenByteExact(t *testing.T) {
	t.Parallel()
	var asked atomic.Pointer[string]
	h := open(t, introspection.Config{Verifier: judge(t, func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		token := string(q.Token)
		asked.Store(&token)
		return says(`{"active":true}`)(context.Background(), q)
	})})
	for _, token := range []string{"abc", "a+b/c==", "a&token=b", "a=b", "100%", "%41", "a;b", "~.-_", `"'<>\`, "#?", strings.Repeat("k", 16<<10)} {
		asked.Store(nil)
		expect(t, h, post(url.Values{"token": {token}}.Encode()), 200, `{"active":true}`)
		if got := asked.Load(); got == nil || *got != token {
			t.Errorf("token %.20q was not asked about as it came", token)
		}
	}
	for _, token := range []string{"a b", "a\r\nb", "a\x00", "\x7f", "ä", "\xff", strings.Repeat("k", 16<<10+1)} {
		asked.Store(nil)
		expect(t, h, post(url.Values{"token": {token}}.Encode()), 200, dead)
		if asked.Load() != nil {
			t.Errorf("token %.20q was shown to the authorization server", token)
		}
	}
}

// Covers: PXY-07 CHA-06 INT-04 T30
func TestIgnoranceIsNotInactive(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{"active":"true"}`, `{"active":1}`, `{"active":null}`, `{"active":{}}`, `{}`, `[]`, ``, `<html>`, `{"active":true`, `{"active":true}x`,
		`{"active":false,"ACTIVE":true}`, `{"active":true,"active":false}`, `{"active":true,"exp":"1"}`, `{"active":true,"a":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `}`} {
		h := open(t, introspection.Config{Verifier: judge(t, says(body))})
		headerIs(t, expect(t, h, post("token=x"), 503, notNow), "Retry-After", "1")
	}
	fails := func(e error) *introspection.Door {
		return open(t, introspection.Config{Verifier: judge(t, func(context.Context, watchword.Query) (*watchword.Answer, error) { return nil, e })})
	}
	for _, f := range []watchword.Failure{watchword.Unavailable, watchword.ProtocolError, watchword.ClientRejected, watchword.ConfigError} {
		w := expect(t, fails(&watchword.Error{Failure: f, Issuer: "main", RetryAfter: 1500 * time.Millisecond}), post("token=x"), 503, notNow)
		headerIs(t, w, "Retry-After", "2")
		headerIs(t, w, "WWW-Authenticate", "")
		headerIs(t, w, "Age", "")
	}
	headerIs(t, expect(t, fails(&watchword.Error{Failure: watchword.Throttled}), post("token=x"), 429, notNow), "Retry-After", "1")
	expect(t, fails(errors.New("what?")), post("token=x"), 500, `{"error":"server_error"}`)
	panics := func(context.Context, watchword.Query) (*watchword.Answer, error) { panic("token=x") }
	expect(t, open(t, introspection.Config{Verifier: judge(t, panics)}), post("token=x"), 500, `{"error":"server_error"}`)
}

// The Verifier sees whose question it is and how it is called, whether it was refused here or not.
func TestWhatTheVerifierIsTold(t *testing.T) {
	t.Parallel()
	v := &doortest.Verifier{}
	h := open(t, introspection.Config{Verifier: v})
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	named := func(r *http.Request) {
		r.Header.Set("X-Request-ID", "abc")
		r.Header.Set("Traceparent", parent)
		r.RemoteAddr = "[2001:db8::1]:4242"
	}
	for _, r := range []*http.Request{post("token=x&token_type_hint=y", named), post("token=", named), post("token=x", named, header("Authorization", "Basic eDp5"))} {
		headerIs(t, serve(h, r), "X-Request-ID", "abc")
	}
	asked := v.Asked()
	if len(asked) != 3 {
		t.Fatalf("asked %d times", len(asked))
	}
	for i, problem := range []watchword.Reason{watchword.OK, watchword.InvalidRequest, watchword.PolicyDenied} {
		r := asked[i]
		if r.Door != "introspection" || r.ID != "abc" || r.Trace != parent || r.Peer != "2001:db8::1" || r.Problem != problem {
			t.Errorf("%+v, want problem %v", r, problem)
		}
		if (r.Caller == "rs") != (problem != watchword.PolicyDenied) || r.Credential != nil || r.Tighten != nil {
			t.Errorf("caller %q, credential %v, tighten %v", r.Caller, r.Credential, r.Tighten)
		}
	}
	if w := serve(h, post("token=x")); len(w.Header().Get("X-Request-ID")) != 32 {
		t.Errorf("a new id is %q", w.Header()["X-Request-Id"])
	}
}

// A stranger is never put down to a policy of another door, not even to one that matches everything.
func TestStrangerHasNoPolicy(t *testing.T) {
	t.Parallel()
	seen := make(chan watchword.Decision, 1)
	v, err := watchword.New(watchword.Config{Source: says(dead), Issuers: []watchword.Issuer{{Name: "main"}},
		Routes:    []watchword.Route{{Policy: watchword.Policy{Name: "everything"}}},
		Observers: []watchword.Observer{observer(func(_ watchword.Request, d watchword.Decision) { seen <- d })}})
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, introspection.Config{Verifier: v})
	expect(t, h, post("token=x", header("Authorization")), 401, invalidClient)
	if d := <-seen; d.Policy != nil || d.Reason != watchword.PolicyDenied {
		t.Errorf("decided %v by %+v", d.Reason, d.Policy)
	}
}

type observer func(watchword.Request, watchword.Decision)

func (o observer) Observe(r watchword.Request, d watchword.Decision, _ time.Duration) { o(r, d) }

// Every request gets its own token's answer: buffers are used again, but never by two at once.
func TestT11NoAnswerForAnother(t *testing.T) {
	t.Parallel()
	v := judge(t, func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
		return says(`{"active":true,"sub":"`+string(q.Token)+`"}`)(ctx, q)
	}, watchword.Policy{Name: "a"}, watchword.Policy{Name: "b"})
	h := open(t, introspection.Config{Verifier: v, Callers: []introspection.Caller{
		{Name: "a", ClientID: "a", Secrets: one("sa")}, {Name: "b", ClientID: "b", Secrets: one("sb"), Claims: []string{"exp"}}}})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 200 {
				token := fmt.Sprintf("t-%d-%d-%s", worker, i, strings.Repeat("x", i))
				caller, want := "a", `{"active":true,"sub":"`+token+`"}`
				if i%2 == 1 {
					caller, want = "b", `{"active":true}`
				}
				w := serve(h, post("token="+token, func(r *http.Request) { r.SetBasicAuth(caller, "s"+caller) }))
				if w.Body.String() != want {
					t.Errorf("%s got %s", token, w.Body)
				}
			}
		})
	}
	wg.Wait()
}

func TestNewReportsEveryMistake(t *testing.T) {
	t.Parallel()
	wants := func(c introspection.Config, words ...string) {
		t.Helper()
		d, err := introspection.New(c)
		if err == nil || d != nil {
			t.Fatalf("accepted, want %q", words)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%v\nlacks %q", err, word)
			}
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the secret is in %v", err)
		}
	}
	v := &doortest.Verifier{}
	paths := []string{"/i"}
	wants(introspection.Config{}, "Verifier is missing", "Paths is empty", "nobody may ask")
	wants(introspection.Config{Verifier: v, Paths: []string{"x"}, Forward: "f", Callers: []introspection.Caller{{Name: "a"}}}, "does not begin with /", "exclude each other", "Secrets is missing")
	bad := func(words string, callers ...introspection.Caller) {
		t.Helper()
		wants(introspection.Config{Verifier: v, Paths: paths, Callers: callers}, words)
	}
	bad("empty or given twice", introspection.Caller{ClientID: "a", Secrets: one(secret)})
	bad("empty or given twice", introspection.Caller{Name: "a", ClientID: "a", Secrets: one(secret)}, introspection.Caller{Name: "a", ClientID: "b", Secrets: one(secret)})
	bad("which anybody could send", introspection.Caller{Name: "a", ClientID: "a", Secrets: one("")})
	bad("which anybody could send", introspection.Caller{Name: "a", Secrets: one(secret, "")})
	bad("it has 0 secrets", introspection.Caller{Name: "a", Secrets: one()})
	bad("it has 3 secrets", introspection.Caller{Name: "a", Secrets: one(secret, "b", "c")})
	bad("no such file", introspection.Caller{Name: "a", Secrets: func() ([]string, error) { return nil, errors.New("no such file") }})
	bad("visible ASCII", introspection.Caller{Name: "a", Secrets: one(secret + " ")})
	bad("visible ASCII", introspection.Caller{Name: "a", Secrets: one(secret + "ä")})
	bad("active is always shown", introspection.Caller{Name: "a", Secrets: one(secret), Claims: []string{"active"}})
	bad(`cannot be told from caller "a"`, introspection.Caller{Name: "a", Secrets: one(secret)}, introspection.Caller{Name: "b", Secrets: one("x", secret)})
	bad(`cannot be told from caller "a"`, introspection.Caller{Name: "a", ClientID: "x+y", Secrets: one(secret)}, introspection.Caller{Name: "b", ClientID: "x%2By", Secrets: one(secret)})
}

func TestNothingOfASecretIsKept(t *testing.T) {
	t.Parallel()
	d := open(t, introspection.Config{Verifier: &doortest.Verifier{}})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, d); strings.Contains(s, secret) {
			t.Errorf("%s prints the secret", verb)
		}
	}
}
