package app

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/cache"
)

// process is an App in a process of its own, which can be killed.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Closer
	urls map[string]string // by door
}

const processFile = "WATCHWORD_TEST_SERVE"

// spawn serves the file at path: it is the same test that runs again, as another process.
func spawn(t *testing.T, path string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.CommandContext(t.Context(), self, "-test.run=^TestSIG20_CAC08Restart$"), urls: map[string]string{}}
	p.cmd.Env = append(os.Environ(), processFile+"="+path)
	p.cmd.Stderr = t.Output()
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines, serves := bufio.NewScanner(out), false; !serves; serves = lines.Text() == "it serves" {
		if !lines.Scan() {
			t.Fatal("the process does not serve")
		}
		if door, at, ok := strings.Cut(lines.Text(), " is at "); ok {
			p.urls[door] = "http://" + at
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return p
}

// serveUntilAsked is the other side of spawn.
func serveUntilAsked(t *testing.T, path string) {
	r := start(t, path)
	for _, door := range []string{"introspection", "events", "admin"} {
		fmt.Printf("%s is at %v\n", door, r.Addr(door))
	}
	fmt.Println("it serves")
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is closed: by who wants an orderly end, or because that one is gone
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	r.done <- nil
}

// stop lets it end in order; kill gives it no chance to.
func (p *process) stop() {
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Error(err)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) post(door, path, kind, body string, header ...string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.urls[door]+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.Close = true
	return send(p.t, http.DefaultClient, req)
}

func (p *process) wants(token, body string) {
	p.t.Helper()
	if status, got := p.post("introspection", "/introspect", formKind, url.Values{"token": {token}}.Encode(), "Authorization", "Basic b3JkZXJzOmRvb3I="); status != 200 || !strings.Contains(got, body) {
		p.t.Errorf("%s: %d %s, want %s", token, status, got, body)
	}
}

func (p *process) get(path string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.urls["admin"]+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Close = true
	return send(p.t, http.DefaultClient, req)
}

// shows waits for a line of the metrics.
func (p *process) shows(line string) {
	p.t.Helper()
	until(p.t, func() bool {
		_, page := p.get("/metrics")
		return strings.Contains(page, "\n"+line+"\n")
	})
}

// What an operator and a receiver said is refused after a restart, ended in order or killed: though the server goes on
// saying active, and though a store that the hosts share still has the old answers and hands them out.
func TestSIG20_CAC08Restart(t *testing.T) {
	needsEngines(t)
	if path := os.Getenv(processFile); path != "" {
		serveUntilAsked(t, path)
		return
	}
	// Not parallel: between fork and exec a child holds the locks of all folders that are open here.
	for name, end := range map[string]func(*process){"in order": (*process).stop, "killed": (*process).kill} {
		t.Run(name, func(t *testing.T) {
			as, nats, dir := newHome(t), broker(t), t.TempDir()
			for name, text := range map[string]string{"caller": "door", "ops": "ops-secret-of-the-test", "deployment": strings.Repeat("k", 32)} {
				write(t, dir, name, text)
			}
			path := write(t, dir, "watchword.yaml", fmt.Sprintf(`
issuers:
  - {name: main, issuer: %s, introspection_endpoint: "%[1]s/introspect", client_auth: {method: none}}
freshness: {max_staleness: 1h}
cache: {l2: {timeout: 5s, nats: {url: %q}}}
revocation: {log: held}
deployment_secret: {file: deployment}
doors:
  introspection: {listen: "127.0.0.1:0", callers: [{client_id: orders, client_secret: {file: caller}}]}
  events: {listen: "127.0.0.1:0", back_channel_logout: [{issuer: main, path: /logout, audience: my-client}]}
admin: {listen: "127.0.0.1:0", operators: [{name: ops, bearer: {file: ops}}]}
`, as.URL, nats.ClientURL()))
			p := spawn(t, path)
			p.shows("watchword_shared_in_use 1")
			began := time.Now() // what is asked until the clocks of hosts agree that the ledger had begun is no evidence later
			until(t, func() bool { return time.Since(began) > cache.DefaultSkew })
			p.wants("live-a", `"sub":"ann"`)
			p.wants("live-b", `"sub":"ann"`)
			p.shows(`watchword_shared_answers_total{result="written"} 2`)
			if status, text := p.post("admin", "/v1/revocations", "application/json", `{"issuer":"main","token":"live-a","why":"lost"}`, "Authorization", "Bearer ops-secret-of-the-test"); status != 200 {
				t.Fatal(status, text)
			}
			end(p)

			asked := as.asked.Load()
			p = spawn(t, path)
			p.shows("watchword_shared_in_use 1")
			p.wants("live-a", `{"active":false}`)
			p.wants("live-b", `"sub":"ann"`)
			p.shows(`watchword_shared_answers_total{result="hit"} 2`) // the store had both
			if status, text := p.post("events", "/logout", formKind, url.Values{"logout_token": {as.logout(t, "j1")}}.Encode()); status != 200 {
				t.Fatal(status, text)
			}
			end(p)

			p = spawn(t, path)
			p.shows("watchword_shared_in_use 1")
			p.wants("live-a", `{"active":false}`)
			p.wants("live-b", `{"active":false}`)
			p.shows(`watchword_shared_answers_total{result="hit"} 2`)
			end(p)
			if n := as.asked.Load(); n != asked {
				t.Errorf("the server was asked %d times, and would have said active", n-asked)
			}
			if _, err := os.Stat(filepath.Join(dir, "held", "log")); err != nil {
				t.Error(err)
			}
		})
	}
}
