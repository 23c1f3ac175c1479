package app

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// A token that lives longer than its denials is noticed, by what its answer says of its beginning and its end.
func TestTokensThatOutliveTheirDenials(t *testing.T) {
	t.Parallel()
	is := &Issuer{MaxTokenLife: time.Hour, Skew: 2 * time.Second}
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for body, want := range map[string]bool{
		fmt.Sprintf(`{"active":true,"iat":%d,"exp":%d}`, at(-30*time.Minute), at(30*time.Minute)):                            false,
		fmt.Sprintf(`{"active":true,"iat":%d,"exp":%d}`, at(-30*time.Minute), at(31*time.Minute)):                            true,
		fmt.Sprintf(`{"active":true,"exp":%d}`, at(59*time.Minute)):                                                          false,
		fmt.Sprintf(`{"active":true,"exp":%d}`, at(61*time.Minute)):                                                          true,
		fmt.Sprintf(`{"active":true,"expires_in":%d}`, 7200):                                                                 true,
		fmt.Sprintf(`{"active":true,"iat":%d}`, at(-100*time.Hour)):                                                          false, // nobody can tell
		fmt.Sprintf(`{"active":true,"token_type":"refresh_token","iat":%d,"exp":%d}`, at(-30*time.Minute), at(30*time.Hour)): false, // no door accepts it
		fmt.Sprintf(`{"active":false,"iat":%d,"exp":%d}`, at(-30*time.Minute), at(30*time.Hour)):                             false,
	} {
		found := false
		source := is.lives(watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
			return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: "main", Asked: now})
		}), func(time.Duration) { found = true })
		if a, err := source.Introspect(t.Context(), watchword.Query{}); err != nil || a == nil || found != want {
			t.Errorf("%s: noticed %v, want %v (%v)", body, found, want, err)
		}
	}

	as := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":true,"sub":"ann","exp":%d}`, at(30*24*time.Hour))
	}))
	t.Cleanup(as.Close)
	dir := t.TempDir()
	write(t, dir, "caller", "door")
	write(t, dir, "ops", "ops-secret-of-the-test")
	r := start(t, write(t, dir, "watchword.yaml", fmt.Sprintf(`
issuers: [{name: main, introspection_endpoint: "%s/introspect", client_auth: {method: none}}]
doors: {introspection: {listen: "127.0.0.1:0", callers: [{client_id: orders, client_secret: {file: caller}}]}}
admin: {listen: "127.0.0.1:0", operators: [{name: ops, bearer: {file: ops}}]}
`, as.URL)))
	r.wants("door", "live-token", 200, `"sub":"ann"`)
	r.err.await(t, "a token lives longer than max_token_life")
	if _, metrics := r.get("admin", "/metrics"); !strings.Contains(metrics, `watchword_token_life_exceeded_total{issuer="main"} 1`) {
		t.Error("the metric does not tell")
	}
}
