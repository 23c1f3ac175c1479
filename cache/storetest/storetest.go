// Package storetest is what every cache.Store must do, against the real engine.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/cache"
)

// Config says how to reach one engine.
type Config struct {
	// Open returns a Store on the same data each time, over a connection of its own, closed when t ends.
	Open func(t *testing.T) cache.Store
	// Smudge puts bytes under key that Put never wrote; nil: nobody can.
	Smudge func(t *testing.T, key cache.Digest, body []byte)
}

// patience bounds every wait for an engine that shares its machine with others.
const patience = 20 * time.Second

// Run drives a Store through its contract. Keys are of t's name, so that several runs can share an engine.
func Run(t *testing.T, c Config) {
	t.Run("get and put", func(t *testing.T) { getPut(t, c) })
	t.Run("the younger wins", func(t *testing.T) { younger(t, c) })
	t.Run("writers race", func(t *testing.T) { race(t, c) })
	t.Run("life ends", func(t *testing.T) { life(t, c) })
	t.Run("lease", func(t *testing.T) { lease(t, c) })
	t.Run("one lease of many", func(t *testing.T) { leases(t, c) })
	t.Run("context", func(t *testing.T) { canceled(t, c) })
	t.Run("foreign values", func(t *testing.T) { foreign(t, c) })
	t.Run("clock", func(t *testing.T) { clock(t, c) })
	t.Run("notices", func(t *testing.T) { notices(t, c) })
}

func key(t *testing.T, n int) cache.Digest {
	return sha256.Sum256(fmt.Append(nil, t.Name(), " ", n, time.Now().UnixNano()))
}

func item(text string, asOf time.Time) cache.Item {
	return cache.Item{Sealed: []byte(text), AsOf: asOf}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, s cache.Store, k cache.Digest, text string) {
	t.Helper()
	got, err := s.Get(t.Context(), k)
	ok(t, err)
	switch {
	case got == nil && text != "":
		t.Fatalf("nothing is stored; want %q", text)
	case got != nil && string(got.Sealed) != text:
		t.Fatalf("%.40q is stored; want %.40q", got.Sealed, text)
	}
}

func getPut(t *testing.T, c Config) {
	s, other, k := c.Open(t), c.Open(t), key(t, 0)
	want(t, s, k, "")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	at := time.Now().Add(-time.Second)
	ok(t, s.Put(t.Context(), k, cache.Item{Sealed: every, AsOf: at, Inactive: true}, time.Minute))
	want(t, other, k, string(every))
	if got, err := other.Get(t.Context(), k); err != nil || !got.Inactive || got.AsOf.UnixNano() != at.UnixNano() {
		t.Errorf("%+v, %v", got, err)
	}
	largest := bytes.Repeat([]byte{0}, cache.MaxItemBytes)
	k = key(t, 1)
	ok(t, s.Put(t.Context(), k, cache.Item{Sealed: largest, AsOf: at}, time.Minute))
	want(t, other, k, string(largest))
}

func younger(t *testing.T, c Config) {
	s, other, k, at := c.Open(t), c.Open(t), key(t, 0), time.Now()
	ok(t, s.Put(t.Context(), k, item("second", at), time.Minute))
	ok(t, other.Put(t.Context(), k, item("older by 1 ns", at.Add(-1)), time.Minute))
	want(t, s, k, "second")
	ok(t, other.Put(t.Context(), k, item("as old", at), time.Minute))
	want(t, s, k, "second")
	ok(t, other.Put(t.Context(), k, item("younger by 1 ns", at.Add(1)), time.Minute))
	want(t, s, k, "younger by 1 ns")
	ok(t, s.Put(t.Context(), k, item("before the epoch", time.Unix(-5, 0)), time.Minute))
	want(t, s, k, "younger by 1 ns")
}

