package interop

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// value is one sample of /metrics, or -1 if there is none: name and labels as they are printed.
func (f *front) value(t *testing.T, sample string) float64 {
	t.Helper()
	for _, line := range strings.Split(f.metrics(t), "\n") {
		if rest, found := strings.CutPrefix(line, sample+" "); found {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				t.Fatal(line)
			}
			return v
		}
	}
	return -1
}

// atLeast is a check for await.
func (f *front) atLeast(t *testing.T, sample string, want float64) func() error {
	return func() error {
		if got := f.value(t, sample); got < want {
			return fmt.Errorf("%s is %v", sample, got)
		}
		return nil
	}
}

// Tokens of our own at a real server: how long one is accepted after it was revoked there is measured, and a server that
// suddenly calls every token inactive, because it takes us for a stranger, is not believed.
// Covers: OUT-04 T28
func TestCanary(t *testing.T) {
	t.Parallel()
	const bound = 2 * time.Second
	as := startOIDCProvider(t)
	f := hall{bound: bound.String(), callers: ordersCalls,
		issuer: []string{"introspection_endpoint: " + as.introspection(), "revocation_endpoint: " + as.issuer + "/token/revocation",
			secretAuth(t, "client_secret_basic", "rs", "rs-secret")},
		more: fmt.Sprintf("canary: [{issuer: main, %s, token_endpoint: %q, every: 1s, revoke_every: 3s}]\n",
			secretAuth(t, "client_secret_basic", "canary", "canary-secret"), as.issuer+"/token")}.open(t)

	const took = "watchword_canary_enforcement_seconds"
	await(t, "three canaries to be revoked and refused", patience, f.atLeast(t, took+`_count{issuer="main",kind="token"}`, 3))
	mean := f.value(t, took+`_sum{issuer="main",kind="token"}`) / f.value(t, took+`_count{issuer="main",kind="token"}`)
	t.Logf("%.0f canaries were accepted for %.2f s after their revocation, on average; max_staleness is %v", f.value(t, took+`_count{issuer="main",kind="token"}`), mean, bound)
	if mean <= 0 || mean > bound.Seconds()+1 { // a second for two busy cores: the histogram says when a look began
		t.Errorf("canaries are accepted for %v s", mean)
	}
	if n := f.value(t, `watchword_canary_overdue_total{issuer="main",kind="token"}`); n > 0 {
		t.Errorf("%v canaries were accepted past every bound", n)
	}
	for _, what := range []string{"late", "unsettled"} { // nothing of what we assume of this server is untrue
		if n := f.value(t, fmt.Sprintf(`watchword_canary_broken_total{issuer="main",what=%q}`, what)); n > 0 {
			t.Errorf("%v canaries were %s", n, what)
		}
	}
	if n := f.value(t, `watchword_canary_looks_total{issuer="main",outcome="alive"}`); n < 1 {
		t.Errorf("the canary that lives was seen alive %v times", n)
	}

	var known []string
	for range 60 {
		token := as.token(t, "ann", forAPI)
		f.lives(t, "a new token", token)
		known = append(known, token)
	}
	lie := func() {
		if err := as.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
	}
	lie()
	await(t, "the canary to be called inactive", patience, f.atLeast(t, `watchword_canary_looks_total{issuer="main",outcome="lying"}`, 1))
	wrong := map[string]bool{}
	await(t, "every answer to be 503", patience, func() error {
		believed := 0
		for _, token := range known {
			status, _, body := f.asks(t, token)
			if status == http.StatusOK {
				believed++
				wrong[token] = wrong[token] || strings.TrimSpace(string(body)) == inactive
			}
		}
		if believed > 0 {
			return fmt.Errorf("%d of %d tokens have an answer", believed, len(known))
		}
		return nil
	})
	logged := 0
	for _, called := range wrong {
		if called {
			logged++
		}
	}
	t.Logf("%d of %d good tokens were called inactive before the storm was noticed", logged, len(known))
	if logged > len(known)/2 {
		t.Errorf("%d of %d", logged, len(known))
	}
	if got := f.value(t, `watchword_storm{issuer="main"}`); got != 1 {
		t.Errorf("watchword_storm is %v", got)
	}
	f.nobodyKnows(t, "a server that lies", known[0])

	lie()
	await(t, "the end of the storm", patience, func() error {
		if got := f.value(t, `watchword_storm{issuer="main"}`); got != 0 {
			return fmt.Errorf("watchword_storm is %v", got)
		}
		return nil
	})
	for _, token := range known {
		f.lives(t, "a good token after the storm", token)
	}
	if page := f.metrics(t) + f.tail(1<<20); strings.Contains(page, known[0]) || strings.Contains(page, "canary-secret") {
		t.Error("a token or a secret is shown")
	}
}
