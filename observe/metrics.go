// Package observe shows what Watchword does: metrics for Prometheus, a log of decisions, health.
//
// Nothing here holds a token: labels come from the configuration and from closed lists, and the decision log knows a
// token only by a keyed fingerprint.
package observe

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/watchword-dev/watchword"
)

// CacheStats is a look at a cache of answers.
type CacheStats struct {
	Entries, Bytes                 int64             // active answers
	InactiveEntries, InactiveBytes int64             // inactive answers, in their own store
	Evicted                        uint64            // entries of either kind that left for want of room, since the start
	Lookups                        map[string]uint64 // since the start, by result: hit, miss, …
}

// SharedStats is a look at answers that a fleet shares.
type SharedStats struct {
	Results     map[string]uint64 // since the start: hit, miss, …
	InUse       bool
	ClockOffset time.Duration // the store's clock less ours
}

// LedgerStats is a look at what is held of revocations: bytes of memory.
type LedgerStats struct {
	Bytes, OperatorBytes int64 // all of it; what operators deny, for which a quarter of MaxBytes is
	MaxBytes             int64 // of Bytes
}

// MetricsConfig makes Metrics. The zero value is good.
type MetricsConfig struct {
	Cache  func() CacheStats  // called at every scrape, from any goroutine; nil: no metrics of a cache
	Shared func() SharedStats // called at every scrape, from any goroutine; nil: nothing is shared
	// Proven says until when each covering feed proves its issuer's revocations to be in force; called at every scrape,
	// from any goroutine. nil: there are no feeds.
	Proven  func() map[string]time.Time
	Issuers func() []IssuerStats             // called at every scrape, from any goroutine; nil: no metrics of what stands before issuers
	Ledger  func() LedgerStats               // called at every scrape, from any goroutine; nil: no metrics of a ledger
	Modes   func() map[string]watchword.Mode // what operators said about policies and is not over, called like Cache; nil: nothing
	Log     *slog.Logger                     // what goes wrong while metrics are collected; nil: nobody hears
}

// Metrics is every metric of one process, in a registry of its own. It is an Observer; its methods are safe for
// concurrent use. Make it with NewMetrics. docs/metrics.md lists what it shows.
type Metrics struct {
	registry  *prometheus.Registry
	log       *slog.Logger
	decisions *decisions
	ages      *ages
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	degraded  *prometheus.CounterVec
	fetches   *prometheus.CounterVec
	fetched   *prometheus.GaugeVec
	believed  *prometheus.GaugeVec
	headers   *prometheus.CounterVec
	dropped   prometheus.Counter
	info      *prometheus.GaugeVec
	loaded    prometheus.Gauge

	revocations *revocations
	canaries    *canaries

	mu   sync.Mutex
	hash string // shown by info
}

