package jose

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func pkix(name string) []byte {
	return block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(keys()[name].Public())))
}

// What leaves is a nested JWT: a library opens it with the caller's key and finds our signature, and so does our own way in.
//
// Covers: JIR-04
func TestJIR04AnswersAreSignedThenEncrypted(t *testing.T) {
	t.Parallel()
	sign := must(NewResponseSigner(pkcs8("p256"), "ES256", "p256", asID))
	for name, alg := range map[string]string{"rsa": "RSA-OAEP-256", "p256": "ECDH-ES", "p384": "ECDH-ES", "p521": "ECDH-ES"} {
		for _, enc := range ContentEncryptions() {
			for kid, public := range map[string][]byte{"": pkix(name), "k": must(json.Marshal(jwk(name, "k", "use", "enc", "alg", alg)))} {
				e, err := NewResponseEncrypter(public, alg, enc)
				if err != nil {
					t.Fatalf("%s, kid %q: %v", name, kid, err)
				}
				signed := must(sign.Sign("rs", []byte(inner)))
				jwe := must(e.Encrypt(signed))
				if again := must(e.Encrypt(signed)); again == jwe {
					t.Error("one content key, or one ephemeral key, served twice")
				}
				parsed, err := jose.ParseEncryptedCompact(jwe, []jose.KeyAlgorithm{jose.KeyAlgorithm(alg)}, []jose.ContentEncryption{jose.ContentEncryption(enc)})
				if err != nil {
					t.Fatal(err)
				}
				if parsed.Header.ExtraHeaders["cty"] != "JWT" || parsed.Header.KeyID != kid {
					t.Errorf("%s: %+v", name, parsed.Header)
				}
				plain, err := parsed.Decrypt(keys()[name])
				if err != nil || string(plain) != signed || !verified(string(plain), "ES256", keys()["p256"].Public()) {
					t.Errorf("%s, %s: %v", alg, enc, err)
				}
				r := newResponses(t, func(c *ResponsesConfig) { c.Decryption = pkcs8(name) })
				if out, err := r.Open(t.Context(), []byte(jwe), time.Now()); err != nil || string(out) != inner {
					t.Errorf("%s, %s: %s, %v", alg, enc, out, err)
				}
			}
		}
	}
}

func TestKeysThatNothingIsEncryptedTo(t *testing.T) {
	t.Parallel()
	whole := func(name string, more ...any) []byte { return must(json.Marshal(jwk(name, "k", more...))) }
	for what, x := range map[string]struct {
		key      []byte
		alg, enc string
		why      string
	}{
		"nothing":                {nil, "ECDH-ES", "A256GCM", "no public key"},
		"a private key":          {pkcs8("p256"), "ECDH-ES", "A256GCM", "no PUBLIC KEY"},
		"a private JWK":          {whole("p256", "d", "SECRET"), "ECDH-ES", "A256GCM", "private"},
		"a symmetric JWK":        {[]byte(`{"kty":"oct","k":"SECRET"}`), "ECDH-ES", "A256GCM", "private"},
		"a JWK for signatures":   {whole("p256", "use", "sig"), "ECDH-ES", "A256GCM", "use"},
		"a JWK for another alg":  {whole("p256", "alg", "ECDH-ES+A128KW"), "ECDH-ES", "A256GCM", "another alg"},
		"a set":                  {jwks(jwk("p256", "k")), "ECDH-ES", "A256GCM", "no public key"},
		"a member twice":         {[]byte(`{"kty":"EC","kty":"RSA"}`), "ECDH-ES", "A256GCM", "JWK"},
		"a point off the curve":  {whole("p256", "y", "AAAA"), "ECDH-ES", "A256GCM", "no public key"},
		"two keys":               {append(pkix("p256"), pkix("rsa")...), "ECDH-ES", "A256GCM", "follows"},
		"another kind, RSA":      {pkix("rsa"), "ECDH-ES", "A256GCM", "needs an EC key"},
		"another kind, EC":       {pkix("p256"), "RSA-OAEP-256", "A256GCM", "needs an RSA key"},
		"a key for signatures":   {pkix("ed25519"), "ECDH-ES", "A256GCM", "RSA or EC"},
		"RSA1_5":                 {pkix("rsa"), "RSA1_5", "A256GCM", "none of"},
		"a way that is no way":   {pkix("rsa"), "RSA-OAEP-256", "A64", "none of"},
		"an empty alg":           {pkix("rsa"), "", "", "none of"},
		"longer than any key is": {[]byte(strings.Repeat("x", maxRecipientBytes+1)), "ECDH-ES", "A256GCM", "larger"},
	} {
		_, err := NewResponseEncrypter(x.key, x.alg, x.enc)
		if err == nil || !strings.Contains(err.Error(), x.why) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if e := must(NewResponseEncrypter(pkix("p256"), "ECDH-ES", "A256GCM")); fmt.Sprintf("%v %+v", e, e) != "REDACTED REDACTED" {
		t.Error("a key is printed")
	}
}

func FuzzRecipient(f *testing.F) {
	f.Add(pkix("p256"))
	f.Add(must(json.Marshal(jwk("rsa", "k"))))
	f.Add([]byte(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`))
	f.Fuzz(func(t *testing.T, key []byte) {
		for _, alg := range KeyEncryptions() {
			if e, err := NewResponseEncrypter(key, alg, "A128CBC-HS256"); err == nil {
				if _, err := e.Encrypt("a.b.c"); err != nil {
					t.Fatal("a key was accepted and cannot be used")
				}
			}
		}
	})
}
