package interop

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// RFC 7009 through us, in front of a real server: what it does is in force here before the client hears so, and what it
// refuses is refused. The bound is far away, so that nothing but the revocation can end a token.
//
// Covers: PXY-08 PXY-09 T28
func TestRevocationPassesThrough(t *testing.T) {
	t.Parallel()
	as := startOIDCProvider(t)
	f := hall{bound: "10m", issuer: []string{"introspection_endpoint: " + as.introspection(), "revocation_endpoint: " + as.issuer + "/token/revocation",
		secretAuth(t, "client_secret_basic", "rs", "rs-secret")}, callers: ordersCalls, events: []string{"revoke: [{issuer: main, path: /revoke/main}]"}}.open(t)
	revoke := func(client, token string) (int, http.Header, string) {
		form := url.Values{"token": {token}}
		secret := client + "-secret"
		if client == "public" { // has none: it only names itself
			form.Set("client_id", client)
			client = ""
		}
		status, header, body := postAs(t, f.events+"/revoke/main", client, secret, form)
		return status, header, string(body)
	}
	remembered := func(t *testing.T) string {
		t.Helper()
		token := as.token(t, "ann", forAPI)
		f.lives(t, "a new token", token)
		return token
	}

	t.Run("the server's own revocation is not seen before the bound", func(t *testing.T) { // else the rest shows nothing
		token := remembered(t)
		as.revoke(t, "ann", token)
		f.lives(t, "what was revoked behind our back", token)
	})
	t.Run("through us it is refused at once", func(t *testing.T) {
		for range 20 {
			token, other := remembered(t), remembered(t)
			if status, _, body := revoke("ann", token); status != http.StatusOK || body != "" {
				t.Fatalf("%d %q", status, body)
			}
			answered := time.Now()
			f.dead(t, "revoked through us", token)
			if took := time.Since(answered); took > patience {
				t.Errorf("two questions took %v", took)
			}
			if body := post(t, as.introspection(), "rs", url.Values{"token": {token}}, http.StatusOK); strings.TrimSpace(string(body)) != inactive {
				t.Errorf("the server itself: %s", body)
			}
			f.lives(t, "another token of the same client", other)
			if status, _, _ := revoke("ann", token); status != http.StatusOK { // RFC 7009 §2.2
				t.Errorf("again: %d", status)
			}
		}
	})
	t.Run("an unknown token", func(t *testing.T) {
		if status, _, body := revoke("ann", "never-issued"); status != http.StatusOK || body != "" {
			t.Errorf("%d %q", status, body)
		}
	})
	t.Run("a token in the JWT format", func(t *testing.T) { // RFC 7009 §2.2.1
		status, header, body := revoke("ann", as.token(t, "ann", forJWT))
		if status != http.StatusBadRequest || !strings.Contains(body, `"unsupported_token_type"`) || !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
			t.Errorf("%d %v %s", status, header, body)
		}
	})
	t.Run("a foreign client's token", func(t *testing.T) {
		token := remembered(t)
		if status, _, body := revoke("service", token); status != http.StatusBadRequest || !strings.Contains(body, "error") {
			t.Errorf("another client: %d %s", status, body)
		}
		f.lives(t, "what another client may not revoke", token)
		if status, _, _ := revoke("public", token); status != http.StatusOK { // this server says so, and does nothing
			t.Errorf("a client without a secret: %d", status)
		}
		f.lives(t, "what a client without a secret may not revoke", token)
	})
	t.Run("a wrong secret", func(t *testing.T) {
		token := remembered(t)
		status, header, _ := postAs(t, f.events+"/revoke/main", "ann", "wrong", url.Values{"token": {token}})
		if status != http.StatusUnauthorized || header.Get("WWW-Authenticate") == "" {
			t.Errorf("%d %v", status, header)
		}
		f.lives(t, "what nobody revoked", token)
	})
	t.Run("the server is gone", func(t *testing.T) {
		token := remembered(t)
		as.stop()
		if status, header, _ := revoke("ann", token); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
			t.Errorf("%d %v", status, header)
		}
	})
}
