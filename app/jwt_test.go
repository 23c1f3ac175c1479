package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// signer is an authorization server that signs its tokens (ES256) and publishes its key.
type signer struct {
	*httptest.Server
	key    *ecdsa.PrivateKey
	asked  atomic.Int64
	answer atomic.Pointer[func(http.ResponseWriter)] // of introspection
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := new(signer)
	s.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	says := func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"active":false}`) }
	s.answer.Store(&says)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/jwks":
			point, _ := s.key.PublicKey.Bytes()
			fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"1","use":"sig","x":%q,"y":%q}]}`, raw64(point[1:33]), raw64(point[33:]))
		case "/introspect":
			s.asked.Add(1)
			(*s.answer.Load())(w)
		default:
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"introspection_endpoint":%q}`, s.URL, s.URL+"/jwks", s.URL+"/introspect")
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func raw64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// token signs claims of RFC 9068, issued ago.
func (s *signer) token(typ string, ago time.Duration, more string) string {
	iat := time.Now().Add(-ago).Unix()
	head := raw64(fmt.Appendf(nil, `{"typ":%q,"alg":"ES256","kid":"1"}`, typ)) + "." +
		raw64(fmt.Appendf(nil, `{"iss":%q,"sub":"ann","aud":"api","client_id":"app","jti":"1","iat":%d,"exp":%d%s}`, s.URL, iat, iat+3600, more))
	sum := sha256.Sum256([]byte(head))
	r, v, _ := ecdsa.Sign(rand.Reader, s.key, sum[:])
	var sig [64]byte
	r.FillBytes(sig[:32])
	v.FillBytes(sig[32:])
	return head + "." + raw64(sig[:])
}

func (s *signer) config(t *testing.T, issuer, freshness string) *Config {
	t.Helper()
	c, err := Parse(s.file(t, issuer, freshness))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *signer) file(t *testing.T, issuer, freshness string) string {
	t.Helper()
	text := change(t, base, "    introspection_endpoint: https://as.example/introspect\n", "    issuer: "+s.URL+"\n    timeout: 30s\n    skew: 0\n    "+issuer+"\n",
		"{env: ORDERS_SECRET}", "{file: secret}", "127.0.0.1:8081", "127.0.0.1:0", "unix:/run/watchword/auth.sock", "unix:"+filepath.Join(t.TempDir(), "a.sock")) + "freshness: " + freshness + "\n"
	if strings.Contains(issuer, "none") {
		text = change(t, text, "    client_auth: {method: none}\n", "")
	}
	dir := t.TempDir()
	write(t, dir, "secret", "s")
	return write(t, dir, "w.yaml", text)
}

// Both ways to judge a token by its signature, from the file to the decision, and in `check`.
func TestJWTModes(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	for what, x := range map[string]struct {
		issuer, freshness, token string
		reason                   watchword.Reason
		source                   string
		asked                    int64
	}{
		"off":                         {"jwt: {mode: off}", "{max_staleness: 30s}", s.token("at+jwt", 0, ""), watchword.Inactive, "issuer", 1},
		"local first":                 {"jwt: {mode: local_first}", "{max_staleness: 30s}", s.token("at+jwt", 0, ""), watchword.OK, "jwt", 0},
		"jwks_uri":                    {"introspection_endpoint: " + s.URL + "/introspect\n    jwks_uri: " + s.URL + "/jwks\n    jwt: {mode: local_first}", "{max_staleness: 30s}", s.token("at+jwt", 0, ""), watchword.OK, "jwt", 0},
		"local first, old":            {"jwt: {mode: local_first}", "{max_staleness: 30s}", s.token("at+jwt", time.Minute, ""), watchword.Inactive, "issuer", 1},
		"local first, another type":   {"jwt: {mode: local_first}", "{max_staleness: 30s}", s.token("JWT", 0, ""), watchword.Inactive, "issuer", 1},
		"local first, another alg":    {"jwt: {mode: local_first, algorithms: [RS256]}", "{max_staleness: 30s}", s.token("at+jwt", 0, ""), watchword.Inactive, "issuer", 1},
		"local first, ask every time": {"jwt: {mode: local_first}", "{max_staleness: 0}", s.token("at+jwt", 0, ""), watchword.Inactive, "issuer", 1},
		"introspect first":            {"jwt: {mode: introspect_first}", "{max_staleness: 30s}", s.token("at+jwt", 0, ""), watchword.Inactive, "issuer", 1},
		"alone":                       {"introspection_endpoint: none\n    jwt: {mode: local_first}", "{max_staleness: until_expiry}", s.token("at+jwt", time.Minute, ""), watchword.OK, "jwt", 0},
		"alone, forged":               {"introspection_endpoint: none\n    jwt: {mode: local_first}", "{max_staleness: until_expiry}", s.token("at+jwt", 0, "") + "A", watchword.Inactive, "cache", 0},
		"alone, expired":              {"introspection_endpoint: none\n    jwt: {mode: local_first}", "{max_staleness: until_expiry}", s.token("at+jwt", 2*time.Hour, ""), watchword.Expired, "jwt", 0},
		"alone, another audience":     {"introspection_endpoint: none\n    jwt: {mode: local_first}", "{max_staleness: until_expiry}", s.token("at+jwt", 0, `,"aud2":"api"`), watchword.OK, "jwt", 0},
	} {
		s.asked.Store(0)
		verdicts, err := Check(t.Context(), s.config(t, x.issuer, x.freshness), Question{Token: watchword.Token(x.token), Policy: "all"}, io.Discard)
		if err != nil {
			t.Fatal(what, err)
		}
		d := verdicts[0].Decision
		if d.Reason != x.reason || d.Source() != x.source && x.reason == watchword.OK || s.asked.Load() != x.asked {
			t.Errorf("%s: %v from %s (%v), asked %d times", what, d.Reason, d.Source(), d.Err, s.asked.Load())
		}
	}
}

// A server that does not introspect JWTs is no outage: it is told from one, and a signature that is fresh enough serves.
//
// Covers: INT-19
func TestServerThatDoesNotIntrospectJWTs(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	says := func(w http.ResponseWriter) {
		w.WriteHeader(400)
		_, _ = io.WriteString(w, `{"error":"unsupported_token_type"}`)
	}
	s.answer.Store(&says)
	for mode, x := range map[string]struct {
		ago  time.Duration
		want watchword.Reason
	}{"introspect_first": {0, watchword.OK}, "local_first": {time.Minute, watchword.Misconfigured}} {
		c := s.config(t, "jwt: {mode: "+mode+"}", "{max_staleness: 30s}")
		verdicts, err := Check(t.Context(), c, Question{Token: watchword.Token(s.token("at+jwt", x.ago, "")), Policy: "all"}, io.Discard)
		if err != nil || verdicts[0].Decision.Reason != x.want {
			t.Errorf("%s: %v, %v", mode, verdicts[0].Decision.Reason, err)
		}
	}
}

// A server that called a token inactive is not overruled by its signature once it is down: also not where the signature
// is young, and nobody saw the token active. One that nobody asked about yet is vouched for.
//
// Covers: JWT-10 INT-22
func TestJWT10InactiveOutweighsASignatureInAnOutage(t *testing.T) {
	t.Parallel()
	for mode, ago := range map[string]time.Duration{"introspect_first": 0, "local_first": 30 * time.Minute} {
		s := newSigner(t)
		r := start(t, s.file(t, "jwt: {mode: "+mode+"}", "{max_staleness: 10m, stale_if_error: 10h}"))
		decide := func(when, token string, want watchword.Reason) {
			t.Helper()
			if d := r.Verifier().Verify(t.Context(), watchword.Request{Token: watchword.Token(token)}); d.Reason != want {
				t.Errorf("%s, %s: %v (%v), want %v", mode, when, d.Reason, d.Err, want)
			}
		}
		gone, other := s.token("at+jwt", ago, ""), s.token("at+jwt", ago, `,"nonce":1`)
		until(t, func() bool { _, known := r.now.Load().clients[0].keys.Age(time.Now()); return known })
		decide("well", gone, watchword.Inactive)
		down := func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
		s.answer.Store(&down)
		decide("down", gone, watchword.CannotKnow)
		decide("down, never asked about", other, watchword.OK)
		up := func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"active":true,"aud":"api"}`) }
		s.answer.Store(&up)
		decide("active after all", gone, watchword.OK)
	}
}

