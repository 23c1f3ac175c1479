package cache

import (
	"net/netip"
	"sync"
	"time"
)

// maxPeers bounds the memory of budgets; what a full bucket knows is what an absent one knows.
const maxPeers = 1 << 16

// budget is a bucket per peer for tokens that turn out to be nothing. Peers beyond maxPeers share one.
type budget struct {
	perSecond, burst float64

	mu    sync.Mutex // guards what is below
	peers map[string]*bucket
	rest  bucket
	swept time.Time
}

func newBudget(u Unknown) *budget {
	return &budget{perSecond: u.PerSecond, burst: u.Burst, peers: map[string]*bucket{}}
}

// wait is how long a peer must wait before it may ask about another stranger; zero: not at all.
func (b *budget) wait(peer string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.peers[network(peer)]
	if one == nil {
		if len(b.peers) < maxPeers {
			return 0
		}
		one = &b.rest
	}
	return one.wait(now, b.perSecond, b.burst)
}

// charge takes one from a peer's budget.
func (b *budget) charge(peer string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := network(peer)
	one := b.peers[name]
	if one == nil {
		b.sweep(now)
		if one = new(bucket); len(b.peers) < maxPeers {
			b.peers[name] = one
		} else {
			one = &b.rest
		}
	}
	one.take(now, b.perSecond, b.burst)
}

// sweep forgets the peers whose budget is whole again. A full table is swept at most once a second.
func (b *budget) sweep(now time.Time) {
	if len(b.peers) < maxPeers || now.Sub(b.swept) < time.Second {
		return
	}
	b.swept = now
	for name, one := range b.peers {
		if one.spent(now, b.perSecond) == 0 {
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
