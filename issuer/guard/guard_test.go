package guard_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/issuer/guard"
)

// server is a scripted authorization server.
type server struct {
	calls, flying, most atomic.Int64
	mu                  sync.Mutex
	say                 func(ctx context.Context, n int64) error // nil: it says active at once
	began               time.Time
	seconds             map[int64]int // questions in each second since began
}

func (s *server) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	n, flying := s.calls.Add(1), s.flying.Add(1)
	defer s.flying.Add(-1)
	for most := s.most.Load(); flying > most && !s.most.CompareAndSwap(most, flying); most = s.most.Load() {
	}
	s.mu.Lock()
	say := s.say
	s.seconds[int64(time.Since(s.began)/time.Second)]++
	s.mu.Unlock()
	if say != nil {
		if err := say(ctx, n); err != nil {
			return nil, err
		}
	}
	return watchword.ParseAnswer([]byte(`{"active":true}`), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
}

func (s *server) set(say func(ctx context.Context, n int64) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say = say
}

var down = &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", Cause: errors.New("status 503")}

func fails(context.Context, int64) error { return down }

func takes(d time.Duration) func(context.Context, int64) error {
	return func(ctx context.Context, _ int64) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", Cause: ctx.Err()}
		}
	}
}

// in runs f in a bubble of fake time.
func in(t *testing.T, c guard.Config, f func(t *testing.T, s *server, g *guard.Guard)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{began: time.Now(), seconds: map[int64]int{}}
		g, err := guard.Over(s, c)
		if err != nil {
			t.Fatal(err)
		}
		f(t, s, g)
		synctest.Wait()
		if st := g.Stats(); st.InFlight != 0 || st.Waiting != 0 {
			t.Errorf("left behind: %+v", st)
		}
	})
}

func ask(t *testing.T, g *guard.Guard, peer string) error {
	_, err := g.Introspect(t.Context(), watchword.Query{Issuer: "main", Peer: peer, At: time.Now()})
	return err
}

func TestTransientFailureIsRetriedWithinTheBudget(t *testing.T) {
	in(t, guard.Config{Retries: 2, RetryBudget: 0.1}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(func(_ context.Context, n int64) error {
			if n == 1 {
				return down
			}
			return nil
		})
		if err := ask(t, g, ""); err != nil || s.calls.Load() != 2 {
			t.Errorf("%v after %d calls; want success at the second", err, s.calls.Load())
		}
	})
}

// What a token or a credential brings about is not repeated, and opens no breaker.
//
// Covers: INT-19
func TestOnlySilenceIsRetriedAndCounted(t *testing.T) {
	for _, f := range []watchword.Failure{watchword.ClientRejected, watchword.ProtocolError, watchword.ConfigError, watchword.Canceled} {
		t.Run(f.Error(), func(t *testing.T) {
			in(t, guard.Config{Retries: 5, RetryBudget: 1}, func(t *testing.T, s *server, g *guard.Guard) {
				s.set(func(context.Context, int64) error { return &watchword.Error{Failure: f, Issuer: "main"} })
				for range 100 {
					if err := ask(t, g, ""); !errors.Is(err, f) {
						t.Fatal(err)
					}
				}
				if n, st := s.calls.Load(), g.Stats(); n != 100 || st.Breaker != guard.Closed {
					t.Errorf("%d calls, breaker %v; want 100, closed", n, st.Breaker)
				}
			})
		})
	}
}

func TestRetryAfterIsNotRetried(t *testing.T) {
	in(t, guard.Config{Retries: 5, RetryBudget: 1}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(func(context.Context, int64) error {
			return &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", RetryAfter: time.Second}
		})
		if err := ask(t, g, ""); err == nil || s.calls.Load() != 1 {
			t.Errorf("%v, %d calls; want an error and one call", err, s.calls.Load())
		}
	})
}

// A server that said when to come back is not asked before, and nobody waits for a turn to learn that, nor is told
// another time: also not who stood in the line when it said so.
//
// Covers: INT-20
func TestNobodyWaitsForATurnUntilRetryAfterIsOver(t *testing.T) {
	var until atomic.Pointer[time.Time]
	held := func() time.Duration {
		if end := until.Load(); end != nil {
			return time.Until(*end)
		}
		return 0
	}
	in(t, guard.Config{Rate: 10, Timeout: 10 * time.Second, Held: held}, func(t *testing.T, s *server, g *guard.Guard) {
		began := time.Now()
		end := began.Add(30500 * time.Millisecond)
		s.set(func(_ context.Context, n int64) error {
			if n < 10 {
				return nil
			}
			until.Store(&end)
			return &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", RetryAfter: time.Until(end)}
		})
		var wait sync.WaitGroup
		for range 60 {
			wait.Go(func() {
				err := ask(t, g, "")
				if e, ok := errors.AsType[*watchword.Error](err); err != nil && (!ok || e.RetryAfter != time.Until(end)) {
					t.Errorf("%v after %v; want what the server said", err, time.Since(began))
				}
			})
		}
		wait.Wait()
		if waited := time.Since(began); waited > 200*time.Millisecond {
			t.Errorf("the last learnt after %v that nobody is to be asked", waited)
		}
		for range 60 {
			if err := ask(t, g, ""); !errors.Is(err, watchword.Unavailable) {
				t.Error(err)
			}
		}
		if st := g.Stats(); s.calls.Load() != 10 || st.Refused[guard.GateRetryAfter] != 110 || st.Breaker != guard.Closed {
			t.Errorf("%d calls, %+v; want ten, and 110 refused by what it said", s.calls.Load(), st)
		}
		s.set(nil)
		time.Sleep(time.Until(end))
		if err := ask(t, g, ""); err != nil {
			t.Errorf("when it is over: %v", err)
		}
	})
}

