package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// canaries shows what tokens of our own tell of an authorization server.
type canaries struct {
	looks   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	overdue *prometheus.CounterVec
	broken  *prometheus.CounterVec
}

func newCanaries(registry *prometheus.Registry) *canaries {
	c := &canaries{
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_canary_looks_total",
			Help: "Questions about a token of our own that must be good: alive, lying (it and a fresh one are called inactive), or unknown."}, []string{"issuer", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "watchword_canary_enforcement_seconds",
			Help:                        "How long after its revocation at the authorization server a token of our own was still accepted by this instance.",
			Buckets:                     []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100}, []string{"issuer", "kind"}),
		overdue: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_canary_overdue_total",
			Help: "Revoked tokens of our own that were still accepted past every bound."}, []string{"issuer", "kind"}),
	}
	c.broken = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_canary_broken_total",
		Help: "What tokens of our own showed to be untrue: unsettled (introspection called one active longer than settle after its revocation), late (one was accepted longer than settle and max_staleness after it)."}, []string{"issuer", "what"})
	registry.MustRegister(c.looks, c.seconds, c.overdue, c.broken)
	return c
}

// CanaryLooked returns what an issuer.CanaryConfig.Looked is.
func (m *Metrics) CanaryLooked(issuer string) func(outcome string) {
	issuer = label(issuer)
	m.canaries.looks.WithLabelValues(issuer, "lying") // shown while zero, as in pages
	return func(outcome string) { m.canaries.looks.WithLabelValues(issuer, label(outcome)).Inc() }
}

// CanaryRefused returns what an issuer.CanaryConfig.Refused is, for tokens that were revoked in a way that is of one kind
// of those that a feed may cover.
func (m *Metrics) CanaryRefused(issuer, kind string) func(took time.Duration, overdue bool) {
	issuer, kind = label(issuer), label(kind)
	late := m.canaries.overdue.WithLabelValues(issuer, kind)
	return func(took time.Duration, overdue bool) {
		m.canaries.seconds.WithLabelValues(issuer, kind).Observe(took.Seconds())
		if overdue {
			late.Inc()
		}
	}
}

// CanaryBroken returns what an issuer.CanaryConfig.Broken is.
func (m *Metrics) CanaryBroken(issuer string) func(what string) {
	issuer = label(issuer)
	for _, what := range []string{"unsettled", "late"} {
		m.canaries.broken.WithLabelValues(issuer, what) // shown while zero, as in pages
	}
	return func(what string) { m.canaries.broken.WithLabelValues(issuer, label(what)).Inc() }
}
