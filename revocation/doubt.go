package revocation

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// doubtBytes is what one doubt takes, nearly.
const doubtBytes = 112

// doubts are the inactive answers for tokens that were active here, in two generations: when the younger one is full it
// becomes the older one, and the older one leaves: it is known until Forgotten stands for it. Safe for concurrent use.
type doubts struct {
	most       int // of a generation, twice
	any        atomic.Bool
	mu         sync.RWMutex
	young, old *generation
	leaving    []*generation
}

type generation struct {
	since  map[watchword.Key]time.Time
	newest map[string]time.Time // by issuer
	begun  time.Time
}

// Doubt tells that the server called a token inactive that was known as active here: older evidence of it counts no
// more, wherever it comes from. Tokens that were never active must not be told: strangers would fill the ledger.
func (l *Ledger) Doubt(q watchword.Query, a *watchword.Answer) {
	if leaving := l.doubts.add(q.Key, q.Issuer, a.AsOf()); leaving != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.letGo(leaving)
	}
}

// WasActive reports that Doubt was told of the token of q, not too long ago.
func (l *Ledger) WasActive(q watchword.Query) bool {
	_, is := l.doubts.about(&q.Key)
	return is
}

// letGo raises Forgotten for the doubts that leave, and then forgets them. nil: none do. The caller holds mu.
func (l *Ledger) letGo(leaving *generation) {
	if leaving == nil {
		return
	}
	for issuer, until := range leaving.newest {
		if b := (*l.books.Load())[issuer]; b != nil {
			l.forget(b, until)
		}
	}
	l.doubts.drop(leaving)
}

// about is when the newest inactive answer about key was asked for.
func (d *doubts) about(key *watchword.Key) (since time.Time, ok bool) {
	if !d.any.Load() {
		return since, false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if since, ok = d.young.about(key); !ok {
		since, ok = d.old.about(key)
	}
	for i := len(d.leaving) - 1; i >= 0 && !ok; i-- {
		since, ok = d.leaving[i].about(key)
	}
	return since, ok
}

func newGeneration() *generation {
	return &generation{map[watchword.Key]time.Time{}, map[string]time.Time{}, time.Now()}
}

func (g *generation) about(key *watchword.Key) (since time.Time, ok bool) {
	if g != nil {
		since, ok = g.since[*key]
	}
	return since, ok
}

func (g *generation) count() int {
	if g == nil {
		return 0
	}
	return len(g.since)
}

// add returns who leaves to make room; nil: nobody does.
func (d *doubts) add(key watchword.Key, issuer string, since time.Time) (leaving *generation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.young.count() >= d.most/2 {
		leaving = d.turn()
	}
	if d.young == nil {
		d.young = newGeneration()
	}
	if have, ok := d.old.about(&key); ok && watchword.Age(have, since) > 0 {
		since = have
	}
	if have, ok := d.young.since[key]; !ok || watchword.Age(since, have) > 0 {
		d.young.since[key] = since
	}
	if watchword.Age(since, d.young.newest[issuer]) > 0 {
		d.young.newest[issuer] = since
	}
	d.any.Store(true)
	return leaving
}

// sweep turns the generations where the younger one is older than most, and returns who leaves.
func (d *doubts) sweep(now time.Time, most time.Duration) (leaving *generation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.young.count()+d.old.count() == 0 || watchword.Age(now, d.young.begun) < most {
		return nil
	}
	return d.turn()
}

func (d *doubts) turn() (leaving *generation) {
	if d.old.count() > 0 {
		leaving = d.old
		d.leaving = append(d.leaving, leaving)
	}
	d.old, d.young = d.young, newGeneration()
	return leaving
}

// drop forgets who leaves.
func (d *doubts) drop(leaving *generation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving = slices.DeleteFunc(d.leaving, func(g *generation) bool { return g == leaving })
	d.any.Store(d.young.count()+d.old.count()+len(d.leaving) > 0)
}

func (d *doubts) count() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.young.count() + d.old.count()
}
