package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// server is an authorization server: it lets one client secret in, and calls every token active that is in live.
type server struct {
	*httptest.Server
	asked, refused atomic.Int64
	secret         atomic.Pointer[string]
	down           atomic.Bool   // metadata only
	hold           chan struct{} // not nil: every answer waits for it
	live           sync.Map
}

func newServer(t *testing.T, tokens ...string) *server {
	t.Helper()
	s := &server{}
	s.accept("one")
	for _, token := range tokens {
		s.live.Store(token, true)
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) accept(secret string) { s.secret.Store(&secret) }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		if s.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"introspection_endpoint":%q}`, s.URL, s.URL+"/introspect")
		return
	}
	s.asked.Add(1)
	if s.hold != nil {
		<-s.hold
	}
	if _, secret, _ := r.BasicAuth(); secret != *s.secret.Load() {
		s.refused.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, active := s.live.Load(r.PostFormValue("token"))
	fmt.Fprintf(w, `{"active":%v,"sub":"ann","aud":"api","scope":"read"}`, active)
}

// lines is a stderr that can be waited for.
type lines struct {
	mu   sync.Mutex
	all  strings.Builder
	seen int // up to where await has looked
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(p)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

// await returns when a line that was not awaited before holds text.
func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	for {
		l.mu.Lock()
		at := strings.Index(l.all.String()[l.seen:], text)
		if at >= 0 {
			l.seen += at + len(text)
		}
		all := l.all.String()
		l.mu.Unlock()
		if at >= 0 {
			return
		}
		select {
		case <-l.more:
		case <-t.Context().Done():
			t.Fatal("the test ended")
		case <-time.After(20 * time.Second):
			t.Fatalf("never logged %q:\n%s", text, all)
		}
	}
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// running is an App that serves a file.
type running struct {
	*App
	t    *testing.T
	path string
	err  *lines
	out  *lines
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, path string) *running {
	t.Helper()
	c, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, path: path, err: &lines{more: make(chan struct{}, 1)}, out: &lines{more: make(chan struct{}, 1)}, done: make(chan error, 1)}
	if r.App, err = Build(c, r.out, r.err); err != nil {
		t.Fatal(err)
	}
	if err := r.Listen(); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		r.done <- r.Run(ctx)
		close(ended)
	}()
	t.Cleanup(func() {
		r.stop()
		<-ended
	})
	r.err.await(t, "serving")
	return r
}

// url is where a door listens.
func (r *running) url(door, path string) string { return "http://" + r.Addr(door).String() + path }

// introspect asks the introspection door and returns status and body.
func (r *running) introspect(secret, token string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url("introspection", "/introspect"), strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("orders", secret)
	return send(r.t, http.DefaultClient, req)
}

func (r *running) get(door, path string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url(door, path), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return send(r.t, http.DefaultClient, req)
}

func send(t *testing.T, c *http.Client, req *http.Request) (int, string) {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (r *running) wants(secret, token string, status int, body string) {
	r.t.Helper()
	if gotStatus, got := r.introspect(secret, token); gotStatus != status || !strings.Contains(got, body) {
		r.t.Errorf("token %s: %d %s; want %d %s\n%s", token, gotStatus, got, status, body, r.err)
	}
}

// put replaces a file as a careful editor does: whole.
func put(t *testing.T, path, text string) {
	t.Helper()
	beside := path + ".new"
	if err := os.WriteFile(beside, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(beside, path); err != nil {
		t.Fatal(err)
	}
}

// site writes a configuration for as into a folder of its own: secrets as-secret ("one") and caller-secret ("door").
func site(t *testing.T, as *server) (path, text string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "as-secret", "one\n")
	write(t, dir, "caller-secret", "door\n")
	text = fmt.Sprintf(`
issuers:
  - name: main
    introspection_endpoint: %s/introspect
    client_auth: {method: client_secret_basic, client_id: rs, client_secret: {file: as-secret}}
freshness: {max_staleness: 1h}
doors:
  introspection:
    listen: 127.0.0.1:0
    callers:
      - {client_id: orders, client_secret: {file: caller-secret}}
