package jose

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

var keys = sync.OnceValue(func() map[string]crypto.Signer {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{"rsa": must(rsa.GenerateKey(rand.Reader, 2048)), "p256": must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"p384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), "p521": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), "ed25519": ed}
})

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs8(name string) []byte {
	return block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(keys()[name])))
}

var keyFor = map[string]string{"RS256": "rsa", "RS384": "rsa", "RS512": "rsa", "PS256": "rsa", "PS384": "rsa", "PS512": "rsa",
	"ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed25519"}

// verified checks an assertion with nothing but the standard library.
func verified(jwt, alg string, key crypto.PublicKey) bool {
	i := strings.LastIndexByte(jwt, '.')
	sig := must(base64.RawURLEncoding.DecodeString(jwt[i+1:]))
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	var digest []byte
	switch hash {
	case crypto.SHA256:
		d := sha256.Sum256([]byte(jwt[:i]))
		digest = d[:]
	case crypto.SHA384:
		d := sha512.Sum384([]byte(jwt[:i]))
		digest = d[:]
	case crypto.SHA512:
		d := sha512.Sum512([]byte(jwt[:i]))
		digest = d[:]
	}
	switch alg[:2] {
	case "RS":
		return rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), hash, digest, sig) == nil
	case "PS":
		return rsa.VerifyPSS(key.(*rsa.PublicKey), hash, digest, sig, nil) == nil
	case "ES":
		half := len(sig) / 2
		return ecdsa.Verify(key.(*ecdsa.PublicKey), digest, new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:]))
	}
	return ed25519.Verify(key.(ed25519.PublicKey), []byte(jwt[:i]), sig)
}

func decode(t *testing.T, part string) map[string]any {
	t.Helper()
	body := must(base64.RawURLEncoding.DecodeString(part))
	if _, err := watchword.ParseClaims(body); err != nil {
		t.Errorf("%s: %v", body, err)
	}
	m := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCAU02AssertionSaysWhatRFC7523Asks(t *testing.T) {
	t.Parallel()
	for alg, name := range keyFor {
		s, err := NewSigner(pkcs8(name), alg, "key-7")
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		now := time.Unix(1800000000, 999)
		jwt := must(s.assert("r s", "https://as.example", now))
		if !verified(jwt, alg, keys()[name].Public()) {
			t.Errorf("%s: wrong signature", alg)
		}
		parts := strings.Split(jwt, ".")
		if got := fmt.Sprint(decode(t, parts[0])); got != "map[alg:"+alg+" kid:key-7 typ:client-authentication+jwt]" {
			t.Errorf("%s: header %s", alg, got)
		}
		c := decode(t, parts[1])
		jti, _ := c["jti"].(string)
		delete(c, "jti")
		if got := fmt.Sprint(c); len(jti) < 22 || got != "map[aud:https://as.example exp:1800000060 iat:1800000000 iss:r s sub:r s]" {
			t.Errorf("%s: jti %q, %s", alg, jti, got)
		}
	}
}

func TestCAU02AssertionIsNewAtEveryCall(t *testing.T) {
	t.Parallel()
	s := must(NewSigner(pkcs8("ed25519"), "EdDSA", ""))
	var sign func(ctx context.Context, id, audience string) (string, error) = s.Assert // as issuer.Sign wants it
	seen := map[string]bool{}
	for range 100 {
		jwt := must(sign(t.Context(), "rs", "aud"))
		c := decode(t, strings.Split(jwt, ".")[1])
		if seen[c["jti"].(string)] {
			t.Fatal("one jti twice")
		}
		seen[c["jti"].(string)] = true
		exp, iat := must(c["exp"].(json.Number).Int64()), must(c["iat"].(json.Number).Int64())
		if d := exp - iat; d <= 0 || d > 300 || time.Since(time.Unix(iat, 0)) > time.Minute {
			t.Errorf("exp %v, iat %v", exp, iat)
		}
		if h := decode(t, strings.Split(jwt, ".")[0]); h["kid"] != nil {
			t.Errorf("kid %v from nowhere", h["kid"])
		}
	}
}

func TestCAU02OnlyAsymmetricAlgorithmsAndTheirKeys(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"", "none", "HS256", "HS512", "rs256", "RS1", "ES256K", "ECDH-ES", "A128KW", "Ed25519"} {
		for name := range keys() {
			if _, err := NewSigner(pkcs8(name), alg, ""); err == nil {
				t.Errorf("%q with %s", alg, name)
			}
		}
	}
	for alg, right := range keyFor {
		for name := range keys() {
			if _, err := NewSigner(pkcs8(name), alg, ""); (err == nil) != (name == right) {
				t.Errorf("%s with %s: %v", alg, name, err)
			}
		}
	}
	// 1024 bits, made of two primes: the standard library makes no such key any more
	p := must(rand.Prime(rand.Reader, 512))
	q := must(rand.Prime(rand.Reader, 512))
	e := big.NewInt(65537)
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	short := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: new(big.Int).ModInverse(e, phi), Primes: []*big.Int{p, q}}
	if err := fits(short, "RS256"); err == nil || !strings.Contains(err.Error(), "2048") {
		t.Errorf("1024 bits: %v", err)
	}
}

func TestKeysInEveryUsualForm(t *testing.T) {
	t.Parallel()
	ec, _ := keys()["p256"].(*ecdsa.PrivateKey)
	rsaKey, _ := keys()["rsa"].(*rsa.PrivateKey)
	sec1 := block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec)))
	for alg, text := range map[string][]byte{
		"ES256": append(block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), sec1...),
		"RS256": append([]byte("some words before\n"), block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))...),
	} {
		s, err := NewSigner(text, alg, "k")
		if err != nil {
			t.Fatal(err)
		}
		key := keys()[keyFor[alg]].Public()
		if jwt := must(s.Assert(t.Context(), "a", "b")); !verified(jwt, alg, key) {
			t.Errorf("%s: wrong signature", alg)
		}
	}
	public := block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(ec.Public())))
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES-128-CBC,00"}, Bytes: []byte{1}})
	for what, text := range map[string][]byte{"nothing": nil, "words": []byte("SECRET-words"), "public": public, "garbage": block("PRIVATE KEY", []byte("SECRET-garbage")),
		"encrypted": encrypted, "encrypted PKCS #8": block("ENCRYPTED PRIVATE KEY", []byte("SECRET")), "raw": must(x509.MarshalECPrivateKey(ec))} {
		if _, err := NewSigner(text, "ES256", ""); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSignerPrintsNothing(t *testing.T) {
	t.Parallel()
	s := must(NewSigner(pkcs8("rsa"), "RS256", "k"))
	if got := fmt.Sprintf("%v %+v %#v %s %d", s, s, s, s, s); got != strings.TrimSpace(strings.Repeat("REDACTED ", 5)) {
		t.Error(got)
	}
}

func FuzzNewSigner(f *testing.F) {
	for alg, name := range keyFor {
		f.Add(pkcs8(name), alg)
	}
	f.Fuzz(func(t *testing.T, key []byte, alg string) {
		s, err := NewSigner(key, alg, "k")
		if (s == nil) == (err == nil) {
			t.Fatal(s, err)
		}
		if err == nil {
			if _, err := s.Assert(context.Background(), "a", "b"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
