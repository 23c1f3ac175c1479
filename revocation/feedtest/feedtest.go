// Package feedtest is what every revocation.Log must do, and what a revocation.Fleet makes of it: one suite for all
// engines, in memory, embedded or real.
package feedtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// patience bounds every wait; no test's outcome depends on how long one took.
const patience = 30 * time.Second

// Engine is one empty log, for one test.
type Engine struct {
	// Open connects one node more. The suite closes what it opens.
	Open func(t *testing.T) revocation.Log
	// Restart ends the engine as kill -9 does, and starts it again with what it had stored. nil: cannot be tested.
	Restart func(t *testing.T)
	// Pause lets the engine answer nobody until resume is called. nil: cannot be tested.
	Pause func(t *testing.T) (resume func())
	// Lose makes the engine lose what last calls of write put into it after it acknowledged them, as a failover to a
	// replica that missed them does. nil: cannot be tested.
	Lose func(t *testing.T, write func())
}

// Run runs the whole suite; fresh makes an Engine for each test of it.
func Run(t *testing.T, fresh func(t *testing.T) Engine) {
	for _, test := range []struct {
		name string
		f    func(*testing.T, Engine)
	}{
		{"order", order}, {"resume", resume}, {"keep", keep}, {"large", large}, {"ends", ends},
		{"fleet", fleet}, {"late joiner", lateJoiner}, {"strangers", strangers},
		{"tampered", tampered}, {"mirror", mirror}, {"partition", partition},
		{"restart", restart}, {"lose", lose},
	} {
		t.Run(test.name, func(t *testing.T) { test.f(t, fresh(t)) })
	}
}

// Lose is the last test of Run alone, for an engine that needs a cluster to lose anything.
func Lose(t *testing.T, e Engine) { lose(t, e) }

// reader reads a log in the background.
type reader struct {
	mu     sync.Mutex
	bodies []string
	marks  []string
	gaps   []string
	stop   context.CancelFunc
	done   chan struct{}
}

func read(t *testing.T, log revocation.Log, from string) *reader {
	ctx, stop := context.WithCancel(t.Context())
	r := &reader{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for ctx.Err() == nil {
			_ = log.Read(ctx, from, func(e revocation.Entry) error {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.bodies, r.marks, from = append(r.bodies, string(e.Body)), append(r.marks, e.Position), e.Position
				if len(e.Position) > 1024 {
					t.Errorf("a position of %d bytes", len(e.Position))
				}
				return nil
			}, func(why string) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.gaps = append(r.gaps, why)
			}, func(error) {})
		}
	}()
	t.Cleanup(func() { stop(); <-r.done })
	return r
}

func (r *reader) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bodies)
}

func (r *reader) gapped() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.gaps)
}

// until polls; a real engine has no channel to wait on.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func open(t *testing.T, e Engine) revocation.Log {
	t.Helper()
	log := e.Open(t)
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return log
}

// insist appends until the engine says yes, as a Fleet does.
func insist(t *testing.T, what string, do func(ctx context.Context) error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err = do(ctx)
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func appendText(t *testing.T, log revocation.Log, text string) {
	t.Helper()
	insist(t, "append", func(ctx context.Context) error { return log.Append(ctx, []byte(text)) })
}

func texts(n int, name string) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s %d", name, i))
	}
	return all
}

// Every node reads everything, in one order, also what was there before it came.
func order(t *testing.T, e Engine) {
	a, b := open(t, e), open(t, e)
	first := read(t, b, "")
	want := texts(40, "message")
	for _, w := range want[:20] {
		appendText(t, a, w)
	}
	until(t, "the first half", func() bool { return len(first.seen()) >= 20 })
	second := read(t, a, "")
	for _, w := range want[20:] {
		appendText(t, b, w)
	}
	for i, r := range []*reader{first, second} {
		until(t, "everything", func() bool { return len(r.seen()) >= len(want) })
		if got := r.seen(); !slices.Equal(got, want) {
			t.Errorf("reader %d read %q", i, got)
		}
		if n := r.gapped(); n > 0 {
			t.Errorf("reader %d was told of %d gaps: %q", i, n, r.gaps)
		}
	}
}

// A position is where to go on.
func resume(t *testing.T, e Engine) {
	log := open(t, e)
	want := texts(30, "message")
	for _, w := range want[:20] {
		appendText(t, log, w)
	}
	first := read(t, log, "")
	until(t, "what is there", func() bool { return len(first.seen()) >= 20 })
	first.stop()
	<-first.done
	for _, w := range want[20:] {
		appendText(t, log, w)
	}
	again := read(t, open(t, e), first.marks[9])
	until(t, "the rest", func() bool { return len(again.seen()) >= 20 })
	if got := again.seen(); !slices.Equal(got, want[10:]) {
		t.Errorf("read %q, want what is after the tenth", got)
	}
	if again.gapped() > 0 {
		t.Errorf("told of gaps: %q", again.gaps)
	}
}

