package revocation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
)

// A jump shows as the wall, or the clock that counts sleep, moving against the monotonic clock.
func TestJumped(t *testing.T) {
	t.Parallel()
	now := time.Now()
	reading := func(monotonic, boot time.Duration) clocks { return clocks{now.Add(monotonic), boot} }
	for _, c := range []struct {
		before, after clocks
		want          time.Duration
	}{
		{reading(0, time.Hour), reading(time.Second, time.Hour+time.Second), 0},
		{reading(0, time.Hour), reading(time.Second, 2*time.Hour+time.Second), time.Hour}, // the host slept
		{reading(0, 0), reading(time.Second, 0), 0},                                       // nobody can tell
		{reading(0, 0), reading(time.Second, time.Hour), 0},
		{clocks{now.Round(0), 0}, clocks{now.Round(0).Add(time.Minute), 0}, 0}, // without a monotonic clock
	} {
		if got := c.after.jumped(c.before); got != c.want {
			t.Errorf("%v, want %v", got, c.want)
		}
	}
	if runtime.GOOS == "linux" && boottime() <= 0 {
		t.Error("CLOCK_BOOTTIME cannot be read")
	}
}

// After a jump everything from before is asked for again, nothing from before is extended, and what is asked for
// afterwards stands.
//
// Covers: T7
func TestJumpForgetsUntilNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, err := New(Config{Issuers: []Issuer{{Name: "main", Settle: 5 * time.Second}}})
		if err != nil {
			t.Fatal(err)
		}
		asked := func() *watchword.Answer {
			a, err := watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann"}`), watchword.Evidence{Issuer: "main", Asked: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		time.Sleep(time.Minute)
		old := asked()
		l.Cover("main", time.Now())
		held := func(a *watchword.Answer) bool {
			v := l.Voids(watchword.Query{Issuer: "main", Token: "t"}, a)
			return v.Revoked || !v.Questioned.IsZero() && watchword.Age(v.Questioned, a.AsOf()) >= 0
		}
		time.Sleep(time.Second)
		l.look(clocks{time.Now(), 0})
		if held(old) {
			t.Error("a quiet second questions an answer")
		}
		l.clocks.boot = time.Hour
		time.Sleep(time.Second)
		l.look(clocks{time.Now(), 2 * time.Hour})
		if since := l.Coverage("main").Since; !held(old) || !since.Equal(time.Now()) {
			t.Error("a jump leaves an answer as it was", since)
		}
		time.Sleep(1)
		if held(asked()) {
			t.Error("what is asked for after a jump does not stand")
		}
	})
}

// A wall that is set back leaves no question in the future.
func TestWallSetBack(t *testing.T) {
	t.Parallel()
	l, err := New(Config{Issuers: []Issuer{{Name: "main"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Apply(context.Background(), Event{Issuer: "main", Selector: Selector{Subject: "ann"}, Effect: Revalidate}, Event{Issuer: "main", WholeIssuer: true, Effect: Revalidate}); err != nil {
		t.Fatal(err)
	}
	back := time.Now().Round(0).Add(-time.Hour)
	l.mu.Lock()
	l.jump(back, -time.Hour)
	l.mu.Unlock()
	a, err := watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann"}`), watchword.Evidence{Issuer: "main", Asked: back.Add(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if v := l.Voids(watchword.Query{Issuer: "main"}, a); v.Revoked || watchword.Age(v.Questioned, a.AsOf()) >= 0 {
		t.Errorf("%+v", v)
	}
}

// What an event is said to take is what it takes, within a half.
func TestBytesPerEvent(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	l, err := New(Config{Issuers: []Issuer{{Name: "main"}}, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	const n = 50_000
	for i := range n {
		if err := l.Apply(t.Context(), Event{Issuer: "main", ID: fmt.Sprint(i), Selector: Selector{Subject: fmt.Sprint("subject-", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	took, said := float64(heap()-before), float64(l.Stats().Bytes)
	t.Logf("%.0f bytes an event, said to be %.0f", took/n, said/n)
	if took > 1.5*said || said > 2*took {
		t.Errorf("%.0f bytes an event, said to be %.0f", took/n, said/n)
	}
	runtime.KeepAlive(l)
}

// No log makes reading it fail otherwise than by an error, and what is read is written again as it was.
func FuzzLog(f *testing.F) {
	e := Event{Issuer: "main", ID: "1", Selector: Selector{Subject: "ann", Other: map[string]string{"job": "7"}}, Heard: time.Unix(5, 0)}
	line := eventLine(&e, 5)
	payload := append([]byte{byte(len(line))}, line...)
	f.Add(appendFrame(nil, payload))
	f.Add(appendFrame(appendFrame(nil, payload), payload)[:60])
	f.Add([]byte("WWL1"))
	f.Add(line)
	f.Fuzz(func(t *testing.T, body []byte) {
		if e, applied, err := parseEventLine(body); err == nil && string(eventLine(&e, applied)[1:]) != string(body[1:]) && len(eventLine(&e, applied)) == len(body) {
			t.Error("an event is written otherwise than it was read")
		}
		_, _, _ = parseForgottenLine(body)
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if whole, err := readLog(file, func([]byte) error { return nil }); err == nil && whole > int64(len(body)) {
			t.Errorf("%d bytes of %d are whole", whole, len(body))
		}
	})
}

func TestAJumpIsTold(t *testing.T) {
	t.Parallel()
	var by []time.Duration
	l, err := New(Config{Issuers: []Issuer{{Name: "main"}}, Jumped: func(d time.Duration) { by = append(by, d) }})
	if err != nil {
		t.Fatal(err)
	}
	l.clocks = clocks{time.Now(), time.Hour}
	l.look(clocks{time.Now(), time.Hour})
	l.look(clocks{time.Now(), 2 * time.Hour})
	if len(by) != 1 || by[0] < 59*time.Minute {
		t.Errorf("told %v", by)
	}
}
