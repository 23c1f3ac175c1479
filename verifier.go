// Package watchword answers one question for whatever stands in front of a resource: is this access token valid right
// now, and what can it do?
//
// A Verifier takes a Request from a door, asks a Source for an Answer as fresh as the Policy demands, lets the Ledger
// of revocations void or question it, judges it, and gives a Decision. The package does no I/O, starts no goroutine
// and uses the standard library only; packages cache and issuer are Sources, the packages below door are doors.
package watchword

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Ledger is what a Verifier must know of revocations. Safe for concurrent use; neither method may block.
type Ledger interface {
	Coverage(issuer string) Coverage // read before asking …
	Voids(q Query, a *Answer) Void   // … and this after, so that no event falls between
}

// Observer sees every decision: metrics, logs. It must not block, and must not keep r or d. Safe for concurrent use.
type Observer interface {
	Observe(r Request, d Decision, took time.Duration)
}

// Decision is what a door translates. Doors hand on claims only where Reason is OK.
type Decision struct {
	Reason     Reason
	Policy     *Policy       // the policy that decided; nil: none matched, or the request never got that far
	Issuer     string        // whom the token belongs to, by our name; empty: nobody was asked
	Key        Key           // identity of the question; zero: nobody was asked
	Answer     *Answer       // what was judged; nil: none was. OK without one is nobody (DangerouslyAllowUnknown)
	Degraded   Degradation   // by which word of the policy it rests on less than was promised; Whole: it does not
	Age        time.Duration // of the evidence when the check began; zero: asked for this check
	RetryAfter time.Duration // where Reason is CannotKnow, Misconfigured or TooManyUnknown; zero: nobody said
	Err        error         // why nobody knew, or knew better, for logs; never holds a token
}

// Allowed reports whether the request may pass.
func (d *Decision) Allowed() bool { return d.Reason == OK }

// Source says where the evidence came from, as metric label and log word: issuer (asked for this check), cache, jwt (a
// signature verified here, or remembered), stale (older than the bound; Degraded says by which word), none.
func (d *Decision) Source() string {
	switch {
	case d.Answer == nil:
		return "none"
	case d.Degraded != Whole:
		return "stale"
	case d.Answer.vouched:
		return "jwt"
	case d.Age > 0:
		return "cache"
	}
	return "issuer"
}

// Config makes a Verifier. Source and Issuers are required, and Routes or Callers for anything to be accepted.
type Config struct {
	Source    Source
	Issuers   []Issuer
	Routes    []Route         // the first that matches decides; none: PolicyDenied
	Callers   []Policy        // by name, for Request.Caller
	Modes     map[string]Mode // what operators said about the policies of Routes, by name; nil: nothing
	Ledger    Ledger          // nil: no revocations are heard of
	Observers []Observer      // called in order after every decision
	Chance    func() float64  // from 0 to 1, 1 excluded: for Recheck.Probability and the times of Watch; nil: a slow one. Safe for concurrent use
	Pepper    Pepper          // keys every Key; zero: the previous one, at first a random one
}

// Verifier is the one place where a request is decided. Make it with New. Safe for concurrent use.
type Verifier struct {
	mu     sync.Mutex // one Reconfigure at a time
	config atomic.Pointer[compiled]
	seen   *sightings // made with the first policy that rechecks by them; guarded by mu
}

type compiled struct {
	Config
	issuers []*issuer
	routes  []route
	callers map[string]*route
	seen    *sightings // nil: no policy asks
}

// New makes a Verifier, or reports every mistake of c at once.
func New(c Config) (*Verifier, error) {
	v := new(Verifier)
	if err := v.Reconfigure(c); err != nil {
		return nil, err
	}
	return v, nil
}

// Reconfigure swaps the whole configuration between two decisions. On error, which reports every mistake at once, the
// old one stays.
func (v *Verifier) Reconfigure(c Config) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.config.Load(); c.Pepper == (Pepper{}) && old != nil {
		c.Pepper = old.Pepper
	} else if c.Pepper == (Pepper{}) {
		_, _ = rand.Read(c.Pepper[:]) // never fails (crypto/rand)
	}
	if c.Chance == nil {
		c.Chance = chance
	}
	next, err := compile(c)
	if err != nil {
		return err
	}
	if v.seen == nil && next.sights() {
		v.seen = newSightings()
	}
	next.seen = v.seen
	v.config.Store(next)
	return nil
}

