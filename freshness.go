package watchword

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// DefaultMaxAge is Freshness.MaxAge where it is zero, unless MaxStaleness is longer.
const DefaultMaxAge = 10 * time.Minute

// longest is the longest time that is reckoned with, 146 years: two of them add up without wrapping around.
const longest time.Duration = math.MaxInt64 / 2

// UntilExpiry is Freshness.MaxStaleness in words: no evidence is too old, a token is good until it expires. It promises
// nothing about revoked tokens but what a ledger hears of them.
const UntilExpiry = longest

// Freshness is the promise that a policy makes about revoked tokens: a check that begins MaxStaleness after the
// authorization server stopped calling a token active never accepts it. The zero value asks every time.
type Freshness struct {
	MaxStaleness time.Duration // how old the evidence may be; zero: asked for this very check
	MaxAge       time.Duration // ask the server itself again after this, however healthy the feeds; zero: DefaultMaxAge or MaxStaleness
	StaleIfError time.Duration // both bounds grow by this while the server cannot answer; zero: never
}

// Validate reports every mistake of f at once.
func (f Freshness) Validate() error {
	var errs []error
	for _, b := range []struct {
		name string
		d    time.Duration
	}{{"max_staleness", f.MaxStaleness}, {"max_age", f.MaxAge}, {"stale_if_error", f.StaleIfError}} {
		if b.d < 0 {
			errs = append(errs, fmt.Errorf("%s is %v: a bound cannot be negative", b.name, b.d))
		}
		if b.d > longest {
			errs = append(errs, fmt.Errorf("%s is longer than 146 years: nothing may be believed for ever", b.name))
		}
	}
	if f.MaxAge > 0 && f.MaxAge < f.MaxStaleness {
		errs = append(errs, fmt.Errorf("max_age %v is below max_staleness %v: the promise would never be used; raise max_age or leave it out", f.MaxAge, f.MaxStaleness))
	}
	return errors.Join(errs...)
}

// Life is how long an answer may be of any use to f while no feed covers its issuer; Covered, while one does.
func (f Freshness) Life() time.Duration { return f.MaxStaleness + f.StaleIfError }

// Covered is how long an answer may be of any use to f while a covering feed extends it.
func (f Freshness) Covered() time.Duration { return f.maxAge() + f.StaleIfError }

func (f Freshness) maxAge() time.Duration {
	if f.MaxAge == 0 {
		return max(f.MaxStaleness, DefaultMaxAge)
	}
	return f.MaxAge
}

// tighten is f with every bound that t has lower.
func (f Freshness) tighten(t *Freshness) Freshness {
	f.MaxAge = min(f.maxAge(), t.maxAge())
	f.MaxStaleness = min(f.MaxStaleness, t.MaxStaleness)
	f.StaleIfError = min(f.StaleIfError, t.StaleIfError)
	return f
}

// Coverage is what revocation feeds prove about one issuer: every covered revocation that happened from Since to
// Through is known here. Through is when that proof was made at its origin, never when it arrived. Settle is how long
// the server's introspection may lag its own revocations. The zero value proves nothing.
type Coverage struct {
	Since, Through time.Time
	Settle         time.Duration
	Keys           []string // claims by which the feed's events name tokens: an answer that lacks one is never extended
}

// Void is what is held against an Answer by what was heard of revocations. The zero value: it stands.
type Void struct {
	Revoked    bool      // final for this answer
	Questioned time.Time // the newest instant at which something heard casts doubt: only an answer asked later counts
}

// Standing is what an Answer is worth to a Query.
type Standing uint8

// The standings, worst first.
const (
	Unusable Standing = iota // too old, expired, or asked before what questions it
	Stale                    // good enough only where nobody can do better (Freshness.StaleIfError)
	Fresh                    // as fresh as demanded
)

