package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

// Digest names an entry of a Store: a keyed digest of the whole question, of which nothing can be learned.
type Digest [32]byte

// MaxItemBytes is the largest Sealed that is stored or read.
const MaxItemBytes = 64 << 10

// Item is what a Store holds under one Digest. The store needs AsOf to keep the younger of two; nobody believes it
// otherwise, nor Inactive: what counts is sealed.
type Item struct {
	Sealed   []byte
	AsOf     time.Time // as of when the answer inside speaks
	Inactive bool      // the answer inside says that the token is not active
}

// Store is memory that many Watchwords share. It may forget anything at any time. Every driver passes storetest. Safe
// for concurrent use; a method returns soon after its context ends.
type Store interface {
	// Get returns the item under key; nil without an error: there is none, or none that Put wrote.
	Get(ctx context.Context, key Digest) (*Item, error)

	// Put stores item for life at most, unless one with the same or a younger AsOf is there: two writers that race leave
	// the younger, in whatever order they arrive. Not having stored for that reason is no error.
	Put(ctx context.Context, key Digest, item Item, life time.Duration) error

	// Lease gives the right to ask about key to one at a time, for life at most. A nil release without an error:
	// somebody else has it. release gives it back early, and nobody else's.
	Lease(ctx context.Context, key Digest, life time.Duration) (release func(context.Context) error, err error)
}

// Clocked is a Store that tells its time, so that a host whose clock is off does not use it.
type Clocked interface {
	Clock(ctx context.Context) (time.Time, error)
}

// Noticing is a Store that tells what others write. Notices may be lost with a connection: they only make things
// sooner, and nothing is believed for longer because none came.
type Noticing interface {
	// Notice calls changed with every key that somebody else's Put changes from when ready is called, until ctx ends or
	// the connection is lost.
	Notice(ctx context.Context, ready func(), changed func(Digest)) error
}

// itemHead is 20 digits of AsOf in Unix nanoseconds, so that a store can compare them as text, and one letter.
const itemHead = 21

// MaxEncodedItemBytes is the largest that Item.Encode writes.
const MaxEncodedItemBytes = itemHead + MaxItemBytes

// Encode returns i as bytes, for drivers. The first 20 of them order items by age, as text.
func (i Item) Encode() []byte {
	b := fmt.Appendf(make([]byte, 0, itemHead+len(i.Sealed)), "%020d", max(0, i.AsOf.UnixNano()))
	if i.Inactive {
		b = append(b, 'i')
	} else {
		b = append(b, 'a')
	}
	return append(b, i.Sealed...)
}

// DecodeItem reads what Encode wrote.
func DecodeItem(b []byte) (*Item, error) {
	if len(b) < itemHead || len(b) > MaxEncodedItemBytes {
		return nil, errors.New("no item by its length")
	}
	ns, err := strconv.ParseUint(string(b[:itemHead-1]), 10, 63)
	if letter := b[itemHead-1]; err != nil || letter != 'a' && letter != 'i' {
		return nil, errors.New("no item by its head")
	}
	return &Item{Sealed: b[itemHead:], AsOf: time.Unix(0, int64(ns)), Inactive: b[itemHead-1] == 'i'}, nil
}

// Memory is a Store within one process: for tests, and for several caches in one. The zero value is empty and ready.
type Memory struct {
	mu     sync.Mutex
	items  map[Digest]timed
	leases map[Digest]timed
	writes int
}

type timed struct {
	Item
	until time.Time
	id    int // of a lease
}

func (t timed) over(now time.Time) bool { return watchword.Age(now, t.until) >= 0 }

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key Digest) (*Item, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one, is := m.items[key]
	if !is || one.over(time.Now()) {
		return nil, ctx.Err()
	}
	return &one.Item, ctx.Err()
}

// Put implements Store.
func (m *Memory) Put(ctx context.Context, key Digest, item Item, life time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if one, is := m.items[key]; is && !one.over(now) && watchword.Age(item.AsOf, one.AsOf) <= 0 || life <= 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	if m.items == nil {
		m.items = map[Digest]timed{}
	}
	if m.writes++; m.writes&(1<<12-1) == 0 {
		sweep(m.items, now)
		sweep(m.leases, now)
	}
	item.Sealed = append([]byte(nil), item.Sealed...)
	m.items[key] = timed{Item: item, until: now.Add(life)}
	return nil
}

// Lease implements Store.
func (m *Memory) Lease(ctx context.Context, key Digest, life time.Duration) (func(context.Context) error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if one, is := m.leases[key]; is && !one.over(now) || ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if m.leases == nil {
		m.leases = map[Digest]timed{}
	}
	m.writes++
	mine := timed{until: now.Add(life), id: m.writes}
	m.leases[key] = mine
	return func(context.Context) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.leases[key].id == mine.id {
			delete(m.leases, key)
		}
		return nil
	}, nil
}

// sweep forgets what is over.
func sweep(all map[Digest]timed, now time.Time) {
	for key, one := range all {
		if one.over(now) {
			delete(all, key)
		}
	}
}
