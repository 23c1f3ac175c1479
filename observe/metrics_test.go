package observe

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// used is Metrics of which every one has been counted.
func used(t testing.TB) *Metrics {
	m := NewMetrics(MetricsConfig{Cache: func() CacheStats {
		return CacheStats{Entries: 3, Bytes: 2900, InactiveEntries: 1, InactiveBytes: 200, Lookups: map[string]uint64{"hit": 5, "miss": 4}}
	}, Modes: func() map[string]watchword.Mode {
		return map[string]watchword.Mode{"orders-read": {OnUnavailable: watchword.DangerouslyAllow, Until: time.Now().Add(time.Minute)}}
	}, Shared: func() SharedStats {
		return SharedStats{Results: map[string]uint64{"hit": 2, "miss": 1}, InUse: true, ClockOffset: time.Millisecond}
	}, Issuers: func() []IssuerStats {
		return []IssuerStats{{Issuer: "main", Breaker: "open", InFlight: 3, Limit: 64, Waiting: 2, Retries: 5, Refused: map[string]uint64{"rate": 7}, Raging: true, Doubted: 11, ClockOffset: -1.5}}
	}, Proven: func() map[string]time.Time { return map[string]time.Time{"ssf-main": time.Now().Add(-time.Second)} }, Ledger: func() LedgerStats { return LedgerStats{4600, 460, 64 << 20} }})
	m.Revocation(&revocation.Event{Issuer: "main", Way: "ssf", At: time.Now(), Heard: time.Now()}, revocation.Applied)
	m.Heard("main", "ssf", "none", "refused")
	m.Gap("ssf-main", GapStream)
	m.Disproven("ssf-main")
	m.Bus("bus")
	m.Ahead("bus", time.Second)
	m.CanaryBroken("main")("late")
	m.Remembers("main")
	m.Forgot("main", 7)
	m.Outlives("main")
	m.CanaryLooked("main")("alive")
	m.CanaryRefused("main", "token")(time.Second, true)
	m.Lag("bus", time.Millisecond)
	m.Message("bus", "applied")
	for _, d := range everyDecision(t, answer(t, `{"active":true}`)) {
		m.Observe(watchword.Request{Door: "forward_auth"}, d, 0)
	}
	m.Asked("main")("ok", time.Millisecond)
	m.KeysFetched("main", time.Minute)("ok", 1)
	m.HeaderDropped("X-Auth-Subject")
	m.Configured("c0ffee")
	m.dropped.Inc()
	return m
}

// shows fails unless every line is in the scrape.
func shows(t testing.TB, m *Metrics, lines ...string) {
	t.Helper()
	body := scrape(t, m)
	for _, l := range lines {
		if !strings.Contains("\n"+body, "\n"+l+"\n") {
			t.Errorf("no line %s in:\n%s", l, only(body, strings.FieldsFunc(l, func(r rune) bool { return r == '{' || r == ' ' })[0]))
		}
	}
}

func only(body, prefix string) string {
	var b strings.Builder
	for l := range strings.Lines(body) {
		if strings.HasPrefix(l, prefix) {
			b.WriteString(l)
		}
	}
	return b.String()
}

func TestOBS01CountsDecisions(t *testing.T) {
	t.Parallel()
	m := NewMetrics(MetricsConfig{})
	active, p := answer(t, `{"active":true}`), &watchword.Policy{Name: "orders-read"}
	see := func(door string, d watchword.Decision) { m.Observe(watchword.Request{Door: door}, d, 0) }
	for key := range byte(20) { // over all stripes
		see("forward_auth", watchword.Decision{Policy: p, Answer: active, Age: 7 * time.Second, Key: watchword.Key{key}})
	}
	see("forward_auth", watchword.Decision{Policy: p, Answer: active})
	see("middleware", watchword.Decision{Policy: p, Answer: active, Degraded: watchword.ServedStale, Age: 40 * time.Second})
	see("forward_auth", watchword.Decision{Policy: p, Answer: active, Age: time.Hour, Reason: watchword.InsufficientScope})
	see("forward_auth", watchword.Decision{Policy: p, Answer: active, Age: time.Hour, Reason: watchword.WrongAudience, Degraded: watchword.ServedAnyAge}) // let nothing pass
	see("forward_auth", watchword.Decision{Policy: p, Degraded: watchword.ServedUnknown})                                                                 // nobody has no age
	see("forward_auth", watchword.Decision{Reason: watchword.NoToken})
	see("forward_auth", watchword.Decision{Policy: p, Reason: watchword.Reason(200)})
	shows(t, m,
		`watchword_decisions_total{door="forward_auth",policy="orders-read",reason="ok",source="cache"} 20`,
		`watchword_decisions_total{door="forward_auth",policy="orders-read",reason="ok",source="issuer"} 1`,
		`watchword_decisions_total{door="middleware",policy="orders-read",reason="ok",source="stale"} 1`,
		`watchword_decisions_total{door="forward_auth",policy="orders-read",reason="scope",source="cache"} 1`,
		`watchword_decisions_total{door="forward_auth",policy="none",reason="no_token",source="none"} 1`,
		`watchword_decisions_total{door="forward_auth",policy="orders-read",reason="internal",source="none"} 1`,
		`watchword_decisions_total{door="middleware",policy="orders-read",reason="unavailable",source="none"} 0`, // a rate sees the first one
		`watchword_decisions_total{door="forward_auth",policy="orders-read",reason="ok",source="none"} 1`,
		`watchword_degraded_total{kind="stale",policy="orders-read"} 1`,
		`watchword_degraded_total{kind="unknown",policy="orders-read"} 1`,
		// accepted ones only
		`watchword_evidence_age_seconds_bucket{le="1"} 1`,
		`watchword_evidence_age_seconds_bucket{le="5"} 1`,
		`watchword_evidence_age_seconds_bucket{le="10"} 21`,
		`watchword_evidence_age_seconds_bucket{le="30"} 21`,
		`watchword_evidence_age_seconds_bucket{le="60"} 22`,
		`watchword_evidence_age_seconds_bucket{le="+Inf"} 22`,
		`watchword_evidence_age_seconds_sum 180`,
		`watchword_evidence_age_seconds_count 22`)
}

