package drill

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Every node is watched at once: one that is slow does not make the others look slow, nor hides what they accept.
func TestRevokeWatchesAllNodesAtOnce(t *testing.T) {
	t.Setenv("DRILL_SECRET", "canary-secret-7f31")
	var mu sync.Mutex
	issued, revoked, asked := 0, map[string]bool{}, map[string]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		token := r.FormValue("token")
		switch r.URL.Path {
		case "/token":
			issued++
			fmt.Fprintf(w, `{"access_token":"t%d","token_type":"Bearer"}`, issued)
		case "/revoke":
			revoked[token] = true
		case "/slow": // hears of it only when the other one was asked
			fmt.Fprintf(w, `{"active":%v}`, !revoked[token] || !asked[token])
		case "/quick":
			asked[token] = asked[token] || revoked[token]
			fmt.Fprintf(w, `{"active":%v}`, !revoked[token])
		}
	}))
	t.Cleanup(s.Close)
	client := Credential{ID: "drill"}
	client.Secret.Env = "DRILL_SECRET"
	target := &Target{TokenEndpoint: s.URL + "/token", RevocationEndpoint: s.URL + "/revoke", Client: client,
		Doors: []Door{{Introspection: s.URL + "/slow", Caller: client}, {Introspection: s.URL + "/quick", Caller: client}}}
	if err := target.resolve(); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), "revoke", Config{Target: target})
	if err != nil || len(r.Nodes) != 2 || r.Nodes[1].Samples == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
