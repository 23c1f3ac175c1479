package watchword

import (
	"errors"
	"fmt"
	"time"
)

// OnUnavailable says what becomes of a request when nobody knows whether its token is good: the authorization server
// is down, slow, refuses us or talks nonsense. It never applies to what a peer brings about by itself (Throttled,
// Canceled), nor to a token that is revoked, questioned or past its end. The zero value refuses.
type OnUnavailable uint8

// What a Policy may do.
const (
	Deny                    OnUnavailable = iota // 503, once StaleIfError is spent
	DangerouslyAllow                             // a token that was good when last asked about passes, however long ago
	DangerouslyAllowUnknown                      // and so does one that was never asked about, as nobody: without claims
)

var onUnavailable = [...]string{"deny", "dangerously_allow", "dangerously_allow_unknown"}

// String returns the word of o, as a configuration writes it.
func (o OnUnavailable) String() string {
	if int(o) >= len(onUnavailable) {
		o = Deny
	}
	return onUnavailable[o]
}

// ParseOnUnavailable reads such a word; not ok: it is none.
func ParseOnUnavailable(word string) (o OnUnavailable, ok bool) {
	for i, w := range onUnavailable {
		if w == word {
			return OnUnavailable(i), true
		}
	}
	return Deny, false
}

// Degradation says by which words of a Policy a Decision rests on less than was promised. The zero value: it does not.
type Degradation uint8

// The degradations.
const (
	Whole         Degradation = iota // as promised
	ServedStale                      // older than the bounds, within Freshness.StaleIfError
	ServedAnyAge                     // older than that, by DangerouslyAllow
	ServedUnknown                    // nothing is known, by DangerouslyAllowUnknown
	ServedOnHold                     // the server says inactive, in a storm of such answers, by DangerouslyHold
)

var degradations = [...]string{"", "stale", "allow", "unknown", "hold"}

// Degradations lists every Degradation but Whole in order, for tables and metrics.
func Degradations() []Degradation {
	return []Degradation{ServedStale, ServedAnyAge, ServedUnknown, ServedOnHold}
}

// String returns the word of d: header value, metric label and log word; empty for Whole.
func (d Degradation) String() string {
	if int(d) >= len(degradations) {
		d = Whole
	}
	return degradations[d]
}

// Mode is an operator's word about one policy, for a while: it stands instead of Policy.OnUnavailable until Until, and
// then ends by itself. The zero value is over.
type Mode struct {
	OnUnavailable OnUnavailable
	Until         time.Time
}

// on is what applies at that instant.
func (rt *route) on(at time.Time) OnUnavailable {
	if rt.mode.Until.IsZero() || Age(at, rt.mode.Until) >= 0 {
		return rt.policy.OnUnavailable
	}
	return rt.mode.OnUnavailable
}

// grace is by how much both bounds may grow where nobody can do better. What is over the written bounds is only ever
// used where degrade finds a word for it.
func (o OnUnavailable) grace(written Freshness, t *Freshness) time.Duration {
	switch {
	case o == Deny:
		return written.StaleIfError
	case t != nil: // who asks sets a limit, and gets nothing beyond it
		return min(longest, t.StaleIfError)
	}
	return longest
}

// excuses reports whether err is ignorance that a policy may bridge. A peer cannot talk its way there; a server that
// refused the caller's own credential has answered.
func excuses(err error) bool {
	e, ok := asError(err)
	return err != nil && (!ok || e.Failure != Throttled && e.Failure != Canceled && e.Rejection == nil)
}

// doubts reports an inactive answer that nobody believes: it is no reason to accept, and none to refuse for good.
func doubts(err error) bool {
	e, ok := asError(err)
	return ok && e.Doubted
}

func asError(err error) (*Error, bool) { return errors.AsType[*Error](err) }

// degrade names the words by which an answer that is not Fresh may serve; Whole: none do. err is why there is nothing
// better: nil where a Source gave no reason.
func (p *Policy) degrade(q Query, a *Answer, written Freshness, on OnUnavailable, err error) Degradation {
	q.Freshness = written
	within := q.Weigh(a) != Unusable
	switch {
	case err != nil && !excuses(err):
		return Whole
	case doubts(err) && p.DangerouslyHold && within:
		return ServedOnHold
	case doubts(err):
		return Whole
	case within:
		return ServedStale
	case err != nil && on != Deny:
		return ServedAnyAge
	}
	return Whole
}

// letStrangerPass is the last resort of DangerouslyAllowUnknown: nothing is known of the token, and nothing was heard
// against it.
func (c *compiled) letStrangerPass(d *Decision, q Query, err error) {
	if !excuses(err) || doubts(err) {
		return
	}
	if c.Ledger != nil {
		switch v := c.Ledger.Voids(q, nil); {
		case v.Revoked:
			d.Reason = Revoked
			return
		case !v.Questioned.IsZero():
			return
		}
	}
	d.Reason, d.Degraded = OK, ServedUnknown
}

func (o OnUnavailable) validate(relay bool) error {
	switch {
	case o > DangerouslyAllowUnknown:
		return fmt.Errorf("OnUnavailable %d is none of deny, dangerously_allow, dangerously_allow_unknown", o)
	case relay && o == DangerouslyAllowUnknown:
		return errors.New("dangerously_allow_unknown does not go with Relay: a caller asks what a token can do, and of an unknown one there is nothing to say")
	}
	return nil
}
