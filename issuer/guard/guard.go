// Package guard stands in front of one authorization server: it keeps us from asking more than the server bears, and a
// sick server from taking us along. It is apart from package issuer because it links a library.
package guard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/watchword-dev/watchword"
)

// Defaults of Config.
const (
	DefaultTimeout     = 2 * time.Second
	DefaultMaxInFlight = 64
	DefaultRate        = 200
)

// Config of a Guard. A zero field means its default, or none where that is stricter: no retry, no hedge.
type Config struct {
	Timeout     time.Duration // of one whole asking: waiting for a turn, retries and pauses included; zero: DefaultTimeout
	Retries     int           // of one asking, at most; zero: none
	RetryBudget float64       // questions that may be asked once more, as a share of all; zero: none
	MaxInFlight int           // questions in the air at once, at most; fewer while the server slows down; zero: DefaultMaxInFlight
	Rate        int           // questions a second, and as many at once; zero: DefaultRate
	Breaker     Breaker
	HedgeAfter  time.Duration // ask a second time if nobody answered until then; zero: never

	// Held is how long the server still wants to be left alone, by its own word (Retry-After). It must not block. Nil: it
	// never says.
	Held func() time.Duration
}

// Breaker stops asking a server that does not answer.
type Breaker struct {
	Failures float64       // share of failures within breakerWindow that opens it, up to 1; zero: a half
	Over     int           // among at least so many; zero: 20
	Open     time.Duration // at most so long; then a few questions try; zero: 5s
}

const (
	breakerWindow = 10 * time.Second
	probes        = 3                     // answers in a row that close the breaker again, and questions that try at once
	firstPause    = 50 * time.Millisecond // before the first retry at most; doubles with every further one
	longestPause  = time.Second
	reserve       = 0.3 // share of the time for an asking in which nothing is begun any more
)

// Gate is what refused a question. Its String is a metric label.
type Gate uint8

// The gates, in the order in which a question meets them.
const (
	GateRetryAfter Gate = iota // the server said when to come back
	GateBreaker                // it does not answer
	GateBackground             // nobody waits for it, and others want its place
	GateRate                   // the rate was spent until it was too late
	GateInFlight               // too many were in the air until it was too late
	gates
)

// String returns the label of g.
func (g Gate) String() string {
	return [gates]string{"retry_after", "breaker", "background", "rate", "in_flight"}[g]
}

// Gates lists every Gate in order.
func Gates() []Gate {
	return []Gate{GateRetryAfter, GateBreaker, GateBackground, GateRate, GateInFlight}
}

// State is the breaker's. Its String is a metric label.
type State uint8

// The states of a breaker.
const (
	Closed   State = iota // all is well
	Open                  // nobody is asked
	HalfOpen              // a few questions try
)

// String returns the label of s.
func (s State) String() string { return [...]string{"closed", "open", "half_open"}[s] }

// Stats is a look at a Guard; counters count since it was made.
type Stats struct {
	Breaker                  State
	InFlight, Limit, Waiting int // questions in the air, how many may be now, and those that wait for a turn
	Retries, Hedges          uint64
	Refused                  [gates]uint64 // by Gate
}

// Guard is a Source over that of one authorization server. Make it with Over. Safe for concurrent use.
//
// A question meets, in this order: the time that it has; a look at Held and the breaker, so that nobody waits in vain;
// its turn under the rate and the limit of questions in the air; Held again, the breaker; the server. A failure goes back
// to the look, if retries, their budget and the time allow. What is refused here is an *Error{Unavailable} with RetryAfter.
type Guard struct {
	next       watchword.Source
	config     Config
	turns      *turnstile
	breaker    circuitbreaker.CircuitBreaker[any]
	generation atomic.Uint64 // of the breaker's state: an answer counts only in the state that it was asked in
	budget     budget
	retries    atomic.Uint64
	hedges     atomic.Uint64
	refused    [gates]atomic.Uint64
}

// Over makes a Guard over next, which is one authorization server, or reports every mistake of c at once.
func Over(next watchword.Source, c Config) (*Guard, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.setDefaults()
	if c.Held == nil {
		c.Held = func() time.Duration { return 0 }
	}
	g := &Guard{next: next, config: c, budget: budget{share: c.RetryBudget, left: 1}}
	g.turns = newTurnstile(c)
	g.breaker = circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(c.Breaker.Failures, uint(c.Breaker.Over), breakerWindow).
		WithSuccessThresholdRatio(probes, probes).
		WithRandomDelay(c.Breaker.Open/2, c.Breaker.Open*9/10). // instances that opened together try apart
		OnStateChanged(func(circuitbreaker.StateChangedEvent) { g.generation.Add(1) }).
		OnClose(func(circuitbreaker.StateChangedEvent) { g.turns.begin() }).
		Build()
	return g, nil
}

func (c *Config) validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf("guard: "+format, args...))
		}
	}
	bad(c.Timeout < 0, "Timeout %v is negative", c.Timeout)
	bad(c.Retries < 0, "Retries %d is negative", c.Retries)
	bad(!(c.RetryBudget >= 0 && c.RetryBudget <= 1), "RetryBudget %v is not a share between 0 and 1", c.RetryBudget)
	bad(c.MaxInFlight < 0, "MaxInFlight %d is negative", c.MaxInFlight)
	bad(c.Rate < 0, "Rate %d is negative", c.Rate)
	bad(!(c.Breaker.Failures >= 0 && c.Breaker.Failures <= 1), "Breaker.Failures %v is not a share between 0 and 1", c.Breaker.Failures)
	bad(c.Breaker.Over < 0, "Breaker.Over %d is negative", c.Breaker.Over)
	bad(c.Breaker.Open < 0, "Breaker.Open %v is negative", c.Breaker.Open)
	bad(c.HedgeAfter < 0, "HedgeAfter %v is negative", c.HedgeAfter)
	return errors.Join(errs...)
}