admin: {listen: 127.0.0.1:0}
log: {level: debug}
`, as.URL)
	return write(t, dir, "watchword.yaml", text), text
}

const (
	reloaded = "the new configuration serves"
	kept     = "the new configuration is refused; the old one stays"
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

func TestReloadKeepsTheCache(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	r := start(t, path)
	r.wants("door", "live-token", 200, `"sub":"ann"`)
	put(t, path, change(t, text, "{client_id: orders", "{client_id: orders, claims: [scope]", "{level: debug}", "{level: info}"))
	r.err.await(t, reloaded)
	if status, body := r.introspect("door", "live-token"); status != 200 || strings.Contains(body, "ann") || !strings.Contains(body, "read") {
		t.Errorf("the caller's new claims: %d %s", status, body)
	}
	if n := as.asked.Load(); n != 1 {
		t.Errorf("the AS was asked %d times, want 1", n)
	}
}

func TestReloadPicksUpSecrets(t *testing.T) {
	t.Parallel()
	as := newServer(t, "a", "b", "c")
	path, _ := site(t, as)
	r := start(t, path)
	r.wants("door", "a", 200, `"sub":"ann"`)

	as.accept("two")
	put(t, filepath.Join(filepath.Dir(path), "as-secret"), "two\n")
	r.err.await(t, reloaded)
	r.wants("door", "b", 200, `"sub":"ann"`)
	if n := as.refused.Load(); n > 1 {
		t.Errorf("the AS refused %d times, want 1 at most", n)
	}

	put(t, filepath.Join(filepath.Dir(path), "caller-secret"), "gate\n")
	r.err.await(t, reloaded)
	r.wants("gate", "c", 200, `"sub":"ann"`)
	r.wants("door", "c", 401, "invalid_client")
}

func TestBadFileKeepsTheOldConfiguration(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	r := start(t, path)
	r.wants("door", "live-token", 200, `"sub":"ann"`)
	bad := func(text, why string) {
		t.Helper()
		put(t, path, text)
		r.err.await(t, kept)
		r.err.await(t, why)
		r.wants("door", "live-token", 200, `"sub":"ann"`)
		if _, metrics := r.get("admin", "/metrics"); !strings.Contains(metrics, "watchword_config_last_load_successful 0") {
			t.Error("the metric does not tell")
		}
	}
	bad("issuers: [", "is no YAML")
	bad(change(t, text, "{level: debug}", "{level: loud}"), "log.level")
	bad(change(t, text, "caller-secret", "no-such-secret"), "no such file")
	bad(change(t, text, "listen: 127.0.0.1:0", "listen: 127.0.0.1:1"), "doors.introspection.listen")
	bad(change(t, text, "admin: {listen: 127.0.0.1:0}\n", ""), "admin.listen")
	bad(text+"cache: {max_bytes: 1MiB}\n", "cannot change while it serves")
	if err := r.Reload(); !isMistakes(err) {
		t.Errorf("Reload: %v", err)
	}
	put(t, path, text+"# good again\n")
	r.err.await(t, reloaded)
	if _, metrics := r.get("admin", "/metrics"); !strings.Contains(metrics, "watchword_config_last_load_successful 1") {
		t.Error("the metric does not recover")
	}
}

// A configuration may come before the secret that it refers to.
func TestReloadRetriesWhenTheMissingFileAppears(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	r := start(t, path)
	put(t, path, change(t, text, "caller-secret", "late-secret"))
	r.err.await(t, kept)
	write(t, filepath.Dir(path), "late-secret", "late")
	r.err.await(t, reloaded)
	r.wants("late", "live-token", 200, `"sub":"ann"`)
}

// Kubernetes mounts link every file to ..data/file and ..data to a folder with a date, and switch ..data.
func TestReloadFollowsSwitchedLinks(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	dir := t.TempDir()
	version := func(name, secret string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), "secret", secret)
		if err := errors.Join(os.Symlink(name, filepath.Join(dir, "..new")), os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "first")
	if err := os.Symlink("..data/secret", filepath.Join(dir, "secret")); err != nil {
		t.Fatal(err)
	}
	put(t, path, change(t, text, "caller-secret", filepath.Join(dir, "secret")))
	r := start(t, path)
	r.wants("first", "live-token", 200, `"sub":"ann"`)
	version("..2", "second")
	r.err.await(t, reloaded)
	r.wants("second", "live-token", 200, `"sub":"ann"`)
	r.wants("first", "live-token", 401, "invalid_client")
}

func TestThroughEveryLink(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	if err := errors.Join(os.MkdirAll(in("v2", "deep"), 0o700), os.Symlink("v2", in("current")), os.Symlink(in("v2", "deep", "f"), in("v2", "link")), os.Symlink("../loop", in("loop"))); err != nil {
		t.Fatal(err)
	}
	write(t, in("v2", "deep"), "f", "x")
	check := func(path string, want ...string) {
		t.Helper()
		if got := through(path); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is found through %q, want %q", path, got, want)
		}
	}
	check(in("v2", "deep", "f"), in("v2", "deep"))
	check(in("current", "deep", "f"), dir, in("v2", "deep"))
	check(in("current", "link"), dir, in("v2"), in("v2", "deep"))
	check(in("none", "f"), in("none"))
	if n := len(through(in("loop"))); n > maxLinks+1 {
		t.Errorf("a loop is followed %d times", n)
	}
}

func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	as.hold = make(chan struct{})
	path, _ := site(t, as)
	r := start(t, path)
	answer := make(chan string, 1)
	go func() {
		status, body := r.introspect("door", "live-token")
		answer <- fmt.Sprint(status, body)
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
	default:
	}
	close(as.hold) // … and what was asked is answered
	if got := <-answer; !strings.Contains(got, `200{"active":true`) {
		t.Errorf("in flight: %s", got)
	}
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// until returns when ok does, which must come without anybody's doing.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(5*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it never came")
		}
	}
}

func TestDiscoveryDoesNotDelayServing(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	as.down.Store(true)
	path, text := site(t, as)
	put(t, path, change(t, text, "introspection_endpoint: "+as.URL+"/introspect", "issuer: "+as.URL))
	r := start(t, path)
	r.wants("door", "live-token", 503, "")
	if status, _ := r.get("admin", "/readyz"); status != 200 {
		t.Errorf("readyz is %d", status)
	}
	_, metrics := r.get("admin", "/metrics")
	if !strings.Contains(metrics, `reason="misconfigured"`) {
		t.Error("not misconfigured")
	}
	as.down.Store(false)
	until(t, func() bool { status, _ := r.introspect("door", "live-token"); return status == 200 })

	// A reload that leaves the issuer alone keeps what was discovered, also while metadata cannot be had.
	as.down.Store(true)
	as.live.Store("cold", true)
	put(t, path, change(t, text, "introspection_endpoint: "+as.URL+"/introspect", "issuer: "+as.URL, "{level: debug}", "{level: info}"))
	r.err.await(t, reloaded)
	r.wants("door", "cold", 200, `"sub":"ann"`)
}

func TestReloadDiscoversANewIssuerFirst(t *testing.T) {
	t.Parallel()
	as, other := newServer(t, "live-token"), newServer(t, "b_cold")
	path, text := site(t, as)
	r := start(t, path)
	put(t, path, change(t, text, "freshness:", "  - name: other\n    issuer: "+other.URL+"\n    tokens: {prefix: b_}\n    client_auth: {method: client_secret_basic, client_id: rs, client_secret: {file: as-secret}}\nfreshness:"))
	r.err.await(t, reloaded)
	r.wants("door", "b_cold", 200, `"sub":"ann"`)
	r.wants("door", "live-token", 200, `"sub":"ann"`)
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

func TestTLSAndItsReload(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	dir := filepath.Dir(path)
	certificate(t, dir, "one")
	certificate(t, dir, "two")
	copyTo := func(name string) {
		t.Helper()
		for _, kind := range []string{".key", ".crt"} {
			body, err := os.ReadFile(filepath.Join(dir, name+kind))
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, "door"+kind), string(body))
		}
	}
	copyTo("one")
	put(t, path, change(t, text, "listen: 127.0.0.1:0\n", "listen: 127.0.0.1:0\n    tls: {cert: door.crt, key: door.key}\n"))
	r := start(t, path)
	served := func(protocols ...string) (string, string) {
		t.Helper()
		c, err := tls.Dial("tcp", r.Addr("introspection").String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols, //nolint:gosec // compared below
			VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName, c.ConnectionState().NegotiatedProtocol
	}
	if name, protocol := served("h2", "http/1.1"); name != "one" || protocol != "h2" {
		t.Errorf("%s %s", name, protocol)
	}
	if _, protocol := served("http/1.1"); protocol != "http/1.1" {
		t.Error(protocol)
	}
	copyTo("two") // the key first: for an instant the two do not belong together
	until(t, func() bool { name, _ := served("h2"); return name == "two" })
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