func TestOBS01AgeOfABoundIsWithinIt(t *testing.T) {
	t.Parallel()
	m := NewMetrics(MetricsConfig{})
	d := watchword.Decision{Answer: answer(t, `{"active":true}`)}
	for _, d.Age = range []time.Duration{0, time.Second, time.Second + 1, time.Hour, time.Hour + 1} {
		m.Observe(watchword.Request{}, d, 0)
	}
	shows(t, m, `watchword_evidence_age_seconds_bucket{le="1"} 2`, `watchword_evidence_age_seconds_bucket{le="2"} 3`,
		`watchword_evidence_age_seconds_bucket{le="3600"} 4`, `watchword_evidence_age_seconds_bucket{le="+Inf"} 5`)
}

func TestOBS01EveryReasonAndSource(t *testing.T) {
	t.Parallel()
	m, a := NewMetrics(MetricsConfig{}), answer(t, `{"active":true}`)
	var want []string
	for _, d := range everyDecision(t, a)[:4*len(watchword.Reasons())] {
		m.Observe(watchword.Request{Door: "introspection"}, d, 0)
		want = append(want, fmt.Sprintf(`watchword_decisions_total{door="introspection",policy="orders-read",reason="%s",source="%s"} 1`, d.Reason, d.Source()))
	}
	shows(t, m, want...)
}

func TestOBS01LintClean(t *testing.T) {
	t.Parallel()
	families, err := used(t).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		name, kind := f.GetName(), f.GetType().String()
		switch {
		case !strings.HasPrefix(name, "watchword_"):
		case kind == "COUNTER" && !strings.HasSuffix(name, "_total"):
			t.Errorf("%s: a counter's name ends in _total", name)
		case kind == "HISTOGRAM" && !strings.HasSuffix(name, "_seconds"):
			t.Errorf("%s: a histogram of times ends in _seconds", name)
		}
	}
}

func TestOBS01CardinalityIsBounded(t *testing.T) {
	t.Parallel()
	m := NewMetrics(MetricsConfig{})
	const many = 100_000
	for i := range many {
		m.Observe(watchword.Request{Door: "forward_auth"}, watchword.Decision{Policy: &watchword.Policy{Name: fmt.Sprint("tenant-", i)}, Reason: watchword.Expired}, 0)
	}
	body := scrape(t, m)
	if n := strings.Count(body, "watchword_decisions_total{"); n > 4*(maxRows+1) {
		t.Errorf("%d series", n)
	}
	shows(t, m, fmt.Sprintf(`watchword_decisions_total{door="other",policy="other",reason="expired",source="none"} %d`, many-maxRows))
}

func TestOBS01NamesThatAreNoLabels(t *testing.T) {
	t.Parallel()
	m := NewMetrics(MetricsConfig{})
	long := strings.Repeat("p", 64<<10)
	for _, name := range []string{"a\xff", "a\xfe", "quo\"te\n\\", long, long + "q", "other", ""} {
		m.Observe(watchword.Request{Door: "d\xff"}, watchword.Decision{Policy: &watchword.Policy{Name: name}, Reason: watchword.Expired}, 0)
		m.HeaderDropped(name)
		m.Configured(name)
	}
	shows(t, m,
		`watchword_decisions_total{door="d�",policy="a�",reason="expired",source="none"} 2`,
		`watchword_decisions_total{door="d�",policy="quo\"te\n\\",reason="expired",source="none"} 1`,
		`watchword_decisions_total{door="d�",policy="`+long[:maxLabel]+`",reason="expired",source="none"} 2`)
	if _, err := m.registry.Gather(); err != nil {
		t.Error(err)
	}
}

