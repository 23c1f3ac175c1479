package revocation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// station is one node of a fleet in a bubble.
type station struct {
	*revocation.Fleet
	sink *feedtest.Sink
	stop func()

	mu     sync.Mutex
	heard  map[string]int
	warned []string
	lags   []time.Duration
	kinds  map[revocation.GapKind]int
}

func (s *station) gaps(kind revocation.GapKind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kinds[kind]
}

func (s *station) count(outcome string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard[outcome]
}

const as = "https://as.example"

func fleetConfig(log revocation.Log) revocation.FleetConfig {
	return revocation.FleetConfig{Log: log, Previous: [][]byte{[]byte("an older secret!")}, Secret: []byte("0123456789abcdef"), Fingerprint: []byte("key"),
		Issuer: func(name string) (string, bool) { return as, name == "main" || name == "other" }}
}

func board(t *testing.T, log revocation.Log, change ...func(*revocation.FleetConfig)) *station {
	t.Helper()
	s := &station{sink: &feedtest.Sink{}, heard: map[string]int{}, kinds: map[revocation.GapKind]int{}}
	c := fleetConfig(log)
	c.Sink = s.sink
	c.Watch = revocation.FleetWatch{
		Message: func(o string) { s.mu.Lock(); s.heard[o]++; s.mu.Unlock() },
		Warn:    func(what string, _ error) { s.mu.Lock(); s.warned = append(s.warned, what); s.mu.Unlock() },
		Gap:     func(_ string, kind revocation.GapKind, _ string) { s.mu.Lock(); s.kinds[kind]++; s.mu.Unlock() },
		Lag:     func(d time.Duration) { s.mu.Lock(); s.lags = append(s.lags, d); s.mu.Unlock() },
	}
	for _, f := range change {
		f(&c)
	}
	var err error
	if s.Fleet, err = revocation.NewFleet(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { _ = s.Run(ctx, s.sink) })
	s.stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(s.stop)
	synctest.Wait()
	return s
}

func news(id string) revocation.Event {
	return revocation.Event{ID: id, Issuer: "main", Selector: revocation.Selector{Subject: id}, Way: "test"}
}

// must publishes, and lets everybody read it.
func (s *station) must(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := s.Publish(t.Context(), news(id)); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
}

// bubble runs f with a log and two nodes that are ready.
func bubble(t *testing.T, f func(t *testing.T, log *feedtest.Memory, a, b *station)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := feedtest.NewMemory()
		a, b := board(t, log), board(t, log)
		defer b.stop()
		defer a.stop()
		if err := errors.Join(a.Ready(), b.Ready()); err != nil {
			t.Fatal(err)
		}
		f(t, log, a, b)
	})
}

// What the log does to messages, and what a reader makes of it. The last two messages are events x and y of node a.
//
// Covers: SIG-21
func TestGaps(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func([][]byte) [][]byte
		gap  bool
		has  string
	}{
		"nothing":      {func(b [][]byte) [][]byte { return b }, false, "x y"},
		"a hole":       {func(b [][]byte) [][]byte { return slices.Delete(b, len(b)-2, len(b)-1) }, true, "y"},
		"reordered":    {func(b [][]byte) [][]byte { n := len(b); b[n-1], b[n-2] = b[n-2], b[n-1]; return b }, true, "x y"},
		"twice":        {func(b [][]byte) [][]byte { return append(b, b[len(b)-1], b[len(b)-2], b[0]) }, false, "x y"},
		"garbage":      {func(b [][]byte) [][]byte { return slices.Insert(b, len(b)-1, []byte("garbage"), []byte{}) }, false, "x y"},
		"truncated":    {func(b [][]byte) [][]byte { b[len(b)-2] = b[len(b)-2][:60]; return b }, true, "y"}, // the hole it leaves
		"a forged bit": {func(b [][]byte) [][]byte { b[len(b)-2] = flip(b[len(b)-2], 50); return b }, true, "y"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				written, log := feedtest.NewMemory(), feedtest.NewMemory()
				a := board(t, written)
				a.must(t, "x", "y")
				bodies := written.Bodies()
				reader := board(t, log)
				gaps := reader.sink.Gaps()
				log.Edit(func(own [][]byte) [][]byte { return append(own, test.edit(bodies)...) })
				synctest.Wait()
				a.stop()
				reader.stop()
				if got := reader.sink.Gaps() > gaps; got != test.gap {
					t.Errorf("a gap: %v, want %v: %q", got, test.gap, reader.sink.Story())
				}
				for _, id := range []string{"x", "y"} {
					if got, want := reader.sink.Has(id), strings.Contains(test.has, id); got != want {
						t.Errorf("%s in force: %v, want %v", id, got, want)
					}
				}
			})
		})
	}
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 1
	return b
}

