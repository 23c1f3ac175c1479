package interop

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	historyBound  = 2 * time.Second         // max_staleness
	historyWithin = 2500 * time.Millisecond // of the bus, while all is well: it takes milliseconds, and two cores are shared by many
	historyLag    = 400 * time.Millisecond
	historyWell   = 4 * time.Second // before the first fault
	historyLeast  = 120             // revocations through Watchword
	historyFaults = 16 * time.Second
)

// busServer is an engine that can be killed and started again.
type busServer interface {
	start(t *testing.T)
	running() *process
}

type redisBus struct{ *redisServer }

func (r redisBus) start(t *testing.T) { r.redisServer.start(t) }
func (r redisBus) running() *process  { return r.process }

type natsBus struct{ *natsServer }

func (n natsBus) running() *process { return n.process }

// Three Watchwords, each with a link of its own to a real Redis or NATS, in which everything can break: links are cut,
// swallow what is sent, are slow, or narrow; engines and nodes hang and are killed. Meanwhile clients ask all of them about
// tokens, and tokens are revoked in every way. What was seen is judged afterwards (history.judge). The authorization server
// is a script, as no real one tells from which instant on its introspection calls a token inactive. It runs before the
// tests that are parallel, as one of its rules counts seconds.
//
// Covers: SIG-17 SIG-21 PXY-08 CAC-08 T28
func TestHistory(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := startRedis(t)
		chronicle(t, "redis", redisBus{server}, server.address, 0)
	})
	t.Run("nats", func(t *testing.T) {
		t.Parallel()
		server := startNATS(t)
		chronicle(t, "nats", natsBus{server}, server.address, 1)
	})
}

// historySeed is what the random choices of a run come from: WATCHWORD_HISTORY_SEED, or another one each time. Real
// processes do not run the same way twice, so the same seed makes the same faults and not the same history.
var historySeed = sync.OnceValues(func() (uint64, error) {
	if text := os.Getenv("WATCHWORD_HISTORY_SEED"); text != "" {
		return strconv.ParseUint(text, 10, 64)
	}
	return rand.Uint64N(1 << 32), nil
})

