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
	slots   [4096]atomic.Uint64 // tag of one answer << 16 | hits; two answers of one slot only lose counts
}

func newAhead(c RefreshAhead) *ahead {
	return &ahead{after: c.After, minHits: uint32(min(c.MinHits, refreshed-1)), perSec: c.PerSecond, rate: new(bucket)}
}

const refreshed = 1<<16 - 1 // this answer has had its refresh

// popular counts a hit on a due answer and reports, once per answer, that it is worth a refresh.
func (h *ahead) popular(key watchword.Key, asked time.Time) bool {
	id := binary.LittleEndian.Uint64(key[:])
	slot := &h.slots[id%uint64(len(h.slots))]
	tag := (binary.LittleEndian.Uint64(key[8:]) ^ uint64(asked.UnixNano())) << 16
	for {
		old := slot.Load()
		hits := uint32(1)
		if old&^refreshed == tag {
			hits = uint32(old&refreshed) + 1
			if hits > refreshed {
				return false
			}
		}
		next := tag | uint64(hits)
		if hits >= h.minHits {
			next = tag | refreshed
		}
		if slot.CompareAndSwap(old, next) {
			return hits >= h.minHits
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
	if o.flights[q.Key] != nil || o.ahead.rate.wait(q.At, o.ahead.perSec, o.ahead.perSec) > 0 {
		return
	}
	o.ahead.rate.take(q.At, o.ahead.perSec, o.ahead.perSec)
	o.stats.count(Refresh, q.Key)
	q.AskedSince = known.AsOf().Add(1) // a shared store that only knows this one is of no use
	q.Background = true
	o.takeOff(ctx, q, false)
}
