package observe

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/watchword-dev/watchword"
)

// sink is a writer that waits until open is closed, and then fails so many times after writing some bytes.
type sink struct {
	out     bytes.Buffer
	open    chan struct{} // nil: it does not wait
	fails   int
	written int // bytes that a failing write wrote
}

func (s *sink) Write(b []byte) (int, error) {
	if s.open != nil {
		<-s.open
	}
	if s.fails > 0 {
		s.fails--
		n := min(s.written, len(b))
		s.out.Write(b[:n])
		return n, errors.New("disk full")
	}
	return s.out.Write(b)
}

func newLog(t testing.TB, w *sink, c LogConfig) *DecisionLog {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l, err := NewDecisionLog(w, c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t testing.TB, l *DecisionLog) {
	t.Helper()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// logged is what a log writes about r and d.
func logged(t testing.TB, c LogConfig, r watchword.Request, d watchword.Decision) []map[string]any {
	t.Helper()
	var w sink
	l := newLog(t, &w, c)
	l.Observe(r, d, 0)
	closeLog(t, l)
	return parse(t, w.out.String())
}

func parse(t testing.TB, text string) (all []map[string]any) {
	t.Helper()
	for l := range strings.Lines(text) {
		var one map[string]any
		if err := json.Unmarshal([]byte(l), &one); err != nil || !strings.HasSuffix(l, "\n") {
			t.Fatalf("%v: %q", err, l)
		}
		all = append(all, one)
	}
	return all
}

func one(t testing.TB, c LogConfig, r watchword.Request, d watchword.Decision) map[string]any {
	t.Helper()
	all := logged(t, c, r, d)
	if len(all) != 1 {
		t.Fatalf("%d lines", len(all))
	}
	return all[0]
}

func TestAUD01EveryFieldOfARecord(t *testing.T) {
	t.Parallel()
	r := watchword.Request{Door: "forward_auth", Token: canary, ID: "req-1", Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	d := watchword.Decision{Reason: watchword.InsufficientScope, Policy: &watchword.Policy{Name: "orders-read"}, Issuer: "main",
		Answer: answer(t, `{"active":true,"sub":"ann","client_id":"shop"}`), Degraded: watchword.ServedStale, Age: 1500 * time.Millisecond}
	before := time.Now()
	got := one(t, LogConfig{Secret: []byte("deployment")}, r, d)
	at, err := time.Parse(time.RFC3339Nano, got["time"].(string))
	if err != nil || at.Before(before.Truncate(0)) || at.After(time.Now()) || !strings.HasSuffix(got["time"].(string), "Z") {
		t.Errorf("time %v: %v", got["time"], err)
	}
	delete(got, "time")
	for _, hidden := range []string{"subject", "token"} {
		if b, err := hex.DecodeString(got[hidden].(string)); err != nil || len(b) != fingerprintBytes {
			t.Errorf("%s is %v", hidden, got[hidden])
		}
		delete(got, hidden)
	}
	want := map[string]any{"request_id": "req-1", "traceparent": r.Trace, "door": "forward_auth", "policy": "orders-read", "reason": "scope", "issuer": "main",
		"client": "shop", "source": "stale", "evidence_age_ms": 1500.0, "degraded": "stale", "failure": ""}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("\n%v, want\n%v", got, want)
	}
}

func TestAUD01RecordOfIgnorance(t *testing.T) {
	t.Parallel()
	for _, f := range watchword.Failures() {
		got := one(t, LogConfig{}, watchword.Request{}, watchword.Decision{Reason: watchword.CannotKnow, Err: fmt.Errorf("x: %w", &watchword.Error{Failure: f, Cause: errors.New("cause")})})
		if got["failure"] != f.Error() || got["source"] != "none" || got["token"] != "" || got["subject"] != "" || got["policy"] != "" {
			t.Errorf("%v", got)
		}
	}
	if got := one(t, LogConfig{}, watchword.Request{}, watchword.Decision{Reason: watchword.Internal, Err: errors.New("stranger")}); got["failure"] != "unknown" {
		t.Errorf("%v", got)
	}
}

func TestAUD01WhichDecisionsAreLogged(t *testing.T) {
	t.Parallel()
	a := answer(t, `{"active":true}`)
	allowed := watchword.Decision{Answer: a}
	degraded := watchword.Decision{Answer: a, Degraded: watchword.ServedStale}
	refused := watchword.Decision{Reason: watchword.Expired, Answer: a}
	count := func(d watchword.Decision, all LogConfig) int { return len(logged(t, all, watchword.Request{}, d)) }
	if got := [...]int{count(allowed, LogConfig{}), count(degraded, LogConfig{}), count(refused, LogConfig{})}; got != [...]int{0, 1, 1} {
		t.Errorf("refused: %v", got)
	}
	if got := [...]int{count(allowed, LogConfig{All: true}), count(degraded, LogConfig{All: true}), count(refused, LogConfig{All: true})}; got != [...]int{1, 1, 1} {
		t.Errorf("all: %v", got)
	}
}

func TestAUD01FingerprintsAreKeyed(t *testing.T) {
	t.Parallel()
	marks := func(secret, issuer, token, sub string) (string, string) {
		got := one(t, LogConfig{Secret: []byte(secret)}, watchword.Request{Token: watchword.Token(token)},
			watchword.Decision{Reason: watchword.Revoked, Issuer: issuer, Answer: answer(t, `{"active":true,"sub":"`+sub+`"}`)})
		return got["token"].(string), got["subject"].(string)
	}
	token, subject := marks("secret", "main", canary, "ann")
	if again, sub := marks("secret", "main", canary, "ann"); again != token || sub != subject {
		t.Error("two instances with one secret disagree")
	}
	seen := map[string]string{token: "token", subject: "subject"}
	for _, o := range [][4]string{
		{"other", "main", canary, "ann"}, // another deployment
		{"secret", "side", canary, "ann"},
		{"secret", "main", canary + "x", "bob"},
		{"secret", "mainc", canary[1:], "nn"}, // the border between issuer and token moves
		{"secret", "main", "ann", canary},     // a subject is not a token
		{"", "main", canary, "ann"},           // random
		{"", "main", canary, "ann"},           // random again
	} {
		tok, sub := marks(o[0], o[1], o[2], o[3])
		for _, p := range []string{tok, sub} {
			if was := seen[p]; was != "" {
				t.Errorf("%v has the fingerprint of %v", o, was)
			}
			seen[p] = fmt.Sprint(o)
		}
	}
	if got := one(t, LogConfig{}, watchword.Request{Token: watchword.Token(strings.Repeat("x", watchword.MaxTokenBytes+1))}, watchword.Decision{Reason: watchword.MalformedToken}); got["token"] != "" {
		t.Error("what is no token has a fingerprint")
	}
}

// Without both lengths these two pairs would be one message.
func TestAUD01FingerprintsHaveBorders(t *testing.T) {
	t.Parallel()
	l := newLog(t, new(sink), LogConfig{})
	defer closeLog(t, l)
	mark := func(issuer, value string) string {
		o := l.pool.Get().(*line)
		o.json = o.json[:0]
		o.keyed("token", o.token, issuer, value)
		return string(o.json)
	}
	length := func(n byte) string { return strings.Repeat("\x00", 7) + string(rune(n)) }
	if mark("", length(1)+"q") == mark(length(9), "q") || mark("ab", "c") == mark("a", "bc") {
		t.Error("they are")
	}
}

// A client or an authorization server may put anything into what is logged (abuse group 25).
func TestAUD01HostileValues(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("\x00\u2028\xff", 64<<10/5)
	for _, hostile := range []string{`","reason":"ok`, "a\r\nb\tc\x00\x1b[2J\x7f", "\u009b31m \u2028\u2029 \u202e\ufeff", "\xff\xfe\xc0\x80", "=cmd|' /C calc'!A0", `\u0022\`, "😀\U000e0001é", huge, strings.Repeat("é", maxText)} {
		r := watchword.Request{ID: hostile, Trace: hostile, Door: hostile, Token: canary}
		body, err := json.Marshal(map[string]any{"active": true, "sub": hostile, "client_id": hostile})
		if err != nil {
			t.Fatal(err)
		}
		d := watchword.Decision{Reason: watchword.WrongAudience, Policy: &watchword.Policy{Name: hostile}, Issuer: hostile, Answer: answer(t, string(body))}
		var w sink
		l := newLog(t, &w, LogConfig{})
		l.Observe(r, d, 0)
		closeLog(t, l)
		out := w.out.String()
		if got := parse(t, out); len(got) != 1 || got[0]["reason"] != "audience" || len(got[0]) != 14 {
			t.Fatalf("%q", out)
		}
		if len(out) > 10<<10 || !utf8.ValidString(out) {
			t.Errorf("%d bytes, valid %v", len(out), utf8.ValidString(out))
		}
		for _, c := range strings.TrimSuffix(out, "\n") {
			if c < ' ' || c >= 0x7f && c < 0xa0 || strings.ContainsRune("\u2028\u2029\u202e\ufeff\U000e0001", c) {
				t.Errorf("%U goes out as it is", c)
			}
		}
		want := strings.ToValidUTF8(hostile, "\ufffd")
		if got := parse(t, out)[0]["request_id"]; len(hostile) <= maxText && strings.Count(want, "\ufffd") == 0 && got != hostile {
			t.Errorf("%q became %q", hostile, got)
		}
	}
}

// A canary token in every place that a client, an authorization server or a Source could put it.
func TestT18_AUD02CanaryToken(t *testing.T) {
	t.Parallel()
	m := NewMetrics(MetricsConfig{})
	var w sink
	l := newLog(t, &w, LogConfig{All: true, Metrics: m})
	var talk bytes.Buffer
	slogger, err := NewLogger(&talk, LoggerConfig{Level: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	credential := &watchword.Credential{Authorization: "Bearer " + canary, Parameters: [][2]string{{"client_secret", canary}}}
	leaky := answer(t, fmt.Sprintf(`{"active":true,"sub":%q,"client_id":%q,"jti":%q,"scope":%q}`, canary, canary, canary, canary))
	for _, d := range everyDecision(t, leaky) {
		r := watchword.Request{Door: "forward_auth", Token: canary, ID: canary, Trace: "00-" + canary, Path: "/" + canary, Host: canary, Peer: canary, Credential: credential}
		m.Observe(r, d, 0)
		l.Observe(r, d, 0)
		slogger.Info("decision", "token", canary, "credential", credential, "request", r.Token, "Authorization", "Bearer "+canary)
	}
	closeLog(t, l)
	if n := strings.Count(w.out.String(), "\n"); n != len(everyDecision(t, leaky)) {
		t.Fatalf("%d lines", n)
	}
	_, _, open := get(t, m.Handler(), "GET", "/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
	_, _, proto := get(t, m.Handler(), "GET", "/metrics", "Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	for where, text := range map[string]string{"decision log": w.out.String(), "metrics": scrape(t, m), "OpenMetrics": open, "protobuf": proto, "log": talk.String()} {
		if text == "" {
			t.Errorf("%s is empty", where)
		}
		for _, form := range []string{canary, url.QueryEscape(canary), hex.EncodeToString([]byte(canary)), base64.StdEncoding.EncodeToString([]byte(canary))[:24]} {
			if strings.Contains(text, form) {
				t.Errorf("%s holds the token as %q", where, form)
			}
		}
	}
}

// Lines that wait for a slow sink hold no token either, so that a dump of memory shows none there.
func TestT18WaitingLinesHoldNoToken(t *testing.T) {
	t.Parallel()
	l := newLog(t, new(sink), LogConfig{})
	defer closeLog(t, l)
	o := l.pool.Get().(*line)
	o.describe(time.Now(), &watchword.Request{Token: canary}, &watchword.Decision{Reason: watchword.Revoked, Answer: answer(t, `{"active":true,"sub":"`+canary+`"}`)})
	if all := append(o.json[:cap(o.json)], o.message[:cap(o.message)]...); bytes.Contains(all, []byte(canary)) {
		t.Error("it does")
	}
}

func TestAUD03StalledSink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := NewMetrics(MetricsConfig{Log: slog.New(slog.DiscardHandler)})
		w := sink{open: make(chan struct{})}
		l := newLog(t, &w, LogConfig{Queue: 10, Metrics: m})
		refuse := func(n int) {
			for range n {
				l.Observe(watchword.Request{Token: canary}, watchword.Decision{Reason: watchword.Expired}, 0)
			}
		}
		refuse(1)
		synctest.Wait() // the writer holds one line and waits for the sink
		refuse(1000)    // returns: nobody waits for the sink
		shows(t, m, `watchword_decision_log_dropped_total 990`)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "10 decisions") {
			t.Errorf("Close: %v", err)
		}
		refuse(1)
		shows(t, m, `watchword_decision_log_dropped_total 991`)
		close(w.open)
		closeLog(t, l)
		if n := len(parse(t, w.out.String())); n != 11 {
			t.Errorf("%d lines", n)
		}
	})
}

func TestAUD03FailingSink(t *testing.T) {
	t.Parallel()
	for _, written := range []int{0, 40, 1 << 20} { // nothing, half a line, everything
		var talk bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&talk, nil))
		m, w := NewMetrics(MetricsConfig{}), sink{fails: 1, written: written}
		synctest.Test(t, func(t *testing.T) {
			l := newLog(t, &w, LogConfig{Metrics: m, Log: logger})
			for range 3 { // one at a time: no two in one write
				l.Observe(watchword.Request{ID: "r"}, watchword.Decision{Reason: watchword.Expired}, 0)
				synctest.Wait()
			}
			closeLog(t, l)
		})
		shows(t, m, `watchword_decision_log_dropped_total 1`)
		good := 0
		for text := range strings.Lines(w.out.String()) {
			if json.Valid([]byte(text)) {
				good++
			}
		}
		if want := map[int]int{0: 2, 40: 2, 1 << 20: 3}[written]; good != want {
			t.Errorf("%d bytes written before the failure: %d good lines in %q", written, good, w.out.String())
		}
		if said := talk.String(); strings.Count(said, "disk full") != 1 || strings.Count(said, "takes lines again") != 1 {
			t.Error(said)
		}
	}
}

func TestDecisionLogFromManyGoroutines(t *testing.T) {
	t.Parallel()
	var w sink
	m := NewMetrics(MetricsConfig{})
	l := newLog(t, &w, LogConfig{Queue: 64, Metrics: m})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				l.Observe(watchword.Request{Token: canary}, watchword.Decision{Reason: watchword.Expired, Issuer: "main"}, 0)
			}
		})
	}
	all.Wait()
	closeLog(t, l)
	lines := parse(t, w.out.String())
	shows(t, m, fmt.Sprintf(`watchword_decision_log_dropped_total %d`, 8*500-len(lines)))
	for _, got := range lines {
		if got["token"] != lines[0]["token"] || got["token"] == "" {
			t.Fatalf("%v", got)
		}
	}
}

func TestDecisionLogRefusesBadConfig(t *testing.T) {
	t.Parallel()
	if _, err := NewDecisionLog(nil, LogConfig{}); err == nil {
		t.Error("no sink")
	}
	if _, err := NewDecisionLog(new(sink), LogConfig{Queue: -1}); err == nil {
		t.Error("a negative queue")
	}
}

func TestDecisionLogCostsNothingForAllowed(t *testing.T) { // not parallel: it counts allocations
	var w sink
	l := newLog(t, &w, LogConfig{})
	var o watchword.Observer = l
	d := watchword.Decision{Answer: answer(t, `{"active":true,"sub":"ann"}`)}
	r := watchword.Request{Token: canary}
	if n := testing.AllocsPerRun(100, func() { o.Observe(r, d, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	closeLog(t, l)
	if w.out.Len() > 0 {
		t.Errorf("%s", w.out.String())
	}
}

func BenchmarkDecisionLog(b *testing.B) {
	d := watchword.Decision{Policy: &watchword.Policy{Name: "orders-read"}, Issuer: "main", Age: 7 * time.Second,
		Answer: answer(b, `{"active":true,"sub":"ann","client_id":"shop"}`)}
	r := watchword.Request{Door: "forward_auth", Token: canary, ID: "4bf92f3577b34da6", Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	l := newLog(b, new(sink), LogConfig{})
	defer closeLog(b, l)
	b.Run("not logged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.Observe(r, d, 0)
		}
	})
	b.Run("a line", func(b *testing.B) {
		b.ReportAllocs()
		o := l.pool.Get().(*line)
		for b.Loop() {
			o.describe(time.Now(), &r, &d)
		}
	})
}