// chronicle runs a fleet under faults and judges its history. In every run the store of one of the two engines is shared
// too; which one depends on the seed.
func chronicle(t *testing.T, kind string, engine busServer, address string, parity uint64) {
	seed, err := historySeed()
	if err != nil {
		t.Fatalf("WATCHWORD_HISTORY_SEED: %v", err)
	}
	shared := seed%2 == parity
	t.Logf("WATCHWORD_HISTORY_SEED=%d, shared store: %v", seed, shared)
	r := rand.New(rand.NewPCG(seed, parity))
	lags := rand.New(rand.NewPCG(seed, parity+2))
	f := &fleet{engine: engine, as: newScripted(t, func() time.Duration { return time.Duration(lags.Int64N(int64(historyLag))) }),
		h: &history{bound: historyBound, within: historyWithin}, client: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	secret := write(t, t.TempDir(), "deployment", "deployment-secret-of-a-test-of-histories")
	for i := range 3 {
		f.add(t, i, kind, newLink(t, address), shared, secret)
	}
	for _, n := range f.nodes {
		f.spawn(t, n)
	}
	for i := range 60 {
		f.newGroup(fmt.Sprint(i))
	}

	plan := planFaults(r)
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	t.Cleanup(end)
	var crowd, senders, breaking sync.WaitGroup
	for _, n := range f.nodes {
		mine := rand.New(rand.NewPCG(seed, 100+uint64(n.index)))
		crowd.Go(func() { f.crowd(mine, n, stop) })
	}
	for i := range 4 {
		mine := rand.New(rand.NewPCG(seed, 200+uint64(i)))
		senders.Go(func() { f.sender(mine, stop) })
	}
	began := time.Now()
	breaking.Go(func() {
		for _, p := range plan.links {
			time.Sleep(time.Until(began.Add(p.at)))
			f.breakLinks(p)
		}
	})
	for _, p := range plan.kills { // in the test's own goroutine, as what does not start ends the test
		time.Sleep(time.Until(began.Add(p.at)))
		f.fell(t, p)
	}
	breaking.Wait()
	f.settle(t)
	await(t, "enough revocations", patience, func() error { // a slow machine needs longer
		f.h.mu.Lock()
		defer f.h.mu.Unlock()
		if n := len(f.h.revoked); n < historyLeast {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	end()
	senders.Wait()
	crowd.Wait()
	f.watching.Wait()
	f.sweep(t, "after healing")
	f.killAll(t)
	f.sweep(t, "after the engine and every node was killed")
	f.report(t, plan)
	for _, n := range f.nodes {
		n.now.stop()
	}
	f.engine.running().kill()
}

// planned is a fault of a link, or of a process: of the engine where nodes is empty.
type planned struct {
	kind       fault
	nodes      []int
	at, length time.Duration
}

// What becomes of a process.
const (
	killed fault = "killed"
	hangs  fault = "hangs"
)

// name is how the fault is counted.
func (p planned) name() string {
	if p.kind != killed && p.kind != hangs {
		return string(p.kind)
	}
	return []string{"engine ", "node "}[len(p.nodes)] + string(p.kind)
}

type plan struct{ links, kills []planned }

// planFaults chooses: every kind of a broken link at least twice, one after another, of one node or two; and meanwhile
// the engine and a node are killed twice, and hang twice.
func planFaults(r *rand.Rand) (p plan) {
	kinds := []fault{cut, cut, blackhole, blackhole, delay, delay, throttle, throttle, []fault{cut, blackhole, delay, throttle}[r.IntN(4)]}
	r.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	each := historyFaults / time.Duration(len(kinds))
	for i, k := range kinds {
		at := historyWell + time.Duration(i)*each + time.Duration(r.Int64N(int64(each/4)))
		p.links = append(p.links, planned{k, r.Perm(3)[:1+r.IntN(2)], at, each/3 + time.Duration(r.Int64N(int64(each/3)))})
	}
	kills := []planned{{kind: killed}, {kind: killed}, {kind: hangs}, {kind: hangs}}
	for _, k := range []fault{killed, killed, hangs, hangs} {
		kills = append(kills, planned{kind: k, nodes: []int{r.IntN(3)}})
	}
	r.Shuffle(len(kills), func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })
	each = historyFaults / time.Duration(len(kills))
	for i, one := range kills {
		one.at = historyWell + time.Duration(i)*each + time.Duration(r.Int64N(int64(each/3)))
		one.length = 200*time.Millisecond + time.Duration(r.Int64N(int64(600*time.Millisecond)))
		p.kills = append(p.kills, one)
	}
	return p
}

// fleet is three nodes, what they depend on, and what is seen of them.
type fleet struct {
	engine busServer
	as     *scripted
	h      *history
	nodes  []*fleetNode
	client *http.Client

	watching sync.WaitGroup

	mu    sync.Mutex
	valid []grant // nobody has begun to revoke them
	ended []string
	next  int
}

// fleetNode is one node of the fleet.
type fleetNode struct {
	index                     int
	config                    string
	introspect, events, admin string // host:port
	link                      *link

	mu   sync.Mutex
	life int // -1: it is being killed or started
	last int
	now  *daemon
}

func (n *fleetNode) alive() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.life
}

func (f *fleet) add(t *testing.T, i int, kind string, k *link, shared bool, secret string) {
	t.Helper()
	n := &fleetNode{index: i, link: k, introspect: freePort(t), events: freePort(t), admin: freePort(t), life: -1, last: -1}
	at := fmt.Sprintf("redis: {address: %q}", k.address)
	if kind == "nats" {
		at = fmt.Sprintf("nats: {url: %q}", "nats://"+k.address)
	}
	l2 := ""
	if shared {
		l2 = ", l2: {" + at + "}"
	}
	n.config = write(t, t.TempDir(), "watchword.yaml", `issuers:
  - name: main
    introspection_endpoint: `+f.as.URL+`/introspect
    revocation_endpoint: `+f.as.URL+`/revoke
    client_auth: {method: none}
    guard: {rate: 5000, max_in_flight: 256}
    storm: {at_least: 1000000}
freshness: {max_staleness: `+historyBound.String()+`}
cache: {unknown_tokens: {per_peer: 100000, burst: 100000}`+l2+`}
doors:
  introspection: {listen: "`+n.introspect+`", `+ordersCalls+`}
  events: {listen: "`+n.events+`", revoke: [{issuer: main, path: /revoke}]}
admin: {listen: "`+n.admin+`", operators: [{name: ops, bearer: {env: OPS}}]}
decision_log: {to: none}
deployment_secret: {file: `+secret+`}
revocation: {bus: {`+at+`}}
`)
	f.nodes = append(f.nodes, n)
}

// spawn starts a node and waits until it is ready.
func (f *fleet) spawn(t *testing.T, n *fleetNode) {
	t.Helper()
	cmd := watchwordCommand(t, "serve", "--config", n.config)
	cmd.Env = append(os.Environ(), "ORDERS_SECRET=orders-secret", "OPS=operator-of-the-test")
	n.mu.Lock()
	n.last++
	l := &life{node: n.index, life: n.last, born: time.Now()}
	n.life, n.now = n.last, &daemon{process: start(t, "watchword", cmd)}
	n.mu.Unlock()
	f.h.mu.Lock()
	f.h.lives = append(f.h.lives, l)
	f.h.mu.Unlock()
	n.now.ready(t, patience, answers("http://"+n.admin+"/readyz", http.StatusOK))
	f.h.mu.Lock()
	l.ready = time.Now()
	f.h.mu.Unlock()
}

func (n *fleetNode) crash() {
	n.mu.Lock()
	n.life = -1 // before, so that no answer of the old process is taken for one of the next
	n.mu.Unlock()
	n.now.kill()
}

// newGroup makes three tokens of one subject and client.
func (f *fleet) newGroup(name string) {
	for range 3 {
		g := f.as.issue(name)
		f.mu.Lock()
		f.valid = append(f.valid, g)
		f.mu.Unlock()
	}
}

// troubled notes trouble of nodes from now until the function that it returns is called.
func (f *fleet) troubled(kind string, nodes ...int) (over func()) {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	first := len(f.h.troubles)
	for _, n := range nodes {
		f.h.troubles = append(f.h.troubles, trouble{node: n, kind: kind, from: time.Now()})
	}
	return func() {
		f.h.mu.Lock()
		defer f.h.mu.Unlock()
		for i := range nodes {
			f.h.troubles[first+i].to = time.Now()
		}
	}
}

func (f *fleet) breakLinks(p planned) {
	defer f.troubled(p.name(), p.nodes...)()
	for _, i := range p.nodes {
		f.nodes[i].link.set(p.kind)
	}
	time.Sleep(p.length)
	for _, i := range p.nodes {
		f.nodes[i].link.set(open)
	}
}

// fell lets a process hang, or kills it and starts it again.
func (f *fleet) fell(t *testing.T, p planned) {
	t.Helper()
	nodes := p.nodes
	if len(nodes) == 0 {
		nodes = []int{0, 1, 2}
	}
	defer f.troubled(p.name(), nodes...)()
	switch of := f.engine.running(); {
	case p.kind == hangs:
		if len(p.nodes) > 0 {
			of = f.nodes[p.nodes[0]].now.process
		}
		of.pause()
		time.Sleep(p.length)
		of.resume()
	case len(p.nodes) == 0:
		of.kill()
		time.Sleep(p.length)
		f.engine.start(t)
	default:
		n := f.nodes[p.nodes[0]]
		n.crash()
		time.Sleep(p.length)
		f.spawn(t, n)
	}
}

// killAll kills the engine and every node at once: only what the engine has on its disk is left.
func (f *fleet) killAll(t *testing.T) {
	t.Helper()
	over := f.troubled("everything killed", 0, 1, 2)
	f.engine.running().kill()
	for _, n := range f.nodes {
		n.crash()
	}
	f.engine.start(t)
	for _, n := range f.nodes {
		f.spawn(t, n)
	}
	over()
}

// check asks a node about a token, and notes it.
func (f *fleet) check(n *fleetNode, token string) verdict {
	c := asking{node: n.index, life: n.alive(), token: token, began: time.Now()}
	c.said = f.ask(n, token)
	c.ended = time.Now()
	if n.alive() != c.life {
		c.life = -1
	}
	f.h.mu.Lock()
	f.h.checks = append(f.h.checks, c)
	f.h.mu.Unlock()
	return c.said
}

func (f *fleet) ask(n *fleetNode, token string) verdict {
	status, body := f.post("http://"+n.introspect+"/introspect", "orders", "orders-secret", url.Values{"token": {token}})
	var said struct{ Active *bool }
	switch {
	case status == 0:
		return nothing
	case status == http.StatusServiceUnavailable:
		return unknown
	case status != http.StatusOK || json.Unmarshal(body, &said) != nil || said.Active == nil:
		return verdict(fmt.Sprintf("%d %s", status, body))
	case *said.Active:
		return allowed
	}
	return refused
}

// crowd is the clients of one node: mostly with valid tokens, sometimes with one that was revoked.
func (f *fleet) crowd(r *rand.Rand, n *fleetNode, stop chan struct{}) {
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		f.mu.Lock()
		token := f.valid[r.IntN(len(f.valid))].token
		if len(f.ended) > 0 && r.IntN(3) == 0 {
			token = f.ended[r.IntN(len(f.ended))]
		}
		f.mu.Unlock()
		f.check(n, token)
	}
}

// report judges, and says how much was seen.
func (f *fleet) report(t *testing.T, p plan) {
	t.Helper()
	h := f.h
	h.grants = f.as.truth()
	broken := h.judge()
	for i, one := range broken {
		if i == 10 {
			t.Errorf("and %d more", len(broken)-i)
			break
		}
		t.Error(one)
	}
	said, ways, faults := map[verdict]int{}, map[string]int{}, map[string]int{}
	for _, c := range h.checks {
		said[c.said]++
	}
	again, never := 0, 0
	for _, e := range h.revoked {
		ways[e.way]++
		again += len(e.attempts) - 1
		if e.acknowledged().IsZero() {
			never++
		}
	}
	for _, g := range h.grants {
		if !g.dead.IsZero() {
			ways["server"]++
		}
	}
	ways["server"] -= ways["pass"]
	for _, one := range slices.Concat(p.links, p.kills) {
		faults[one.name()]++
	}
	t.Logf("%d checks %v; %d revocations %v, sent again %d times, never acknowledged %d; faults %v, and everything killed once; the server was asked %d times",
		len(h.checks), said, len(h.revoked)+ways["server"], ways, again, never, faults, f.as.asked)
	enough := len(h.checks) >= 3000 && len(h.revoked) >= historyLeast && never == 0
	for _, kind := range []string{"cut", "blackhole", "delay", "throttle", "engine killed", "engine hangs", "node killed", "node hangs"} {
		enough = enough && faults[kind] >= 2
	}
	if !enough {
		t.Error("the run shows too little")
	}
	for v := range said {
		if !slices.Contains([]verdict{allowed, refused, unknown, nothing}, v) {
			t.Errorf("an answer that is none: %s", v)
		}
	}
	well, ill := h.took()
	t.Logf("acknowledged -> refused by other nodes: while all is well %s; under faults %s", quantiles(well), quantiles(ill))
	t.Logf("allowed, after the acknowledgement, by a node that was not ready: %d", h.unready())
	t.Logf("a link, engine or node is whole again -> its node is seen to have caught up: %s", quantiles(h.caught()))
	for _, n := range f.nodes {
		log := n.now.tail(1 << 20)
		for _, g := range h.grants {
			if strings.Contains(log, g.token) {
				t.Fatal("a token is in the log")
			}
		}
	}
}

func quantiles(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	at := func(percent int) time.Duration { return all[(len(all)-1)*percent/100].Round(100 * time.Microsecond) }
	return fmt.Sprintf("p50 %v p99 %v max %v (%d)", at(50), at(99), at(100), len(all))
}
