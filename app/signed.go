package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/watchword-dev/watchword/door/introspection"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/jose"
)

// Response is how an issuer answers introspection: plain JSON, or signed (RFC 9701).
type Response struct {
	Signed     bool
	Algorithms []string
	Audience   string // of every answer; empty: our client_id
	Decryption Secret // zero: answers are not encrypted
}

var responseKeys = object([]row[Response]{
	key("signed", boolean, func(s *Response) *bool { return &s.Signed },
		"Ask for signed answers (RFC 9701), and accept no other. The AS's keys are those of `jwks_uri`, believed for `jwt.keys_max_age`.").or("false"),
	key("algorithms", list(word(jose.Algorithms()...)), func(s *Response) *[]string { return &s.Algorithms }, "Signatures that count.").or("[RS256, ES256, EdDSA]"),
	key("audience", text("audience", "write what the AS writes as aud of its answers to us"), func(s *Response) *string { return &s.Audience },
		"What aud of an answer must be, or hold. Absent: `client_auth.client_id`."),
	key("decryption_key", secret(1), func(s *Response) *Secret { return &s.Decryption },
		"Our private key, RSA or EC in PEM: every answer must be encrypted to it and signed inside. Absent: none may be encrypted."),
})

// Signing is with what the introspection door signs.
type Signing struct {
	Key            Secret
	KeyID, Alg, ID string
}

var signingKeys = object([]row[Signing]{
	key("key", secret(1), func(s *Signing) *Secret { return &s.Key }, "The private key in PEM. Callers need its public half, as a JWK set of your making.").required(),
	key("kid", text("key identifier", "write the key's kid in that set"), func(s *Signing) *string { return &s.KeyID }, "Names the key to the callers. Absent: no kid is sent."),
	key("alg", word(jose.Algorithms()...), func(s *Signing) *string { return &s.Alg }, "The signature's algorithm.").or("RS256"),
	key("issuer", text("URL", "write the https URL by which callers know this Watchword", webURL, noQuery), func(s *Signing) *string { return &s.ID }, "iss of every answer.").required(),
})

// Encryption is to whose key the introspection door encrypts what it signed, and how.
type Encryption struct {
	Key      Secret // public, and read as a secret is
	Alg, Enc string
}

var encryptionKeys = object([]row[Encryption]{
	key("key", secret(1), func(e *Encryption) *Secret { return &e.Key }, "The caller's public key: RSA or EC, in PEM or as a JWK. Read again with the file.").required(),
	key("alg", word(jose.KeyEncryptions()...), func(e *Encryption) *string { return &e.Alg }, "How the content key is sent: RSA-OAEP-256 to an RSA key, ECDH-ES to an EC key.").or("RSA-OAEP-256"),
	key("enc", word(jose.ContentEncryptions()...), func(e *Encryption) *string { return &e.Enc }, "What encrypts the content (RFC 9701 §6).").or("A128CBC-HS256"),
})

// connect makes the client of is, and its keys.
func (is *Issuer) connect(c issuer.Config, observe func(outcome string, keys int), logger *slog.Logger) (asks *issuer.Client, keys *jose.Keys, err error) {
	var responses *jose.Responses
	if is.Response.Signed {
		c.Signed = func(ctx context.Context, jwt []byte, asked time.Time) ([]byte, error) {
			return responses.Open(ctx, jwt, asked)
		}
	}
	if asks, err = issuer.New(c); err != nil {
		return nil, nil, err
	}
	if keys, err = is.keys(asks, observe, logger); err != nil {
		return nil, nil, err
	}
	if is.Response.Signed {
		if responses, err = is.responses(keys); err != nil {
			return nil, nil, fmt.Errorf("issuer %q: introspection_response: %w", is.Name, err)
		}
	}
	return asks, keys, nil
}

func (is *Issuer) responses(keys *jose.Keys) (*jose.Responses, error) {
	c := jose.ResponsesConfig{Name: is.Name, ID: is.ID, Audience: is.Response.Audience, Keys: keys, Algorithms: is.Response.Algorithms, Skew: is.Skew}
	if c.Audience == "" {
		c.Audience = is.ClientAuth.ClientID
	}
	if !is.Response.Decryption.IsZero() {
		key, err := is.Response.Decryption.Resolve()
		if err != nil {
			return nil, err
		}
		c.Decryption = []byte(key[0])
	}
	return jose.NewResponses(c)
}

func (c *Config) checkResponse(r *reader, path string, is *Issuer) {
	response := path + ".introspection_response"
	switch {
	case !is.introspects():
		r.inert(response, "it does not introspect", "remove it, or write introspection_endpoint")
	case !is.Response.Signed:
		for _, key := range []string{".algorithms", ".audience", ".decryption_key"} {
			if r.has(response + key) {
				r.silent(r.at(response+key), "has no effect: signed is false", "write signed: true, or remove it")
			}
		}
	case !r.has(path + ".issuer"):
		r.silent(place{path + ".issuer", r.at(response).node}, "is missing: a signed answer names its issuer", "write its issuer identifier, as in iss")
	case c.Introspection != nil && c.Introspection.Forward:
		r.silent(r.at(response+".signed"), "does not go with forward_caller_auth: an answer to a caller's own credential is for that caller", "write callers, or remove it")
	case is.Response.Audience == "" && is.ClientAuth.ClientID == "":
		r.silent(place{response + ".audience", r.at(response).node}, "is missing: there is no client_id to take its place", "write what the AS writes as aud of its answers to us")
	}
}

// sign is what the introspection door signs with; nil: nothing.
func (s *Signing) sign() (func(audience string, response []byte) (string, error), error) {
	if s == nil {
		return nil, nil
	}
	key, err := s.Key.Resolve()
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewResponseSigner([]byte(key[0]), s.Alg, s.KeyID, s.ID)
	if err != nil {
		return nil, err
	}
	return signer.Sign, nil
}

// encrypt is how answers to one caller are encrypted; nil: not at all.
func (e *Encryption) encrypt() (introspection.Encrypt, error) {
	if e == nil {
		return nil, nil
	}
	key, err := e.Key.Resolve()
	if err != nil {
		return nil, err
	}
	to, err := jose.NewResponseEncrypter([]byte(key[0]), e.Alg, e.Enc)
	if err != nil {
		return nil, err
	}
	return to.Encrypt, nil
}
