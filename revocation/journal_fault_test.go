package revocation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
)

// disk is a file that fails when it is told to: a write takes half of what it is given, a sync takes nothing.
type disk struct {
	file
	noRoom, noSync bool
	syncs          atomic.Int64
	gate           chan struct{} // nil: open; else every sync waits here
}

func (d *disk) WriteAt(b []byte, at int64) (int, error) {
	if d.noRoom {
		n, err := d.file.WriteAt(b[:len(b)/2], at)
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return d.file.WriteAt(b, at)
}

func (d *disk) Sync() error {
	d.syncs.Add(1)
	if d.gate != nil {
		<-d.gate
	}
	if d.noSync {
		return syscall.EIO
	}
	return d.file.Sync()
}

func open(t *testing.T, folder string) *Ledger {
	t.Helper()
	l, err := New(Config{Issuers: []Issuer{{Name: "main", Settle: 5 * time.Second, Remember: time.Minute}}, Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// denies is an event that revokes the tokens of one subject.
func denies(subject string) Event {
	return Event{ID: subject, Issuer: "main", Selector: Selector{Subject: subject}, Operator: true}
}

func (l *Ledger) revokes(t *testing.T, subject string) bool {
	t.Helper()
	a, err := watchword.ParseAnswer(fmt.Appendf(nil, `{"active":true,"sub":%q,"iat":5}`, subject), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return l.Voids(watchword.Query{Issuer: "main", Token: "t"}, a).Revoked
}

// A disk that is full, or that cannot sync: the event is in force, nobody is told that it is durable, not even by
// sending it again, and everything that was held back is durable with the first thing that is written again. A log of
// which nobody knows what the failed sync left is not written on: it is written anew.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for _, d := range []*disk{{noRoom: true}, {noSync: true}} {
		synctest.Test(t, func(t *testing.T) {
			folder := t.TempDir()
			l := open(t, folder)
			apply := func(subject string) error { return l.Apply(context.Background(), denies(subject)) }
			if err := apply("ann"); err != nil {
				t.Fatal(err)
			}
			d.file = l.journal.file
			l.journal.file = d
			inTheWay := filepath.Join(folder, "log.new")
			if err := os.Mkdir(inTheWay, 0o700); err != nil { // nor can a new file be written
				t.Fatal(err)
			}
			for _, subject := range []string{"bob", "cat", "bob"} {
				if err := apply(subject); err == nil || !strings.Contains(err.Error(), "could not be written") {
					t.Errorf("acknowledged: %v", err)
				}
				if !l.revokes(t, subject) {
					t.Error("an event that could not be written is not in force")
				}
				time.Sleep(2 * time.Second) // it is tried again every second
			}
			dead := open(t, copied(t, folder)) // killed here: what was acknowledged is there, what was torn is cut off
			if !dead.revokes(t, "ann") {
				t.Error("what had been acknowledged is lost")
			}
			if err := os.Remove(inTheWay); err != nil {
				t.Fatal(err)
			}
			if err := apply("bob"); err != nil { // the sender comes again
				t.Error(err)
			}
			if err := apply("dan"); err != nil {
				t.Error(err)
			}
			again := open(t, copied(t, folder))
			for _, subject := range []string{"ann", "bob", "cat", "dan"} {
				if !again.revokes(t, subject) {
					t.Errorf("%s is lost", subject)
				}
			}
		})
	}
}

// Where only the present file fails and a new one can be written, nobody notices.
func TestFailingFileIsReplaced(t *testing.T) {
	t.Parallel()
	for _, d := range []*disk{{noRoom: true}, {noSync: true}} {
		synctest.Test(t, func(t *testing.T) {
			folder := t.TempDir()
			l := open(t, folder)
			d.file = l.journal.file
			l.journal.file = d
			time.Sleep(time.Second) // since it was last written anew
			for _, subject := range []string{"ann", "bob"} {
				if err := l.Apply(t.Context(), denies(subject)); err != nil {
					t.Error(err)
				}
			}
			if again := open(t, copied(t, folder)); !again.revokes(t, "ann") || !again.revokes(t, "bob") || d.syncs.Load() > 1 {
				t.Error("an acknowledged event is lost, or the file that failed is written on")
			}
		})
	}
}

// copied is what another process would find after a kill.
func copied(t *testing.T, folder string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"log", "key"} {
		body, err := os.ReadFile(filepath.Join(folder, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), body, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// Those who come while one syncs share the next sync.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	const n = 100
	folder := t.TempDir()
	l := open(t, folder)
	d := &disk{file: l.journal.file, gate: make(chan struct{})}
	l.journal.file = d
	appended := func() int64 {
		l.journal.mu.Lock()
		defer l.journal.mu.Unlock()
		return l.journal.appended
	}
	before := appended()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := l.Apply(t.Context(), denies(fmt.Sprint("s", i))); err != nil {
				t.Error(err)
			}
		})
	}
	for appended() < before+n {
		runtime.Gosched()
	}
	close(d.gate)
	all.Wait()
	if got := d.syncs.Load(); got > 2 {
		t.Errorf("%d syncs for %d events that came at once, want 2", got, n)
	}
	again := open(t, copied(t, folder))
	for i := range n {
		if !again.revokes(t, fmt.Sprint("s", i)) {
			t.Fatalf("event %d is lost", i)
		}
	}
}

// A log that is mostly about what is over is written anew, and loses nothing: neither what is held, nor what was
// forgotten, nor what comes later.
func TestRewritingLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		l := open(t, folder)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = l.Run(ctx) })
		most, rewritten := int64(0), 0
		for round := range 6 {
			if err := l.Apply(ctx, denies(fmt.Sprint("s", round))); err != nil {
				t.Fatal(err)
			}
			over := make([]Event, 400)
			for i := range over {
				over[i] = Event{ID: fmt.Sprint(round, "-", i), Issuer: "main", Selector: Selector{Subject: "x"}, Effect: Revalidate, Why: strings.Repeat("y", MaxText)}
			}
			if err := l.Apply(ctx, over...); err != nil {
				t.Fatal(err)
			}
			before := l.Stats().LogBytes
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if after := l.Stats().LogBytes; after < before/10 {
				rewritten++
			}
			most = max(most, before)
		}
		cancel()
		all.Wait()
		if most < 1<<20 || most > 3<<20 || rewritten == 0 || l.Stats().Events != 6 {
			t.Errorf("at most %d bytes, written anew %d times, %+v", most, rewritten, l.Stats())
		}
		again := open(t, copied(t, folder))
		for round := range 6 {
			if !again.revokes(t, fmt.Sprint("s", round)) {
				t.Errorf("event %d is lost", round)
			}
		}
		here, there := (*l.books.Load())["main"].view.Load().forgotten, (*again.books.Load())["main"].view.Load().forgotten
		if here.IsZero() || !here.Equal(there) {
			t.Errorf("forgotten until %v, and after a restart until %v", here, there)
		}
	})
}

