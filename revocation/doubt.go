package revocation

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// doubtBytes is what one doubt takes, nearly.
const doubtBytes = 112

// doubts are the inactive answers for tokens that were active here, in two generations: when the younger one is full it
// becomes the older one, and the older one is forgotten. Safe for concurrent use.
type doubts struct {
	most       int // of a generation, twice
	any        atomic.Bool
	mu         sync.RWMutex
	young, old generation
}

type generation struct {
	since  map[watchword.Key]time.Time
	newest map[string]time.Time // by issuer
	begun  time.Time
}

// about is when the newest inactive answer about key was asked for.
func (d *doubts) about(key *watchword.Key) (since time.Time, ok bool) {
	if !d.any.Load() {
		return since, false
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if since, ok = d.young.since[*key]; !ok {
		since, ok = d.old.since[*key]
	}
	return since, ok
}

// add returns what was forgotten to make room: the newest instant of each issuer.
func (d *doubts) add(key watchword.Key, issuer string, since time.Time) (forgotten map[string]time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.young.since) >= d.most/2 {
		forgotten = d.turn()
	}
	if d.young.since == nil {
		d.young = generation{map[watchword.Key]time.Time{}, map[string]time.Time{}, time.Now()}
	}
	if have, ok := d.old.since[key]; ok && watchword.Age(have, since) > 0 {
		since = have
	}
	if have, ok := d.young.since[key]; !ok || watchword.Age(since, have) > 0 {
		d.young.since[key] = since
	}
	if watchword.Age(since, d.young.newest[issuer]) > 0 {
		d.young.newest[issuer] = since
	}
	d.any.Store(true)
	return forgotten
}

// sweep turns the generations where the younger one is older than most.
func (d *doubts) sweep(now time.Time, most time.Duration) (forgotten map[string]time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.old.since) == 0 && len(d.young.since) == 0 || watchword.Age(now, d.young.begun) < most {
		return nil
	}
	return d.turn()
}

func (d *doubts) turn() (forgotten map[string]time.Time) {
	forgotten = d.old.newest
	d.old, d.young = d.young, generation{begun: time.Now()}
	d.any.Store(len(d.old.since) > 0)
	return forgotten
}

func (d *doubts) count() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.young.since) + len(d.old.since)
}
