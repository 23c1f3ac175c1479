package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/observe"
	"github.com/watchword-dev/watchword/revocation"
)

// home is an authorization server that introspects, revokes and signs. Every token that it knows is ann's, at client
// app; it goes on calling a token active until it is told to revoke it.
type home struct {
	*httptest.Server
	key   *ecdsa.PrivateKey
	dead  sync.Map
	asked atomic.Int64
	down  atomic.Bool
	told  func(token string) // of every introspection, before it is answered; nil: nobody is
}

func newHome(t *testing.T) *home {
	t.Helper()
	h := new(home)
	var err error
	if h.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *home) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	token := ""
	if r.Method == http.MethodPost {
		token = r.PostFormValue("token")
	}
	switch r.URL.Path {
	case "/.well-known/oauth-authorization-server":
		fmt.Fprintf(w, `{"issuer":%q,"introspection_endpoint":"%[1]s/introspect","revocation_endpoint":"%[1]s/revoke","jwks_uri":"%[1]s/jwks"}`, h.URL)
	case "/jwks":
		point := h.key.PublicKey
		b64 := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.FillBytes(make([]byte, 32))) }
		//lint:ignore SA1019 a JWK holds the coordinates themselves
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","alg":"ES256","use":"sig","x":%q,"y":%q}]}`, b64(point.X), b64(point.Y))
	case "/introspect":
		h.asked.Add(1)
		if h.told != nil {
			h.told(token)
		}
		if _, dead := h.dead.Load(token); dead || !strings.HasPrefix(token, "live-") {
			fmt.Fprint(w, `{"active":false}`)
			return
		}
		fmt.Fprintf(w, `{"active":true,"sub":"ann","client_id":"app","sid":"s1","org_id":"acme","iat":%d}`, time.Now().Add(-time.Minute).Unix())
	case "/revoke":
		if id, _, _ := r.BasicAuth(); h.down.Load() {
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(http.StatusServiceUnavailable)
		} else if id == "app" {
			h.dead.Store(token, true)
		} // else: 200, and nothing is done
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// sign makes a signed envelope.
func (h *home) sign(t *testing.T, typ string, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]any{"typ": typ, "alg": "ES256", "kid": "k1"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, h.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

func (h *home) logout(t *testing.T, jti string) string {
	now := time.Now().Unix()
	return h.sign(t, "logout+jwt", map[string]any{"iss": h.URL, "aud": "my-client", "iat": now, "exp": now + 120, "jti": jti, "sub": "ann", "sid": "s1",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}, "revoke_offline_access": true}})
}

func (h *home) set(t *testing.T, jti, kind string, event map[string]any) string {
	return h.sign(t, "secevent+jwt", map[string]any{"iss": h.URL, "aud": "watchword", "iat": time.Now().Unix(), "jti": jti,
		"sub_id": map[string]any{"format": "iss_sub", "iss": h.URL, "sub": "ann"}, "events": map[string]any{"https://schemas.openid.net/secevent/" + kind: event}})
}

// heard is a running App with every way in.
func heard(t *testing.T, as *home) *running {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"caller": "door", "ssf": "ssf-secret-of-the-test", "hook": "hook-secret-of-the-test", "gtr": "gtr-secret-of-the-test", "ops": "ops-secret-of-the-test", "acme": "acme-secret-of-the-test"} {
		write(t, dir, name, text)
	}
	return start(t, write(t, dir, "watchword.yaml", fmt.Sprintf(`
issuers:
  - name: main
    issuer: %s
    client_auth: {method: none}
    selector_claims: {tenant: org_id}
    covering: ssf-main
freshness: {max_staleness: 1h}
doors:
  introspection: {listen: "127.0.0.1:0", callers: [{client_id: orders, client_secret: {file: caller}}]}
  events:
    listen: 127.0.0.1:0
    back_channel_logout: [{issuer: main, path: /logout, audience: my-client}]
    ssf: [{name: ssf-main, issuer: main, transmitter: %[1]s, audience: watchword, path: /ssf, bearer: {file: ssf}, covers: [logout, token, user, client], keys: [sub, sid], lag: 1s}]
    webhooks: [{issuer: main, path: /hook, secret: {file: hook}, map: {sub: user, effect: revalidate}}]
    revoke: [{issuer: main, path: /revoke}]
    global_token_revocation: [{issuer: main, path: /gtr, bearer: {file: gtr}}]
admin:
  listen: 127.0.0.1:0
  operators: [{name: ops, bearer: {file: ops}}, {name: acme, bearer: {file: acme}, tenants: [other]}]
`, as.URL)))
}

