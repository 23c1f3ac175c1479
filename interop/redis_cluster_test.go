package interop

import (
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/cache/storetest"
	"github.com/watchword-dev/watchword/driver/redis"
	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// redisCluster is a real Redis Cluster of three masters.
type redisCluster struct{ nodes []*redisServer }

// slots are those of each master.
var slots = [3][2]int{{0, 5460}, {5461, 10922}, {10923, 16383}}

func startRedisCluster(t *testing.T, args ...string) *redisCluster {
	t.Helper()
	c := new(redisCluster)
	for i := range slots {
		n := c.add(t, args...)
		ok(t, n, fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", slots[i][0], slots[i][1]))
		ok(t, n, fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1)) // before it knows others
	}
	for _, n := range c.nodes[1:] {
		c.meet(t, n)
	}
	c.well(t)
	return c
}

// add starts a node without slots that knows nobody.
func (c *redisCluster) add(t *testing.T, args ...string) *redisServer {
	t.Helper()
	_, bus, _ := net.SplitHostPort(freePort(t))
	args = append([]string{"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1000"}, args...)
	n := startRedis(t, args...)
	n.args, n.bus = args, bus
	c.nodes = append(c.nodes, n)
	return n
}

// meet makes a node known to the others.
func (c *redisCluster) meet(t *testing.T, n *redisServer) {
	t.Helper()
	host, port, _ := net.SplitHostPort(n.address)
	ok(t, c.nodes[0], "CLUSTER MEET "+host+" "+port+" "+n.bus)
}

// follows makes a node the replica of another, and waits until it has what that has.
func (c *redisCluster) follows(t *testing.T, replica, master *redisServer) {
	t.Helper()
	_, id, _ := strings.Cut(strings.TrimSpace(master.all("CLUSTER MYID")), "\r\n")
	await(t, "the replica", patience, func() error {
		if got := replica.ask("CLUSTER REPLICATE " + id); got != "+OK" {
			return fmt.Errorf("%q", got)
		}
		if got := master.ask("WAIT 1 1000"); got != ":1" {
			return fmt.Errorf("the master has %q replicas", got)
		}
		return nil
	})
}

// ok sends a command that is answered OK.
func ok(t *testing.T, r *redisServer, command string) {
	t.Helper()
	if got := r.ask(command); got != "+OK" {
		t.Fatalf("%s: %q", command, got)
	}
}

// well waits until every node serves.
func (c *redisCluster) well(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes {
		await(t, "the cluster", patience, func() error {
			if got := n.all("CLUSTER INFO"); !strings.Contains(got, "cluster_state:ok") || !strings.Contains(got, fmt.Sprintf("cluster_known_nodes:%d", len(c.nodes))) {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
	}
}

// seeds are two of its nodes.
func (c *redisCluster) seeds() string { return c.nodes[0].address + ", " + c.nodes[1].address }

// holder is the node that has a key.
func (c *redisCluster) holder(t *testing.T, key string) *redisServer {
	t.Helper()
	for _, n := range c.nodes {
		if got := n.ask("EXISTS " + key); !strings.HasPrefix(got, "-MOVED") {
			return n
		}
	}
	t.Fatal("no node has " + key)
	return nil
}

func (c *redisCluster) open(prefix string) func(t *testing.T) revocation.Log {
	return func(t *testing.T) revocation.Log {
		t.Helper()
		log, err := redis.NewLog(redis.LogConfig{Config: redis.Config{Address: c.seeds(), Cluster: true, Prefix: prefix}})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
}

// A real Redis Cluster: everything of the bus lies in one slot, wherever that is; the node that has it is killed and
// comes back, or its replica, which missed the last write, takes its place.
//
// Covers: SIG-21
func TestBusRedisCluster(t *testing.T) {
	t.Parallel()
	cluster := startRedisCluster(t)
	t.Run("two nodes over it", func(t *testing.T) {
		as := startOIDCProvider(t)
		whole := fmt.Sprintf("redis: {address: %q, cluster: true}", cluster.seeds())
		shares(t, as, whole, whole)
		for _, n := range cluster.nodes {
			if n != cluster.holder(t, "{watchword}:log") {
				cannot(t, as, fmt.Sprintf("redis: {address: %q}", n.address), n.address+": it is a node of a cluster (MOVED)", "revocation.bus.redis.cluster: true")
				break
			}
		}
	})
	holders, n := map[*redisServer]bool{}, 0
	feedtest.Run(t, func(t *testing.T) feedtest.Engine {
		n++
		prefix := fmt.Sprintf("fleet-%d", n)
		log := "{" + prefix + "}:log"
		holders[cluster.holder(t, log)] = true
		e := feedtest.Engine{Open: cluster.open(prefix)}
		switch {
		case strings.HasSuffix(t.Name(), "/restart"):
			e.Restart = func(t *testing.T) {
				holder := cluster.holder(t, log)
				holder.process.kill()
				holder.start(t, holder.args...)
				cluster.well(t)
			}
		case strings.HasSuffix(t.Name(), "/lose"):
			another := startRedisCluster(t)
			master, replica := another.holder(t, log), another.add(t)
			another.meet(t, replica)
			another.well(t)
			another.follows(t, replica, master)
			e.Open = another.open(prefix)
			e.Lose = func(t *testing.T, write func()) {
				if got := master.ask("WAIT 1 2000"); got != ":1" {
					t.Fatalf("the replica is behind: %q", got)
				}
				replica.process.pause() // it hears nothing more
				write()
				master.process.kill()
				replica.process.resume()
				ok(t, replica, "CLUSTER FAILOVER TAKEOVER")
			}
		}
		return e
	})
	if len(holders) != len(cluster.nodes) {
		t.Errorf("the logs lie on %d of %d nodes: not every one was tried", len(holders), len(cluster.nodes))
	}
}

// Answers are spread over the cluster, and every node's notices are heard.
func TestStoreRedisCluster(t *testing.T) {
	t.Parallel()
	cluster := startRedisCluster(t)
	open := func(t *testing.T) cache.Store {
		s, err := redis.NewStore(redis.Config{Address: cluster.seeds(), Cluster: true, Prefix: "store"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	storetest.Run(t, storetest.Config{Open: open})

	heard, ready := make(chan cache.Digest, 1024), make(chan struct{})
	go func() {
		_ = open(t).(cache.Noticing).Notice(t.Context(), func() { close(ready) }, func(d cache.Digest) { heard <- d })
	}()
	<-ready
	writer, written := open(t), map[cache.Digest]bool{}
	for range 60 {
		var d cache.Digest
		_, _ = rand.Read(d[:])
		if err := writer.Put(t.Context(), d, cache.Item{Sealed: []byte("sealed"), AsOf: time.Now()}, time.Minute); err != nil {
			t.Fatal(err)
		}
		written[d] = true
	}
	for deadline := time.After(patience); len(written) > 0; {
		select {
		case d := <-heard:
			delete(written, d)
		case <-deadline:
			t.Fatalf("%d of 60 writes were not heard of", len(written))
		}
	}
	for _, n := range cluster.nodes {
		if got := n.ask("DBSIZE"); got == ":0" {
			t.Errorf("%s has no answer: %s", n.address, got)
		}
	}
}