// A node of another deployment is a stranger; one with another ledger key or another server of the name is a gap.
//
// Covers: SIG-21 T27
func TestForeign(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change  func(*revocation.FleetConfig)
		outcome string
		gap     bool
	}{
		"another secret":     {func(c *revocation.FleetConfig) { c.Secret = []byte("fedcba9876543210") }, "stranger", false},
		"a secret of before": {func(c *revocation.FleetConfig) { c.Secret = []byte("an older secret!") }, "applied", false},
		"another key":        {func(c *revocation.FleetConfig) { c.Fingerprint = []byte("other") }, "foreign", true},
		"another server": {func(c *revocation.FleetConfig) {
			c.Issuer = func(string) (string, bool) { return "https://evil.example", true }
		}, "foreign", true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, log *feedtest.Memory, _, b *station) {
				gaps := b.sink.Gaps()
				strange := board(t, log, test.change)
				defer strange.stop()
				strange.must(t, "x")
				if b.sink.Has("x") != (test.outcome == "applied") || b.count(test.outcome) == 0 || (b.sink.Gaps() > gaps) != test.gap {
					t.Errorf("%s: in force %v, %v, %q", name, b.sink.Has("x"), b.heard, b.sink.Story())
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				if test.gap && len(b.warned) == 0 {
					t.Error("silently")
				}
			})
		})
	}
}

// Whatever fails while publishing, the sender hears of it, the event is in force where it was published, and no proof
// passes over what the others were not told.
//
// Covers: SIG-21
func TestPublishFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		operation string
		faults    []feedtest.Fault
		gap       bool // at the other node, before the proof
	}{
		"fine":                     {"append", nil, false},
		"append without effect":    {"append", []feedtest.Fault{feedtest.Nothing}, true},
		"append took effect":       {"append", []feedtest.Fault{feedtest.Unknown}, true},
		"append hangs":             {"append", []feedtest.Fault{feedtest.Stranded}, true},
		"append fails twice":       {"append", []feedtest.Fault{feedtest.Nothing, feedtest.Unknown}, true},
		"keep without effect":      {"keep", []feedtest.Fault{feedtest.Nothing}, false},
		"keep after taking effect": {"keep", []feedtest.Fault{feedtest.Unknown}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, log *feedtest.Memory, a, b *station) {
				gaps := b.sink.Gaps()
				through := time.Now()
				time.Sleep(100 * time.Millisecond) // between two beats
				log.Fail(test.operation, test.faults...)
				err := a.Publish(t.Context(), news("x"))
				if (err != nil) != (test.faults != nil) {
					t.Errorf("the sender heard %v", err)
				}
				if !a.sink.Has("x") {
					t.Error("not in force here")
				}
				time.Sleep(3 * time.Second)
				if err := a.Prove(t.Context(), "main", through); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if !b.sink.Has("x") {
					t.Error("the other node never hears of it")
				}
				if got := b.sink.Gaps() > gaps; got != test.gap {
					t.Errorf("a gap: %v, want %v: %q", got, test.gap, b.sink.Story())
				}
				story := b.sink.Story()
				if proof := slices.Index(story, "cover main"); proof < slices.Index(story, "event x") || proof < 0 {
					t.Errorf("the proof comes before the event: %q", story)
				}
				if err := a.Publish(t.Context(), news("x")); err != nil { // the sender tries again
					t.Error(err)
				}
			})
		})
	}
}

