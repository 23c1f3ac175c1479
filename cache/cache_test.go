package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// server is a scripted authorization server; its fields change between questions.
type server struct {
	calls atomic.Int64
	delay atomic.Int64 // nanoseconds between question and answer
	mu    sync.Mutex
	dead  map[watchword.Token]bool
	body  string // what it says of a token that is not dead
	err   error
	asked []watchword.Query
}

func (s *server) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	s.calls.Add(1)
	asked := time.Now()
	s.mu.Lock()
	body, err := s.body, s.err
	if s.dead[q.Token] {
		body = `{"active":false}`
	}
	s.asked = append(s.asked, q)
	s.mu.Unlock()
	select {
	case <-time.After(time.Duration(s.delay.Load())):
	case <-ctx.Done():
		return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer, Cause: ctx.Err()}
	}
	if err != nil {
		return nil, err
	}
	return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: asked})
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) kill(t watchword.Token) {
	s.set(func() {
		if s.dead == nil {
			s.dead = map[watchword.Token]bool{}
		}
		s.dead[t] = true
	})
}

// world is a server, a cache over it, and questions.
type world struct {
	t *testing.T
	*server
	cache *cache.Cache
	src   watchword.Source
}

// in runs f in a bubble of fake time.
func in(t *testing.T, c cache.Config, f func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, err := cache.New(c)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		s := &server{body: `{"active":true,"sub":"ann"}`}
		f(&world{t: t, server: s, cache: m, src: m.Over(s, 0)})
		synctest.Wait()
	})
}

func (w *world) query(token watchword.Token, f watchword.Freshness) watchword.Query {
	var key watchword.Key
	copy(key[:], token)
	return watchword.Query{Token: token, Key: key, Issuer: "main", Peer: "192.0.2.1", At: time.Now(), Freshness: f}
}

func (w *world) ask(token watchword.Token, f watchword.Freshness) (*watchword.Answer, error) {
	return w.src.Introspect(w.t.Context(), w.query(token, f))
}

// check asks and compares what came and how often the server was asked in all.
func (w *world) check(token watchword.Token, f watchword.Freshness, want string, calls int64) {
	w.t.Helper()
	a, err := w.ask(token, f)
	got := "active"
	var e *watchword.Error
	switch {
	case errors.As(err, &e):
		got = e.Failure.Error()
	case err != nil:
		got = err.Error()
	case !a.Active():
		got = "inactive"
	}
	if got != want || w.calls.Load() != calls {
		w.t.Fatalf("%v, %d calls; want %v, %d", got, w.calls.Load(), want, calls)
	}
}

func bound(d time.Duration) watchword.Freshness { return watchword.Freshness{MaxStaleness: d} }

var unavailable = &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", Cause: errors.New("down")}

func TestHitUntilTheBound(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.check("t", bound(10*time.Second), "active", 1)
		time.Sleep(10 * time.Second)
		w.check("t", bound(10*time.Second), "active", 1)
		time.Sleep(1)
		w.check("t", bound(10*time.Second), "active", 2)
	})
}

// Covers: CAC-05
func TestZeroStalenessAsksEveryTime(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		for i := range int64(5) {
			w.check("t", watchword.Freshness{}, "active", i+1)
			time.Sleep(time.Second)
		}
	})
}

func TestT06TTLDoesNotSlide(t *testing.T) {
	in(t, cache.Config{RefreshAhead: cache.RefreshAhead{MinHits: 1000}}, func(w *world) {
		const ttl = 10 * time.Second
		w.check("t", bound(ttl), "active", 1)
		for i := range int64(5) {
			time.Sleep(ttl / 2)
			w.check("t", bound(ttl), "active", i+1)
			time.Sleep(ttl/2 + 1)
			w.check("t", bound(ttl), "active", i+2)
		}
	})
}

func TestT02StricterPolicyRefetches(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.check("t", bound(10*time.Minute), "active", 1)
		time.Sleep(11 * time.Second)
		w.check("t", bound(10*time.Minute), "active", 1)
		w.check("t", bound(10*time.Second), "active", 2)
	})
}