func compile(c Config) (*compiled, error) {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf("watchword: "+format, args...)) }
	c.Observers = slices.Clone(c.Observers)
	next := &compiled{Config: c, callers: map[string]*route{}}
	if c.Source == nil {
		mistake("Config.Source is missing: nobody could be asked")
	}
	if len(c.Issuers) == 0 {
		mistake("Config.Issuers is empty: no token could belong to anybody")
	}
	names := map[string]bool{}
	for _, i := range c.Issuers {
		if i.Name == "" || names[i.Name] {
			mistake("issuer name %q is empty or given twice", i.Name)
		}
		names[i.Name] = true
		if slices.Contains(i.Prefixes, "") {
			mistake("issuer %q: an empty prefix says nothing: leave the prefixes out", i.Name)
		}
		i.Prefixes = slices.Clone(i.Prefixes)
		next.issuers = append(next.issuers, &issuer{i, c.Pepper.asking(i.Name, i.Asking)})
	}
	for _, r := range c.Routes {
		if err := r.Match.validate(); err != nil {
			mistake("policy %q: %w", r.Policy.Name, err)
		}
		rt, err := next.route(&r.Policy)
		if err != nil {
			mistake("%w", err)
		}
		rt.match, rt.mode = r.Match.compile(), c.Modes[r.Policy.Name]
		if err := rt.mode.OnUnavailable.validate(rt.policy.Relay); err != nil {
			mistake("policy %q: %w", r.Policy.Name, err)
		}
		next.routes = append(next.routes, rt)
	}
	for _, p := range c.Callers {
		rt, err := next.route(&p)
		if err != nil {
			mistake("%w", err)
		}
		if p.Name == "" || next.callers[p.Name] != nil {
			mistake("caller name %q is empty or given twice", p.Name)
		}
		next.callers[p.Name] = &rt
	}
	return next, errors.Join(errs...)
}

func (c *compiled) sights() bool {
	by := func(p *Policy) bool { return p.Recheck.OnChange != (Changes{}) }
	return slices.ContainsFunc(c.Routes, func(r Route) bool { return by(&r.Policy) }) || slices.ContainsFunc(c.Callers, func(p Policy) bool { return by(&p) })
}

func (c *compiled) route(p *Policy) (route, error) {
	asked, err := accepted(p, c.issuers)
	return route{policy: p.clone(), asked: asked}, errors.Join(p.validate(), err)
}

func (c *compiled) find(r *Request) *route {
	if r.Caller != "" {
		return c.callers[r.Caller]
	}
	for i := range c.routes {
		if c.routes[i].match.selects(r) {
			return &c.routes[i]
		}
	}
	return nil
}

// Verify decides. It never fails: what cannot be known is a Decision too. It asks its Source at most twice, and blocks
// as long as that does or until ctx ends.
func (v *Verifier) Verify(ctx context.Context, r Request) Decision {
	c, at := v.config.Load(), time.Now()
	d, took := c.decide(ctx, &r, at, 0)
	for _, o := range c.Observers {
		observe(o, r, d, took)
	}
	return d
}

func observe(o Observer, r Request, d Decision, took time.Duration) {
	defer func() { _ = recover() }() // an observer's fault is no reason to change a decision
	o.Observe(r, d, took)
}

// Keys returns the identity of the question about t to every issuer that may be asked, by name, with the issuers' own
// credentials: what a cache may remember of t. For operators; no decision needs it.
func (v *Verifier) Keys(t Token) map[string]Key {
	keys := map[string]Key{}
	for _, i := range v.config.Load().issuers {
		keys[i.Name] = i.block.key(t)
	}
	return keys
}

