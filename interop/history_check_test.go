package interop

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// verdict is what a node said of a token.
type verdict string

const (
	allowed verdict = "allowed"
	refused verdict = "refused" // "active": false, the word of this door for 401
	unknown verdict = "unknown" // 503: it says that it cannot know
	nothing verdict = "nothing" // no answer: it is killed
)

// asking is one check, from before the client sent it until it had the answer.
type asking struct {
	node, life   int // life: from one start to the next; -1: more than one may have answered
	token        string
	began, ended time.Time
	said         verdict
}

// attempt is one time that a revocation was sent to a node.
type attempt struct {
	node, life   int
	began, ended time.Time
	taken        bool // the node said that it is in force there, durable or not
	acknowledged bool // the node said that it is done
}

// revoked is one revocation by way of Watchword. Its sender repeats it until it is acknowledged.
type revoked struct {
	way      string // pass, token, sub, client
	token    string // one token, or
	group    string // every one of a group that was issued before
	operator bool   // the server knows nothing of it
	attempts []attempt
}

func (e *revoked) began() time.Time { return e.attempts[0].began }
func (e *revoked) last() attempt    { return e.attempts[len(e.attempts)-1] }

// acknowledged is when the sender heard so; zero: never.
func (e *revoked) acknowledged() time.Time {
	if a := e.last(); a.acknowledged {
		return a.ended
	}
	return time.Time{}
}

// doubt is longer than what an operator's deny of a selector reaches beyond its own instant: a second, the issuer's skew
// of two, and the whole seconds of iat.
const doubt = 5 * time.Second

// names: surely, or perhaps, as a token that was issued about then may be on either side.
func (e *revoked) names(g grant) (surely, perhaps bool) {
	if e.token != "" {
		return e.token == g.token, e.token == g.token
	}
	if e.group != g.group {
		return false, false
	}
	return g.issued.Before(e.began()), g.issued.Before(e.last().ended.Add(doubt))
}

// life is a process of a node. ready is when it said so; zero: never.
type life struct {
	node, life  int
	born, ready time.Time
}

// trouble is a time in which a node, its link or the engine was not whole.
type trouble struct {
	node     int
	kind     string
	from, to time.Time
}

// history is everything that was seen of a fleet, by one clock. Safe for concurrent use while it is written.
type history struct {
	bound  time.Duration // max_staleness
	within time.Duration // of the feed, while all is well
	grants map[string]grant

	mu       sync.Mutex
	checks   []asking
	revoked  []*revoked
	lives    []*life
	troubles []trouble
}

// proof: at that instant it was seen that a node had applied everything that was acknowledged until through.
type proof struct{ at, through time.Time }

type who struct{ node, life int }

// judge holds the history to what is promised and returns what breaks it.
//
// H1: no node allows a token in a check that began later than V + max_staleness.
// H2: a node that took a revocation allows its tokens in no check that began afterwards; no more does a node that has
// refused the token, or that is seen to have read the log beyond the revocation, or, while its link and the engine are
// whole, the feed's bound after the acknowledgement.
// H3: a node that is ready has applied everything that was acknowledged before it was started, whatever was killed.
// H4: a token that is valid is refused by nobody.
//
// What a node has read is seen by what it refuses: a token that its server calls valid and one operator's deny names,
// which another node took, is refused by who has read that deny, and so everything that was in the log before.
func (h *history) judge() (broken []string) {
	said := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	naming := h.naming()
	proofs := h.proofs(naming)
	gone := map[who]map[string]time.Time{} // when a life of a node was first seen to refuse a token
	for _, c := range h.checks {
		if c.said == refused && c.life >= 0 {
			of := gone[who{c.node, c.life}]
			if of == nil {
				of = map[string]time.Time{}
				gone[who{c.node, c.life}] = of
			}
			if at, is := of[c.token]; !is || c.ended.Before(at) {
				of[c.token] = c.ended
			}
		}
	}
	for _, c := range h.checks {
		g := h.grants[c.token]
		switch c.said {
		case allowed:
			if late := c.began.Sub(g.dead) - h.bound; !g.dead.IsZero() && late > 0 {
				said("H1: node %d allowed a token %v after V + max_staleness", c.node, late)
			}
			if c.life < 0 {
				continue
			}
			if at, is := gone[who{c.node, c.life}][c.token]; is && c.began.After(at) {
				said("H2: node %d allowed a token %v after it had refused it (%s)", c.node, c.began.Sub(at), ways(naming[c.token]))
			}
			for _, e := range naming[c.token] {
				if surely, _ := e.names(g); surely {
					h.late(c, e, proofs[who{c.node, c.life}], said)
				}
			}
		case refused:
			if !g.dead.IsZero() && !g.dead.After(c.ended) || slices.ContainsFunc(naming[c.token], func(e *revoked) bool { return e.began().Before(c.ended) }) {
				continue
			}
			said("H4: node %d refused a valid token", c.node)
		}
	}
	return broken
}

