package revocation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	weak "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Limits and defaults of a Fleet.
const (
	MinSecretBytes = 16
	maxPublishers  = 4096 // remembered at once; nodes that are gone are forgotten first
	silentBeats    = 15   // beats of ours after which a node that says nothing is gone
	silentRounds   = 16   // proofs of each other node after which one that proves nothing more is left behind
	batchBytes     = MaxRecordBytes / 2
	maxOwed        = 1024 // events that the bus did not take, and that are tried again
	recallBatch    = 512  // events applied, and made durable by the Sink, at once
	sayAgain       = 10 * time.Second
)

// DefaultSkew is FleetConfig.Skew where it is zero.
const DefaultSkew = time.Second

// FleetConfig makes a Fleet. Zero fields mean the stated default.
type FleetConfig struct {
	Log  Log
	Sink Sink // where what is published here is in force at once; Run is given the same

	// Secret is the deployment's: records of other deployments are strangers. At least 16 bytes.
	Secret []byte
	// Previous are secrets of a rotation: what they sealed is read, and nothing more is sealed with them.
	Previous [][]byte
	// Fingerprint tells the ledger key (Ledger.Fingerprint): a record made under another one is a gap. nil: the ledger key
	// comes of Secret, so who has another one is a stranger.
	Fingerprint []byte
	// Issuer tells the authorization server of that name by what identifies it on every node (its issuer identifier or
	// endpoint), and whether there is one here. Called for every record: a reload changes what it says.
	Issuer func(name string) (identity string, known bool)
	// Life is until when an event must be known: the end of the last token that it can name. nil: 24 hours from now.
	Life func(e *Event) time.Time

	Skew    time.Duration // between the clocks of nodes; 0: DefaultSkew
	Beat    time.Duration // how often we show that our sequence has no hole at its end; 0: 1s
	Timeout time.Duration // of one message, where a context allows more; 0: 5s

	Watch FleetWatch
}

// FleetWatch is told what happens. Any may be nil. They are called from several goroutines and must return at once.
type FleetWatch struct {
	Lag     func(d time.Duration)                         // from our beat's leaving until we read it
	Ahead   func(d time.Duration)                         // with every beat of ours: by how much at least another node's clock is ahead of ours
	Gap     func(issuer string, kind GapKind, why string) // after Sink.Gap
	Message func(outcome string)                          // applied, own, duplicate, stranger, foreign, unreadable, refused
	Warn    func(what string, err error)                  // for the log
}

// GapKind is what tells of a gap: a metric label.
type GapKind string

// The kinds. GapLog and GapMissing say that the log may not have kept what it acknowledged.
const (
	GapStart   GapKind = "start"   // nothing was read before
	GapLog     GapKind = "log"     // the log is another one, or no longer holds what it held
	GapMissing GapKind = "missing" // a hole in what a node has sent, in a log that calls itself whole
	GapUnread  GapKind = "unread"  // what a node sent cannot be read or applied here
	GapClock   GapKind = "clock"   // the clock of a node is ahead by more than Skew
	GapSilent  GapKind = "silent"  // a node that proved something says nothing more
	GapTold    GapKind = "told"    // a feed of this node, or another node, says so
)

// Fleet makes one ledger of many, over any Log: it publishes, and brings to a Sink what others published. What is published is sealed,
// numbered, durable in the log and, where it must outlive the log, kept beside it. What is read is applied in order, and
// whatever may have been missed is a gap. Safe for concurrent use. Make it with NewFleet.
type Fleet struct {
	c    FleetConfig
	seal *sealer
	self publisher

	send     chan struct{} // holds one token: who has it appends
	sequence uint64        // of the last record that was appended or may have been
	pending  []byte        // sealed under sequence, and not known to be in the log

	position string // after the last entry; only Run's goroutine
	nodes    map[publisher]*node
	covered  map[string]time.Time
	proofs   map[string]int // by issuer: how many were read
	beats    uint64         // of ours that were read
	ready    atomic.Pointer[string]

	mu     sync.Mutex
	lapsed map[string]string    // issuers of which others were not told something, and why
	owed   []Event              // in force here, and not known to be durable in the log and beside it; at most maxOwed
	said   map[string]time.Time // warnings, each a text of this file
}

// node is what we know of a publisher, by what we read of it.
type node struct {
	sequence uint64
	beat     uint64           // f.beats when it was last read
	through  map[string]proof // by issuer: its last one
	ahead    time.Duration    // by how much at least its clock is ahead of ours, by its last message
}

// proof is until when a node has proven coverage of an issuer, and how many proofs of that issuer were read until then.
type proof struct {
	until time.Time
	count int
}

