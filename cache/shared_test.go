package cache_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

var (
	secretA = bytes.Repeat([]byte("a"), 32)
	secretB = bytes.Repeat([]byte("b"), 32)
)

// open is a Store whose insides a test reads and breaks: what it holds, and how it fails.
type open struct {
	cache.Memory
	mu    sync.Mutex
	items map[cache.Digest]cache.Item
	hang  atomic.Bool // every call waits for its context …
	deaf  atomic.Bool // … and then some
	dead  atomic.Bool // every call fails at once
	off   atomic.Int64
	calls atomic.Int64
	heard chan func(cache.Digest)
}

func (s *open) fails(ctx context.Context) error {
	s.calls.Add(1)
	if s.hang.Load() {
		if s.deaf.Load() {
			time.Sleep(3 * time.Second)
		}
		<-ctx.Done()
		return ctx.Err()
	}
	if s.dead.Load() {
		return errors.New("connection refused")
	}
	return nil
}

func (s *open) Get(ctx context.Context, k cache.Digest) (*cache.Item, error) {
	if err := s.fails(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, is := s.items[k]; is {
		return &i, nil
	}
	return nil, nil
}

func (s *open) Put(ctx context.Context, k cache.Digest, i cache.Item, life time.Duration) error {
	if err := s.fails(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, is := s.items[k]; !is || watchword.Age(i.AsOf, old.AsOf) > 0 {
		s.items[k] = i
	}
	return nil
}

func (s *open) Lease(ctx context.Context, k cache.Digest, life time.Duration) (func(context.Context) error, error) {
	if err := s.fails(ctx); err != nil {
		return nil, err
	}
	return s.Memory.Lease(ctx, k, life)
}

func (s *open) Clock(ctx context.Context) (time.Time, error) {
	return time.Now().Add(time.Duration(s.off.Load())), s.fails(ctx)
}

func (s *open) Notice(ctx context.Context, ready func(), changed func(cache.Digest)) error {
	select {
	case s.heard <- changed:
		<-ctx.Done()
	case <-ctx.Done():
	}
	return ctx.Err()
}

// each changes every stored value.
func (s *open) each(change func(i *cache.Item)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, i := range s.items {
		i.Sealed = bytes.Clone(i.Sealed)
		change(&i)
		s.items[k] = i
	}
}

// host is one Watchword of a fleet: a cache of its own over the store of all.
type host struct {
	*world
	shared *cache.Shared
	told   *[]bool // whether each answer was active that OnInactive was told of
}

// fleet runs f in a bubble of fake time, with n hosts that share a store and ask one server.
func fleet(t *testing.T, n int, f func(s *open, hosts []*host)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &open{items: map[cache.Digest]cache.Item{}, heard: make(chan func(cache.Digest), n)}
		as := &server{body: `{"active":true,"sub":"ann"}`}
		ctx, stop := context.WithCancel(t.Context())
		var all []*host
		for range n {
			all = append(all, newHost(t, store, as, cache.Asking{Secrets: [][]byte{secretA}, Issuers: map[string]string{"main": "x"}, Keep: time.Hour}))
			one := all[len(all)-1]
			go one.shared.Run(ctx, one.cache.Distrust)
		}
		synctest.Wait()
		f(store, all)
		stop()
		synctest.Wait()
	})
}

