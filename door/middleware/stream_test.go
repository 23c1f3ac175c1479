package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door/middleware"
)

// A stream of server-sent events ends with its token, by the context that the handler sees.
//
// Covers: GW-02
func TestGW02StreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Bool
		src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
			return watchword.ParseAnswer(fmt.Appendf(nil, `{"active":%v}`, !dead.Load()), watchword.Evidence{Asked: time.Now()})
		})
		v, err := watchword.New(watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: watchword.Policy{Name: "p", Freshness: watchword.Freshness{MaxStaleness: 10 * time.Second}}}}})
		if err != nil {
			t.Fatal(err)
		}
		start, events := time.Now(), 0
		var cause error
		h := middleware.Stream(v, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if d, ok := middleware.FromContext(r.Context()); !ok || !d.Allowed() {
				t.Error("no decision")
			}
			for tick := time.NewTicker(time.Second); ; {
				select {
				case <-tick.C:
					events++
					fmt.Fprint(w, "data: .\n\n")
				case <-r.Context().Done():
					tick.Stop()
					cause = context.Cause(r.Context())
					return
				}
			}
		}))
		time.AfterFunc(time.Minute, func() { dead.Store(true) })
		h.ServeHTTP(httptest.NewRecorder(), ask("GET", "/events", "Bearer t"))
		var ended *middleware.Ended
		if took := time.Since(start); took < time.Minute || took > 70*time.Second || events < 59 || !errors.As(cause, &ended) || ended.Decision.Reason != watchword.Inactive {
			t.Errorf("after %v and %d events: %v", took, events, cause)
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, ask("GET", "/events", "Bearer t")); w.Code != 401 {
			t.Errorf("%d", w.Code)
		}
		// a handler that is done ends its watch
		dead.Store(false)
		middleware.Stream(v, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(httptest.NewRecorder(), ask("GET", "/", "Bearer t"))
	})
}
