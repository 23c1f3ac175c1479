package watchword_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/revocation"
)

// live begins a life of Watchword: at first, and after every restart. What was remembered stays, as in a shared store.
func (s *schedule) live(t *testing.T) {
	var err error
	if s.ledger != nil {
		s.end()
		if err = s.ledger.Close(); err != nil {
			t.Fatal(err)
		}
		s.outcomes.restarts++
		if s.config.Folder == "" { // what operators said is lost; a log keeps it
			s.applied = slices.DeleteFunc(s.applied, func(h heard) bool { return h.event.Operator })
		}
	}
	s.lives++
	s.config.Issuers = []revocation.Issuer{s.issuer()}
	s.config.Observe = func(_ *revocation.Event, o revocation.Outcome) { s.outcome = o }
	if s.ledger, err = revocation.New(s.config); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.end = context.WithCancel(context.Background())
	go func(l *revocation.Ledger) { _ = l.Run(ctx) }(s.ledger)
	s.doubts.Store(s.ledger)
	s.ledger.Gap("as", "a feed begins")
	s.settings.Ledger = flawed{s.ledger, s.flaw}
	if s.verifier == nil {
		s.verifier = verifier(t, s.settings)
	} else if err = s.verifier.Reconfigure(s.settings); err != nil {
		t.Fatal(err)
	}
}

// feed delivers what the server tells, in order, late, with losses that are gaps and with repetitions.
func (s *schedule) feed() {
	lost := false
	for _, m := range s.messages {
		s.mu.Lock()
		delay, loses, repeats := s.upTo(2*time.Second), s.once(30), s.once(6)
		if s.once(10) {
			delay += s.upTo(40 * time.Second)
		}
		s.mu.Unlock()
		if time.Sleep(time.Until(m.at.Add(delay))); loses && !(m.act != nil && m.event.Operator) {
			lost = true
			continue
		}
		s.mu.Lock()
		if lost && s.flaw != hidesGaps {
			s.ledger.Gap("as", "a hole in the sequence")
		}
		lost = false
		if m.act != nil {
			s.apply(m.act)
		} else if s.flaw == provesArrival {
			s.ledger.Cover("as", time.Now())
		} else {
			s.ledger.Cover("as", m.at.Add(s.clocks[1]-promiseSkew))
		}
		if n := len(s.applied); repeats && n > 0 {
			s.apply(s.applied[s.r.IntN(n)].act)
		}
		s.mu.Unlock()
	}
}

// apply tells the Ledger. The caller holds mu.
func (s *schedule) apply(a *act) {
	e := a.event
	if e.Who != "" {
		e.Token = s.ledger.TokenID("as", watchword.Token(e.Who))
	}
	s.outcome = revocation.Refused
	_ = s.ledger.Apply(context.Background(), e)
	if s.outcome != revocation.Applied {
		return // a repetition; or the issuer is away, and its beginning forgets
	}
	s.applied = append(s.applied, heard{a, time.Now()})
	if s.flaw != evicts {
		return
	}
	for _, p := range s.tokens {
		key := s.verifier.Keys(watchword.Token(p.name))["as"]
		for k, known := range s.memory.All() {
			if k == key && s.ledger.Voids(watchword.Query{Issuer: "as", Token: watchword.Token(p.name)}, known) != (watchword.Void{}) {
				s.memory.Forget(k)
			}
		}
	}
}

// disturb restarts, reloads, floods and lets the issuer leave and come back.
func (s *schedule) disturb(t *testing.T) {
	s.mu.Lock()
	s.live(t)
	n := s.r.IntN(4)
	s.mu.Unlock()
	for range n {
		s.mu.Lock()
		wait, kind, away := s.upTo(promiseLength/4), s.r.IntN(5), s.upTo(20*time.Second)
		s.mu.Unlock()
		time.Sleep(wait)
		s.mu.Lock()
		switch kind {
		case 0, 1:
			s.live(t)
		case 2:
			s.settings.Callers = s.policies()
			check(s.verifier.Reconfigure(s.settings))
			check(s.ledger.Reconfigure(s.issuer()))
		case 3:
			for i := range 150 { // more than fits
				_ = s.ledger.Apply(context.Background(), revocation.Event{ID: fmt.Sprint("flood", i, wait), Issuer: "as", Selector: revocation.Selector{Subject: fmt.Sprint("x", i)}})
			}
		default:
			check(s.ledger.Reconfigure())
			s.mu.Unlock()
			time.Sleep(away)
			s.mu.Lock()
			check(s.ledger.Reconfigure(s.issuer()))
		}
		s.mu.Unlock()
	}
	time.Sleep(time.Until(s.start.Add(promiseLength + 30*time.Second)))
	s.end()
}

