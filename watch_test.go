package watchword_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// telling is a Ledger that revokes on a word and tells of it.
type telling struct {
	mu      sync.Mutex
	revoked bool
	changed chan struct{}
}

func (l *telling) Coverage(string) watchword.Coverage { return watchword.Coverage{} }

func (l *telling) Voids(watchword.Query, *watchword.Answer) watchword.Void {
	l.mu.Lock()
	defer l.mu.Unlock()
	return watchword.Void{Revoked: l.revoked}
}

func (l *telling) Changed(string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *telling) tell(revoked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revoked = revoked
	close(l.changed)
	l.changed = make(chan struct{})
}

// stream is one watched token in a bubble, at a server that the test steers.
type stream struct {
	t       *testing.T
	start   time.Time
	mu      sync.Mutex
	dead    bool
	down    bool
	asked   int
	ledger  *telling
	leave   context.CancelFunc
	done    chan watchword.Decision
	members string
}

func watch(t *testing.T, p watchword.Policy, members string, f func(s *stream)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		memory, err := cache.New(cache.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Close()
		s := &stream{t: t, start: time.Now(), ledger: &telling{changed: make(chan struct{})}, done: make(chan watchword.Decision, 1), members: members}
		p.Name = "p"
		v := verifier(t, watchword.Config{Source: memory.Over(watchword.SourceFunc(s.answer), time.Hour), Ledger: s.ledger, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: p}}})
		ctx, leave := context.WithCancel(t.Context())
		s.leave = leave
		defer leave()
		go func() { s.done <- v.Watch(ctx, watchword.Request{Token: "t"}) }()
		synctest.Wait()
		f(s)
	})
}

func (s *stream) answer(context.Context, watchword.Query) (*watchword.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	body := `{"active":true` + s.members + `}`
	switch {
	case s.down:
		return nil, &watchword.Error{Failure: watchword.Unavailable}
	case s.dead:
		body = `{"active":false}`
	}
	return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: "main", Asked: time.Now()})
}

// questions is how many there were.
func (s *stream) questions() (n int) {
	s.set(func() { n = s.asked })
	return n
}

func (s *stream) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *stream) open() {
	s.t.Helper()
	synctest.Wait()
	if len(s.done) > 0 {
		s.t.Fatalf("%v after %v", (<-s.done).Reason, time.Since(s.start))
	}
}

// ends waits for the end of the stream, which is within d from now.
func (s *stream) ends(within time.Duration, want watchword.Reason) {
	s.t.Helper()
	began := time.Now()
	d := <-s.done
	if took := time.Since(began); d.Reason != want || took > within {
		s.t.Errorf("%v (%v) after %v, want %v within %v", d.Reason, d.Err, took, want, within)
	}
}

// A stream ends within the bound of a revocation, at once where somebody tells, and at the end of its token.
//
// Covers: GW-02 CAC-13
func TestGW02StreamsEndWithinTheBound(t *testing.T) {
	t.Parallel()
	minute := watchword.Policy{Freshness: watchword.Freshness{MaxStaleness: time.Minute}}
	for i := range 20 { // at any instant
		watch(t, minute, "", func(s *stream) {
			time.Sleep(time.Hour + time.Duration(i)*7*time.Second)
			s.open()
			if s.questions() < 60 || s.questions() > 90 {
				t.Errorf("asked %d times in an hour", s.questions())
			}
			s.set(func() { s.dead = true })
			s.ends(time.Minute, watchword.Inactive)
		})
	}
	watch(t, minute, "", func(s *stream) {
		time.Sleep(20 * time.Second)
		s.ledger.tell(false) // of something else
		s.open()
		if s.questions() != 1 {
			t.Errorf("asked %d times: a change is no reason to ask", s.questions())
		}
		s.ledger.tell(true)
		s.ends(100*time.Millisecond, watchword.Revoked)
	})
	watch(t, minute, fmt.Sprintf(`,"exp":%d`, time.Date(2000, 1, 1, 0, 0, 30, 0, time.UTC).Unix()), func(s *stream) {
		s.ends(30*time.Second, watchword.Expired)
		if took := time.Since(s.start); took < 30*time.Second {
			t.Errorf("after %v", took)
		}
	})
	watch(t, watchword.Policy{}, "", func(s *stream) { // a bound below a second is watched once a second
		time.Sleep(10 * time.Second)
		s.open()
		s.set(func() { s.dead = true })
		s.ends(time.Second, watchword.Inactive)
	})
	watch(t, watchword.Policy{Scopes: []string{"no"}}, "", func(s *stream) { s.ends(0, watchword.InsufficientScope) })
	watch(t, minute, "", func(s *stream) {
		time.Sleep(5 * time.Second)
		s.leave()
		s.ends(0, watchword.CallerLeft)
	})
}

// In an outage a stream goes on as long as the policy lets it.
//
// Covers: GW-02 OUT-01 OUT-02
func TestGW02StreamsInAnOutage(t *testing.T) {
	t.Parallel()
	bounds := watchword.Freshness{MaxStaleness: time.Minute, StaleIfError: 2 * time.Minute}
	watch(t, watchword.Policy{Freshness: bounds}, "", func(s *stream) {
		s.set(func() { s.down = true })
		time.Sleep(3 * time.Minute)
		s.open()
		if s.questions() > 40 {
			t.Errorf("asked %d times in an outage of three minutes", s.questions())
		}
		s.ends(time.Second, watchword.CannotKnow)
	})
	watch(t, watchword.Policy{Freshness: bounds}, "", func(s *stream) {
		s.set(func() { s.down = true })
		time.Sleep(2 * time.Minute)
		s.set(func() { s.down, s.dead = false, true })
		s.ends(10*time.Second, watchword.Inactive)
	})
	watch(t, watchword.Policy{Freshness: bounds, OnUnavailable: watchword.DangerouslyAllow}, "", func(s *stream) {
		s.set(func() { s.down = true })
		time.Sleep(20 * time.Minute)
		s.open()
		s.set(func() { s.down, s.dead = false, true })
		s.ends(10*time.Second, watchword.Inactive)
	})
}
