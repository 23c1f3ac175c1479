package guard

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"

	"github.com/watchword-dev/watchword"
)

// turnstile gives turns: as many a second as the rate allows, as many at once as the limiter does. Who has to wait
// stands in the line of their peer, and the lines take turns: a peer that asks much makes itself wait, not others.
type turnstile struct {
	limiter     adaptivelimiter.AdaptiveLimiter[any]
	rate, burst float64
	room        int // how many may wait: more would wait in vain

	mu      sync.Mutex // guards what is below
	tokens  float64
	filled  time.Time
	lines   []*line // those in which somebody waits; the first is next
	waiting int
	timer   *time.Timer // gives turns when the next token is there; nil: it is not needed
}

// line is one peer's, oldest first.
type line struct {
	peer    string
	waiters []*waiter
}

type waiter struct {
	turn chan *turn // one place: gets a turn, or nil for one that is sent away
	gate Gate       // why it waits; guarded by the turnstile's mu
}

// turn is the right to one question. It must be given back once, by done or giveBack.
type turn struct {
	of     *turnstile
	permit adaptivelimiter.Permit
}

func newTurnstile(c Config) *turnstile {
	most := uint(c.MaxInFlight)
	return &turnstile{
		// Never below a quarter: a server may have slow tokens, and nobody may talk it down to nothing.
		limiter: adaptivelimiter.NewBuilder[any]().WithLimits(max(1, most/4), most, most).WithMaxLimitFactor(float64(most)).Build(),
		rate:    float64(c.Rate), burst: float64(c.Rate), tokens: float64(c.Rate), filled: time.Now(),
		room: int(float64(c.Rate)*c.Timeout.Seconds()) + c.MaxInFlight,
	}
}

// wait returns a turn, or no turn and the gate that refused one until last, or why ctx ended.
func (s *turnstile) wait(ctx context.Context, q *watchword.Query, last time.Time) (*turn, Gate, error) {
	if q.Background {
		return s.now(true), GateBackground, nil
	}
	t, w, gate := s.queue(q.Peer)
	if w == nil {
		return t, gate, nil
	}
	timer := time.NewTimer(time.Until(last))
	defer timer.Stop()
	select {
	case t = <-w.turn:
		return t, w.gate, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	t, gate = s.leave(q.Peer, w)
	if err := context.Cause(ctx); err != nil && ctx.Err() == context.Canceled {
		if t != nil {
			t.giveBack()
		}
		return nil, gate, err
	}
	return t, gate, nil
}

// now returns a turn if one is free and nobody waits; in the background only while half of everything is free.
func (s *turnstile) now(background bool) *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fill()
	if s.waiting > 0 || background && (s.tokens < s.burst/2 || s.limiter.Inflight() >= (s.limiter.Limit()+1)/2) {
		return nil
	}
	t, _ := s.take()
	return t
}

// queue returns a turn, or a place in the line of peer, or neither where even that is not to be had.
func (s *turnstile) queue(peer string) (*turn, *waiter, Gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fill()
	if s.waiting == 0 {
		if t, _ := s.take(); t != nil {
			return t, nil, 0
		}
	}
	mine := s.lineOf(peer)
	if s.waiting >= s.room {
		longest := slices.MaxFunc(s.lines, func(a, b *line) int { return len(a.waiters) - len(b.waiters) })
		if mine != nil && len(mine.waiters) >= len(longest.waiters) || len(longest.waiters) == 1 {
			return nil, nil, s.why()
		}
		end := len(longest.waiters) - 1
		longest.waiters[end].turn <- nil
		longest.waiters = longest.waiters[:end]
		s.waiting--
	}
	if mine == nil {
		mine = &line{peer: peer}
		s.lines = append(s.lines, mine)
	}
	w := &waiter{turn: make(chan *turn, 1), gate: s.why()}
	mine.waiters = append(mine.waiters, w)
	s.waiting++
	s.serve()
	return nil, w, 0
}

// leave gives up waiting. A turn that came meanwhile is returned.
func (s *turnstile) leave(peer string, w *waiter) (*turn, Gate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case t := <-w.turn:
		return t, w.gate
	default:
	}
	l := s.lineOf(peer)
	l.waiters = slices.DeleteFunc(l.waiters, func(o *waiter) bool { return o == w })
	s.waiting--
	if len(l.waiters) == 0 {
		s.lines = slices.DeleteFunc(s.lines, func(o *line) bool { return o == l })
	}
	return nil, s.why()
}

func (s *turnstile) lineOf(peer string) *line {
	for _, l := range s.lines {
		if l.peer == peer {
			return l
		}
	}
	return nil
}

// why is which gate is closed. The caller holds mu.
func (s *turnstile) why() Gate {
	if s.tokens < 1 {
		return GateRate
	}
	return GateInFlight
}

func (s *turnstile) fill() {
	now := time.Now()
	s.tokens = min(s.burst, s.tokens+max(0, now.Sub(s.filled).Seconds())*s.rate)
	s.filled = now
}

// begin lets the rate hold from now on for a server that is back, with what was asked to try it: many wait for it, and
// what was not asked meanwhile is not made up for at once.
func (s *turnstile) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fill()
	s.tokens = min(s.tokens, -probes)
}

// take takes a turn if one is free. The caller holds mu.
func (s *turnstile) take() (*turn, bool) {
	if s.tokens < 1 {
		return nil, false
	}
	permit, ok := s.limiter.TryAcquirePermit()
	if !ok {
		return nil, false
	}
	s.tokens--
	return &turn{s, permit}, true
}

// serve gives turns to those who wait, line by line, and comes back when the next token is there. The caller holds mu.
func (s *turnstile) serve() {
	s.fill()
	for len(s.lines) > 0 {
		t, ok := s.take()
		if !ok {
			break
		}
		l := s.lines[0]
		s.lines = append(s.lines[:0], s.lines[1:]...)
		l.waiters[0].turn <- t
		l.waiters = slices.Delete(l.waiters, 0, 1)
		s.waiting--
		if len(l.waiters) > 0 {
			s.lines = append(s.lines, l)
		}
	}
	if s.waiting == 0 || s.timer != nil || s.tokens >= 1 { // a turn that ends serves again
		return
	}
	s.timer = time.AfterFunc(time.Duration((1-s.tokens)/s.rate*float64(time.Second))+1, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.timer = nil
		s.serve()
	})
}

// done ends a turn that was used; timely: its time says how fast the server is.
func (t *turn) done(timely bool) {
	if timely {
		t.permit.Record()
	} else {
		t.permit.Drop()
	}
	t.of.again(0)
}

// giveBack ends a turn in which nothing was asked.
func (t *turn) giveBack() {
	t.permit.Drop()
	t.of.again(1)
}

func (s *turnstile) again(tokens float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = min(s.burst, s.tokens+tokens)
	s.serve()
}

func (s *turnstile) look() (inFlight, limit, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limiter.Inflight(), s.limiter.Limit(), s.waiting
}
