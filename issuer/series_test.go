package issuer

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/door/introspection"
	"github.com/watchword-dev/watchword/internal/memnet"
)

// chain is an authorization server, a central Watchword in front of it, and an edge that knows only the central one:
// everything real from the edge's Verifier to the server's handler, in the time of a bubble.
type chain struct {
	central, edge *watchword.Verifier

	mu      sync.Mutex
	asked   int
	revoked time.Time     // zero: never
	ends    time.Time     // by expires_in; zero: never
	slow    time.Duration // each of the two halves of an asking
}

func (c *chain) questions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// ServeHTTP is the authorization server. What it says it knew in the middle of the asking.
func (c *chain) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	c.asked++
	revoked, ends, slow := c.revoked, c.ends, c.slow
	c.mu.Unlock()
	time.Sleep(slow)
	body := `{"active":true,"sub":"ann"`
	if !ends.IsZero() {
		body += fmt.Sprintf(`,"expires_in":%d`, int(time.Until(ends)/time.Second))
	}
	if now := time.Now(); !revoked.IsZero() && !now.Before(revoked) || !ends.IsZero() && !now.Before(ends) {
		body = `{"active":false`
	}
	time.Sleep(slow)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, body+"}")
}

func newChain(t *testing.T, central, edge watchword.Freshness) *chain {
	t.Helper()
	c, net := new(chain), new(memnet.Network)
	net.Serve(t, "localhost:80", c)
	link := func(endpoint string, f watchword.Freshness) *watchword.Verifier {
		client, err := New(Config{Name: "up", IntrospectionEndpoint: endpoint, Auth: ClientSecretBasic("edge", func() ([]string, error) { return []string{"secret"}, nil }), Timeout: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		client.transport.Load().DialContext = net.Dial
		memory, err := cache.New(cache.Config{FlightTimeout: 30 * time.Second, RefreshAhead: cache.RefreshAhead{MinHits: 1000}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(memory.Close)
		t.Cleanup(client.transport.Load().CloseIdleConnections)
		v, err := watchword.New(watchword.Config{Source: memory.Over(client, time.Hour), Issuers: []watchword.Issuer{client.Shape()}, Callers: []watchword.Policy{{Name: "p", Freshness: f}, {Name: "edge", Relay: true, Freshness: f}}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	c.central = link("http://localhost/introspect", central)
	d, err := introspection.New(introspection.Config{Verifier: c.central, Paths: []string{"/introspect"}, Callers: []introspection.Caller{{Name: "edge", ClientID: "edge", Secrets: func() ([]string, error) { return []string{"secret"}, nil }}}})
	if err != nil {
		t.Fatal(err)
	}
	net.Serve(t, "localhost:81", d)
	c.edge = link("http://localhost:81/introspect", edge)
	return c
}

func (c *chain) check(t *testing.T, v *watchword.Verifier, want watchword.Reason, age time.Duration, questions int) {
	t.Helper()
	d := v.Verify(t.Context(), watchword.Request{Token: "t", Caller: "p"})
	if n := c.questions(); d.Reason != want || d.Age != age || n != questions {
		t.Errorf("%v (%v), age %v, %d questions; want %v, %v, %d", d.Reason, d.Err, d.Age, n, want, age, questions)
	}
}

// Two Watchwords in series keep one bound: what the central one remembers is as old at the edge as it is there.
//
// Covers: CAC-13 PXY-06
func TestCAC13TwoInSeries(t *testing.T) {
	t.Parallel()
	ten, minute := watchword.Freshness{MaxStaleness: 10 * time.Second}, watchword.Freshness{MaxStaleness: time.Minute}
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, ten, ten)
		c.check(t, c.central, watchword.OK, 0, 1)
		time.Sleep(9 * time.Second)
		c.check(t, c.edge, watchword.OK, 9*time.Second, 1) // the central one's memory, with its Age
		time.Sleep(time.Second)
		c.check(t, c.edge, watchword.OK, 10*time.Second, 1)
		time.Sleep(time.Second) // the bounds do not add up to 20 s
		c.check(t, c.edge, watchword.OK, 0, 2)
	})
	synctest.Test(t, func(t *testing.T) { // the stricter bound is the edge's: it asks the central one for it
		c := newChain(t, minute, ten)
		c.check(t, c.central, watchword.OK, 0, 1)
		time.Sleep(30 * time.Second)
		c.check(t, c.central, watchword.OK, 30*time.Second, 1)
		c.check(t, c.edge, watchword.OK, 0, 2)
		time.Sleep(5 * time.Second)
		c.check(t, c.edge, watchword.OK, 5*time.Second, 2)
	})
	synctest.Test(t, func(t *testing.T) { // zero at the edge asks the server itself every time
		c := newChain(t, minute, watchword.Freshness{})
		for n := range 3 {
			c.check(t, c.edge, watchword.OK, 0, n+1)
			time.Sleep(time.Second)
		}
	})
}

// The promise holds at the edge: nothing is accepted later than its own bound after the revocation, whoever asked
// which of the two before, however slow the server; and nothing past the end that the server gave in seconds.
//
// Covers: CAC-01 CAC-13 INT-12
func TestCAC13_INT12ThePromiseInSeries(t *testing.T) {
	t.Parallel()
	accepted, late := 0, time.Duration(0)
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 13))
			bounds := func() watchword.Freshness {
				return watchword.Freshness{MaxStaleness: time.Duration(r.IntN(20)) * time.Second}
			}
			central, edge := bounds(), bounds()
			c := newChain(t, central, edge)
			start := time.Now()
			c.slow = []time.Duration{0, 50 * time.Millisecond, 3 * time.Second}[seed%3]
			if gone := start.Add(time.Duration(r.Int64N(int64(90 * time.Second)))); seed%2 == 0 {
				c.revoked = gone
			} else {
				c.ends = gone
			}
			for range 60 {
				time.Sleep(time.Duration(r.Int64N(int64(3 * time.Second))))
				v, bound := c.edge, edge.MaxStaleness
				if r.IntN(3) == 0 {
					v, bound = c.central, central.MaxStaleness
				}
				began := time.Now()
				d := v.Verify(t.Context(), watchword.Request{Token: "t", Caller: "p"})
				if d.Reason != watchword.OK {
					if d.Reason != watchword.Inactive && d.Reason != watchword.Expired {
						t.Fatalf("seed %d: %v (%v)", seed, d.Reason, d.Err)
					}
					continue
				}
				accepted++
				if after := began.Sub(c.revoked); seed%2 == 0 && after > bound {
					t.Fatalf("seed %d: accepted %v after the revocation; central %v, edge %v, age %v", seed, after, central.MaxStaleness, edge.MaxStaleness, d.Age)
				} else if seed%2 == 0 {
					late = max(late, after)
				}
				if now := time.Now(); seed%2 == 1 && !now.Before(c.ends) {
					t.Fatalf("seed %d: accepted %v past the end; central %v, edge %v, age %v", seed, now.Sub(c.ends), central.MaxStaleness, edge.MaxStaleness, d.Age)
				}
			}
		})
	}
	if accepted < 500 || late < 5*time.Second {
		t.Errorf("%d accepted, at most %v late: the test shows little", accepted, late)
	}
}
