package watchword_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

const clusterSkew = time.Second // between two hosts, and of each to the store half of it

// host is one machine: what stays when the process on it is another one.
type host struct {
	c      *cluster
	number int
	offset time.Duration      // of its clock, to the store's
	folder string             // of its ledger's log; empty: none
	link   *link              // to the bus
	notice func(cache.Digest) // of what others write to the store; nil: nobody listens
	now    *life
}

// stray reports a host whose clock is off by more than two hosts may differ.
func (h *host) stray() bool { return h.offset.Abs() > clusterSkew }

// life is one process: everything in it begins with nothing, except a ledger that reads its log.
type life struct {
	host     *host
	born     time.Time
	ledger   *revocation.Ledger
	memory   *cache.Cache
	shared   *cache.Shared
	below    watchword.Source // shared, and the server
	policies []watchword.Policy
	verifier *watchword.Verifier
	bus      *revocation.Fleet
	told     []*told
	seen     []sight
	active   map[watchword.Token]bool // was seen active here
	end      func()
}

// roll reports one in n, at random.
func (c *cluster) roll(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.once(n)
}

// within is a random time below d.
func (c *cluster) within(d time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.upTo(d)
}

// source makes a Source of a function.
type source func(context.Context, watchword.Query) (*watchword.Answer, error)

// Introspect implements watchword.Source.
func (f source) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	return f(ctx, q)
}

// begin starts a process on h, and ends the one before.
func (h *host) begin(t *testing.T) {
	c := h.c
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.mu.Lock()
	before := h.now
	h.now = nil
	c.mu.Unlock()
	if before != nil {
		before.end()
	}
	l := &life{host: h, born: time.Now(), active: map[watchword.Token]bool{}}
	c.mu.Lock()
	if before != nil { // without a log it is all forgotten: asked about, and no longer known
		for _, e := range before.told {
			again := *e
			again.coarse = e.coarse || h.folder == ""
			l.told = append(l.told, &again)
		}
	}
	c.shows["restarts"] += min(1, len(c.lives)/len(c.hosts))
	c.lives = append(c.lives, l)
	l.note("begins")
	issuers, policies := []revocation.Issuer{c.issuer()}, c.policies()
	l.policies = policies
	inactive, after := sec(c.r.IntN(5)), []float64{0.5, 0.95}[c.r.IntN(2)]
	c.mu.Unlock()

	var err error
	l.ledger, err = revocation.New(revocation.Config{Issuers: issuers, Folder: h.folder, Key: revocation.Key{1}, MaxBytes: 1 << 16, Observe: l.hears, OnForget: l.forgets})
	must(err)
	l.memory, err = cache.New(cache.Config{FlightTimeout: sec(6), Inactive: cache.Inactive{TTL: inactive}, RefreshAhead: cache.RefreshAhead{MinHits: 1, After: after},
		OnInactive: func(q watchword.Query, a *watchword.Answer) {
			if c.flaw != noDoubts && c.flaw != evicts {
				l.ledger.Doubt(q, a)
			}
		}, WasActive: func(q watchword.Query) bool { return l.ledger.WasActive(q) }})
	must(err)
	l.shared, err = cache.NewShared(cache.SharedConfig{Store: shelf{h}, Skew: clusterSkew})
	must(err)
	l.below, err = l.shared.Over(source(l.introspect), cache.Asking{Secrets: [][]byte{[]byte("a deployment secret for tests only")}, Keep: 3 * time.Minute})
	must(err)
	l.verifier = verifier(t, watchword.Config{Source: l.counted(l.memory.Over(source(l.share), 3*time.Minute)), Issuers: []watchword.Issuer{{Name: "as"}}, Callers: policies, Ledger: flawed{l.ledger, c.flaw}})
	l.bus, err = revocation.NewFleet(revocation.FleetConfig{Log: h.link, Sink: l, Secret: []byte("a deployment secret for tests only"), Fingerprint: l.ledger.Fingerprint(), Skew: clusterSkew,
		Issuer: func(name string) (string, bool) { return "https://as", name == "as" }})
	must(err)

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = l.ledger.Run(ctx) })
	running.Go(func() { l.shared.Run(ctx, l.memory.Distrust) })
	running.Go(func() { _ = l.bus.Run(ctx, l) })
	l.end = func() {
		cancel()
		running.Wait()
		if err := l.ledger.Close(); err != nil {
			t.Error(err)
		}
	}
	c.mu.Lock()
	h.now = l
	c.mu.Unlock()
}