// A first try that used most of the time is the last.
func TestNoRetryAtTheEnd(t *testing.T) {
	in(t, guard.Config{Timeout: time.Second, Retries: 5, RetryBudget: 1}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(func(context.Context, int64) error { time.Sleep(710 * time.Millisecond); return down })
		if err := ask(t, g, ""); err == nil || s.calls.Load() != 1 {
			t.Errorf("%v, %d calls; want an error and one call", err, s.calls.Load())
		}
	})
}

// Covers: OUT-03
func TestBreakerOpensProbesAndCloses(t *testing.T) {
	in(t, guard.Config{}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(fails)
		for range 100 {
			_ = ask(t, g, "")
		}
		if n := s.calls.Load(); n != 20 || g.Stats().Breaker != guard.Open {
			t.Fatalf("%d calls, breaker %v; want 20, open", n, g.Stats().Breaker)
		}
		err := ask(t, g, "")
		e, _ := errors.AsType[*watchword.Error](err)
		if e == nil || e.Failure != watchword.Unavailable || e.RetryAfter <= 0 || e.RetryAfter > 5*time.Second {
			t.Errorf("refused with %+v; want unavailable with Retry-After", e)
		}
		time.Sleep(5 * time.Second)
		s.set(takes(100 * time.Millisecond))
		s.most.Store(0)
		var wait sync.WaitGroup
		for range 50 {
			wait.Go(func() { _ = ask(t, g, "") })
		}
		wait.Wait()
		if n := s.most.Load(); n != 3 {
			t.Errorf("%d questions tried at once; want 3", n)
		}
		if st := g.Stats(); st.Breaker != guard.Closed || st.Refused[guard.GateBreaker] < 80 {
			t.Errorf("%+v; want closed", st)
		}
		s.set(nil)
		if err := ask(t, g, ""); err != nil {
			t.Error(err)
		}
	})
}

// A failed probe opens it again, and a late answer to a question from before counts for nothing.
func TestFailedProbeOpensAgain(t *testing.T) {
	in(t, guard.Config{}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(fails)
		for range 20 {
			_ = ask(t, g, "")
		}
		time.Sleep(5 * time.Second)
		before := s.calls.Load()
		for range 10 {
			_ = ask(t, g, "")
		}
		if n := s.calls.Load() - before; n != 1 || g.Stats().Breaker != guard.Open {
			t.Errorf("%d probes, breaker %v; want 1, open", n, g.Stats().Breaker)
		}
	})
}

