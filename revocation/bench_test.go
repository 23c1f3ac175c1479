package revocation_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// million is what the large ledgers hold.
func million() int {
	if testing.Short() {
		return 100_000
	}
	return 1_000_000
}

var roomy = revocation.Config{Issuers: []revocation.Issuer{{Name: "main", Skew: 2 * time.Second, Exempt: true}}, MaxBytes: 4 << 30}

func bySubject(i int) revocation.Selector { return revocation.Selector{Subject: fmt.Sprint("s", i)} }

func bySession(i int) revocation.Selector {
	return revocation.Selector{Subject: fmt.Sprint("s", i), Session: fmt.Sprint("x", i)}
}

func denial(i int, selects func(int) revocation.Selector) revocation.Event {
	return revocation.Event{ID: fmt.Sprint(i), Issuer: "main", Selector: selects(i)}
}

// held is a Ledger that holds n events, with a log in folder if that is not empty.
func held(tb testing.TB, folder string, n int, selects func(int) revocation.Selector) *revocation.Ledger {
	c := roomy
	c.Folder = folder
	l, err := revocation.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	for at := 0; at < n; {
		var some []revocation.Event
		for range min(1000, n-at) {
			some = append(some, denial(at, selects))
			at++
		}
		apply(tb, l, some...)
	}
	return l
}

// What a hit pays for what is held: nothing; events about others; the one about this token; one that names a claim
// which this token's answer lacks, too.
func BenchmarkVoids(b *testing.B) {
	const drawn = 4096
	look := func(name string, l *revocation.Ledger, n int, members string, want watchword.Void) {
		answers := make([]*watchword.Answer, drawn)
		for i := range answers {
			answers[i] = answer(b, time.Now(), fmt.Sprintf(members, i*(max(n, drawn)/drawn)%max(n, 1)))
			v := l.Voids(watchword.Query{Issuer: "main", Token: "t"}, answers[i])
			if v.Revoked != want.Revoked || v.Questioned.IsZero() != want.Questioned.IsZero() {
				b.Fatalf("%s: %+v", name, v)
			}
		}
		b.Run(name, func(b *testing.B) {
			q, i := watchword.Query{Issuer: "main", Token: "an-opaque-token-of-some-length"}, 0
			b.ReportAllocs()
			for b.Loop() {
				l.Voids(q, answers[i%drawn])
				i++
			}
		})
	}
	asked := watchword.Void{Questioned: time.Now()}
	look("nothing", held(b, "", 0, nil), 0, `,"sub":"ann%d","iat":5`, watchword.Void{})
	for _, n := range []int{1000, million()} {
		name := map[bool]string{true: "/1000", false: "/million"}[n == 1000]
		l := held(b, "", n, bySubject)
		look("others"+name, l, n, `,"sub":"ann%d","client_id":"web","iat":5`, watchword.Void{})
		look("this"+name, l, n, `,"sub":"s%d","client_id":"web","iat":5`, watchword.Void{Revoked: true})
		look("in part"+name, held(b, "", n, bySession), n, `,"sub":"s%d","client_id":"web","iat":5`, asked)
	}
}

// One event after the other: in memory; in the log, by one publisher and by 64 at once; and what a sync takes alone.
func BenchmarkApply(b *testing.B) {
	for _, how := range []struct {
		name       string
		log        bool
		publishers int
	}{{"memory", false, 1}, {"log, 1 publisher", true, 1}, {"log, 64 publishers", true, 64}} {
		b.Run(how.name, func(b *testing.B) {
			folder := ""
			if how.log {
				folder = b.TempDir()
			}
			l := held(b, folder, 0, nil)
			var next atomic.Int64
			b.SetParallelism(how.publishers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					apply(b, l, denial(int(next.Add(1)), bySubject))
				}
			})
		})
	}
	b.Run("bare sync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		line := make([]byte, 64)
		for b.Loop() {
			if _, err := f.Write(line); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A process begins again with a million events in its log.
func BenchmarkRestart(b *testing.B) {
	n, c := million(), roomy
	c.Folder = b.TempDir()
	if err := held(b, c.Folder, n, bySubject).Close(); err != nil {
		b.Fatal(err)
	}
	last := answer(b, time.Now(), fmt.Sprintf(`,"sub":"s%d","iat":5`, n-1))
	var stats revocation.Stats
	var memory uint64
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		l, err := revocation.New(c)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		memory, stats = heap()-before, l.Stats()
		if got := verdict(l, "t", last); got != "revoked" || stats.Events != n {
			b.Fatal(got, stats.Events)
		}
		_ = l.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(memory)/float64(n), "heap-B/event")
	b.ReportMetric(float64(stats.Bytes)/float64(n), "counted-B/event")
	b.ReportMetric(float64(stats.LogBytes)/float64(n), "log-B/event")
	b.ReportMetric(float64(n), "events")
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
