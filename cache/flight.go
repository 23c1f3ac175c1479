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
	older      *flight         // one that this could not join and that is still in the air
	past       bool            // a younger flight has landed: what this one brings is not remembered
	answer     *watchword.Answer
	err        error
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
	if f := o.flights[q.Key]; f != nil && q.Joins(f.began) && (refresh || !f.background) {
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
	f := &flight{began: time.Now(), background: q.Background, done: make(chan struct{}), late: ctx.Done(), older: o.flights[q.Key]}
	o.flights[q.Key] = f
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

// land shares what f brought and remembers it.
func (o *over) land(q watchword.Query, f *flight, stranger bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer close(f.done)
	if o.flights[q.Key] == f {
		delete(o.flights, q.Key)
	}
	for old := f.older; old != nil; old = old.older {
		old.past = true
	}
	f.older = nil
	if f.sure() && !f.answer.Active() && o.config.OnInactive != nil {
		known, _ := o.active.GetIfPresent(q.Key)
		if known != nil || !stranger || o.config.WasActive != nil && o.config.WasActive(q) {
			o.config.OnInactive(q, f.answer)
		}
	}
	if stranger {
		o.budget.land(q.Peer, time.Now(), nothing(f.answer, f.err))
	}
	if f.past || !f.sure() {
		return
	}
	o.put(q.Key, f.answer)
}

// nothing reports that a stranger's token turned out to be none, as far as anybody can tell: also where the server is
// doubted, or a flood of strange tokens would cost nothing as long as a storm blows.
func nothing(a *watchword.Answer, err error) bool {
	if e, ok := errors.AsType[*watchword.Error](err); ok {
		return e.Doubted && a == nil
	}
	return err == nil && !a.Active()
}
