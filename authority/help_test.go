package authority

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

const (
	verifier = "a-code-verifier-of-at-least-forty-three-characters"
	callback = "http://127.0.0.1:1/callback"
)

// example is an authority with one client of each kind and one user; its issuer does not depend on a port.
func example() Config {
	return Config{
		Issuer: "http://127.0.0.1:9000",
		Clients: []Client{
			{ID: "rs", Secret: "rs secret+%/", Introspects: true},
			{ID: "job", Secret: "job-secret", AuthMethod: "client_secret_post", Scopes: []string{"orders:read", "orders:write"}, Audience: []string{"https://api.example"}},
			{ID: "web", Secret: "web-secret", RedirectURIs: []string{callback}, Scopes: []string{"openid", "orders:read"}, Audience: []string{"https://api.example", "https://other.example"}},
			{ID: "cli", RedirectURIs: []string{callback}, Scopes: []string{"orders:read"}},
		},
		Users: []User{{Name: "ann", Password: "correct horse"}},
	}
}

// peer is a server under test and the ways to talk to it.
type peer struct {
	*testing.T
	url    string
	client *http.Client
}

func start(t *testing.T, c Config) (*Authority, peer) {
	t.Helper()
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a, serve(t, c, a)
}

func serve(t *testing.T, c Config, h http.Handler) peer {
	t.Helper()
	socket, err := c.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	_ = server.Listener.Close()
	server.Listener = socket
	server.Start()
	t.Cleanup(server.Close)
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return peer{t, server.URL, client}
}

// reply is an answer read whole.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) json(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Fatalf("%d %q is no JSON object: %v", r.status, r.body, err)
	}
	return m
}

func (p peer) try(method, path, user, secret string, form url.Values) (reply, error) {
	p.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, p.url+path, body)
	if err != nil {
		p.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if user != "" {
		r.SetBasicAuth(url.QueryEscape(user), url.QueryEscape(secret)) // RFC 6749 §2.3.1
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	read, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header, string(read)}, err
}

func (p peer) do(method, path, user, secret string, form url.Values) reply {
	p.Helper()
	r, err := p.try(method, path, user, secret, form)
	if err != nil {
		p.Fatal(err)
	}
	return r
}

// want fails unless the answer has that status.
func (p peer) want(status int, r reply) reply {
	p.Helper()
	if r.status != status {
		p.Fatalf("status %d %s, want %d", r.status, r.body, status)
	}
	return r
}

func (p peer) introspect(token string) map[string]any {
	p.Helper()
	return p.want(200, p.do("POST", introspectPath, "rs", "rs secret+%/", url.Values{"token": {token}})).json(p.T)
}

func (p peer) active(token string) bool { p.Helper(); return p.introspect(token)["active"] == true }

// job gets a token by client_credentials with client_secret_post.
func (p peer) job(scope string) string {
	p.Helper()
	return text(p.T, p.want(200, p.do("POST", tokenPath, "", "", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"job"}, "client_secret": {"job-secret"}, "scope": {scope}})), "access_token")
}

func (p peer) revokeJob(token string) reply {
	p.Helper()
	return p.do("POST", revokePath, "", "", url.Values{"token": {token}, "client_id": {"job"}, "client_secret": {"job-secret"}})
}

// request is an authorization request as web makes it.
func request(client string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	return url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {callback}, "scope": {"orders:read"}, "state": {"s1"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
}

// code logs ann in with one POST.
func (p peer) code(client string) string {
	p.Helper()
	form := request(client)
	form.Set("username", "ann")
	form.Set("password", "correct horse")
	return p.redirected(p.want(303, p.do("POST", "/authorize", "", "", form))).Get("code")
}

func (p peer) redirected(r reply) url.Values {
	p.Helper()
	target, err := url.Parse(r.header.Get("Location"))
	if err != nil || !strings.HasPrefix(target.String(), callback+"?") {
		p.Fatalf("redirected to %q (%v)", target, err)
	}
	return target.Query()
}

func redemption(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}}
}

// web logs ann in and redeems the code.
func (p peer) web() (access, refresh string) {
	p.Helper()
	r := p.want(200, p.do("POST", tokenPath, "web", "web-secret", redemption(p.code("web"))))
	return text(p.T, r, "access_token"), text(p.T, r, "refresh_token")
}

func (p peer) refresh(token string) reply {
	p.Helper()
	return p.do("POST", tokenPath, "web", "web-secret", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

func text(t *testing.T, r reply, member string) string {
	t.Helper()
	s, _ := r.json(t)[member].(string)
	if s == "" {
		t.Fatalf("no %s in %d", member, r.status)
	}
	return s
}

func file(t *testing.T) string { return filepath.Join(t.TempDir(), "an odd?name#100%.db") }
