package observe

import (
	"github.com/prometheus/client_golang/prometheus"
)

// IssuerStats is a look at what stands before one authorization server. Counters count since it was configured so.
type IssuerStats struct {
	Issuer                    string
	Breaker                   string // closed, open or half_open
	InFlight, Limit, Waiting  int    // questions
	Retries, Hedges           uint64
	Refused                   map[string]uint64 // questions not asked, by gate
	Raging                    bool              // its inactive answers are doubted
	Doubted, Storms, Honoured uint64
	ClockOffset               float64 // seconds by which its clock is ahead of ours at least; negative: behind
}

// issuersCollector reads every authorization server's stats once for each scrape.
type issuersCollector struct {
	read                                                                                                   func() []IssuerStats
	breaker, inFlight, limit, waiting, retries, hedges, refused, raging, doubted, storms, honoured, offset *prometheus.Desc
}

func newIssuersCollector(read func() []IssuerStats) *issuersCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"issuer"}, labels...), nil)
	}
	return &issuersCollector{
		read:     read,
		breaker:  desc("watchword_guard_breaker", "1 for the state of the breaker before an authorization server: closed, open (nobody is asked), half_open (a few questions try).", "state"),
		inFlight: desc("watchword_guard_in_flight", "Questions to an authorization server in the air."),
		limit:    desc("watchword_guard_limit", "How many may be in the air: at most guard.max_in_flight, fewer while it slows down."),
		waiting:  desc("watchword_guard_waiting", "Questions that wait for a turn."),
		retries:  desc("watchword_guard_retries_total", "Questions asked once more after a failure, within guard.retry_budget."),
		hedges:   desc("watchword_guard_hedges_total", "Questions asked a second time because the first took long (guard.hedge_after)."),
		refused:  desc("watchword_guard_refused_total", "Questions not asked, by the gate that refused: retry_after (it said when to come back), breaker, background (a refresh gave way), rate, in_flight.", "gate"),
		raging:   desc("watchword_storm", "1 while inactive answers are doubted: many known tokens turned at once, and no revocation explains it."),
		doubted:  desc("watchword_storm_doubted_total", "Inactive answers that were not believed."),
		storms:   desc("watchword_storms_total", "How often that began."),
		honoured: desc("watchword_storm_honoured_total", "How often so many turned, and were believed to be revoked."),
		offset:   desc("watchword_issuer_clock_offset_seconds", "By how much at least its clock is ahead of ours; negative: behind."),
	}
}

func (c *issuersCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.breaker, c.inFlight, c.limit, c.waiting, c.retries, c.hedges, c.refused, c.raging, c.doubted, c.storms, c.honoured, c.offset} {
		to <- d
	}
}

func (c *issuersCollector) Collect(to chan<- prometheus.Metric) {
	for _, s := range c.read() {
		put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, kind, v, append([]string{label(s.Issuer)}, labels...)...)
		}
		for _, state := range []string{"closed", "open", "half_open"} {
			put(c.breaker, prometheus.GaugeValue, flag(s.Breaker == state), state)
		}
		put(c.inFlight, prometheus.GaugeValue, float64(s.InFlight))
		put(c.limit, prometheus.GaugeValue, float64(s.Limit))
		put(c.waiting, prometheus.GaugeValue, float64(s.Waiting))
		put(c.retries, prometheus.CounterValue, float64(s.Retries))
		put(c.hedges, prometheus.CounterValue, float64(s.Hedges))
		for gate, n := range s.Refused {
			put(c.refused, prometheus.CounterValue, float64(n), label(gate))
		}
		put(c.raging, prometheus.GaugeValue, flag(s.Raging))
		put(c.doubted, prometheus.CounterValue, float64(s.Doubted))
		put(c.storms, prometheus.CounterValue, float64(s.Storms))
		put(c.honoured, prometheus.CounterValue, float64(s.Honoured))
		put(c.offset, prometheus.GaugeValue, s.ClockOffset)
	}
}

func flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
