package interop

import (
	"errors"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// staleness is the max_staleness of the gateways' Watchword: the bound that the tests hold it to.
const staleness = time.Second

// site is one gateway with everything around it: a real authorization server, Watchword, and an API behind.
type site struct {
	as      *oidcProvider
	api     string // host:port of the backend
	door    string // where the forward-auth door listens: a socket's path or host:port
	gateway string // host:port of the gateway, where the tests knock
	ours    *daemon
	marks   marks
}

// marks are the answers in which gateways differ; docs/gateways.md has the same table.
type marks struct {
	// retryAfter: a 503 keeps its Retry-After.
	retryAfter bool
	// gone and hung are the statuses when Watchword is not there, and when it does not answer in time.
	gone, hung int
}

// newSite starts all but the gateway. The configuration is deploy/<name>/watchword.yaml with the door on a socket, as
// it stands there, or on TCP.
func newSite(t *testing.T, name, network string) *site {
	t.Helper()
	dir := socketDir(t)
	s := &site{as: startOIDCProvider(t), api: backend(t), gateway: freePort(t), door: dir + "/auth.sock"}
	listen := "listen: unix:" + s.door
	if network == "tcp" {
		s.door = freePort(t)
		listen = "listen: " + s.door + "\n    trusted_proxies: [127.0.0.1/32]"
	}
	admin := freePort(t)
	s.ours = serve(t, deployed(t, name+"/watchword.yaml",
		"https://as.example/introspect", s.as.introspection(),
		"/etc/watchword/secret", write(t, dir, "secret", "rs-secret\n"),
		"max_staleness: 30s", "max_staleness: "+staleness.String(),
		"listen: "+example, listen,
		"127.0.0.1:9090", admin,
	), admin)
	return s
}

// The example addresses in deploy/.
const (
	example        = "unix:/run/watchword/auth.sock" // the door
	exampleGateway = "127.0.0.1:8080"
	exampleAPI     = "127.0.0.1:8000"
)

// judge is the whole list that every gateway has to pass. It ends by killing the authorization server, then Watchword.
func (s *site) judge(t *testing.T) {
	ann := s.as.token(t, "ann", forAPI)
	t.Run("accepts", func(t *testing.T) { s.accepts(t, ann) })
	t.Run("refuses", func(t *testing.T) { s.refuses(t, ann) })
	t.Run("forged identity", func(t *testing.T) { s.forgedIdentity(t, ann) })
	t.Run("forged request", func(t *testing.T) { s.forgedRequest(t, ann) })
	t.Run("paths", func(t *testing.T) { s.paths(t, ann) })
	t.Run("expired", func(t *testing.T) { s.expired(t) })
	t.Run("revoked", func(t *testing.T) { s.revoked(t) })
	t.Run("unavailable", func(t *testing.T) { s.unavailable(t) })
	t.Run("without Watchword", func(t *testing.T) { s.without(t, ann) })
	t.Run("logs", func(t *testing.T) { s.logs(t) })
}

func (s *site) ask(t *testing.T, a ask) reply {
	t.Helper()
	return send(t, s.gateway, a)
}

// accepts: a good token passes with any method and body, and the API learns who it is.
func (s *site) accepts(t *testing.T, ann string) {
	saw := s.ask(t, ask{target: "/orders/1?fields=all", token: ann}).accepted(t, "GET")
	if saw.URI != "/orders/1?fields=all" {
		t.Errorf("the backend was asked for %q", saw.URI)
	}
	s.knows(t, saw, "X-Auth-Subject", "ann")
	s.knows(t, saw, "X-Auth-Scopes", "orders:read orders:write")

	if r := s.ask(t, ask{method: "HEAD", target: "/orders/1", token: ann}); r.accepted(t, "HEAD").Method != "HEAD" {
		t.Errorf("HEAD reached the backend as %s", r.saw.Method)
	}
	// The auth request has no body, whatever the gateway announces: nothing may wait for one.
	for _, size := range []int{1, 1 << 20} {
		r := s.ask(t, ask{method: "POST", target: "/orders/1", token: ann, body: strings.Repeat("x", size)})
		if saw := r.accepted(t, "POST"); saw.Bytes != size {
			t.Errorf("of a body of %d bytes the backend got %d", size, saw.Bytes)
		}
	}
	// A header named in Connection is for the next hop only (RFC 9110 §7.6.1): ours must not be stripped by it.
	saw = s.ask(t, ask{target: "/orders/1", token: ann, headers: []string{"Connection: close, X-Auth-Subject"}}).
		accepted(t, "Connection: X-Auth-Subject")
	s.knows(t, saw, "X-Auth-Subject", "ann")
}

// knows checks that the backend sees one value of an identity header, ours. An empty want is no value, or an empty one.
func (s *site) knows(t *testing.T, saw sight, name, want string) {
	t.Helper()
	got := saw.identity(name)
	if want == "" && len(got) == 0 || len(got) == 1 && got[0] == want {
		return
	}
	t.Errorf("the backend sees %s as %q, want %q", name, got, want)
}

// refuses: each reason with its status and challenge (RFC 6750 §3).
func (s *site) refuses(t *testing.T, ann string) {
	challenge := func(r reply, want ...string) {
		t.Helper()
		got := r.header.Get("WWW-Authenticate")
		if !strings.HasPrefix(got, "Bearer") {
			t.Errorf("challenge %q", got)
		}
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("challenge %q lacks %q", got, part)
			}
		}
		if len(want) == 0 && strings.Contains(got, "error") {
			t.Errorf("challenge %q names an error, and nothing was presented", got)
		}
	}
	r := s.ask(t, ask{target: "/orders/1"})
	r.refused(t, "no token", 401)
	challenge(r)
	r = s.ask(t, ask{method: "HEAD", target: "/orders/1"})
	r.refused(t, "HEAD without token", 401)
	r = s.ask(t, ask{method: "POST", target: "/orders/1", body: strings.Repeat("x", 1<<20)})
	r.refused(t, "POST without token", 401)
	r = s.ask(t, ask{target: "/orders/1?access_token=" + ann})
	r.refused(t, "token in the query", 401)
	challenge(r)
	r = s.ask(t, ask{target: "/orders/1", token: "never-issued"})
	r.refused(t, "unknown token", 401)
	challenge(r, `error="invalid_token"`)
	r = s.ask(t, ask{target: "/orders/1", token: s.as.token(t, "ann", forOther)})
	r.refused(t, "another audience", 401)
	challenge(r, `error="invalid_token"`)
	r = s.ask(t, ask{method: "POST", target: "/orders/1", token: s.as.token(t, "ann", forAPI, "orders:read"), body: "x"})
	r.refused(t, "scope", 403)
	challenge(r, `error="insufficient_scope"`, `scope="orders:write"`)
	r = s.ask(t, ask{target: "/admin", token: ann})
	r.refused(t, "no policy", 403)
	r = s.ask(t, ask{method: "OPTIONS", target: "/orders/1", token: ann})
	r.refused(t, "method without policy", 403)
	r = s.ask(t, ask{target: "/orders/1", token: ann, headers: []string{"Authorization: Bearer never-issued"}})
	r.refused(t, "two credentials", 400)
	r = s.ask(t, ask{target: "/orders/1", headers: []string{"Authorization: Bearer never-issued", "Authorization: Bearer " + ann}})
	r.refused(t, "two credentials, the good one last", 400)
}

