package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-dev/watchword/revocation"
)

// revocations shows what is heard of revocations, and what feeds prove.
type revocations struct {
	events  *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	gaps    *prometheus.CounterVec
	wrong   *prometheus.CounterVec
	ahead   *prometheus.GaugeVec
	jumps   prometheus.Counter
	lag     *prometheus.GaugeVec
	bus     *prometheus.CounterVec
	forgot  *prometheus.CounterVec
	outlive *prometheus.CounterVec
	age     *prometheus.Desc
	proven  func() map[string]time.Time
}

func newRevocations(registry *prometheus.Registry, proven func() map[string]time.Time) *revocations {
	r := &revocations{proven: proven,
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_revocation_events_total",
			Help: "Signals of revocations, by the way in which they came, what they do, and what became of them."}, []string{"issuer", "way", "effect", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "watchword_revocation_enforcement_seconds",
			Help:                        "How long until a revocation was in force here: since it occurred, by the authorization server's clock, and since any instance heard of it.",
			Buckets:                     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100}, []string{"stage"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_feed_gaps_total",
			Help: "How often a covering feed may have missed something, so that it extends nothing that was asked before, by what tells it."}, []string{"feed", "kind"}),
		wrong: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_feed_disproven_total",
			Help: "Events that a covering feed brought after it had proven that there was nothing of their time that it had not brought."}, []string{"feed"}),
		ahead: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "watchword_feed_clock_ahead_seconds",
			Help: "By how much at least the clock of another node, the one that is furthest ahead, differs from that of this node. 0: none is known to be ahead."}, []string{"feed"}),
		jumps: prometheus.NewCounter(prometheus.CounterOpts{Name: "watchword_clock_jumps_total",
			Help: "How often a clock of this host jumped, or the host slept, by more than a second: everything is asked for again."}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "watchword_feed_lag_seconds",
			Help: "How long the last beat of this node took through the bus and back. It proves the bus, and nothing about an authorization server."}, []string{"feed"}),
		bus: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_feed_messages_total",
			Help: "Messages read from the bus: applied, own, duplicate, stranger (nobody of this deployment wrote it), foreign (another ledger key or issuer), unreadable, refused."}, []string{"feed", "outcome"}),
		forgot: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_ledger_forgotten_total",
			Help: "Revocations forgotten before they were over, because revocation.max_bytes was full: answers from before them are asked for again."}, []string{"issuer"}),
		outlive: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_token_life_exceeded_total",
			Help: "Active answers about tokens that live longer than the issuer's max_token_life: what is denied of them is forgotten while they live."}, []string{"issuer"}),
		age: prometheus.NewDesc("watchword_feed_through_age_seconds",
			"How long ago it was until when a covering feed proves every revocation to be in force here. Absent: it proved nothing yet.", []string{"feed"}, nil),
	}
	registry.MustRegister(r.events, r.seconds, r.gaps, r.wrong, r.ahead, r.jumps, r.lag, r.bus, r.forgot, r.outlive)
	if proven != nil {
		registry.MustRegister(r)
	}
	return r
}

// Describe implements prometheus.Collector.
func (r *revocations) Describe(to chan<- *prometheus.Desc) { to <- r.age }

// Collect implements prometheus.Collector.
func (r *revocations) Collect(to chan<- prometheus.Metric) {
	now := time.Now()
	for feed, through := range r.proven() {
		to <- prometheus.MustNewConstMetric(r.age, prometheus.GaugeValue, max(0, now.Sub(through).Seconds()), label(feed))
	}
}

// Heard counts a signal that changed nothing, or that could not be applied: what door/events and door/admin call Heard.
func (m *Metrics) Heard(issuer, way, effect, outcome string) {
	m.revocations.events.WithLabelValues(label(issuer), label(way), label(effect), label(outcome)).Inc()
}

// Revocation counts and times an event that the ledger took: what a revocation.Config.Observe is.
func (m *Metrics) Revocation(e *revocation.Event, outcome revocation.Outcome) {
	m.Heard(e.Issuer, e.Way, e.Effect.String(), outcome.String())
	if outcome != revocation.Applied {
		return
	}
	now := time.Now()
	if !e.At.IsZero() && !e.Operator { // what an operator means by before is no time of an event
		m.revocations.seconds.WithLabelValues("occurred").Observe(max(0, now.Sub(e.At).Seconds()))
	}
	if !e.Heard.IsZero() {
		m.revocations.seconds.WithLabelValues("heard").Observe(max(0, now.Sub(e.Heard).Seconds()))
	}
}

// Covering shows the covering feeds of a configuration while they have had no gap.
func (m *Metrics) Covering(feeds ...string) {
	for _, feed := range feeds {
		m.revocations.gaps.WithLabelValues(label(feed), GapStream)
		m.revocations.wrong.WithLabelValues(label(feed))
	}
}

// GapStream is the kind of a gap in what one transmitter sends; those of a bus are of package revocation.
const GapStream = "stream"

// Gap counts a gap of a covering feed, or of the bus.
func (m *Metrics) Gap(feed, kind string) {
	m.revocations.gaps.WithLabelValues(label(feed), label(kind)).Inc()
}

// Bus shows, while they are zero, the counts of a bus that somebody is woken for.
func (m *Metrics) Bus(feed string) {
	for _, kind := range []revocation.GapKind{revocation.GapLog, revocation.GapMissing} {
		m.revocations.gaps.WithLabelValues(label(feed), string(kind))
	}
	for _, outcome := range []string{"foreign", "unreadable", "refused"} {
		m.revocations.bus.WithLabelValues(label(feed), outcome)
	}
}

// Disproven counts an event of a covering feed that came after the proof that it had come.
func (m *Metrics) Disproven(feed string) { m.revocations.wrong.WithLabelValues(label(feed)).Inc() }

// Ahead is by how much at least the clock of another node of a bus is ahead of ours.
func (m *Metrics) Ahead(feed string, d time.Duration) {
	m.revocations.ahead.WithLabelValues(label(feed)).Set(d.Seconds())
}

// ClockJumped counts a jump of our own clocks: what a revocation.Config.Jumped is.
func (m *Metrics) ClockJumped(time.Duration) { m.revocations.jumps.Inc() }

// Remembers shows the ledgers of issuers while nothing of them was forgotten.
func (m *Metrics) Remembers(issuers ...string) {
	for _, issuer := range issuers {
		m.revocations.forgot.WithLabelValues(label(issuer))
		m.revocations.outlive.WithLabelValues(label(issuer))
	}
}

// Outlives counts an active answer about a token that lives longer than its issuer's max_token_life.
func (m *Metrics) Outlives(issuer string) { m.revocations.outlive.WithLabelValues(label(issuer)).Inc() }

// Forgot counts n events of an issuer that the ledger forgot to make room: what a revocation.Config.OnForget calls.
func (m *Metrics) Forgot(issuer string, n int) {
	m.revocations.forgot.WithLabelValues(label(issuer)).Add(float64(n))
}

// Lag is how long a beat of this node took through a bus and back.
func (m *Metrics) Lag(feed string, d time.Duration) {
	m.revocations.lag.WithLabelValues(label(feed)).Set(d.Seconds())
}

// Message counts a message read from a bus.
func (m *Metrics) Message(feed, outcome string) {
	m.revocations.bus.WithLabelValues(label(feed), label(outcome)).Inc()
}
