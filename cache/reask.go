package cache

import (
	"context"
	"errors"
	"math/bits"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

// DefaultReaskPerSecond is Config.ReaskPerSecond where it is zero.
const DefaultReaskPerSecond = 500

// maxHot is how many candidates one issuer has for being asked about early.
const maxHot = 256

// errPaced is why nobody was asked although somebody could have been. It excuses no stale answer: the server is well.
var errPaced = errors.New("too many answers are in question at once: they are asked about at the configured rate")

// reask spreads the questions that revocations cause: when the proof of a covering feed ages, or an event questions
// many answers, tokens are asked about at a rate for each issuer, the hottest first, before their answers are too old.
// It moves no bound: a request that finds the rate spent is told that nobody knows.
type reask struct {
	perSecond, burst float64
	tally            tally
	ended            chan struct{} // closed: no more

	mu      sync.Mutex // guards what is below; Cache.mu may be held, and is never taken under it
	issuers map[string]*pace
}

// pace is the rate of one issuer, and who is asked about next.
type pace struct {
	rate    bucket
	hot     map[watchword.Key]*candidate
	running bool
}

type candidate struct {
	from *over
	q    watchword.Query
	asOf time.Time // of the answer that is ageing
	hits uint32
}

func newReask(perSecond float64) *reask {
	return &reask{perSecond: perSecond, burst: max(1, perSecond/10), ended: make(chan struct{}), issuers: map[string]*pace{}}
}

// pace returns that of an issuer. The caller holds mu.
func (r *reask) pace(issuer string) *pace {
	p := r.issuers[issuer]
	if p == nil {
		p = &pace{hot: map[watchword.Key]*candidate{}}
		r.issuers[issuer] = p
	}
	return p
}

// take is how long a request must wait until it may ask; zero: it may now.
func (r *reask) take(issuer string, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pace(issuer)
	wait := p.rate.wait(now, r.perSecond, r.burst)
	if wait == 0 {
		p.rate.take(now, r.perSecond, r.burst)
	}
	return wait
}

// leans reports, where a feed covers the issuer, a fresh answer that is so only by a feed's proof, and that the proof is older than half the bound.
func leans(q *watchword.Query, a *watchword.Answer) bool {
	return watchword.Age(q.At, a.AsOf()) > q.Freshness.MaxStaleness &&
		watchword.Age(q.At, q.Coverage.Through) > q.Freshness.MaxStaleness/2
}

// caused reports that a must be asked about again because of revocations: something questions it, or it would be
// fresh if the feed's proof were of now. What is merely old is not.
func caused(q *watchword.Query, a *watchword.Answer) bool {
	if !q.AskedSince.IsZero() && watchword.Age(q.AskedSince, q.At) < 0 {
		return watchword.Age(q.AskedSince, a.AsOf()) > 0
	}
	whole := *q
	whole.Coverage.Through = q.At
	return !q.Coverage.Since.IsZero() && whole.Weigh(a) == watchword.Fresh
}

// lean counts a hit on an answer that leans. Only every hit that doubles their number looks at the candidates, and none
// waits for that.
func (o *over) lean(q *watchword.Query, a *watchword.Answer) {
	hits := o.reask.tally.count(q.Key, a.Asked())
	if bits.OnesCount32(hits) != 1 || !o.reask.mu.TryLock() {
		return
	}
	defer o.reask.mu.Unlock()
	p := o.reask.pace(q.Issuer)
	switch one := p.hot[q.Key]; {
	case one != nil:
		one.hits = hits
		return
	case len(p.hot) >= maxHot:
		coldest := p.pick(func(a, b *candidate) bool { return a.hits < b.hits })
		if coldest.hits >= hits {
			return
		}
		delete(p.hot, coldest.q.Key)
	}
	p.hot[q.Key] = &candidate{from: o, q: *q, asOf: a.AsOf(), hits: hits}
	if !p.running {
		p.running = true
		go o.reask.run(p)
	}
}

// pick returns the candidate that comes before all others; nil: there is none.
func (p *pace) pick(before func(a, b *candidate) bool) (first *candidate) {
	for _, one := range p.hot {
		if first == nil || before(one, first) {
			first = one
		}
	}
	return first
}

// run asks about the hottest candidates at the rate, until there is none.
func (r *reask) run(p *pace) {
	for {
		one, wait := r.next(p)
		switch {
		case one != nil:
			one.from.early(one)
		case wait == 0:
			return
		default:
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-r.ended:
				t.Stop()
				return
			}
		}
	}
}

// next takes the hottest candidate whose turn it is, or says how long that is away; neither: there is none left.
func (r *reask) next(p *pace) (*candidate, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := p.pick(func(a, b *candidate) bool { return a.hits > b.hits })
	if one == nil {
		p.running = false
		return nil, 0
	}
	now := time.Now()
	if wait := p.rate.wait(now, r.perSecond, r.burst); wait > 0 {
		return nil, wait
	}
	delete(p.hot, one.q.Key)
	if one.from.settled(one) {
		return one, 0 // costs nothing, and early sees it again
	}
	p.rate.take(now, r.perSecond, r.burst)
	return one, 0
}

// settled reports that a candidate was asked about meanwhile.
func (o *over) settled(one *candidate) bool {
	known, _ := o.active.GetIfPresent(one.q.Key)
	return known == nil || watchword.Age(known.AsOf(), one.asOf) > 0
}

// early asks about a candidate. Nobody waits for it.
func (o *over) early(one *candidate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flights[one.q.Key].free() != nil || o.settled(one) {
		return
	}
	q := one.q
	q.At = time.Now()
	q.AskedSince = one.asOf.Add(1)
	q.Background = true
	o.stats.count(Refresh, q.Key)
	o.takeOff(context.Background(), q, false)
}
