package interop

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/door/middleware"
	"github.com/watchword-dev/watchword/issuer"
)

// TestLibrary: no binary, only the module that a Go service imports, in front of a real authorization server.
// Covers: T2 T28
func TestLibrary(t *testing.T) {
	t.Parallel()
	as := startOIDCProvider(t)
	var asked atomic.Int32
	client, err := issuer.New(issuer.Config{
		Name: "main", IntrospectionEndpoint: as.introspection(),
		Auth:    issuer.ClientSecretBasic("rs", func() ([]string, error) { return []string{"rs-secret"}, nil }),
		Observe: func(string, time.Duration) { asked.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	memory, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(memory.Close)
	route := func(name string, bound time.Duration) watchword.Route {
		return watchword.Route{
			Match: watchword.Match{Paths: []string{"/" + name}},
			Policy: watchword.Policy{Name: name, Scopes: []string{"orders:read"}, Audience: []string{forAPI},
				Freshness: watchword.Freshness{MaxStaleness: bound}},
		}
	}
	v, err := watchword.New(watchword.Config{
		Source:  memory.Over(client, time.Minute),
		Issuers: []watchword.Issuer{client.Shape()},
		Routes:  []watchword.Route{route("relaxed", time.Minute), route("bounded", staleness), route("strict", 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(middleware.Protect(v, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, _ := middleware.FromContext(r.Context())
		_, _ = io.WriteString(w, d.Answer.Subject())
	})))
	t.Cleanup(server.Close)
	get := func(path, token string) reply {
		t.Helper()
		return send(t, server.Listener.Addr().String(), ask{target: "/" + path, token: token})
	}

	token := as.token(t, "ann", forAPI)
	for range 10 {
		if r := get("relaxed", token); r.status != http.StatusOK || r.body != "ann" {
			t.Fatalf("relaxed: %d %q", r.status, r.body)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the authorization server was asked %d times for ten requests within the bound", n)
	}
	if r := get("relaxed", as.token(t, "ann", forAPI, "orders:write")); r.status != http.StatusForbidden {
		t.Errorf("scope: %d", r.status)
	}
	if r := get("relaxed", as.token(t, "ann", forOther)); r.status != http.StatusUnauthorized {
		t.Errorf("audience: %d", r.status)
	}

	// One revocation, three bounds: nobody inherits another's.
	as.revoke(t, "ann", token)
	bound := time.Now().Add(staleness)
	if r := get("strict", token); r.status != http.StatusUnauthorized || !strings.Contains(r.header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("max_staleness 0 after a revocation: %d %v", r.status, r.header)
	}
	until(t, "the revocation to bite", func() (bool, time.Time) {
		return get("bounded", token).status == http.StatusUnauthorized, bound
	})
}