// What serves counts what it fetched, and remembers what it verified.
func TestServingVerifiesByItself(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	r := start(t, s.file(t, "introspection_endpoint: none\n    jwt: {mode: local_first}", "{max_staleness: until_expiry}"))
	token := watchword.Token(s.token("at+jwt", time.Minute, ""))
	for range 3 {
		if d := r.Verifier().Verify(t.Context(), watchword.Request{Token: token}); d.Reason != watchword.OK || d.Source() != "jwt" {
			t.Error(d.Reason, d.Err)
		}
	}
	w := httptest.NewRecorder()
	r.metrics.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	for _, line := range []string{`watchword_keys_fetches_total{issuer="main",outcome="ok"} 1`, `watchword_keys_fetched_timestamp_seconds{issuer="main"}`, `watchword_keys_max_age_seconds{issuer="main"} 600`,
		`source="jwt"} 3`, `watchword_lookups_total{result="hit"} 2`} {
		if !strings.Contains(w.Body.String(), line) {
			t.Errorf("no %s", line)
		}
	}
}

func TestJWTKeysOfTheFile(t *testing.T) {
	t.Parallel()
	alone := change(t, base, "    introspection_endpoint: https://as.example/introspect\n    client_auth: {method: none}\n",
		"    issuer: https://as.example\n    introspection_endpoint: none\n    jwt: {mode: local_first}\n") + "freshness: {max_staleness: until_expiry}\n"
	both := change(t, base, "    client_auth", "    issuer: https://as.example\n    jwt: {mode: local_first}\n    client_auth")
	is := accepted(t, alone).Issuers[0]
	if is.introspects() || is.JWT.KeysMaxAge != 10*time.Minute || strings.Join(is.JWT.Algorithms, " ") != "RS256 ES256 EdDSA" {
		t.Errorf("%+v", is)
	}
	if f := accepted(t, alone).Policies[0].Policy.Freshness; f.MaxStaleness != watchword.UntilExpiry || f.MaxAge != 0 || f.Validate() != nil {
		t.Errorf("%+v", f)
	}
	accepted(t, both)
	accepted(t, change(t, both, "local_first", "introspect_first, keys_max_age: 1m, algorithms: [PS256]"))
	refused(t, change(t, alone, "local_first", "introspect_first"), "issuers[0].jwt.mode", "introspect_first")
	refused(t, change(t, alone, "    jwt: {mode: local_first}\n", ""), "issuers[0].introspection_endpoint", "jwt.mode is off")
	refused(t, change(t, both, "    issuer: https://as.example\n", ""), "issuers[0].issuer", "is missing")
	refused(t, change(t, both, "local_first", "off, keys_max_age: 1m"), "issuers[0].jwt.keys_max_age", "no effect")
	refused(t, change(t, both, "local_first", "off, algorithms: [RS256]"), "issuers[0].jwt.algorithms", "no effect")
	refused(t, change(t, both, "jwt: {mode: local_first}", "jwks_uri: https://as.example/jwks"), "issuers[0].jwks_uri", "no effect")
	refused(t, change(t, both, "local_first", "local_first, algorithms: [HS256]"), "issuers[0].jwt.algorithms[0]", "not known")
	refused(t, change(t, both, "local_first", "local_first, algorithms: [none]"), "issuers[0].jwt.algorithms[0]", "not known")
	refused(t, change(t, both, "local_first", "local_first, keys_max_age: 5s"), "issuers[0].jwt.keys_max_age", "too short")
	refused(t, change(t, both, "    jwt", "    jwks_uri: http://as.example/jwks\n    jwt"), "issuers[0].jwks_uri", "not protected")
	refused(t, change(t, alone, "    jwt", "    client_auth: {method: none}\n    jwt"), "issuers[0].client_auth", "no effect")
}

