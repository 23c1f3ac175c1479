package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// How long an operator's word takes to be enforced: three Watchwords over each engine, and one alone with its log on
// disk. From the instant before it is sent to one of them until the first question that each answers so. Beside them, in
// the same rounds, what the disk takes for a sync: Redis (appendfsync always) and a log of its own wait for one.
//
// Covers: SIG-21
func TestFleetFigures(t *testing.T) {
	as := startOIDCProvider(t)
	secret := write(t, t.TempDir(), "deployment-secret", "deployment-secret-of-the-test-of-a-fleet\n")
	for _, over := range []struct {
		engine string
		nodes  int
		keys   func(t *testing.T) string
	}{
		{"a log of its own", 1, func(t *testing.T) string { return fmt.Sprintf("log: %q", t.TempDir()) }},
		{"redis", 3, func(t *testing.T) string {
			return fmt.Sprintf("bus: {redis: {address: %q, prefix: fleet}}", startRedis(t).address)
		}},
		{"nats", 3, func(t *testing.T) string {
			return fmt.Sprintf("bus: {nats: {url: \"nats://%s\"}}", startNATS(t).address)
		}},
		{"kafka", 3, func(t *testing.T) string {
			return fmt.Sprintf("bus: {kafka: {brokers: [%q], topic: fleet}}", startKafka(t, newPapers(t)).address)
		}},
	} {
		t.Run(over.engine, func(t *testing.T) {
			keys := over.keys(t)
			var nodes []*front
			for range over.nodes {
				nodes = append(nodes, hall{bound: farAway, callers: ordersCalls,
					issuer: []string{"introspection_endpoint: " + as.introspection(), secretAuth(t, "client_secret_basic", "rs", "rs-secret")},
					admin:  ", operators: [{name: ops, bearer: {env: OPS}}]", env: []string{"OPS=operator-of-the-test"},
					more: fmt.Sprintf("revocation: {%s}\ndeployment_secret: {file: %s}\n", keys, secret)}.open(t))
			}
			const rounds = 200
			file, err := os.Create(filepath.Join(t.TempDir(), "synced"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			took := make([][]time.Duration, len(nodes)+2) // until each refuses, until the operator had his 200, and a sync
			for range rounds {
				token := remembered(t, as, nodes...)
				var ready, done sync.WaitGroup
				ready.Add(len(nodes))
				refused := make([]time.Time, len(nodes))
				for i, n := range nodes {
					done.Go(func() {
						for first := true; ; first = false { // with pauses: two CPUs are shared with those who are measured
							asked := time.Now()
							active, err := n.active(token)
							if first {
								ready.Done()
							}
							if err != nil {
								t.Error(err)
							}
							if !active {
								refused[i] = asked
								return
							}
							time.Sleep(500 * time.Microsecond)
						}
					})
				}
				ready.Wait()
				sent := time.Now()
				nodes[0].deny(t, map[string]any{"issuer": "main", "token": token, "why": "a figure"})
				took[len(nodes)] = append(took[len(nodes)], time.Since(sent))
				done.Wait()
				for i, at := range refused {
					took[i] = append(took[i], at.Sub(sent))
				}
				began := time.Now()
				if _, err = file.WriteString("a line\n"); err == nil {
					err = file.Sync()
				}
				if err != nil {
					t.Fatal(err)
				}
				took[len(nodes)+1] = append(took[len(nodes)+1], time.Since(began))
			}
			for i, all := range took {
				slices.Sort(all)
				what := map[int]string{len(nodes): "sent -> the operator has his 200", len(nodes) + 1: "a sync of the disk"}[i]
				if i < len(nodes) {
					what = fmt.Sprintf("sent -> node %d refuses", i+1)
				}
				t.Logf("%s, %d instances, %d revocations: %s: p50 %v p99 %v max %v", over.engine, len(nodes), rounds, what,
					all[rounds/2].Round(10*time.Microsecond), all[rounds*99/100].Round(10*time.Microsecond), all[rounds-1].Round(10*time.Microsecond))
			}
		})
	}
}
