package interop

import (
	"bufio"
	"bytes"
	"encoding/hex"
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

	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/cache/storetest"
	"github.com/watchword-dev/watchword/driver/nats"
	"github.com/watchword-dev/watchword/driver/redis"
)

// set writes any bytes under any key, as a stranger would.
func (r *redisServer) set(t *testing.T, key string, value []byte) {
	t.Helper()
	c, err := net.DialTimeout("tcp", r.address, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = fmt.Fprintf(c, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "+OK\r\n" {
		t.Fatal(answer, err)
	}
}

func TestStoreRedis(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	storetest.Run(t, storetest.Config{
		Open: func(t *testing.T) cache.Store {
			s, err := redis.NewStore(redis.Config{Address: server.address, Prefix: "store"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			return s
		},
		Smudge: func(t *testing.T, key cache.Digest, body []byte) {
			server.set(t, "store:answer:"+hex.EncodeToString(key[:]), body)
		},
	})
}

func TestStoreNATS(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	_, port, _ := net.SplitHostPort(address)
	server := start(t, "nats", command("nats-server", "-a", "127.0.0.1", "-p", port, "-js", "-sd", t.TempDir()))
	server.ready(t, patience, listens(address))
	storetest.Run(t, storetest.Config{Open: func(t *testing.T) cache.Store {
		s, err := nats.NewStore(nats.Config{URL: "nats://" + address})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		await(t, "the connection", patience, func() error { _, err := s.Clock(t.Context()); return err })
		return s
	}})
}

// Three Watchwords over one Redis: one question about a token that is new to all; nothing readable in what Redis hears
// and keeps; Redis hangs and is killed under load, and every decision stands.
//
// Covers: CAC-06 T17 T18
func TestFleetOverRedis(t *testing.T) {
	t.Parallel()
	const canary = "canary-7f3a"
	var asked atomic.Int64
	as := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		time.Sleep(50 * time.Millisecond)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"active":true,"sub":"`+canary+`-subject","client_id":"`+canary+`-client"}`)
	}))
	t.Cleanup(as.Close)
	server := startRedis(t)
	heard := monitor(t, server)
	dir := t.TempDir()
	write(t, dir, "secret", canary+"-deployment-secret")
	var doors []string
	for range 3 {
		door, admin := freePort(t), freePort(t)
		serve(t, fmt.Sprintf(`
issuers: [{name: main, introspection_endpoint: "%s/introspect", client_auth: {method: none}}]
freshness: {max_staleness: 30s}
cache: {l2: {timeout: 300ms, redis: {address: "%s"}}}
deployment_secret: {file: %s}
doors: {introspection: {listen: "%s", callers: [{client_id: rs, client_secret: {env: RS}}]}}
admin: {listen: "%s"}
`, as.URL, server.address, filepath.Join(dir, "secret"), door, admin), admin, "RS=rs-secret")
		await(t, "the store to be in use", patience, metric(admin, "watchword_shared_in_use 1"))
		doors = append(doors, door)
	}
	client := &http.Client{Timeout: patience}
	introspect := func(door, token string) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+door+"/introspect", strings.NewReader(url.Values{"token": {token}}.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("rs", "rs-secret")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != 200 || !strings.Contains(string(body), `"active":true`)) {
			err = fmt.Errorf("%d %s", resp.StatusCode, body)
		}
		return err
	}

	var wait sync.WaitGroup
	began := time.Now()
	for _, door := range doors {
		for range 10 {
			wait.Go(func() {
				if err := introspect(door, canary+"-token"); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wait.Wait()
	// A host follows the one that asks for so long, and then asks for itself.
	if n, took := asked.Load(), time.Since(began); n != 1 && took < cache.DefaultFollow {
		t.Errorf("%d questions about one token that was new to three hosts, asked thirty times at once; want 1", n)
	}

	await(t, "the write", patience, func() error {
		if !strings.Contains(heard(), "watchword:answer:") {
			return fmt.Errorf("redis heard nothing of answers")
		}
		return nil
	})
	if got := server.ask("SAVE"); got != "+OK" {
		t.Fatal(got)
	}
	dump, err := os.ReadFile(filepath.Join(server.dir, "dump.rdb"))
	if err != nil || len(dump) < 200 {
		t.Fatal(len(dump), err)
	}
	for name, text := range map[string]string{"what Redis heard": heard(), "its dump": string(dump)} {
		if strings.Contains(text, canary) {
			t.Errorf("%s holds a token, claim or secret", name)
		}
	}

	// Load: known and new tokens. Redis hangs, goes on, and is killed.
	var worst atomic.Int64
	var decided, failed atomic.Int64
	stop := make(chan struct{})
	for i := range 6 {
		wait.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				if err := introspect(doors[(i+n)%3], fmt.Sprint("load-", i, "-", n%40, "-", n/400)); err != nil {
					failed.Add(1)
					t.Error(err)
				}
				decided.Add(1)
				for took := int64(time.Since(began)); ; {
					if old := worst.Load(); took <= old || worst.CompareAndSwap(old, took) {
						break
					}
				}
			}
		})
	}
	during := func(what string, d time.Duration) {
		before := decided.Load()
		worst.Store(0)
		time.Sleep(d)
		t.Logf("%s: %d decisions, the slowest took %v", what, decided.Load()-before, time.Duration(worst.Load()).Round(time.Millisecond))
		if decided.Load() == before {
			t.Errorf("%s: no decision", what)
		}
	}
	during("redis well", time.Second)
	server.process.pause()
	during("redis hangs", 2*time.Second)
	server.process.resume()
	during("redis goes on", time.Second)
	server.process.kill()
	during("redis killed", 2*time.Second)
	close(stop)
	wait.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d decisions failed", n, decided.Load())
	}
}

// metric is a check for await: the page of metrics holds line.
func metric(admin, line string) func() error {
	return func() error {
		resp, err := http.Get("http://" + admin + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && !bytes.Contains(body, []byte("\n"+line+"\n")) {
			err = fmt.Errorf("the metrics do not hold %q", line)
		}
		return err
	}
}

// monitor returns every command that Redis hears from now on.
func monitor(t *testing.T, server *redisServer) func() string {
	t.Helper()
	c, err := net.DialTimeout("tcp", server.address, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all strings.Builder
	lines := bufio.NewReader(c)
	if ok, err := lines.ReadString('\n'); err != nil || ok != "+OK\r\n" {
		t.Fatal(ok, err)
	}
	go func() {
		for {
			line, err := lines.ReadString('\n')
			mu.Lock()
			all.WriteString(line)
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}