// forgedIdentity: whatever the client calls itself, the backend sees our headers and no alias of them, also where we
// have nothing to say.
func (s *site) forgedIdentity(t *testing.T, ann string) {
	names := []string{"X-Auth-Subject", "x-auth-subject", "X_Auth_Subject", "x_auth_subject", "X.Auth.Subject", "X-Auth_Subject"}
	service := s.as.token(t, "service", forAPI) // without sub
	for _, name := range names {
		forged := []string{name + ": mallory", name + ": eve"}
		saw := s.ask(t, ask{target: "/orders/1", token: ann, headers: forged}).accepted(t, name)
		s.knows(t, saw, "X-Auth-Subject", "ann")
		saw = s.ask(t, ask{target: "/orders/1", token: service, headers: forged}).accepted(t, name+", sub unknown")
		s.knows(t, saw, "X-Auth-Subject", "")
		s.knows(t, saw, "X-Auth-Scopes", "orders:read orders:write")
	}
	saw := s.ask(t, ask{target: "/orders/1", token: ann, headers: []string{"X-Auth-Scopes: admin", "x_auth_scopes: admin"}}).
		accepted(t, "X-Auth-Scopes")
	s.knows(t, saw, "X-Auth-Scopes", "orders:read orders:write")
}

// forgedRequest: what the client says about its own request never decides.
func (s *site) forgedRequest(t *testing.T, ann string) {
	reader := s.as.token(t, "ann", forAPI, "orders:read")
	for _, headers := range [][]string{
		{"X-Forwarded-Uri: /orders/1", "X-Forwarded-Method: GET"},
		{"X-Original-URI: /orders/1", "X-Original-Method: GET"},
		{"X-Original-URL: http://api.example/orders/1", "X-Original-Method: GET"},
		{"X-Rewrite-Url: /orders/1"},
		{"X-Envoy-Original-Path: /orders/1", "X-Envoy-Internal: true"},
		{"X-HTTP-Method-Override: GET"},
	} {
		r := s.ask(t, ask{target: "/admin", token: ann, headers: headers})
		r.refused(t, "/admin with "+strings.Join(headers, ", "), 403)
		r = s.ask(t, ask{method: "DELETE", target: "/orders/1", token: reader, headers: headers})
		r.refused(t, "DELETE with "+strings.Join(headers, ", "), 403)
	}
}

