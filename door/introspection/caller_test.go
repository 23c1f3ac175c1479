package introspection_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door/doortest"
	"github.com/watchword-dev/watchword/door/introspection"
)

func basic(plain string) func(*http.Request) {
	return header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(plain)))
}

func anonymous(r *http.Request) { r.Header.Del("Authorization") }

func latin1(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

const basicChallenge, bearerChallenge = `Basic realm="watchword"`, `Bearer error="invalid_token"`

func TestPXY01CallerFirst(t *testing.T) {
	t.Parallel()
	var asked bool
	h := open(t, introspection.Config{Verifier: judge(t, func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
		asked = true
		return says(`{"active":true}`)(ctx, q)
	}), Callers: []introspection.Caller{{Name: "rs", ClientID: "rs", Secrets: one(secret)}, {Name: "bear", Secrets: one("b-" + secret)}}})
	for _, authorization := range []string{"", "Basic", "Basic ", "Basic !", "Basic Og==", "Basic cnM=", "Basic cnM6", "Digest x", "Basic " + secret, secret, "Negotiate abc"} {
		w := expect(t, h, post("token=x", header("Authorization", authorization)), 401, invalidClient)
		headerIs(t, w, "WWW-Authenticate", basicChallenge)
	}
	for _, plain := range []string{"rs:" + secret + "x", "rs:" + secret[1:], "rs:", "RS:" + secret, ":" + secret, ":b-" + secret, "bear:b-" + secret, "rs:b-" + secret, "rs" + secret, "rs:" + secret + "\x00", "r:s" + secret} {
		headerIs(t, expect(t, h, post("token=x", basic(plain)), 401, invalidClient), "WWW-Authenticate", basicChallenge)
	}
	for _, authorization := range []string{"Bearer", "Bearer ", "bearer x", "Bearer " + secret, "Bearer b-" + secret + "x", "Bearer b-" + secret + ",", "Bearer b-" + secret + " x"} {
		headerIs(t, expect(t, h, post("token=x", header("Authorization", authorization)), 401, invalidClient), "WWW-Authenticate", bearerChallenge)
	}
	// whatever else is wrong, a stranger hears nothing of it; nor what another media type would give (RFC 9701 §5)
	for _, spoil := range []func(*http.Request){header("Content-Type", "application/json"), header("Content-Type"), header("Accept", "application/token-introspection+jwt"),
		func(r *http.Request) { r.URL.RawQuery = "token=x" }, func(r *http.Request) { r.ContentLength = 1 << 20 }} {
		for _, who := range []func(*http.Request){anonymous, basic("rs:wrong")} {
			headerIs(t, expect(t, h, post("token=%", spoil, who), 401, invalidClient), "WWW-Authenticate", basicChallenge)
		}
	}
	for _, form := range []string{"token=x", "token=x&client_id=rs", "token=x&client_id=rs&client_secret=", "token=x&client_id=rs&client_secret=wrong", "token=x&client_secret=" + secret,
		"token=x&client_id=&client_secret=b-" + secret, "token=x&client_id=bear&client_secret=b-" + secret,
		"token=x&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion=a.b.c"} {
		headerIs(t, expect(t, h, post(form, anonymous), 401, invalidClient), "WWW-Authenticate", basicChallenge)
	}
	if asked {
		t.Error("the authorization server was asked for a stranger")
	}
}

