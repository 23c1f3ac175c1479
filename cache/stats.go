package cache

import (
	"sync/atomic"

	"github.com/watchword-dev/watchword"
)

// Result is what a look-up found. Its String is a metric label.
type Result uint8

// The results.
const (
	Hit           Result = iota // a remembered answer served
	Miss                        // the source below was asked
	Joined                      // somebody else's asking served
	Stale                       // asking failed, and an older answer served (Freshness.StaleIfError)
	KnownInactive               // a remembered inactive answer served
	Refresh                     // the source below was asked ahead of need; counted beside a Hit
	Throttled                   // a peer's budget for unknown tokens was spent; nobody was asked
	Paced                       // the rate of questions that revocations cause was spent; nobody was asked
	results
)

// String returns the label of r.
func (r Result) String() string {
	return [results]string{"hit", "miss", "joined", "stale", "inactive", "refresh", "throttled", "paced"}[r]
}

// Stats is a look at a Cache.
type Stats struct {
	Entries, Bytes                 int64 // active answers
	InactiveEntries, InactiveBytes int64
	Evicted                        uint64          // entries of either kind that left for want of room
	Lookups                        [results]uint64 // by Result
}

// stats counts in stripes, so that cores that hit at once do not wait for one counter.
type stats struct {
	stripes [16]struct {
		_      [(64 - results*8%64) % 64]byte // whole cache lines; at the end, nothing would take eight bytes
		counts [results]atomic.Uint64
	}
}

func (s *stats) count(r Result, key watchword.Key) { s.stripes[key[0]%16].counts[r].Add(1) }

// Stats returns a look at m: nearly one instant, exact where nothing moves.
func (m *Cache) Stats() Stats {
	s := Stats{Entries: int64(m.active.EstimatedSize()), Bytes: int64(m.active.WeightedSize())}
	if m.inactive != nil {
		s.InactiveEntries, s.InactiveBytes = int64(m.inactive.EstimatedSize()), int64(m.inactive.WeightedSize())
	}
	s.Evicted = m.evicted.Load()
	for i := range m.stats.stripes {
		for r := range s.Lookups {
			s.Lookups[r] += m.stats.stripes[i].counts[r].Load()
		}
	}
	return s
}
