package app

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
)

// Two Watchwords in series: the one signs what the other requires to be signed. Each side is the other's test of the
// file's keys.
//
// Covers: JIR-01 JIR-03 JIR-04
func TestSignedAnswersFromOneWatchwordToAnother(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	dir := t.TempDir()
	write(t, dir, "secret", "one")
	cert, _ := certificate(t, dir, "sign")
	pub := publicKey(t, cert)
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","x":%q,"y":%q}]}`, raw64(pub[1:33]), raw64(pub[33:]))
	}))
	t.Cleanup(keys.Close)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := func(kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	der, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	write(t, dir, "open.pub", inPEM("PUBLIC KEY", der, err))
	der, err = x509.MarshalPKCS8PrivateKey(rsaKey)
	write(t, dir, "open.key", inPEM("PRIVATE KEY", der, err))
	const signing = "    signing: {key: {file: sign.key}, kid: k1, alg: ES256, issuer: https://watchword.example}\n"
	serves := func(name, more string) *running {
		encryption := ""
		if more != "" {
			encryption = ", encryption: {key: {file: open.pub}, enc: A256GCM}"
		}
		return start(t, write(t, dir, name, `issuers: [{name: main, introspection_endpoint: `+as.URL+`/introspect, client_auth: {method: client_secret_basic, client_id: rs, client_secret: {file: secret}}}]
doors:
  introspection:
    listen: 127.0.0.1:0
    callers: [{client_id: orders, client_secret: {file: secret}}, {client_id: sealed, client_secret: {file: secret}`+encryption+`}]
`+more))
	}
	asks := func(at *running, response string, as ...string) watchword.Decision {
		t.Helper()
		id := append(as, "orders")[0]
		verified := `jwks_uri: "` + keys.URL + `", introspection_response: ` + response + ","
		if response == "plain" {
			verified = ""
		}
		c, err := Parse(write(t, dir, "b.yaml", `issuers:
  - {name: up, issuer: "https://watchword.example", introspection_endpoint: "`+at.url("introspection", "/introspect")+`", `+verified+`
     client_auth: {method: client_secret_basic, client_id: `+id+`, client_secret: {file: secret}}}
doors: {introspection: {listen: 127.0.0.1:0, callers: [{client_id: x, client_secret: {file: secret}}]}}
`))
		if err != nil {
			t.Fatal(err)
		}
		verdicts, err := Check(t.Context(), c, Question{Token: "live-token"}, new(strings.Builder))
		if err != nil {
			t.Fatal(err)
		}
		return verdicts[0].Decision
	}
	signed := serves("signed.yaml", signing)
	if d := asks(signed, "{signed: true, algorithms: [ES256]}"); d.Reason != watchword.OK || d.Answer.Subject() != "ann" {
		t.Errorf("signed: %v, %v", d.Reason, d.Err)
	}
	for response, why := range map[string]string{"{signed: true, algorithms: [RS256]}": "alg", "{signed: true, audience: other}": "aud is not"} {
		if d := asks(signed, response); d.Reason != watchword.CannotKnow || !strings.Contains(d.Err.Error(), why) {
			t.Errorf("%s: %v, %v", response, d.Reason, d.Err)
		}
	}
	if d := asks(signed, "{signed: true, algorithms: [ES256], decryption_key: {file: sign.key}}"); d.Reason != watchword.CannotKnow || !strings.Contains(d.Err.Error(), "not encrypted") {
		t.Errorf("encryption required: %v, %v", d.Reason, d.Err)
	}
	// one caller's answers are encrypted too, and then nothing else is to be had for it
	if d := asks(signed, "{signed: true, algorithms: [ES256], decryption_key: {file: open.key}}", "sealed"); d.Reason != watchword.OK || d.Answer.Subject() != "ann" {
		t.Errorf("encrypted: %v, %v", d.Reason, d.Err)
	}
	if d := asks(signed, "{signed: true, algorithms: [ES256]}", "sealed"); d.Reason != watchword.CannotKnow {
		t.Errorf("encrypted, without a key: %v, %v", d.Reason, d.Err)
	}
	if d := asks(signed, "plain", "sealed"); d.Reason != watchword.CannotKnow || !strings.Contains(d.Err.Error(), "400") {
		t.Errorf("plain for whom has a key: %v, %v", d.Reason, d.Err)
	}
	if d := asks(serves("plain.yaml", ""), "{signed: true, algorithms: [ES256]}"); d.Reason != watchword.CannotKnow || !strings.Contains(d.Err.Error(), "application/token-introspection+jwt") {
		t.Errorf("a plain answer: %v, %v", d.Reason, d.Err)
	}
	// the key is read again with the file
	req := signed.question("one", "live-token")
	req.Header.Set("Accept", "application/token-introspection+jwt")
	if _, body := send(t, http.DefaultClient, req); strings.Count(body, ".") != 2 {
		t.Error(body)
	} else if head, _ := base64.RawURLEncoding.DecodeString(body[:strings.IndexByte(body, '.')]); !strings.Contains(string(head), `"kid":"k1"`) {
		t.Errorf("%s", head)
	}
	write(t, dir, "open.pub", "no key")
	if err := signed.Reload(); err == nil || !strings.Contains(err.Error(), `caller "sealed": encryption`) {
		t.Error(err)
	}
	write(t, dir, "sign.key", "no key")
	if err := signed.Reload(); err == nil || !strings.Contains(err.Error(), "doors.introspection.signing.key") {
		t.Error(err)
	}
}

