package observe

import (
	"io"
	"net/http"
)

// Admin serves /metrics with metrics, /healthz, which is 200 while the process lives, and /readyz, which is 200 while
// ready returns nil and 503 with its error's text otherwise. ready must be quick, safe for concurrent use, and free of
// secrets in what it says. Everything else is 404; methods other than GET and HEAD are 405 (RFC 9110 §15.5.6).
func Admin(metrics http.Handler, ready func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		say := func(status int, text string) {
			h := w.Header()
			h.Set("Content-Type", "text/plain; charset=utf-8")
			h.Set("Cache-Control", "no-store")
			h.Set("X-Content-Type-Options", "nosniff")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text+"\n")
		}
		switch path := r.URL.Path; {
		case path != "/metrics" && path != "/healthz" && path != "/readyz":
			say(http.StatusNotFound, "not found: /metrics, /healthz and /readyz are here")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			say(http.StatusMethodNotAllowed, "GET and HEAD only")
		case path == "/metrics":
			metrics.ServeHTTP(w, r)
		case path == "/readyz":
			if err := ready(); err != nil {
				say(http.StatusServiceUnavailable, "not ready: "+err.Error())
				return
			}
			say(http.StatusOK, "ready")
		default:
			say(http.StatusOK, "alive")
		}
	})
}
