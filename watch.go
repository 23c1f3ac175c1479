package watchword

import (
	"context"
	"time"
)

// Notifier is a Ledger that tells when more is held against an issuer's tokens, so that Watch need not wait for its
// next look.
type Notifier interface {
	// Changed returns a channel that is closed at the next change after the call. It must not block.
	Changed(issuer string) <-chan struct{}
}

const (
	soonest   = time.Second            // from one look to the next
	latest    = 10 * time.Second       // the same while nobody can answer
	breather  = 100 * time.Millisecond // between looks that changes of the ledger ask for
	firstTurn = 0.75                   // of the bound: a watched token is asked about between here …
	lastTurn  = 0.95                   // … and here, each at a time of its own
)

// Watch blocks until the token of r is not, or no more, accepted, and says why: for streams that outlive their first
// decision. It looks again when evidence is about to be older than the policy promises, when the token ends, and when
// a Ledger that is a Notifier tells of a change; so a stream ends within Freshness.MaxStaleness of a revocation, or
// within a second if that is longer, and as soon as an event is heard. While nobody can answer, the words of the policy
// decide, as in Verify. Every look is a decision that observers see. CallerLeft: ctx ended first.
//
// It blocks its caller's goroutine and starts none. Safe for concurrent use.
func (v *Verifier) Watch(ctx context.Context, r Request) Decision {
	share := 0.0 // the first look is as any other
	for {
		changed, tenant := v.changes(&r) // before the look, so that no change falls between
		d := v.look(ctx, &r, share)
		if !d.Allowed() {
			return d
		}
		u := v.config.Load().Chance()
		share = firstTurn + u*(lastTurn-firstTurn)
		looked, timer := time.Now(), time.NewTimer(d.pause(&r, tenant, share))
		select {
		case <-timer.C:
		case <-changed:
			timer.Reset(max(0, breather-Age(time.Now(), looked)))
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			d.Reason, d.Err = CallerLeft, &Error{Failure: Canceled, Issuer: d.Issuer, Cause: context.Cause(ctx)}
			return d
		}
	}
}

// look is Verify that asks also where the turn of an answer has come.
func (v *Verifier) look(ctx context.Context, r *Request, share float64) Decision {
	c, at := v.config.Load(), time.Now()
	d, took := c.decide(ctx, r, at, share)
	for _, o := range c.Observers {
		observe(o, *r, d, took)
	}
	return d
}

// changes is where changes that concern r are told, nil where nobody tells, and the claim that names tenants.
func (v *Verifier) changes(r *Request) (changed <-chan struct{}, tenant string) {
	c := v.config.Load()
	_, to := c.prepare(new(Decision), r)
	if to == nil {
		return nil, ""
	}
	if n, ok := c.Ledger.(Notifier); ok {
		changed = n.Changed(to.Name)
	}
	return changed, to.Tenant
}

// pause is how long d is good for without another look.
func (d *Decision) pause(r *Request, tenant string, share float64) time.Duration {
	f := d.Policy.demand(r)
	if d.Answer == nil { // nobody: until somebody can be asked
		return latest
	}
	f = d.Policy.tiered(f, d.Answer, tenant)
	bound := min(f.MaxStaleness, f.maxAge())
	if d.Answer.bound > 0 {
		bound = min(bound, d.Answer.bound)
	}
	now := time.Now()
	age := Age(now, d.Answer.AsOf())
	part := func(share float64) time.Duration { return time.Duration(share * float64(bound)) }
	wait := part(share) - age + 1 // its turn has then come
	switch {
	case d.Err != nil: // nobody could answer: try again soon, and at the end of what may be served
		wait = min(part(1./8), latest)
		for _, end := range []time.Duration{f.MaxStaleness, f.MaxStaleness + f.StaleIfError} {
			if left := end - age; left >= 0 {
				wait = min(wait, left+1)
			}
		}
	case wait <= 0 && age <= bound:
		wait = bound - age + 1
	case wait <= 0: // a feed vouches for it; should that stop, there is this much time at least
		wait = part(1 - lastTurn)
	}
	wait = max(wait, soonest)
	if left, ends := d.Answer.Remaining(now); ends {
		wait = min(wait, left+d.Answer.Leeway())
	}
	return max(wait, 1)
}
