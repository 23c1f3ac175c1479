package revocation

import (
	"context"
	"time"

	"github.com/watchword-dev/watchword"
)

// jumpTick is how often the clocks are compared and what is over is dropped; jumpSkew is how far clocks may drift apart
// in one such time.
const (
	jumpTick = time.Second
	jumpSkew = time.Second
)

// clocks is one reading of all of them.
type clocks struct {
	now  time.Time     // wall and monotonic
	boot time.Duration // since the host began, sleep included; 0: this system cannot tell
}

func newClocks() clocks { return clocks{time.Now(), boottime()} }

// jumped is how far the wall, or the clock that counts sleep, moved against the monotonic clock since before, whichever
// is more; negative: back.
func (c clocks) jumped(before clocks) time.Duration {
	ran := c.now.Sub(before.now) // monotonic where both have it
	wall := c.now.Round(0).Sub(before.now.Round(0)) - ran
	slept := time.Duration(0)
	if c.boot != 0 && before.boot != 0 {
		slept = c.boot - before.boot - ran
	}
	if slept.Abs() > wall.Abs() {
		return slept
	}
	return wall
}

// Run compares clocks and drops what is over, every second until ctx ends.
func (l *Ledger) Run(ctx context.Context) error {
	tick := time.NewTicker(jumpTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			l.look(newClocks())
		}
	}
}

// look acts on a reading of the clocks.
func (l *Ledger) look(c clocks) {
	l.mu.Lock()
	before := l.clocks
	l.clocks = c
	// Only what both clocks call over is dropped: the wall, and the beginning plus what has passed since.
	l.passed += max(0, min(c.now.Sub(before.now), c.now.Round(0).Sub(before.now.Round(0))))
	l.sweep(min(nanos(c.now), l.began+int64(l.passed)))
	if by := c.jumped(before); by.Abs() > jumpSkew {
		l.jump(c.now, by)
	}
	l.mu.Unlock()
	if err := l.commit(); err != nil {
		l.config.Logger.Error("the revocation log cannot be written", "error", err)
	}
}

// jump questions everything from before now, and nothing that comes after: what was applied by a wall that was set
// back is no later than now.
func (l *Ledger) jump(now time.Time, by time.Duration) {
	l.config.Logger.Warn("a clock jumped: every answer is asked for again, and no feed extends what was asked before", "by", by)
	for _, b := range *l.books.Load() {
		next := *b.view.Load()
		next.forgotten = now // lower than before where the wall was set back: all that it said holds by now
		next.everybody.clamp(nanos(now))
		b.view.Store(&next)
		b.bell.ring()
		l.keep(forgottenLine(b.issuer.Name, now))
		if by < 0 {
			next.index.clamp(nanos(now))
		}
		if c := *b.coverage.Load(); watchword.Age(now, c.Through) < 0 {
			c.Through = now
			b.coverage.Store(&c)
		}
	}
	l.gap("", "a clock jumped")
	if l.config.Jumped != nil {
		l.config.Jumped(by)
	}
}