func publicKey(t *testing.T, certFile string) []byte {
	t.Helper()
	pair, err := TLS{Cert: certFile, Key: strings.TrimSuffix(certFile, filepath.Ext(certFile)) + ".key"}.load()
	if err != nil {
		t.Fatal(err)
	}
	b, err := pair.PrivateKey.(*ecdsa.PrivateKey).PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignedKeysOfTheFile(t *testing.T) {
	t.Parallel()
	signed := change(t, base, "{method: none}", "{method: client_secret_basic, client_id: rs, client_secret: {env: S}}\n    issuer: https://as.example\n    introspection_response: {signed: true}")
	is := accepted(t, signed).Issuers[0]
	if !is.Response.Signed || !is.verifies() {
		t.Errorf("%+v", is)
	}
	const at = "issuers[0].introspection_response"
	accepted(t, change(t, signed, "signed: true", "signed: true, decryption_key: {env: K}, audience: a, algorithms: [PS256]"))
	accepted(t, change(t, signed, "    introspection_response", "    jwks_uri: https://as.example/jwks\n    jwt: {keys_max_age: 1m}\n    introspection_response"))
	refused(t, change(t, signed, "    issuer: https://as.example\n", ""), "issuers[0].issuer", "is missing")
	refused(t, change(t, signed, "signed: true", "signed: false, audience: a"), at+".audience", "no effect")
	refused(t, change(t, signed, "signed: true", "signed: false, decryption_key: {env: K}"), at+".decryption_key", "no effect")
	refused(t, change(t, signed, "signed: true", "signed: true, algorithms: [HS256]"), at+".algorithms[0]", "not known")
	refused(t, change(t, signed, "client_secret_basic, client_id: rs, client_secret: {env: S}", "none"), at+".audience", "is missing")
	refused(t, change(t, signed, "    callers:\n      - {client_id: orders, client_secret: {env: ORDERS_SECRET}}\n", "    forward_caller_auth: true\n"), at+".signed", "forward_caller_auth")
	const signing = "    signing: {key: {env: K}, issuer: https://w.example}\n"
	door := change(t, base, "8081\n", "8081\n"+signing)
	if s := accepted(t, door).Introspection.Signing; s.Alg != "RS256" || s.ID != "https://w.example" {
		t.Errorf("%+v", s)
	}
	refused(t, change(t, door, ", issuer: https://w.example", ""), "doors.introspection.signing.issuer", "is missing")
	refused(t, change(t, door, "{env: K}", "secret-text"), "doors.introspection.signing.key", "written into the file")
	refused(t, change(t, door, "    callers:\n      - {client_id: orders, client_secret: {env: ORDERS_SECRET}}\n", "    forward_caller_auth: true\n"), "doors.introspection.signing", "no effect")
	const sealed = ", encryption: {key: {env: P}}"
	encrypted := change(t, door, "client_secret: {env: ORDERS_SECRET}", "client_secret: {env: ORDERS_SECRET}"+sealed)
	if e := accepted(t, encrypted).Introspection.Callers[0].Encrypt; e.Alg != "RSA-OAEP-256" || e.Enc != "A128CBC-HS256" {
		t.Errorf("%+v", e)
	}
	const enc = "doors.introspection.callers[0].encryption"
	refused(t, change(t, encrypted, signing, ""), enc, "signed first")
	refused(t, change(t, encrypted, "{key: {env: P}}", "{key: {env: P}, alg: RSA1_5}"), enc+".alg", "not known")
	refused(t, change(t, encrypted, "{key: {env: P}}", "{key: {env: P}, enc: A64}"), enc+".enc", "not known")
	refused(t, change(t, encrypted, "{key: {env: P}}", "{alg: ECDH-ES}"), enc+".key", "is missing")
}