// Tokens of before the ledger's beginning are accepted unasked where until_expiry says so: of that issuer, not of others.
func TestUntilExpiryExemptsItsIssuer(t *testing.T) {
	t.Parallel()
	text := change(t, base, "policies:\n  - name: all\n", `  - {name: alone, issuer: "https://b.example", introspection_endpoint: none, jwt: {mode: local_first}, tokens: {prefix: b_}}
policies:
  - {name: own, match: {hosts: [b.example]}, issuers: [alone], require: {audience: [api]}, freshness: {max_staleness: until_expiry}}
  - name: all
    issuers: [main]
`, "{client_id: orders,", "{issuers: [main], client_id: orders,") + "revocation: {log: held}\n"
	exempt := func(text string) (all [2]bool) {
		t.Helper()
		for i, is := range accepted(t, text).ledgerIssuers() {
			all[i] = is.Exempt
		}
		return all
	}
	if got := exempt(text); got != [2]bool{false, true} {
		t.Errorf("%v", got)
	}
	if got := exempt(change(t, text, "revocation: {log: held}\n", "")); got != [2]bool{true, true} {
		t.Errorf("nothing says what is revoked: %v", got)
	}
}

// Bounds that no source can meet, and words where a bound could be kept.
func TestBoundsThatNobodyCanMeet(t *testing.T) {
	t.Parallel()
	const none = "    issuer: https://as.example\n    introspection_endpoint: none\n    jwt: {mode: local_first}\n"
	alone := change(t, base, "    introspection_endpoint: https://as.example/introspect\n    client_auth: {method: none}\n", none)
	for _, f := range []string{"", "freshness: {max_staleness: 1h}\n", "freshness: {max_staleness: 0}\n"} {
		ms := mistakes(t, alone+f)
		if len(ms) != 2 || ms[0].Path != "policies[0].freshness.max_staleness" || !strings.Contains(ms[0].Reason, "main does not introspect") || !strings.Contains(ms[0].Fix, "until_expiry") {
			t.Errorf("%q: %v", f, ms)
		}
	}
	ms := mistakes(t, base+"freshness: {max_staleness: until_expiry}\n")
	if len(ms) != 2 || !strings.Contains(ms[0].Reason, "a bound could be kept") {
		t.Errorf("%v", ms)
	}
	mixed := change(t, base, "policies:", "  - name: jwts\n    tokens: {prefix: eyJ}\n"+none+"policies:", "ORDERS_SECRET}}", "ORDERS_SECRET}, issuers: [main]}",
		"    require", "    freshness: {max_staleness: until_expiry}\n    issuers: [jwts]\n    require")
	accepted(t, mixed)
	refused(t, change(t, mixed, "[jwts]", "[jwts, main]"), "policies[0].freshness.max_staleness", "issuer main introspects")
	refused(t, change(t, mixed, "until_expiry}", "until_expiry, max_age: 1h}"), "policies[0].freshness.max_age", "no effect")
	refused(t, change(t, mixed, "until_expiry", "until-expiry"), "policies[0].freshness.max_staleness", "no duration")
	accepted(t, mixed+"freshness: {max_age: 10m}\n")
	tier := func(f string) string {
		return change(t, mixed, "    issuers: [jwts]", "    issuers: [jwts]\n    tiers: [{when: {client: [batch]}, freshness: "+f+"}]")
	}
	refused(t, tier("{max_staleness: 10s}"), "policies[0].tiers[0].freshness.max_staleness", "cannot be met: issuer jwts does not introspect")
	refused(t, tier("{max_age: 10s}"), "policies[0].tiers[0].freshness.max_age", "no effect")
	accepted(t, tier("{stale_if_error: 0}"))
	quiet := change(t, base, "    client_auth", "    issuer: https://as.example\n    skew: 30s\n    jwt: {mode: local_first}\n    client_auth")
	warned := func(text string) bool {
		return strings.Contains(strings.Join(accepted(t, text).Warnings(), "\n"), `issuer "main": jwt vouches for no token`)
	}
	if !warned(quiet) || warned(change(t, quiet, "skew: 30s", "skew: 29s")) || warned(base) {
		t.Errorf("a signature that is always too old: %v", accepted(t, quiet).Warnings())
	}
	forward := change(t, alone, "    callers:\n      - {client_id: orders, client_secret: {env: ORDERS_SECRET}}\n", "    forward_caller_auth: true\n",
		"    require", "    freshness: {max_staleness: until_expiry}\n    require")
	refused(t, forward, "doors.introspection.forward_caller_auth", "needs an issuer that introspects")
}

