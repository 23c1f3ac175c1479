//go:build embedded_nats

package app

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// addresses are as many addresses of this machine as are asked for, which nobody else uses.
func addresses(t *testing.T, n int) (all []string) {
	t.Helper()
	for range n {
		host := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(250), rand.N(250), 1+rand.N(250))
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Skip("this system has 127.0.0.1 only: ", err)
		}
		all = append(all, l.Addr().String())
		_ = l.Close()
	}
	return all
}

// inside3 writes the file of node i of a fleet whose first three nodes listen at these addresses.
func inside3(t *testing.T, as *server, at []string, i int, secret string) (path string) {
	t.Helper()
	path, text := site(t, as)
	dir := filepath.Dir(path)
	write(t, dir, "deployment", strings.Repeat(secret, 32))
	write(t, dir, "ops", "ops-secret-of-the-test")
	text = change(t, text, "admin: {listen: 127.0.0.1:0}", "admin: {listen: 127.0.0.1:0, operators: [{name: ops, bearer: {file: ops}}]}")
	put(t, path, text+fmt.Sprintf("revocation: {bus: {nats: {embedded: {folder: nats, name: n%d, listen: %q, nodes: [%q, %q, %q]}}}}\ndeployment_secret: {file: deployment}\n", i, at[i], at[0], at[1], at[2]))
	return path
}

// readyIn waits for a node to be ready. Three that all begin anew elect a leader first, for the cluster and for what it
// stores, which takes seconds.
func readyIn(t *testing.T, status func() int) {
	t.Helper()
	began := time.Now()
	for status() != 200 {
		if time.Sleep(20 * time.Millisecond); time.Since(began) > 90*time.Second {
			t.Fatal("it is never ready")
		}
	}
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
}

// Three processes with a server in each are killed at once, right after one of them has acknowledged a revocation: all
// know it when they are ready again.
func TestSIG20EmbeddedFleetKilled(t *testing.T) {
	// Not parallel: between fork and exec a child holds the locks of all folders that are open here.
	as, at := newServer(t, "a", "b"), addresses(t, 3)
	var paths [3]string
	for i := range paths {
		paths[i] = inside3(t, as, at, i, "k")
	}
	all := func() (fleet [3]*process) {
		t.Helper()
		for i := range fleet {
			fleet[i] = spawn(t, paths[i])
		}
		for _, p := range fleet {
			readyIn(t, func() int { status, _ := p.get("/readyz"); return status })
		}
		return fleet
	}
	fleet := all()
	until(t, func() bool {
		status, _ := fleet[0].post("admin", "/v1/revocations", "application/json", `{"issuer":"main","token":"a","why":"lost"}`, "Authorization", "Bearer ops-secret-of-the-test")
		return status == 200
	})
	for _, p := range fleet {
		_ = p.cmd.Process.Kill()
	}
	for _, p := range fleet {
		p.kill()
	}
	for _, p := range all() {
		p.wants("a", `{"active":false}`)
		p.wants("b", `"sub":"ann"`)
		p.stop()
	}
}

// Three Watchwords with a server in each, and no broker: what is revoked at one is refused at the others, also while one
// is away, and that one knows it before it is ready again, or another in its place. All restart, and nothing is forgotten. Who does not know the
// secret does not join.
//
// Covers: SIG-20 SIG-21
func TestEmbeddedFleet(t *testing.T) {
	t.Parallel()
	as, at := newServer(t, "a", "b", "c", "d", "e"), addresses(t, 4)
	node := func(i int, secret string) (path string) { return inside3(t, as, at, i, secret) }
	ready := func(r *running) {
		t.Helper()
		readyIn(t, func() int { status, _ := r.get("admin", "/readyz"); return status })
	}
	end := func(r *running) {
		t.Helper()
		r.stop()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
		r.done <- nil
	}
	post := func(r *running, token string) int {
		status, _ := r.post("admin", "/v1/revocations", "application/json", fmt.Sprintf(`{"issuer":"main","token":%q,"why":"lost"}`, token), "Authorization", "Bearer ops-secret-of-the-test")
		return status
	}
	revoke := func(r *running, token string) { // as a sender does: again, while those that are left find a leader
		t.Helper()
		until(t, func() bool { return post(r, token) == 200 })
	}
	paths, fleet := make([]string, 3), make([]*running, 3)
	for i := range fleet {
		paths[i] = node(i, "k")
		fleet[i] = start(t, paths[i])
	}
	for _, r := range fleet {
		ready(r)
		for _, token := range []string{"a", "b", "c"} {
			r.wants("door", token, 200, `"sub":"ann"`)
		}
	}
	revoke(fleet[0], "a")
	for _, r := range fleet {
		until(t, func() bool { _, text := r.introspect("door", "a"); return text == `{"active":false}` })
		r.wants("door", "b", 200, `"sub":"ann"`)
	}

	stranger := start(t, node(3, "x"))
	end(fleet[2])
	revoke(fleet[1], "b") // two of three are enough
	until(t, func() bool { _, text := fleet[0].introspect("door", "b"); return text == `{"active":false}` })
	fleet[2] = start(t, paths[2])
	ready(fleet[2])
	fleet[2].wants("door", "a", 200, `{"active":false}`) // at once, though it never asked about them
	fleet[2].wants("door", "b", 200, `{"active":false}`)
	fleet[2].wants("door", "c", 200, `"sub":"ann"`)
	revoke(fleet[2], "c")

	end(fleet[1]) // its disk is lost, and another machine takes its place
	if err := os.RemoveAll(filepath.Join(filepath.Dir(paths[1]), "nats")); err != nil {
		t.Fatal(err)
	}
	fleet[1] = start(t, paths[1])
	ready(fleet[1])
	for _, token := range []string{"a", "b", "c"} {
		fleet[1].wants("door", token, 200, `{"active":false}`)
	}

	for _, r := range fleet {
		end(r)
	}
	for i := range fleet {
		fleet[i] = start(t, paths[i])
	}
	for _, r := range fleet {
		ready(r)
		for _, token := range []string{"a", "b", "c"} {
			r.wants("door", token, 200, `{"active":false}`)
		}
		r.wants("door", "d", 200, `"sub":"ann"`)
	}

	if status, text := stranger.get("admin", "/readyz"); status != 503 {
		t.Errorf("who does not know the secret is a node: %d %s", status, text)
	}
	until(t, func() bool { return strings.Contains(stranger.err.String(), "embedded NATS") }) // and its log says that nobody talks to it
	end(fleet[0])
	end(fleet[1])
	if status := post(fleet[2], "e"); status != 503 {
		t.Errorf("acknowledged by one of three: %d", status)
	}
	fleet[2].wants("door", "e", 200, `{"active":false}`) // in force on this node all the same
}
