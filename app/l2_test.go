package app

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

func TestL2Keys(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	const secret = "deployment_secret: {env: D}\n"
	l2 := func(text string) string { return base + secret + "cache: {l2: {" + text + "}}\n" }
	const path = "cache.l2"
	c := accepted(t, l2("redis: {address: '127.0.0.1:6379'}"))
	if s := c.Cache.L2.Redis; s.Prefix != "watchword" || c.Cache.L2.NATS != nil {
		t.Errorf("%+v", s)
	}
	if s := accepted(t, l2("nats: {url: 'nats://127.0.0.1:4222'}")).Cache.L2.NATS; s.Bucket != "watchword-answers" || s.Replicas != 1 {
		t.Errorf("%+v", s)
	}
	refused(t, l2("redis: {address: 'a:1'}, nats: {url: 'nats://a:1'}"), path, "two stores")
	refused(t, l2("timeout: 20ms"), path, "names no store")
	refused(t, base+"cache: {l2: {redis: {address: 'a:1'}}}\n", "deployment_secret", "is missing")
	refused(t, l2("redis: {address: redis}"), path+".redis.address", "has no port")
	refused(t, l2("redis: {address: 'a:1', prefix: '{a}'}"), path+".redis.prefix", "is no prefix")
	refused(t, l2("redis: {address: 'a:1', username: u}"), path+".redis.password", "is missing")
	refused(t, l2("redis: {address: 'a:1', password: hunter2}"), path+".redis.password", "written into the file")
	refused(t, l2("nats: {url: 'http://a:1'}"), path+".nats.url", "is no URL of NATS")
	if m := refused(t, l2("nats: {url: 'nats://u:hunter2@a:1'}"), path+".nats.url", "is no URL of NATS"); strings.Contains(m.String(), "hunter2") {
		t.Error(m)
	}
	refused(t, l2("nats: {url: 'nats://a:1', bucket: 'a.b'}"), path+".nats.bucket", "is no name")
	refused(t, l2("nats: {url: 'nats://a:1', password: {env: P}}"), path+".nats.password", "has no effect")
	refused(t, l2("nats: {url: 'nats://a:1', tls: {ca: c}}"), path+".nats.tls", "has no effect")
	refused(t, l2("redis: {address: 'a:1'}")+"freshness: {max_staleness: 1s}\n", path, "has no effect")
	was, is := accepted(t, l2("redis: {address: 'a:1'}")), accepted(t, l2("redis: {address: 'a:2'}"))
	if err := is.restarts(was); err == nil || !strings.Contains(err.Error(), "cache.l2") {
		t.Errorf("another server without a restart: %v", err)
	}
	if err := accepted(t, l2("redis: {address: 'a:1'}")).restarts(was); err != nil {
		t.Errorf("the same again: %v", err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// broker is a real NATS server in this process.
func broker(t *testing.T) *natsserver.Server {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("NATS does not start")
	}
	return s
}

// Three Watchwords over one store ask once about a token that is new to all of them; the secret is rotated in place;
// the store dies, and decisions go on.
func TestFleetSharesAnswers(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	as, nats := newServer(t, "a", "b", "c", "d"), broker(t)
	var fleet []*running
	for range 3 {
		path, text := site(t, as)
		write(t, filepath.Dir(path), "deployment", strings.Repeat("k", 32))
		put(t, path, text+fmt.Sprintf("cache: {l2: {timeout: 5s, nats: {url: %q}}}\ndeployment_secret: {file: deployment}\n", nats.ClientURL()))
		fleet = append(fleet, start(t, path))
	}
	for _, r := range fleet {
		until(t, func() bool { return r.shared.Stats().InUse })
	}
	ask := func(token string) {
		t.Helper()
		var wait sync.WaitGroup
		for _, r := range fleet {
			wait.Go(func() { r.wants("door", token, 200, `"sub":"ann"`) })
		}
		wait.Wait()
	}
	ask("a")
	if n := as.asked.Load(); n != 1 {
		t.Errorf("the AS was asked %d times about one token, want 1", n)
		for _, r := range fleet {
			t.Logf("%+v\n%s", r.shared.Stats(), r.err)
		}
	}
	if _, page := fleet[0].get("admin", "/metrics"); !strings.Contains(page, "watchword_shared_in_use 1") || !strings.Contains(page, `watchword_shared_answers_total{result="written"}`) {
		t.Error("the metrics do not show the store")
	}

	// Rotation: both secrets, the new one first, on one host; what it learns it seals anew, what others sealed it reads.
	first := fleet[0]
	dir := filepath.Dir(first.path)
	write(t, dir, "deployment.new", strings.Repeat("n", 32))
	fleet[1].wants("door", "b", 200, "ann")
	until(t, func() bool { return fleet[1].shared.Stats().Results[cache.SharedWritten] > 0 })
	put(t, first.path, change(t, content(t, first.path), "deployment_secret: {file: deployment}", "deployment_secret: [{file: deployment.new}, {file: deployment}]"))
	first.err.await(t, reloaded)
	first.wants("door", "b", 200, "ann")
	if n := as.asked.Load(); n != 2 {
		t.Errorf("the AS was asked %d times about two tokens; a rotation was a cold start", n)
	}

	nats.Shutdown()
	nats.WaitForShutdown()
	ask("c")
	ask("d")
	for _, r := range fleet {
		until(t, func() bool { return !r.shared.Stats().InUse })
		r.wants("door", "a", 200, "ann")
	}
}

// A JWT that its signature vouches for needs no store; one that must be asked about does.
func TestAVouchedJWTNeverNeedsTheStore(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	s, nats := newSigner(t), broker(t)
	path := s.file(t, "jwt: {mode: local_first}", "{max_staleness: 30s}")
	write(t, filepath.Dir(path), "deployment", strings.Repeat("k", 32))
	put(t, path, content(t, path)+fmt.Sprintf("cache: {l2: {timeout: 5s, nats: {url: %q}}}\ndeployment_secret: {file: deployment}\n", nats.ClientURL()))
	r := start(t, path)
	until(t, func() bool { return r.shared.Stats().InUse })
	says := func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"active":true,"sub":"ann","aud":"api"}`) }
	s.answer.Store(&says)
	decide := func(token string) watchword.Decision {
		return r.verifier.Verify(t.Context(), watchword.Request{Door: "forward_auth", Host: "a", Method: "GET", Path: "/", Token: watchword.Token(token)})
	}
	until(t, func() bool { d := decide(s.token("at+jwt", 0, `,"n":0`)); return d.Source() == "jwt" }) // the keys are here
	before, asked := r.shared.Stats().Results, s.asked.Load()
	for n := range 10 {
		if d := decide(s.token("at+jwt", 0, fmt.Sprintf(`,"n":%d`, n+1))); !d.Allowed() || d.Source() != "jwt" {
			t.Fatalf("%v from %s: %v", d.Reason, d.Source(), d.Err)
		}
	}
	if now := r.shared.Stats().Results; now != before || s.asked.Load() != asked {
		t.Errorf("the store was needed: %v, then %v; the server was asked %d times", before, now, s.asked.Load()-asked)
	}
	if d := decide(s.token("at+jwt", time.Minute, "")); !d.Allowed() || r.shared.Stats().Results[cache.SharedMiss] != before[cache.SharedMiss]+1 {
		t.Errorf("an old one: %v from %s: %v, %v", d.Reason, d.Source(), d.Err, r.shared.Stats().Results)
	}
}

// Signatures are no sign that a server is well: they hide no storm.
//
// Covers: OUT-04 T13
func TestSignaturesHideNoStorm(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	c := s.config(t, "jwt: {mode: local_first}", "{max_staleness: 30s}")
	is, quiet := &c.Issuers[0], slog.New(slog.DiscardHandler)
	asks, keys, err := is.connect(is.config(quiet), nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := asks.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	protected, p, err := is.protect(asks, asks.Held, storm{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	source, err := is.chain(protected, keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(token string) (*watchword.Answer, error) {
		return source.Introspect(t.Context(), watchword.Query{Token: watchword.Token(token), Key: watchword.Key(sha256.Sum256([]byte(token))), Issuer: is.Name, At: time.Now(), Freshness: watchword.Freshness{MaxStaleness: 30 * time.Second}})
	}
	var old []string
	for n := range 30 {
		old = append(old, s.token("at+jwt", time.Minute, fmt.Sprintf(`,"n":%d`, n)))
	}
	says := func(w http.ResponseWriter) {
		fmt.Fprintf(w, `{"active":true,"exp":%d}`, time.Now().Add(time.Hour).Unix())
	}
	s.answer.Store(&says)
	for _, token := range old {
		if a, err := ask(token); err != nil || !a.Active() {
			t.Fatal(a, err)
		}
	}
	for n := range 200 {
		if a, err := ask(s.token("at+jwt", 0, fmt.Sprintf(`,"n":%d`, n))); err != nil || !a.Vouched() {
			t.Fatal(a, err)
		}
	}
	says2 := func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"active":false}`) }
	s.answer.Store(&says2)
	for _, token := range old {
		_, _ = ask(token)
	}
	if !p.storm.Stats().Raging {
		t.Errorf("no storm: %+v", p.storm.Stats())
	}
	if a, err := ask(s.token("at+jwt", 0, `,"n":"young"`)); err != nil || !a.Vouched() {
		t.Errorf("in a storm a young JWT is as good as ever: %v %v", a, err)
	}
}