func (r *running) post(door, path, contentType, body string, header ...string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url(door, path), strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return send(r.t, http.DefaultClient, req)
}

const formKind = "application/x-www-form-urlencoded"

// A signal by any way is in force when it is acknowledged: what was remembered for an hour serves no more.
//
// Covers: SIG-01 SIG-17 SIG-22 SIG-23 PXY-08 PXY-09 T26
func TestEveryWayInIsInForceWhenItIsAcknowledged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tell   func(r *running, as *home) (int, string)
		status int
		then   string // what the introspection door says then; the server itself goes on saying active
	}{
		"back-channel logout": {func(r *running, as *home) (int, string) {
			return r.post("events", "/logout", formKind, url.Values{"logout_token": {as.logout(r.t, "j1")}}.Encode())
		}, 200, `{"active":false}`},
		"SSF": {func(r *running, as *home) (int, string) {
			return r.post("events", "/ssf", "application/secevent+jwt", as.set(r.t, "j1", "caep/event-type/session-revoked", plain()), "Authorization", "Bearer ssf-secret-of-the-test")
		}, 202, `{"active":false}`},
		"RFC 7009": {func(r *running, as *home) (int, string) {
			until(r.t, func() bool { // discovered
				status, _ := r.post("events", "/revoke", formKind, "token=live-0", "Authorization", "Basic YXBwOng=")
				return status == 200
			})
			return r.post("events", "/revoke", formKind, "token=live-1", "Authorization", "Basic YXBwOng=")
		}, 200, `{"active":false}`},
		"an operator": {func(r *running, as *home) (int, string) {
			return r.post("admin", "/v1/revocations", "application/json", `{"issuer":"main","token":"live-1","why":"lost"}`, "Authorization", "Bearer ops-secret-of-the-test")
		}, 200, `{"active":false}`},
		"global revocation": {func(r *running, as *home) (int, string) {
			return r.post("events", "/gtr", "application/json", fmt.Sprintf(`{"sub_id":{"format":"iss_sub","iss":%q,"sub":"ann"}}`, as.URL), "Authorization", "Bearer gtr-secret-of-the-test")
		}, 204, `{"active":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			as := newHome(t)
			r := heard(t, as)
			until(t, func() bool { status, _ := r.introspect("door", "live-1"); return status == 200 })
			r.wants("door", "live-1", 200, `"sub":"ann"`)
			if status, text := c.tell(r, as); status != c.status {
				t.Fatalf("%d %s", status, text)
			}
			if _, got := r.introspect("door", "live-1"); got != c.then {
				t.Errorf("then %s\n%s", got, r.err)
			}
			if log := r.err.String() + r.out.String(); strings.Contains(log, "live-1") || strings.Contains(log, "secret-of-the-test") {
				t.Errorf("a token or a secret is logged:\n%s", log)
			}
		})
	}
}

// plain is an event that says no more than its type.
func plain() map[string]any { return map[string]any{} }

func TestEventsDoor(t *testing.T) {
	t.Parallel()
	as := newHome(t)
	r := heard(t, as)
	until(t, func() bool { status, _ := r.introspect("door", "live-1"); return status == 200 })
	bearer := []string{"Authorization", "Bearer ssf-secret-of-the-test"}

	// a webhook only asks again
	body, now := `{"user":"ann"}`, time.Now().Unix()
	mac := hmac.New(sha256.New, []byte("hook-secret-of-the-test"))
	fmt.Fprintf(mac, "%d.%s", now, body)
	signature := fmt.Sprintf("t=%d,v1=%s", now, hex.EncodeToString(mac.Sum(nil)))
	asked := as.asked.Load()
	if status, text := r.post("events", "/hook", "application/json", body, "Watchword-Signature", signature); status != 204 {
		t.Errorf("%d %s", status, text)
	}
	r.wants("door", "live-1", 200, `"sub":"ann"`)
	if as.asked.Load() == asked {
		t.Error("nobody was asked again")
	}
	// signatures, types and keys
	forged := as.set(t, "j0", "caep/event-type/session-revoked", plain())
	forged = forged[:len(forged)-6] + "AAAAAA"
	for envelope, want := range map[string]string{forged: "authentication_failed", as.logout(t, "j0"): "invalid_request", "a.b.c": "invalid_request"} {
		if status, text := r.post("events", "/ssf", "application/secevent+jwt", envelope, bearer...); status != 400 || !strings.Contains(text, `"err":"`+want+`"`) {
			t.Errorf("%d %s, want %s", status, text, want)
		}
	}
	if status, _ := r.post("events", "/logout", formKind, url.Values{"logout_token": {as.set(t, "j0", "caep/event-type/session-revoked", plain())}}.Encode()); status != 400 {
		t.Errorf("a SET is taken for a logout token: %d", status)
	}
	// a heartbeat moves the proof
	if status, text := r.post("events", "/ssf", "application/secevent+jwt", as.set(t, "v1", "ssf/event-type/verification", plain()), bearer...); status != 202 {
		t.Errorf("%d %s", status, text)
	}
	// a stranger's revocation does nothing though the server says 200; an unavailable server is relayed
	if status, _ := r.post("events", "/revoke", formKind, "token=live-1", "Authorization", "Basic b3RoZXI6eA=="); status != 200 && status != 503 {
		t.Errorf("a stranger's: %d", status)
	}
	r.wants("door", "live-1", 200, `"sub":"ann"`)
	until(t, func() bool {
		as.down.Store(true)
		status, _ := r.post("events", "/revoke", formKind, "token=live-1", "Authorization", "Basic YXBwOng=")
		return status == 503
	})
	r.wants("door", "live-1", 200, `"sub":"ann"`)
	// operators: scope and list
	for secret, want := range map[string]int{"ops-secret-of-the-test": 200, "acme-secret-of-the-test": 403, "nobody": 401} {
		if status, text := r.post("admin", "/v1/revocations", "application/json", `{"issuer":"main","sub":"bob","tenant":"acme"}`, "Authorization", "Bearer "+secret); status != want {
			t.Errorf("%s: %d %s", secret, status, text)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url("admin", "/v1/revocations?issuer=main&sub=bob"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer ops-secret-of-the-test")
	if status, text := send(t, http.DefaultClient, req); status != 200 || !strings.Contains(text, `"sub":"bob"`) || !strings.Contains(text, `"who":"ops"`) {
		t.Errorf("the list: %d %s", status, text)
	}
	r.err.await(t, "an operator revoked")
	_, metrics := r.get("admin", "/metrics")
	for _, want := range []string{`watchword_revocation_events_total{effect="revalidate",issuer="main",outcome="applied",way="webhook"} 1`,
		`watchword_revocation_events_total{effect="none",issuer="main",outcome="refused",way="ssf"} 3`, `watchword_feed_gaps_total{feed="ssf-main",kind="stream"} 3`,
		`watchword_feed_through_age_seconds{feed="ssf-main"}`, `watchword_revocation_enforcement_seconds_count{stage="heard"}`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, grep(metrics, "revocation|feed"))
		}
	}
}

func grep(text, words string) (out string) {
	for line := range strings.Lines(text) {
		for w := range strings.SplitSeq(words, "|") {
			if strings.Contains(line, w) && !strings.HasPrefix(line, "#") {
				out += line
				break
			}
		}
	}
	return out
}

// What is wrong with ways in is found before anything serves.
func TestMistakesOfWaysIn(t *testing.T) {
	t.Parallel()
	with := func(issuer, events, admin string) string {
		return "issuers:\n  - {name: main, issuer: \"https://as.example\", introspection_endpoint: \"https://as.example/i\", client_auth: {method: none}" + issuer + "}\n" +
			"doors:\n  introspection: {listen: \"127.0.0.1:1\", callers: [{client_id: a, client_secret: {env: A}}]}\n  events: {listen: \"127.0.0.1:2\", " + events + "}\n" + admin
	}
	const logout = "back_channel_logout: [{issuer: main, path: /l, audience: a}]"
	const stream = "ssf: [{name: s, issuer: main, transmitter: \"https://as.example\", audience: a, path: /s, bearer: {env: B}"
	accepted(t, with("", logout, ""))
	for _, c := range []struct{ text, path, reason string }{
		{with("", "back_channel_logout: [{issuer: mian, path: /l, audience: a}]", ""), "doors.events.back_channel_logout[0].issuer", "no issuer"},
		{with("", logout+", revoke: [{issuer: main, path: /l}]", ""), "doors.events.revoke[0].path", "also the path"},
		{with(", covering: t", stream+"}]", ""), "issuers[0].covering", "no stream"},
		{with(", covering: s", stream+", lag: 1s}]", ""), "doors.events.ssf[0].covers", "missing"},
		{with(", covering: s", stream+", covers: [logout]}]", ""), "doors.events.ssf[0].lag", "missing"},
		{with("", stream+", lag: 1s}]", ""), "doors.events.ssf[0].lag", "no effect"},
		{with("", strings.Replace(stream, ", bearer: {env: B}", "", 1)+", delivery: poll, token: {env: T}}]", ""), "doors.events.ssf[0].path", "no effect"},
		{with("", stream+", token: {env: T}}]", ""), "doors.events.ssf[0].endpoint", "missing"},
		{with("", strings.Replace(stream, "as.example", "other.example", 1)+"}]", ""), "doors.events.ssf[0].jwks_uri", "missing"},
		{with("", "webhooks: [{issuer: main, path: /h, secret: {env: H}, map: {user: id}}]", ""), "doors.events.webhooks[0].map", "neither"},
		{with("", "webhooks: [{issuer: main, path: /h, secret: {env: H}, map: {sub: id, effect: kill}}]", ""), "doors.events.webhooks[0].map", "effect"},
		{with("", "global_token_revocation: [{issuer: main, path: /g, bearer: {env: G}, tenant: t}]", ""), "doors.events.global_token_revocation[0].tenant", "cannot be told"},
		{with("", logout, "admin: {listen: \"127.0.0.1:2\"}\n"), "doors.events.listen", "taken"},
		{with("", logout, "admin: {listen: \"127.0.0.1:3\", operators: [{name: o, bearer: {env: O}, tenants: [t]}]}\n"), "admin.operators[0].tenants", "cannot be told"},
		{with("", logout, "admin: {listen: \"127.0.0.1:3\", operators: [{name: o, bearer: {env: O}, issuers: [x]}]}\n"), "admin.operators[0].issuers[0]", "no issuer"},
		{with(", selector_claims: {sub: x}", logout, ""), "issuers[0].selector_claims.sub", "cannot be the name"},
		{with(", selector_claims: {a: a, b: b, c: c, d: d, e: e}", logout, ""), "issuers[0].selector_claims", "names 5"},
	} {
		refused(t, c.text, c.path, c.reason)
	}
	if keys := accepted(t, with(", covering: s", stream+", lag: 1s, covers: [logout], keys: [sub, sid]}]", "")).ledgerIssuers()[0].Keys; len(keys) != 2 {
		t.Errorf("the ledger does not know the keys of the covering feed: %v", keys)
	}
	c := accepted(t, with(", covering: s", stream+", lag: 1s, covers: [logout], keys: [sub]}]", ""))
	if len(c.covering()) != 0 || !strings.Contains(strings.Join(c.Warnings(), "\n"), "does not cover token, user, client") {
		t.Errorf("a feed that does not cover everything extends: %v", c.Warnings())
	}
}

// A covering feed is disproven by an event of a time for which it had proven that nothing was missing.
func TestACoveringFeedIsDisproven(t *testing.T) {
	t.Parallel()
	c := accepted(t, `issuers: [{name: main, issuer: "https://as.example", introspection_endpoint: "https://as.example/i", client_auth: {method: none}, covering: s}]
doors:
  introspection: {listen: "127.0.0.1:1", callers: [{client_id: a, client_secret: {env: A}}]}
  events: {listen: "127.0.0.1:2", ssf: [{name: s, issuer: main, transmitter: "https://as.example", audience: a, path: /s, bearer: {env: B}, lag: 1s, covers: [logout, token, user, client], keys: [sub]}]}
`)
	synctest.Test(t, func(t *testing.T) {
		a := &App{metrics: observe.NewMetrics(observe.MetricsConfig{})}
		if err := a.openLedger(c, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		defer a.ledger.Close()
		began := time.Now()
		time.Sleep(10 * time.Minute)
		proven := time.Now()
		a.ledger.Cover("main", proven)
		for n, test := range []struct {
			name string
			e    revocation.Event
			want bool
		}{
			{"after the proof", revocation.Event{Way: "ssf", Who: "s", At: proven}, false},
			{"from before the last gap", revocation.Event{Way: "ssf", Who: "s", At: began.Add(-time.Minute)}, false},
			{"of another stream", revocation.Event{Way: "ssf", Who: "t", At: began.Add(5 * time.Minute)}, false},
			{"by another way", revocation.Event{Way: "webhook", Who: "s", At: began.Add(5 * time.Minute)}, false},
			{"that does not say when", revocation.Event{Way: "ssf", Who: "s"}, false},
			{"of the time that was proven", revocation.Event{Way: "ssf", Who: "s", At: began.Add(5 * time.Minute)}, true},
		} {
			e := test.e
			e.Issuer, e.ID, e.Heard, e.Selector = "main", fmt.Sprint(n), time.Now(), revocation.Selector{Subject: fmt.Sprint("ann", n)}
			if err := a.ledger.Apply(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			a.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if got := strings.Contains(w.Body.String(), `watchword_feed_disproven_total{feed="s"} 1`); got != test.want {
				t.Errorf("an event %s: %v", test.name, got)
			}
		}
	})
}

// A covering feed that a reload brings proves nothing of before it was listened to.
//
// Covers: SIG-11
func TestAnotherCoveringFeedBeginsAnew(t *testing.T) {
	t.Parallel()
	r := heard(t, newHome(t))
	body, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(body)
	since := func() time.Time {
		r.ledger.Cover("main", time.Now())
		return r.ledger.Coverage("main").Since
	}
	first := since()
	put(t, r.path, change(t, text, "max_staleness: 1h", "max_staleness: 59m"))
	r.err.await(t, reloaded)
	if got := since(); !got.Equal(first) {
		t.Error("a reload that changes nothing of the feed is a gap")
	}
	for _, to := range [][2]string{{"keys: [sub, sid]", "keys: [sub]"}, {"ssf-main", "another"}, {"path: /ssf", "path: /other"}} {
		at := time.Now()
		text = strings.ReplaceAll(text, to[0], to[1])
		put(t, r.path, text)
		r.err.await(t, reloaded)
		if got := since(); got.Before(at) {
			t.Errorf("%s: what was asked before is extended by a feed that was not listened to", to[1])
		}
	}
}
