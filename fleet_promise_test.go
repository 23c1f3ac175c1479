package watchword_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// cluster is a schedule that several hosts live through: each with a cache, a ledger and a clock of its own, over one
// store that loses and delays, and one bus. The server's feed comes to two of them.
type cluster struct {
	*schedule // its mu guards everything here, and everything of hosts and lives that changes
	hosts     []*host
	bus       *feedtest.Memory
	store     cache.Memory
	holes     int       // the bus hides one in so many messages from a host; zero: none
	storeFrom time.Time // of when the store is gone
	storeTo   time.Time
	byID      map[string]*act    // by the ID of its event
	durable   map[*act]time.Time // since when the fleet has it
	shows     map[string]int     // what a run shows
	lives     []*life            // to be closed at the end
	story     []string           // what happened, in order
}

// told is an event in force on a host, as it came there.
type told struct {
	*act
	event  revocation.Event
	at     time.Time
	coarse bool // it has made room since: what it voided is asked about
}

// sight is an inactive answer that a host saw for a token that had been active there.
type sight struct {
	token watchword.Token
	asOf  time.Time
	at    time.Time
}

// askings counts what one decision asks for.
type askings struct{ source, server atomic.Int32 }

// More ways to build it wrongly, for a fleet.
const (
	missesNone flaw = "what a host missed of the bus is no gap"
	strayClock flaw = "a host whose clock is off shares answers"
	unready    flaw = "a host answers before it has read what is kept"
	noDoubts   flaw = "inactive answers question nothing"
	persists   flaw = "a source asks until somebody knows"
)

// outcome is one decision, to be held against the truth and against what its host knew when it began.
type outcome struct {
	c            *cluster
	l            *life
	p            *passport
	began, ended time.Time
	d            watchword.Decision
	asks         *askings
}

// checkers each say how an outcome breaks the promise; empty: it does not.
var checkers = []struct {
	name  string
	wrong func(*outcome) string
}{
	{"P1 none that begins max_staleness after the server stopped", (*outcome).tooLate},
	{"P2 none after an event was applied", (*outcome).afterEvent},
	{"P3 none older than an inactive answer", (*outcome).afterInactive},
	{"P4 none is refused whom nobody named", (*outcome).refused},
	{"P5 one extra ask", (*outcome).asksTooOften},
}

// tooLate: the server last said active until V, its slowest replica counted. Who asks later than V and the bound is
// never accepted.
func (o *outcome) tooLate() string {
	if o.d.Reason != watchword.OK {
		return ""
	}
	bound := o.d.Policy.Freshness.MaxStaleness
	if o.d.Degraded == watchword.ServedStale {
		bound += o.d.Policy.Freshness.StaleIfError
	}
	if o.p.activeWithin(o.began.Add(-bound-o.c.lag), o.ended) {
		return ""
	}
	return fmt.Sprintf("denied at %v, suspended %v", o.p.denied.Sub(o.c.start), o.p.suspended)
}

// final says that e voids every answer about p, as long as p lives.
func (e *told) final(p *passport) bool {
	switch {
	case e.event.Effect == revocation.Revalidate, !e.means(p):
		return false
	case e.event.JTI != "", e.event.Token != revocation.TokenID{}:
		return true
	case e.event.Selector.Subject != "" && !p.shows[0], e.event.Selector.Session != "" && !p.shows[1]:
		return false
	}
	happened := e.event.At
	if happened.IsZero() {
		happened = e.event.Heard.Add(promiseSkew)
	}
	sigma, iat := time.Second+promiseSkew, time.Unix(p.iat, 0)
	if e.event.Operator {
		return p.iat == 0 || !iat.After(happened.Add(sigma))
	}
	return p.iat != 0 && iat.Before(happened.Add(-sigma))
}

// afterEvent: nobody is accepted whom an event in force has voided, or on evidence from before one that asks again.
// What the fleet had before a host began is in force there once it is ready.
func (o *outcome) afterEvent() string {
	for a, since := range o.c.durable {
		known := slices.ContainsFunc(o.l.told, func(e *told) bool { return e.act == a })
		if since.Before(o.l.born) && a.event.Effect == revocation.Deny && !known {
			return fmt.Sprintf("%+v is durable since %v, and not in force on a host that began at %v", a.event, since.Sub(o.c.start), o.l.born.Sub(o.c.start))
		}
	}
	if o.d.Reason != watchword.OK {
		return ""
	}
	for _, e := range o.l.told {
		if !e.at.Before(o.began) {
			continue
		}
		if e.final(o.p) && !e.coarse {
			return fmt.Sprintf("%+v is in force since %v", e.event, e.at.Sub(o.c.start))
		}
		if asOf := o.d.Answer.AsOf(); e.names(o.p) && e.shown(o.p) && !asOf.After(e.at) {
			return fmt.Sprintf("as of %v, and %+v came at %v", asOf.Sub(o.c.start), e.event, e.at.Sub(o.c.start))
		}
	}
	return ""
}

