package observe

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestAdminPathsAndMethods(t *testing.T) {
	t.Parallel()
	ready := error(nil)
	h := Admin(used(t).Handler(), func() error { return ready })
	status := func(method, path string) int {
		s, header, _ := get(t, h, method, path)
		if s == http.StatusMethodNotAllowed && header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow %q", method, path, header.Get("Allow"))
		}
		return s
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "DELETE": 405, "get": 405} {
			if got := status(method, path); got != want {
				t.Errorf("%s %s: %d, want %d", method, path, got, want)
			}
		}
	}
	for _, path := range []string{"/", "/metrics/", "/Metrics", "//metrics", "/debug/pprof/", "/healthz/../metrics", "/favicon.ico"} {
		if got := status("GET", path); got != 404 {
			t.Errorf("%s: %d", path, got)
		}
	}
	if _, _, body := get(t, h, "GET", "/metrics"); !strings.Contains(body, "watchword_decisions_total") {
		t.Error("no metrics")
	}
}

func TestAdminReadiness(t *testing.T) {
	t.Parallel()
	ready := error(nil)
	h := Admin(http.NotFoundHandler(), func() error { return ready })
	if status, _, body := get(t, h, "GET", "/readyz"); status != 200 || body != "ready\n" {
		t.Errorf("%d %q", status, body)
	}
	ready = errors.New("draining")
	if status, header, body := get(t, h, "GET", "/readyz"); status != 503 || body != "not ready: draining\n" || header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %q %v", status, body, header)
	}
	if status, _, body := get(t, h, "GET", "/healthz"); status != 200 || body != "alive\n" {
		t.Errorf("%d %q", status, body)
	}
}

func TestLoggerLevelsAndFormats(t *testing.T) {
	t.Parallel()
	said := func(c LoggerConfig) string {
		var b bytes.Buffer
		l, err := NewLogger(&b, c)
		if err != nil {
			t.Fatal(err)
		}
		l.Debug("d")
		l.Info("i", "n", 1)
		l.Warn("w")
		l.Error("e")
		return b.String()
	}
	for level, want := range map[string]int{"": 3, "debug": 4, "info": 3, "warn": 2, "error": 1} {
		if got := strings.Count(said(LoggerConfig{Level: level}), "\n"); got != want {
			t.Errorf("%q: %d lines, want %d", level, got, want)
		}
	}
	if got := said(LoggerConfig{Format: "json"}); !strings.Contains(got, `"msg":"i","n":1}`) {
		t.Error(got)
	}
	if got := said(LoggerConfig{Format: "text"}); !strings.Contains(got, "msg=i n=1\n") {
		t.Error(got)
	}
	for _, bad := range []LoggerConfig{{Level: "trace"}, {Level: "INFO"}, {Format: "xml"}} {
		if _, err := NewLogger(&bytes.Buffer{}, bad); err == nil {
			t.Errorf("%v", bad)
		}
	}
}

func TestT18LoggerNet(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	l, err := NewLogger(&b, LoggerConfig{Format: "json"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("GET", "http://127.0.0.1/?access_token="+canary, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+canary)
	l.With("client_secret", canary).Info("x", "Access_Token", canary, "header", r.Header, "request", r, "form", url.Values{"token": {canary}}, slog.Group("in", "password", canary), "kept", "kept")
	if out := b.String(); strings.Contains(out, canary) || !strings.Contains(out, `"kept":"kept"`) {
		t.Error(out)
	}
}
