package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// SharedResult is what came of a look-up in a shared store, or of a write to it. Its String is a metric label.
type SharedResult uint8

// The results.
const (
	SharedHit     SharedResult = iota // an answer from the store served
	SharedMiss                        // the source below was asked
	SharedJoined                      // an answer served that another host was asking for
	SharedStale                       // asking failed, and an older answer from the store served (Freshness.StaleIfError)
	SharedRefused                     // a value was tampered with, truncated, foreign, of another schema or from the future; counted beside what came of the look-up
	SharedFailed                      // a call to the store failed or took too long; counted beside what came of the look-up
	SharedSkipped                     // the store was not in use: its clock is off, or it failed just now; the source below was asked
	SharedWritten                     // an answer was given to the store
	SharedLost                        // an answer could not be
	sharedResults
)

// String returns the label of r.
func (r SharedResult) String() string {
	return [sharedResults]string{"hit", "miss", "joined", "stale", "refused", "failed", "skipped", "written", "lost"}[r]
}

// SharedStats is a look at a Shared.
type SharedStats struct {
	Results [sharedResults]uint64 // by SharedResult
	Offset  time.Duration         // the store's clock less ours, when they were last compared
	InUse   bool
}

func (s *Shared) count(r SharedResult) { s.stats[r].Add(1) }

// Stats returns a look at s.
func (s *Shared) Stats() SharedStats {
	out := SharedStats{Offset: time.Duration(s.offset.Load()), InUse: s.inTime(time.Now()) == nil && s.breaker.failures.Load() < breakAfter}
	for r := range out.Results {
		out.Results[r] = s.stats[r].Load()
	}
	return out
}

// breaker keeps questions from waiting for a store that does not answer: after three failures in a row it lets one
// call through each second, until one succeeds.
type breaker struct {
	failures atomic.Int32
	until    atomic.Pointer[time.Time]
}

const (
	breakAfter = 3
	breakFor   = time.Second
)

// closed reports whether a call may be made.
func (b *breaker) closed(now time.Time) bool {
	if b.failures.Load() < breakAfter {
		return true
	}
	until := b.until.Load()
	if until == nil || watchword.Age(now, *until) < 0 {
		return false
	}
	next := now.Add(breakFor)
	return b.until.CompareAndSwap(until, &next)
}

func (b *breaker) failed(now time.Time) int32 {
	until := now.Add(breakFor)
	b.until.Store(&until)
	return b.failures.Add(1)
}

// tried notes what came of a call to the store. A caller that left is no failure of it.
func (s *Shared) tried(err error) error {
	switch {
	case err == nil:
		if s.breaker.failures.Swap(0) >= breakAfter && s.inTime(time.Now()) == nil {
			s.tell(nil)
		}
	case !errors.Is(err, context.Canceled):
		s.count(SharedFailed)
		if s.breaker.failed(time.Now()) >= breakAfter {
			s.tell(err)
		}
	}
	return err
}

func (s *Shared) tell(why error) {
	if s.usable.Swap(why == nil) != (why == nil) {
		s.config.Changed(why)
	}
}

// open returns nil if the store may be used now.
func (s *Shared) open() error {
	if err := s.inTime(time.Now()); err != nil {
		return err
	}
	if !s.breaker.closed(time.Now()) {
		return errors.New("it did not answer")
	}
	return nil
}

// clockCheck is one comparison of clocks.
type clockCheck struct {
	at  time.Time
	err error // why the store must not be used
}

// inTime reports why our clock may be off the store's. Between comparisons the wall must go with the monotonic clock:
// a step of it is noticed at once.
func (s *Shared) inTime(now time.Time) error {
	if _, is := s.config.Store.(Clocked); !is {
		return nil
	}
	c := s.clock.Load()
	if c == nil {
		return errors.New("its clock was not compared with ours yet")
	}
	if c.err != nil {
		return c.err
	}
	mono, wall := now.Sub(c.at), now.Round(0).Sub(c.at.Round(0))
	if step := wall - mono; step > s.tolerance() || -step > s.tolerance() {
		return fmt.Errorf("our wall clock stepped by %v", step)
	}
	return nil
}

// tolerance is how far a host's clock may be off the store's: two hosts then differ by Skew at most.
func (s *Shared) tolerance() time.Duration { return s.config.Skew / 2 }

// Run compares clocks and hears what other hosts write, for forget, until ctx ends.
func (s *Shared) Run(ctx context.Context, forget func(watchword.Key)) {
	s.writes.Go(func() { s.listen(ctx, forget) })
	for {
		every := clockEvery
		if clocked, is := s.config.Store.(Clocked); is {
			if s.compare(ctx, clocked); s.clock.Load().err != nil {
				every = clockEvery / 5
			}
		}
		if sleep(ctx, every) != nil {
			return
		}
	}
}

// compare asks the store what time it is. The answer lies between the question and its arrival, so the worse of the
// two differences counts.
func (s *Shared) compare(ctx context.Context, store Clocked) {
	before := time.Now()
	theirs, err := call(ctx, s, time.Second, store.Clock)
	now := time.Now()
	if ctx.Err() != nil && s.clock.Load() != nil {
		return
	}
	if err == nil {
		early, late := theirs.Sub(now.Round(0)), theirs.Sub(before.Round(0))
		s.offset.Store(int64(early + (late-early)/2))
		if late > s.tolerance() || -early > s.tolerance() {
			err = fmt.Errorf("its clock is off ours by %v to %v, and two hosts that share it may differ by %v at most: check the clocks of both (NTP)", early, late, s.config.Skew)
		}
	} else {
		err = fmt.Errorf("its clock could not be read: %w", err)
	}
	s.clock.Store(&clockCheck{now, err})
	s.tell(err)
}

// held maps what the store's notices name to the keys of caches above. It has a fixed number of slots: who loses one
// only hears of a change later, by the formula.
type held struct {
	slots [1 << 15]atomic.Pointer[holding]
}

type holding struct {
	digest Digest
	key    watchword.Key
}

func (h *held) slot(d Digest) *atomic.Pointer[holding] {
	return &h.slots[binary.LittleEndian.Uint64(d[:])%uint64(len(h.slots))]
}

func (h *held) set(d Digest, key watchword.Key) {
	if old := h.slot(d).Load(); old == nil || old.digest != d || old.key != key {
		h.slot(d).Store(&holding{d, key})
	}
}

// listen forgets, in the caches above, the tokens that another host was told are no longer active. Other changes are
// younger answers, which are found when there is a use for them.
func (s *Shared) listen(ctx context.Context, forget func(watchword.Key)) {
	store, is := s.config.Store.(Noticing)
	if !is || forget == nil {
		return
	}
	news := make(chan holding, 1024)
	s.writes.Go(func() {
		for {
			select {
			case one := <-news:
				item, err := call(ctx, s, s.config.Timeout, func(ctx context.Context) (*Item, error) { return s.config.Store.Get(ctx, one.digest) })
				if err == nil && item != nil && item.Inactive {
					forget(one.key)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	for ctx.Err() == nil {
		_ = store.Notice(ctx, func() {}, func(d Digest) { // in the driver's loop: it must not wait
			if one := s.held.slot(d).Load(); one != nil && one.digest == d {
				select {
				case news <- *one:
				default: // the formula knows
				}
			}
		})
		_ = sleep(ctx, clockEvery/5) // what was missed meanwhile, the formula knows
	}
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
