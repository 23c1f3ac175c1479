package interop

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// browser is ann's, with a session of her own at an oidc-provider.
type browser struct {
	as     *oidcProvider
	client *http.Client
}

// errCallback ends a walk at the client's redirect URI, where nobody listens.
var errCallback = errors.New("the client's redirect URI")

func (as *oidcProvider) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{as, &http.Client{Jar: jar, Timeout: patience, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/callback" {
			return errCallback
		}
		return nil
	}}}
}

// login gets ann's tokens for a client by the authorization code flow with PKCE.
func (b *browser) login(t *testing.T, client string) (access, identity string) {
	t.Helper()
	const callback, verifier = "http://127.0.0.1/callback", "a-code-verifier-of-at-least-forty-three-characters"
	challenge := sha256.Sum256([]byte(verifier))
	_, err := b.client.Get(b.as.issuer + "/auth?" + url.Values{"client_id": {client}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"}}.Encode())
	var at *url.Error
	if !errors.As(err, &at) || !errors.Is(err, errCallback) {
		t.Fatalf("no code: %v", err)
	}
	back, err := url.Parse(at.URL)
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("no code: %s", at.URL)
	}
	var answer struct {
		Access string `json:"access_token"`
		ID     string `json:"id_token"`
	}
	body := post(t, b.as.issuer+"/token", client, url.Values{"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {callback}, "code_verifier": {verifier}}, http.StatusOK)
	if err := json.Unmarshal(body, &answer); err != nil || answer.Access == "" || answer.ID == "" {
		t.Fatalf("no tokens: %v", err)
	}
	b.as.issued = append(b.as.issued, answer.Access)
	return answer.Access, answer.ID
}

var xsrf = regexp.MustCompile(`name="xsrf" value="([^"]+)"`)

// logout ends the session, as ann does who says yes (OpenID Connect RP-Initiated Logout 1.0). The server announces it
// to every client of the session before it answers.
func (b *browser) logout(t *testing.T, identity string) {
	t.Helper()
	read := func(r *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v", r.Request.URL.Path, r.Status, err)
		}
		return string(body)
	}
	form := xsrf.FindStringSubmatch(read(b.client.Get(b.as.issuer + "/session/end?id_token_hint=" + url.QueryEscape(identity))))
	if form == nil {
		t.Fatal("the server asks for no confirmation")
	}
	read(b.client.PostForm(b.as.issuer+"/session/end/confirm", url.Values{"xsrf": {form[1]}, "logout": {"yes"}}))
}

// oidc-provider tells us of every session that ends, within the user's own logout. The bound is far away, so that nothing
// but the logout token can end an access token.
//
// Covers: SIG-22 T28
func TestOIDCProviderLogsOut(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	as := startOIDCProvider(t, "LOGOUT_URI=http://"+address+"/logout")
	f := hall{bound: farAway, issuer: []string{"issuer: " + as.issuer, "skew: 0s", secretAuth(t, "client_secret_basic", "rs", "rs-secret")}, callers: ordersCalls,
		address: address, events: []string{"back_channel_logout: [{issuer: main, path: /logout/app, audience: app}, {issuer: main, path: /logout/app-sub, audience: app-sub}]"}}.open(t)
	direct := func(token string) string {
		return strings.TrimSpace(string(post(t, as.introspection(), "rs", url.Values{"token": {token}}, http.StatusOK)))
	}
	sessions := func(t *testing.T, client string) (phone *browser, identity, lost, kept string) {
		phone = as.browser(t)
		lost, identity = phone.login(t, client)
		kept, _ = as.browser(t).login(t, client)
		f.lives(t, "the session that will end", lost)
		f.lives(t, "the session that will not", kept)
		return phone, identity, lost, kept
	}
	t.Run("a session of two", func(t *testing.T) {
		for range 20 {
			phone, identity, lost, kept := sessions(t, "app")
			phone.logout(t, identity)
			f.dead(t, "the session that ended", lost)
			if body := direct(lost); body != inactive {
				t.Errorf("the server itself: %s", body)
			}
			before := f.asked(t)
			f.lives(t, "the session that did not", kept)
			if after := f.asked(t); after != before {
				t.Errorf("the server was asked %d times about the session that goes on", after-before)
			}
			again, _ := phone.login(t, "app")
			f.lives(t, "a session of afterwards", again)
		}
	})
	t.Run("a logout token that names no session", func(t *testing.T) { // means the user's every one (§2.6), whatever the server ended
		phone, identity, lost, kept := sessions(t, "app-sub")
		phone.logout(t, identity)
		f.dead(t, "the session that ended", lost)
		f.lives(t, "one of a second ago, about which the server is asked", kept)

		phone, identity, lost, kept = sessions(t, "app-sub")
		time.Sleep(2200 * time.Millisecond) // they are older than the zone of doubt, which is a second here
		phone.logout(t, identity)
		f.dead(t, "the session that ended", lost)
		f.dead(t, "the other one", kept)
		again, _ := phone.login(t, "app-sub")
		f.lives(t, "a session of afterwards", again)
	})
	t.Run("both clients of one session", func(t *testing.T) { // each has its own logout token
		phone := as.browser(t)
		one, identity := phone.login(t, "app")
		two, _ := phone.login(t, "app-sub")
		f.lives(t, "the first client's token", one)
		f.lives(t, "the second client's token", two)
		phone.logout(t, identity)
		f.dead(t, "the first client's token", one)
		f.dead(t, "the second client's token", two)
	})
	t.Run("a logout that we do not hear of", func(t *testing.T) { // else the rest shows nothing
		phone := as.browser(t)
		token, _ := phone.login(t, "app")
		f.lives(t, "a new token", token)
		as.revoke(t, "app", token)
		if body := direct(token); body != inactive {
			t.Errorf("the server itself: %s", body)
		}
		f.lives(t, "what nobody announced", token)
	})
	for _, token := range as.issued {
		if strings.Contains(f.tail(1<<20), token) {
			t.Error("a token is in the log")
		}
	}
	if err := f.heard("none", "refused", 1)(); err == nil {
		t.Errorf("a logout token is refused:\n%s", f.tail(2000))
	}
}
