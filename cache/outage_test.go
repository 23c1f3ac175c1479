package cache_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// A peer that asks faster than answers come must not spend its budget many times over.
//
// Covers: CAC-12
func TestBudgetCountsWhatIsInTheAir(t *testing.T) {
	in(t, cache.Config{Unknown: cache.Unknown{PerSecond: 1, Burst: 50}}, func(w *world) {
		w.set(func() { w.body = `{"active":false}` })
		w.delay.Store(int64(100 * time.Millisecond))
		ask := func(peer string, n int) {
			var wait sync.WaitGroup
			for i := range n {
				wait.Go(func() {
					name := watchword.Token(fmt.Sprintf("%s-%d", peer, i))
					q := w.query(name, watchword.Freshness{MaxStaleness: 30 * time.Second})
					q.Peer = peer
					_, _ = w.src.Introspect(w.t.Context(), q)
				})
			}
			wait.Wait()
		}
		ask("203.0.113.9", 5000)
		if n := w.calls.Load(); n != 50 {
			t.Errorf("%d questions for 5,000 strange tokens at once; the budget is 50", n)
		}
		w.set(func() { w.body = `{"active":true}` })
		time.Sleep(time.Minute)
		w.calls.Store(0)
		for i := range 4 {
			for n := range 50 { // real ones give back what they took
				q := w.query(watchword.Token(fmt.Sprintf("real-%d-%d", i, n)), bound(30*time.Second))
				if a, err := w.src.Introspect(w.t.Context(), q); err != nil || !a.Active() {
					t.Fatalf("real token %d: %v, %v", 50*i+n, a, err)
				}
			}
		}
	})
}

// A storm's answer may be the truth: it is no outage for stale_if_error, unless the route says so.
//
// Covers: OUT-04 T13
func TestDoubtIsExcusedOnlyWhereHeld(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		q := w.query("a", watchword.Freshness{MaxStaleness: time.Second, StaleIfError: time.Hour})
		w.check("a", q.Freshness, "active", 1)
		time.Sleep(time.Minute)
		w.set(func() { w.err = &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", Doubted: true} })
		for _, hold := range []bool{false, true} {
			q.At, q.Hold = time.Now(), hold
			before := w.cache.Stats().Lookups[cache.Stale]
			if _, err := w.src.Introspect(w.t.Context(), q); !errors.Is(err, watchword.Unavailable) {
				t.Errorf("hold %v: %v; want unavailable", hold, err)
			}
			if served := w.cache.Stats().Lookups[cache.Stale] > before; served != hold {
				t.Errorf("hold %v: counted as stale: %v", hold, served)
			}
		}
	})
}

// While the server is doubted a flood of strange tokens costs its peer as much as ever.
func TestDoubtIsCharged(t *testing.T) {
	in(t, cache.Config{Unknown: cache.Unknown{PerSecond: 1, Burst: 5}}, func(w *world) {
		w.set(func() { w.err = &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", Doubted: true} })
		for i := range 10 {
			_, _ = w.src.Introspect(w.t.Context(), w.query(watchword.Token(fmt.Sprint(i)), watchword.Freshness{MaxStaleness: time.Minute}))
		}
		if n := w.calls.Load(); n != 5 {
			t.Errorf("%d questions, want 5", n)
		}
	})
}

// A refresh that had to give way takes nobody with it who waits.
func TestWhoeverJoinsARefreshThatGaveWayAsksAgain(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		f := watchword.Freshness{MaxStaleness: 10 * time.Second}
		w.check("a", f, "active", 1)
		time.Sleep(9 * time.Second)
		w.delay.Store(int64(time.Second))
		w.set(func() { w.err = &watchword.Error{Failure: watchword.Unavailable, Issuer: "main"} })
		for range 3 {
			_, _ = w.src.Introspect(w.t.Context(), w.query("a", f)) // due: one of these starts a refresh
		}
		time.Sleep(time.Millisecond)
		w.set(func() {
			if n := len(w.asked); n != 2 || !w.asked[1].Background || w.asked[0].Background {
				t.Fatalf("asked %d times; want a question and a background question", n)
			}
			w.err = nil
		})
		strict := w.query("a", watchword.Freshness{MaxStaleness: time.Second}) // joins the refresh
		if a, err := w.src.Introspect(w.t.Context(), strict); err != nil || !a.Active() {
			t.Errorf("%v, %v; want an answer asked for again", a, err)
		}
	})
}