func ways(all []*revoked) (words []string) {
	for _, e := range all {
		words = append(words, e.way)
	}
	return words
}

// late says what is wrong with c, an allow, after e that names its token.
func (h *history) late(c asking, e *revoked, seen []proof, said func(string, ...any)) {
	for _, a := range e.attempts {
		if a.taken && a.node == c.node && a.life == c.life && c.began.After(a.ended) {
			said("H2: node %d allowed a token %v after it took the revocation itself (%s)", c.node, c.began.Sub(a.ended), e.way)
		}
	}
	at := e.acknowledged()
	if at.IsZero() {
		return
	}
	if known(seen, c.began).After(at) {
		of := h.lifeOf(who{c.node, c.life})
		rule := "H2"
		if at.Before(of.born) {
			rule = "H3"
		}
		said("%s: node %d allowed a token %v after the acknowledgement, and had applied later ones (%s)", rule, c.node, c.began.Sub(at), e.way)
	}
	if c.began.Sub(at) > h.within && h.whole(who{c.node, c.life}, at, at.Add(h.within), seen) {
		said("H2: node %d allowed a token %v after the acknowledgement, while all was well (%s)", c.node, c.began.Sub(at), e.way)
	}
}

// naming is which revocations may be about a token.
func (h *history) naming() map[string][]*revoked {
	groups := map[string][]grant{}
	for _, g := range h.grants {
		groups[g.group] = append(groups[g.group], g)
	}
	all := map[string][]*revoked{}
	for _, e := range h.revoked {
		if e.token != "" {
			all[e.token] = append(all[e.token], e)
			continue
		}
		for _, g := range groups[e.group] {
			if _, perhaps := e.names(g); perhaps {
				all[g.token] = append(all[g.token], e)
			}
		}
	}
	return all
}

// proofs are in order, and each says more than the one before.
func (h *history) proofs(naming map[string][]*revoked) map[who][]proof {
	all := map[who][]proof{}
	for _, l := range h.lives {
		if !l.ready.IsZero() {
			all[who{l.node, l.life}] = []proof{{l.ready, l.born}}
		}
	}
	for _, c := range h.checks {
		by := who{c.node, c.life}
		if c.said != refused || c.life < 0 || len(all[by]) == 0 || c.began.Before(all[by][0].at) || len(naming[c.token]) != 1 {
			continue
		}
		e, g := naming[c.token][0], h.grants[c.token]
		here := func(a attempt) bool { return a.node == c.node }
		if surely, _ := e.names(g); surely && e.operator && g.dead.IsZero() && !slices.ContainsFunc(e.attempts, here) {
			all[by] = append(all[by], proof{c.ended, e.began()})
		}
	}
	for by, list := range all {
		slices.SortFunc(list, func(a, b proof) int { return a.at.Compare(b.at) })
		kept := list[:0]
		for _, p := range list {
			if len(kept) == 0 || p.through.After(kept[len(kept)-1].through) {
				kept = append(kept, p)
			}
		}
		all[by] = kept
	}
	return all
}

// known is until when everything is proven to be applied at an instant; zero: nothing is.
func known(seen []proof, at time.Time) (through time.Time) {
	n, _ := slices.BinarySearchFunc(seen, at, func(p proof, at time.Time) int { return p.at.Compare(at) })
	if n == 0 {
		return through
	}
	return seen[n-1].through
}

func (h *history) lifeOf(w who) *life {
	return h.lives[slices.IndexFunc(h.lives, func(l *life) bool { return l.node == w.node && l.life == w.life })]
}