// paths: a path that two servers could read differently is refused, or made plain for both by the gateway. In no case
// does the backend get anything but a plain path below /orders/.
func (s *site) paths(t *testing.T, ann string) {
	for _, path := range []string{
		"/orders/../admin", "/orders/%2e%2e/admin", "/orders/.%2E/admin", "/orders/..%2fadmin", "/orders/..%5cadmin",
		"/orders/%252e%252e/admin", "/orders/..;/admin", "/orders/1;x=/admin", "//orders/1", "/orders//1", "/orders/./1",
		"/orders/1/..", "/orders/1/.", "/orders/%00", "/orders/%0a", "/orders/%zz", "/orders/%", "/orders/a%2",
		"/orders/%6frders", "/orders/1%23", "/orders/1%3f", "/orders/1%3b", "/orders/1.", "/orders/1%20",
		"/orders/1\\..\\admin", "/orders/\xc2\xad", "/%6frders/1", "/orders%2f1", "/ORDERS/1", "/orders",
	} {
		r := s.ask(t, ask{target: path, token: ann})
		switch {
		case r.saw == nil && r.status < 400:
			t.Errorf("%q: status %d without the backend", path, r.status)
		case r.saw == nil && r.status != http.StatusBadRequest && r.status != http.StatusForbidden:
			t.Errorf("%q: status %d", path, r.status)
		case r.saw != nil && !plain(r.saw.URI):
			t.Errorf("%q reached the backend as %q", path, r.saw.URI)
		}
	}
	s.ask(t, ask{target: "/orders/..%2fadmin", token: ann}).refused(t, "an escaped slash", 400)
	s.ask(t, ask{target: "/orders/a%20b", token: ann}).accepted(t, "an escaped space")
	s.ask(t, ask{target: "/orders/.well-known/x", token: ann}).accepted(t, "a leading dot")
}

// notASCII is an escape that nobody reads as a character of the syntax.
var notASCII = regexp.MustCompile(`%[89A-Fa-f][0-9A-Fa-f]`)

// plain: this path means the same to everybody, and the policies allow it.
func plain(path string) bool {
	rest, below := strings.CutPrefix(notASCII.ReplaceAllString(path, "x"), "/orders/")
	return below && !strings.ContainsAny(rest, "%\\;#?") && !strings.Contains(rest, "//") && !strings.HasSuffix(rest, ".") &&
		!strings.HasPrefix(rest, "/") && !strings.Contains("/"+rest+"/", "/./") && !strings.Contains("/"+rest+"/", "/../")
}

