package observe

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

const canary = "canary-7f3a9c51e8d24b06-token"

func answer(t testing.TB, body string) *watchword.Answer {
	t.Helper()
	a, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// everyDecision is every reason from every source, degraded and not.
func everyDecision(t testing.TB, a *watchword.Answer) (all []watchword.Decision) {
	p := &watchword.Policy{Name: "orders-read"}
	for _, reason := range watchword.Reasons() {
		for _, d := range []watchword.Decision{
			{Answer: a},
			{Answer: a, Age: 7 * time.Second},
			{Answer: a, Degraded: watchword.ServedStale, Age: time.Hour},
			{},
		} {
			d.Reason, d.Policy, d.Issuer = reason, p, "main"
			all = append(all, d)
		}
	}
	for _, f := range watchword.Failures() {
		all = append(all, watchword.Decision{Reason: watchword.CannotKnow, Policy: p, Issuer: "main", Err: &watchword.Error{Failure: f, Issuer: "main", Cause: fmt.Errorf("Post %q: no", canary)}})
	}
	return append(all, watchword.Decision{Reason: watchword.PolicyDenied}, watchword.Decision{Reason: watchword.Internal, Err: fmt.Errorf("stranger's error about %s", canary)})
}

func get(t testing.TB, h http.Handler, method, path string, headers ...string) (status int, header http.Header, body string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, w.Result().Header, string(b)
}

func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	status, _, body := get(t, m.Handler(), "GET", "/metrics")
	if status != 200 {
		t.Fatalf("scrape: %d %s", status, body)
	}
	return body
}