// Through is the minimum over who proves, less skew; a stalled bus stops it, and is no gap.
//
// Covers: SIG-21
func TestThrough(t *testing.T) {
	bubble(t, func(t *testing.T, log *feedtest.Memory, a, b *station) {
		now := time.Now()
		prove := func(s *station, at time.Time) {
			t.Helper()
			if err := s.Prove(t.Context(), "main", at); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		is := func(s *station, want time.Time) {
			t.Helper()
			if got := s.sink.Through("main"); !got.Equal(want) {
				t.Errorf("through %v, want %v", got.Sub(now), want.Sub(now))
			}
		}
		time.Sleep(10 * time.Second)
		prove(a, now.Add(4*time.Second))
		is(a, now.Add(4*time.Second))
		is(b, now.Add(3*time.Second)) // less the skew between hosts
		prove(b, now.Add(8*time.Second))
		is(b, now.Add(3*time.Second)) // a stands at 4
		prove(a, now.Add(9*time.Second))
		is(a, now.Add(7*time.Second)) // b stands at 8
		is(b, now.Add(8*time.Second))

		gaps := b.sink.Gaps()
		log.Stall(true)
		time.Sleep(time.Minute)
		is(b, now.Add(8*time.Second))
		log.Stall(false)
		time.Sleep(2 * time.Second)
		if b.sink.Gaps() != gaps {
			t.Errorf("a stalled bus is a gap: %q", b.sink.Story())
		}
		prove(b, time.Now().Add(time.Hour)) // its clock, or whoever stole the secret
		if b.sink.Through("main").After(time.Now()) {
			t.Error("the future is proven")
		}

		// a is gone without a word: what b proves counts alone, after a gap.
		log.Fail("append", slices.Repeat([]feedtest.Fault{feedtest.Nothing}, 1)...)
		a.stop()
		time.Sleep(30 * time.Second)
		at := time.Now()
		prove(b, at)
		is(b, at)
	})
}

// A node that is heard and proves nothing more holds coverage back, but not for ever while others prove: a balancer that
// sends a feed elsewhere would end the coverage of the whole fleet. It is a gap, and the node may prove again. Nodes that
// take turns, however unevenly, are not left behind; nor is the only one that ever proved.
//
// Covers: SIG-21
func TestANodeThatProvesNoMoreIsLeftBehind(t *testing.T) {
	bubble(t, func(t *testing.T, log *feedtest.Memory, a, b *station) {
		last := map[*station]time.Time{}
		prove := func(s *station) {
			t.Helper()
			time.Sleep(5 * time.Second)
			last[s] = time.Now()
			if err := s.Prove(t.Context(), "main", last[s]); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		gaps := 0
		through := func(want time.Time) {
			t.Helper()
			if got := a.sink.Through("main"); !got.Equal(want) || a.gaps(revocation.GapSilent) != gaps || b.gaps(revocation.GapSilent) != gaps {
				t.Fatalf("%v behind, %d and %d gaps; want %v, %d", time.Since(got), a.gaps(revocation.GapSilent), b.gaps(revocation.GapSilent), time.Since(want), gaps)
			}
		}
		time.Sleep(10 * time.Second)
		for range 3 {
			prove(b)
			for range 16 {
				prove(a)
				through(last[b].Add(-time.Second)) // b stands, less the skew between hosts
			}
		}
		gaps++
		prove(a)
		through(last[a])
		prove(b)
		prove(a)
		through(last[b].Add(-time.Second)) // it proves again

		time.Sleep(time.Hour) // a feed that is late is no gap: coverage stops
		through(last[b].Add(-time.Second))
		for range 16 {
			prove(b)
			through(last[a])
		}
		gaps++
		prove(b) // a, which is the one that looks
		through(last[b].Add(-time.Second))
		for range 50 {
			prove(b)
			through(last[b].Add(-time.Second))
		}
	})
}

// Who is ready has everything in force that was durable when it began, whatever fails on the way.
//
// Covers: SIG-21
func TestReady(t *testing.T) {
	bubble(t, func(t *testing.T, log *feedtest.Memory, a, _ *station) {
		a.must(t, "x", "y")
		log.Cut(len(log.Bodies())) // the log forgets, what is kept does not
		log.Fail("kept", feedtest.Nothing, feedtest.Unknown)
		late := board(t, log)
		defer late.stop()
		if late.Ready() == nil {
			t.Error("ready without what is kept")
		}
		time.Sleep(5 * time.Second)
		if err := late.Ready(); err != nil || !late.sink.Has("x") || !late.sink.Has("y") {
			t.Errorf("%v: %q", err, late.sink.Story())
		}
		log.Stall(true)
		mute := board(t, log)
		defer mute.stop()
		time.Sleep(time.Minute)
		if mute.Ready() == nil {
			t.Error("ready without having read the log")
		}
		log.Stall(false)
		time.Sleep(3 * time.Second)
		if err := mute.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// A mirror that is 200 ms behind is only late.
//
// Covers: SIG-21
func TestMirror(t *testing.T) {
	bubble(t, func(t *testing.T, log *feedtest.Memory, a, b *station) {
		log.Lag(200 * time.Millisecond)
		gaps := b.sink.Gaps()
		for _, id := range []string{"x", "y", "z"} {
			a.must(t, id)
		}
		time.Sleep(2 * time.Second)
		if !b.sink.Has("z") || b.sink.Gaps() != gaps {
			t.Errorf("%q", b.sink.Story())
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if last := b.lags[len(b.lags)-1]; last < 200*time.Millisecond {
			t.Errorf("the lag is said to be %v", last)
		}
	})
}

// A lapse, and an event that cannot be applied, are gaps wherever they are read; neither stops the feed.
//
// Covers: SIG-21
func TestLapse(t *testing.T) {
	bubble(t, func(t *testing.T, log *feedtest.Memory, a, b *station) {
		if err := a.Lapse(t.Context(), "main", "paused"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, s := range []*station{a, b} {
			if story := s.sink.Story(); !slices.Contains(story, "gap main: paused") {
				t.Errorf("%q", story)
			}
		}
		gaps := b.sink.Gaps()
		b.sink.Refuse(errors.New("full"))
		a.must(t, "x")
		if b.sink.Gaps() == gaps {
			t.Error("an event that cannot be applied is no gap")
		}
		b.sink.Refuse(nil)
		a.must(t, "y")
		if !b.sink.Has("y") {
			t.Error("the feed stopped")
		}
		gaps = b.sink.Gaps()
		log.Lose(1) // y is gone, and it is another log
		synctest.Wait()
		if b.sink.Gaps() == gaps {
			t.Error("another log is no gap")
		}
		if b.gaps(revocation.GapUnread) != 1 || b.gaps(revocation.GapLog) != 1 || b.gaps(revocation.GapMissing) != 0 {
			t.Errorf("kinds of gaps: %v", b.kinds)
		}
	})
}

func TestFleetRefuses(t *testing.T) {
	t.Parallel()
	if _, err := revocation.NewFleet(revocation.FleetConfig{Skew: -1}); err == nil || strings.Count(err.Error(), "fleet:") < 5 {
		t.Errorf("not every mistake is reported: %v", err)
	}
	c := fleetConfig(feedtest.NewMemory())
	c.Sink = &feedtest.Sink{}
	f, err := revocation.NewFleet(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]revocation.Event{
		"nobody":         {Issuer: "main"},
		"unknown issuer": {Issuer: "nobody", WholeIssuer: true},
	} {
		if err := f.Publish(t.Context(), e); err == nil {
			t.Errorf("%s: published", name)
		}
	}
	if f.Prove(t.Context(), "nobody", time.Now()) == nil || f.Prove(t.Context(), "main", time.Time{}) == nil {
		t.Error("a proof of nothing is sent")
	}
}