// decide makes one decision and holds it against the truth.
func (s *schedule) decide(p *passport, caller string) {
	s.mu.Lock()
	life, v := s.lives, s.verifier
	s.mu.Unlock()
	began := time.Now()
	d := v.Verify(context.Background(), watchword.Request{Token: watchword.Token(p.name), Caller: caller})
	ended := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if life != s.lives {
		return // whoever asked died with it
	}
	s.outcomes.decisions++
	wrong := func(format string, args ...any) {
		if s.broken == "" {
			s.broken = fmt.Sprintf("%s %s, asked %v after the start, until %v, by %+v: %v (age %v, %v), ", p.name, p.members, began.Sub(s.start), ended.Sub(s.start), d.Policy.Freshness, d.Reason, d.Age, d.Degraded) + fmt.Sprintf(format, args...)
		}
	}
	switch d.Reason {
	case watchword.OK:
	case watchword.Revoked:
		s.outcomes.revoked++
		said := func(h heard) bool { return h.event.Effect == revocation.Deny && h.names(p) || h.event.Operator }
		if s.dated && !slices.ContainsFunc(s.applied, said) && s.config.Folder == "" {
			wrong("nobody said so")
		}
		return
	case watchword.Inactive:
		s.outcomes.inactive++
		return
	case watchword.CannotKnow:
		s.outcomes.unknown++
		return
	default:
		wrong("%v", d.Err)
		return
	}
	s.outcomes.accepted++
	bound := d.Policy.Freshness.MaxStaleness
	if d.Degraded == watchword.ServedStale {
		s.outcomes.stale++
		if bound += d.Policy.Freshness.StaleIfError; !s.down(began, ended) && s.slow < 2*time.Second {
			wrong("while the server was well")
		}
	} else if d.Age > bound {
		s.outcomes.extended++
	}
	if !p.active(began) {
		s.outcomes.late++
	}
	if !p.activeWithin(began.Add(-bound-s.lag), ended) {
		wrong("beyond the promise: denied %v, suspended %v", p.denied.Sub(s.start), p.suspended)
	}
	for _, h := range s.applied {
		if !h.at.Before(began) || !h.names(p) || !h.shown(p) {
			continue
		}
		if asOf := d.Answer.AsOf(); h.event.Operator || !asOf.After(h.at) {
			wrong("after %+v, which was heard %v after the start", h.event, h.at.Sub(s.start))
		}
	}
}

// watch asks about a token that a is about.
func (s *schedule) watch(a *act) {
	s.mu.Lock()
	before, later, caller := s.upTo(4*time.Second), s.upTo(40*time.Second), fmt.Sprint("p", s.r.IntN(4))
	i := s.r.IntN(len(s.tokens))
	s.mu.Unlock()
	p := a.about(s.tokens, i)
	if p == nil {
		return
	}
	time.Sleep(time.Until(a.at.Add(-before)))
	s.decide(p, caller)
	for range 4 {
		time.Sleep(later / 4)
		s.decide(p, caller)
	}
}

// about is a token that a is about, the first from there on and around; nil: there is none.
func (a *act) about(tokens []*passport, from int) *passport {
	for i := range tokens {
		if p := tokens[(from+i)%len(tokens)]; a.names(p) {
			return p
		}
	}
	return nil
}

// play runs the schedule of a seed. The error says how the promise was broken.
func play(t *testing.T, seed uint64, f flaw, folder string) (o outcomes, broken string) {
	synctest.Test(t, func(t *testing.T) {
		s := &schedule{r: rand.New(rand.NewPCG(seed, 4)), start: time.Now(), flaw: f, config: revocation.Config{MaxBytes: 1 << 16, Folder: folder}}
		s.write()
		s.tell(sec(4))
		var err error
		s.memory, err = cache.New(cache.Config{FlightTimeout: sec(6), Inactive: cache.Inactive{TTL: sec(s.r.IntN(5))}, RefreshAhead: cache.RefreshAhead{MinHits: 1, After: []float64{0.5, 0.95}[s.r.IntN(2)]},
			OnInactive: func(q watchword.Query, a *watchword.Answer) {
				if f != evicts {
					s.doubts.Load().Doubt(q, a)
				}
			}, WasActive: func(q watchword.Query) bool { return s.doubts.Load().WasActive(q) }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.memory.Close()
		s.settings = watchword.Config{Source: s.memory.Over(s, 3*time.Minute), Issuers: []watchword.Issuer{{Name: "as"}}, Callers: s.policies()}
		var all sync.WaitGroup
		all.Go(func() { s.disturb(t) })
		synctest.Wait()
		all.Go(s.feed)
		for _, a := range s.acts { // where it is tightest: in the air when something happens, and a bound after it
			all.Go(func() { s.watch(a) })
		}
		for range 110 {
			s.mu.Lock()
			wait, p, caller := s.upTo(2*time.Second), s.tokens[s.r.IntN(len(s.tokens))], fmt.Sprint("p", s.r.IntN(4))
			s.mu.Unlock()
			time.Sleep(wait)
			all.Go(func() { s.decide(p, caller) })
		}
		all.Wait()
		time.Sleep(sec(10)) // for what was asked ahead
		check(s.ledger.Close())
		o, broken = s.outcomes, s.broken
	})
	return o, broken
}

func (o *outcomes) add(p outcomes) {
	o.decisions, o.accepted, o.late, o.extended, o.stale = o.decisions+p.decisions, o.accepted+p.accepted, o.late+p.late, o.extended+p.extended, o.stale+p.stale
	o.revoked, o.inactive, o.unknown, o.restarts = o.revoked+p.revoked, o.inactive+p.inactive, o.unknown+p.unknown, o.restarts+p.restarts
}
