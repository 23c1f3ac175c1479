package interop

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Covers: INT-01 CAU-01 CAU-02 DSC-02 T28
func TestOIDCProvider(t *testing.T) {
	t.Parallel()
	key, jwks := newKey(t)
	as := startOIDCProvider(t, "RS_JWKS="+jwks)
	endpoint, basic := "introspection_endpoint: "+as.introspection(), secretAuth(t, "client_secret_basic", "rs", "rs-secret")
	f := newFront(t, []string{endpoint, basic}, ordersCalls)
	direct := func(token string) []byte {
		return post(t, as.introspection(), "rs", url.Values{"token": {token}}, http.StatusOK)
	}

	t.Run("active", func(t *testing.T) {
		for _, token := range []string{
			as.token(t, "ann", forAPI), as.token(t, "ann", "", "orders:read"), as.token(t, "service", forOther),
		} {
			f.faithful(t, direct(token), token)
			f.exits(t, token, 0, "ok")
		}
	})
	t.Run("revoked", func(t *testing.T) {
		token := as.token(t, "ann", forAPI)
		f.faithful(t, direct(token), token)
		as.revoke(t, "ann", token)
		f.dies(t, "revocation", token, time.Now().Add(staleness))
		f.exits(t, token, 3, "inactive")
	})
	t.Run("expired", func(t *testing.T) {
		token := as.token(t, "brief", forAPI)
		f.dies(t, "exp", token, time.Now().Add(3*time.Second))
	})
	t.Run("garbage", func(t *testing.T) {
		f.dead(t, "never issued", "never-issued")
		f.dead(t, "an overlong token", strings.Repeat("x", 20<<10))
	})
	t.Run("a token in the JWT format", func(t *testing.T) { // 400 unsupported_token_type: a mistake of ours, no outage
		token := as.token(t, "ann", forJWT)
		f.nobodyKnows(t, "a JWT", token)
		f.exits(t, token, 4, "misconfigured")
	})
	t.Run("wrong secret", func(t *testing.T) {
		wrong := newFront(t, []string{endpoint, secretAuth(t, "client_secret_basic", "rs", "wrong")}, ordersCalls)
		token := as.token(t, "ann", forAPI)
		wrong.nobodyKnows(t, "our credential refused", token)
		wrong.exits(t, token, 4, "misconfigured")
	})
	t.Run("ways to authenticate", func(t *testing.T) {
		for _, lines := range [][]string{
			{endpoint, secretAuth(t, "client_secret_post", "rs-post", "rs-post-secret")},
			{"issuer: " + as.issuer, basic}, // discovery
			{"issuer: " + as.issuer, endpoint, fmt.Sprintf("client_auth: {method: private_key_jwt, client_id: rs-key, private_key: {file: %s}, kid: k1, alg: RS256}", key)},
		} {
			token := as.token(t, "ann", forAPI)
			newFront(t, lines, ordersCalls).faithful(t, direct(token), token)
		}
	})
	t.Run("caller's own credential", func(t *testing.T) { providerCallersOwn(t, as) })
	t.Run("unavailable", func(t *testing.T) {
		token := as.token(t, "ann", forAPI)
		as.stop()
		f.nobodyKnows(t, "oidc-provider is dead", token)
		f.exits(t, token, 4, "unavailable")
	})
}

// providerCallersOwn: the caller's credential decides, and one caller's answer is never another's.
// Covers: PXY-01 PXY-05 T11
func providerCallersOwn(t *testing.T, as *oidcProvider) {
	f := newFront(t, []string{"introspection_endpoint: " + as.introspection(), "client_auth: {method: none}"}, asClients)
	form := url.Values{"token": {as.token(t, "ann", forAPI)}}
	for range 2 {
		if body := post(t, f.introspect, "rs", form, http.StatusOK); !strings.Contains(string(body), `"active":true`) {
			t.Errorf("rs: %s", body)
		}
		if body := post(t, f.introspect, "stranger", form, http.StatusOK); strings.TrimSpace(string(body)) != inactive {
			t.Errorf("stranger: %s", body)
		}
		status, header, body := postAs(t, f.introspect, "rs", "wrong", form)
		if status != http.StatusUnauthorized || header.Get("WWW-Authenticate") == "" || strings.Contains(string(body), "active") {
			t.Errorf("a wrong secret: %d %v %s", status, header, body)
		}
		status, header, _ = postAs(t, f.introspect, "", "", form)
		if status != http.StatusUnauthorized || header.Get("WWW-Authenticate") == "" {
			t.Errorf("no credential: %d %v", status, header)
		}
	}
}

// TestOIDCProviderClosesIdleConnections: Node closes an idle connection whenever it likes. Whether we notice in time is
// a race, and losing it must cost a retry, not an outage.
func TestOIDCProviderClosesIdleConnections(t *testing.T) {
	t.Parallel()
	as := startOIDCProvider(t, "KEEP_ALIVE_MS=20")
	f := newFront(t, []string{"introspection_endpoint: " + as.introspection(), secretAuth(t, "client_secret_basic", "rs", "rs-secret")}, ordersCalls)
	for i := range 200 {
		token := as.token(t, "ann", forAPI) // takes about as long as a connection may idle
		if status, _, body := f.asks(t, token); status != http.StatusOK || !strings.Contains(string(body), `"active":true`) {
			t.Fatalf("asking %d: %d %s", i, status, body)
		}
	}
}

// newKey makes an RSA key: a PEM file for us, and its public half as a JWK set for the authorization server.
func newKey(t *testing.T) (path, jwks string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	n, e := base64.RawURLEncoding.EncodeToString(key.N.Bytes()), base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())
	jwks = fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"k1","alg":"RS256","use":"sig","n":%q,"e":%q}]}`, n, e)
	return write(t, t.TempDir(), "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))), jwks
}
