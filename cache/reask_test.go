package cache_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

var tenSeconds = watchword.Freshness{MaxStaleness: 10 * time.Second, MaxAge: time.Hour}

// hashed is a query with a key as a Verifier makes them: spread evenly.
func (w *world) hashed(token watchword.Token, f watchword.Freshness) watchword.Query {
	q := w.query(token, f)
	q.Key = sha256.Sum256([]byte(token))
	return q
}

// covered asks with the proof of a feed that reaches until through.
func (w *world) covered(token watchword.Token, since, through time.Time, f watchword.Freshness) (*watchword.Answer, error) {
	q := w.hashed(token, f)
	q.Coverage = watchword.Coverage{Since: since, Through: through}
	return w.src.Introspect(w.t.Context(), q)
}

// remember lets n tokens be asked about once, and grow older than the bound.
func (w *world) remember(n int) (since time.Time) {
	w.t.Helper()
	since = time.Now().Add(-time.Minute)
	for i := range n {
		if _, err := w.src.Introspect(w.t.Context(), w.hashed(numbered(i), tenSeconds)); err != nil {
			w.t.Fatal(err)
		}
	}
	time.Sleep(time.Minute)
	w.set(func() { w.asked = nil })
	w.calls.Store(0)
	return since
}

func numbered(i int) watchword.Token { return watchword.Token(fmt.Sprintf("%04d", i)) }

// While the proof of a feed is younger than half the bound nobody is asked; then the hottest are, at the rate; and no
// hit waits.
func TestReaskingStartsEarlyAndWithTheHottest(t *testing.T) {
	in(t, cache.Config{ReaskPerSecond: 10}, func(w *world) {
		const n = 100
		since := w.remember(n)
		through := time.Now()
		hit := func(i, times int) {
			for range times {
				if a, err := w.covered(numbered(i), since, through, tenSeconds); err != nil || !a.Active() {
					t.Fatal(a, err)
				}
			}
		}
		time.Sleep(5 * time.Second)
		for i := range n {
			hit(i, 64)
		}
		synctest.Wait()
		if c := w.calls.Load(); c != 0 {
			t.Fatalf("%d questions while the proof was young", c)
		}
		time.Sleep(time.Millisecond)
		hit(99, 1)
		synctest.Wait() // the burst of one goes to the first
		for i := range n - 1 {
			hit(i, 1<<(i/20)) // the last twenty are the hottest
		}
		for second := range 2 {
			time.Sleep(time.Second)
			synctest.Wait()
			if c := w.calls.Load(); c < int64(10*(second+1)) || c > int64(10*(second+1)+2) {
				t.Errorf("%d questions in %d s", c, second+1)
			}
		}
		w.set(func() {
			for i, q := range w.asked[1:] {
				if i < 19 && q.Token < numbered(80) {
					t.Errorf("question %d was about %s, which is not hot", i, string(q.Token))
				}
				if !q.Background || q.AskedSince.IsZero() {
					t.Errorf("%+v", q.AskedSince)
				}
			}
		})
	})
}

// Past the bound an answer that only the proof kept fresh is fresh no more. Who finds the rate spent is told that
// nobody knows and when to come again; the server sees the rate and no more.
func TestNoCliffWhenAFeedFallsSilent(t *testing.T) {
	in(t, cache.Config{ReaskPerSecond: 20}, func(w *world) {
		const n = 200
		since := w.remember(n)
		through := time.Now()
		time.Sleep(10*time.Second + time.Millisecond)
		f := tenSeconds
		f.StaleIfError = time.Hour
		began, known, unknown := time.Now(), 0, 0
		for time.Since(began) < 4*time.Second {
			for i := range n {
				a, err := w.covered(numbered(i), since, through, f)
				e, _ := errors.AsType[*watchword.Error](err)
				switch {
				case err == nil && watchword.Age(time.Now(), a.AsOf()) <= 10*time.Second:
					known++
				case err == nil:
					t.Fatalf("an answer of %v ago served", watchword.Age(time.Now(), a.AsOf()))
				case e == nil || e.Failure != watchword.Unavailable || e.RetryAfter <= 0 || a != nil:
					t.Fatal(a, err)
				default:
					unknown++
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		if c := w.calls.Load(); c < 70 || c > 84 {
			t.Errorf("%d questions in 4 s at 20 a second", c)
		}
		if known == 0 || unknown == 0 || w.cache.Stats().Lookups[cache.Paced] != uint64(unknown) {
			t.Errorf("%d known, %d unknown, %v", known, unknown, w.cache.Stats().Lookups)
		}
	})
}

// An event that questions many answers: the server is asked at the rate.
func TestRevalidationKeepsTheRate(t *testing.T) {
	in(t, cache.Config{ReaskPerSecond: 50}, func(w *world) {
		const n = 300
		w.remember(n)
		event := time.Now()
		time.Sleep(time.Second)
		fresh, began := 0, time.Now()
		for fresh < n {
			fresh = 0
			for i := range n {
				q := w.hashed(numbered(i), watchword.Freshness{MaxStaleness: time.Hour})
				q.AskedSince = event
				if a, err := w.src.Introspect(w.t.Context(), q); err == nil {
					if fresh++; watchword.Age(a.AsOf(), event) < 0 {
						t.Fatal("an answer from before the event served")
					}
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
		if took := time.Since(began); took < 5*time.Second || took > 7*time.Second {
			t.Errorf("%d answers took %v at 50 a second", n, took)
		}
		if c := w.calls.Load(); c != n {
			t.Errorf("%d questions about %d tokens", c, n)
		}
	})
}

// What is merely old, new here, or rechecked by chance is no consequence of a revocation, and is not held back.
func TestOrdinaryQuestionsAreNotPaced(t *testing.T) {
	in(t, cache.Config{ReaskPerSecond: 1}, func(w *world) {
		since := w.remember(50)
		for i := range 50 {
			if _, err := w.src.Introspect(w.t.Context(), w.hashed(numbered(i), tenSeconds)); err != nil || w.calls.Load() != int64(i+1) {
				t.Fatal(err, w.calls.Load())
			}
		}
		for i := range 50 { // rechecks
			time.Sleep(time.Millisecond)
			q := w.hashed(numbered(i), tenSeconds)
			q.AskedSince = q.At
			if _, err := w.src.Introspect(w.t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour) // beyond max_age, feed or not
		for i := range 100 {
			if _, err := w.covered(numbered(i), since, time.Now(), tenSeconds); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.cache.Stats().Lookups[cache.Paced]; n != 0 {
			t.Errorf("%d were held back", n)
		}
	})
}