// What is kept is there for who comes later, until it is over.
func keep(t *testing.T, e Engine) {
	log := open(t, e)
	put := func(key, body string, until time.Time) {
		insist(t, "keep", func(ctx context.Context) error { return log.Keep(ctx, key, []byte(body), until) })
	}
	long := time.Now().Add(time.Hour)
	for i := range 300 {
		put(fmt.Sprintf("key%d", i), "old", long)
	}
	put("key7", "new", long)
	put("over", "over", time.Now().Add(-time.Second))
	put("soon", "soon", time.Now().Add(1200*time.Millisecond))
	kept := func() map[string]string {
		got := map[string]string{}
		insist(t, "kept", func(ctx context.Context) error {
			clear(got)
			return log.Kept(ctx, func(key string, body []byte) error { got[key] = string(body); return nil })
		})
		return got
	}
	until(t, "what is over to be gone", func() bool { g := kept(); return g["soon"] == "" && g["over"] == "" })
	got := kept()
	if len(got) != 300 || got["key7"] != "new" || got["key8"] != "old" {
		t.Errorf("%d are kept, key7 %q, key8 %q", len(got), got["key7"], got["key8"])
	}
	other := 0
	insist(t, "kept by another node", func(ctx context.Context) error {
		other = 0
		return open(t, e).Kept(ctx, func(string, []byte) error { other++; return nil })
	})
	if other != 300 {
		t.Errorf("another node finds %d", other)
	}
	stop := errors.New("enough")
	if err := log.Kept(t.Context(), func(string, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the error of each is lost: %v", err)
	}
}

// A body may be as large as a record gets, and hold any byte.
func large(t *testing.T, e Engine) {
	log := open(t, e)
	body := bytes.Repeat([]byte{0, 1, '\r', '\n', 0xff}, revocation.MaxRecordBytes/5)
	r := read(t, log, "")
	appendText(t, log, string(body))
	until(t, "it", func() bool { return len(r.seen()) > 0 })
	if r.seen()[0] != string(body) {
		t.Error("it came back as something else")
	}
}

// Read ends with its context, and with the error of who reads.
func ends(t *testing.T, e Engine) {
	log := open(t, e)
	appendText(t, log, "one")
	stop := errors.New("enough")
	if err := log.Read(t.Context(), "", func(revocation.Entry) error { return stop }, func(string) {}, func(error) {}); !errors.Is(err, stop) {
		t.Errorf("the error of each is lost: %v", err)
	}
	r := read(t, log, "")
	until(t, "the message", func() bool { return len(r.seen()) == 1 })
	r.stop()
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Error("Read goes on after its context ended")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := log.Append(gone, []byte("late")); err == nil {
		t.Error("Append succeeds with a context that ended")
	}
}

// What was acknowledged before kill -9 is there after it, readers go on by themselves, and nobody misses anything.
//
// Covers: SIG-21
func restart(t *testing.T, e Engine) {
	if e.Restart == nil {
		t.Skip("this engine cannot be killed here")
	}
	log := open(t, e)
	r := read(t, open(t, e), "")
	want := texts(20, "before")
	for _, w := range want {
		appendText(t, log, w)
	}
	insist(t, "keep", func(ctx context.Context) error { return log.Keep(ctx, "k", []byte("kept"), time.Now().Add(time.Hour)) })
	e.Restart(t)
	appendText(t, log, "after")
	until(t, "what came after", func() bool { return slices.Contains(r.seen(), "after") })
	late := read(t, open(t, e), "")
	until(t, "a late reader", func() bool { return slices.Contains(late.seen(), "after") })
	for _, seen := range [][]string{r.seen(), late.seen()} {
		for i := len(seen) - 1; i > 0; i-- { // after a gap a log may be read again
			if seen[i] == want[0] {
				seen = seen[i:]
				break
			}
		}
		if len(seen) < len(want) || !slices.Equal(seen[:len(want)], want) {
			t.Errorf("acknowledged and lost: %q", seen)
		}
	}
	var kept string
	insist(t, "kept", func(ctx context.Context) error {
		return log.Kept(ctx, func(_ string, body []byte) error { kept = string(body); return nil })
	})
	if kept != "kept" {
		t.Errorf("kept is %q", kept)
	}
}

// A failover that lost what was acknowledged is a gap for who reads on.
//
// Covers: SIG-21
func lose(t *testing.T, e Engine) {
	if e.Lose == nil {
		t.Skip("this engine cannot be made to lose here")
	}
	writer, other := open(t, e), open(t, e)
	a, b := start(t, writer, "a"), start(t, other, "b")
	a.publish(t, "before")
	b.sees(t, "before")
	gaps := b.sink.Gaps()
	e.Lose(t, func() { a.publish(t, "lost") })
	until(t, "the gap to be noticed", func() bool { return b.sink.Gaps() > gaps })
	insist(t, "publish after the failover", func(ctx context.Context) error { return a.fleet.Publish(ctx, event("after")) })
	b.sees(t, "after")
}
