package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// Defaults of SharedConfig.
const (
	DefaultSkew         = time.Second
	DefaultStoreTimeout = 50 * time.Millisecond
	DefaultFollow       = 250 * time.Millisecond
)

const (
	maxInactiveLife = 10 * time.Second // how long an inactive answer stays: it wins against older writes that are late
	maxWrites       = 64               // write-backs at once; more are not made
	maxCalls        = 1024             // calls to the store at once; more fail
	firstPoll       = 2 * time.Millisecond
	lastPoll        = 20 * time.Millisecond
	clockEvery      = 5 * time.Second
)

// SharedConfig makes a Shared. Store is required; zero fields mean the default.
type SharedConfig struct {
	Store   Store
	Skew    time.Duration   // the most by which the clocks of two hosts that share it differ; zero: DefaultSkew
	Timeout time.Duration   // of one call to the store; zero: DefaultStoreTimeout
	Follow  time.Duration   // how long to wait for an answer that another host is asking for; zero: DefaultFollow
	Changed func(why error) // called when the store falls out of use, with the reason, and with nil when it is back; nil: nobody hears
}

// Shared is a second memory below Caches, in a Store that many hosts use. It outlives reconfigurations. What it says is
// weighed by the Query as everything else is; a store that is slow, gone, full or hostile costs a question at most
// Timeout, and never its answer. Safe for concurrent use.
type Shared struct {
	config  SharedConfig
	breaker breaker
	clock   atomic.Pointer[clockCheck] // nil: not compared yet
	usable  atomic.Bool                // what Changed was told last
	offset  atomic.Int64
	held    held
	stats   [sharedResults]atomic.Uint64
	slots   chan struct{} // one for each write-back under way
	calls   chan struct{} // one for each call to the store under way
	writes  sync.WaitGroup
}

// NewShared makes a Shared, or reports every mistake of c at once. A Store that is Clocked is not used before Run has
// compared its clock with ours.
func NewShared(c SharedConfig) (*Shared, error) {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("cache: SharedConfig.Store is missing"))
	}
	if c.Skew < 0 || c.Timeout < 0 || c.Follow < 0 {
		errs = append(errs, fmt.Errorf("cache: SharedConfig: a duration cannot be negative (Skew %v, Timeout %v, Follow %v)", c.Skew, c.Timeout, c.Follow))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	fill(&c.Skew, DefaultSkew)
	fill(&c.Timeout, DefaultStoreTimeout)
	fill(&c.Follow, DefaultFollow)
	if c.Changed == nil {
		c.Changed = func(error) {}
	}
	s := &Shared{config: c, slots: make(chan struct{}, maxWrites), calls: make(chan struct{}, maxCalls)}
	s.usable.Store(true)
	return s, nil
}

// Close waits for the writes that are under way, and for Run, whose context must have ended. It does not close the Store.
func (s *Shared) Close() { s.writes.Wait() }

// Asking is what Shared must know of those who ask through it.
type Asking struct {
	Secrets [][]byte          // deployment secrets, the first seals; a second is read too, so that a rotation is no cold start
	Issuers map[string]string // watchword.Issuer.Asking by name: part of what names an entry
	Keep    time.Duration     // as in Cache.Over
}

// Over returns a Source that answers from the store where that is as fresh as demanded, and from next where it is not,
// one of all hosts at a time. Secrets shorter than MinSecretBytes are refused.
func (s *Shared) Over(next watchword.Source, a Asking) (watchword.Source, error) {
	o := &sharedOver{Shared: s, next: next, asking: maps.Clone(a.Issuers), keep: a.Keep}
	fill(&o.keep, watchword.DefaultMaxAge)
	if len(a.Secrets) == 0 {
		return nil, errors.New("cache: a shared store needs a deployment secret: without one its values could not be sealed")
	}
	for _, secret := range a.Secrets {
		p, err := newPepper(secret)
		if err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
		o.peppers = append(o.peppers, p)
	}
	return o, nil
}

type sharedOver struct {
	*Shared
	next    watchword.Source
	asking  map[string]string
	keep    time.Duration
	peppers []*pepper // the first seals
}

// Introspect implements watchword.Source.
func (o *sharedOver) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	own := o.peppers[0].digest(o.asking[q.Issuer], &q)
	if q.Freshness.Life() <= o.config.Skew && q.Coverage.Since.IsZero() { // too old before it can be read
		a, err := o.next.Introspect(ctx, q)
		if err == nil && a != nil && o.open() == nil {
			o.write(own, &q, a, nil)
		}
		return a, err
	}
	if err := o.open(); err != nil {
		o.count(SharedSkipped)
		return o.next.Introspect(ctx, q)
	}
	known, err := o.look(ctx, own, &q)
	if serves(known, &q) {
		o.count(SharedHit)
		o.held.set(own, q.Key)
		return known, nil
	}
	var release func(context.Context) error
	if err == nil {
		var led *watchword.Answer
		if led, release = o.lead(ctx, own, &q); led != nil {
			o.held.set(own, q.Key)
			return led, nil
		}
	}
	o.count(SharedMiss)
	a, err := o.next.Introspect(ctx, q)
	switch {
	case err == nil && a != nil:
		if a.Active() {
			o.held.set(own, q.Key)
		}
		o.write(own, &q, a, release)
	case release != nil:
		o.later(func(ctx context.Context) { o.tried(release(ctx)) })
	}
	if err != nil && a == nil { // what was known may still serve: the Verifier decides
		if known != nil && excused(&q, err) && q.Weigh(known) == watchword.Stale {
			o.count(SharedStale)
		}
		return known, err
	}
	return a, err
}

