package feedtest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// secret is a deployment's.
var secret = []byte("a deployment secret for tests only")

// member is one node of a fleet.
type member struct {
	fleet *revocation.Fleet
	sink  *Sink
	log   revocation.Log
	stop  func()
	heard chan string
}

func event(id string) revocation.Event {
	return revocation.Event{ID: id, Issuer: "main", Selector: revocation.Selector{Subject: id}, At: time.Now(), Way: "test"}
}

// start runs one node over log.
func start(t *testing.T, log revocation.Log, name string) *member {
	t.Helper()
	m := &member{sink: &Sink{}, log: log, heard: make(chan string, 1024)}
	var err error
	m.fleet, err = revocation.NewFleet(revocation.FleetConfig{
		Log: log, Sink: m.sink, Secret: secret, Fingerprint: []byte("ledger"), Beat: 50 * time.Millisecond,
		Issuer: func(issuer string) (string, bool) { return "https://as.example", issuer == "main" },
		Watch: revocation.FleetWatch{Message: func(outcome string) {
			select {
			case m.heard <- outcome:
			default:
			}
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.fleet.Run(ctx, m.sink)
	}()
	m.stop = func() { cancel(); <-done }
	t.Cleanup(m.stop)
	until(t, name+" to be ready", func() bool { return m.fleet.Ready() == nil })
	return m
}

func (m *member) publish(t *testing.T, id string) {
	t.Helper()
	insist(t, "publish "+id, func(ctx context.Context) error { return m.fleet.Publish(ctx, event(id)) })
}

func (m *member) sees(t *testing.T, id string) {
	t.Helper()
	until(t, "event "+id, func() bool { return m.sink.Has(id) })
}

// Three nodes read everything, wherever it was published, in order with the proofs, and without a gap.
//
// Covers: SIG-21
func fleet(t *testing.T, e Engine) {
	var nodes []*member
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, start(t, open(t, e), name))
	}
	through := time.Now()
	gaps := nodes[2].sink.Gaps()
	for i, id := range texts(30, "event") {
		nodes[i%len(nodes)].publish(t, id)
	}
	insist(t, "prove", func(ctx context.Context) error { return nodes[0].fleet.Prove(ctx, "main", through) })
	for _, n := range nodes {
		for _, id := range texts(30, "event") {
			n.sees(t, id)
		}
		until(t, "the proof", func() bool { return !n.sink.Through("main").IsZero() })
		if got := n.sink.Through("main"); got.After(through) {
			t.Errorf("proven until %v, and it is said until %v", through, got)
		}
		// All that node 0 published before its proof comes before it.
		story := n.sink.Story()
		proof := slices.Index(story, "cover main")
		for i := 0; i < 30; i += 3 {
			if at := slices.Index(story, "event "+texts(30, "event")[i]); at > proof {
				t.Errorf("a proof overtook an event: %q", story)
			}
		}
	}
	if nodes[2].sink.Gaps() != gaps {
		t.Errorf("a fleet in good health has gaps: %q", nodes[2].sink.Story())
	}
	insist(t, "lapse", func(ctx context.Context) error { return nodes[1].fleet.Lapse(ctx, "main", "paused") })
	until(t, "the gap", func() bool { return slices.Contains(nodes[2].sink.Story(), "gap main: paused") })
}

// A node is ready only with everything in force that was durable when it came, also what the log has forgotten.
func lateJoiner(t *testing.T, e Engine) {
	a := start(t, open(t, e), "a")
	for _, id := range texts(20, "event") {
		a.publish(t, id)
	}
	b := start(t, open(t, e), "b")
	for _, id := range texts(20, "event") {
		if !b.sink.Has(id) {
			t.Fatalf("ready without %s", id)
		}
	}
	a.stop()
	b.stop()
	kept := 0
	insist(t, "kept", func(ctx context.Context) error {
		kept = 0
		return open(t, e).Kept(ctx, func(string, []byte) error { kept++; return nil })
	})
	if kept != 20 {
		t.Errorf("%d events outlive the log", kept)
	}
}

// What strangers write is no gap, and stops nobody.
func strangers(t *testing.T, e Engine) {
	a := start(t, open(t, e), "a")
	b := start(t, open(t, e), "b")
	gaps := b.sink.Gaps()
	log := open(t, e)
	for _, garbage := range []string{"garbage", "WWb1", string(make([]byte, 4096))} {
		appendText(t, log, garbage)
	}
	a.publish(t, "after")
	b.sees(t, "after")
	if b.sink.Gaps() != gaps {
		t.Errorf("garbage is a gap: %q", b.sink.Story())
	}
	strange := 0
	for len(b.heard) > 0 {
		if <-b.heard == "stranger" {
			strange++
		}
	}
	if strange != 3 {
		t.Errorf("%d messages of strangers were counted, of 3", strange)
	}
}
