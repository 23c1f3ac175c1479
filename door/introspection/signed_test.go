package introspection_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door/introspection"
)

const jwtType = "application/token-introspection+jwt"

func accepting(values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header["Accept"] = values }
}

// marked signs so that a test can see for whom and what.
func marked(audience string, response []byte) (string, error) {
	return "signed for " + audience + ": " + string(response), nil
}

func TestSignedAnswersForThoseThatAskForThem(t *testing.T) {
	t.Parallel()
	callers := []introspection.Caller{{Name: "rs", ClientID: "rs-id", Secrets: one(secret)}, {Name: "bare", Secrets: one("bare-secret"), Claims: []string{"sub"}}}
	policies := []watchword.Policy{{Name: "rs"}, {Name: "bare"}}
	send := func(sign introspection.Sign, source watchword.SourceFunc, change ...func(*http.Request)) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := post("token=t", append([]func(*http.Request){func(r *http.Request) { r.SetBasicAuth("rs-id", secret) }}, change...)...)
		open(t, introspection.Config{Verifier: judge(t, source, policies...), Callers: callers, Sign: sign}).ServeHTTP(w, r)
		return w
	}
	const active = `{"active":true,"sub":"ann","scope":"a"}`
	for accept, signed := range map[string]bool{"": false, "*/*": false, "application/json": false, "application/*": false, jwtType: true, "Application/Token-Introspection+JWT": true,
		"application/json, " + jwtType: true, jwtType + ";q=0.5": true, jwtType + ";q=0": false, jwtType + " ; q=0.000": false, "application/jwt": false, jwtType + "x": false} {
		w := send(marked, says(active), accepting(accept))
		want, kind := active, "application/json"
		if signed {
			want, kind = "signed for rs-id: "+active, jwtType
		}
		if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != kind || w.Header().Get("Age") != "0" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("Accept %q: %d %v %s", accept, w.Code, w.Header(), w.Body)
		}
		if w := send(nil, says(active), accepting(accept)); w.Body.String() != active {
			t.Errorf("Accept %q, no key: %s", accept, w.Body)
		}
	}
	if w := send(marked, says(active), accepting("text/html", jwtType)); !strings.HasPrefix(w.Body.String(), "signed") {
		t.Error("the second of two lines is not read")
	}
	bare := func(r *http.Request) { r.Header.Set("Authorization", "Bearer bare-secret") }
	if w := send(marked, says(active), accepting(jwtType), bare); w.Body.String() != `signed for bare: {"active":true,"sub":"ann"}` {
		t.Error(w.Body)
	}
	// every refusal of a token is signed too, and the same
	for _, body := range []string{`{"active":false}`, `{"active":true,"exp":1}`} {
		if w := send(marked, says(body), accepting(jwtType)); w.Code != 200 || w.Body.String() != `signed for rs-id: {"active":false}` || w.Header().Get("Age") != "0" || w.Header().Get("Content-Type") != jwtType {
			t.Errorf("%s: %d %v %s", body, w.Code, w.Header(), w.Body)
		}
	}
	// ignorance is said as it always is
	if w := send(marked, says(`[]`), accepting(jwtType)); w.Code != 503 || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := send(func(string, []byte) (string, error) { return "", errors.New("no") }, says(active), accepting(jwtType)); w.Code != 500 || strings.Contains(w.Body.String(), "ann") {
		t.Errorf("unsigned because signing failed: %d %s", w.Code, w.Body)
	}
}

// Covers: PXY-01
func TestPXY01SignedAnswersAreForNobodyUnknown(t *testing.T) {
	t.Parallel()
	for what, x := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"no credential":    {func(r *http.Request) { r.Header.Del("Authorization") }, 400},
		"wrong credential": {func(r *http.Request) { r.SetBasicAuth("rs", "wrong") }, 401},
	} {
		for sign, want := range map[bool]int{true: x.want, false: 401} {
			c := introspection.Config{Verifier: judge(t, says(`{"active":true}`))}
			if sign {
				c.Sign = marked
			}
			w := httptest.NewRecorder()
			open(t, c).ServeHTTP(w, post("token=t", accepting(jwtType), x.change))
			if w.Code != want {
				t.Errorf("%s, signing %v: %d %s", what, sign, w.Code, w.Body)
			}
		}
	}
	if _, err := introspection.New(introspection.Config{Verifier: judge(t, says(`{}`)), Paths: []string{"/i"}, Forward: "x", Sign: marked}); err == nil {
		t.Error("Forward and Sign")
	}
}

// Whoever has a key is told nothing in the clear, whatever it asks for and whatever fails.
//
// Covers: JIR-03 JIR-04
func TestEncryptedAnswersAndNoOthers(t *testing.T) {
	t.Parallel()
	failing := false
	sealed := func(jwt string) (string, error) {
		if failing {
			return "", errors.New("no")
		}
		return "sealed(" + jwt + ")", nil
	}
	send := func(id, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
		callers := []introspection.Caller{{Name: "rs", ClientID: "rs-id", Secrets: one(secret), Encrypt: sealed}, {Name: "plain", ClientID: "plain", Secrets: one("other")}}
		w := httptest.NewRecorder()
		r := post("token=t", append([]func(*http.Request){func(r *http.Request) {
			r.SetBasicAuth(id, map[string]string{"rs-id": secret, "plain": "other"}[id])
		}}, change...)...)
		open(t, introspection.Config{Verifier: judge(t, says(body), watchword.Policy{Name: "rs"}, watchword.Policy{Name: "plain"}), Callers: callers, Sign: marked}).ServeHTTP(w, r)
		return w
	}
	const active = `{"active":true,"sub":"ann"}`
	for body, want := range map[string]string{active: "sealed(signed for rs-id: " + active + ")", `{"active":false}`: `sealed(signed for rs-id: {"active":false})`} {
		if w := send("rs-id", body, accepting(jwtType)); w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != jwtType {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		if w := send("rs-id", body); w.Code != 400 || w.Body.String() != `{"error":"invalid_request"}` {
			t.Errorf("without that Accept: %d %s", w.Code, w.Body)
		}
	}
	if w := send("plain", active); w.Body.String() != active {
		t.Errorf("another caller: %s", w.Body)
	}
	if w := send("plain", active, accepting(jwtType)); w.Body.String() != "signed for plain: "+active {
		t.Errorf("another caller: %s", w.Body)
	}
	failing = true
	if w := send("rs-id", active, accepting(jwtType)); w.Code != 500 || strings.Contains(w.Body.String(), "ann") {
		t.Errorf("encrypting failed: %d %s", w.Code, w.Body)
	}
	if _, err := introspection.New(introspection.Config{Verifier: judge(t, says(`{}`)), Paths: []string{"/i"}, Callers: []introspection.Caller{{Name: "rs", Secrets: one(secret), Encrypt: sealed}}}); err == nil || !strings.Contains(err.Error(), "signed first") {
		t.Error(err)
	}
}