// Covers: CAC-01 T7
func TestNeverServedPastExp(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.set(func() { w.body = fmt.Sprintf(`{"active":true,"exp":%d}`, time.Now().Unix()+5) })
		w.check("t", bound(5*time.Minute), "active", 1)
		time.Sleep(4 * time.Second)
		w.check("t", bound(5*time.Minute), "active", 1)
		time.Sleep(2 * time.Second)
		w.set(func() { w.err = unavailable })
		if a, err := w.ask("t", bound(5*time.Minute)); a != nil || !errors.Is(err, watchword.Unavailable) {
			t.Errorf("what is over is remembered: %v, %v", a, err)
		}
		w.set(func() { w.err = nil })
		w.kill("t")
		w.check("t", bound(5*time.Minute), "inactive", 3)
	})
}

func TestExpiresInCountsFromTheAsking(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.delay.Store(int64(3 * time.Second))
		w.set(func() { w.body = `{"active":true,"expires_in":5}` })
		w.check("t", bound(5*time.Minute), "active", 1)
		time.Sleep(2*time.Second - 1)
		w.check("t", bound(5*time.Minute), "active", 1)
		time.Sleep(1)
		w.check("t", bound(5*time.Minute), "active", 2)
	})
}

func TestSlowServerAgeCountsFromTheQuestion(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.delay.Store(int64(4 * time.Second))
		w.check("t", bound(10*time.Second), "active", 1)
		w.delay.Store(0)
		time.Sleep(6 * time.Second)
		w.check("t", bound(10*time.Second), "active", 1)
		time.Sleep(1)
		w.check("t", bound(10*time.Second), "active", 2)
	})
}

// Covers: CAC-02 T29
func TestLeaderLeavesFollowersStay(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.delay.Store(int64(20 * time.Millisecond))
		leader, leave := context.WithCancel(w.t.Context())
		var served, left atomic.Int64
		var all sync.WaitGroup
		ask := func(ctx context.Context) {
			all.Go(func() {
				_, err := w.src.Introspect(ctx, w.query("t", bound(time.Second)))
				switch {
				case err == nil:
					served.Add(1)
				case errors.Is(err, watchword.Canceled):
					left.Add(1)
				}
			})
		}
		ask(leader)
		synctest.Wait()
		for range 99 {
			ask(w.t.Context())
		}
		time.Sleep(time.Millisecond)
		leave()
		all.Wait()
		if served.Load() != 99 || left.Load() != 1 || w.calls.Load() != 1 {
			t.Errorf("%d served, %d left, %d calls; want 99, 1, 1", served.Load(), left.Load(), w.calls.Load())
		}
	})
}

func TestT29ErrorIsSharedOnce(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.delay.Store(int64(time.Second))
		w.set(func() { w.err = unavailable })
		var all sync.WaitGroup
		start := time.Now()
		for range 100 {
			all.Go(func() {
				if _, err := w.ask("t", bound(time.Second)); !errors.Is(err, watchword.Unavailable) {
					t.Errorf("%v; want unavailable", err)
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took != time.Second || w.calls.Load() != 1 {
			t.Errorf("%v and %d calls; want 1s and one call: retried serially", took, w.calls.Load())
		}
	})
}

func TestT29PanicIsAnError(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		src := w.cache.Over(watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
			panic("token-canary")
		}), 0)
		_, err := src.Introspect(w.t.Context(), w.query("t", bound(time.Second)))
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v; want an error that does not repeat the panic", err)
		}
	})
}

func TestFlightHasItsOwnDeadline(t *testing.T) {
	in(t, cache.Config{FlightTimeout: 2 * time.Second}, func(w *world) {
		stuck := make(chan struct{})
		src := w.cache.Over(watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
			<-stuck // deaf to its context
			return nil, unavailable
		}), 0)
		start := time.Now()
		_, err := src.Introspect(w.t.Context(), w.query("t", bound(time.Second)))
		if !errors.Is(err, watchword.Unavailable) || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v; want unavailable after 2s", err, time.Since(start))
		}
		close(stuck)
	})
}