// NewMetrics makes Metrics.
func NewMetrics(c MetricsConfig) *Metrics {
	m := &Metrics{
		registry:  prometheus.NewRegistry(),
		log:       c.Log,
		decisions: newDecisions(),
		ages:      newAges(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_issuer_requests_total",
			Help: "Questions to an authorization server, by what came of it: ok (active), inactive, caller_rejected (it refused a caller's own credential), or the failure."}, []string{"issuer", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "watchword_issuer_request_seconds",
			Help:    "How long an authorization server took, retries included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			// Also a native histogram, for servers that scrape those.
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100}, []string{"issuer"}),
		degraded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_degraded_total",
			Help: "Decisions that let a request pass on less than was promised, by the word of the policy that says so: stale (stale_if_error), allow, unknown (on_unavailable), hold (dangerously_hold)."}, []string{"policy", "kind"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_keys_fetches_total",
			Help: "Fetches of an issuer's key set, by what came of it: ok or unavailable."}, []string{"issuer", "outcome"}),
		fetched: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "watchword_keys_fetched_timestamp_seconds",
			Help: "When an issuer's key set was last fetched, by our clock; it verifies nothing once it is keys_max_age old."}, []string{"issuer"}),
		believed: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "watchword_keys_max_age_seconds",
			Help: "How old an issuer's key set may become and still verify: keys_max_age."}, []string{"issuer"}),
		headers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_identity_headers_dropped_total",
			Help: "Identity headers sent empty because the claim cannot be one: neither text, number, boolean nor list of texts, or not printable ASCII."}, []string{"header"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "watchword_decision_log_dropped_total",
			Help: "Decisions missing in the decision log: its sink was too slow or refused them."}),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "watchword_config_info",
			Help: "Always 1; hash tells the configuration that serves."}, []string{"hash"}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{Name: "watchword_config_last_load_successful",
			Help: "1, or 0 if the configuration was last found to be bad, so that the one before it still serves."}),
	}
	m.registry.MustRegister(m.decisions, m.ages, m.requests, m.seconds, m.degraded, m.fetches, m.fetched, m.believed, m.headers, m.dropped, m.info, m.loaded,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	if c.Cache != nil {
		m.registry.MustRegister(newCacheCollector(c.Cache))
	}
	if c.Shared != nil {
		m.registry.MustRegister(newSharedCollector(c.Shared))
	}
	m.revocations = newRevocations(m.registry, c.Proven)
	m.canaries = newCanaries(m.registry)
	if c.Issuers != nil {
		m.registry.MustRegister(newIssuersCollector(c.Issuers))
	}
	if c.Ledger != nil {
		m.registry.MustRegister(ledgerCollector(c.Ledger))
	}
	if c.Modes != nil {
		m.registry.MustRegister(modeCollector(c.Modes))
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m
}

// Observe counts a decision and the age of the evidence that it accepted. It allocates nothing and takes no lock,
// but for the first decision of a policy.
func (m *Metrics) Observe(r watchword.Request, d watchword.Decision, _ time.Duration) {
	m.decisions.count(r.Door, &d)
	if !d.Allowed() {
		return
	}
	if d.Answer != nil {
		m.ages.observe(d.Age, d.Key[0])
	}
	if d.Degraded != watchword.Whole {
		policy := "none"
		if d.Policy != nil {
			policy = label(d.Policy.Name)
		}
		m.degraded.WithLabelValues(policy, d.Degraded.String()).Inc()
	}
}

// Asked returns what an issuer.Config.Observe is: it counts and times what the authorization server of that name was
// asked. outcome is a word of a closed list.
func (m *Metrics) Asked(issuer string) func(outcome string, took time.Duration) {
	issuer = label(issuer)
	for _, f := range []watchword.Failure{watchword.Unavailable, watchword.ClientRejected, watchword.ProtocolError, watchword.ConfigError} {
		m.requests.WithLabelValues(issuer, f.Error()) // shown while zero, as in pages
	}
	return func(outcome string, took time.Duration) {
		m.requests.WithLabelValues(issuer, label(outcome)).Inc()
		m.seconds.WithLabelValues(issuer).Observe(took.Seconds())
	}
}

// KeysFetched returns what a jose.KeysConfig.Observe is: it counts the fetches of the key set of that issuer, which is
// believed for maxAge.
func (m *Metrics) KeysFetched(issuer string, maxAge time.Duration) func(outcome string, keys int) {
	issuer = label(issuer)
	return func(outcome string, _ int) {
		m.believed.WithLabelValues(issuer).Set(maxAge.Seconds())
		m.fetches.WithLabelValues(issuer, label(outcome)).Inc()
		if outcome == "ok" {
			m.fetched.WithLabelValues(issuer).SetToCurrentTime()
		}
	}
}

// HeaderDropped counts an identity header that had to be sent empty. header comes from the configuration.
func (m *Metrics) HeaderDropped(header string) { m.headers.WithLabelValues(label(header)).Inc() }

// Configured tells that the configuration with this hash serves from now on.
func (m *Metrics) Configured(hash string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loaded.Set(1)
	m.info.WithLabelValues(label(hash)).Set(1)
	if m.hash != label(hash) {
		m.info.DeleteLabelValues(m.hash)
	}
	m.hash = label(hash)
}

// ConfigRefused tells that a new configuration was bad, and that the old one still serves.
func (m *Metrics) ConfigRefused() { m.loaded.Set(0) }

// Handler serves the metrics in the format that the scraper asks for: Prometheus text, OpenMetrics or protobuf. What
// cannot be collected is logged and counted, and the rest is served: alerts need it most then.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry:            m.registry, // promhttp_metric_handler_errors_total
		ErrorHandling:       promhttp.ContinueOnError,
		ErrorLog:            slog.NewLogLogger(m.log.Handler(), slog.LevelError),
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 8,
	})
}

