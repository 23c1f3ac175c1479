package interop

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
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

// TestOIDCProviderClosesIdleConnections: Node closes an idle connection when it likes, also at the moment at which we
// put the next question on it. That costs a fresh connection, not an outage. Here every reuse loses this race.
func TestOIDCProviderClosesIdleConnections(t *testing.T) {
	t.Parallel()
	as := startOIDCProvider(t)
	relay, connections := onceEach(t, strings.TrimPrefix(as.issuer, "http://"))
	f := newFront(t, []string{"introspection_endpoint: http://" + relay + "/token/introspection", secretAuth(t, "client_secret_basic", "rs", "rs-secret")}, ordersCalls)
	const questions = 10
	for i := range questions {
		token := as.token(t, "ann", forAPI)
		if status, _, body := f.asks(t, token); status != http.StatusOK || !strings.Contains(string(body), `"active":true`) {
			t.Fatalf("question %d: %d %s", i, status, body)
		}
	}
	if n := connections.Load(); n != questions {
		t.Errorf("%d questions took %d connections, want one each", questions, n)
	}
}

// onceEach relays to address. Each connection carries one exchange, says nothing of its end, and is closed when the
// next question arrives on it.
func onceEach(t *testing.T, address string) (relay string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	connections = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer c.Close()
				from := bufio.NewReader(c)
				if relayOnce(from, c, address) == nil { // else the question gets no answer, which is seen there
					_, _ = from.Peek(1)
				}
			}()
		}
	}()
	return l.Addr().String(), connections
}

// relayOnce hands one request on to address and its answer back. The answer does not say that the connection ends.
func relayOnce(from *bufio.Reader, to io.Writer, address string) error {
	req, err := http.ReadRequest(from)
	if err != nil {
		return err
	}
	req.RequestURI, req.URL.Scheme, req.URL.Host = "", "http", address
	answer, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return answer.Write(to)
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