// note keeps what happens, for who must find out why a promise was broken. The caller holds mu.
func (l *life) note(format string, args ...any) {
	c := l.host.c
	c.story = append(c.story, fmt.Sprintf("%v host %d ", time.Since(c.start), l.host.number)+fmt.Sprintf(format, args...))
}

// introspect asks the server, by the host's clock.
func (l *life) introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	if n, is := ctx.Value(asksKey{}).(*askings); is {
		n.server.Add(1)
	}
	return l.host.c.reply(ctx, q, time.Now().Add(l.host.offset))
}

// share asks the store and the server. What is below goes by the host's clock, and what is above by the true one, which
// comes to the same: only between hosts does it matter.
func (l *life) share(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	by := l.host.offset
	for _, t := range []*time.Time{&q.At, &q.AskedSince, &q.Coverage.Since, &q.Coverage.Through} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	a, err := l.below.Introspect(ctx, q)
	if a == nil {
		return a, err
	}
	a, broken := watchword.ParseAnswer([]byte(a.Claims().JSON()), watchword.Evidence{Issuer: a.Issuer(), Asked: a.AsOf().Add(-by)})
	if broken != nil {
		return nil, broken
	}
	l.host.c.mu.Lock()
	defer l.host.c.mu.Unlock()
	l.note("%s: active %v as of %v (error %v)", string(q.Token), a.Active(), a.AsOf().Sub(l.host.c.start), err != nil)
	if a.Active() {
		l.active[q.Token] = true
	} else if l.active[q.Token] {
		l.seen = append(l.seen, sight{q.Token, a.AsOf(), time.Now()})
	}
	return a, err
}

type asksKey struct{}

// counted counts for P5.
func (l *life) counted(next watchword.Source) watchword.Source {
	once := source(func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
		ctx.Value(asksKey{}).(*askings).source.Add(1)
		return next.Introspect(ctx, q)
	})
	if l.host.c.flaw != persists {
		return once
	}
	return source(func(ctx context.Context, q watchword.Query) (a *watchword.Answer, err error) {
		for range 3 {
			if a, err = once(ctx, q); err == nil {
				break
			}
		}
		return a, err
	})
}

// hears is told of every event that comes to the ledger.
func (l *life) hears(e *revocation.Event, o revocation.Outcome) {
	c := l.host.c
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.byID[e.ID]
	if a == nil {
		return
	}
	if l.note("event %s: %v", e.ID, o); o != revocation.Applied && o != revocation.Duplicate {
		return
	}
	for _, known := range l.told {
		if known.act == a && !known.coarse {
			return
		}
	}
	l.told = append(l.told, &told{act: a, event: *e, at: time.Now()})
}

// forgets is told of every event that made room.
func (l *life) forgets(_ string, _ int, until time.Time) {
	c := l.host.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range l.told {
		if !e.coarse && !e.event.Operator && !e.at.After(until) {
			e.coarse = true
			c.shows["coarse"]++
		}
	}
}

// Apply implements revocation.Sink: what a host writes of its clock is read by another one's.
func (l *life) Apply(ctx context.Context, events ...revocation.Event) error {
	c := l.host.c
	events = append([]revocation.Event(nil), events...)
	for i := range events {
		events[i].Heard = events[i].Heard.Add(-l.host.offset)
	}
	err := l.ledger.Apply(ctx, events...)
	for i := range events {
		if a := c.byID[events[i].ID]; a != nil && c.flaw == evicts {
			for _, p := range c.tokens {
				if a.names(p) {
					l.memory.Forget(l.verifier.Keys(watchword.Token(p.name))["as"])
				}
			}
		}
	}
	return err
}

// Cover implements revocation.Sink. To a host whose clock is behind, every other one is ahead: by the time at which their
// messages were sent, which is the true one here, its Fleet would notice, and let nothing be proven.
func (l *life) Cover(issuer string, through time.Time) {
	if l.host.offset < -clusterSkew {
		l.Gap(issuer, "a clock is ahead")
		return
	}
	l.ledger.Cover(issuer, through.Add(-l.host.offset))
}

// Gap implements revocation.Sink.
func (l *life) Gap(issuer, why string) {
	if l.host.c.flaw != missesNone {
		l.ledger.Gap(issuer, why)
	}
}