// cacheCollector reads a cache once for each scrape.
type cacheCollector struct {
	read                                                             func() CacheStats
	entries, bytes, inactiveEntries, inactiveBytes, evicted, lookups *prometheus.Desc
}

func newCacheCollector(read func() CacheStats) *cacheCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &cacheCollector{
		read:            read,
		entries:         desc("watchword_cache_entries", "Active answers that are remembered."),
		bytes:           desc("watchword_cache_bytes", "Memory that they take, bounded by cache.max_bytes."),
		inactiveEntries: desc("watchword_cache_inactive_entries", "Inactive answers that are remembered."),
		inactiveBytes:   desc("watchword_cache_inactive_bytes", "Memory that they take, bounded by cache.inactive.max_bytes."),
		evicted:         desc("watchword_cache_evictions_total", "Answers of either kind that left the cache for want of room."),
		lookups:         desc("watchword_lookups_total", "Look-ups in the cache, by what they found.", "result"),
	}
}

func (c *cacheCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.entries, c.bytes, c.inactiveEntries, c.inactiveBytes, c.evicted, c.lookups} {
		to <- d
	}
}

func (c *cacheCollector) Collect(to chan<- prometheus.Metric) {
	s := c.read()
	gauge := func(d *prometheus.Desc, v int64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	gauge(c.entries, s.Entries)
	gauge(c.bytes, s.Bytes)
	gauge(c.inactiveEntries, s.InactiveEntries)
	gauge(c.inactiveBytes, s.InactiveBytes)
	to <- prometheus.MustNewConstMetric(c.evicted, prometheus.CounterValue, float64(s.Evicted))
	for result, n := range s.Lookups {
		to <- prometheus.MustNewConstMetric(c.lookups, prometheus.CounterValue, float64(n), label(result))
	}
}

// ledgerCollector shows what is held of revocations.
type ledgerCollector func() LedgerStats

var (
	ledgerBytes    = prometheus.NewDesc("watchword_ledger_bytes", "Memory that revocations take, bounded by revocation.max_bytes.", nil, nil)
	ledgerOperator = prometheus.NewDesc("watchword_ledger_operator_bytes", "Memory of it that what operators deny takes, bounded by a quarter of revocation.max_bytes.", nil, nil)
	ledgerMost     = prometheus.NewDesc("watchword_ledger_max_bytes", "revocation.max_bytes.", nil, nil)
)

func (ledgerCollector) Describe(to chan<- *prometheus.Desc) {
	to <- ledgerBytes
	to <- ledgerOperator
	to <- ledgerMost
}

func (c ledgerCollector) Collect(to chan<- prometheus.Metric) {
	s := c()
	to <- prometheus.MustNewConstMetric(ledgerBytes, prometheus.GaugeValue, float64(s.Bytes))
	to <- prometheus.MustNewConstMetric(ledgerOperator, prometheus.GaugeValue, float64(s.OperatorBytes))
	to <- prometheus.MustNewConstMetric(ledgerMost, prometheus.GaugeValue, float64(s.MaxBytes))
}

// modeCollector shows how long what operators said still stands.
type modeCollector func() map[string]watchword.Mode

var modeLeft = prometheus.NewDesc("watchword_mode_remaining_seconds", "How long an operator's word still stands instead of a policy's on_unavailable.", []string{"policy", "on_unavailable"}, nil)

func (modeCollector) Describe(to chan<- *prometheus.Desc) { to <- modeLeft }

func (c modeCollector) Collect(to chan<- prometheus.Metric) {
	for policy, m := range c() {
		left := -watchword.Age(time.Now(), m.Until)
		to <- prometheus.MustNewConstMetric(modeLeft, prometheus.GaugeValue, max(0, left).Seconds(), label(policy), m.OnUnavailable.String())
	}
}
