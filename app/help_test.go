package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
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
	found          atomic.Int64  // how often metadata was asked for
	veil           chan struct{} // not nil: metadata waits for it
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
		s.found.Add(1)
		if s.veil != nil {
			<-s.veil
		}
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

// question is a request to the introspection door.
func (r *running) question(secret, token string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url("introspection", "/introspect"), strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("orders", secret)
	return req
}

// introspect asks the introspection door and returns status and body.
func (r *running) introspect(secret, token string) (int, string) {
	r.t.Helper()
	return send(r.t, http.DefaultClient, r.question(secret, token))
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
	for try := 0; err != nil && req.Body == nil && try < 3; try++ { // a busy machine may take longer to send a head than doors wait for one
		resp, err = c.Do(req)
	}
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
    timeout: 20s
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