// expired: a check that begins at exp or later is refused, however fresh the answer behind it.
func (s *site) expired(t *testing.T) {
	token := s.as.token(t, "brief", forAPI)
	asked := time.Now()
	until(t, "the token to expire", func() (bool, time.Time) {
		r := s.ask(t, ask{target: "/orders/1", token: token})
		if r.status == http.StatusUnauthorized && strings.Contains(r.header.Get("WWW-Authenticate"), "invalid_token") {
			return true, time.Time{}
		}
		r.accepted(t, "before exp")
		return false, asked.Add(3 * time.Second)
	})
}

// revoked: the promise itself. A check that begins later than max_staleness after the revocation is refused.
func (s *site) revoked(t *testing.T) {
	token := s.as.token(t, "ann", forAPI)
	s.ask(t, ask{target: "/orders/1", token: token}).accepted(t, "before")
	s.as.revoke(t, "ann", token)
	bound := time.Now().Add(staleness)
	until(t, "the revocation to bite", func() (bool, time.Time) {
		r := s.ask(t, ask{target: "/orders/1", token: token})
		if r.status == http.StatusUnauthorized {
			return true, time.Time{}
		}
		r.accepted(t, "within the bound")
		return false, bound
	})
}

// until asks again and again until ask says that the token is refused. ask also says from when on it must be: a check
// that began after that and was accepted breaks the promise, however quickly the next one is refused.
func until(t *testing.T, what string, ask func() (refused bool, latest time.Time)) {
	t.Helper()
	await(t, what, patience, func() error {
		began := time.Now()
		refused, latest := ask()
		if !refused && began.After(latest) {
			t.Fatalf("a check that began %v after the bound was accepted", began.Sub(latest))
		}
		if !refused {
			return errStill
		}
		return nil
	})
}

var errStill = errors.New("still accepted")

// unavailable: when the authorization server is dead, nobody knows: 503, never 401, and never let by.
func (s *site) unavailable(t *testing.T) {
	token := s.as.token(t, "ann", forAPI)
	s.as.stop()
	for _, a := range []ask{
		{target: "/orders/1", token: token},
		{method: "POST", target: "/orders/1", token: token, body: "x"},
		{target: "/orders/1", token: token, headers: []string{"X-Auth-Subject: mallory"}},
	} {
		r := s.ask(t, a)
		r.refused(t, "a token never asked about, the AS dead", 503)
		if r.header.Get("WWW-Authenticate") != "" {
			t.Errorf("an outage carries the challenge %q", r.header.Get("WWW-Authenticate"))
		}
		if s.marks.retryAfter {
			if n, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || n < 1 {
				t.Errorf("503 with Retry-After %q", r.header.Get("Retry-After"))
			}
		}
	}
	s.ask(t, ask{target: "/orders/1"}).refused(t, "no token, the AS dead", 401)
}

// without: the gateway lets nobody by while Watchword is gone, nor while it hangs, and asks a hanging one once.
func (s *site) without(t *testing.T, ann string) {
	s.ours.stop()
	a := ask{target: "/orders/1", token: ann, headers: []string{"X-Auth-Subject: mallory"}}
	s.ask(t, a).refused(t, "Watchword gone", s.marks.gone)

	network := "tcp"
	if strings.HasPrefix(s.door, "/") {
		network = "unix"
	}
	hanging, err := net.Listen(network, s.door)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-r.Context().Done()
	})}
	go func() { _ = server.Serve(hanging) }()
	t.Cleanup(func() { _ = server.Close() })
	s.ask(t, a).refused(t, "Watchword hangs", s.marks.hung)
	if n := asked.Load(); n != 1 {
		t.Errorf("a hanging Watchword was asked %d times for one request", n)
	}
}

// logs: none of the tokens of this site is in what Watchword has written, decision log included.
func (s *site) logs(t *testing.T) {
	text, err := os.ReadFile(s.ours.log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"reason":"inactive"`) {
		t.Error("the decision log is missing")
	}
	for _, token := range append(s.as.issued, "never-issued", "rs-secret") {
		if strings.Contains(string(text), token) {
			t.Errorf("Watchword's log holds %q", token)
		}
	}
}