// A flight is joined only if an answer asked when it began would be fresh.
func TestFlightTooOldToJoin(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.delay.Store(int64(3 * time.Second))
		var all sync.WaitGroup
		ask := func(d time.Duration) { all.Go(func() { w.check2("t", bound(d)) }) }
		ask(0)
		time.Sleep(2 * time.Second)
		ask(2 * time.Second) // may share
		synctest.Wait()
		if n := w.calls.Load(); n != 1 {
			t.Errorf("%d calls; want 1: an answer asked 2s ago is fresh for a bound of 2s", n)
		}
		ask(2*time.Second - 1) // may not
		ask(0)
		synctest.Wait()
		if n := w.calls.Load(); n != 2 {
			t.Errorf("%d calls; want 2: one flight more, shared by both", n)
		}
		all.Wait()
	})
}

func (w *world) check2(token watchword.Token, f watchword.Freshness) {
	if _, err := w.ask(token, f); err != nil {
		w.t.Error(err)
	}
}

// An older asking that lands after a younger one changes nothing that is remembered.
func TestT32OlderFlightLandsLate(t *testing.T) {
	in(t, cache.Config{FlightTimeout: time.Minute}, func(w *world) {
		var all sync.WaitGroup
		w.delay.Store(int64(10 * time.Second))
		all.Go(func() { w.check2("t", bound(time.Minute)) }) // active, lands at 10s
		synctest.Wait()
		time.Sleep(time.Second)
		w.kill("t")
		w.delay.Store(0)
		w.check("t", bound(0), "inactive", 2) // lands at 1s
		all.Wait()
		w.check("t", bound(time.Minute), "inactive", 3) // what landed at 10s was not remembered
	})
}

func TestStaleIfError(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		f := watchword.Freshness{MaxStaleness: 10 * time.Second, StaleIfError: 20 * time.Second}
		w.check("t", f, "active", 1)
		w.set(func() { w.err = unavailable })
		time.Sleep(30 * time.Second)
		if a, err := w.ask("t", f); a == nil || !errors.Is(err, watchword.Unavailable) { // what was known, beside why there is no better
			t.Errorf("%v, %v", a, err)
		}
		w.check("t", bound(10*time.Second), "unavailable", 3) // no grace asked for
		time.Sleep(1)
		w.check("t", f, "unavailable", 4)
		if n := w.cache.Stats().Lookups[cache.Stale]; n != 1 {
			t.Errorf("%d stale look-ups counted; want 1", n)
		}
	})
}

// Covers: CAC-04 T14
func TestInactiveIsForgottenByDefault(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.kill("t")
		w.check("t", bound(time.Minute), "inactive", 1)
		w.check("t", bound(time.Minute), "inactive", 2)
		w.set(func() { w.dead = nil })
		w.check("t", bound(time.Minute), "active", 3)
	})
}

func TestT14InactiveServesForItsTTL(t *testing.T) {
	in(t, cache.Config{Inactive: cache.Inactive{TTL: 5 * time.Second}}, func(w *world) {
		w.kill("t")
		w.check("t", bound(time.Minute), "inactive", 1)
		w.set(func() { w.dead = nil })
		time.Sleep(5 * time.Second)
		w.check("t", bound(time.Minute), "inactive", 1)
		w.check("t", bound(4*time.Second), "active", 2) // never longer than the bound asked for
		w.kill("u")
		w.check("u", bound(time.Minute), "inactive", 3)
		time.Sleep(5*time.Second + 1)
		w.check("u", bound(time.Minute), "inactive", 4)
	})
}

func TestErrorsAreNeverRemembered(t *testing.T) {
	in(t, cache.Config{Inactive: cache.Inactive{TTL: time.Minute}}, func(w *world) {
		w.set(func() { w.err = unavailable })
		w.check("t", bound(time.Minute), "unavailable", 1)
		w.set(func() { w.err = nil })
		w.check("t", bound(time.Minute), "active", 2)
	})
}

