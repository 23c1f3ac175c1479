package cache

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// ahead decides which answers are worth refreshing before they are too old. Hits are counted only once an answer is
// due, in a fixed table: a hit before that writes nothing.
type ahead struct {
	after   float64
	minHits uint32
	rate    *bucket
	perSec  float64
	slots   tally
}

func newAhead(c RefreshAhead) *ahead {
	return &ahead{after: c.After, minHits: uint32(min(c.MinHits, refreshed-1)), perSec: c.PerSecond, rate: new(bucket)}
}

// tally counts hits in a fixed table: the tag of one answer << 16 | hits. Two answers of one slot only lose counts.
type tally [4096]atomic.Uint64

const refreshed = 1<<16 - 1 // this answer has had its refresh

// count counts a hit on an answer and returns how many there were.
func (t *tally) count(key watchword.Key, asked time.Time) (hits uint32) {
	t.update(key, asked, func(old uint32) uint32 {
		hits = min(old+1, refreshed-1)
		return hits
	})
	return hits
}

// popular counts a hit on a due answer and reports, once per answer, that it is worth a refresh.
func (h *ahead) popular(key watchword.Key, asked time.Time) (is bool) {
	h.slots.update(key, asked, func(old uint32) uint32 {
		is = old < refreshed && old+1 >= h.minHits
		if is || old == refreshed {
			return refreshed
		}
		return old + 1
	})
	return is
}

// update changes the count of one answer; next may be called more than once.
func (t *tally) update(key watchword.Key, asked time.Time, next func(hits uint32) uint32) {
	slot := &t[binary.LittleEndian.Uint64(key[:])%uint64(len(t))]
	tag := (binary.LittleEndian.Uint64(key[8:]) ^ uint64(asked.UnixNano())) << 16
	for {
		old := slot.Load()
		hits := uint32(0)
		if old&^refreshed == tag {
			hits = uint32(old & refreshed)
		}
		if slot.CompareAndSwap(old, tag|uint64(next(hits))) {
			return
		}
	}
}

// refresh asks again about a token whose answer is due, if somebody is likely to want it. Nobody waits for it: an
// error changes nothing, and an inactive answer replaces the old one at once.
func (o *over) refresh(ctx context.Context, q watchword.Query, known *watchword.Answer) {
	if left, ends := known.Remaining(q.At); ends && left <= q.Freshness.MaxStaleness-watchword.Age(q.At, known.AsOf()) {
		return // it ends before its answer is too old
	}
	if !o.ahead.popular(q.Key, known.Asked()) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flights[q.Key].free() != nil || o.ahead.rate.wait(q.At, o.ahead.perSec, o.ahead.perSec) > 0 {
		return
	}
	o.ahead.rate.take(q.At, o.ahead.perSec, o.ahead.perSec)
	o.stats.count(Refresh, q.Key)
	q.AskedSince = known.AsOf().Add(1) // a shared store that only knows this one is of no use
	q.Background = true
	o.takeOff(ctx, q, false)
}
