package cache

import (
	"iter"

	"github.com/maypok86/otter/v2"

	"github.com/watchword-dev/watchword"
)

// All yields what is remembered now, active answers first, in no order. It holds up nobody. An answer that is yielded
// may be too old to serve: that is for Query.Weigh to say.
func (m *Cache) All() iter.Seq2[watchword.Key, *watchword.Answer] {
	return func(yield func(watchword.Key, *watchword.Answer) bool) {
		for _, store := range []*otter.Cache[watchword.Key, *watchword.Answer]{m.active, m.inactive} {
			if store == nil {
				continue
			}
			for key, a := range store.All() {
				if !yield(key, a) {
					return
				}
			}
		}
	}
}

// Forget drops the answers under these keys, which is hygiene: what must not serve any more is for the Ledger to say.
// It returns how many there were.
func (m *Cache) Forget(keys ...watchword.Key) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		_, had := m.active.Invalidate(key)
		if m.inactive != nil {
			_, other := m.inactive.Invalidate(key)
			had = had || other
		}
		if had {
			n++
		}
	}
	return n
}

// Distrust forgets the active answer under key, because another host was told that its token is inactive: so says a store
// that need not be believed. OnInactive is told of the answer, which leaves no stranger behind and lets nothing as old
// as it come back.
func (m *Cache) Distrust(key watchword.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, had := m.active.Invalidate(key); had && m.config.OnInactive != nil {
		m.config.OnInactive(watchword.Query{Key: key, Issuer: a.Issuer()}, a)
	}
}
