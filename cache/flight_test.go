package cache_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// A younger asking that fails says nothing about what an older one will bring: that is remembered, and shared by
// whoever may join it. Otherwise a server that fails now and then would be asked again and again, and a stale answer
// that it gave would be missing when it is needed.
//
// Covers: CAC-04 T29
func TestAYoungerFlightThatFailsChangesNothing(t *testing.T) {
	in(t, cache.Config{FlightTimeout: time.Minute}, func(w *world) {
		var all sync.WaitGroup
		w.delay.Store(int64(10 * time.Second))
		all.Go(func() { w.check2("t", bound(time.Minute)) }) // lands at 10s
		time.Sleep(time.Second)
		w.delay.Store(0)
		w.set(func() { w.err = unavailable })
		w.check("t", bound(0), "unavailable", 2) // lands at 1s
		all.Go(func() { w.check2("t", bound(time.Minute)) })
		synctest.Wait()
		if n := w.calls.Load(); n != 2 {
			t.Errorf("%d calls; want 2: an answer asked a second ago is fresh for a bound of a minute", n)
		}
		all.Wait()
		w.check("t", bound(time.Minute), "active", 2)
	})
}

// The same in every order in which three askings about one token may land, each with every outcome: what is remembered
// in the end is what the youngest that was answered brought, and whoever remembers the token elsewhere knows of an
// inactive answer that is younger than an active one.
//
// Covers: T32
func TestT32FlightsLandInAnyOrder(t *testing.T) {
	const flights = 3
	outcomes := []string{`{"active":true}`, `{"active":false}`, ""} // the last: an error
	for _, order := range [][flights]int{{1, 2, 3}, {1, 3, 2}, {2, 1, 3}, {2, 3, 1}, {3, 1, 2}, {3, 2, 1}} {
		for n := range 27 {
			var told time.Time
			said := [flights]string{outcomes[n%3], outcomes[n/3%3], outcomes[n/9]}
			t.Run("", func(t *testing.T) {
				c := cache.Config{FlightTimeout: time.Minute, OnInactive: func(_ watchword.Query, a *watchword.Answer) {
					if watchword.Age(a.AsOf(), told) > 0 {
						told = a.AsOf()
					}
				}, WasActive: func(watchword.Query) bool { return !told.IsZero() }}
				in(t, c, func(w *world) {
					var all sync.WaitGroup
					began, active, inactive := time.Now(), time.Time{}, time.Time{}
					for i, body := range said {
						w.delay.Store(int64(time.Duration(10*order[i]) * time.Second))
						w.set(func() {
							if w.body, w.err = body, nil; body == "" {
								w.err = unavailable
							}
						})
						all.Go(func() { _, _ = w.ask("t", bound(0)) })
						synctest.Wait()
						switch body {
						case outcomes[0]:
							active = time.Now()
						case outcomes[1]:
							inactive = time.Now()
						}
						time.Sleep(time.Second)
					}
					all.Wait()
					var known time.Time
					for _, a := range w.cache.All() {
						known = a.AsOf()
					}
					switch {
					case active.After(inactive) && !known.Equal(active):
						t.Errorf("%q landing as %v: as of %v is remembered; want %v", said, order, known.Sub(began), active.Sub(began))
					case inactive.After(active) && !known.IsZero():
						t.Errorf("%q landing as %v: as of %v is remembered although it is inactive as of %v", said, order, known.Sub(began), inactive.Sub(began))
					case inactive.After(active) && !active.IsZero() && !told.Equal(inactive):
						t.Errorf("%q landing as %v: nobody was told that it is inactive as of %v", said, order, inactive.Sub(began))
					}
				})
			})
		}
	}
}
