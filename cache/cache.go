// Package cache remembers Answers. It knows nothing of policies or revocations: a Query carries all that decides
// whether a remembered answer serves, and Query.Weigh is the only judge of it. What leaves the cache leaves it for
// want of room or of any use; eviction is hygiene, never safety.
package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/watchword-dev/watchword"
)

// Defaults of Config.
const (
	DefaultMaxBytes         = 64 << 20
	DefaultInactiveMaxBytes = 4 << 20
	DefaultFlightTimeout    = 5 * time.Second
)

// MaxInactiveTTL is the longest that an inactive answer may serve.
const MaxInactiveTTL = time.Minute

// Config of a Cache. Zero fields mean the default; negative ones are refused.
type Config struct {
	MaxBytes       int64         // memory for active answers, overhead included; zero: DefaultMaxBytes
	FlightTimeout  time.Duration // how long one asking may take, whoever waits for it; zero: DefaultFlightTimeout
	Inactive       Inactive
	Unknown        Unknown
	RefreshAhead   RefreshAhead
	ReaskPerSecond float64 // questions to one issuer that revocations cause, a second; zero: DefaultReaskPerSecond

	// OnInactive is told of every inactive answer for a token that was active here, before anybody sees it, and of an
	// active one that is forgotten because another host was told otherwise (Distrust): whatever else remembers that token,
	// as of then or before, can be doubted in time. It is never told of strangers, and must not block. nil: nobody.
	OnInactive func(watchword.Query, *watchword.Answer)
	// WasActive reports that OnInactive was told of a token before: it is no stranger, although it is forgotten here. It
	// must not block. nil: nobody knows.
	WasActive func(watchword.Query) bool
}

// Inactive bounds the memory of inactive answers, which is apart from that of active ones: a flood of unknown tokens
// displaces nothing.
type Inactive struct {
	TTL      time.Duration // how long one serves, at most MaxInactiveTTL and never longer than the bound asked for; zero: not at all
	MaxBytes int64         // zero: DefaultInactiveMaxBytes
}

// Unknown is the budget of every peer for tokens that turn out to be nothing. A token that was active here once, or
// is active when asked about, costs nothing.
type Unknown struct {
	PerSecond float64 // zero: 100
	Burst     float64 // zero: 1000
}

// RefreshAhead asks again about popular tokens before their answer is too old, so that no request waits.
type RefreshAhead struct {
	After     float64 // share of the bound after which an answer is refreshed, below 1; zero: 0.75
	MinHits   int     // hits after that which show that somebody will ask again; zero: 2
	PerSecond float64 // over all tokens; zero: 50
}

// Cache is memory; it outlives reconfigurations. Over gives it something to remember. Safe for concurrent use.
type Cache struct {
	config   Config
	active   *otter.Cache[watchword.Key, *watchword.Answer]
	inactive *otter.Cache[watchword.Key, *watchword.Answer] // nil: off
	clock    *clock
	budget   *budget
	ahead    *ahead
	reask    *reask
	stats    stats
	evicted  atomic.Uint64

	mu      sync.Mutex // guards flights, and every write to active and inactive
	flights map[watchword.Key]*air
}

