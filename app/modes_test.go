package app

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// What an operator says about a policy stands at once, outlives a reload, and ends by itself.
//
// Covers: OUT-02
func TestOUT02ModeOutlivesAReload(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	text = strings.Replace(text, "doors:\n", "policies:\n  - {name: orders, freshness: {max_staleness: 0}, issuers: [main]}\ndoors:\n  forward_auth: {listen: unix:"+filepath.Dir(path)+"/auth.sock}\n", 1)
	write(t, filepath.Dir(path), "watchword.yaml", text)
	r := start(t, path)
	decide := func(want watchword.Reason, word watchword.Degradation) {
		t.Helper()
		if d := r.Verifier().Verify(t.Context(), watchword.Request{Token: "live-token"}); d.Reason != want || d.Degraded != word {
			t.Errorf("%v %q (%v), want %v %q", d.Reason, d.Degraded, d.Err, want, word)
		}
	}
	if err := r.setMode("order", watchword.Mode{}); err == nil || !strings.Contains(err.Error(), "there are: orders") {
		t.Error(err)
	}
	mode := watchword.Mode{OnUnavailable: watchword.DangerouslyAllow, Until: time.Now().Add(time.Hour)}
	if err := r.setMode("orders", mode); err != nil {
		t.Fatal(err)
	}
	decide(watchword.OK, watchword.Whole)
	as.down.Store(true)
	as.Close()
	decide(watchword.OK, watchword.ServedAnyAge)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	decide(watchword.OK, watchword.ServedAnyAge)
	if got := r.modes.standing(); len(got) != 1 || got["orders"] != mode {
		t.Errorf("%+v", got)
	}
	mode.Until = time.Now()
	if err := r.setMode("orders", mode); err != nil {
		t.Fatal(err)
	}
	decide(watchword.CannotKnow, watchword.Whole)
	if got := r.modes.standing(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// What operators do is kept, however little the process says of itself.
//
// Covers: OUT-02
func TestOUT02OperatorsAreAuditedAtEveryLevel(t *testing.T) {
	t.Parallel()
	path, text := site(t, newServer(t, "live-token"))
	write(t, filepath.Dir(path), "ops", "operator\n")
	text = change(t, text, "admin: {listen: 127.0.0.1:0}", "admin: {listen: 127.0.0.1:0, operators: [{name: ops, bearer: {file: ops}}]}")
	text = change(t, text, "level: debug", "level: error, format: json")
	text = change(t, text, "doors:\n", "policies: [{name: orders}]\ndoors:\n  forward_auth: {listen: unix:"+filepath.Dir(path)+"/auth.sock}\n")
	write(t, filepath.Dir(path), "watchword.yaml", text)
	c, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	said := &lines{more: make(chan struct{}, 1)}
	a, err := Build(c, io.Discard, said)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	for at, body := range map[string]string{
		"/v1/mode":        `{"policy":"orders","on_unavailable":"deny","until":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `","why":"a drill"}`,
		"/v1/revocations": `{"issuer":"main","sub":"ann","why":"she left"}`,
	} {
		r := httptest.NewRequest(http.MethodPost, at, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer operator")
		w := httptest.NewRecorder()
		a.now.Load().handlers["admin"].ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", at, w.Code, w.Body)
		}
	}
	for _, want := range []string{`"operator":"ops"`, `"why":"a drill"`, `"why":"she left"`} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("not kept: %s\n%s", want, said)
		}
	}
}

// Whoever changes an issuer's section in the middle of a storm logs nobody out.
//
// Covers: OUT-04 T13
func TestOUT04AStormOutlivesAReload(t *testing.T) {
	t.Parallel()
	var lying atomic.Bool
	as := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":%v,"exp":%d}`, !lying.Load(), time.Now().Add(time.Hour).Unix())
	}))
	defer as.Close()
	file := filepath.Join(t.TempDir(), "w.yaml")
	text := `issuers:
  - {name: main, introspection_endpoint: "` + as.URL + `", client_auth: {method: none}, storm: {at_least: 1}, timeout: 20s}
freshness: {max_staleness: 0}
policies: [{name: all}]
doors: {forward_auth: {listen: "127.0.0.1:0", trusted_proxies: [127.0.0.1/32]}}
`
	put(t, file, text)
	r := start(t, file)
	decide := func(when, token string, want watchword.Reason) {
		t.Helper()
		if d := r.Verifier().Verify(t.Context(), watchword.Request{Token: watchword.Token(token)}); d.Reason != want {
			t.Errorf("%s: %v (%v), want %v", when, d.Reason, d.Err, want)
		}
	}
	decide("all is well", "known", watchword.OK)
	lying.Store(true)
	decide("it lies", "known", watchword.CannotKnow)
	put(t, file, change(t, text, "at_least: 1", "at_least: 20"))
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	decide("after a reload", "known", watchword.CannotKnow)
	decide("after a reload, never seen", "other", watchword.CannotKnow)
	put(t, file, change(t, text, as.URL, as.URL+"/other"))
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	decide("another server", "known", watchword.Inactive)
}