// race lets many writers write at once in random order: the youngest is what stays.
func race(t *testing.T, c Config) {
	const writers, each = 8, 10
	k, at := key(t, 0), time.Now()
	var wait sync.WaitGroup
	for w := range writers {
		s := c.Open(t)
		wait.Go(func() {
			for i := range each {
				age := (i*writers + w) * 37 % (writers * each)
				if err := s.Put(t.Context(), k, item(fmt.Sprint(age), at.Add(-time.Duration(age))), time.Minute); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	want(t, c.Open(t), k, "0")
}

func life(t *testing.T, c Config) {
	s, k := c.Open(t), key(t, 0)
	ok(t, s.Put(t.Context(), k, item("short", time.Now()), 300*time.Millisecond))
	until(t, "the end of a life", func() bool {
		got, err := s.Get(t.Context(), k)
		ok(t, err)
		return got == nil
	})
	ok(t, s.Put(t.Context(), k, item("an older one after it", time.Now().Add(-time.Hour)), time.Minute))
	want(t, s, k, "an older one after it")
	none := key(t, 1)
	ok(t, s.Put(t.Context(), none, item("no life", time.Now()), 0))
	want(t, s, none, "")
}

func lease(t *testing.T, c Config) {
	s, other, k := c.Open(t), c.Open(t), key(t, 0)
	release, err := s.Lease(t.Context(), k, time.Minute)
	ok(t, err)
	if release == nil {
		t.Fatal("nobody has the lease, and it is not given")
	}
	for _, again := range []cache.Store{s, other} {
		if second, err := again.Lease(t.Context(), k, time.Minute); err != nil || second != nil {
			t.Fatalf("a lease is given twice (%v)", err)
		}
	}
	want(t, s, k, "") // a lease is no value
	ok(t, release(t.Context()))
	const life = 300 * time.Millisecond
	given := time.Now()
	short, err := other.Lease(t.Context(), k, life)
	ok(t, err)
	if short == nil {
		t.Fatal("a lease given back is not given again")
	}
	ok(t, release(t.Context())) // not its own any more
	next, err := s.Lease(t.Context(), k, time.Minute)
	if err != nil || next != nil && time.Since(given) < life { // a slow machine may be here when it is over
		t.Fatalf("somebody else's lease was given back (%v)", err)
	}
	for end := time.Now().Add(patience); next == nil; time.Sleep(5 * time.Millisecond) {
		if next, err = s.Lease(t.Context(), k, time.Minute); err != nil || time.Now().After(end) {
			t.Fatalf("waited in vain for the end of a lease (%v)", err)
		}
	}
	ok(t, short(t.Context())) // is over
	if third, err := other.Lease(t.Context(), k, time.Minute); err != nil || third != nil {
		t.Fatalf("a lease that was over took the next one along (%v)", err)
	}
	ok(t, next(t.Context()))
}

func leases(t *testing.T, c Config) {
	k := key(t, 0)
	var given atomic.Int32
	var wait sync.WaitGroup
	for range 8 {
		s := c.Open(t)
		wait.Go(func() {
			release, err := s.Lease(t.Context(), k, time.Minute)
			if err != nil {
				t.Error(err)
			}
			if release != nil {
				given.Add(1)
			}
		})
	}
	wait.Wait()
	if n := given.Load(); n != 1 {
		t.Errorf("%d of 8 have the lease", n)
	}
}

func canceled(t *testing.T, c Config) {
	s, k := c.Open(t), key(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, k); err == nil {
		t.Error("Get ignores its context")
	}
	if err := s.Put(ctx, k, item("x", time.Now()), time.Minute); err == nil {
		t.Error("Put ignores its context")
	}
	if release, err := s.Lease(ctx, k, time.Minute); err == nil || release != nil {
		t.Error("Lease ignores its context")
	}
}

// Covers: CAC-07
func foreign(t *testing.T, c Config) {
	if c.Smudge == nil {
		t.Skip("nobody else can write there")
	}
	s := c.Open(t)
	for i, body := range [][]byte{{}, []byte("x"), []byte("0000000000000000000x"), []byte("-0000000000000000001a..."), bytes.Repeat([]byte("9"), 100),
		bytes.Repeat([]byte("0"), cache.MaxEncodedItemBytes+1)} {
		k := key(t, i)
		c.Smudge(t, k, body)
		if got, err := s.Get(t.Context(), k); err != nil || got != nil {
			t.Errorf("%.30q is an item: %v, %v", body, got, err)
		}
		ok(t, s.Put(t.Context(), k, item("mine", time.Now()), time.Minute))
		want(t, s, k, "mine")
	}
}

func clock(t *testing.T, c Config) {
	s, is := c.Open(t).(cache.Clocked)
	if !is {
		t.Skip("it has no clock of its own")
	}
	before := time.Now()
	got, err := s.Clock(t.Context())
	ok(t, err)
	if off := got.Sub(before); off < -time.Second || off > time.Since(before)+time.Second {
		t.Errorf("on one machine its clock is off by %v", off)
	}
}

func notices(t *testing.T, c Config) {
	s, is := c.Open(t).(cache.Noticing)
	if !is {
		t.Skip("it gives no notices")
	}
	other := c.Open(t)
	ready, heard, ended := make(chan struct{}), make(chan cache.Digest, 64), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		ended <- s.Notice(ctx, func() { close(ready) }, func(d cache.Digest) {
			select {
			case heard <- d:
			default:
			}
		})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(patience):
		t.Fatal("it is never ready")
	}
	k := key(t, 0)
	ok(t, other.Put(t.Context(), k, item("x", time.Now()), time.Minute))
	for deadline := time.After(patience); ; {
		select {
		case d := <-heard:
			if d != k {
				continue
			}
		case <-deadline:
			t.Fatal("no notice of a write came")
		}
		break
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it goes on after its context has ended")
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for ", what)
		}
	}
}