// New makes a Cache, or reports every mistake of c at once. Close it after use.
func New(c Config) (*Cache, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.setDefaults()
	m := &Cache{config: c, clock: &clock{start: time.Now()}, budget: newBudget(c.Unknown), ahead: newAhead(c.RefreshAhead), reask: newReask(c.ReaskPerSecond), flights: map[watchword.Key]*air{}}
	var err error
	if m.active, err = m.store(c.MaxBytes); err != nil {
		return nil, err
	}
	if c.Inactive.TTL > 0 {
		if m.inactive, err = m.store(c.Inactive.MaxBytes); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (c *Config) validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf("cache: "+format, args...))
		}
	}
	bad(c.MaxBytes < 0, "MaxBytes %d is negative: give a size, or leave it out for %d", c.MaxBytes, DefaultMaxBytes)
	bad(c.FlightTimeout < 0, "FlightTimeout %v is negative", c.FlightTimeout)
	bad(c.Inactive.TTL < 0 || c.Inactive.TTL > MaxInactiveTTL, "Inactive.TTL %v is not between 0 and %v", c.Inactive.TTL, MaxInactiveTTL)
	bad(c.Inactive.MaxBytes < 0, "Inactive.MaxBytes %d is negative", c.Inactive.MaxBytes)
	bad(!(c.Unknown.PerSecond >= 0) || !(c.Unknown.Burst >= 0), "Unknown %+v: a rate cannot be negative", c.Unknown)
	bad(!(c.RefreshAhead.After >= 0 && c.RefreshAhead.After < 1), "RefreshAhead.After %v is not a share between 0 and 1", c.RefreshAhead.After)
	bad(c.RefreshAhead.MinHits < 0 || !(c.RefreshAhead.PerSecond >= 0), "RefreshAhead %+v: a rate cannot be negative", c.RefreshAhead)
	bad(!(c.ReaskPerSecond >= 0), "ReaskPerSecond %v: a rate cannot be negative", c.ReaskPerSecond)
	return errors.Join(errs...)
}

func (c *Config) setDefaults() {
	fill(&c.MaxBytes, DefaultMaxBytes)
	fill(&c.FlightTimeout, DefaultFlightTimeout)
	fill(&c.Inactive.MaxBytes, DefaultInactiveMaxBytes)
	fill(&c.Unknown.PerSecond, 100)
	fill(&c.Unknown.Burst, 1000)
	fill(&c.RefreshAhead.After, 0.75)
	fill(&c.RefreshAhead.MinHits, 2)
	fill(&c.RefreshAhead.PerSecond, 50)
	fill(&c.ReaskPerSecond, DefaultReaskPerSecond)
}

func fill[T comparable](field *T, otherwise T) {
	if *field == *new(T) {
		*field = otherwise
	}
}

// entryBytes is what the table takes for an entry besides its Answer (measured: TestCAC06BytesPerEntry).
const entryBytes = 170

func (m *Cache) store(maxBytes int64) (*otter.Cache[watchword.Key, *watchword.Answer], error) {
	return otter.New(&otter.Options[watchword.Key, *watchword.Answer]{
		MaximumWeight: uint64(maxBytes),
		Weigher:       func(_ watchword.Key, a *watchword.Answer) uint32 { return uint32(a.Size() + entryBytes) },
		// A write sets how long at once (put); until then an entry is as good as gone.
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[watchword.Key, *watchword.Answer]) time.Duration { return time.Minute }),
		OnAtomicDeletion: func(e otter.DeletionEvent[watchword.Key, *watchword.Answer]) {
			if e.Cause == otter.CauseOverflow {
				m.evicted.Add(1)
			}
		},
		Clock:  m.clock,
		Logger: &otter.NoopLogger{},
	})
}

// Close stops the cache's own goroutines. A closed Cache must not be used.
func (m *Cache) Close() {
	close(m.reask.ended)
	m.active.StopAllGoroutines()
	if m.inactive != nil {
		m.inactive.StopAllGoroutines()
	}
}

// Over returns a Source that answers from memory where that is as fresh as demanded, and from next where it is not.
// Answers are kept for keep, or until they end: the longest time that any policy could use one (Freshness.Life, or
// Covered); zero: watchword.DefaultMaxAge; negative: none is kept.
func (m *Cache) Over(next watchword.Source, keep time.Duration) watchword.Source {
	fill(&keep, watchword.DefaultMaxAge)
	return &over{Cache: m, next: next, keep: keep}
}

type over struct {
	*Cache
	next watchword.Source
	keep time.Duration
}

// Introspect answers from memory or asks. The hit path takes no lock and allocates nothing.
func (o *over) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	o.clock.set(q.At)
	known, _ := o.active.GetIfPresent(q.Key)
	if known != nil {
		if s, due := q.WeighAhead(known, o.ahead.after); s == watchword.Fresh {
			switch {
			case !q.Coverage.Since.IsZero() && leans(&q, known):
				o.lean(&q, known)
			case due:
				o.refresh(ctx, q, known)
			}
			o.stats.count(Hit, q.Key)
			return known, nil
		}
	}
	return o.miss(ctx, q, known)
}

