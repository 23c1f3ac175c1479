package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/internal/lane"
)

func TestServe(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, _ := site(t, as)
	r := start(t, path)
	r.wants("door", "live-token", 200, `"sub":"ann"`)
	r.wants("door", "dead-token", 200, `{"active":false}`)
	r.wants("wrong", "live-token", 401, "invalid_client")
	for path, want := range map[string]string{"/healthz": "alive", "/readyz": "ready", "/metrics": "watchword_config_info{hash="} {
		if status, body := r.get("admin", path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	_, metrics := r.get("admin", "/metrics")
	for _, want := range []string{`watchword_decisions_total{door="introspection",policy="orders",reason="ok",source="issuer"} 1`,
		`watchword_issuer_requests_total{issuer="main",outcome=`, `watchword_lookups_total{result="miss"} 2`, `watchword_cache_entries 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	r.out.await(t, `"reason":"inactive"`)
	if out := r.out.String() + r.err.String(); strings.Contains(out, "live-token") || strings.Contains(out, "dead-token") {
		t.Errorf("a token is logged:\n%s", out)
	}
	if !strings.Contains(r.err.String(), "deployment_secret is absent") {
		t.Error("warnings are not logged")
	}
}

func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	as.hold = make(chan struct{})
	answers := sync.OnceFunc(func() { close(as.hold) })
	path, _ := site(t, as)
	r := start(t, path)
	t.Cleanup(answers)
	answer := make(chan string, 1)
	question := r.question("door", "live-token")
	go func() {
		resp, err := http.DefaultClient.Do(question)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		answer <- fmt.Sprint(resp.StatusCode, string(body), err)
	}()
	until(t, func() bool { return as.asked.Load() == 1 })
	at := r.Addr("introspection").String()
	r.stop()
	until(t, func() bool { // nothing new is accepted …
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-r.done:
		t.Fatalf("Run returned %v before the answer", err)
	case <-time.After(300 * time.Millisecond): // it has nothing else to wait for
	}
	answers() // … and what was asked is answered
	if got := <-answer; !strings.Contains(got, `200{"active":true`) {
		t.Errorf("in flight: %s", got)
	}
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestUnixSockets(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "ww") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	at := Listen{"unix", path}
	first, err := at.open(0o600)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if _, err := at.open(0o600); err == nil || !strings.Contains(err.Error(), "listens there already") {
		t.Errorf("a live socket: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not removed at exit: %v", err)
	}

	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close() // as a process that was killed leaves it
	second, err := at.open(0o660)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info, err)
	}

	if err := os.Remove(path); err != nil { // somebody removes it, and another process takes the place
		t.Fatal(err)
	}
	third, err := at.open(0o660)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("another's socket was removed: %v", err)
	}
	third.Close()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	write(t, dir, "s", "precious")
	if _, err := at.open(0o660); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	if body, _ := os.ReadFile(path); string(body) != "precious" {
		t.Error("a file was replaced")
	}
	if _, err := (Listen{"unix", filepath.Join(dir, "none", "s")}).open(0o660); err == nil {
		t.Error("a folder that does not exist")
	}
}

func TestForwardAuthOnASocketAndDecisionsInAFile(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	short, err := os.MkdirTemp("", "ww")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	socket := filepath.Join(short, "auth.sock")
	text = change(t, text, "admin:", "  forward_auth: {listen: 'unix:"+socket+"', headers: {X-Auth-Subject: sub}}\npolicies:\n  - {name: all, require: {scopes: [read], audience: [api]}}\nadmin:") + "decision_log: {to: ./decisions.log, decisions: all}\n"
	put(t, path, text)
	r := start(t, path)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	ask := func(token string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://gate/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/orders"}, "Authorization": {"Bearer " + token}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("X-Auth-Subject")
	}
	if status, subject := ask("live-token"); status != 200 || subject != "ann" {
		t.Errorf("%d %s", status, subject)
	}
	if status, _ := ask("dead-token"); status != 401 {
		t.Errorf("%d", status)
	}

	// The file is moved away, and a reload goes on in a new one.
	file := filepath.Join(filepath.Dir(path), "decisions.log")
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if status, _ := ask("gone-token"); status != 401 {
		t.Errorf("%d", status)
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	first, _ := os.ReadFile(file + ".1")
	second, _ := os.ReadFile(file)
	if strings.Count(string(first), "\n") != 2 || strings.Count(string(second), "\n") != 1 || !strings.Contains(string(first), `"policy":"all"`) {
		t.Errorf("decisions:\n%s---\n%s", first, second)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

func TestCleartextHTTP2(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, _ := site(t, as)
	r := start(t, path)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: p}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(r.url("admin", "/healthz"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("%s %d", resp.Proto, resp.StatusCode)
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	as := newServer(t)
	path, text := site(t, as)
	put(t, path, change(t, text, "admin: {listen: 127.0.0.1:0}", "admin: {listen: '"+taken.Addr().String()+"'}"))
	c, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Build(c, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	err = a.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "admin: listening on "+taken.Addr().String()) {
		t.Errorf("Run: %v", err)
	}
	if at := a.Addr("introspection"); at != nil {
		t.Errorf("the other door stays open at %v", at)
	}
}

func TestT18PanicsAreContained(t *testing.T) {
	t.Parallel()
	as := newServer(t)
	path, _ := site(t, as)
	r := start(t, path)
	var faulty http.Handler = http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { panic(req.Header.Get("Authorization")) })
	for _, g := range r.doors {
		if g.name == "admin" {
			g.handler.Store(&faulty)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url("admin", "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer hunter2")
	if status, body := send(t, http.DefaultClient, req); status != 500 || body != "" {
		t.Errorf("%d %s", status, body)
	}
	r.err.await(t, "a fault while answering")
	if strings.Contains(r.err.String(), "hunter2") {
		t.Error("the panic's value is logged")
	}
}

// Header bytes, time for headers and connections are bounded.
func TestServersAreBounded(t *testing.T) {
	t.Parallel()
	as := newServer(t)
	path, _ := site(t, as)
	r := start(t, path)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url("introspection", "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("a", 40<<10))
	var resp *http.Response
	for range 5 { // the server may close before a slow client has written it all, which resets the connection
		if resp, err = http.DefaultClient.Do(req); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("40 KiB of headers: %d", resp.StatusCode)
	}
	for _, g := range r.doors {
		if s := g.server; s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= s.ReadTimeout || s.IdleTimeout <= 0 || !s.DisableGeneralOptionsHandler {
			t.Errorf("%s is not bounded", g.name)
		}
	}
	full := &bounded{Listener: fakeListener{}, room: make(chan struct{}, 1), closed: make(chan struct{})}
	one, err := full.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() { _, err := full.Accept(); second <- err }()
	select {
	case <-second:
		t.Fatal("a connection too many")
	default:
	}
	one.Close()
	one.Close() // gives its room back once
	if err := <-second; err != nil {
		t.Error(err)
	}
	third := make(chan error, 1)
	go func() { _, err := full.Accept(); third <- err }()
	full.Close()
	if err := <-third; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

type fakeListener struct{ net.Listener }

func (fakeListener) Accept() (net.Conn, error) { c, _ := net.Pipe(); return c, nil }
func (fakeListener) Close() error              { return nil }

// exhausted is a listener of a process that has as many files open as it may have, until it is closed.
type exhausted struct {
	net.Listener
	tried, closed chan struct{}
}

func (e *exhausted) Accept() (net.Conn, error) {
	select {
	case <-e.closed:
		return nil, net.ErrClosed
	case e.tried <- struct{}{}:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
}

func (e *exhausted) Close() error {
	close(e.closed)
	return nil
}

// A server that cannot accept goes on trying, and says so; what strangers do wrong is nothing to say.
func TestNoFilesLeftIsLogged(t *testing.T) {
	t.Parallel()
	for _, laned := range []bool{false, true} {
		out := &lines{more: make(chan struct{}, 1)}
		g := accepted(t, base).gates(slog.New(slog.NewTextHandler(out, nil)))[0]
		l := &exhausted{tried: make(chan struct{}), closed: make(chan struct{})}
		var serve net.Listener = l
		if laned {
			serve = lane.New(l, g.server, 0)
		}
		done := make(chan error, 1)
		go func() { done <- g.server.Serve(serve) }()
		for range 3 {
			<-l.tried
		}
		g.server.ErrorLog.Print("http: TLS handshake error from 192.0.2.1:1: EOF")
		_ = g.server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if said := out.String(); !strings.Contains(said, "level=WARN") || !strings.Contains(said, "too many open files") || !strings.Contains(said, "door=introspection") || strings.Contains(said, "192.0.2.1") {
			t.Errorf("lane %v: the log says %q", laned, said)
		}
	}
}