// A server that is back gets the rate from the first second on, and nothing that was saved up while it was down.
//
// Covers: OUT-03
func TestRecoveryKeepsToTheRate(t *testing.T) {
	in(t, guard.Config{Rate: 50}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(fails)
		for range 20 {
			_ = ask(t, g, "")
		}
		s.set(nil)
		time.Sleep(5 * time.Second)
		s.began, s.seconds = time.Now(), map[int64]int{}
		var wait sync.WaitGroup
		for range 300 { // 100 a second, of whom each comes back when refused
			wait.Go(func() {
				for ask(t, g, "") != nil {
					time.Sleep(time.Second)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		wait.Wait()
		for second, n := range s.seconds {
			if n > 50 {
				t.Errorf("%d questions in second %d; the rate is 50", n, second)
			}
		}
	})
}

func TestRateAndLimitHold(t *testing.T) {
	in(t, guard.Config{Timeout: 10 * time.Second, MaxInFlight: 8, Rate: 50}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(takes(20 * time.Millisecond))
		var wait sync.WaitGroup
		var refused atomic.Int64
		for i := range 1000 {
			wait.Go(func() {
				if ask(t, g, fmt.Sprint(i%7)) != nil {
					refused.Add(1)
				}
			})
		}
		wait.Wait()
		if n := s.most.Load(); n > 8 {
			t.Errorf("%d in flight; the limit is 8", n)
		}
		for second, n := range s.seconds {
			if second > 0 && n > 51 || n > 101 {
				t.Errorf("%d questions in second %d; the rate is 50, and 50 at once", n, second)
			}
		}
		if n := s.calls.Load(); n < 380 || n+refused.Load() != 1000 {
			t.Errorf("%d asked and %d refused of 1,000; want about 400 asked in the 7 seconds", n, refused.Load())
		}
	})
}

// A peer that asks without end makes itself wait, and nobody else.
func TestPeersTakeTurns(t *testing.T) {
	in(t, guard.Config{Rate: 10, Timeout: 2 * time.Second}, func(t *testing.T, s *server, g *guard.Guard) {
		var wait sync.WaitGroup
		for range 500 {
			wait.Go(func() { _ = ask(t, g, "loud") })
		}
		synctest.Wait()
		for i := range 5 {
			wait.Go(func() {
				if err := ask(t, g, fmt.Sprintf("quiet-%d", i)); err != nil {
					t.Errorf("quiet peer %d: %v", i, err)
				}
			})
		}
		wait.Wait()
	})
}

// Refresh-ahead yields to whoever waits.
func TestBackgroundGivesWay(t *testing.T) {
	in(t, guard.Config{MaxInFlight: 4, Rate: 1000}, func(t *testing.T, s *server, g *guard.Guard) {
		background := watchword.Query{Issuer: "main", At: time.Now(), Background: true}
		if _, err := g.Introspect(t.Context(), background); err != nil {
			t.Errorf("nobody else is there: %v", err)
		}
		s.set(takes(time.Second))
		var wait sync.WaitGroup
		for range 2 {
			wait.Go(func() { _ = ask(t, g, "") })
		}
		synctest.Wait()
		if _, err := g.Introspect(t.Context(), background); !errors.Is(err, watchword.Unavailable) {
			t.Errorf("half of the places are taken: %v; want unavailable", err)
		}
		wait.Wait()
		if n := g.Stats().Refused[guard.GateBackground]; n != 1 {
			t.Errorf("%d refused in the background; want 1", n)
		}
	})
}

// One server that hangs takes its own questions along, each at its deadline, and no other server's.
//
// Covers: OUT-05
func TestHangingServerIsAlone(t *testing.T) {
	in(t, guard.Config{Timeout: time.Second}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(takes(time.Hour))
		other, err := guard.Over(&server{began: time.Now(), seconds: map[int64]int{}}, guard.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		began := time.Now()
		for range 500 {
			wait.Go(func() {
				if err := ask(t, g, ""); !errors.Is(err, watchword.Unavailable) {
					t.Errorf("%v; want unavailable", err)
				}
			})
			if err := ask(t, other, ""); err != nil && s.calls.Load() < 190 {
				t.Errorf("the healthy one: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		wait.Wait()
		if n := s.most.Load(); n > guard.DefaultMaxInFlight {
			t.Errorf("%d in flight", n)
		}
		if d := time.Since(began); d > 500*10*time.Millisecond+time.Second {
			t.Errorf("the last was answered after %v", d)
		}
	})
}

func TestHedge(t *testing.T) {
	in(t, guard.Config{HedgeAfter: 50 * time.Millisecond, RetryBudget: 0.1}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(func(ctx context.Context, n int64) error {
			if n == 1 {
				return takes(time.Hour)(ctx, n)
			}
			return nil
		})
		began := time.Now()
		if err := ask(t, g, ""); err != nil || time.Since(began) != 50*time.Millisecond {
			t.Errorf("%v after %v; want the second question's answer at once", err, time.Since(began))
		}
		synctest.Wait()
		if st := g.Stats(); st.Hedges != 1 || st.InFlight != 0 {
			t.Errorf("%+v; want one hedge, nothing in flight", st)
		}
	})
}

func TestCallerLeavesWhileItWaits(t *testing.T) {
	in(t, guard.Config{Rate: 1}, func(t *testing.T, s *server, g *guard.Guard) {
		_ = ask(t, g, "")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := g.Introspect(ctx, watchword.Query{Issuer: "main"}); !errors.Is(err, watchword.Canceled) {
			t.Errorf("%v; want canceled", err)
		}
	})
}

func TestPanicGivesItsTurnBack(t *testing.T) {
	in(t, guard.Config{}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(func(context.Context, int64) error { panic("boom") })
		func() {
			defer func() { _ = recover() }()
			_ = ask(t, g, "")
		}()
	})
}

func TestBadConfigNamesEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := guard.Over(nil, guard.Config{Timeout: -1, Retries: -1, RetryBudget: 2, MaxInFlight: -1, Rate: -1, HedgeAfter: -1,
		Breaker: guard.Breaker{Failures: 50, Over: -1, Open: -1}})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 9 {
		t.Errorf("%v; want nine mistakes", err)
	}
}

// What the breaker refuses was not asked, and earns no retry: a long outage must not save up for its end.
func TestRefusedQuestionsEarnNoRetries(t *testing.T) {
	in(t, guard.Config{Retries: 2, RetryBudget: 0.1}, func(t *testing.T, s *server, g *guard.Guard) {
		s.set(fails)
		for range 1000 { // the breaker opens after a few
			_ = ask(t, g, "")
		}
		s.set(nil)
		time.Sleep(5 * time.Second)
		for range 3 {
			if err := ask(t, g, ""); err != nil {
				t.Fatal(err)
			}
		}
		before := g.Stats().Retries
		s.set(fails)
		for range 5 {
			_ = ask(t, g, "")
		}
		if n := g.Stats().Retries - before; n > 1 {
			t.Errorf("%d retries after eight questions; the budget is a tenth, and less than one was left", n)
		}
	})
}