func TestPXY01TwoCredentials(t *testing.T) {
	t.Parallel()
	v := &doortest.Verifier{}
	h := open(t, introspection.Config{Verifier: v, Callers: []introspection.Caller{{Name: "rs", ClientID: "rs", Secrets: one(secret)}, {Name: "bear", Secrets: one("b")}}})
	good := "Basic " + base64.StdEncoding.EncodeToString([]byte("rs:"+secret))
	expect(t, h, post("token=x", header("Authorization", good, good)), 400, invalidRequest)
	expect(t, h, post("token=x", header("Authorization", good, "Bearer b")), 400, invalidRequest)
	body := "token=x&client_id=rs&client_secret=" + secret
	for _, form := range []string{body, "token=x&client_secret=y", "token=x&client_id=other", "token=x&client_id=RS", "token=x&client_assertion=a.b.c"} {
		expect(t, h, post(form), 400, invalidRequest)
	}
	expect(t, h, post(body, header("Authorization", "Bearer b")), 400, invalidRequest)
	for _, form := range []string{body + "&client_id=rs", body + "&client_secret=" + secret, body + "&client_secret=wrong", body + "&client_assertion=a"} {
		expect(t, h, post(form, anonymous), 400, invalidRequest)
	}
	for _, r := range v.Asked() {
		if r.Problem != watchword.InvalidRequest {
			t.Errorf("problem %v", r.Problem)
		}
	}
	h = open(t, introspection.Config{Verifier: judge(t, says(`{"active":true}`), watchword.Policy{Name: "rs"}, watchword.Policy{Name: "bear"}),
		Callers: []introspection.Caller{{Name: "rs", ClientID: "rs", Secrets: one(secret)}, {Name: "bear", Secrets: one("b")}}})
	for _, form := range []string{"token=x&client_id=rs", "client_id=&client_secret=&token=x", "token=x&client_id=rs&client_secret=", "client_id=&token=x&client_id=rs", "client_assertion=&client_assertion_type=&token=x"} {
		expect(t, h, post(form), 200, `{"active":true}`)
	}
	expect(t, h, post("token=x&client_id=whoever", header("Authorization", "Bearer b")), 200, `{"active":true}`)
	expect(t, h, post(body, anonymous), 200, `{"active":true}`)
	expect(t, h, post(body, header("Authorization", "")), 200, `{"active":true}`)
	expect(t, h, post(body+"&client_secret=&client_id=", anonymous), 200, `{"active":true}`)
}

func TestCallerSpellings(t *testing.T) {
	t.Parallel()
	const odd = "p:%+@ä é/=&"
	for _, c := range []struct{ id, secret string }{{"rs", secret}, {"78366401571920522@amce", "veryweaksecret!"}, {"käse", odd}, {"a b", "100%41"}, {"€", "€~*'()!"}, {"rs", "+"}, {"rs", "%2B"}} {
		v := judge(t, says(`{"active":true}`), watchword.Policy{Name: "name"})
		h := open(t, introspection.Config{Verifier: v, Callers: []introspection.Caller{{Name: "name", ClientID: c.id, Secrets: one("old", c.secret)}}})
		formEncoded := url.QueryEscape(c.id) + ":" + url.QueryEscape(c.secret)
		spellings := []string{formEncoded, strings.ReplaceAll(formEncoded, "+", "%20"), url.PathEscape(c.id) + ":" + strings.ReplaceAll(url.QueryEscape(c.secret), "+", "%20"),
			strings.NewReplacer("%2B", "%2b", "%3A", "%3a", "%C3", "%c3").Replace(formEncoded), c.id + ":" + c.secret}
		if !strings.Contains(c.id+c.secret, "€") {
			spellings = append(spellings, latin1(c.id+":"+c.secret))
		}
		for _, plain := range spellings {
			expect(t, h, post("token=x", basic(plain)), 200, `{"active":true}`)
			encoded := base64.StdEncoding.EncodeToString([]byte(plain))
			for _, scheme := range []string{"basic ", "BASIC ", "Basic   "} {
				expect(t, h, post("token=x", header("Authorization", scheme+encoded)), 200, `{"active":true}`)
			}
		}
		expect(t, h, post(url.Values{"token": {"x"}, "client_id": {c.id}, "client_secret": {c.secret}}.Encode(), anonymous), 200, `{"active":true}`)
		expect(t, h, post(url.Values{"token": {"x"}, "client_id": {c.id}}.Encode(), basic(formEncoded)), 200, `{"active":true}`)
		if c.secret == "%2B" { // what it means form-encoded is another secret
			expect(t, h, post("token=x", basic(c.id+":+")), 401, invalidClient)
		}
	}
}