// serves reports an answer that may be used without asking. An inactive one is a reason to ask: whether to remember
// it is for Config.Inactive to say.
func serves(a *watchword.Answer, q *watchword.Query) bool {
	return a != nil && a.Active() && q.Weigh(a) == watchword.Fresh
}

// look reads what the store has for q under every secret. What does not open, or is from the future, is a miss. An
// error means that the store failed, and that no more should be tried with it.
func (o *sharedOver) look(ctx context.Context, own Digest, q *watchword.Query) (*watchword.Answer, error) {
	for i, p := range o.peppers {
		d := own
		if i > 0 {
			d = p.digest(o.asking[q.Issuer], q)
		}
		item, err := o.get(ctx, d)
		if err != nil {
			return nil, err
		}
		if item == nil {
			continue
		}
		record, err := p.open(d, q.Token, item.Sealed)
		if err != nil {
			o.count(SharedRefused)
			continue
		}
		a, err := watchword.ParseRecord(record, time.Now(), o.config.Skew)
		if err != nil || a.Issuer() != q.Issuer {
			o.count(SharedRefused)
			continue
		}
		return a, nil
	}
	return nil, nil
}

// lead returns the right to ask for everybody, or what another host, which has it, was told meanwhile, or neither
// where that takes too long or the store fails: then this host asks for itself.
func (o *sharedOver) lead(ctx context.Context, own Digest, q *watchword.Query) (a *watchword.Answer, release func(context.Context) error) {
	began := time.Now()
	for wait := firstPoll; ; wait = min(2*wait, lastPoll) {
		release, err := o.lease(ctx, own)
		if err != nil {
			return nil, nil
		}
		// Whoever had the lease until now may have written since we looked.
		a, err := o.look(ctx, own, q)
		if a != nil && err == nil && q.Weigh(a) == watchword.Fresh && (a.Active() || watchword.Age(a.AsOf(), began) >= -o.config.Skew) {
			if o.count(SharedJoined); release != nil {
				o.later(func(ctx context.Context) { o.tried(release(ctx)) })
			}
			return a, nil
		}
		if release != nil || err != nil || watchword.Age(time.Now(), began) >= o.config.Follow {
			return nil, release
		}
		if sleep(ctx, wait) != nil {
			return nil, nil
		}
	}
}

// call asks the store within timeout, also where a client that is reconnecting forgets its context: nobody waits for
// it then. What it brings later is dropped; a lease ends by itself.
func call[T any](ctx context.Context, s *Shared, timeout time.Duration, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	select {
	case s.calls <- struct{}{}:
	default:
		return none, errors.New("too many calls to the store are under way")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		defer func() {
			if recover() != nil { // what it says may hold what the store wrote
				done <- result{none, errors.New("panic in the store's driver")}
			}
			<-s.calls
		}()
		v, err := f(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func (o *sharedOver) get(ctx context.Context, d Digest) (*Item, error) {
	item, err := call(ctx, o.Shared, o.config.Timeout, func(ctx context.Context) (*Item, error) { return o.config.Store.Get(ctx, d) })
	return item, o.tried(err)
}

func (o *sharedOver) lease(ctx context.Context, d Digest) (func(context.Context) error, error) {
	release, err := call(ctx, o.Shared, o.config.Timeout, func(ctx context.Context) (func(context.Context) error, error) {
		return o.config.Store.Lease(ctx, d, 2*o.config.Follow)
	})
	return release, o.tried(err)
}

// write puts a into the store, and then gives back the lease. Nobody waits for it.
func (o *sharedOver) write(own Digest, q *watchword.Query, a *watchword.Answer, release func(context.Context) error) {
	token, now := q.Token, time.Now()
	life := o.keep - watchword.Age(now, a.AsOf())
	if left, ends := a.Remaining(now); ends {
		life = min(life, left+a.Leeway())
	}
	if !a.Active() {
		life = min(max(life, o.config.Skew), maxInactiveLife)
	}
	if a.Vouched() { // every host verifies a signature itself, by the keys that are good then: a record says nothing of those
		life = 0
	}
	o.later(func(ctx context.Context) {
		if life > 0 {
			sealed, err := o.peppers[0].close(own, token, a.Record())
			if err == nil && len(sealed) <= MaxItemBytes {
				err = o.tried(o.config.Store.Put(ctx, own, Item{Sealed: sealed, AsOf: a.AsOf(), Inactive: !a.Active()}, life))
				o.count(map[bool]SharedResult{true: SharedWritten, false: SharedLost}[err == nil])
			}
		}
		if release != nil {
			o.tried(release(ctx))
		}
	})
}

// later lets f talk to the store while nobody waits, unless too much is under way already.
func (s *Shared) later(f func(context.Context)) {
	select {
	case s.slots <- struct{}{}:
	default:
		s.count(SharedLost)
		return
	}
	s.writes.Go(func() {
		defer func() { <-s.slots }()
		_, _ = call(context.Background(), s, 4*s.config.Timeout, func(ctx context.Context) (any, error) {
			f(ctx)
			return nil, nil
		})
	})
}
