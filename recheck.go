package watchword

import (
	"crypto/rand"
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
)

// watched is how many tokens have their last client remembered, at 8 bytes each. Two tokens of one slot only lose
// rechecks.
const watched = 1 << 16

// sightings remembers from where tokens were last accepted: keyed digests only, under a key of this process that never
// leaves it. No lock and no allocation. Safe for concurrent use.
type sightings struct {
	seed  maphash.Seed
	slots [watched]atomic.Uint64 // tag of one token << 32 | digest of its client; zero: none
}

func newSightings() *sightings { return &sightings{seed: maphash.MakeSeed()} }

// sighting is where a token is seen, and from whom.
type sighting struct {
	slot *atomic.Uint64
	now  uint64
}

// of is this sighting of a token under r. Policies that look at different things do not disturb each other.
func (s *sightings) of(key Key, r *Request, by Changes) sighting {
	id := binary.LittleEndian.Uint64(key[:8])
	client, what := uint64(0), uint64(0)
	if by.ClientIP {
		client, what = maphash.String(s.seed, r.Peer), 1
	}
	if by.UserAgent {
		client, what = client*31+maphash.String(s.seed, r.UserAgent), what|2
	}
	id ^= what << 14
	return sighting{&s.slots[id%watched], id&^(1<<32-1) | 1<<31 | client>>33} // never zero
}

// moved reports whether the token was last accepted from somebody else.
func (s sighting) moved() bool {
	last := s.slot.Load()
	return last != s.now && last>>32 == s.now>>32 && last != 0
}

// keep makes this sighting the last one; a hit from the same client writes nothing.
func (s sighting) keep() {
	if s.slot.Load() != s.now {
		s.slot.Store(s.now)
	}
}

// chance is a random number from 0 to 1, 1 excluded.
func chance() float64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return float64(binary.LittleEndian.Uint64(b[:])>>11) / (1 << 53)
}

// due reports an answer whose turn has come: see decide.
func (q *Query) due(a *Answer, share float64) bool {
	if share <= 0 {
		return false
	}
	_, due := q.WeighAhead(a, share)
	return due
}

// again reports whether the answer of d, which would do, is asked about once more all the same. Where it is not, from
// where its token came is remembered.
func (c *compiled) again(d *Decision, r *Request, q *Query, share float64, round int) bool {
	if round == 0 && d.Age > 0 && (q.due(d.Answer, share) || c.rechecks(d, r)) {
		return true
	}
	c.sees(d, r)
	return false
}

// rechecks reports whether a remembered answer that would be good enough is to be asked about all the same.
func (c *compiled) rechecks(d *Decision, r *Request) bool {
	by := &d.Policy.Recheck
	return c.seen != nil && by.OnChange != (Changes{}) && c.seen.of(d.Key, r, by.OnChange).moved() || by.Probability > 0 && c.Chance() < by.Probability
}

// sees remembers from where a token was accepted on an answer that no recheck failed to get.
func (c *compiled) sees(d *Decision, r *Request) {
	if by := &d.Policy.Recheck; c.seen != nil && by.OnChange != (Changes{}) {
		c.seen.of(d.Key, r, by.OnChange).keep()
	}
}