// Age is how much later now is than then: by the monotonic or the wall clock, whichever says more. Go's monotonic
// clock stops while a host sleeps and the wall can step back; evidence is as old as the worse of them says. Negative:
// both say that then is the later one. Nothing else in Watchword compares instants that bound evidence.
func Age(now, then time.Time) time.Duration {
	const most = math.MaxInt64 / int64(time.Second)
	seconds := now.Unix() - then.Unix() // what Sub would do without monotonic readings, at a third of its price
	switch {
	case seconds >= most:
		return math.MaxInt64
	case seconds <= -most:
		return max(now.Sub(then), math.MinInt64)
	}
	wall := time.Duration(seconds)*time.Second + time.Duration(now.Nanosecond()-then.Nanosecond())
	return max(now.Sub(then), wall)
}

// Weigh is the freshness formula, the only one, for every answer wherever it came from: hit, miss, joined flight,
// stale answer, and once more for whatever a Source returned.
//
//	usable ⇔ asked since everything that questions it, and alive (and, of a signature: by a key set that is young enough)
//	asOf'  = max(AsOf, Through)  if active and Since + Settle < AsOf; else AsOf
//	fresh  ⇔ usable and At − asOf' <= MaxStaleness and At − AsOf <= MaxAge, or the answer's own if that is lower
func (q *Query) Weigh(a *Answer) Standing {
	s, _, _ := q.weigh(a, 1)
	return s
}

// WeighAhead is Weigh, and says whether a Fresh answer will soon be so no more: whether it would not be Fresh if
// MaxStaleness and MaxAge were only this share (0 to 1) of what they are.
func (q *Query) WeighAhead(a *Answer, share float64) (s Standing, due bool) {
	s, due, _ = q.weigh(a, share)
	return s, due
}

// weigh is WeighAhead, and says how old the answer was when the check began.
func (q *Query) weigh(a *Answer, share float64) (s Standing, due bool, age time.Duration) {
	asked := Age(q.At, a.asked)
	if age = asked + a.age; age < asked {
		age = math.MaxInt64
	}
	if !q.since(a.AsOf()) || a.over(asked, true) || a.doubtful(asked) {
		return Unusable, false, age
	}
	vouched := age
	if c := &q.Coverage; a.active && !c.Since.IsZero() && Age(c.Since, a.AsOf()) < -c.Settle && a.hasAll(c.Keys) {
		vouched = min(age, Age(q.At, c.Through))
	}
	most := q.Freshness.maxAge()
	if a.bound > 0 {
		most = min(most, a.bound)
	}
	switch grace := q.Freshness.StaleIfError; {
	case q.within(age, vouched, most, 0):
		part := func(d time.Duration) time.Duration { return time.Duration(float64(d) * share) }
		return Fresh, vouched > part(q.Freshness.MaxStaleness) || age > part(most), age
	case a.active && grace > 0 && q.within(age, vouched, most, grace):
		return Stale, false, age
	}
	return Unusable, false, age
}

// Joins reports whether an answer asked for at began would be fresh: whether this Query may share a flight that left
// then.
func (q *Query) Joins(began time.Time) bool {
	age := Age(q.At, began)
	return q.since(began) && q.within(age, age, q.Freshness.maxAge(), 0)
}

func (q *Query) since(asked time.Time) bool {
	return q.AskedSince.IsZero() || Age(q.AskedSince, asked) <= 0
}

func (q *Query) within(age, vouched, most, grace time.Duration) bool {
	return vouched <= q.Freshness.MaxStaleness+grace && age <= most+grace
}

// question raises the demand of q: only an answer asked after t counts, and no coverage from before t extends it.
func (q *Query) question(t time.Time) {
	if t.IsZero() {
		return
	}
	if after := t.Add(1); q.AskedSince.IsZero() || Age(after, q.AskedSince) > 0 {
		q.AskedSince = after
	}
	if c := &q.Coverage; !c.Since.IsZero() && Age(t, c.Since) > 0 {
		c.Since = t
	}
}