func TestUnknownTokensAreBudgeted(t *testing.T) {
	in(t, cache.Config{Unknown: cache.Unknown{PerSecond: 1, Burst: 3}}, func(w *world) {
		w.check("good", bound(time.Hour), "active", 1)
		for i := range int64(3) {
			bad := watchword.Token(fmt.Sprint("bad", i))
			w.kill(bad)
			w.check(bad, bound(time.Hour), "inactive", 2+i)
		}
		w.check("bad4", bound(time.Hour), "throttled", 4)
		w.check("good", bound(time.Hour), "active", 4) // what is known is served
		w.check("bad5", bound(time.Hour), "throttled", 4)
		time.Sleep(time.Second)
		w.check("good2", bound(time.Hour), "active", 5) // active when asked: costs nothing
		w.check("good3", bound(time.Hour), "active", 6)
		w.kill("good3")
		time.Sleep(1)
		w.check("good3", bound(0), "inactive", 7) // known active here: costs nothing
		w.kill("bad6")
		w.check("bad6", bound(time.Hour), "inactive", 8)
		w.check("bad7", bound(time.Hour), "throttled", 8)
		q := w.query("bad7", bound(time.Hour))
		q.Peer = "192.0.2.2"
		if _, err := w.src.Introspect(w.t.Context(), q); err != nil {
			t.Errorf("another peer: %v", err)
		}
	})
}

func TestThrottledSaysWhenAndIsNoOutage(t *testing.T) {
	in(t, cache.Config{Unknown: cache.Unknown{PerSecond: 1, Burst: 1}}, func(w *world) {
		f := watchword.Freshness{MaxStaleness: time.Second, StaleIfError: time.Hour}
		w.kill("bad")
		w.check("bad", f, "inactive", 1)
		_, err := w.ask("bad2", f)
		var e *watchword.Error
		if !errors.As(err, &e) || e.Failure != watchword.Throttled || e.RetryAfter != time.Second {
			t.Errorf("%+v; want throttled, to be tried again after 1s", err)
		}
	})
}

// Covers: CAC-11
func TestMonotonicAgeAloneEndsAnEntry(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.check("t", bound(10*time.Second), "active", 1)
		time.Sleep(11 * time.Second)
		q := w.query("t", bound(10*time.Second)) // a bubble moves both clocks; the wall alone is TestCAC11… of the root
		if _, err := w.src.Introspect(w.t.Context(), q); err != nil || w.calls.Load() != 2 {
			t.Errorf("%v, %d calls; want a second call", err, w.calls.Load())
		}
	})
}

// Covers: CAC-05 T15
func TestBadConfigNamesEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := cache.New(cache.Config{MaxBytes: -1, FlightTimeout: -1, Inactive: cache.Inactive{TTL: 61 * time.Second, MaxBytes: -1},
		Unknown: cache.Unknown{PerSecond: -1}, RefreshAhead: cache.RefreshAhead{After: 1, MinHits: -1}})
	for _, name := range []string{"MaxBytes", "FlightTimeout", "Inactive.TTL", "Inactive.MaxBytes", "Unknown", "RefreshAhead.After", "RefreshAhead {"} {
		if err == nil || !strings.Contains(err.Error(), "cache: "+name) {
			t.Errorf("%v\nlacks %s", err, name)
		}
	}
}

// Two tokens whose keys share all but the last byte are two entries (the whole digest is compared).
func TestT05WholeKeyIsCompared(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		one, two := w.query("t", bound(time.Minute)), w.query("t", bound(time.Minute))
		two.Key[31]++
		for i, q := range []watchword.Query{one, two, one, two} {
			if _, err := w.src.Introspect(w.t.Context(), q); err != nil {
				t.Fatal(err)
			}
			if want := int64(min(i+1, 2)); w.calls.Load() != want {
				t.Errorf("%d calls; want %d", w.calls.Load(), want)
			}
		}
	})
}
