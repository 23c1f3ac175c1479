package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// transmitter is an SSF transmitter with a token endpoint, whose tokens it takes only once or until it says otherwise.
type transmitter struct {
	*httptest.Server
	mu       sync.Mutex
	grants   int
	live     string // the token that counts
	scope    string
	verified int
	stream   string
}

func (x *transmitter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/.well-known/ssf-configuration":
		fmt.Fprintf(w, `{"issuer":%q,"configuration_endpoint":"%[1]s/stream","verification_endpoint":"%[1]s/verify"}`, x.URL)
	case r.URL.Path == "/token":
		if id, secret, _ := r.BasicAuth(); id != "watchword" || secret != "stream-SECRET" || r.FormValue("grant_type") != "client_credentials" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		x.grants++
		x.live, x.scope = fmt.Sprintf("stream-TOKEN-%d", x.grants), r.FormValue("scope")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, x.live)
	case r.Header.Get("Authorization") != "Bearer "+x.live:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/stream" && r.Method == http.MethodGet:
		fmt.Fprintf(w, "[%s]", x.stream)
	case r.URL.Path == "/stream":
		var body struct{ Delivery json.RawMessage }
		_ = json.NewDecoder(r.Body).Decode(&body)
		x.stream = fmt.Sprintf(`{"stream_id":"s1","iss":%q,"aud":"rs","delivery":%s}`, x.URL, body.Delivery)
		fmt.Fprint(w, x.stream)
	case r.URL.Path == "/verify":
		x.verified++
		w.WriteHeader(http.StatusNoContent)
	}
}

func (x *transmitter) look(f func() bool) func() bool {
	return func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return f()
	}
}

// The token for the stream API is got, used for every request, and replaced when it is refused; it is shown nowhere.
func TestStreamAPIWithTokensOfAClient(t *testing.T) {
	t.Parallel()
	x := new(transmitter)
	x.Server = httptest.NewServer(x)
	t.Cleanup(x.Close)
	dir := t.TempDir()
	write(t, dir, "secret", "stream-SECRET")
	write(t, dir, "bearer", "bearer-of-the-test")
	r := start(t, write(t, dir, "watchword.yaml", fmt.Sprintf(`
issuers: [{name: main, issuer: %q, introspection_endpoint: "%[1]s/i", client_auth: {method: none}}]
doors:
  introspection: {listen: "127.0.0.1:0", callers: [{client_id: orders, client_secret: {file: bearer}}]}
  events:
    listen: 127.0.0.1:0
    ssf: [{name: s, issuer: main, transmitter: %[1]q, audience: watchword, path: /ssf, bearer: {file: bearer}, endpoint: "https://w.example/ssf", verify_every: 1s,
      client_auth: {method: client_secret_basic, client_id: watchword, client_secret: {file: secret}}, token_endpoint: "%[1]s/token", scope: ssf.manage}]
admin: {listen: "127.0.0.1:0"}
`, x.URL)))
	until(t, x.look(func() bool { return x.verified > 0 }))
	if !x.look(func() bool {
		return x.grants == 1 && x.scope == "ssf.manage" && strings.Contains(x.stream, "https://w.example/ssf")
	})() {
		t.Errorf("%d grants, scope %q, stream %s", x.grants, x.scope, x.stream)
	}
	x.look(func() bool { x.live, x.verified = "revoked", 0; return true })()
	until(t, x.look(func() bool { return x.verified > 0 && x.grants == 2 }))
	_, metrics := r.get("admin", "/metrics")
	if text := r.err.String() + r.out.String() + metrics; strings.Contains(text, "TOKEN") || strings.Contains(text, "SECRET") {
		t.Errorf("a token or a secret is shown:\n%s", text)
	}
}

func TestMistakesOfStreamAPIs(t *testing.T) {
	t.Parallel()
	with := func(stream string) string {
		return `issuers: [{name: main, issuer: "https://as.example", introspection_endpoint: "https://as.example/i", client_auth: {method: none}}]
doors:
  introspection: {listen: "127.0.0.1:1", callers: [{client_id: a, client_secret: {env: A}}]}
  events: {listen: "127.0.0.1:2", ssf: [{name: s, issuer: main, transmitter: "https://as.example", audience: a, ` + stream + `}]}
`
	}
	const push = `path: /s, bearer: {env: B}, endpoint: "https://w.example/s", `
	const auth = `client_auth: {method: client_secret_basic, client_id: w, client_secret: {env: C}}`
	const at = `, token_endpoint: "https://as.example/t"`
	accepted(t, with(push+auth+at))
	accepted(t, with("delivery: poll, "+auth+at+", scope: ssf.read"))
	for _, c := range []struct{ text, path, reason string }{
		{push + auth, "token_endpoint", "missing"},
		{push + auth + at + ", token: {env: T}", "token", "second way"},
		{push + "token: {env: T}" + at, "token_endpoint", "no effect"},
		{push + "token: {env: T}, scope: x", "scope", "no effect"},
		{push + "client_auth: {method: client_secret_basic, client_secret: {env: C}}" + at, "client_auth.client_id", "missing"},
		{push + "client_auth: {method: none, client_id: x}" + at, "client_auth.client_id", "no effect"},
		{push + `client_auth: {method: tls_client_auth, client_id: w, cert: c.pem, key: k.pem}, token_endpoint: "http://127.0.0.1:1/t"`, "client_auth.method", "needs https"},
		{push + auth + `, token_endpoint: "http://as.example/t"`, "token_endpoint", ""},
		{`path: /s, bearer: {env: B}, ` + auth + at, "endpoint", "must be told"},
		{"delivery: poll", "token", "only a stream API can be polled"},
	} {
		refused(t, with(c.text), "doors.events.ssf[0]."+c.path, c.reason)
	}
}
