package interop

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// grant is one token, as its server knows it.
type grant struct {
	token  string
	group  string // its sub is u-GROUP, its client c-GROUP
	issued time.Time
	dead   time.Time // V: from then on introspection no longer says active; zero: never
}

// scripted is an authorization server whose truth is known to the instant, which no real one tells: introspection
// (RFC 7662) and revocation (RFC 7009), of which the second is seen by the first a while later.
type scripted struct {
	*httptest.Server
	mu     sync.Mutex
	grants map[string]*grant
	lag    func() time.Duration // from a revocation until introspection knows it; called with mu held
	asked  int
}

func newScripted(t *testing.T, lag func() time.Duration) *scripted {
	as := &scripted{grants: map[string]*grant{}, lag: lag}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /introspect", as.introspect)
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		client, _, _ := r.BasicAuth()
		as.revoke(r.PostFormValue("token"), client)
	})
	as.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		as.CloseClientConnections() // else it waits for those on which nothing was asked
		as.Close()
	})
	return as
}

func (as *scripted) introspect(w http.ResponseWriter, r *http.Request) {
	token := r.PostFormValue("token")
	as.mu.Lock()
	as.asked++
	g := as.grants[token]
	if g != nil && !g.dead.IsZero() && !time.Now().Before(g.dead) {
		g = nil
	}
	as.mu.Unlock()
	answer := map[string]any{"active": false}
	if g != nil {
		answer = map[string]any{"active": true, "sub": "u-" + g.group, "client_id": "c-" + g.group, "scope": "orders:read", "iat": g.issued.Unix(), "exp": g.issued.Add(time.Hour).Unix()}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// issue makes a token of a group.
func (as *scripted) issue(group string) grant {
	g := &grant{token: "at-" + rand.Text(), group: group, issued: time.Now()}
	as.mu.Lock()
	defer as.mu.Unlock()
	as.grants[g.token] = g
	return *g
}

// revoke ends a token of this client, or does nothing, as RFC 7009 §2.2 has it.
func (as *scripted) revoke(token, client string) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if g := as.grants[token]; g != nil && client == "c-"+g.group && g.dead.IsZero() {
		g.dead = time.Now().Add(as.lag())
	}
}

// truth is every token as it is now.
func (as *scripted) truth() map[string]grant {
	as.mu.Lock()
	defer as.mu.Unlock()
	all := map[string]grant{}
	for token, g := range as.grants {
		all[token] = *g
	}
	return all
}