func TestOBS01ConcurrentDecisionsAreAllCounted(t *testing.T) {
	t.Parallel()
	m, a := NewMetrics(MetricsConfig{}), answer(t, `{"active":true}`)
	var all sync.WaitGroup
	for g := range byte(8) {
		all.Go(func() {
			for i := range 1000 { // policies that share a slot take turns in it
				d := watchword.Decision{Policy: &watchword.Policy{Name: []string{"aab", "bab", "cab"}[i%3]}, Answer: a, Key: watchword.Key{g}}
				m.Observe(watchword.Request{Door: "forward_auth"}, d, 0)
			}
		})
	}
	all.Wait()
	shows(t, m, `watchword_evidence_age_seconds_count 8000`,
		`watchword_decisions_total{door="forward_auth",policy="aab",reason="ok",source="issuer"} 2672`,
		`watchword_decisions_total{door="forward_auth",policy="bab",reason="ok",source="issuer"} 2664`,
		`watchword_decisions_total{door="forward_auth",policy="cab",reason="ok",source="issuer"} 2664`)
}

func TestOBS01IssuerRequests(t *testing.T) {
	t.Parallel()
	m := NewMetrics(MetricsConfig{})
	asked := m.Asked("main")
	shows(t, m, `watchword_issuer_requests_total{issuer="main",outcome="client_rejected"} 0`) // a rate sees the first one
	words := []string{"ok", "inactive", "caller_rejected"}
	for _, f := range watchword.Failures() {
		words = append(words, f.Error())
	}
	var want []string
	for _, word := range words {
		asked(word, 300*time.Millisecond)
		want = append(want, fmt.Sprintf(`watchword_issuer_requests_total{issuer="main",outcome="%s"} 1`, word))
	}
	m.Asked("side")("inactive", 20*time.Millisecond)
	shows(t, m, append(want, `watchword_issuer_request_seconds_sum{issuer="side"} 0.02`,
		fmt.Sprintf(`watchword_issuer_request_seconds_count{issuer="main"} %d`, len(words)),
		`watchword_issuer_request_seconds_bucket{issuer="main",le="0.25"} 0`,
		fmt.Sprintf(`watchword_issuer_request_seconds_bucket{issuer="main",le="0.5"} %d`, len(words)))...)
}

func TestOBS01CacheAndConfig(t *testing.T) {
	t.Parallel()
	m := used(t)
	shows(t, m, `watchword_cache_entries 3`, `watchword_cache_bytes 2900`, `watchword_cache_inactive_entries 1`, `watchword_cache_inactive_bytes 200`,
		`watchword_lookups_total{result="hit"} 5`, `watchword_lookups_total{result="miss"} 4`,
		`watchword_identity_headers_dropped_total{header="X-Auth-Subject"} 1`, `watchword_decision_log_dropped_total 1`,
		`watchword_config_info{hash="c0ffee"} 1`, `watchword_config_last_load_successful 1`)
	m.ConfigRefused()
	shows(t, m, `watchword_config_info{hash="c0ffee"} 1`, `watchword_config_last_load_successful 0`)
	m.Configured("c0ffee")
	m.Configured("decaf")
	shows(t, m, `watchword_config_info{hash="decaf"} 1`, `watchword_config_last_load_successful 1`)
	if strings.Contains(scrape(t, m), "c0ffee") {
		t.Error("the old configuration still shows")
	}
	if none := scrape(t, NewMetrics(MetricsConfig{})); strings.Contains(none, "watchword_cache_") || strings.Contains(none, "watchword_lookups_") {
		t.Error("metrics of a cache that is not there")
	}
}

func TestOBS01OpenMetricsIsNegotiated(t *testing.T) {
	t.Parallel()
	m := used(t)
	_, h, body := get(t, m.Handler(), "GET", "/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(h.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("%q, ends in %q", h.Get("Content-Type"), body[len(body)-20:])
	}
	_, h, body = get(t, m.Handler(), "GET", "/metrics")
	if !strings.HasPrefix(h.Get("Content-Type"), "text/plain") || !strings.Contains(body, "# TYPE watchword_decisions_total counter\n") {
		t.Errorf("%q", h.Get("Content-Type"))
	}
	for _, others := range []string{"go_goroutines ", "go_build_info{", "process_start_time_seconds "} {
		if !strings.Contains(body, "\n"+others) {
			t.Errorf("no %s", others)
		}
	}
}

func TestObserveAllocatesNothing(t *testing.T) { // not parallel: it counts allocations
	m := NewMetrics(MetricsConfig{})
	var o watchword.Observer = m
	r := watchword.Request{Door: "forward_auth", Token: canary}
	for _, d := range everyDecision(t, answer(t, `{"active":true}`)) {
		o.Observe(r, d, 0)
		if n := testing.AllocsPerRun(100, func() { o.Observe(r, d, 0) }); n != 0 {
			t.Errorf("%v from %s: %v allocations", d.Reason, d.Source(), n)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	a := answer(b, `{"active":true}`)
	var o watchword.Observer = NewMetrics(MetricsConfig{})
	r := watchword.Request{Door: "forward_auth", Token: canary, Method: "GET", Host: "api.example", Path: "/orders/1"}
	d := watchword.Decision{Policy: &watchword.Policy{Name: "orders-read"}, Answer: a, Age: 7 * time.Second}
	b.ReportAllocs()
	for b.Loop() {
		o.Observe(r, d, 0)
	}
}
