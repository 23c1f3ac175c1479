package watchword_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// publisher is what runs on one of the hosts that the server's feed comes to; nil: nothing does.
func (c *cluster) publisher() *life {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hosts[c.r.IntN(2)].now
}

// insist does something on one publisher or another until it is done, as a sender does that is not told that it is.
func (c *cluster) insist(do func(l *life) error) {
	for {
		if l := c.publisher(); l != nil && do(l) == nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// publish lets the fleet know of a.
func (c *cluster) publish(a *act) {
	c.insist(func(l *life) error {
		e := a.event
		if e.Who != "" {
			e.Token = l.ledger.TokenID("as", watchword.Token(e.Who))
		}
		e.Heard = time.Now().Add(l.host.offset)
		err := l.bus.Publish(context.Background(), e)
		if err == nil {
			c.mu.Lock()
			if c.durable[a].IsZero() {
				c.durable[a] = time.Now()
			}
			c.mu.Unlock()
		}
		return err
	})
}

// feed is the server's: in order, late, with losses that are told of and with repetitions.
func (c *cluster) feed() {
	lost := false
	for _, m := range c.messages {
		c.mu.Lock()
		delay, loses, repeats := c.upTo(time.Second), c.once(40), c.once(8)
		loses = loses || c.flaw == hidesGaps && m.act != nil
		if c.once(12) || c.flaw == provesArrival && c.once(2) {
			delay += c.upTo(20 * time.Second)
		}
		c.mu.Unlock()
		if time.Sleep(time.Until(m.at.Add(delay))); loses && !(m.act != nil && m.event.Operator) {
			lost = true
			continue
		}
		if lost && c.flaw != hidesGaps {
			c.insist(func(l *life) error { return l.bus.Lapse(context.Background(), "as", "a hole in the sequence") })
		}
		lost = false
		if m.act == nil {
			c.insist(func(l *life) error {
				through := m.at.Add(c.clocks[1] - promiseSkew)
				if c.flaw == provesArrival {
					through = time.Now()
				}
				return l.bus.Prove(context.Background(), "as", through.Add(l.host.offset))
			})
			continue
		}
		if c.publish(m.act); repeats {
			c.publish(m.act)
		}
	}
}

// disturb lets things happen to one host.
func (h *host) disturb(t *testing.T) {
	c := h.c
	c.mu.Lock()
	n := c.r.IntN(4)
	c.mu.Unlock()
	for range n {
		c.mu.Lock()
		wait, kind, away := c.upTo(promiseLength/3), c.r.IntN(6), c.upTo(20*time.Second)
		policies, issuer := c.policies(), c.issuer()
		c.mu.Unlock()
		time.Sleep(wait)
		switch l := h.now; kind {
		case 0:
			h.begin(t)
		case 1: // killed: nobody says goodbye
			h.link.set(true)
			h.begin(t)
			h.decide(c.tokens[0], "p0") // it is not ready
			time.Sleep(away / 4)
			h.link.set(false)
		case 2, 3:
			h.link.set(true)
			time.Sleep(away)
			h.link.set(false)
		case 4:
			_ = l.verifier.Reconfigure(watchword.Config{Source: l.counted(l.memory.Over(source(l.share), 3*time.Minute)), Issuers: []watchword.Issuer{{Name: "as"}}, Callers: policies, Ledger: flawed{l.ledger, c.flaw}})
			check(l.ledger.Reconfigure(issuer))
		default:
			flood := make([]revocation.Event, 200) // more than fits
			for i := range flood {
				flood[i] = revocation.Event{ID: fmt.Sprint("flood", i, wait), Issuer: "as", Selector: revocation.Selector{Subject: fmt.Sprint("x", i)}}
			}
			_ = l.ledger.Apply(context.Background(), flood...)
		}
	}
}

// decide makes one decision on h and holds it against every checker.
func (h *host) decide(p *passport, caller string) (d watchword.Decision, decided bool) {
	c := h.c
	c.mu.Lock()
	l := h.now
	c.mu.Unlock()
	if l == nil || l.bus.Ready() != nil && c.flaw != unready {
		return d, false
	}
	o := &outcome{c: c, l: l, p: p, began: time.Now(), asks: &askings{}}
	o.d = l.verifier.Verify(context.WithValue(context.Background(), asksKey{}, o.asks), watchword.Request{Token: watchword.Token(p.name), Caller: caller})
	o.ended = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.now != l {
		return d, false // whoever asked died with it
	}
	o.check()
	c.shows[o.d.Reason.String()]++
	switch {
	case o.d.Reason != watchword.OK:
		return o.d, true
	case o.d.Degraded == watchword.ServedStale:
		c.shows["stale"]++
	case o.d.Age > o.d.Policy.Freshness.MaxStaleness:
		c.shows["extended"]++
	}
	if c.shows["accepted"]++; !p.active(o.began) {
		c.shows["late"]++
	}
	return o.d, true
}

// settle lets everything be well again. Then every host accepts whoever the server calls active and nobody denied: P4 in
// the end.
func (c *cluster) settle() {
	c.mu.Lock()
	c.slow = 0
	c.mu.Unlock()
	time.Sleep(max(30*time.Second, time.Until(c.start.Add(promiseLength+45*time.Second)))) // the server and the store are back by then
	denied := func(p *passport) bool {
		for _, a := range c.acts {
			if a.event.Effect == revocation.Deny && a.means(p) {
				return true
			}
		}
		return false
	}
	for _, h := range c.hosts {
		for _, p := range c.tokens {
			if !p.active(time.Now()) || denied(p) {
				continue
			}
			d, decided := h.decide(p, "p0")
			for try := 0; try < 3 && !(decided && d.Reason == watchword.OK); try++ {
				time.Sleep(2 * time.Second)
				d, decided = h.decide(p, "p0")
			}
			c.mu.Lock()
			if decided && d.Reason == watchword.OK {
				c.shows["in the end"]++
			} else if c.broken == "" {
				c.broken = fmt.Sprintf("%s: host %d: %s %s is refused in the end: %v %v (decided: %v)", checkers[3].name, h.number, p.name, p.members, d.Reason, d.Err, decided)
			}
			c.mu.Unlock()
		}
	}
}

// watch asks about a token that a is about, on every host.
func (c *cluster) watch(a *act) {
	c.mu.Lock()
	before, later, caller := c.upTo(4*time.Second), c.upTo(40*time.Second), fmt.Sprint("p", c.r.IntN(4))
	i := c.r.IntN(len(c.tokens))
	c.mu.Unlock()
	p := a.about(c.tokens, i)
	if p == nil {
		return
	}
	time.Sleep(time.Until(a.at.Add(-before)))
	for range 5 {
		for _, h := range c.hosts {
			h.decide(p, caller)
		}
		time.Sleep(later / 4)
	}
}

// aim asks on one host just before a, and on another just after the bound: where the hosts' clocks differ, that is where
// it shows.
func (c *cluster) aim(a *act) {
	c.mu.Lock()
	before, after := c.upTo(200*time.Millisecond), c.upTo(500*time.Millisecond)
	i, n := c.r.IntN(len(c.tokens)), c.r.IntN(len(c.hosts))
	one, other := c.hosts[n], c.hosts[(n+1)%len(c.hosts)]
	c.mu.Unlock()
	p := a.about(c.tokens, i)
	if p == nil {
		return
	}
	time.Sleep(time.Until(a.at.Add(-before)))
	one.decide(p, "p0")
	c.mu.Lock()
	bound := time.Duration(0)
	if other.now != nil {
		bound = other.now.policies[3].Freshness.MaxStaleness
	}
	c.mu.Unlock()
	time.Sleep(time.Until(a.at.Add(c.lag + bound + after)))
	other.decide(p, "p3")
}

// liveThrough lets a cluster live through the schedule of a seed. broken says which checker saw what.
func liveThrough(t *testing.T, seed uint64, f flaw) (c *cluster, broken string) {
	synctest.Test(t, func(t *testing.T) {
		s := &schedule{r: rand.New(rand.NewPCG(seed, 5)), start: time.Now(), flaw: f}
		c = &cluster{schedule: s, bus: feedtest.NewMemory(), byID: map[string]*act{}, durable: map[*act]time.Time{}, shows: map[string]int{}}
		s.write()
		s.tell(sec(1))
		for _, a := range s.acts {
			c.byID[a.event.ID] = a
		}
		if c.holes = []int{0, 400, 8}[s.r.IntN(3)]; f == missesNone {
			c.holes = 5
		}
		if s.once(3) {
			c.storeFrom = s.start.Add(s.upTo(promiseLength))
			c.storeTo = c.storeFrom.Add(s.upTo(40 * time.Second))
		}
		for i := range 2 + s.r.IntN(2) {
			h := &host{c: c, number: i, offset: s.upTo(clusterSkew*8/10) - clusterSkew*4/10, link: &link{Memory: c.bus, c: c}}
			if i == 2 && (s.once(3) || f == strayClock) { // its feed is no proof of anything: it hears of none
				h.offset = time.Duration(1-2*s.r.IntN(2)) * (3*time.Second + s.upTo(9*time.Second))
			}
			if seed%25 == 7 { // a log is synced: the disk has other things to do
				h.folder = t.TempDir()
			}
			c.hosts = append(c.hosts, h)
		}
		for _, h := range c.hosts {
			h.begin(t)
		}
		time.Sleep(time.Second)
		var all sync.WaitGroup
		for _, h := range c.hosts {
			all.Go(func() { h.disturb(t) })
		}
		all.Go(c.feed)
		all.Go(func() { // the bus itself
			wait := c.within(promiseLength)
			if time.Sleep(wait); c.roll(4) {
				c.bus.Lose(1)
			} else if c.roll(4) {
				c.bus.Cut(50)
			}
		})
		for _, a := range s.acts {
			all.Go(func() { c.watch(a) })
			all.Go(func() { c.aim(a) })
		}
		for range 130 {
			s.mu.Lock()
			wait, h, p, caller := s.upTo(2*time.Second), c.hosts[s.r.IntN(len(c.hosts))], s.tokens[s.r.IntN(len(s.tokens))], fmt.Sprint("p", s.r.IntN(4))
			s.mu.Unlock()
			time.Sleep(wait)
			all.Go(func() { h.decide(p, caller) })
		}
		all.Wait()
		c.settle()
		for _, h := range c.hosts {
			h.now.end()
		}
		time.Sleep(10 * time.Second) // for what is under way
		for _, l := range c.lives {
			l.shared.Close()
			l.memory.Close()
			hits := int(l.shared.Stats().Results[cache.SharedHit] + l.shared.Stats().Results[cache.SharedJoined])
			if c.shows["from the store"] += hits; l.host.stray() && hits > 0 && f != strayClock {
				c.broken = fmt.Sprintf("host %d, whose clock is off by %v, was answered from the store", l.host.number, l.host.offset)
			}
		}
		broken = c.broken
	})
	return c, broken
}
