package authority

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestREV01ClientCredentials(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	token := p.job("orders:read orders:write")
	if !strings.HasPrefix(token, TokenPrefix) {
		t.Fatal("token has not the prefix")
	}
	got := p.introspect(token)
	for member, want := range map[string]any{
		"active": true, "sub": "job", "client_id": "job", "scope": "orders:read orders:write", "iss": "http://127.0.0.1:9000",
		"aud": "https://api.example", "token_type": "Bearer",
	} {
		if got[member] != want {
			t.Errorf("%s = %v, want %v", member, got[member], want)
		}
	}
	if exp, iat := got["exp"].(float64), got["iat"].(float64); exp-iat != 300 {
		t.Errorf("exp-iat = %v, want 300", exp-iat)
	}
	if p.active(token[:len(token)-1]) {
		t.Error("a shortened token is active")
	}
	p.want(400, p.do("POST", tokenPath, "", "", url.Values{"grant_type": {"client_credentials"}, "client_id": {"job"}, "client_secret": {"job-secret"}, "scope": {"admin"}}))
	p.want(401, p.do("POST", tokenPath, "job", "job-secret", url.Values{"grant_type": {"client_credentials"}})) // not its method
}

func TestREV01UnknownTokenIsInactiveAndNothingElse(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	for _, token := range []string{"nonsense", TokenPrefix, "wwat_ABC", "a.b.c", strings.Repeat("x", 9000)} {
		if r := p.do("POST", introspectPath, "rs", "rs secret+%/", url.Values{"token": {token}}); r.status != 200 || strings.TrimSpace(r.body) != `{"active":false}` {
			t.Errorf("%.20q: %d %s", token, r.status, r.body)
		}
	}
	p.want(400, p.do("POST", introspectPath, "rs", "rs secret+%/", url.Values{}))
	p.want(405, p.do("GET", introspectPath+"?token=x", "rs", "rs secret+%/", nil))
	p.want(413, p.do("POST", introspectPath, "rs", "rs secret+%/", url.Values{"token": {strings.Repeat("x", maxForm)}}))
}

func TestREV01WrongCaller(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	token := p.job("orders:read")
	form := url.Values{"token": {token}}
	for _, c := range [][2]string{{"", ""}, {"rs", "wrong"}, {"rs", ""}, {"nobody", "rs secret+%/"}, {"job", "job-secret"}} {
		r := p.want(401, p.do("POST", introspectPath, c[0], c[1], form))
		if r.json(t)["error"] != "invalid_client" || !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%q: %s, challenge %q", c[0], r.body, r.header.Get("WWW-Authenticate"))
		}
	}
	// Authenticated, but no resource server: RFC 7662 §2.2 says inactive, not an error.
	if p.want(200, p.do("POST", introspectPath, "web", "web-secret", form)).json(t)["active"] != false {
		t.Error("a client that may not introspect learns about a token")
	}
	public := url.Values{"token": {token}, "client_id": {"cli"}}
	if p.want(200, p.do("POST", introspectPath, "", "", public)).json(t)["active"] != false {
		t.Error("a public client learns about a token")
	}
}

func TestREV01ScriptedLogin(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	form := request("web")
	form.Set("username", "ann")
	form.Set("password", "correct horse")
	form.Set("scope", "openid orders:read")
	back := p.redirected(p.want(303, p.do("POST", "/authorize", "", "", form)))
	if back.Get("state") != "s1" || back.Get("iss") != "http://127.0.0.1:9000" {
		t.Errorf("came back with %v", back)
	}
	r := p.want(200, p.do("POST", tokenPath, "web", "web-secret", redemption(back.Get("code"))))
	if text(t, r, "id_token") == "" {
		t.Error("no id token")
	}
	got := p.introspect(text(t, r, "access_token"))
	if got["active"] != true || got["sub"] != "ann" || got["username"] != "ann" || got["client_id"] != "web" || fmt.Sprint(got["aud"]) != "[https://api.example https://other.example]" {
		t.Errorf("introspected %v", got)
	}
	if p.active(text(t, r, "refresh_token")) || p.active(text(t, r, "id_token")) {
		t.Error("what is no access token is active")
	}
}

