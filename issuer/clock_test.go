package issuer

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestDriftIsWhatIsSure(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 10, 500e6, time.UTC)
	check := func(date int, took, want time.Duration) {
		t.Helper()
		if got := between(at.Truncate(time.Minute).Add(time.Duration(date)*time.Second), at, at.Add(took)).sure(); got != want {
			t.Errorf("Date :%02d, asked at :10.5, answered after %v: %v, want %v", date, took, got, want)
		}
	}
	check(10, 0, 0)
	check(9, 0, -500*time.Millisecond)
	check(10, 3*time.Second, 0)
	check(13, 3*time.Second, 0) // within the asking
	check(14, 3*time.Second, 500*time.Millisecond)
	check(70, 3*time.Second, 56500*time.Millisecond)
	check(0, 3*time.Second, -9500*time.Millisecond)
}

// A clock that differs by more than skew is said once, and again after it was right.
func TestSkewIsCompared(t *testing.T) {
	t.Parallel()
	var off time.Duration
	age := ""
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/json")
		if age != "" {
			w.Header().Set("Age", age)
		}
		_, _ = w.Write([]byte(`{"active":true}`))
	})
	var log bytes.Buffer
	c, err := New(Config{Name: "main", IntrospectionEndpoint: s.URL, Auth: None(), Skew: 10 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	said := func(by time.Duration, want int) {
		t.Helper()
		off = by
		if _, err := c.Introspect(t.Context(), query()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "clock differs"); n != want {
			t.Errorf("off by %v: said %d times, want %d:\n%s", by, n, want, &log)
		}
	}
	said(0, 0)
	said(5*time.Second, 0)
	said(-5*time.Second, 0)
	said(time.Minute, 1)
	said(-time.Minute, 1)
	said(0, 1)
	said(-time.Minute, 2)
	said(0, 2)
	age = "60"
	said(-time.Minute, 2) // kept in between
}

// Many answers tell more than one: a clock that is 400ms ahead is found out though Date has whole seconds.
func TestManyAnswersNarrowTheOffset(t *testing.T) {
	t.Parallel()
	var c clock
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const ahead = 400 * time.Millisecond
	for i := range 50 {
		asked := start.Add(time.Duration(i) * 1037 * time.Millisecond)
		now := asked.Add(20 * time.Millisecond)
		date := asked.Add(10 * time.Millisecond).Add(ahead).Truncate(time.Second)
		c.learn(between(date, asked, now), now)
	}
	if got := c.offset(); got > ahead || got < ahead-100*time.Millisecond {
		t.Errorf("%v; want at most, and nearly, %v", got, ahead)
	}
	step := start.Add(time.Hour)
	if got := c.learn(between(step.Add(-30*time.Second), step, step), step); got != -29*time.Second {
		t.Errorf("after a step: %v; want it believed at once", got)
	}
}

// What is sure is never more than the truth, whatever the delays.
func TestSureOffsetNeverExceedsTheTruth(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		truth := time.Duration(r.Int64N(int64(20*time.Second))) - 10*time.Second
		var c clock
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for range 100 {
			at = at.Add(time.Duration(r.Int64N(int64(time.Minute))))
			read := at.Add(time.Duration(r.Int64N(int64(time.Second))))
			now := read.Add(time.Duration(r.Int64N(int64(time.Second))))
			sure := c.learn(between(read.Add(truth).Truncate(time.Second), at, now), now)
			if truth >= 0 && (sure < 0 || sure > truth) || truth <= 0 && (sure > 0 || sure < truth) {
				t.Fatalf("seed %d: %v is called sure; the truth is %v", seed, sure, truth)
			}
		}
	}
}