func (c *Config) setDefaults() {
	fill(&c.Timeout, DefaultTimeout)
	fill(&c.MaxInFlight, DefaultMaxInFlight)
	fill(&c.Rate, DefaultRate)
	fill(&c.Breaker.Failures, 0.5)
	fill(&c.Breaker.Over, 20)
	fill(&c.Breaker.Open, 5*time.Second)
}

func fill[T comparable](field *T, otherwise T) {
	if *field == *new(T) {
		*field = otherwise
	}
}

// Introspect asks next, if and when the server bears it.
func (g *Guard) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, g.config.Timeout)
	defer cancel()
	end, _ := ctx.Deadline()
	last := end.Add(-time.Duration(reserve * float64(time.Until(end)))) // nothing begins after it
	for try := 0; ; try++ {
		a, err := g.once(ctx, &q, last, try == 0)
		if err == nil || !g.again(ctx, err, try, last) {
			return a, err
		}
	}
}

// once takes one turn. A first question that is asked earns a share of a retry.
func (g *Guard) once(ctx context.Context, q *watchword.Query, last time.Time, first bool) (*watchword.Answer, error) {
	if left := g.config.Held(); left > 0 {
		return nil, g.refuse(q, GateRetryAfter, left)
	}
	if left := g.breaker.RemainingDelay(); left > 0 {
		return nil, g.refuse(q, GateBreaker, left)
	}
	turn, gate, err := g.turns.wait(ctx, q, last)
	if err != nil {
		return nil, &watchword.Error{Failure: watchword.Canceled, Issuer: q.Issuer, Cause: err}
	}
	if turn == nil {
		return nil, g.refuse(q, gate, time.Second)
	}
	if left := g.config.Held(); left > 0 { // said while this waited: the turn goes on, and with it the whole line
		turn.giveBack()
		return nil, g.refuse(q, GateRetryAfter, left)
	}
	state := g.generation.Load()
	if !g.breaker.TryAcquirePermit() {
		turn.giveBack()
		return nil, g.refuse(q, GateBreaker, max(g.breaker.RemainingDelay(), time.Second))
	}
	if g.breaker.IsHalfOpen() {
		state = g.generation.Load() // it opened by our asking for a permit
	}
	if first {
		g.budget.earn()
	}
	return g.hedged(ctx, q, turn, state)
}

// ask asks the server and tells limiter and breaker what came of it. A panic counts as a failure and goes on.
func (g *Guard) ask(ctx context.Context, q watchword.Query, t *turn, state uint64) (a *watchword.Answer, err error) {
	returned := false
	defer func() {
		failed := !returned || errors.Is(err, watchword.Unavailable)
		t.done(!failed && !errors.Is(err, watchword.Canceled))
		g.record(state, failed, err)
	}()
	a, err = g.next.Introspect(ctx, q)
	returned = true
	return a, err
}

// record counts an outcome. Only silence and 5xx are failures: what a token or a credential can bring about must not
// close the way for all. Where the server said when to come back its own word holds, and the client keeps to it.
func (g *Guard) record(state uint64, failed bool, err error) {
	if g.generation.Load() != state {
		return
	}
	e, _ := errors.AsType[*watchword.Error](err)
	probing := g.breaker.IsHalfOpen()
	switch {
	case errors.Is(err, watchword.Canceled) && probing: // a permit must come back, and nothing was proven
		g.breaker.RecordFailure()
	case errors.Is(err, watchword.Canceled), e != nil && e.RetryAfter > 0 && !probing:
	case failed:
		g.breaker.RecordFailure()
	default:
		g.breaker.RecordSuccess()
	}
}

// again reports whether another try makes sense, and pauses before it: full jitter, so that many do not come back as
// one.
func (g *Guard) again(ctx context.Context, err error, try int, last time.Time) bool {
	e, ok := errors.AsType[*watchword.Error](err)
	if !ok || e.Failure != watchword.Unavailable || e.RetryAfter > 0 || try >= g.config.Retries || !g.breaker.IsClosed() {
		return false
	}
	pause := time.Duration(rand.Float64() * float64(min(firstPause<<min(try, 10), longestPause)))
	if time.Now().Add(pause).After(last) || ctx.Err() != nil || !g.budget.spend() {
		return false
	}
	g.retries.Add(1)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g *Guard) refuse(q *watchword.Query, gate Gate, after time.Duration) error {
	g.refused[gate].Add(1)
	return &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer, RetryAfter: after, Cause: causes[gate]}
}

var causes = [gates]error{
	GateRetryAfter: errors.New("not asked: it asked not to be asked before Retry-After"),
	GateBreaker:    errors.New("not asked: it does not answer, and is left alone for a while"),
	GateBackground: errors.New("not asked: others wait, and nobody waits for this"),
	GateRate:       errors.New("not asked: its rate (guard.rate) is spent"),
	GateInFlight:   errors.New("not asked: as many questions as it bears (guard.max_in_flight) are in the air"),
}

// Stats returns a look at g.
func (g *Guard) Stats() Stats {
	s := Stats{Retries: g.retries.Load(), Hedges: g.hedges.Load()}
	s.InFlight, s.Limit, s.Waiting = g.turns.look()
	switch {
	case g.breaker.IsHalfOpen():
		s.Breaker = HalfOpen
	case g.breaker.IsOpen():
		s.Breaker = Open
	}
	for i := range s.Refused {
		s.Refused[i] = g.refused[i].Load()
	}
	return s
}
