package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// kept is a Publisher that keeps what it is given, or says that it cannot.
type kept struct {
	events []revocation.Event
	err    error
}

func (k *kept) Publish(_ context.Context, events ...revocation.Event) error {
	k.events = append(k.events, events...)
	return k.err
}
func (k *kept) Prove(context.Context, string, time.Time) error {
	return errors.New("operators prove nothing")
}
func (k *kept) Lapse(context.Context, string, string) error {
	return errors.New("operators lapse nothing")
}

func one(secret string) func() ([]string, error) {
	return func() ([]string, error) { return []string{secret}, nil }
}

func open(t *testing.T, k *kept, audit *bytes.Buffer, more ...Endpoint) *Door {
	t.Helper()
	d, err := New(Config{Publisher: k, Selectors: map[string][]string{"main": {"tenant", "job"}, "other": nil}, More: more,
		Operators: []Operator{{Name: "ops", Secrets: one("ops-secret")}, {Name: "acme", Secrets: one("acme-secret"), Issuers: []string{"main"}, Tenants: []string{"acme"}}},
		TokenID: func(issuer string, token watchword.Token) revocation.TokenID {
			return revocation.TokenID{byte(len(token))}
		},
		Held: func(issuer string, match func(*revocation.Event) bool, most int) (all []revocation.Event) {
			for _, e := range k.events {
				if e.Issuer == issuer && match(&e) && len(all) < most {
					all = append(all, e)
				}
			}
			return all
		},
		Audit: slog.New(slog.NewTextHandler(audit, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func call(d http.Handler, method, path, secret, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"issuer":"main","sub":"ann","why":"stolen laptop"}`:                     "deny sub=ann",
		`{"issuer":"main","sub":"ann","client":"app","session":"s","tenant":"x"}`: "deny sub=ann client=app sid=s tenant=x",
		`{"issuer":"main","job":"j1","effect":"revalidate"}`:                      "revalidate job=j1",
		`{"issuer":"main","jti":"t1"}`:                                            "deny jti=t1",
		`{"issuer":"main","token":"canary-token"}`:                                "deny token",
		`{"issuer":"other","whole_issuer":true}`:                                  "deny all",
		`{"issuer":"main","sub":"ann","before":1700000000}`:                       "deny sub=ann before 1700000000",
	} {
		k, audit := new(kept), new(bytes.Buffer)
		w := call(open(t, k, audit), "POST", "/v1/revocations", "ops-secret", body)
		if w.Code != 200 || len(k.events) != 1 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
			continue
		}
		e := k.events[0]
		got := e.Effect.String()
		for _, p := range [][2]string{{"sub", e.Selector.Subject}, {"client", e.Selector.Client}, {"sid", e.Selector.Session}, {"tenant", e.Selector.Tenant}, {"job", e.Selector.Other["job"]}, {"jti", e.JTI}} {
			if p[1] != "" {
				got += " " + p[0] + "=" + p[1]
			}
		}
		if e.Token != (revocation.TokenID{}) {
			got += " token"
		}
		if e.WholeIssuer {
			got += " all"
		}
		if time.Since(e.At) > time.Hour {
			got += fmt.Sprint(" before ", e.At.Unix())
		}
		if got != want || !e.Operator || e.Who != "ops" || e.Way != "admin" || e.Heard.IsZero() {
			t.Errorf("%s: %s (%+v), want %s", body, got, e, want)
		}
		var said struct {
			ID      string
			Applied bool
		}
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.ID != e.ID || said.ID == "" || !said.Applied {
			t.Errorf("%s: %s", body, w.Body)
		}
		if line := audit.String(); !strings.Contains(line, "operator=ops") || !strings.Contains(line, e.ID) || strings.Contains(line, "canary") {
			t.Errorf("the audit log says %s", line)
		}
	}
}

// Covers: T26
func TestEveryMistakeIsNamed(t *testing.T) {
	t.Parallel()
	k, audit := new(kept), new(bytes.Buffer)
	d := open(t, k, audit)
	for body, want := range map[string]string{
		``:                                      "not JSON",
		`[]`:                                    "not a JSON object",
		`{}`:                                    "issuer is missing",
		`{"issuer":"main"}`:                     "selects nobody",
		`{"issuer":"nobody","sub":"ann"}`:       "none that is configured",
		`{"issuer":"main","sub":""}`:            "sub is no string",
		`{"issuer":"main","sub":7}`:             "sub is no string",
		`{"issuer":"main","sub":"a","sub":"b"}`: "duplicate",
		`{"issuer":"main","user":"ann"}`:        "not known",
		`{"issuer":"other","job":"j"}`:          "not known",
		`{"issuer":"main","sub":"a","jti":"t"}`: "more than one way",
		`{"issuer":"main","sub":"a","whole_issuer":true}`:                 "more than one way",
		`{"issuer":"main","whole_issuer":false}`:                          "whole_issuer can only be true",
		`{"issuer":"main","whole_issuer":"true"}`:                         "whole_issuer can only be true",
		`{"issuer":"main","sub":"a","before":"x"}`:                        "before",
		`{"issuer":"main","sub":"a","before":1.5}`:                        "before",
		`{"issuer":"main","sub":"a","before":1900000000000}`:              "future",
		`{"issuer":"main","sub":"a","effect":"kill"}`:                     "effect",
		`{"issuer":"other","sub":"a","tenant":"x"}`:                       "selector_claims",
		`{"issuer":"main","token":"` + strings.Repeat("x", 20_000) + `"}`: "longer",
		`{"issuer":"main","token":"canary-token\n"}`:                      "no token has",
		`{"issuer":"main","token":"Bearer canary-token"}`:                 "no token has",
		`{"issuer":"main","token":"canary-tokén"}`:                        "no token has",
		`{"issuer":"main","sub":"` + strings.Repeat("x", 2_000) + `"}`:    "longer",
		`{"issuer":"main","why":"` + strings.Repeat("x", 70_000) + `"}`:   "longer",
	} {
		w := call(d, "POST", "/v1/revocations", "ops-secret", body)
		if w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%.80s: %d %s, want %q", body, w.Code, w.Body, want)
		}
	}
	if len(k.events) > 0 {
		t.Errorf("applied %+v", k.events)
	}
}

// Covers: T27
func TestT27OperatorsStayWithinTheirScope(t *testing.T) {
	t.Parallel()
	k, audit := new(kept), new(bytes.Buffer)
	d := open(t, k, audit)
	for body, want := range map[string]int{
		`{"issuer":"main","sub":"ann","tenant":"acme"}`:  200,
		`{"issuer":"main","tenant":"acme"}`:              200,
		`{"issuer":"main","sub":"ann","tenant":"evil"}`:  403,
		`{"issuer":"main","sub":"ann"}`:                  403,
		`{"issuer":"main","token":"x"}`:                  403,
		`{"issuer":"main","jti":"x"}`:                    403,
		`{"issuer":"main","whole_issuer":true}`:          403,
		`{"issuer":"other","sub":"ann","tenant":"acme"}`: 403,
	} {
		if w := call(d, "POST", "/v1/revocations", "acme-secret", body); w.Code != want {
			t.Errorf("%s: %d %s, want %d", body, w.Code, w.Body, want)
		}
	}
	if len(k.events) != 2 || !strings.Contains(audit.String(), "may not revoke") {
		t.Errorf("applied %+v\n%s", k.events, audit)
	}
	call(d, "POST", "/v1/revocations", "ops-secret", `{"issuer":"main","sub":"bob"}`)
	call(d, "POST", "/v1/revocations", "ops-secret", `{"issuer":"main","token":"canary"}`)
	listed := func(secret, query string) (int, string) {
		w := call(d, "GET", "/v1/revocations?"+query, secret, "")
		return w.Code, w.Body.String()
	}
	if code, text := listed("acme-secret", "issuer=main"); code != 200 || strings.Contains(text, "bob") || strings.Count(text, `"id"`) != 2 {
		t.Errorf("a tenant's operator sees %d %s", code, text)
	}
	if code, text := listed("ops-secret", "issuer=main"); code != 200 || strings.Count(text, `"id"`) != 4 || strings.Contains(text, "canary") {
		t.Errorf("an operator of all sees %d %s", code, text)
	}
	if code, text := listed("ops-secret", "issuer=main&sub=bob&operator=true"); code != 200 || strings.Count(text, `"id"`) != 1 {
		t.Errorf("one: %d %s", code, text)
	}
	if code, text := listed("ops-secret", "issuer=main&limit=1"); code != 200 || strings.Count(text, `"id"`) != 1 || !strings.Contains(text, `"more":true`) {
		t.Errorf("the first: %d %s", code, text)
	}
	for query, want := range map[string]int{"": 400, "issuer=nobody": 400, "issuer=main&token=x": 400, "issuer=main&x=y": 400, "issuer=main&limit=0": 400, "issuer=main&sub=a&sub=b": 400, "issuer=main;x": 400} {
		if code, text := listed("ops-secret", query); code != want {
			t.Errorf("%s: %d %s", query, code, text)
		}
	}
	if code, _ := listed("acme-secret", "issuer=other"); code != 403 {
		t.Errorf("another issuer is listed: %d", code)
	}
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	k, audit := new(kept), new(bytes.Buffer)
	d := open(t, k, audit, Endpoint{"/v1/mode", "POST", func(w http.ResponseWriter, _ *http.Request, by Operator) { fmt.Fprint(w, by.Name) }})
	for _, secret := range []string{"", "wrong", "ops-secret2"} {
		if w := call(d, "POST", "/v1/revocations", secret, `{"issuer":"main","sub":"ann"}`); w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%q: %d", secret, w.Code)
		}
	}
	if w := call(d, "POST", "/v1/mode", "acme-secret", ""); w.Code != 200 || w.Body.String() != "acme" {
		t.Errorf("another endpoint: %d %s", w.Code, w.Body)
	}
	if w := call(d, "DELETE", "/v1/revocations", "ops-secret", ""); w.Code != 405 || w.Header().Get("Allow") != "POST, GET" {
		t.Errorf("DELETE: %d %v", w.Code, w.Header())
	}
	if w := call(d, "GET", "/v1/else", "ops-secret", ""); w.Code != 404 {
		t.Errorf("elsewhere: %d", w.Code)
	}
	k.err = fmt.Errorf("wrapped: %w", revocation.ErrFull)
	if w := call(d, "POST", "/v1/revocations", "ops-secret", `{"issuer":"main","sub":"ann"}`); w.Code != 507 {
		t.Errorf("full: %d", w.Code)
	}
	k.err = errors.New("the bus is down")
	if w := call(d, "POST", "/v1/revocations", "ops-secret", `{"issuer":"main","sub":"ann"}`); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("not durable: %d", w.Code)
	}
	_, err := New(Config{Selectors: map[string][]string{"main": nil}, Operators: []Operator{{Name: "a", Secrets: one("x"), Issuers: []string{"gone"}}, {Name: "a", Secrets: one("x")}, {Name: "b"}}})
	for _, want := range []string{"Publisher", "given twice", "no issuer", "another operator's secret", "no Secrets"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(`{"issuer":"main","sub":"ann","before":1,"effect":"deny","why":"x","job":"y"}`)
	d, err := New(Config{Publisher: new(kept), Selectors: map[string][]string{"main": {"job"}}, Operators: []Operator{{Name: "ops", Secrets: one("s")}},
		TokenID: func(string, watchword.Token) revocation.TokenID { return revocation.TokenID{1} }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if e, _, err := d.event(r, members); err == nil {
			if err := e.Validate(); err != nil || !e.Operator || e.At.After(time.Now().Add(2*time.Second)) {
				t.Fatalf("%q: %+v %v", body, e, err)
			}
		}
	})
}