// whole: this life of a node was ready, and had no trouble between two instants; and what came before them it is seen to
// have caught up with.
func (h *history) whole(w who, from, to time.Time, seen []proof) bool {
	if l := h.lifeOf(w); l.ready.IsZero() || l.ready.After(from) {
		return false
	}
	caught := known(seen, from)
	return !slices.ContainsFunc(h.troubles, func(x trouble) bool {
		return x.node == w.node && x.from.Before(to) && (x.to.IsZero() || x.to.After(from) || !x.to.Before(caught))
	})
}

// took is how long after each acknowledgement the first check began at another node that was refused; 0: no check was
// allowed before. well are those of spans without trouble.
func (h *history) took() (well, ill []time.Duration) {
	naming := h.naming()
	proofs := h.proofs(naming)
	of := map[string][]asking{}
	for _, c := range h.checks {
		if len(naming[c.token]) == 1 {
			of[c.token] = append(of[c.token], c)
		}
	}
	for token, checks := range of {
		e := naming[token][0]
		at := e.acknowledged()
		if surely, _ := e.names(h.grants[token]); !surely || at.IsZero() {
			continue
		}
		slices.SortFunc(checks, func(a, b asking) int { return a.began.Compare(b.began) })
		for node := range 3 {
			if slices.ContainsFunc(e.attempts, func(a attempt) bool { return a.node == node }) {
				continue
			}
			first := slices.IndexFunc(checks, func(c asking) bool { return c.node == node && c.began.After(at) && c.said == refused })
			if first < 0 {
				continue
			}
			c, by := checks[first], who{node, checks[first].life}
			after := time.Duration(0)
			if slices.ContainsFunc(checks[:first], func(c asking) bool { return c.node == node && c.began.After(at) && c.said == allowed }) {
				after = c.began.Sub(at)
			}
			if c.life >= 0 && h.whole(by, at, c.began, proofs[by]) {
				well = append(well, after)
			} else {
				ill = append(ill, after)
			}
		}
	}
	slices.Sort(well)
	slices.Sort(ill)
	return well, ill
}

// caught is how long after the end of each trouble a node was seen to have caught up, where it had no other meanwhile.
func (h *history) caught() (took []time.Duration) {
	proofs := h.proofs(h.naming())
	for _, x := range h.troubles {
		for by, seen := range proofs {
			i := slices.IndexFunc(seen, func(p proof) bool { return p.through.After(x.to) })
			if by.node != x.node || i < 0 || h.lifeOf(by).born.After(x.to) || slices.ContainsFunc(h.troubles, func(y trouble) bool {
				return y.node == x.node && y != x && y.from.Before(seen[i].at) && y.to.After(x.to)
			}) {
				continue
			}
			took = append(took, seen[i].at.Sub(x.to))
		}
	}
	slices.Sort(took)
	return took
}

// unready is how many checks were allowed of tokens whose revocation was acknowledged, by nodes that were not ready yet.
func (h *history) unready() (n int) {
	naming := h.naming()
	for _, c := range h.checks {
		if c.said != allowed || c.life < 0 {
			continue
		}
		if ready := h.lifeOf(who{c.node, c.life}).ready; ready.IsZero() || c.began.Before(ready) {
			if slices.ContainsFunc(naming[c.token], func(e *revoked) bool {
				surely, _ := e.names(h.grants[c.token])
				return surely && !e.acknowledged().IsZero() && e.acknowledged().Before(c.began)
			}) {
				n++
			}
		}
	}
	return n
}