func TestREV01PublicClientLogin(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	form := redemption(p.code("cli"))
	form.Set("client_id", "cli")
	got := p.introspect(text(t, p.want(200, p.do("POST", tokenPath, "", "", form)), "access_token"))
	if got["sub"] != "ann" || got["client_id"] != "cli" || got["aud"] != nil {
		t.Errorf("introspected %v", got)
	}
	p.want(401, p.do("POST", tokenPath, "", "", url.Values{"grant_type": {"client_credentials"}, "client_id": {"cli"}}))
}

func TestREV01LoginForm(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	page := p.want(200, p.do("GET", "/authorize?"+request("web").Encode(), "", "", nil))
	action := regexp.MustCompile(`action="([^"]+)"`).FindStringSubmatch(page.body)
	if action == nil {
		t.Fatalf("no form in %s", page.body)
	}
	wrong := p.want(403, p.do("POST", action[1], "", "", url.Values{"username": {"ann"}, "password": {"guess"}}))
	if !strings.Contains(wrong.body, "Wrong user or password") || strings.Contains(wrong.body, "guess") {
		t.Error(wrong.body)
	}
	p.want(403, p.do("POST", action[1], "", "", url.Values{"username": {"bob"}, "password": {"correct horse"}}))
	p.want(200, p.do("GET", action[1]+"?username=ann&password=correct+horse", "", "", nil)) // a URL carries no password
	right := url.Values{"username": {"ann"}, "password": {"correct horse"}}
	back := p.redirected(p.want(303, p.do("POST", action[1], "", "", right)))
	p.want(200, p.do("POST", tokenPath, "web", "web-secret", redemption(back.Get("code"))))
	p.want(400, p.do("POST", action[1], "", "", right)) // a login that is over

	silent := request("web")
	silent.Set("prompt", "none")
	if got := p.redirected(p.want(303, p.do("GET", "/authorize?"+silent.Encode(), "", "", nil))).Get("error"); got != "login_required" {
		t.Errorf("prompt=none: %q", got)
	}
}

func TestREV01CodeNeedsItsVerifierAndWorksOnce(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	bare := request("web")
	bare.Del("code_challenge")
	if got := p.redirected(p.want(303, p.do("GET", "/authorize?"+bare.Encode(), "", "", nil))).Get("error"); got != "invalid_request" {
		t.Errorf("without PKCE: %q", got)
	}
	foreign := request("web")
	foreign.Set("redirect_uri", "http://evil.example/")
	p.want(400, p.do("GET", "/authorize?"+foreign.Encode(), "", "", nil))

	form := redemption(p.code("web"))
	form.Set("code_verifier", strings.Repeat("x", 43))
	p.want(400, p.do("POST", tokenPath, "web", "web-secret", form))

	form = redemption(p.code("web"))
	token := text(t, p.want(200, p.do("POST", tokenPath, "web", "web-secret", form)), "access_token")
	p.want(400, p.do("POST", tokenPath, "web", "web-secret", form))
	if p.active(token) { // RFC 6749 §4.1.2: a replay takes back what the code gave
		t.Error("active after its code was replayed")
	}
}

// winners is how many of twelve equal requests at once succeed.
func winners(p peer, form url.Values) int {
	var wins atomic.Int32
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			if r, err := p.try("POST", tokenPath, "web", "web-secret", form); err == nil && r.status == 200 {
				wins.Add(1)
			}
		})
	}
	all.Wait()
	return int(wins.Load())
}

func TestREV01CodesAndRefreshTokensHaveOneWinner(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	for range 4 {
		if n := winners(p, redemption(p.code("web"))); n != 1 {
			t.Errorf("%d redemptions of one code, want 1", n)
		}
		_, refresh := p.web()
		if n := winners(p, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}); n != 1 {
			t.Errorf("%d refreshes with one token, want 1", n)
		}
	}
}

