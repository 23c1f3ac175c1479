package revocation

import (
	"time"

	"github.com/watchword-dev/watchword"
)

// Cause is an event that is held against an answer.
type Cause struct {
	Event   Event     // as it was recorded; treat it as immutable
	Applied time.Time // when it came in force on this node
	Revokes bool      // the answer is void; false: only one that was asked for after Applied counts
}

// Why names the event that Voids goes by, where one is held: of those that revoke the newest, else the newest of those
// that question, also where a has been asked for since. What was forgotten, and inactive answers, are no events. It
// weighs every event of the issuer by itself, as Voids does all at once, and takes as long: it is for people who ask.
// Without an answer only an event that names the token itself can be known.
func (l *Ledger) Why(q watchword.Query, a *watchword.Answer) (c Cause, found bool) {
	b := (*l.books.Load())[q.Issuer]
	if b == nil {
		return c, false
	}
	l.mu.Lock()
	alone := newBook(b.issuer)
	var all []*held
	for r := l.store.newest; r != nil; r = r.prev {
		if r.issuer == q.Issuer {
			all = append(all, r)
		}
	}
	l.mu.Unlock()
	asked := time.Time{}
	for _, r := range all {
		e, applied := r.event()
		w := *alone.view.Load()
		l.enter(alone, &w, &e, applied)
		v := l.weigh(&w, &q, a)
		l.leave(alone, &w, &e)
		switch {
		case v.Revoked:
			return Cause{Event: e, Applied: instant(applied), Revokes: true}, true
		case !v.Questioned.IsZero() && (!found || watchword.Age(v.Questioned, asked) > 0):
			c, found, asked = Cause{Event: e, Applied: instant(applied)}, true, v.Questioned
		}
	}
	return c, found
}
