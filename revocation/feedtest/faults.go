package feedtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// spoken is what a node says that publishes a few events over another log.
func spoken(t *testing.T) [][]byte {
	aside := NewMemory()
	a := start(t, aside, "a node elsewhere")
	for _, id := range []string{"x", "y", "z"} {
		a.publish(t, id)
	}
	a.stop()
	return aside.Bodies()
}

// A message that is lost, or comes in another place, is a gap; one that comes again, or that nobody of ours wrote, is not.
//
// Covers: SIG-21
func tampered(t *testing.T, e Engine) {
	log := open(t, e)
	b, c := start(t, open(t, e), "b"), start(t, open(t, e), "c")
	for _, test := range []struct {
		name string
		gap  bool
		edit func(said [][]byte) [][]byte
	}{
		{"whole", false, func(said [][]byte) [][]byte { return said }},
		{"twice", false, func(said [][]byte) [][]byte { return append(said, said...) }},
		{"garbage between", false, func(said [][]byte) [][]byte { return slices.Insert(said, 2, []byte("garbage")) }},
		{"one lost", true, func(said [][]byte) [][]byte { return slices.Delete(said, 1, 2) }},
		{"reordered", true, func(said [][]byte) [][]byte { said[1], said[2] = said[2], said[1]; return said }},
	} {
		gaps := b.sink.Gaps()
		for _, body := range test.edit(spoken(t)) {
			appendText(t, log, string(body))
		}
		c.publish(t, test.name)
		b.sees(t, test.name)
		if got := b.sink.Gaps() > gaps; got != test.gap {
			t.Errorf("%s: a gap: %v, want %v: %q", test.name, got, test.gap, b.sink.Story())
		}
	}
}

// behind is a log that is read from a mirror which is late.
type behind struct {
	revocation.Log
	by time.Duration
}

// Read implements revocation.Log.
func (l behind) Read(ctx context.Context, from string, each func(revocation.Entry) error, gap func(why string), failed func(err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type late struct {
		at time.Time
		do func() error
	}
	line := make(chan late, 1<<12)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for one := range line {
			time.Sleep(time.Until(one.at.Add(l.by)))
			if ctx.Err() == nil {
				if err := one.do(); err != nil {
					cancel(err)
				}
			}
		}
	}()
	err := l.Log.Read(ctx, from, func(e revocation.Entry) error {
		line <- late{time.Now(), func() error { return each(e) }}
		return context.Cause(ctx)
	}, func(why string) {
		line <- late{time.Now(), func() error { gap(why); return nil }}
	}, failed)
	close(line)
	<-done
	return err
}

// Who reads a mirror that is 200 ms behind hears of everything, and of the proofs in their order, later and without a gap.
//
// Covers: SIG-21
func mirror(t *testing.T, e Engine) {
	a := start(t, open(t, e), "a")
	b := start(t, behind{open(t, e), 200 * time.Millisecond}, "b")
	gaps, through := b.sink.Gaps(), time.Now()
	for _, id := range texts(20, "event") {
		a.publish(t, id)
	}
	insist(t, "prove", func(ctx context.Context) error { return a.fleet.Prove(ctx, "main", through) })
	until(t, "the proof", func() bool { return !b.sink.Through("main").IsZero() })
	for _, id := range texts(20, "event") {
		if !b.sink.Has(id) {
			t.Errorf("a proof overtook %s", id)
		}
	}
	if b.sink.Gaps() != gaps || b.sink.Through("main").After(through) {
		t.Errorf("until %v: %q", b.sink.Through("main"), b.sink.Story())
	}
}

// While nobody reaches the engine a node goes on by itself, and what it heard meanwhile reaches the others, also where no
// sender repeats it.
//
// Covers: SIG-21
func partition(t *testing.T, e Engine) {
	if e.Pause == nil {
		t.Skip("this engine cannot be made to hang here")
	}
	a, b := start(t, open(t, e), "a"), start(t, open(t, e), "b")
	a.publish(t, "before")
	b.sees(t, "before")
	resume := e.Pause(t)
	var cut []string // an engine of many threads stops a moment later
	for n, deadline := 0, time.Now().Add(patience); len(cut) < 2; n++ {
		id := fmt.Sprint("cut ", n)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if err := a.fleet.Publish(ctx, event(id)); err != nil {
			cut = append(cut, id)
		}
		cancel()
		if !a.sink.Has(id) {
			t.Errorf("%s is not in force where it was heard", id)
		}
		if time.Now().After(deadline) {
			t.Fatal("the engine goes on")
		}
	}
	resume()
	for _, id := range cut {
		b.sees(t, id)
	}
	a.publish(t, "after")
	b.sees(t, "after")
}
