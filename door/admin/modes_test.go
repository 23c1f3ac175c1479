package admin

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// A word about a policy is bounded, audited, and for operators of everything only.
//
// Covers: OUT-02
func TestOUT02Modes(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	said := map[string]watchword.Mode{}
	m := Modes{Audit: slog.New(slog.NewTextHandler(&log, nil)), List: func() map[string]watchword.Mode { return said },
		Set: func(policy string, m watchword.Mode) error {
			if policy != "orders" {
				return errors.New("no policy is named that")
			}
			said[policy] = m
			return nil
		}}
	endpoints := m.Endpoints()
	ask := func(by Operator, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/v1/mode", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		endpoints[0].Serve(w, r, by)
		return w
	}
	ops := Operator{Name: "ops"}
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	good := fmt.Sprintf(`{"policy":"orders","on_unavailable":"dangerously_allow","until":%q,"why":"the AS moves"}`, until)
	f := func(name, body, want string) {
		t.Helper()
		if w := ask(ops, body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s", name, w.Code, w.Body, want)
		}
	}
	f("nothing", `{}`, `policy is missing\non_unavailable is missing\nuntil is missing\nwhy is missing`)
	f("no JSON", `{`, "the body")
	f("another member", strings.Replace(good, `"why"`, `"reason"`, 1), "a member is not known")
	f("no text", strings.Replace(good, `"orders"`, `1`, 1), "policy is no text")
	f("no word", strings.Replace(good, "dangerously_allow", "allow", 1), "none of deny")
	f("no time", strings.Replace(good, until, "tomorrow", 1), "until is no time")
	f("over", strings.Replace(good, until, time.Now().Add(-time.Second).Format(time.RFC3339), 1), "not within the next 24h")
	f("for ever", strings.Replace(good, until, time.Now().Add(25*time.Hour).Format(time.RFC3339), 1), "not within the next 24h")
	f("no such policy", strings.Replace(good, "orders", "order", 1), "no policy is named that")
	f("too long", `{"why":"`+strings.Repeat("x", maxBody)+`"}`, "longer than")
	if len(said) > 0 || log.Len() > 0 {
		t.Errorf("%v %s", said, log.String())
	}
	if w := ask(Operator{Name: "some", Tenants: []string{"acme"}}, good); w.Code != http.StatusForbidden || len(said) > 0 || !strings.Contains(log.String(), "may not") {
		t.Errorf("%d %s", w.Code, log.String())
	}
	w := ask(ops, good)
	if got := said["orders"]; w.Code != http.StatusOK || got.OnUnavailable != watchword.DangerouslyAllow || got.Until.UTC().Format(time.RFC3339) != until {
		t.Errorf("%d %s %+v", w.Code, w.Body, got)
	}
	for _, want := range []string{"operator=ops", "policy=orders", "on_unavailable=dangerously_allow", `why="the AS moves"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the audit log lacks %s: %s", want, log.String())
		}
	}
	w = httptest.NewRecorder()
	endpoints[1].Serve(w, httptest.NewRequest("GET", "/v1/mode", nil), ops)
	if want := fmt.Sprintf(`{"modes":[{"on_unavailable":"dangerously_allow","policy":"orders","until":%q}]}`, until); strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("%s, want %s", w.Body, want)
	}
}
