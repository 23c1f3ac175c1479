package app

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// What an operator says about a policy stands at once, outlives a reload, and ends by itself.
//
// Covers: OUT-02
func TestOUT02ModeOutlivesAReload(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	text = strings.Replace(text, "doors:\n", "policies:\n  - {name: orders, freshness: {max_staleness: 0}, issuers: [main]}\ndoors:\n  forward_auth: {listen: unix:"+filepath.Dir(path)+"/auth.sock}\n", 1)
	write(t, filepath.Dir(path), "watchword.yaml", text)
	r := start(t, path)
	decide := func(want watchword.Reason, word watchword.Degradation) {
		t.Helper()
		if d := r.Verifier().Verify(t.Context(), watchword.Request{Token: "live-token"}); d.Reason != want || d.Degraded != word {
			t.Errorf("%v %q (%v), want %v %q", d.Reason, d.Degraded, d.Err, want, word)
		}
	}
	if err := r.setMode("order", watchword.Mode{}); err == nil || !strings.Contains(err.Error(), "there are: orders") {
		t.Error(err)
	}
	mode := watchword.Mode{OnUnavailable: watchword.DangerouslyAllow, Until: time.Now().Add(time.Hour)}
	if err := r.setMode("orders", mode); err != nil {
		t.Fatal(err)
	}
	decide(watchword.OK, watchword.Whole)
	as.down.Store(true)
	as.Close()
	decide(watchword.OK, watchword.ServedAnyAge)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	decide(watchword.OK, watchword.ServedAnyAge)
	if got := r.modes.standing(); len(got) != 1 || got["orders"] != mode {
		t.Errorf("%+v", got)
	}
	mode.Until = time.Now()
	if err := r.setMode("orders", mode); err != nil {
		t.Fatal(err)
	}
	decide(watchword.CannotKnow, watchword.Whole)
	if got := r.modes.standing(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
