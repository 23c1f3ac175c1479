package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-dev/watchword"
)

// maxRecipientBytes is the longest public key that is read: an RSA key of 8,192 bits takes a quarter of it.
const maxRecipientBytes = 16 << 10

// KeyEncryptions lists how a ResponseEncrypter can send a content key (RFC 7518 §4), and ContentEncryptions with what it
// can encrypt (§5).
func KeyEncryptions() []string { return []string{"RSA-OAEP-256", "ECDH-ES"} }

// ContentEncryptions lists with what contents can be encrypted.
func ContentEncryptions() []string { return []string{"A128CBC-HS256", "A256GCM"} }

// ResponseEncrypter encrypts signed answers to one caller (RFC 9701 §5). It prints REDACTED. Safe for concurrent use.
type ResponseEncrypter struct{ encrypt jose.Encrypter }

// NewResponseEncrypter reads the caller's public key: PEM of PKIX, or one JWK (RFC 7517 §4). alg is one of
// KeyEncryptions and must suit the key, enc is one of ContentEncryptions. The kid of a JWK goes into every header.
// A private key is refused: whoever encrypts needs none. Errors hold nothing of the key.
func NewResponseEncrypter(key []byte, alg, enc string) (*ResponseEncrypter, error) {
	if !slices.Contains(KeyEncryptions(), alg) {
		return nil, fmt.Errorf("alg %q is none of %v", alg, KeyEncryptions())
	}
	if !slices.Contains(ContentEncryptions(), enc) {
		return nil, fmt.Errorf("enc %q is none of %v", enc, ContentEncryptions())
	}
	public, kid, err := recipient(key, alg)
	if err != nil {
		return nil, err
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
		if alg != "RSA-OAEP-256" {
			return nil, fmt.Errorf("alg %s needs an EC key", alg)
		}
		if err := suits(k, "RS256"); err != nil {
			return nil, err
		}
	case *ecdsa.PublicKey:
		if alg != "ECDH-ES" {
			return nil, fmt.Errorf("alg %s needs an RSA key", alg)
		}
		if !slices.ContainsFunc([]string{"ES256", "ES384", "ES512"}, func(alg string) bool { return suits(k, alg) == nil }) {
			return nil, errors.New("the EC key is on none of P-256, P-384 and P-521")
		}
	default:
		return nil, errors.New("an RSA or EC key is needed")
	}
	to := jose.Recipient{Algorithm: jose.KeyAlgorithm(alg), Key: public, KeyID: kid}
	e, err := jose.NewEncrypter(jose.ContentEncryption(enc), to, new(jose.EncrypterOptions).WithContentType("JWT")) // RFC 7519 §5.2
	if err != nil {
		return nil, fmt.Errorf("the key cannot be used for %s", alg)
	}
	return &ResponseEncrypter{e}, nil
}

// Format prints REDACTED for every verb.
func (*ResponseEncrypter) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "REDACTED") }

// Encrypt makes a nested JWT of a signed one.
func (e *ResponseEncrypter) Encrypt(jwt string) (string, error) {
	out, err := e.encrypt.Encrypt([]byte(jwt))
	if err != nil {
		return "", errors.New("encrypting failed")
	}
	return out.CompactSerialize()
}

// recipient reads a public key, and its kid where it has one.
func recipient(text []byte, alg string) (public crypto.PublicKey, kid string, err error) {
	if len(text) > maxRecipientBytes {
		return nil, "", fmt.Errorf("the key is larger than %d bytes", maxRecipientBytes)
	}
	if text = bytes.TrimSpace(text); bytes.HasPrefix(text, []byte("{")) {
		return recipientJWK(text, alg)
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, "", errors.New("no public key in PEM, and no JWK")
	case block.Type != "PUBLIC KEY":
		return nil, "", errors.New("no PUBLIC KEY in PEM: of a private key or a certificate, write the public key alone")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, "", errors.New("something follows the public key: one key is one caller's")
	}
	if public, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, "", errors.New("the block PUBLIC KEY holds no public key that can be read")
	}
	return public, "", nil
}

func recipientJWK(text []byte, alg string) (crypto.PublicKey, string, error) {
	c, err := watchword.ParseClaims(text)
	if err != nil {
		return nil, "", fmt.Errorf("the JWK: %w", err)
	}
	for _, secret := range []string{"d", "k", "p", "q"} {
		if _, there := c.Get(secret); there {
			return nil, "", errors.New("the JWK is a private key: write its public half")
		}
	}
	if use, there := c.Text("use"); there && use != "enc" {
		return nil, "", errors.New("the JWK is not for encryption: use is not enc")
	}
	if of, there := c.Text("alg"); there && of != alg {
		return nil, "", errors.New("the JWK is for another alg")
	}
	var key jose.JSONWebKey
	if key.UnmarshalJSON(only(c, "kty", "kid", "n", "e", "crv", "x", "y")) != nil || !key.IsPublic() || !key.Valid() {
		return nil, "", errors.New("the JWK holds no public key that can be read")
	}
	return key.Key, key.KeyID, nil
}
