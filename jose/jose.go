// Package jose signs what leaves, and verifies what an authorization server signed. Out: client assertions, and
// introspection answers of our own, also encrypted. In, by the keys of one issuer: JWT access tokens, introspection
// answers, security event tokens and logout tokens.
package jose

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	lifetime   = time.Minute // of an assertion: it is used at once
	minRSABits = 2048
	maxRSABits = 8192
)

// Signer makes client assertions with one private key. It prints REDACTED. Safe for concurrent use.
type Signer struct{ sign jose.Signer }

// NewSigner reads a private key, PEM of PKCS #8, PKCS #1 or SEC 1, for alg: RS256, RS384, RS512, PS256, PS384, PS512
// (RSA of at least 2048 bits), ES256, ES384, ES512 (each with its curve) or EdDSA (Ed25519). kid goes into every
// header; empty: none does, and the server must know a single key of ours. Errors say nothing of the key's content.
func NewSigner(key []byte, alg, kid string) (*Signer, error) {
	// The type keeps an assertion from being taken for another kind of JWT of the same key (RFC 8725 §3.11;
	// draft-ietf-oauth-rfc7523bis §4).
	s, err := signer(key, alg, kid, "client-authentication+jwt")
	if err != nil {
		return nil, err
	}
	return &Signer{s}, nil
}

func signer(key []byte, alg, kid string, typ jose.ContentType) (jose.Signer, error) {
	private, err := parse(key)
	if err != nil {
		return nil, err
	}
	if err := fits(private, alg); err != nil {
		return nil, err
	}
	o := new(jose.SignerOptions).WithType(typ)
	if kid != "" {
		o = o.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: private}, o)
	if err != nil {
		return nil, fmt.Errorf("the key cannot sign %s", alg)
	}
	return s, nil
}

// Format prints REDACTED for every verb.
func (*Signer) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "REDACTED") }

type assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Expires  int64  `json:"exp"`
	Issued   int64  `json:"iat"`
	ID       string `json:"jti"`
}

// Assert makes an assertion that its holder is client id, for audience, good for a minute and never the same twice
// (RFC 7523 §3).
func (s *Signer) Assert(_ context.Context, id, audience string) (string, error) {
	return s.assert(id, audience, time.Now())
}

func (s *Signer) assert(id, audience string, now time.Time) (string, error) {
	var jti [16]byte
	_, _ = rand.Read(jti[:]) // never fails (crypto/rand)
	payload, err := json.Marshal(assertion{Issuer: id, Subject: id, Audience: audience, Issued: now.Unix(),
		Expires: now.Add(lifetime).Unix(), ID: base64.RawURLEncoding.EncodeToString(jti[:])})
	if err != nil {
		return "", err
	}
	signed, err := s.sign.Sign(payload)
	if err != nil {
		return "", errors.New("signing failed")
	}
	return signed.CompactSerialize()
}

// parse finds the one private key in PEM. Parameters of a curve, which openssl writes before a key, are passed over.
func parse(text []byte) (crypto.PrivateKey, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("no private key in PEM")
		}
		text = rest
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errors.New("the private key is encrypted: store it in the clear, readable by this process only")
			}
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("the private key is encrypted: store it in the clear, readable by this process only")
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the block %q holds no private key that can be read", block.Type)
		}
		return key, nil
	}
}

// fits refuses algorithms that are not asymmetric, and keys that are not theirs.
func fits(key crypto.PrivateKey, alg string) error {
	s, is := key.(crypto.Signer)
	if !is {
		return fmt.Errorf("alg %s cannot use a key of this kind", alg)
	}
	return suits(s.Public(), alg)
}

var curves = map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}

// suits refuses a public key that is not for alg, or weak, or so long that verifying with it would be an attack
// (RFC 7518 §3.3 to §3.5, RFC 8037 §3.1).
func suits(key crypto.PublicKey, alg string) error {
	switch alg {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		k, ok := key.(*rsa.PublicKey)
		if !ok {
			return fmt.Errorf("alg %s needs an RSA key", alg)
		}
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("the RSA key has %d bits: %d to %d are needed", bits, minRSABits, maxRSABits)
		}
		if k.E < 3 || k.E&1 == 0 {
			return errors.New("the RSA key has an exponent that is even or below 3")
		}
	case "ES256", "ES384", "ES512":
		if k, ok := key.(*ecdsa.PublicKey); !ok || k.Curve != curves[alg] {
			return fmt.Errorf("alg %s needs an EC key on %s", alg, curves[alg].Params().Name)
		}
	case "EdDSA":
		if _, ok := key.(ed25519.PublicKey); !ok {
			return errors.New("alg EdDSA needs an Ed25519 key")
		}
	default:
		return fmt.Errorf("alg %q is not one of %s", alg, strings.Join(algorithms, ", "))
	}
	return nil
}