func (o *over) miss(ctx context.Context, q watchword.Query, known *watchword.Answer) (*watchword.Answer, error) {
	if a := o.remembersInactive(&q); a != nil {
		o.stats.count(KnownInactive, q.Key)
		return a, nil
	}
	var a *watchword.Answer
	f, err := o.board(ctx, q, known, true)
	if err == nil {
		a, err = f.wait(ctx, q.Issuer)
		if err != nil && f.background && ctx.Err() == nil { // it gave way to those who wait, and those are we
			if f, err = o.board(ctx, q, known, false); err == nil {
				a, err = f.wait(ctx, q.Issuer)
			}
		}
	}
	if err == nil {
		return a, nil
	}
	if errors.Is(err, errPaced) {
		return nil, err
	}
	if a != nil && (known == nil || watchword.Age(a.AsOf(), known.AsOf()) > 0) {
		known = a // others had it
	}
	if known != nil && excused(&q, err) && q.Weigh(known) == watchword.Stale {
		o.stats.count(Stale, q.Key)
	}
	return known, err // what was known may still serve: the Verifier decides
}

// excused reports an error that stale_if_error is for, which is worth a count: the server could not answer. A doubted
// inactive answer is none, unless q holds: it may be the truth.
func excused(q *watchword.Query, err error) bool {
	if e, ok := errors.AsType[*watchword.Error](err); ok && e.Doubted && !q.Hold {
		return false
	}
	return !errors.Is(err, watchword.Throttled) && !errors.Is(err, watchword.Canceled)
}

func (m *Cache) remembersInactive(q *watchword.Query) *watchword.Answer {
	if m.inactive == nil {
		return nil
	}
	a, _ := m.inactive.GetIfPresent(q.Key)
	if a == nil || watchword.Age(q.At, a.AsOf()) > m.config.Inactive.TTL || q.Weigh(a) != watchword.Fresh {
		return nil
	}
	return a
}

// put remembers a, unless something younger is known. The caller holds mu.
func (o *over) put(key watchword.Key, a *watchword.Answer) {
	now := time.Now()
	o.clock.set(now)
	known, _ := o.active.GetIfPresent(key)
	if known != nil && watchword.Age(a.AsOf(), known.AsOf()) <= 0 {
		return
	}
	if o.inactive != nil {
		if gone, _ := o.inactive.GetIfPresent(key); gone != nil && watchword.Age(a.AsOf(), gone.AsOf()) <= 0 {
			return
		}
	}
	if !a.Active() {
		o.active.Invalidate(key)
		if o.inactive != nil {
			o.inactive.Set(key, a)
			o.inactive.SetExpiresAfter(key, o.config.Inactive.TTL+2*tick)
		}
		return
	}
	if o.inactive != nil {
		o.inactive.Invalidate(key)
	}
	keep := o.keep - watchword.Age(now, a.AsOf())
	if left, known := a.Remaining(now); known {
		keep = min(keep, left+a.Leeway())
	}
	if keep <= 0 { // otter would keep it for ever
		o.active.Invalidate(key)
		return
	}
	o.active.Set(key, a)
	o.active.SetExpiresAfter(key, keep+2*tick)
}

// clock tells the tables the time of the last Query: their expiry is hygiene, and a hit reads the real clock already.
type clock struct {
	start time.Time
	since atomic.Int64
}

// tick is how far the tables' clock may lag; entries are kept that much longer than they can serve.
const tick = 50 * time.Millisecond

func (c *clock) set(now time.Time) {
	if d := int64(now.Sub(c.start)); d > c.since.Load()+int64(tick) {
		c.since.Store(d) // two at once: the next hit mends it
	}
}

// NowNano implements otter.Clock.
func (c *clock) NowNano() int64 { return c.start.UnixNano() + c.since.Load() }

// Tick implements otter.Clock.
func (c *clock) Tick(d time.Duration) <-chan time.Time { return time.Tick(d) }
