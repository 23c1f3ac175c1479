package app

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/issuer/guard"
)

// The figures of an outage, over the real cache, storm and guard with the defaults of the file, in fake time:
//
//	go test ./app -run TestFigures -v

// asked is a scripted authorization server: tokens whose first letter is g are good.
type asked struct {
	calls, failed atomic.Int64
	took          time.Duration
	mode          atomic.Int32 // well, down or hanging
	mu            sync.Mutex
	began         time.Time
	seconds       map[int]int // calls in each second since began
}

const (
	well int32 = iota
	down
	hanging
)

func (s *asked) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	s.calls.Add(1)
	now := time.Now()
	s.mu.Lock()
	s.seconds[int(now.Sub(s.began)/time.Second)]++
	s.mu.Unlock()
	wait := s.took
	if s.mode.Load() == hanging {
		wait = time.Hour
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer, Cause: ctx.Err()}
	}
	if s.mode.Load() == down {
		s.failed.Add(1)
		return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer, Cause: errors.New("status 503")}
	}
	body := `{"active":false}`
	if q.Token[0] == 'g' {
		body = fmt.Sprintf(`{"active":true,"exp":%d}`, now.Add(time.Hour).Unix())
	}
	return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: now})
}

// figures runs f over everything that stands between a door and an authorization server, with the file's defaults but
// for what change says.
func figures(t *testing.T, bound time.Duration, change func(*Issuer), f func(t *testing.T, as *asked, v *watchword.Verifier, m *cache.Cache, p protection)) {
	t.Helper()
	c := accepted(t, base)
	is := &c.Issuers[0]
	if change != nil {
		change(is)
	}
	synctest.Test(t, func(t *testing.T) {
		as := &asked{took: 20 * time.Millisecond, began: time.Now(), seconds: map[int]int{}}
		source, p, err := is.protect(as, nil, storm{}, nil)
		check(t, err)
		m, err := cache.New(c.Cache.config())
		check(t, err)
		defer m.Close()
		v, err := watchword.New(watchword.Config{Source: m.Over(issuer.Router{is.Name: source}, bound), Issuers: []watchword.Issuer{{Name: is.Name}},
			Routes: []watchword.Route{{Policy: watchword.Policy{Name: "all", Freshness: watchword.Freshness{MaxStaleness: bound}}}}})
		check(t, err)
		f(t, as, v, m, p)
		synctest.Wait()
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tally counts decisions by reason.
type tally struct {
	sync.Mutex
	sync.WaitGroup
	by map[watchword.Reason]int
}

func (y *tally) verify(t *testing.T, v *watchword.Verifier, peer, token string) watchword.Decision {
	d := v.Verify(t.Context(), watchword.Request{Door: "middleware", Token: watchword.Token(token), Peer: peer, Method: "GET", Path: "/"})
	y.Lock()
	defer y.Unlock()
	if y.by == nil {
		y.by = map[watchword.Reason]int{}
	}
	y.by[d.Reason]++
	return d
}

func (y *tally) fly(t *testing.T, v *watchword.Verifier, peer, token string) {
	y.Go(func() { y.verify(t, v, peer, token) })
}

// Many at once for one cold token are one question; for a thousand, a thousand. The guard is as wide as the herd here:
// how many it lets through is another figure.
func TestFiguresHerd(t *testing.T) {
	wide := func(is *Issuer) { is.Guard.Rate, is.Guard.MaxInFlight = 100_000, 10_000 }
	for _, tokens := range []int{1, 1000} {
		figures(t, 30*time.Second, wide, func(t *testing.T, as *asked, v *watchword.Verifier, _ *cache.Cache, _ protection) {
			var y tally
			for i := range 10_000 {
				y.fly(t, v, "", fmt.Sprintf("g%d", i%tokens))
			}
			y.Wait()
			t.Logf("10,000 requests at once for %d cold tokens: %d questions, %v", tokens, as.calls.Load(), y.by)
			if as.calls.Load() != int64(tokens) || y.by[watchword.OK] != 10_000 {
				t.Errorf("want %d questions, all accepted", tokens)
			}
		})
	}
}

// The server answers 503 for a minute, while 50 new tokens a second arrive and 200 known ones are used.
//
// Covers: OUT-01 OUT-03
func TestFiguresStorm(t *testing.T) {
	figures(t, 30*time.Second, nil, func(t *testing.T, as *asked, v *watchword.Verifier, _ *cache.Cache, p protection) {
		var warm, out, after tally
		second := func(y *tally, n int) {
			for i := range 50 {
				y.fly(t, v, fmt.Sprintf("192.0.2.%d", i), fmt.Sprintf("g-new-%d-%d", n, i))
				for j := range 4 {
					y.fly(t, v, "", fmt.Sprintf("g-known-%d", 4*i+j))
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		for n := range 5 {
			second(&warm, n)
		}
		warm.Wait()
		as.mode.Store(down)
		calls := as.calls.Load()
		for n := range 60 {
			second(&out, 100+n)
		}
		out.Wait()
		calls = as.calls.Load() - calls
		st := p.guard.Stats()
		as.mode.Store(well)
		back, ended := time.Duration(-1), time.Now()
		for n := range 10 {
			var y tally
			second(&y, 1000+n)
			y.Wait()
			if back < 0 && y.by[watchword.OK] == 250 {
				back = time.Since(ended) - time.Second
			}
			for r, c := range y.by {
				if after.by == nil {
					after.by = map[watchword.Reason]int{}
				}
				after.by[r] += c
			}
		}
		most := 0
		for s, n := range as.seconds {
			if s >= int(ended.Sub(as.began)/time.Second) {
				most = max(most, n)
			}
		}
		first := calls - int64(st.Retries)
		t.Logf("503 for 60 s: %d questions (%d first, %d retries) for %d decisions %v; all well %v after it was; at most %d questions in a second then; %v",
			calls, first, st.Retries, 60*250, out.by, back, most, after.by)
		if float64(calls) > 1.1*float64(first)+3 {
			t.Errorf("%d questions for %d; the budget is a tenth more, and three saved up", calls, first)
		}
		for _, y := range []*tally{&warm, &out, &after} {
			for r := range y.by {
				if r != watchword.OK && r != watchword.CannotKnow {
					t.Errorf("a good token was called %v", r)
				}
			}
		}
		if back < 0 || back >= 5*time.Second {
			t.Errorf("all is well only after %v", back)
		}
		if most > guard.DefaultRate {
			t.Errorf("%d questions in one second of recovery", most)
		}
	})
}

// The server hangs: hits go on, misses end within timeout, and what waits is bounded.
//
// Covers: OUT-05
func TestFiguresHang(t *testing.T) {
	figures(t, 30*time.Second, nil, func(t *testing.T, as *asked, v *watchword.Verifier, _ *cache.Cache, p protection) {
		var warm, hits, misses tally
		for i := range 100 {
			warm.verify(t, v, "", fmt.Sprintf("g%d", i))
		}
		as.mode.Store(hanging)
		var slowest atomic.Int64
		most := 0
		for n := range 1000 {
			misses.Go(func() {
				began := time.Now()
				misses.verify(t, v, fmt.Sprintf("192.0.2.%d", n%200), fmt.Sprintf("g-cold-%d", n))
				for d := int64(time.Since(began)); ; {
					if old := slowest.Load(); d <= old || slowest.CompareAndSwap(old, d) {
						return
					}
				}
			})
			began := time.Now()
			hits.verify(t, v, "", fmt.Sprintf("g%d", n%100))
			if time.Since(began) != 0 {
				t.Errorf("a hit waited %v", time.Since(began))
			}
			most = max(most, p.guard.Stats().InFlight)
			time.Sleep(10 * time.Millisecond)
		}
		misses.Wait()
		t.Logf("hangs for 10 s: hits %v, none waited; misses %v, the slowest after %v; at most %d in the air; %d questions; %d goroutines at the end",
			hits.by, misses.by, time.Duration(slowest.Load()), most, as.calls.Load()-100, runtime.NumGoroutine())
		if hits.by[watchword.OK] != 1000 || misses.by[watchword.CannotKnow] != 1000 || time.Duration(slowest.Load()) > 2*time.Second || most > guard.DefaultMaxInFlight {
			t.Error("hits, misses, their time, or what is in the air: not as promised")
		}
	})
}

// One client sends 100,000 random tokens through a gateway in 20 s; 1,000 good cold tokens of others arrive meanwhile,
// and 10,000 known ones are in use.
//
// Covers: CAC-12
func TestFiguresSpray(t *testing.T) {
	figures(t, 10*time.Minute, nil, func(t *testing.T, as *asked, v *watchword.Verifier, m *cache.Cache, p protection) {
		var warm, spray, good, known tally
		for i := range 10_000 {
			warm.verify(t, v, fmt.Sprintf("198.51.%d.%d", i/250, i%250), fmt.Sprintf("g-known-%d", i))
		}

		before := as.calls.Load()
		hits := m.Stats().Lookups[cache.Hit]
		for n := range 2000 { // every 10 ms
			for i := range 50 {
				spray.fly(t, v, "203.0.113.66", fmt.Sprintf("x-%d-%d", n, i))
			}
			if n%2 == 0 {
				good.fly(t, v, fmt.Sprintf("192.0.2.%d", n/2%200), fmt.Sprintf("g-cold-%d", n))
			}
			for i := range 5 {
				known.fly(t, v, "", fmt.Sprintf("g-known-%d", 5*n+i))
			}
			time.Sleep(10 * time.Millisecond)
		}
		spray.Wait()
		good.Wait()
		known.Wait()
		hits = m.Stats().Lookups[cache.Hit] - hits
		calls := as.calls.Load() - before
		budget := int64(1000 + 100*20 + 1000) // the client's burst and rate, and the good ones
		t.Logf("100,000 random tokens of one client in 20 s: %v; 1,000 good cold ones: %v; known ones: %v, %d of 10,000 from memory; %d questions, at most %d are in budget",
			spray.by, good.by, known.by, hits, calls, budget)
		if good.by[watchword.OK] != 1000 {
			t.Errorf("good tokens: %v; want all 1,000 accepted", good.by)
		}
		if hits < 9_900 {
			t.Errorf("%d of 10,000 known tokens were served from memory; want 99 in a hundred", hits)
		}
		if calls > budget {
			t.Errorf("%d questions", calls)
		}

	})
}
