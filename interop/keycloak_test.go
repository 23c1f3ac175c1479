package interop

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Keycloak's access tokens are JWTs that it introspects; with discovery the file names the issuer alone.
// Covers: DSC-02 INT-01 T28
func TestKeycloak(t *testing.T) {
	t.Parallel()
	k := startKeycloak(t)
	f := newFront(t, []string{"issuer: " + k.issuer(), secretAuth(t, "client_secret_basic", "rs", "rs-secret")}, ordersCalls)
	direct := func(token string) []byte {
		return post(t, k.introspection(), "rs", url.Values{"token": {token}, "token_type_hint": {"access_token"}}, http.StatusOK)
	}

	t.Run("active", func(t *testing.T) {
		token := k.login(t, "app").Access
		f.faithful(t, direct(token), token)
		f.exits(t, token, 0, "ok")
	})
	t.Run("revoked", func(t *testing.T) {
		token := k.login(t, "app").Access
		f.faithful(t, direct(token), token)
		k.revoke(t, "app", token)
		f.dies(t, "revocation", token, time.Now().Add(staleness))
		f.exits(t, token, 3, "inactive")
	})
	t.Run("logged out", func(t *testing.T) {
		ann := k.login(t, "app")
		f.faithful(t, direct(ann.Access), ann.Access)
		k.logout(t, "app", ann.Refresh)
		f.dies(t, "logout", ann.Access, time.Now().Add(staleness))
	})
	t.Run("disabled and enabled again", func(t *testing.T) { // inactive is not final
		token := k.login(t, "app").Access
		f.faithful(t, direct(token), token)
		k.enable(t, map[string]any{"enabled": false})
		f.dies(t, "the account's end", token, time.Now().Add(staleness))
		k.enable(t, map[string]any{"enabled": true})
		f.faithful(t, direct(token), token)
	})
	t.Run("expired", func(t *testing.T) {
		token := k.login(t, "brief").Access
		f.dies(t, "exp", token, time.Now().Add(3*time.Second))
	})
	t.Run("garbage", func(t *testing.T) {
		f.dead(t, "a refresh token", k.login(t, "app").Refresh)
		token := k.login(t, "app").Access
		f.dead(t, "a broken signature", token[:len(token)-8]+"AAAAAAAA")
	})
	t.Run("wrong secret", func(t *testing.T) { // 401 without WWW-Authenticate
		wrong := newFront(t, []string{"introspection_endpoint: " + k.introspection(), secretAuth(t, "client_secret_basic", "rs", "wrong")}, ordersCalls)
		token := k.login(t, "app").Access
		wrong.nobodyKnows(t, "our credential refused", token)
		wrong.exits(t, token, 4, "misconfigured")
	})
	t.Run("caller's own credential", func(t *testing.T) { callersOwn(t, k) })
	t.Run("back-channel logout", func(t *testing.T) { keycloakLogouts(t, k) })
	t.Run("a disabled user", func(t *testing.T) { keycloakDisables(t, k) })
	t.Run("security events", func(t *testing.T) { keycloakEvents(t, k) })
	t.Run("unavailable", func(t *testing.T) {
		token := k.login(t, "app").Access
		k.stop()
		f.nobodyKnows(t, "Keycloak is dead", token)
		f.exits(t, token, 4, "unavailable")
	})
}

// callersOwn: each caller gets the answer made for it. Keycloak tells a client outside the token's aud nothing, and a
// refresh token only to its own client, only with the right hint.
// Covers: PXY-05 T11
func callersOwn(t *testing.T, k *keycloak) {
	f := newFront(t, []string{"introspection_endpoint: " + k.introspection(), "client_auth: {method: none}"}, asClients)
	ann := k.login(t, "app")
	for range 2 {
		for _, c := range []struct{ client, token, hint, want string }{
			{"rs", ann.Access, "", `"active":true`},
			{"stranger", ann.Access, "", `"active":false`},
			{"app", ann.Refresh, "", `"active":false`},
			{"app", ann.Refresh, "refresh_token", `"active":true`},
			{"rs", ann.Refresh, "refresh_token", `"active":false`},
		} {
			form := url.Values{"token": {c.token}}
			if c.hint != "" {
				form.Set("token_type_hint", c.hint)
			}
			status, _, body := postAs(t, f.introspect, c.client, c.client+"-secret", form)
			if status != http.StatusOK || !strings.Contains(string(body), c.want) {
				t.Errorf("%s, hint %q: %d %s, want %s", c.client, c.hint, status, body, c.want)
			}
		}
	}
	status, _, body := postAs(t, f.introspect, "rs", "wrong", url.Values{"token": {ann.Access}})
	if status != http.StatusUnauthorized || strings.Contains(string(body), "active") {
		t.Errorf("a caller's wrong secret: %d %s", status, body)
	}
}