// afterInactive: evidence from before an inactive answer that was seen here does not come back.
func (o *outcome) afterInactive() string {
	if o.d.Reason != watchword.OK {
		return ""
	}
	for _, s := range o.l.seen {
		if asOf := o.d.Answer.AsOf(); s.token == watchword.Token(o.p.name) && s.at.Before(o.began) && !asOf.After(s.asOf) {
			return fmt.Sprintf("as of %v, and inactive as of %v, seen at %v", asOf.Sub(o.c.start), s.asOf.Sub(o.c.start), s.at.Sub(o.c.start))
		}
	}
	return ""
}

// refused: whoever is called revoked was named by an event that is final, and whoever is called inactive was so at the
// server, one of its replicas at least, when it was asked.
func (o *outcome) refused() string {
	switch o.d.Reason {
	case watchword.Revoked:
		if !slices.ContainsFunc(o.l.told, func(e *told) bool { return e.final(o.p) }) {
			return "nobody said so"
		}
	case watchword.Inactive:
		if asOf := o.d.Answer.AsOf(); !o.p.inactiveWithin(asOf.Add(-o.c.lag-clusterSkew), o.ended) {
			return fmt.Sprintf("as of %v", asOf.Sub(o.c.start))
		}
	case watchword.OK, watchword.CannotKnow:
	default:
		return fmt.Sprint(o.d.Err)
	}
	return ""
}

// inactiveWithin reports whether the server did not think p active at some time of that span.
func (p *passport) inactiveWithin(from, to time.Time) bool {
	return !p.active(from) || !p.active(to) || slices.ContainsFunc(p.suspended, func(s [2]time.Time) bool { return s[0].After(from) && s[0].Before(to) })
}

// asksTooOften: a decision asks its source twice at most, and so the server.
func (o *outcome) asksTooOften() string {
	if source, server := o.asks.source.Load(), o.asks.server.Load(); source > 2 || server > 2 {
		return fmt.Sprintf("%d times, the server %d times", source, server)
	}
	return ""
}

// check holds o against every checker. The caller holds mu.
func (o *outcome) check() {
	for _, one := range checkers {
		if why := one.wrong(o); why != "" && o.c.broken == "" {
			o.c.broken = fmt.Sprintf("%s: host %d (clock %v): %s %s, asked %v after the start, until %v, by %+v: %v (age %v, %v): %s", one.name, o.l.host.number, o.l.host.offset,
				o.p.name, o.p.members, o.began.Sub(o.c.start), o.ended.Sub(o.c.start), o.d.Policy.Freshness, o.d.Reason, o.d.Age, o.d.Degraded, why)
			for _, line := range o.c.story { // where goroutines race, a seed does not make the same story twice
				if strings.Contains(line, " "+o.p.name+": ") || !strings.Contains(line, " t") {
					o.c.broken += "\n" + line
				}
			}
		}
	}
}

// The promise of a fleet, over random schedules: two or three hosts with clocks of their own, over a store that loses,
// delays and stops and a bus that loses, repeats, delays and cuts hosts off; hosts are restarted with and without their
// folder, reloaded, flooded. Five checkers look at every decision.
//
// Covers: CAC-08 CAC-09 CAC-13 SIG-12 SIG-17 SIG-18 SIG-21 T28 T32
func TestT28_T32_SIG21ThePromiseOfAFleet(t *testing.T) {
	t.Parallel()
	schedules := *trials / 20
	if raced || testing.Short() {
		schedules = min(schedules, 15)
	}
	shows := map[string]int{}
	for seed := range schedules {
		c, broken := liveThrough(t, seed, sound)
		if broken != "" {
			t.Fatalf("seed %d: %s", seed, broken)
		}
		for what, n := range c.shows {
			shows[what] += n
		}
	}
	t.Logf("%d schedules: %v", schedules, shows)
	for what, least := range map[string]int{"accepted": 200, "late": 10, "extended": 1, "revoked": 30, "inactive": 200, "restarts": 3, "from the store": 30, "coarse": 1, "in the end": 10} {
		if n := shows[what]; n < least*int(schedules)/10 {
			t.Errorf("%d %s: the test shows little", n, what)
		}
	}
}

// The same schedules with one thing built wrongly break the promise, and the checker that they break is the one that
// should see it.
//
// Covers: T28 T32 CAC-09
func TestT28_T32EveryCheckerSees(t *testing.T) {
	t.Parallel()
	if raced {
		t.Skip("the race detector has nothing to add")
	}
	for _, one := range []struct {
		flaw flaw
		by   string
	}{
		{strayClock, "P1"}, {hidesGaps, "P1"}, {missesNone, "P1"}, {provesArrival, "P1"}, {evicts, "P2"}, {unready, "P2"}, {noDoubts, "P3"}, {neverGives, "P4"}, {persists, "P5"},
	} {
		why := ""
		seed := uint64(0)
		for ; !strings.HasPrefix(why, one.by); seed++ {
			if seed == 3000 {
				t.Fatalf("%s: no schedule breaks %s", one.flaw, one.by)
			}
			_, why = liveThrough(t, seed, one.flaw)
		}
		first, _, _ := strings.Cut(why, "\n")
		t.Logf("%s: seed %d: %s", one.flaw, seed, first)
	}
}