func TestCallerRotation(t *testing.T) {
	t.Parallel()
	v := judge(t, says(`{"active":true}`), watchword.Policy{Name: "a"}, watchword.Policy{Name: "b"})
	live := [][]string{{"a-old"}, {"b-old"}}
	current := func() *introspection.Door {
		return open(t, introspection.Config{Verifier: v, Callers: []introspection.Caller{
			{Name: "a", ClientID: "a", Secrets: func() ([]string, error) { return live[0], nil }}, {Name: "b", Secrets: func() ([]string, error) { return live[1], nil }}}})
	}
	check := func(h http.Handler, old, next int) {
		t.Helper()
		for s, status := range map[string]int{"old": old, "new": next} {
			for _, r := range []*http.Request{post("token=x", basic("a:a-"+s)), post("token=x&client_id=a&client_secret=a-"+s, anonymous),
				post("token=x", header("Authorization", "Bearer b-"+s)), post("token=x", header("Authorization", "bEARER  b-"+s))} {
				if w := serve(h, r); w.Code != status {
					t.Errorf("%s: %d, want %d", s, w.Code, status)
				}
			}
		}
	}
	check(current(), 200, 401)
	live = [][]string{{"a-old", "a-new"}, {"b-new", "b-old"}}
	check(current(), 200, 200)
	live = [][]string{{"a-new"}, {"b-new"}}
	check(current(), 401, 200)
}

// Covers: PXY-05 T11 T17
func TestForwardedCredentialsArePartitions(t *testing.T) {
	t.Parallel()
	keys := map[watchword.Key]string{}
	v := judge(t, func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
		if q.Credential == nil {
			t.Error("asked with the issuer's own credential")
			return says(dead)(ctx, q)
		}
		view := q.Credential.Authorization + q.Credential.Hint
		for _, p := range q.Credential.Parameters {
			view += p[0] + "=" + p[1] + ";"
		}
		if other, taken := keys[q.Key]; taken && other != view {
			t.Errorf("%q and %q have one key", other, view)
		}
		keys[q.Key] = view
		sub, _ := json.Marshal("as " + view + " sees it")
		return says(`{"active":true,"sub":`+string(sub)+`}`)(ctx, q)
	}, watchword.Policy{Name: "forward"})
	h := open(t, introspection.Config{Verifier: v, Forward: "forward"})
	sees := func(view, form string, change func(*http.Request)) {
		t.Helper()
		sub, _ := json.Marshal("as " + view + " sees it")
		expect(t, h, post(form, change), 200, `{"active":true,"sub":`+string(sub)+`}`)
	}
	rsa := "Basic " + base64.StdEncoding.EncodeToString([]byte("rs:a"))
	for range 2 {
		sees(rsa, "token=x", header("Authorization", rsa))
		sees(rsa+"access_token", "token=x&token_type_hint=access_token", header("Authorization", rsa))
		sees(rsa+"client_id=rs;", "token=x&client_id=rs&client_secret=", header("Authorization", rsa))
		sees("Bearer b", "token=x", header("Authorization", "Bearer b"))
		sees("whatever c", "token=x", header("Authorization", "whatever c"))
		sees("client_id=rs;client_secret=a%2+;", "client_secret=a%252%2B&token=x&client_id=rs", anonymous)
		sees("client_id=rs;client_assertion_type=urn:x;client_assertion=a.b.c;", "token=x&client_assertion=a.b.c&client_id=rs&client_assertion_type=urn:x", anonymous)
		sees("client_assertion_type=urn:x;client_assertion=a.b.c;", "token=x&client_assertion=a.b.c&client_assertion_type=urn:x", anonymous)
	}
	if len(keys) != 8 {
		t.Errorf("%d keys for 8 credentials", len(keys))
	}
	hostile := "%s\r\nX: y&client_secret=z" // T17: what comes from outside is a value, never part of a format, a form or a header
	sees("Bearer b"+hostile, "token=x&token_type_hint="+url.QueryEscape(hostile), header("Authorization", "Bearer b"))
	for _, form := range []string{"token=x", "token=x&client_id=rs", "token=x&client_id=rs&client_secret=", "token=x&client_assertion_type=urn:x", "token=%", ""} {
		headerIs(t, expect(t, h, post(form, anonymous), 401, invalidClient), "WWW-Authenticate", basicChallenge)
	}
	for _, form := range []string{"token=x&client_secret=a", "token=x&client_assertion=a", "token=x&client_id=other", "token=x&token_type_hint=a&token_type_hint=b", "token=", "a=b"} {
		expect(t, h, post(form, header("Authorization", rsa)), 400, invalidRequest)
	}
	expect(t, h, post("token=x&client_secret=a&client_assertion=b", anonymous), 400, invalidRequest)
	expect(t, h, post("token=x", header("Authorization", rsa, rsa)), 400, invalidRequest)
}

