package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Three Watchwords share what they hear over a real Redis: what one is told, all refuse, also one that was killed and
// comes back with no memory of its own.
// Covers: SIG-17 SIG-21 PXY-08 T28
func TestFleetRevokes(t *testing.T) {
	t.Parallel()
	as, bus := startOIDCProvider(t), startRedis(t)
	secret := write(t, t.TempDir(), "deployment-secret", "deployment-secret-of-the-test-of-a-fleet\n")
	var nodes []*front
	for range 3 {
		nodes = append(nodes, hall{bound: farAway, callers: ordersCalls,
			issuer: []string{"introspection_endpoint: " + as.introspection(), "revocation_endpoint: " + as.issuer + "/token/revocation",
				secretAuth(t, "client_secret_basic", "rs", "rs-secret")},
			events: []string{"revoke: [{issuer: main, path: /revoke/main}]"},
			admin:  ", operators: [{name: ops, bearer: {env: OPS}}]", env: []string{"OPS=operator-of-the-test"},
			more: fmt.Sprintf("revocation: {bus: {redis: {address: %q, prefix: fleet}}}\ndeployment_secret: {file: %s}\n", bus.address, secret)}.open(t))
	}
	pass := func(t *testing.T, token string) {
		t.Helper()
		post(t, nodes[0].events+"/revoke/main", "ann", url.Values{"token": {token}}, http.StatusOK)
	}

	whole := t // what is started again serves beyond its subtest
	t.Run("a client revokes through one node", func(t *testing.T) {
		const rounds = 100
		took := make([][]time.Duration, len(nodes))
		for range rounds {
			token := remembered(t, as, nodes...)
			pass(t, token)
			answered := time.Now()
			var wait sync.WaitGroup
			for i, n := range nodes {
				wait.Go(func() {
					after, err := n.refuses(token, answered)
					if err != nil {
						t.Errorf("node %d: %v", i+1, err)
					}
					took[i] = append(took[i], after)
				})
			}
			wait.Wait()
		}
		for i, all := range took {
			slices.Sort(all)
			t.Logf("node %d: refused after the client heard that its token is revoked: p50 %v p99 %v max %v", i+1,
				all[rounds/2].Round(10*time.Microsecond), all[rounds*99/100].Round(10*time.Microsecond), all[rounds-1].Round(10*time.Microsecond))
		}
		if took[0][rounds-1] > 0 {
			t.Errorf("the node that passed a revocation on accepted the token %v afterwards", took[0][rounds-1])
		}
	})
	t.Run("a node is killed and comes back", func(t *testing.T) { // the server never hears what an operator says
		before := remembered(t, as, nodes...)
		nodes[0].deny(t, map[string]any{"issuer": "main", "token": before, "why": "a test"})
		for _, n := range nodes {
			if _, err := n.refuses(before, time.Now()); err != nil {
				t.Error(err)
			}
		}
		nodes[2].kill()
		meanwhile := remembered(t, as, nodes[:2]...)
		nodes[0].deny(t, map[string]any{"issuer": "main", "token": meanwhile, "why": "a test"})
		began := time.Now()
		nodes[2].daemon = serveFile(whole, nodes[2].config, nodes[2].admin, nodes[2].env...)
		t.Logf("ready %v after it was started again", time.Since(began).Round(time.Millisecond))
		for what, token := range map[string]string{"denied before the crash": before, "denied while it was down": meanwhile} {
			if body := post(t, as.introspection(), "rs", url.Values{"token": {token}}, http.StatusOK); !strings.Contains(string(body), `"active":true`) {
				t.Fatalf("the server itself: %s", body)
			}
			nodes[2].dead(t, what, token)
		}
	})
	t.Run("drilled", func(t *testing.T) {
		dir := t.TempDir()
		door := func(n *front) map[string]any {
			return map[string]any{"introspection": n.introspect, "caller": map[string]any{"client_id": "orders", "client_secret": map[string]string{"env": "ORDERS_SECRET"}}}
		}
		target, err := json.Marshal(map[string]any{
			"doors":          []any{door(nodes[0]), door(nodes[1]), door(nodes[2])},
			"token_endpoint": as.issuer + "/token", "revocation_endpoint": nodes[0].events + "/revoke/main",
			"client": map[string]any{"client_id": "ann", "client_secret": map[string]string{"env": "ANN_SECRET"}}, "scope": "orders:read",
			"max_staleness": farAway, "revocation_bound": "1s",
		})
		if err != nil {
			t.Fatal(err)
		}
		cmd := watchwordCommand(t, "drill", "revoke", "--target", write(t, dir, "target.json", string(target)), "--report", filepath.Join(dir, "report.html"))
		cmd.Env = append(cmd.Environ(), "ORDERS_SECRET=orders-secret", "ANN_SECRET=ann-secret")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
	})
}

// remembered is a new token that these nodes remember.
func remembered(t *testing.T, as *oidcProvider, nodes ...*front) string {
	t.Helper()
	token := as.token(t, "ann", forAPI)
	for _, n := range nodes {
		n.lives(t, "a new token", token)
	}
	return token
}

// refuses polls the introspection door until it calls a token inactive, and returns how long after since the first
// question was asked that got this answer; 0: the first one.
func (f *front) refuses(token string, since time.Time) (time.Duration, error) {
	for n := 0; ; n++ {
		began := time.Now()
		switch active, err := f.active(token); {
		case err != nil:
			return 0, err
		case !active && n == 0:
			return 0, nil
		case !active:
			return began.Sub(since), nil
		case began.Sub(since) > patience:
			return 0, fmt.Errorf("still accepted %v after its revocation", began.Sub(since))
		}
	}
}

// active asks the introspection door.
func (f *front) active(token string) (bool, error) {
	req, err := http.NewRequest(http.MethodPost, f.introspect, strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("orders", "orders-secret")
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var said struct{ Active *bool }
	if err = json.NewDecoder(resp.Body).Decode(&said); err != nil || resp.StatusCode != http.StatusOK || said.Active == nil {
		return false, fmt.Errorf("status %d: %v", resp.StatusCode, err)
	}
	return *said.Active, nil
}

// deny is an operator's word at this node.
func (f *front) deny(t *testing.T, what map[string]any) {
	t.Helper()
	if status, said := f.revocation(t, what); status != http.StatusOK {
		t.Fatalf("/v1/revocations: %d %s", status, said)
	}
}

// revocation is what the node answers an operator who wants that.
func (f *front) revocation(t *testing.T, what map[string]any) (status int, said []byte) {
	t.Helper()
	body, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+f.admin+"/v1/revocations", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer operator-of-the-test")
	status, _, said = roundTrip(t, req)
	return status, said
}
