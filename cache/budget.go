package cache

import (
	"net/netip"
	"strings"
	"sync"
	"time"
)

// maxPeers bounds the memory of budgets; what a full bucket knows is what an absent one knows.
const maxPeers = 1 << 16

// budget is a bucket per peer for tokens that turn out to be nothing. Peers beyond maxPeers share one.
type budget struct {
	perSecond, burst float64

	mu    sync.Mutex // guards what is below
	peers map[string]*purse
	rest  purse
	swept time.Time
}

func newBudget(u Unknown) *budget {
	return &budget{perSecond: u.PerSecond, burst: u.Burst, peers: map[string]*purse{}}
}

// board is how long a peer must wait before it may ask about another stranger; zero: it may ask now, and lands later.
// What it has in the air counts as spent until it lands: otherwise a peer that asks fast enough spends its budget many
// times over before the first answer comes.
func (b *budget) board(peer string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.find(network(peer), now)
	switch wait := one.wait(now, b.perSecond, b.burst); {
	case wait > 0:
		return wait
	case one.air > 0 && one.spent(now, b.perSecond)+float64(one.air)+1 > max(1, b.burst):
		return time.Second // most of it lands before that, and what was a token gives back what it took
	}
	one.air++
	return 0
}

// land ends what board began, and takes one from the budget if the token turned out to be nothing.
func (b *budget) land(peer string, now time.Time, nothing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := network(peer)
	one := b.peers[name]
	if one == nil {
		one = &b.rest
	}
	one.air = max(0, one.air-1)
	if nothing {
		one.take(now, b.perSecond, b.burst)
	} else if one.air == 0 && one.used == 0 {
		delete(b.peers, name)
	}
}

func (b *budget) find(name string, now time.Time) *purse {
	if one := b.peers[name]; one != nil {
		return one
	}
	b.sweep(now)
	if len(b.peers) >= maxPeers {
		return &b.rest
	}
	one := new(purse)
	b.peers[strings.Clone(name)] = one // it may be part of a request that holds the token, too
	return one
}

// purse is what one peer has spent, and what it may still have to.
type purse struct {
	bucket
	air int // questions about strangers that have not landed
}

// sweep forgets the peers whose budget is whole again. A full table is swept at most once a second.
func (b *budget) sweep(now time.Time) {
	if len(b.peers) < maxPeers || now.Sub(b.swept) < time.Second {
		return
	}
	b.swept = now
	for name, one := range b.peers {
		if one.air == 0 && one.spent(now, b.perSecond) == 0 {
			delete(b.peers, name)
		}
	}
}

// network is who a peer is: one customer of an IPv6 network has 2^64 addresses.
func network(peer string) string {
	a, err := netip.ParseAddr(peer)
	if err != nil || !a.Is6() || a.Is4In6() {
		return peer
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return peer
	}
	return p.String()
}

// bucket is a token bucket that remembers what was spent; the zero value is full. Not safe for concurrent use.
type bucket struct {
	used float64
	last time.Time
}

func (b *bucket) spent(now time.Time, perSecond float64) float64 {
	return max(0, b.used-max(0, now.Sub(b.last).Seconds())*perSecond)
}

// wait is how long until one may be taken.
func (b *bucket) wait(now time.Time, perSecond, burst float64) time.Duration {
	over := b.spent(now, perSecond) + 1 - max(1, burst)
	if over <= 0 {
		return 0
	}
	return max(time.Nanosecond, time.Duration(over/perSecond*float64(time.Second)))
}

// take takes one, at most down to nothing.
func (b *bucket) take(now time.Time, perSecond, burst float64) {
	b.used, b.last = min(b.spent(now, perSecond)+1, max(1, burst)), now
}