// link is one host's connection to the bus.
type link struct {
	*feedtest.Memory
	c   *cluster
	cut bool // guarded by c.mu
}

var errCut = errors.New("cut off")

func (k *link) isCut() bool {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.cut
}

func (k *link) set(cut bool) {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.cut = cut
}

// Append implements revocation.Log: it fails, before and after it takes effect, and takes effect twice.
func (k *link) Append(ctx context.Context, body []byte) error {
	if k.isCut() || k.c.roll(60) {
		return errCut
	}
	err := k.Memory.Append(ctx, body)
	if k.c.roll(60) {
		err = errCut
	}
	if k.c.roll(30) {
		_ = k.Memory.Append(ctx, body)
	}
	return err
}

// Read implements revocation.Log: late, twice, or not at all.
func (k *link) Read(ctx context.Context, from string, each func(revocation.Entry) error, gap func(why string), failed func(err error)) error {
	return k.Memory.Read(ctx, from, func(e revocation.Entry) error {
		for k.isCut() && ctx.Err() == nil {
			time.Sleep(500 * time.Millisecond)
		}
		if k.c.holes > 0 && k.c.roll(k.c.holes) {
			return nil
		}
		if k.c.roll(40) {
			time.Sleep(k.c.within(3 * time.Second))
		}
		if k.c.roll(40) {
			_ = each(e)
		}
		return each(e)
	}, gap, failed)
}

// Keep implements revocation.Log.
func (k *link) Keep(ctx context.Context, key string, body []byte, until time.Time) error {
	if k.isCut() || k.c.roll(20) {
		return errCut
	}
	return k.Memory.Keep(ctx, key, body, until)
}

// Kept implements revocation.Log.
func (k *link) Kept(ctx context.Context, each func(key string, body []byte) error) error {
	if k.isCut() || k.c.roll(4) {
		return errCut
	}
	return k.Memory.Kept(ctx, each)
}

// shelf is the store as one host sees it.
type shelf struct{ h *host }

// Clock implements cache.Clocked: by the host's clock the store's is off by as much as the host's is off.
func (s shelf) Clock(context.Context) (time.Time, error) {
	if s.h.c.flaw == strayClock {
		return time.Now(), nil
	}
	return time.Now().Add(-s.h.offset), nil
}

// fails reports that a call gets no answer.
func (s shelf) fails(ctx context.Context) error {
	c := s.h.c
	if now := time.Now(); now.After(c.storeFrom) && now.Before(c.storeTo) || c.roll(40) {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// Get implements cache.Store.
func (s shelf) Get(ctx context.Context, d cache.Digest) (*cache.Item, error) {
	if err := s.fails(ctx); err != nil {
		return nil, err
	}
	return s.h.c.store.Get(ctx, d)
}

// Put implements cache.Store: it is lost, or comes late.
func (s shelf) Put(ctx context.Context, d cache.Digest, i cache.Item, life time.Duration) error {
	c := s.h.c
	if err := s.fails(ctx); err != nil {
		return err
	}
	if c.flaw == noDoubts && i.Inactive {
		return nil // a store may lose anything
	}
	if c.roll(8) {
		return errCut
	}
	if c.roll(8) {
		go func() {
			time.Sleep(c.within(8 * time.Second))
			_ = c.store.Put(context.Background(), d, i, life)
			s.tell(d)
		}()
		return nil
	}
	err := c.store.Put(ctx, d, i, life)
	s.tell(d)
	return err
}

// tell lets other hosts hear of a change, or not.
func (s shelf) tell(d cache.Digest) {
	c := s.h.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		if h != s.h && h.notice != nil && !c.once(4) {
			h.notice(d)
		}
	}
}

// Notice implements cache.Noticing.
func (s shelf) Notice(ctx context.Context, ready func(), changed func(cache.Digest)) error {
	c := s.h.c
	c.mu.Lock()
	s.h.notice = changed
	c.mu.Unlock()
	ready()
	<-ctx.Done()
	c.mu.Lock()
	s.h.notice = nil
	c.mu.Unlock()
	return ctx.Err()
}

// Lease implements cache.Store.
func (s shelf) Lease(ctx context.Context, d cache.Digest, life time.Duration) (func(context.Context) error, error) {
	if err := s.fails(ctx); err != nil {
		return nil, err
	}
	return s.h.c.store.Lease(ctx, d, life)
}