func TestREV01RefreshRotates(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	access, old := p.web()
	r := p.want(200, p.refresh(old))
	second, next := text(t, r, "access_token"), text(t, r, "refresh_token")
	if got := p.introspect(second); got["active"] != true || got["sub"] != "ann" || got["scope"] != "orders:read" {
		t.Errorf("introspected %v", got)
	}
	if second == access || next == old {
		t.Error("nothing new")
	}
	p.want(400, p.refresh(old))
	p.want(400, p.do("POST", tokenPath, "web", "web-secret", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {next}, "scope": {"openid"}})) // not granted
	p.want(200, p.refresh(next))
}

func TestREV01RevokedIsInactive(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	token, other := p.job("orders:read"), p.job("orders:read")
	if !p.active(token) {
		t.Fatal("inactive before")
	}
	p.want(403, p.do("POST", revokePath, "web", "web-secret", url.Values{"token": {token}}))
	if !p.active(token) {
		t.Fatal("another client revoked it")
	}
	p.want(401, p.do("POST", revokePath, "web", "wrong", url.Values{"token": {token}}))
	for range 2 { // RFC 7009 §2.2: an invalid token is no error
		p.want(200, p.revokeJob(token))
	}
	p.want(200, p.revokeJob("unknown"))
	if p.active(token) {
		t.Error("active after revocation")
	}
	if !p.active(other) {
		t.Error("revocation took another token along")
	}
}

func TestREV01RevokedRefreshTokenTakesItsAccessTokens(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	access, refresh := p.web()
	p.want(200, p.do("POST", revokePath, "web", "web-secret", url.Values{"token": {refresh}, "token_type_hint": {"access_token"}})) // a wrong hint
	if p.active(access) {
		t.Error("active after its refresh token was revoked")
	}
	p.want(400, p.refresh(refresh))
}

func TestREV01DiscoveryAtBothPlaces(t *testing.T) {
	t.Parallel()
	_, p := start(t, example())
	oauth := p.want(200, p.do("GET", oauthPath, "", "", nil))
	if openID := p.want(200, p.do("GET", openIDPath, "", "", nil)); oauth.body != openID.body {
		t.Error("the two documents differ")
	}
	got := oauth.json(t)
	for member, want := range map[string]string{
		"issuer": "http://127.0.0.1:9000", "token_endpoint": "http://127.0.0.1:9000/token", "jwks_uri": "http://127.0.0.1:9000/jwks",
		"introspection_endpoint": "http://127.0.0.1:9000/introspect", "revocation_endpoint": "http://127.0.0.1:9000/revoke",
		"authorization_endpoint": "http://127.0.0.1:9000/authorize",
	} {
		if got[member] != want {
			t.Errorf("%s = %v, want %s", member, got[member], want)
		}
	}
	for member, want := range map[string]string{
		"introspection_endpoint_auth_methods_supported": "client_secret_basic", "code_challenge_methods_supported": "S256", "grant_types_supported": "refresh_token",
	} {
		if !strings.Contains(fmt.Sprint(got[member]), want) {
			t.Errorf("%s = %v, want %s in it", member, got[member], want)
		}
	}
	keys := p.want(200, p.do("GET", "/jwks", "", "", nil))
	if !strings.Contains(keys.body, `"crv":"P-256"`) || strings.Contains(keys.body, `"d":`) {
		t.Error("/jwks shows no public key, or a private one")
	}
}