// Where nobody can be asked, a finite bound needs a feed that covers everything; then the ledger's own coverage decides,
// and a token whose feed has fallen silent is unavailable, not good.
func TestCoveringFeedExtendsSignatures(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	file := func(covers, freshness string) string {
		text := change(t, base, "    introspection_endpoint: https://as.example/introspect\n    client_auth: {method: none}\n",
			"    issuer: "+s.URL+"\n    introspection_endpoint: none\n    skew: 0\n    settle: 0\n    covering: feed\n    jwt: {mode: local_first}\n")
		return text + "  events:\n    listen: 127.0.0.1:8082\n    ssf: [{name: feed, issuer: main, transmitter: \"" + s.URL + "\", audience: a, path: /s, bearer: {env: B}, lag: 100ms, keys: [sub], covers: [" + covers + "]}]\n" +
			"freshness: " + freshness + "\n"
	}
	all := strings.Join(covered, ", ")
	for text, why := range map[string]string{file("logout", "{max_staleness: 30s}"): "does not introspect", file(all, "{max_staleness: 0}"): "always older than its lag"} {
		ms := mistakes(t, text)
		if len(ms) != 2 || ms[0].Path != "policies[0].freshness.max_staleness" || !strings.Contains(ms[0].Reason, why) {
			t.Errorf("%v; want %s", ms, why)
		}
	}
	accepted(t, file(all, "{max_staleness: until_expiry}"))
	c := accepted(t, file(all, "{max_staleness: 1s, max_age: 1h}"))
	source, shapes, err := c.sources(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := revocation.New(revocation.Config{Issuers: c.ledgerIssuers()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ledger.Close() }()
	v, err := watchword.New(watchword.Config{Source: source, Issuers: shapes, Routes: c.Policies, Ledger: ledger})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(token string) watchword.Reason {
		return v.Verify(t.Context(), watchword.Request{Token: watchword.Token(token)}).Reason
	}
	token, before := s.token("at+jwt", -2*time.Second, ""), s.token("at+jwt", time.Minute, "")
	until(t, func() bool { return ask(token) == watchword.OK }) // young by itself
	until(t, func() bool { return ask(token) == watchword.CannotKnow })
	proven := func() { ledger.Cover("main", time.Now()) }
	until(t, func() bool { proven(); return ask(token) == watchword.OK })
	if proven(); ask(before) != watchword.CannotKnow {
		t.Error("a token from before the ledger began is extended")
	}
	until(t, func() bool { return ask(token) == watchword.CannotKnow }) // the feed is silent
	until(t, func() bool { proven(); return ask(token) == watchword.OK })
	if err := ledger.Apply(t.Context(), revocation.Event{Issuer: "main", Selector: revocation.Selector{Subject: "ann"}, Operator: true}); err != nil {
		t.Fatal(err)
	}
	if proven(); ask(token) != watchword.Revoked {
		t.Error("coverage revived what was revoked")
	}
	ledger.Gap("main", "test")
	until(t, func() bool { proven(); return ask(token) != watchword.OK })
}

// An answer that other keys vouched for is another answer.
func TestShapeNamesTheKeys(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	seen := map[string]bool{}
	for _, more := range []string{"jwt: {mode: off}", "jwt: {mode: local_first}", "jwt: {mode: introspect_first}", "jwt: {mode: local_first, keys_max_age: 1m}", "jwks_uri: " + s.URL + "/jwks\n    jwt: {mode: local_first}"} {
		c := s.config(t, more, "{max_staleness: 30s}")
		_, shapes, err := c.sources(t.Context(), slog.New(slog.DiscardHandler))
		if err != nil || seen[shapes[0].Asking] {
			t.Error(more, shapes, err)
		}
		seen[shapes[0].Asking] = true
	}
	if b, _ := json.Marshal(seen); strings.Contains(string(b), "secret") {
		t.Error(string(b))
	}
}

// One JWT has many valid signatures: whoever holds it can write another (ECDSA takes s and n-s). A revoked one stays
// revoked, verified here or not, whether its event names the token or its jti.
//
// Covers: JWT-09
func TestJWT09RevokedTokensStayRevokedHoweverTheyAreSigned(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	c := s.config(t, "introspection_endpoint: none\n    jwt: {mode: local_first}", "{max_staleness: until_expiry}")
	source, shapes, err := c.sources(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []string{"token", "jti", "sub"} {
		ledger, err := revocation.New(revocation.Config{Issuers: []revocation.Issuer{{Name: "main", ID: s.URL, Exempt: true}}})
		if err != nil {
			t.Fatal(err)
		}
		v, err := watchword.New(watchword.Config{Source: source, Issuers: shapes, Routes: c.Policies, Ledger: ledger})
		if err != nil {
			t.Fatal(err)
		}
		token := s.token("at+jwt", time.Minute, "")
		spellings := []string{token, otherSignature(token, s.key.Params().N)}
		decide := func(want watchword.Reason) {
			t.Helper()
			for i, spelled := range spellings {
				if d := v.Verify(t.Context(), watchword.Request{Token: watchword.Token(spelled)}); d.Reason != want {
					t.Errorf("by %s, spelling %d: %v, %v; want %v", by, i, d.Reason, d.Err, want)
				}
			}
		}
		decide(watchword.OK)
		event := map[string]revocation.Event{"token": {Token: ledger.TokenID("main", watchword.Token(token))}, "jti": {JTI: "1"},
			"sub": {Selector: revocation.Selector{Subject: "ann"}, Operator: true}}[by]
		event.Issuer = "main"
		if err := ledger.Apply(t.Context(), event); err != nil {
			t.Fatal(by, err)
		}
		decide(watchword.Revoked)
		if err := ledger.Close(); err != nil {
			t.Error(err)
		}
	}
}

// otherSignature is the other ES256 signature of the same text.
func otherSignature(token string, n *big.Int) string {
	i := strings.LastIndexByte(token, '.')
	sig, _ := base64.RawURLEncoding.DecodeString(token[i+1:])
	v := new(big.Int).SetBytes(sig[32:])
	v.Sub(n, v).FillBytes(sig[32:])
	return token[:i+1] + raw64(sig)
}