// A history that keeps every promise is passed, and each promise that is broken is found: else the checks of real fleets
// show nothing.
func TestHistoryIsJudged(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	ask := func(node, life int, token string, ms int, said verdict) asking {
		return asking{node, life, token, at(ms), at(ms + 1), said}
	}
	sound := func() *history {
		once := func(way, token, group string, node, ms int) *revoked {
			return &revoked{way: way, token: token, group: group, operator: way != "pass", attempts: []attempt{{node, 0, at(ms), at(ms + 10), true, true}}}
		}
		return &history{bound: 2 * time.Second, within: time.Second,
			grants: map[string]grant{
				"valid": {"valid", "a", at(0), time.Time{}}, "silent": {"silent", "b", at(0), at(1000)}, "passed": {"passed", "c", at(0), at(1100)},
				"denied": {"denied", "d", at(0), time.Time{}}, "later": {"later", "e", at(0), time.Time{}}, "of-group": {"of-group", "f", at(0), time.Time{}},
				"anew": {"anew", "f", at(20000), time.Time{}}},
			revoked:  []*revoked{once("pass", "passed", "", 0, 1000), once("token", "denied", "", 0, 2000), once("token", "later", "", 0, 9000), once("sub", "", "f", 0, 2000)},
			lives:    []*life{{0, 0, at(-500), at(-100)}, {1, 0, at(-500), at(-100)}, {1, 1, at(12000), at(13000)}},
			troubles: []trouble{{1, "cut", at(5000), at(6000)}, {1, "node killed", at(11000), at(13000)}},
			checks: []asking{
				ask(1, 0, "valid", 100, allowed), ask(1, 0, "valid", 5500, unknown), ask(1, 0, "anew", 20100, allowed),
				ask(1, 0, "silent", 2999, allowed), ask(1, 0, "silent", 3200, refused),
				ask(0, 0, "passed", 1005, allowed), ask(0, 0, "passed", 1011, refused), ask(1, 0, "passed", 1500, allowed), ask(1, 0, "passed", 2100, refused),
				ask(1, 0, "denied", 2900, allowed), ask(1, 0, "of-group", 2900, allowed),
				ask(1, 0, "later", 9500, refused), ask(1, 0, "denied", 9600, refused),
				ask(1, 1, "denied", 12500, allowed), ask(1, 1, "denied", 13001, refused), ask(1, -1, "denied", 11001, nothing),
			}}
	}
	if broken := sound().judge(); len(broken) > 0 {
		t.Fatalf("a history in which everything is well: %q", broken)
	}
	for name, one := range map[string]struct {
		want string
		make func(h *history)
	}{
		"a token that its server revoked": {"H1: node 1", func(h *history) { h.checks = append(h.checks, ask(1, -1, "silent", 3001, allowed)) }},
		"at the node that acknowledged":   {"H2: node 0 allowed a token 1ms after it took", func(h *history) { h.checks = append(h.checks, ask(0, 0, "denied", 2011, allowed)) }},
		"at a node that took it, and is not heard": {"H2: node 0 allowed a token 1ms after it took", func(h *history) {
			h.revoked[1].attempts[0].acknowledged = false
			h.checks = []asking{ask(0, 0, "denied", 2011, allowed)}
		}},
		"at a node that had refused it":              {"H2: node 1 allowed a token 99ms after it had refused it", func(h *history) { h.checks = append(h.checks, ask(1, 0, "passed", 2200, allowed)) }},
		"at a node that has read on":                 {"and had applied later ones", func(h *history) { h.checks = append(h.checks, ask(1, 0, "of-group", 9502, allowed)) }},
		"later than the feed's bound":                {"while all was well", func(h *history) { h.checks = append(h.checks, ask(1, 0, "of-group", 3020, allowed)) }},
		"at a node that was killed and is ready":     {"H3: node 1", func(h *history) { h.checks = append(h.checks, ask(1, 1, "of-group", 13001, allowed)) }},
		"a valid token":                              {"H4: node 2", func(h *history) { h.checks = append(h.checks, ask(2, -1, "valid", 100, refused)) }},
		"a token of a group, issued long afterwards": {"H4: node 1", func(h *history) { h.checks = append(h.checks, ask(1, 0, "anew", 20100, refused)) }},
		"before anybody revoked it":                  {"H4: node 0", func(h *history) { h.checks = append(h.checks, ask(0, 0, "denied", 1990, refused)) }},
	} {
		h := sound()
		one.make(h)
		if broken := h.judge(); !slices.ContainsFunc(broken, func(s string) bool { return strings.Contains(s, one.want) }) {
			t.Errorf("%s: %q, want %q", name, broken, one.want)
		}
	}
	h := sound()
	h.checks = append(h.checks, ask(1, 0, "of-group", 2955, refused))
	if well, ill := h.took(); !slices.Equal(well, []time.Duration{945 * time.Millisecond, 1090 * time.Millisecond}) || !slices.Equal(ill, []time.Duration{6590 * time.Millisecond, 0}) && len(ill) != 2 {
		t.Errorf("it took %v while all was well, and %v", well, ill)
	}
	if n := h.unready(); n != 1 {
		t.Errorf("%d allows before a node was ready", n)
	}
}
