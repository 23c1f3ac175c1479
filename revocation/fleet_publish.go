package revocation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Publish puts events in force here, at once and whatever the bus says, and then into the log, and beside it where they
// must outlive it. nil: they are durable where every node reads them. After an error the sender must send again.
func (f *Fleet) Publish(ctx context.Context, events ...Event) error {
	events = append([]Event(nil), events...)
	now := time.Now()
	for i := range events {
		e := &events[i]
		if e.Heard.IsZero() {
			e.Heard = now
		}
		e.Identify()
		if err := e.Validate(); err != nil {
			return err
		}
		if _, known := f.c.Issuer(e.Issuer); !known {
			return errors.New("event: names an issuer that is not configured")
		}
	}
	if err := f.c.Sink.Apply(ctx, events...); err != nil {
		for i := range events {
			if !events[i].Operator { // an operator's is proven by no feed
				_ = f.append(ctx, &record{kind: kindLapse, issuer: events[i].Issuer, why: "an event was refused"}, events[i:i+1])
			}
		}
		return err
	}
	if err := f.spread(ctx, events); err != nil {
		f.owe(events)
		return err
	}
	f.paid(events)
	return nil
}

// spread puts events into the log, and beside it where they must outlive it.
func (f *Fleet) spread(ctx context.Context, events []Event) error {
	for left := events; len(left) > 0; {
		n, size := 0, 0
		for ; n < len(left) && (n == 0 || size < batchBytes); n++ {
			size += len(AppendEvent(nil, &left[n]))
		}
		if err := f.append(ctx, &record{kind: kindEvents, events: left[:n]}, left[:n]); err != nil {
			return fmt.Errorf("in force on this node only, the bus did not take it: %w", err)
		}
		left = left[n:]
	}
	for i := range events {
		if err := f.keep(ctx, &events[i]); err != nil {
			return fmt.Errorf("in force on every node that runs, but the bus did not keep it: %w", err)
		}
	}
	return nil
}

// owe remembers what is in force on this node only: not every sender comes again, as one of logout tokens never does.
// What there is no room for, only its sender can repeat.
func (f *Fleet) owe(events []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		if len(f.owed) < maxOwed && !slices.ContainsFunc(f.owed, func(o Event) bool { return same(o, e) }) {
			f.owed = append(f.owed, e)
		}
	}
}

func same(a, b Event) bool { return a.ID == b.ID && identity(&a) == identity(&b) }

// paid forgets what its sender has repeated.
func (f *Fleet) paid(events []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owed = slices.DeleteFunc(f.owed, func(e Event) bool {
		return slices.ContainsFunc(events, func(p Event) bool { return same(p, e) })
	})
}

// repay sends what is owed, until something fails; that comes last then.
func (f *Fleet) repay(ctx context.Context) {
	f.mu.Lock()
	owed := f.owed
	f.owed = nil
	f.mu.Unlock()
	for i := range owed {
		if f.spread(ctx, owed[i:i+1]) != nil {
			f.owe(owed[i+1:])
			f.owe(owed[i : i+1])
			return
		}
	}
}

// keep stores what must outlive the log: a revalidate event is over before the log is cut.
func (f *Fleet) keep(ctx context.Context, e *Event) error {
	if e.Effect == Revalidate {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.c.Timeout)
	defer cancel()
	body := f.seal.seal(&record{kind: kindEvents, from: f.self, sent: time.Now(), events: []Event{*e}})
	return f.c.Log.Keep(ctx, f.seal.keptUnder(e), body, f.c.Life(e).Add(f.c.Skew))
}

// Prove sends a proof of coverage after the events that were published before. It counts, here too, once it was read.
func (f *Fleet) Prove(ctx context.Context, issuer string, through time.Time) error {
	if _, known := f.c.Issuer(issuer); !known || through.IsZero() {
		return errors.New("proof: of no issuer, or until no time")
	}
	return f.append(ctx, &record{kind: kindProof, issuer: issuer, through: through}, nil)
}

// Lapse is a gap here at once, and one everywhere: where the bus does not take it now, before anything later.
func (f *Fleet) Lapse(ctx context.Context, issuer, why string) error {
	f.gap(f.c.Sink, issuer, GapTold, why)
	why = why[:min(len(why), MaxText)]
	return f.append(ctx, &record{kind: kindLapse, issuer: issuer, why: why}, []Event{{Issuer: issuer}})
}

// append numbers, seals and appends r. What failed before goes first, under its old number: if it had arrived after all
// it is a duplicate, and if not there is no hole. Where r cannot be sent, the issuers of about have lapsed on every other
// node: no later proof may pass over what they were not told. It returns when ctx ends, also while another one waits for
// the bus: senders do not wait for long. A proof that is on its way then was none of what about says, for a feed proves
// nothing while it delivers.
func (f *Fleet) append(ctx context.Context, r *record, about []Event) (err error) {
	ctx, cancel := context.WithTimeout(ctx, f.c.Timeout)
	defer cancel()
	defer func() {
		if err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			for i := range about {
				f.lapsed[about[i].Issuer] = "something could not be published"
			}
		}
	}()
	select {
	case <-f.send:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { f.send <- struct{}{} }()
	if err := f.flush(ctx); err != nil {
		return err
	}
	for issuer, why, is := f.nextLapse(); is; issuer, why, is = f.nextLapse() {
		f.number(&record{kind: kindLapse, issuer: issuer, why: why})
		if err := f.flush(ctx); err != nil {
			return err
		}
	}
	f.number(r)
	return f.flush(ctx)
}

// nextLapse takes one that is to be told: it is pending then, which comes first.
func (f *Fleet) nextLapse() (issuer, why string, is bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for issuer, why := range f.lapsed {
		delete(f.lapsed, issuer)
		return issuer, why, true
	}
	return "", "", false
}

// number makes r what is pending.
func (f *Fleet) number(r *record) {
	f.sequence++
	r.from, r.sequence, r.sent = f.self, f.sequence, time.Now()
	f.pending = f.seal.seal(r)
}

// flush appends what is pending.
func (f *Fleet) flush(ctx context.Context) error {
	if f.pending == nil {
		return nil
	}
	if err := f.c.Log.Append(ctx, f.pending); err != nil {
		return err
	}
	f.pending = nil
	return nil
}
