package cache

import (
	"context"
	"errors"
	"time"

	"github.com/watchword-dev/watchword"
)

// flight is one asking, shared by all who may use its answer. It runs detached from them, with a deadline of its own;
// each waiter leaves when its own context ends.
type flight struct {
	began      time.Time
	background bool            // it began as a refresh, for which nobody waited
	done       chan struct{}   // closed when answer or err is there
	late       <-chan struct{} // closed at the deadline, should the source below ignore it
	answer     *watchword.Answer
	err        error

	older, younger *flight // the next ones about the same token that are in the air; Cache.mu
}

// air is what is under way about one token: mostly one flight, and more where one could not be joined. It is forgotten
// with the last of them.
type air struct {
	youngest *flight
	brought  *watchword.Answer // the youngest that any of them brought; nil: none has
}

// free returns the youngest flight that may still bring news: not one that began before what is known by now was asked
// for. nil: there is none.
func (r *air) free() *flight {
	if r == nil || r.youngest == nil || r.passes(r.youngest.began) {
		return nil
	}
	return r.youngest
}

// passes reports that what was brought is no older than t.
func (r *air) passes(t time.Time) bool {
	return r.brought != nil && watchword.Age(t, r.brought.AsOf()) <= 0
}

func (r *air) enter(f *flight) {
	if f.older = r.youngest; f.older != nil {
		f.older.younger = f
	}
	r.youngest = f
}

func (r *air) leave(f *flight) {
	if f.younger != nil {
		f.younger.older = f.older
	} else {
		r.youngest = f.older
	}
	if f.older != nil {
		f.older.younger = f.younger
	}
	f.older, f.younger = nil, nil
}

// wait returns what f brought: an answer, or an error, maybe with what the source below knew before.
func (f *flight) wait(ctx context.Context, issuer string) (*watchword.Answer, error) {
	select {
	case <-f.done:
		return f.answer, f.err
	case <-ctx.Done():
	case <-f.late:
	}
	select {
	case <-f.done: // landed meanwhile
		return f.answer, f.err
	default:
	}
	if ctx.Err() != nil {
		return nil, &watchword.Error{Failure: watchword.Canceled, Issuer: issuer, Cause: context.Cause(ctx)}
	}
	return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: issuer, Cause: errors.New("no answer before the deadline of the asking")}
}

// board finds a flight that q may join, a refresh only if told so, or starts one, if the budget of q's peer allows.
func (o *over) board(ctx context.Context, q watchword.Query, known *watchword.Answer, refresh bool) (*flight, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.flights[q.Key].free(); f != nil && q.Joins(f.began) && (refresh || !f.background) {
		o.stats.count(Joined, q.Key)
		return f, nil
	}
	if a, _ := o.active.GetIfPresent(q.Key); a != nil && a != known && q.Weigh(a) == watchword.Fresh { // landed just now
		o.stats.count(Joined, q.Key)
		return &flight{done: closed, answer: a}, nil
	}
	if known == nil {
		if wait := o.budget.board(q.Peer, q.At); wait > 0 {
			o.stats.count(Throttled, q.Key)
			return nil, &watchword.Error{Failure: watchword.Throttled, Issuer: q.Issuer, RetryAfter: wait, Cause: errors.New("this peer asked about too many tokens that turned out to be nothing")}
		}
	}
	if known != nil && caused(&q, known) {
		if wait := o.reask.take(q.Issuer, q.At); wait > 0 {
			o.stats.count(Paced, q.Key)
			return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer, RetryAfter: wait, Cause: errPaced}
		}
	}
	o.stats.count(Miss, q.Key)
	return o.takeOff(ctx, q, known == nil), nil
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// takeOff starts a flight. The caller holds mu.
func (o *over) takeOff(ctx context.Context, q watchword.Query, stranger bool) *flight {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.config.FlightTimeout)
	f := &flight{began: time.Now(), background: q.Background, done: make(chan struct{}), late: ctx.Done()}
	r := o.flights[q.Key]
	if r == nil {
		r = new(air)
		o.flights[q.Key] = r
	}
	r.enter(f)
	go func() {
		defer cancel()
		_ = roomy(0)
		f.answer, f.err = o.ask(ctx, q)
		o.land(q, f, stranger)
	}()
	return f
}

// roomy makes a young goroutine's stack as large as an asking needs while there is nothing on it to be copied; grown
// step by step, deep in net/http, it costs a miss a twentieth of its time.
//
//go:noinline
func roomy(at byte) byte {
	var room [12 << 10]byte
	return room[at]
}

func (o *over) ask(ctx context.Context, q watchword.Query) (a *watchword.Answer, err error) {
	defer func() {
		if recover() != nil { // what it says may hold a token
			a, err = nil, errors.New("panic while asking")
		}
	}()
	if a, err = o.next.Introspect(ctx, q); err == nil && a == nil {
		err = errors.New("a source gave neither an answer nor an error")
	}
	return a, err
}

// sure reports that f brought something to be believed: what the server said, or what the source below knew while the
// server could not say it, which is as old as it is. In a storm of inactive answers nobody knows (Error.Doubted).
func (f *flight) sure() bool {
	e, is := errors.AsType[*watchword.Error](f.err)
	return f.answer != nil && !(is && e.Doubted)
}

// land shares what f brought and remembers it, unless something younger was brought meanwhile. A flight that fails says
// nothing about others: they may still be joined, and what they bring is remembered.
func (o *over) land(q watchword.Query, f *flight, stranger bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer close(f.done)
	r := o.flights[q.Key]
	if r.leave(f); r.youngest == nil {
		delete(o.flights, q.Key)
	}
	if stranger {
		o.budget.land(q.Peer, time.Now(), nothing(f.answer, f.err))
	}
	if !f.sure() {
		return
	}
	known, _ := o.active.GetIfPresent(q.Key)
	passed := r.passes(f.answer.AsOf())
	switch {
	case o.config.OnInactive == nil:
	case f.answer.Active():
		if passed && !r.brought.Active() { // of a stranger, it seemed
			o.config.OnInactive(q, r.brought)
		}
	case known != nil || !stranger || o.config.WasActive != nil && o.config.WasActive(q):
		o.config.OnInactive(q, f.answer)
	}
	if !passed {
		r.brought = f.answer
		o.put(q.Key, f.answer)
	}
}

// nothing reports that a stranger's token turned out to be none, as far as anybody can tell: also where the server is
// doubted, or a flood of strange tokens would cost nothing as long as a storm blows.
func nothing(a *watchword.Answer, err error) bool {
	if e, ok := errors.AsType[*watchword.Error](err); ok {
		return e.Doubted && a == nil
	}
	return err == nil && !a.Active()
}
