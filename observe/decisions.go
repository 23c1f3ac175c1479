package observe

import (
	"cmp"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-dev/watchword"
)

const (
	// maxRows bounds the label pairs (door, policy). Both come from the configuration, never from a request; a
	// configuration with more policies, or a thousand reloads that rename them, counts the rest as "other".
	maxRows = 1000
	// stripes keeps cores that decide at once from waiting for one counter.
	stripes = 8
	// maxLabel is how many bytes of a name become a label value.
	maxLabel = 128
)

var sources = [...]string{"issuer", "cache", "jwt", "stale", "none"}

// source is the index of d.Source() in sources.
func source(d *watchword.Decision) int {
	switch d.Source() {
	case "issuer":
		return 0
	case "cache":
		return 1
	case "jwt":
		return 2
	case "stale":
		return 3
	}
	return 4
}

// decisions counts by door, policy, reason and source. A vector of counters finds a child by hashing all its labels
// (105 ns); here only door and policy are looked up, and counting is one atomic addition.
type decisions struct {
	desc    *prometheus.Desc
	reasons []watchword.Reason
	recent  [64]atomic.Pointer[entry]        // by a poor hash of the names, which saves a good one
	known   atomic.Pointer[map[names]*entry] // copied on write

	mu    sync.Mutex // one writer
	rows  map[names]*row
	other entry // of all names past maxRows
}

type names struct{ door, policy string }

func (n *names) slot() int {
	last := byte(0)
	if n.policy != "" {
		last = n.policy[len(n.policy)-1]
	}
	return (len(n.door) + 3*len(n.policy) + 7*int(last)) % 64
}

// entry is a row under names that it is asked by; those that become the same labels share one row.
type entry struct {
	names
	*row
}

type row struct {
	labels names
	counts []atomic.Uint64 // by stripe, reason, source
}

func newDecisions() *decisions {
	c := &decisions{
		desc: prometheus.NewDesc("watchword_decisions_total", "Decisions, by who asked, which policy decided, why, and where the evidence came from.",
			[]string{"door", "policy", "reason", "source"}, nil),
		reasons: watchword.Reasons(),
		rows:    map[names]*row{},
	}
	c.known.Store(&map[names]*entry{})
	c.other.row = c.row(names{"other", "other"})
	return c
}

func (c *decisions) count(door string, d *watchword.Decision) {
	n := names{door, "none"}
	if d.Policy != nil {
		n.policy = d.Policy.Name
	}
	slot := &c.recent[n.slot()]
	e := slot.Load()
	if e == nil || e.names != n {
		e = c.find(n)
		slot.Store(e)
	}
	reason := int(d.Reason)
	if reason >= len(c.reasons) {
		reason = int(watchword.Internal)
	}
	e.counts[c.index(int(d.Key[0]%stripes), reason, source(d))].Add(1)
}

func (c *decisions) index(stripe, reason, source int) int {
	return (stripe*len(c.reasons)+reason)*len(sources) + source
}

func (c *decisions) find(n names) *entry {
	known := *c.known.Load()
	if e := known[n]; e != nil {
		return e
	}
	if len(known) >= maxRows {
		return &c.other
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known = *c.known.Load()
	if e := known[n]; e != nil || len(known) >= maxRows {
		return cmp.Or(e, &c.other)
	}
	e := &entry{names{strings.Clone(n.door), strings.Clone(n.policy)}, c.row(names{label(n.door), label(n.policy)})}
	next := maps.Clone(known)
	next[e.names] = e
	c.known.Store(&next)
	return e
}

func (c *decisions) row(labels names) *row {
	r := c.rows[labels]
	if r == nil {
		r = &row{labels, make([]atomic.Uint64, stripes*len(c.reasons)*len(sources))}
		c.rows[labels] = r
	}
	return r
}

func (c *decisions) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

func (c *decisions) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	rows := maps.Clone(c.rows)
	c.mu.Unlock()
	for _, r := range rows {
		for i, reason := range c.reasons {
			for j, from := range sources {
				n := uint64(0)
				for s := range stripes {
					n += r.counts[c.index(s, i, j)].Load()
				}
				if n > 0 || from == "none" && pages(reason) { // most combinations cannot happen
					to <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(n), r.labels.door, r.labels.policy, reason.String(), from)
				}
			}
		}
	}
}

// pages reports a reason that somebody is woken for. It is shown while it is still zero: an alert on a rate does not see
// the first event of a series that begins with it.
func pages(r watchword.Reason) bool {
	return r == watchword.CannotKnow || r == watchword.Misconfigured || r == watchword.Internal
}

// label makes s fit to be a label value: valid UTF-8, bounded.
func label(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxLabel)], "\ufffd")
}

// ageBounds are seconds: around the bounds that operators promise (30 s and 10 min unless they say otherwise).
var ageBounds = [...]time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour,
}

// ages is a histogram of durations, of integers only: a floating-point sum needs a compare-and-swap loop.
type ages struct {
	desc    *prometheus.Desc
	stripes [stripes]struct {
		counts       [len(ageBounds) + 1]atomic.Uint64
		milliseconds atomic.Uint64
		_            [16]byte // a cache line of its own
	}
}

func newAges() *ages {
	return &ages{desc: prometheus.NewDesc("watchword_evidence_age_seconds",
		"Age of the evidence behind accepted decisions, when the check began. Its upper end is the staleness that was really served.", nil, nil)}
}

func (c *ages) observe(age time.Duration, stripe byte) {
	i := 0
	for i < len(ageBounds) && age > ageBounds[i] {
		i++
	}
	s := &c.stripes[stripe%stripes]
	s.counts[i].Add(1)
	if age > 0 {
		s.milliseconds.Add(uint64(age / time.Millisecond))
	}
}

func (c *ages) Describe(to chan<- *prometheus.Desc) { to <- c.desc }

func (c *ages) Collect(to chan<- prometheus.Metric) {
	var count, milliseconds uint64
	upTo := make(map[float64]uint64, len(ageBounds))
	for i := range len(ageBounds) + 1 {
		for s := range c.stripes {
			count += c.stripes[s].counts[i].Load()
		}
		if i < len(ageBounds) {
			upTo[ageBounds[i].Seconds()] = count
		}
	}
	for s := range c.stripes {
		milliseconds += c.stripes[s].milliseconds.Load()
	}
	to <- prometheus.MustNewConstHistogram(c.desc, count, float64(milliseconds)/1000, upTo)
}