// decide returns the decision and how long it took. A remembered answer that would not be fresh if its bounds were only
// this share of what they are is asked about; zero: none is.
func (c *compiled) decide(ctx context.Context, r *Request, at time.Time, share float64) (d Decision, took time.Duration) {
	defer func() {
		if recover() != nil { // what it says may hold a token
			d = Decision{Reason: Internal, Policy: d.Policy, Issuer: d.Issuer, Key: d.Key, Err: errors.New("panic while deciding")}
			took = time.Since(at)
		}
	}()
	rt, to := c.prepare(&d, r)
	if to == nil {
		return d, 0
	}
	written, on := d.Policy.demand(r), rt.on(at)
	q := Query{Token: r.Token, Key: d.Key, Issuer: to.Name, Credential: r.Credential, Peer: r.Peer, At: at, Freshness: written, Hold: d.Policy.DangerouslyHold}
	q.Freshness.StaleIfError = on.grace(written, r.Tighten)
	if c.Ledger != nil {
		q.Coverage = c.Ledger.Coverage(to.Name)
	}
	ask := &q                   // a recheck asks for more than what serves
	for round := 0; ; round++ { // an answer may raise the demand (something heard questions it): then ask once more, never thrice
		a, err := c.Source.Introspect(ctx, *ask)
		now := at // a second look at the wall would cost a hit a tenth of its time …
		if took = time.Since(at); took > time.Millisecond {
			now = time.Now() // … and only a wait can make a difference
		}
		if a == nil {
			d.unknown(err)
			if round == 0 && on == DangerouslyAllowUnknown {
				c.letStrangerPass(&d, q, err)
			}
			return d, took
		}
		next := &q
		if c.Ledger != nil {
			void := c.Ledger.Voids(q, a)
			if void.Revoked {
				d.Reason, d.Answer, d.Age = Revoked, a, max(0, Age(at, a.AsOf()))
				return d, took
			}
			if !void.Questioned.IsZero() {
				raised := q
				raised.question(void.Questioned)
				next = &raised
			}
		}
		if len(d.Policy.Tiers) > 0 {
			raised := *next
			written = d.Policy.tiered(written, a, to.Tenant)
			raised.Freshness = written
			raised.Freshness.StaleIfError = on.grace(written, r.Tighten)
			next = &raised
		}
		s, _, age := next.weigh(a, 1)
		word, serves := Whole, s == Fresh && (err == nil || excuses(err) && !doubts(err))
		if !serves && s != Unusable && (err != nil || q.Weigh(a) == Stale) { // nobody can do better
			word = d.Policy.degrade(*next, a, written, on, err)
			serves = word != Whole
		}
		if serves || a.active && a.expired(now, true) { // the latter is sure, however old the evidence
			d.Answer, d.Degraded, d.Age, d.Err = a, word, max(0, age), err
			d.Reason = Judge(d.Policy, a, now)
			if (share > 0 || d.Policy.Recheck != (Recheck{})) && d.Reason == OK && word == Whole && err == nil && c.again(&d, r, next, share, round) {
				d.Answer, d.Age = nil, 0
				again := *next
				again.AskedSince = at
				q, ask = *next, &again
				continue // if nothing better can be had, what was good enough is weighed again
			}
			return d, took
		}
		if err == nil && round > 0 {
			err = &Error{Failure: Unavailable, Issuer: to.Name, Cause: errors.New("no answer as fresh as demanded")}
		}
		if err != nil {
			d.unknown(err)
			return d, took
		}
		q, ask = *next, &q
	}
}

// prepare finds who decides about a request and who is asked, or, with nobody to ask, why not. What is wrong with a
// request comes before its policy: one without a token is 401 wherever it goes.
func (c *compiled) prepare(d *Decision, r *Request) (*route, *issuer) {
	rt := c.find(r)
	if rt != nil {
		d.Policy = rt.policy
	}
	switch problem := r.Token.problem(); {
	case r.Problem != OK:
		d.Reason = r.Problem
	case problem != OK:
		d.Reason = problem
	case rt == nil:
		d.Reason = PolicyDenied
	}
	if d.Reason != OK {
		return rt, nil
	}
	to := rt.whom(r.Token, c.issuers)
	if to == nil {
		d.Reason = UnknownIssuer
		return rt, nil
	}
	d.Issuer, d.Key = to.Name, to.block.key(r.Token)
	if r.Credential != nil {
		block := to.block.as(r.Credential)
		d.Key = block.key(r.Token)
	}
	return rt, to
}

// unknown is what ignorance decides.
func (d *Decision) unknown(err error) {
	d.Reason, d.Err = Internal, err
	if e, ok := asError(err); ok {
		if int(e.Failure) < len(reasonOf) && e.Failure != 0 {
			d.Reason = reasonOf[e.Failure]
		}
		d.RetryAfter = e.RetryAfter
	}
}
