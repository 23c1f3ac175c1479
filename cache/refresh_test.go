package cache_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/cache"
)

// Covers: CAC-10
func TestRefreshAhead(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		f := bound(100 * time.Second)
		w.check("t", f, "active", 1)
		time.Sleep(75 * time.Second)
		w.check("t", f, "active", 1) // not due yet
		time.Sleep(time.Second)
		w.check("t", f, "active", 1) // one hit is not popular
		w.check("t", f, "active", 1) // the second starts a refresh, and does not wait for it
		synctest.Wait()
		w.check("t", f, "active", 2)
		time.Sleep(75 * time.Second)
		w.check("t", f, "active", 2) // the refreshed answer serves
	})
}

func TestCAC10RefreshFails(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		f := bound(100 * time.Second)
		w.check("t", f, "active", 1)
		w.set(func() { w.err = unavailable })
		time.Sleep(80 * time.Second)
		w.check("t", f, "active", 1)
		w.check("t", f, "active", 1)
		synctest.Wait()
		for range 5 {
			w.check("t", f, "active", 2) // an error changes nothing, and is not repeated for this answer
			synctest.Wait()
		}
		time.Sleep(20*time.Second + 1)
		w.check("t", f, "unavailable", 3)
	})
}

func TestRefreshFindsItInactive(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		f := bound(100 * time.Second)
		w.check("t", f, "active", 1)
		w.kill("t")
		time.Sleep(80 * time.Second)
		w.check("t", f, "active", 1)
		w.check("t", f, "active", 1)
		synctest.Wait()
		w.check("t", f, "inactive", 3) // replaced at once: nothing is remembered, so it is asked
	})
}

func TestCAC10RefreshNotPastExp(t *testing.T) {
	in(t, cache.Config{}, func(w *world) {
		w.set(func() { w.body = `{"active":true,"expires_in":90}` })
		f := bound(100 * time.Second)
		w.check("t", f, "active", 1)
		time.Sleep(80 * time.Second)
		for range 5 {
			w.check("t", f, "active", 1) // it ends before its answer is too old
			synctest.Wait()
		}
	})
}
