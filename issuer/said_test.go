package issuer

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// Whoever runs this finds in the log why nobody knows: what failed, where, and what to do. A failure that lasts does not
// fill it.
func TestFailedAskingsAreLogged(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(status.Load()))
		fmt.Fprintf(w, `{"active":true,"error":"unsupported_token_type","x":%q}`, leak)
	})
	var log bytes.Buffer
	c, err := New(Config{Name: "main", IntrospectionEndpoint: s.URL + "/introspect", Auth: ClientSecretBasic("rs", func() ([]string, error) { return []string{hush}, nil }),
		Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(answer int, want ...string) {
		t.Helper()
		log.Reset()
		status.Store(int64(answer))
		_, _ = c.Introspect(t.Context(), watchword.Query{Token: canary, Issuer: "main", At: time.Now()})
		said := log.String()
		for _, w := range append(want, "issuer=main") {
			if !strings.Contains(said, w) && want != nil {
				t.Errorf("%d: the log lacks %q: %s", answer, w, said)
			}
		}
		if want == nil && said != "" {
			t.Errorf("%d: nothing more was to be said: %s", answer, said)
		}
		for _, secret := range []string{canary, hush, leak} {
			if strings.Contains(said, secret) {
				t.Errorf("the log holds %s", secret)
			}
		}
	}
	ask(http.StatusOK)
	ask(http.StatusUnauthorized, "level=ERROR", "failure=client_rejected", "/introspect", "status 401", "check client_auth")
	ask(http.StatusUnauthorized)
	ask(http.StatusBadRequest, "level=ERROR", "failure=config_error", "token_type_hint")
	ask(http.StatusServiceUnavailable, "level=WARN", "failure=unavailable", "status 503")
	ask(http.StatusOK, "level=INFO", "answers again")
	ask(http.StatusOK)
	ask(http.StatusUnauthorized)
	ask(http.StatusOK)

	log.Reset()
	refused := c.fail(watchword.ClientRejected, fmt.Errorf("status 401"))
	c.tell(t.Context(), refused, time.Now().Add(sayAgain/2))
	if log.Len() > 0 {
		t.Errorf("said too soon: %s", &log)
	}
	c.tell(t.Context(), refused, time.Now().Add(sayAgain+time.Second))
	if !strings.Contains(log.String(), "client_rejected") {
		t.Error("a minute later it is not said again")
	}
}