func newHost(t *testing.T, s cache.Store, as *server, a cache.Asking) *host {
	t.Helper()
	told := new([]bool)
	hears := func(_ watchword.Query, a *watchword.Answer) { *told = append(*told, a.Active()) }
	m, err := cache.New(cache.Config{OnInactive: hears, WasActive: func(watchword.Query) bool { return len(*told) > 0 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	shared, err := cache.NewShared(cache.SharedConfig{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	src, err := shared.Over(as, a)
	if err != nil {
		t.Fatal(err)
	}
	return &host{&world{t: t, server: as, cache: m, src: m.Over(src, time.Hour)}, shared, told}
}

func (h *host) counted(r cache.SharedResult) uint64 { return h.shared.Stats().Results[r] }

var minute = watchword.Freshness{MaxStaleness: time.Minute}

func TestOneHostAsksForAll(t *testing.T) {
	fleet(t, 3, func(_ *open, hosts []*host) {
		hosts[0].check("t", minute, "active", 1)
		synctest.Wait()
		for _, h := range hosts[1:] {
			h.check("t", minute, "active", 1)
			if h.counted(cache.SharedHit) != 1 {
				t.Error(h.shared.Stats())
			}
		}
	})
}

// A token that is new to all, asked of all at once, costs one question.
func TestColdTokenIsAskedOnceByTheFleet(t *testing.T) {
	fleet(t, 5, func(_ *open, hosts []*host) {
		hosts[0].delay.Store(int64(100 * time.Millisecond))
		for _, dead := range []bool{false, true} {
			token := watchword.Token(fmt.Sprint("token ", dead))
			if dead {
				hosts[0].kill(token)
			}
			hosts[0].calls.Store(0)
			var wait sync.WaitGroup
			for _, h := range hosts {
				for range 20 {
					wait.Go(func() {
						if a, err := h.ask(token, minute); err != nil || a.Active() == dead {
							t.Error(a, err)
						}
					})
				}
			}
			wait.Wait()
			if n := hosts[0].calls.Load(); n != 1 {
				t.Errorf("dead: %v: %d questions", dead, n)
			}
			time.Sleep(time.Minute)
		}
	})
}

// Who waits for another host's answer waits for a bounded time, then asks for itself.
func TestFollowersDoNotWaitForEver(t *testing.T) {
	fleet(t, 2, func(s *open, hosts []*host) {
		hosts[0].delay.Store(int64(10 * time.Second))
		go func() { _, _ = hosts[0].ask("t", minute) }()
		synctest.Wait()
		hosts[0].delay.Store(0)
		began := time.Now()
		hosts[1].check("t", minute, "active", 2)
		if took := time.Since(began); took < cache.DefaultFollow || took > cache.DefaultFollow+50*time.Millisecond {
			t.Errorf("waited %v", took)
		}
		time.Sleep(15 * time.Second)
	})
}

// An error of the leader is nobody else's: the next one asks at once.
func TestLeaderThatFailsIsFollowedAtOnce(t *testing.T) {
	fleet(t, 2, func(s *open, hosts []*host) {
		hosts[0].delay.Store(int64(50 * time.Millisecond))
		hosts[0].set(func() { hosts[0].err = &watchword.Error{Failure: watchword.Unavailable} })
		go func() { _, _ = hosts[0].ask("t", minute) }()
		synctest.Wait()
		hosts[0].set(func() { hosts[0].err = nil })
		began := time.Now()
		hosts[1].check("t", minute, "active", 2)
		if took := time.Since(began); took > 150*time.Millisecond {
			t.Errorf("waited %v", took)
		}
	})
}

// A store that hangs costs a question the timeout of one call, and then, for a while, nothing; one that is gone costs
// nothing; and it is used again once it is back.
func TestStoreThatHangsOrIsGone(t *testing.T) {
	fleet(t, 1, func(s *open, hosts []*host) {
		h := hosts[0]
		took := func(token watchword.Token) time.Duration {
			began := time.Now()
			if a, err := h.ask(token, minute); err != nil || !a.Active() {
				t.Error(a, err)
			}
			return time.Since(began)
		}
		s.deaf.Store(true)
		s.hang.Store(true)
		if d := took("1"); d != cache.DefaultStoreTimeout {
			t.Errorf("the first waited %v", d)
		}
		took("2")
		for i := range 100 {
			if d := took(watchword.Token(fmt.Sprint("x", i))); d > cache.DefaultStoreTimeout {
				t.Errorf("waited %v", d)
			}
		}
		if n := s.calls.Load(); n > 20 {
			t.Errorf("%d calls to a store that hangs", n)
		}
		if d := took("3"); d != 0 || h.shared.Stats().InUse {
			t.Errorf("the breaker is not open: waited %v", d)
		}
		s.hang.Store(false)
		s.dead.Store(true)
		for i := range 20 {
			if d := took(watchword.Token(fmt.Sprint("y", i))); d > 0 {
				t.Errorf("waited %v for a store that is gone", d)
			}
			time.Sleep(100 * time.Millisecond)
		}
		s.dead.Store(false)
		time.Sleep(10 * time.Second)
		took("4")
		synctest.Wait()
		if s := h.shared.Stats(); !s.InUse || s.Results[cache.SharedWritten] == 0 {
			t.Errorf("the store is back, and not used: %+v", s)
		}
	})
}

// An answer from the store counts as older by skew, whatever the bound; it is never served beyond the bound.
//
// Covers: CAC-13
func TestSharedAnswersKeepTheBound(t *testing.T) {
	fleet(t, 2, func(_ *open, hosts []*host) {
		bound := watchword.Freshness{MaxStaleness: 10 * time.Second}
		hosts[0].check("t", bound, "active", 1)
		synctest.Wait()
		time.Sleep(9 * time.Second)
		hosts[1].check("t", bound, "active", 1)
		time.Sleep(time.Millisecond)
		hosts[1].check("t", bound, "active", 2)
		time.Sleep(time.Millisecond)
		hosts[1].check("t", watchword.Freshness{}, "active", 3)
		time.Sleep(5 * time.Second)
		q := hosts[1].query("t", bound)
		q.AskedSince = q.At.Add(-4 * time.Second)
		if _, err := hosts[0].src.Introspect(hosts[0].t.Context(), q); err != nil || hosts[0].calls.Load() != 4 {
			t.Errorf("an answer that was asked too early served: %v", err)
		}
	})
}

// What one server said serves under stale_if_error on every host, while nobody can ask.
func TestStaleAnswerFromTheStore(t *testing.T) {
	fleet(t, 2, func(_ *open, hosts []*host) {
		f := watchword.Freshness{MaxStaleness: 10 * time.Second, StaleIfError: time.Minute}
		hosts[0].check("t", f, "active", 1)
		synctest.Wait()
		time.Sleep(20 * time.Second)
		hosts[0].set(func() { hosts[0].err = &watchword.Error{Failure: watchword.Unavailable} })
		if a, err := hosts[1].ask("t", f); a == nil || err == nil { // beside the error: the Verifier decides
			t.Errorf("%v, %v", a, err)
		}
		if _, err := hosts[1].ask("t", watchword.Freshness{MaxStaleness: 10 * time.Second}); err == nil {
			t.Error("a stale answer serves without stale_if_error")
		}
		hosts[0].set(func() { hosts[0].err = &watchword.Error{Failure: watchword.Throttled} })
		if _, err := hosts[1].ask("t", f); err == nil {
			t.Error("a throttled peer is served a stale answer")
		}
	})
}

// A host whose clock is off the store's does not use it; neither does one whose wall was just moved.
func TestClockThatIsOff(t *testing.T) {
	fleet(t, 2, func(s *open, hosts []*host) {
		hosts[0].check("t", minute, "active", 1)
		synctest.Wait()
		for i, off := range []time.Duration{600 * time.Millisecond, -600 * time.Millisecond, time.Hour} {
			s.off.Store(int64(off))
			time.Sleep(6 * time.Second)
			hosts[1].check(watchword.Token(fmt.Sprint(i)), minute, "active", int64(i+2))
			if st := hosts[1].shared.Stats(); st.InUse || st.Offset != off || hosts[1].counted(cache.SharedSkipped) != uint64(i+1) {
				t.Errorf("off by %v: %+v", off, st)
			}
		}
		s.off.Store(int64(300 * time.Millisecond))
		time.Sleep(6 * time.Second)
		hosts[1].check("t", minute, "active", 4)
		if hosts[1].counted(cache.SharedHit) != 1 {
			t.Errorf("a clock within the bound: %+v", hosts[1].shared.Stats())
		}
	})
}

// Before the clocks were compared once, the store is not used.
func TestClockIsComparedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &open{items: map[cache.Digest]cache.Item{}}
		h := newHost(t, s, &server{body: `{"active":true,"sub":"ann"}`}, cache.Asking{Secrets: [][]byte{secretA}})
		h.check("t", minute, "active", 1)
		synctest.Wait()
		if s.calls.Load() != 0 {
			t.Error("the store was used")
		}
	})
}

// A refresh asks: the store's copy of the answer that is due is no news.
func TestRefreshAheadAsksThroughTheStore(t *testing.T) {
	fleet(t, 2, func(_ *open, hosts []*host) {
		hosts[0].check("t", minute, "active", 1)
		time.Sleep(50 * time.Second)
		hosts[0].check("t", minute, "active", 1)
		hosts[0].check2("t", minute) // begins a refresh, which may have asked by now
		synctest.Wait()
		hosts[0].check("t", minute, "active", 2)
		time.Sleep(9 * time.Second)
		hosts[1].check("t", minute, "active", 2) // the refreshed answer serves the others
	})
}

// A host that learns that a token is no more tells the others, which forget it before their bound ends, and doubt what
// else remembers it.
//
// Covers: T32 CAC-09
func TestInactiveElsewhereIsForgottenHere(t *testing.T) {
	fleet(t, 2, func(s *open, hosts []*host) {
		changed := []func(cache.Digest){<-s.heard, <-s.heard}
		hosts[0].check("t", minute, "active", 1)
		synctest.Wait()
		hosts[1].check("t", minute, "active", 1)
		hosts[0].kill("t")
		time.Sleep(time.Millisecond)
		if a, err := hosts[0].ask("t", watchword.Freshness{}); err != nil || a.Active() {
			t.Fatal(a, err)
		}
		synctest.Wait()
		hosts[1].check("t", minute, "active", 2) // no notice came: the bound decides
		for k := range s.items {
			for _, tell := range changed {
				tell(k)
				tell(cache.Digest{1})
			}
		}
		synctest.Wait()
		time.Sleep(time.Millisecond)
		hosts[1].check("t", minute, "inactive", 3)
		if !slices.Equal(*hosts[1].told, []bool{true, false}) { // it was no stranger
			t.Errorf("told of %v", *hosts[1].told)
		}
	})
}

// revoked is a Ledger that holds one event, about the token of one subject.
type revoked string

func (revoked) Coverage(string) watchword.Coverage { return watchword.Coverage{} }
func (r revoked) Voids(_ watchword.Query, a *watchword.Answer) watchword.Void {
	return watchword.Void{Revoked: a.Subject() == string(r)}
}

// The store says active, the ledger holds an event: denied. The ledger is asked of every answer, wherever it came from.
//
// Covers: CAC-08 T32
func TestCAC08LedgerFiltersWhatTheStoreSays(t *testing.T) {
	fleet(t, 2, func(_ *open, hosts []*host) {
		decide := func(h *host, l watchword.Ledger) watchword.Decision {
			v, err := watchword.New(watchword.Config{Source: h.src, Ledger: l, Issuers: []watchword.Issuer{{Name: "main"}},
				Routes: []watchword.Route{{Policy: watchword.Policy{Name: "p", Freshness: minute}}}})
			if err != nil {
				t.Fatal(err)
			}
			return v.Verify(h.t.Context(), watchword.Request{Token: "t"})
		}
		if d := decide(hosts[0], nil); d.Reason != watchword.OK {
			t.Fatal(d.Reason)
		}
		synctest.Wait()
		if d := decide(hosts[1], revoked("ann")); d.Reason != watchword.Revoked {
			t.Errorf("%v", d.Reason)
		}
		if hosts[1].counted(cache.SharedHit) != 1 || hosts[0].calls.Load() != 1 {
			t.Errorf("the answer did not come from the store: %+v", hosts[1].shared.Stats())
		}
		if d := decide(hosts[1], nil); d.Reason != watchword.OK {
			t.Errorf("without the event: %v", d.Reason)
		}
	})
}

// An answer larger than a store takes is served, and not shared.
func TestLargeAnswersAreNotShared(t *testing.T) {
	fleet(t, 1, func(s *open, hosts []*host) {
		hosts[0].set(func() {
			hosts[0].body = `{"active":true,"sub":"ann","x":"` + strings.Repeat("x", cache.MaxItemBytes) + `"}`
		})
		hosts[0].check("t", minute, "active", 1)
		synctest.Wait()
		if len(s.items) != 0 {
			t.Error("it was stored")
		}
	})
}

// A signature that was verified here is no evidence for another host: the key may be withdrawn when that reads it.
//
// Covers: JWT-11
func TestSignaturesAreNotShared(t *testing.T) {
	t.Parallel()
	claims, err := watchword.ParseClaims([]byte(`{"iat":1,"sub":"ann"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, vouched := range []bool{true, false} {
		s := &open{items: map[cache.Digest]cache.Item{}}
		shared, _ := cache.NewShared(cache.SharedConfig{Store: struct{ cache.Store }{s}})
		src, err := shared.Over(watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
			if e := (watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()}); vouched {
				return watchword.NewVouched(claims, e, watchword.Signature{Keys: time.Now(), KeysMaxAge: time.Hour})
			} else {
				return watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann"}`), e)
			}
		}), cache.Asking{Secrets: [][]byte{[]byte(rand.Text())}, Keep: watchword.UntilExpiry})
		if err != nil {
			t.Fatal(err)
		}
		q := watchword.Query{Token: "t", Issuer: "main", At: time.Now(), Freshness: watchword.Freshness{MaxStaleness: watchword.UntilExpiry}}
		if a, err := src.Introspect(t.Context(), q); err != nil || a.Vouched() != vouched {
			t.Fatal(err)
		}
		shared.Close()
		if stored := len(s.items) == 1; stored == vouched {
			t.Errorf("vouched %v, stored %v", vouched, stored)
		}
	}
}