// A process that is killed while it acknowledges events, applies many at once and writes its log anew: whatever it
// acknowledged is there afterwards. It is this test that runs again, as a process of its own.
//
// Covers: SIG-20
func TestSIG20KilledProcess(t *testing.T) {
	const variable = "WATCHWORD_TEST_KILLED"
	if folder := os.Getenv(variable); folder != "" {
		acknowledge(t, folder)
		return
	}
	// Not parallel: between fork and exec a child holds the locks of all folders that are open here.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	var acknowledged []string
	for round := range 4 {
		child := exec.CommandContext(t.Context(), self, "-test.run=^TestSIG20KilledProcess$")
		child.Env = append(os.Environ(), variable+"="+folder)
		out, err := child.StdoutPipe()
		if err == nil {
			err = child.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		seen, lines := 0, bufio.NewScanner(out)
		for lines.Scan() {
			subject, ok := strings.CutPrefix(lines.Text(), "held ")
			if !ok {
				t.Fatal(lines.Text())
			}
			acknowledged = append(acknowledged, subject)
			if seen++; seen == 20+17*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // killed
		if seen < 20 {
			t.Fatalf("only %d were acknowledged", seen)
		}
	}
	l := open(t, folder)
	for _, subject := range acknowledged {
		if !l.revokes(t, subject) {
			t.Errorf("%s was acknowledged and is lost", subject)
		}
	}
}

// acknowledge applies events until it is killed, and says which are held; most of the log is soon over.
func acknowledge(t *testing.T, folder string) {
	l, err := New(Config{Issuers: []Issuer{{Name: "main", Remember: time.Millisecond}}, Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = l.Run(t.Context()) }()
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 100_000 {
				name := fmt.Sprintf("%d-%d-%d", os.Getpid(), worker, i)
				events := []Event{denies(name)}
				for n := range 50 {
					events = append(events, Event{ID: fmt.Sprint(name, "-", n), Issuer: "main", Selector: Selector{Subject: "x"}, Effect: Revalidate, Why: strings.Repeat("y", MaxText)})
				}
				if err := l.Apply(t.Context(), events...); err != nil {
					fmt.Println(err)
					return
				}
				fmt.Println("held " + name)
			}
		})
	}
	all.Wait()
}
