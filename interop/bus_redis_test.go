package interop

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/driver/redis"
	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// redisServer is a real redis-server in a folder of its own that can be killed and started again.
type redisServer struct {
	address, dir string
	args         []string // beyond those that every one has; for start
	bus          string   // port at which the other nodes of a cluster reach it
	process      *process
}

func startRedis(t *testing.T, args ...string) *redisServer {
	r := &redisServer{address: freePort(t), dir: t.TempDir()}
	r.start(t, args...)
	return r
}

func (r *redisServer) start(t *testing.T, args ...string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(r.address)
	r.process = start(t, "redis", command("redis-server", append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", r.dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}, args...)...))
	r.process.ready(t, patience, func() error {
		if got := r.ask("PING"); got != "+PONG" {
			return fmt.Errorf("redis says %q", got)
		}
		return nil
	})
}

// ask sends one inline command and returns the first line of the answer.
func (r *redisServer) ask(line string) string {
	first, _, _ := strings.Cut(r.all(line), "\r\n")
	return first
}

// all is ask, for what of the answer comes at once.
func (r *redisServer) all(line string) string {
	c, err := net.DialTimeout("tcp", r.address, time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = fmt.Fprintf(c, "%s\r\n", line)
	b := make([]byte, 4096)
	n, _ := c.Read(b)
	return string(b[:n])
}

// A real Redis, killed, restarted, and failed over to a replica that missed the last write.
//
// Covers: SIG-21
func TestBusRedis(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is not there: interop/setup installs it")
	}
	server := startRedis(t)
	n := 0
	feedtest.Run(t, func(t *testing.T) feedtest.Engine {
		n++
		e := feedtest.Engine{Open: openRedis(server.address, fmt.Sprintf("t%d", n)), Pause: func(*testing.T) func() {
			server.process.pause()
			return server.process.resume
		}}
		switch {
		case strings.HasSuffix(t.Name(), "/restart"):
			e.Restart = func(t *testing.T) {
				server.process.kill()
				server.start(t)
			}
		case strings.HasSuffix(t.Name(), "/lose"):
			master, replica := startRedis(t), startRedis(t)
			host, port, _ := net.SplitHostPort(master.address)
			replica.ask("REPLICAOF " + host + " " + port)
			await(t, "the replica", patience, func() error {
				if got := replica.ask("ROLE"); got != "*5" { // a replica's answer
					return fmt.Errorf("%q", got)
				}
				if got := master.ask("WAIT 1 1000"); got != ":1" {
					return fmt.Errorf("the master has %q replicas", got)
				}
				return nil
			})
			front := newTurnable(t, master.address)
			e.Open = openRedis(front.address, "failover")
			e.Lose = func(t *testing.T, write func()) {
				if got := master.ask("WAIT 1 2000"); got != ":1" {
					t.Fatalf("the replica is behind: %q", got)
				}
				replica.process.pause() // it hears nothing more
				write()
				master.process.kill()
				replica.process.resume()
				await(t, "the promotion", patience, func() error {
					if got := replica.ask("REPLICAOF NO ONE"); got != "+OK" {
						return fmt.Errorf("%q", got)
					}
					return nil
				})
				front.turn(replica.address)
			}
		}
		return e
	})
}

func openRedis(address, prefix string) func(t *testing.T) revocation.Log {
	return func(t *testing.T) revocation.Log {
		t.Helper()
		log, err := redis.NewLog(redis.LogConfig{Config: redis.Config{Address: address, Prefix: prefix}})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
}

func TestBusRedisLatency(t *testing.T) {
	server := startRedis(t)
	latency(t, "redis", openRedis(server.address, "latency"))
}

// Redis with a password refuses who has none, and the error holds no secret.
func TestBusRedisPassword(t *testing.T) {
	t.Parallel()
	server := &redisServer{address: freePort(t), dir: t.TempDir()}
	_, port, _ := net.SplitHostPort(server.address)
	server.process = start(t, "redis", command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", server.dir, "--requirepass", "hunter2"))
	server.process.ready(t, patience, listens(server.address))
	for password, want := range map[string]bool{"hunter2": true, "wrong-secret": false} {
		log, err := redis.NewLog(redis.LogConfig{Config: redis.Config{Address: server.address, Password: func() (string, error) { return password, nil }}})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var got error
		await(t, "an answer", patience, func() error {
			if got = log.Append(ctx, []byte("x")); got != nil && strings.Contains(got.Error(), "refused") {
				return got
			}
			return nil
		})
		if (got == nil) != want || got != nil && strings.Contains(got.Error(), password) {
			t.Errorf("want accepted %v: %v", want, got)
		}
	}
}

// A Redis that would lose what it acknowledged, by a crash or for want of memory, is warned of.
func TestBusRedisAdvice(t *testing.T) {
	t.Parallel()
	advice := func(args ...string) string {
		var said []string
		log, err := redis.NewLog(redis.LogConfig{Config: redis.Config{Address: startRedis(t, args...).address}, Warn: func(what string) { said = append(said, what) }})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if err := log.Append(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		return strings.Join(said, "\n")
	}
	if said := advice("--maxmemory", "64mb", "--maxmemory-policy", "noeviction"); said != "" {
		t.Errorf("of one that keeps everything: %s", said)
	}
	said := advice("--appendonly", "no", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
	if !strings.Contains(said, "appendonly yes") || !strings.Contains(said, "maxmemory-policy noeviction") {
		t.Errorf("of one that keeps nothing: %q", said)
	}
}