func TestREV01RefusesWhatIsNotLoopback(t *testing.T) {
	t.Parallel()
	c := example()
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "127.0.0.1", "127.1:0"} {
		if socket, err := c.Listen(address); err == nil {
			_ = socket.Close()
			t.Errorf("%q: listened on %s", address, socket.Addr())
		}
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0", "127.8.8.8:0"} {
		socket, err := c.Listen(address)
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		_ = socket.Close()
	}

	// Served from somebody else's socket: what counts is where the request came in.
	a, p := start(t, c)
	token := p.job("orders:read")
	arrive := func(h http.Handler, local net.Addr) int {
		r := httptest.NewRequest("POST", introspectPath, strings.NewReader(url.Values{"token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("rs", "rs secret+%/")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local)))
		return w.Code
	}
	outside := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}
	if got := arrive(a, outside); got != 403 {
		t.Errorf("from outside: %d, want 403", got)
	}
	for _, local := range []net.Addr{&net.TCPAddr{IP: net.IPv6loopback}, &net.TCPAddr{IP: net.ParseIP("::ffff:127.0.0.1")}, &net.UnixAddr{Name: "/run/as.sock", Net: "unix"}} {
		if got := arrive(a, local); got != 200 {
			t.Errorf("from %v: %d, want 200", local, got)
		}
	}
	c.DangerouslyListenAnywhere = true
	told, _ := start(t, c)
	if got := arrive(told, outside); got != 200 {
		t.Errorf("told otherwise, from outside: %d, want 200", got)
	}
	socket, err := c.Listen("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = socket.Close()
}

func TestREV01TokensEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := example()
		c.AccessTokenLifetime = 10 * time.Second
		a, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		post := func(path, user, secret string, form url.Values) reply {
			r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if user != "" {
				r.SetBasicAuth(user, secret)
			}
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			return reply{w.Code, w.Header(), w.Body.String()}
		}
		issue := func() string {
			return text(t, post(tokenPath, "", "", url.Values{"grant_type": {"client_credentials"}, "client_id": {"job"}, "client_secret": {"job-secret"}}), "access_token")
		}
		active := func(token string) any {
			return post(introspectPath, "rs", "rs secret+%/", url.Values{"token": {token}}).json(t)["active"]
		}
		token := issue()
		time.Sleep(9 * time.Second)
		if active(token) != true {
			t.Error("inactive before its end")
		}
		time.Sleep(time.Second)
		if active(token) != false {
			t.Error("active at its end")
		}
		time.Sleep(10 * time.Minute)
		issue() // sweeps
		var rows int
		if err := a.store.read.QueryRow(`SELECT (SELECT count(*) FROM access_token) + (SELECT count(*) FROM approval)`).Scan(&rows); err != nil || rows != 2 {
			t.Errorf("%d rows (%v), want those of the new token alone", rows, err)
		}
	})
}

func TestMistakesAreNamedTogether(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Issuer: "http://127.0.0.1:9000/", AccessTokenLifetime: -time.Second, RefreshTokenLifetime: time.Millisecond,
		Clients: []Client{{ID: "a b", Secret: "hush"}, {ID: "x"}, {ID: "x", Secret: "hush", AuthMethod: "none"}, {ID: "y", Secret: "hush", Scopes: []string{"a b"}},
			{ID: "z", Secret: "hush", RedirectURIs: []string{"/relative"}}, {ID: "q", Introspects: true}},
		Users: []User{{Name: "x", Password: "hush"}, {Name: "ann"}},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"Issuer", "AccessTokenLifetime -1s", "RefreshTokenLifetime 1ms", "Clients[0]: ID", "Clients[1]: neither", "Clients[2]: AuthMethod",
		"Clients[2]: ID \"x\" is taken", "Clients[3]: scope", "Clients[4]: redirect", "Clients[5]: Introspects", "Users[0]: Name", "Users[1] needs"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hush") {
		t.Error("a secret is in the error")
	}
	if _, err := New(Config{Issuer: "http://127.0.0.1:9000"}); err == nil || !strings.Contains(err.Error(), "Clients is empty") {
		t.Errorf("no clients: %v", err)
	}
}

// TestNothingIsPrinted is not parallel: it looks at the process's default logger.
func TestNothingIsPrinted(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	c := example()
	_, p := start(t, c)
	p.web()
	if log.Len() > 0 {
		t.Errorf("logged %s", log.String())
	}
	encoded, err := json.Marshal(c.Clients)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %x", c, c, c, c.Users), string(encoded)} {
		if strings.Contains(s, "job-secret") || strings.Contains(s, "correct horse") || !strings.Contains(s, "REDACTED") {
			t.Errorf("printed %s", s)
		}
	}
}
