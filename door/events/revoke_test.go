package events

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// upstream is an authorization server whose revocation endpoint says what the token's name asks for.
func upstream(t *testing.T) (*httptest.Server, chan *http.Request) {
	t.Helper()
	seen := make(chan *http.Request, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		seen <- r
		switch r.PostForm.Get("token") {
		case "canary-busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "canary-type":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"unsupported_token_type"}`))
		case "canary-stranger":
			w.Header().Set("WWW-Authenticate", `Basic realm="as"`)
			w.WriteHeader(http.StatusUnauthorized)
		case "canary-moved":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "canary-broken":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(s.Close)
	return s, seen
}

// Covers: PXY-08 PXY-09
func TestPXY08RevocationsPassThrough(t *testing.T) {
	t.Parallel()
	as, seen := upstream(t)
	f := new(fleet)
	answers := map[string]string{
		"canary-access":   `{"active":true,"sub":"ann","client_id":"app"}`,
		"canary-others":   `{"active":true,"sub":"bob","client_id":"other"}`,
		"canary-refresh":  `{"active":true,"sub":"ann","client_id":"app","token_type":"Refresh"}`,
		"canary-busy":     `{"active":true,"sub":"ann","client_id":"app"}`,
		"canary-stranger": `{"active":true,"sub":"ann","client_id":"app"}`,
		"canary-type":     `{"active":true,"sub":"ann","client_id":"app"}`,
		"own canary-mine": `{"active":true,"sub":"ann","client_id":"app","token_type":"Refresh"}`,
	}
	endpoint := as.URL + "/revoke"
	client := as.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	d := open(t, Config{Publisher: f, Revokes: []Revoke{{Path: "/revoke", Signals: signals(), Client: client, Endpoint: func() string { return endpoint },
		TokenID: func(_ string, token watchword.Token) (id revocation.TokenID) {
			copy(id[:], strings.TrimPrefix(string(token), "canary-"))
			return id
		},
		Ask: func(_ context.Context, _ string, token watchword.Token, as *watchword.Credential) (*watchword.Answer, error) {
			name := string(token)
			if as != nil {
				name = "own " + name
			}
			if name == "canary-down" || name == "own canary-down" {
				return nil, errors.New("the server cannot be asked")
			}
			text := answers[name]
			if text == "" {
				text = `{"active":false}`
			}
			return watchword.ParseAnswer([]byte(text), watchword.Evidence{Issuer: "main", Asked: time.Now()})
		}}}})
	basic := func(id string) string {
		r, _ := http.NewRequest("POST", "http://x", nil)
		r.SetBasicAuth(id, "canary-password")
		return r.Header.Get("Authorization")
	}
	post := func(token, id string, more ...string) *httptest.ResponseRecorder {
		form := url.Values{"token": {"canary-" + token}}
		for i := 0; i < len(more); i += 2 {
			form.Add(more[i], more[i+1])
		}
		if id == "" {
			return send(t, d, "/revoke", formType, form.Encode())
		}
		return send(t, d, "/revoke", formType, form.Encode(), "Authorization", basic(id))
	}
	check(t, "its own access token", post("access", "app"), 200, f, "main revoke deny token a")
	if r := <-seen; r.Header.Get("Authorization") != basic("app") || r.PostForm.Get("token") != "canary-access" {
		t.Error("the client's credential does not go on as it came")
	}
	check(t, "its own, in the body", post("access", "", "client_id", "app", "client_secret", "canary-password"), 200, f, "main revoke deny token a")
	check(t, "a public client's", post("access", "", "client_id", "app"), 200, f, "main revoke deny token a")
	assertion := func(sub string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"x","sub":"`+sub+`"}`)) + ".c2ln"
	}
	check(t, "its own, by an assertion", post("access", "", "client_assertion", assertion("app")), 200, f, "main revoke deny token a")
	check(t, "by an assertion that nobody can read", post("access", "", "client_assertion", "a.b.c", "client_id", "app"), 200, f, "main revoke revalidate token a")
	bearer := send(t, d, "/revoke", formType, "token=canary-access&client_id=app", "Authorization", "Bearer canary-password")
	check(t, "who says that it is app, and shows something else", bearer, 200, f, "main revoke revalidate token a")
	check(t, "somebody else's: only asked again", post("others", "app"), 200, f, "main revoke revalidate token o")
	check(t, "a refresh token", post("refresh", "app"), 200, f, "main revoke deny token r + main revoke revalidate ann,app,,,")
	check(t, "by its hint", post("access", "app", "token_type_hint", "refresh_token"), 200, f, "main revoke deny token a + main revoke revalidate ann,app,,,")
	check(t, "one that only its client may ask about", post("mine", "app"), 200, f, "main revoke deny token m + main revoke revalidate ann,app,,,")
	check(t, "an unknown one, or one that another node revoked and could not tell of", post("unknown", "app"), 200, f, "main revoke revalidate token u")
	check(t, "nobody could say whose", post("down", "app"), 200, f, "main revoke revalidate token d")

	w := post("busy", "app")
	check(t, "503 is relayed", w, 503, f, "")
	if w.Header().Get("Retry-After") != "7" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	w = post("type", "app")
	check(t, "400 is relayed", w, 400, f, "")
	if !strings.Contains(w.Body.String(), "unsupported_token_type") {
		t.Errorf("%s", w.Body)
	}
	w = post("stranger", "app")
	check(t, "401 is relayed", w, 401, f, "")
	if w.Header().Get("WWW-Authenticate") == "" {
		t.Error("no challenge")
	}
	check(t, "a redirect is no answer", post("moved", "app"), 503, f, "")
	check(t, "500 is no answer", post("broken", "app"), 503, f, "")

	f.set(true, false)
	refresh := "main revoke deny token r + main revoke revalidate ann,app,,,"
	check(t, "done there, not durable here", post("refresh", "app"), 503, f, refresh)
	delete(answers, "canary-refresh") // the server has done it
	check(t, "sent again, still not durable", post("refresh", "app"), 503, f, refresh)
	f.set(false, false)
	check(t, "sent again", post("refresh", "app"), 200, f, refresh)
	check(t, "and again", post("refresh", "app"), 200, f, "main revoke revalidate token r")
	for range 3 * maxStrange { // who sprays strings fills no ledger, and hears nothing else
		if w := post("unknown", "app"); w.Code != 200 {
			t.Errorf("a spray: %d", w.Code)
		}
		<-seen
	}
	if n := strings.Count(f.told(), "token u"); n < 1 || n > 2*maxStrange {
		t.Errorf("%d strings of a spray cause %d events", 3*maxStrange, n)
	}
	for len(seen) > 0 {
		<-seen
	}
	for what, w := range map[string]*httptest.ResponseRecorder{
		"no token":            post("", "app", "token", "canary-x"),
		"two secrets":         post("access", "app", "client_secret", "canary-password"),
		"two clients":         post("access", "app", "client_id", "other"),
		"another's assertion": post("access", "", "client_id", "app", "client_assertion", assertion("evil")),
		"a member twice":      post("access", "app", "client_id", "app", "client_id", "app"),
		"JSON":                send(t, d, "/revoke", "application/json", `{"token":"canary-access"}`),
		"a broken form":       send(t, d, "/revoke", formType, "token=%zz"),
		"a token in the URL":  send(t, d, "/revoke?token=canary-access", formType, "token=canary-access"),
		"nothing":             send(t, d, "/revoke", formType, "token="),
		"two headers":         send(t, d, "/revoke", formType, "token=canary-access", "Authorization", basic("a"), "Authorization", basic("b")),
	} {
		check(t, what, w, 400, f, "")
	}
	if len(seen) > 0 {
		t.Error("a request that cannot be read was passed on")
	}
	endpoint = ""
	check(t, "not discovered", post("access", "app"), 503, f, "")
	endpoint = "http://127.0.0.1:1/"
	check(t, "down", post("access", "app"), 503, f, "")
}

func FuzzBasicNames(f *testing.F) {
	f.Add("Basic YXBwOng=")
	f.Add("basic YSUyMGI6eA==")
	f.Fuzz(func(t *testing.T, header string) {
		if names := basicNames(header); len(names) > 2 {
			t.Fatalf("%q: %q", header, names)
		}
	})
}

func FuzzAssertionNames(f *testing.F) {
	f.Add("e30.eyJzdWIiOiJhcHAifQ.c2ln")
	f.Add("..")
	f.Fuzz(func(t *testing.T, assertion string) {
		if names := assertionNames(assertion); len(names) > 1 {
			t.Fatalf("%q: %q", assertion, names)
		}
	})
}
