package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// aviary is an authorization server that issues, introspects and revokes.
type aviary struct {
	mu     sync.Mutex
	issued int
	dead   map[string]bool
	lying  bool
}

func (v *aviary) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	v.mu.Lock()
	defer v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/token":
		v.issued++
		fmt.Fprintf(w, `{"access_token":"bird-CANARY-%d","expires_in":600}`, v.issued)
	case "/revoke":
		v.dead[r.PostForm.Get("token")] = true
	default:
		fmt.Fprintf(w, `{"active":%v}`, !v.lying && !v.dead[r.PostForm.Get("token")])
	}
}

// A canary is revoked at the server, refused here, and measured; a lying server is told by it.
//
// Covers: OUT-04 T18
func TestOUT04CanaryRunsBesideTheDoors(t *testing.T) {
	t.Parallel()
	v := &aviary{dead: map[string]bool{}}
	as := httptest.NewServer(v)
	defer as.Close()
	file := filepath.Join(t.TempDir(), "w.yaml")
	text := `issuers:
  - {name: main, introspection_endpoint: "` + as.URL + `/introspect", revocation_endpoint: "` + as.URL + `/revoke", client_auth: {method: none}}
freshness: {max_staleness: 0}
policies: [{name: all, require: {audience: [a]}}]
doors: {forward_auth: {listen: "127.0.0.1:0", trusted_proxies: [127.0.0.1/32]}}
admin: {listen: "127.0.0.1:0"}
canary: [{issuer: main, client_auth: {method: none}, token_endpoint: "` + as.URL + `/token", every: 1s, revoke_every: 1h}]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, file)
	metrics := func() string {
		_, body := a.get("admin", "/metrics")
		return body
	}
	until(t, func() bool {
		return strings.Contains(metrics(), `watchword_canary_enforcement_seconds_count{issuer="main",kind="token"} 1`)
	})
	until(t, func() bool { known, alive := a.canaryOf("main")(); return known && alive })
	v.mu.Lock()
	v.lying = true
	v.mu.Unlock()
	until(t, func() bool { known, alive := a.canaryOf("main")(); return known && !alive })
	if known, _ := a.canaryOf("nobody")(); known {
		t.Error("nobody's canary is known")
	}
	if text := metrics() + a.err.String() + a.out.String(); strings.Contains(text, "CANARY") {
		t.Error("a canary's token is shown")
	}
}

func TestCanaryMistakes(t *testing.T) {
	t.Parallel()
	base := "issuers: [{name: main, introspection_endpoint: \"http://127.0.0.1:1/i\", client_auth: {method: none}}]\ndoors: {introspection: {listen: \"127.0.0.1:0\", callers: [{client_id: c, client_secret: {env: HOME}}]}}\ncanary: ["
	for text, want := range map[string]string{
		`{issuer: other, client_auth: {method: none}, token_endpoint: "http://127.0.0.1:1/t"}`:                                                                                                                       "canary[0].issuer",
		`{issuer: main, client_auth: {method: none}, token_endpoint: "http://127.0.0.1:1/t"}`:                                                                                                                        "canary[0].revoke_every",
		`{issuer: main, client_auth: {method: none}, token_endpoint: "http://127.0.0.1:1/t", every: 0}`:                                                                                                              "canary[0].every",
		`{issuer: main, client_auth: {method: client_secret_basic}, token_endpoint: "http://127.0.0.1:1/t", revoke_every: 0}`:                                                                                        "canary[0].client_auth.client_id",
		`{issuer: main, client_auth: {method: none, client_id: x}, token_endpoint: "http://127.0.0.1:1/t", revoke_every: 0}`:                                                                                         "canary[0].client_auth.client_id",
		`{issuer: main, client_auth: {method: none}, revoke_every: 0}`:                                                                                                                                               "canary[0].token_endpoint",
		`{issuer: main, client_auth: {method: none}, token_endpoint: "http://as.example/t", revoke_every: 0}`:                                                                                                        "canary[0].token_endpoint",
		`{issuer: main, client_auth: {method: none}, token_endpoint: "http://127.0.0.1:1/t", revoke_every: 0}, {issuer: main, client_auth: {method: none}, token_endpoint: "http://127.0.0.1:1/t", revoke_every: 0}`: "canary[1].issuer",
	} {
		_, r := decode([]byte(base+text+"]\n"), t.TempDir())
		if len(r.mistakes) == 0 || !strings.Contains(r.sorted().Error(), want) {
			t.Errorf("%s: %v, want %s", text, r.mistakes, want)
		}
	}
}

// Covers: T13
func TestRevocationsThatWereHeardExplainAStorm(t *testing.T) {
	t.Parallel()
	h := new(recent)
	if h.explained("main", 2)() {
		t.Error("nothing was heard")
	}
	h.heard(&revocation.Event{Issuer: "main", Selector: revocation.Selector{Subject: "ann"}})
	if h.explained("main", 2)() {
		t.Error("one user explains a storm")
	}
	h.heard(&revocation.Event{Issuer: "main", JTI: "1"})
	if !h.explained("main", 2)() || h.explained("other", 2)() {
		t.Error("two events do not explain two tokens, or another issuer's")
	}
	h = new(recent)
	h.heard(&revocation.Event{Issuer: "main", Selector: revocation.Selector{Client: "app"}})
	if !h.explained("main", 1000)() {
		t.Error("a client's tokens are many")
	}
	h.issuers["main"].broad = time.Now().Add(-2 * explains)
	if h.explained("main", 1000)() {
		t.Error("what is over explains")
	}
}