// NewFleet makes a Fleet. It opens nothing.
func NewFleet(c FleetConfig) (*Fleet, error) {
	var errs []error
	wrong := func(is bool, text string) {
		if is {
			errs = append(errs, errors.New("fleet: "+text))
		}
	}
	wrong(c.Log == nil, "no log")
	wrong(c.Sink == nil, "no sink")
	wrong(c.Issuer == nil, "no issuers")
	wrong(len(c.Secret) < MinSecretBytes, fmt.Sprintf("the deployment secret has less than %d bytes", MinSecretBytes))
	wrong(c.Skew < 0 || c.Beat < 0 || c.Timeout < 0, "a negative duration")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	def(&c.Skew, DefaultSkew)
	def(&c.Beat, time.Second)
	def(&c.Timeout, 5*time.Second)
	if c.Life == nil {
		c.Life = func(*Event) time.Time { return time.Now().Add(24 * time.Hour) }
	}
	s, err := newSealer(c.Secret, c.Fingerprint, c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	for _, old := range c.Previous {
		p, err := newSealer(old, c.Fingerprint, c.Issuer)
		if err != nil {
			return nil, fmt.Errorf("fleet: %w", err)
		}
		s.previous = append(s.previous, p)
	}
	f := &Fleet{c: c, seal: s, send: make(chan struct{}, 1), lapsed: map[string]string{}, nodes: map[publisher]*node{}, covered: map[string]time.Time{}, proofs: map[string]int{}, said: map[string]time.Time{}}
	f.send <- struct{}{}
	_, _ = rand.Read(f.self[:]) // never fails (crypto/rand)
	f.await("the bus has not been read yet")
	return f, nil
}

// Ready returns nil once everything that was durable when Run began is in force here, and else what it waits for.
func (f *Fleet) Ready() error {
	if why := f.ready.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

func (f *Fleet) await(why string) { f.ready.Store(&why) }

// Run brings what the fleet knows to a Sink until ctx ends: what is kept, then the whole log, then what comes. A node is
// another publisher each time, so a Fleet runs once.
func (f *Fleet) Run(ctx context.Context, to Sink) error {
	f.gap(to, "", GapStart, "the node starts")
	f.await("the revocations kept in the bus are not read")
	f.patiently(ctx, "the kept revocations cannot be read", func() error { return f.recall(ctx, to) })
	f.await("the bus is not read to its end")

	var beating sync.WaitGroup
	beating.Go(func() { f.beat(ctx) })
	defer beating.Wait()
	f.patiently(ctx, "the bus cannot be read", func() error {
		return f.c.Log.Read(ctx, f.position, func(e Entry) error {
			f.read(ctx, to, e.Body)
			f.position = e.Position
			return nil
		}, func(why string) { f.gap(to, "", GapLog, why) }, func(err error) { f.warn("the bus cannot be read", err) })
	})
	return ctx.Err()
}

// patiently calls do until it returns nil or ctx ends.
func (f *Fleet) patiently(ctx context.Context, what string, do func() error) {
	for n := 0; ctx.Err() == nil; n++ {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		f.warn(what, err)
		wait(ctx, backoff(n, weak.Float64()))
	}
}

// backoff is the pause after failure n: doubling from 100 ms to 5 s, less a jitter u of [0, 1).
func backoff(n int, u float64) time.Duration {
	d := min(100*time.Millisecond<<min(n, 10), 5*time.Second)
	return d/2 + time.Duration(u*float64(d/2))
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// beat says hello until ctx ends, and then bye. The first one that we read shows that we have read all before it.
func (f *Fleet) beat(ctx context.Context) {
	failed := false
	for ; ctx.Err() == nil; wait(ctx, f.c.Beat) {
		err := f.append(ctx, &record{kind: kindHello}, nil)
		if err != nil && !failed && ctx.Err() == nil {
			f.warn("the bus takes nothing", err)
		}
		if failed = err != nil; !failed {
			f.repay(ctx)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.c.Timeout)
	defer cancel()
	if !failed {
		_ = f.append(ctx, &record{kind: kindBye}, nil) // others wait for us a little longer otherwise
	}
}

func (f *Fleet) gap(to Sink, issuer string, kind GapKind, why string) {
	to.Gap(issuer, why)
	if f.c.Watch.Gap != nil {
		f.c.Watch.Gap(issuer, kind, why)
	}
}

func (f *Fleet) message(outcome string) {
	if f.c.Watch.Message != nil {
		f.c.Watch.Message(outcome)
	}
}

// warn says the same again after a while only: a bus may hold a million messages that nobody understands.
func (f *Fleet) warn(what string, err error) {
	if f.c.Watch.Warn == nil {
		return
	}
	f.mu.Lock()
	last, said := f.said[what]
	again := !said || time.Since(last) > sayAgain
	if again {
		f.said[what] = time.Now()
	}
	f.mu.Unlock()
	if again {
		f.c.Watch.Warn(what, err)
	}
}
