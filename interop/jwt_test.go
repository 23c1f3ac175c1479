package interop

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A real server's signed introspection answers (RFC 9701), and its JWT access tokens (RFC 9068).
//
// Covers: JIR-01 JIR-04 JWT-01 T28
func TestOIDCProviderSigns(t *testing.T) {
	t.Parallel()
	key, jwks := newKey(t)
	encryption := strings.Replace(jwks, `"alg":"RS256","use":"sig"`, `"alg":"RSA-OAEP-256","use":"enc"`, 1)
	as := startOIDCProvider(t, "ENC_JWKS="+encryption)
	endpoint, issuer := "introspection_endpoint: "+as.introspection(), "issuer: "+as.issuer
	direct := func(token string) []byte {
		return post(t, as.introspection(), "rs", url.Values{"token": {token}}, http.StatusOK)
	}

	t.Run("signed answers", func(t *testing.T) {
		f := newFront(t, []string{endpoint, issuer, secretAuth(t, "client_secret_basic", "rs", "rs-secret"), "introspection_response: {signed: true}"}, ordersCalls)
		token := as.token(t, "ann", forAPI)
		f.faithful(t, direct(token), token)
		f.exits(t, token, 0, "ok")
		f.dead(t, "never issued", "never-issued")
		as.revoke(t, "ann", token)
		f.dies(t, "revocation", token, time.Now().Add(staleness))
	})
	t.Run("signed answers for somebody else", func(t *testing.T) {
		f := newFront(t, []string{endpoint, issuer, secretAuth(t, "client_secret_basic", "rs", "rs-secret"), "introspection_response: {signed: true, audience: rs-post}"}, ordersCalls)
		f.nobodyKnows(t, "an answer for another audience", as.token(t, "ann", forAPI))
	})
	t.Run("encrypted answers", func(t *testing.T) {
		f := newFront(t, []string{endpoint, issuer, secretAuth(t, "client_secret_basic", "rs-enc", "rs-enc-secret"),
			fmt.Sprintf("introspection_response: {signed: true, decryption_key: {file: %s}}", key)}, ordersCalls)
		token := as.token(t, "ann", forAPI)
		f.faithful(t, direct(token), token)
		f.exits(t, token, 0, "ok")
	})
	t.Run("encryption required and missing", func(t *testing.T) {
		f := newFront(t, []string{endpoint, issuer, secretAuth(t, "client_secret_basic", "rs", "rs-secret"),
			fmt.Sprintf("introspection_response: {signed: true, decryption_key: {file: %s}}", key)}, ordersCalls)
		f.nobodyKnows(t, "an answer that is not encrypted", as.token(t, "ann", forAPI))
	})
	t.Run("JWT access tokens verified here alone", func(t *testing.T) {
		f := newFrontWithin(t, "until_expiry", []string{issuer, "introspection_endpoint: none", "jwt: {mode: local_first}"}, ordersCalls)
		token := as.token(t, "ann", forJWT)
		f.ready(t, patience, f.discovered)
		if r := f.knocks(t, token); r.status != http.StatusOK || r.header.Get("X-Auth-Subject") != "ann" {
			t.Errorf("forward-auth door: %d, X-Auth-Subject %q", r.status, r.header.Get("X-Auth-Subject"))
		}
		f.exits(t, token, 0, "ok")
		f.dead(t, "a changed signature", token[:len(token)-8]+"AAAAAAAA")
		f.dead(t, "padding", token+"=")
		f.dead(t, "an opaque token", as.token(t, "ann", forAPI))
	})
	t.Run("young JWT access tokens verified here", func(t *testing.T) {
		// This server does not introspect JWTs, so what is accepted was verified, and what is too old is nobody's to know.
		f := newFrontWithin(t, "3s", []string{issuer, endpoint, "skew: 0s", secretAuth(t, "client_secret_basic", "rs", "rs-secret"), "jwt: {mode: local_first}"}, ordersCalls)
		var token string
		f.ready(t, patience, func() error {
			token = as.token(t, "ann", forJWT)
			if r := f.knocks(t, token); r.status != http.StatusOK {
				return fmt.Errorf("%d", r.status) // the keys are still on their way
			}
			return nil
		})
		f.ready(t, patience, func() error {
			if r := f.knocks(t, token); r.status != http.StatusServiceUnavailable {
				return fmt.Errorf("%d", r.status)
			}
			return nil
		})
		opaque := as.token(t, "ann", forAPI)
		f.faithful(t, direct(opaque), opaque)
	})
}