func TestForwardRelaysRefusal(t *testing.T) {
	t.Parallel()
	var no *watchword.Rejection
	fails := func(context.Context, watchword.Query) (*watchword.Answer, error) {
		return nil, &watchword.Error{Failure: watchword.ClientRejected, Issuer: "main", Rejection: no}
	}
	h := open(t, introspection.Config{Verifier: judge(t, fails, watchword.Policy{Name: "forward"}), Forward: "forward"})
	no = &watchword.Rejection{Status: 401, Challenge: `Basic realm="as"`, ContentType: "application/json", Body: []byte(`{"error":"invalid_client","why":"as"}`)}
	headerIs(t, expect(t, h, post("token=x"), 401, `{"error":"invalid_client","why":"as"}`), "WWW-Authenticate", `Basic realm="as"`)
	own := open(t, introspection.Config{Verifier: judge(t, fails)})
	headerIs(t, expect(t, own, post("token=x"), 503, notNow), "WWW-Authenticate", "") // that was our credential
	no = &watchword.Rejection{Status: 403, ContentType: "text/html", Body: []byte(strings.Repeat("<", 5000))}
	w := serve(h, post("token=x"))
	if w.Code != 403 || w.Body.Len() != 4096 || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d with %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
	headerIs(t, w, "Content-Type", "text/html")
	headerIs(t, w, "WWW-Authenticate", "")
	no = &watchword.Rejection{Status: 401, Body: []byte("<html>")}
	answer := dial(t, start(t, h, plain), "POST /introspect HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntoken=x")
	if v := answer.Header.Values("Content-Type"); answer.StatusCode != 401 || answer.ContentLength != 6 || len(v) != 0 {
		t.Errorf("%d with %d bytes; a type was made up: %q", answer.StatusCode, answer.ContentLength, v)
	}
	no = &watchword.Rejection{Status: 403}
	if w := serve(h, post("token=x")); w.Code != 403 || w.Body.Len() != 0 {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	for _, status := range []int{0, 200, 302, 400, 404, 500} {
		no = &watchword.Rejection{Status: status, Body: []byte(`{"active":true}`)}
		expect(t, h, post("token=x"), 503, notNow)
	}
}

// What is accepted is one of the spellings of a credential that is live; everything else is nobody's.
func FuzzAuthorization(f *testing.F) {
	for _, s := range []string{"", "Basic cnM6cw==", "basic  cnM6cw==", "Basic cmE6YiUyMHM=", "Bearer tok", "bearer  tok", "Basic OnRvaw==", "Basic cnM6cw", "Basic cnM6cx=="} {
		f.Add(s)
	}
	d, err := introspection.New(introspection.Config{Verifier: &doortest.Verifier{Decision: watchword.Decision{Reason: watchword.Inactive}}, Paths: []string{"/introspect"}, Callers: []introspection.Caller{
		{Name: "rs", ClientID: "rs", Secrets: one("s")}, {Name: "ra", ClientID: "ra", Secrets: one("b sé")}, {Name: "bear", Secrets: one("tok")}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		scheme, rest, _ := strings.Cut(value, " ")
		rest = strings.TrimLeft(rest, " ")
		want := 401
		switch {
		case strings.EqualFold(scheme, "bearer") && rest == "tok":
			want = 200
		case strings.EqualFold(scheme, "basic"):
			plain, err := base64.StdEncoding.DecodeString(rest)
			id, secret, _ := strings.Cut(string(plain), ":")
			decodedID, err1 := url.QueryUnescape(id)
			decoded, err2 := url.QueryUnescape(secret)
			live := map[string]string{"rs": "s", "ra": "b sé"}
			if err == nil && (live[id] != "" && live[id] == secret || id == "ra" && secret == latin1("b sé") || err1 == nil && err2 == nil && live[decodedID] != "" && live[decodedID] == decoded) {
				want = 200
			}
		}
		if w := serve(d, post("token=x", header("Authorization", value))); w.Code != want {
			t.Errorf("%q: %d, want %d", value, w.Code, want)
		}
	})
}
