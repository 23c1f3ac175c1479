package jose

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-dev/watchword"
)

const (
	responseType = "token-introspection+jwt" // RFC 9701 §5
	maxResponse  = watchword.MaxClaimsBytes
)

// ResponsesConfig is whose signed introspection answers are believed (RFC 9701). Name, ID, Audience and Keys are
// required.
type ResponsesConfig struct {
	Name       string        // our name for the issuer, for errors
	ID         string        // iss, byte for byte
	Audience   string        // ours at the issuer: our client_id
	Keys       *Keys         // the issuer's
	Algorithms []string      // nil: DefaultAlgorithms
	Skew       time.Duration // how far the issuer's clock may differ from ours
	Decryption []byte        // our private key, in PEM: every answer must be encrypted to it; nil: none may be
}

// Responses reads signed introspection answers. Make it with NewResponses. It prints REDACTED. Safe for concurrent use.
type Responses struct {
	config ResponsesConfig
	key    crypto.PrivateKey // nil: answers are not encrypted
	ways   []jose.KeyAlgorithm
}

// NewResponses makes Responses, or reports every mistake of c at once, and nothing of the key's content.
func NewResponses(c ResponsesConfig) (*Responses, error) {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("jose: ResponsesConfig."+format, args...))
		}
	}
	if c.Algorithms == nil {
		c.Algorithms = DefaultAlgorithms()
	}
	wrong(c.Name == "" || c.ID == "", "Name or ID is missing")
	wrong(c.Audience == "", "Audience is missing: an answer for anybody would be accepted")
	wrong(c.Keys == nil, "Keys is missing")
	wrong(len(c.Algorithms) == 0, "Algorithms is empty: nothing could be verified")
	for _, alg := range c.Algorithms {
		wrong(!slices.Contains(algorithms, alg), "Algorithms holds %q, which is none of %v", alg, algorithms)
	}
	wrong(c.Skew < 0, "Skew is negative")
	r := &Responses{config: c}
	if c.Decryption != nil {
		var err error
		r.key, r.ways, err = decrypting(c.Decryption)
		wrong(err != nil, "Decryption: %w", err)
		r.config.Decryption = nil
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r.config.Algorithms = slices.Clone(c.Algorithms)
	return r, nil
}

// Format prints REDACTED for every verb.
func (*Responses) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte("REDACTED")) }

// encryptions are the ways in which contents may be encrypted: authenticated ones, as all that JWA has (RFC 7518 §5.1).
var encryptions = []jose.ContentEncryption{jose.A128CBC_HS256, jose.A192CBC_HS384, jose.A256CBC_HS512, jose.A128GCM, jose.A192GCM, jose.A256GCM}

// decrypting reads our key, and says in which ways a content key may be sent to it. RSA1_5 is none of them
// (RFC 8725 §3.2), and neither is anything with a password, whose cost the sender would choose.
func decrypting(text []byte) (crypto.PrivateKey, []jose.KeyAlgorithm, error) {
	key, err := parse(text)
	if err != nil {
		return nil, nil, err
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if err := suits(k.Public(), "RS256"); err != nil {
			return nil, nil, err
		}
		return key, []jose.KeyAlgorithm{jose.RSA_OAEP, jose.RSA_OAEP_256}, nil
	case *ecdsa.PrivateKey:
		return key, []jose.KeyAlgorithm{jose.ECDH_ES, jose.ECDH_ES_A128KW, jose.ECDH_ES_A192KW, jose.ECDH_ES_A256KW}, nil
	}
	return nil, nil, errors.New("an RSA or EC key is needed")
}

// Open verifies an answer to a question that left us at asked, and returns its introspection response, which is for
// watchword.ParseAnswer to read. An answer that was signed before the question, or for somebody else, is none to it.
// Errors are *watchword.Error: Unavailable while the keys are, else ProtocolError. They hold nothing of the answer.
func (r *Responses) Open(ctx context.Context, body []byte, asked time.Time) ([]byte, error) {
	out, err := r.open(ctx, string(body), asked)
	if err == nil {
		return out, nil
	}
	e := &watchword.Error{Failure: watchword.ProtocolError, Issuer: r.config.Name, Cause: fmt.Errorf("a signed answer: %w", err)}
	if bad, is := errors.AsType[*Error](err); is && bad.Fault == KeysUnavailable {
		e.Failure, e.RetryAfter = watchword.Unavailable, bad.RetryAfter
	}
	return nil, e
}

func (r *Responses) open(ctx context.Context, compact string, asked time.Time) ([]byte, error) {
	compact, err := r.decrypt(compact)
	if err != nil {
		return nil, err
	}
	m, err := read(compact, maxResponse)
	if err == nil {
		err = m.check(responseType, r.config.Algorithms)
	}
	if err != nil {
		return nil, err
	}
	c, err := r.config.Keys.claims(ctx, m)
	if err != nil {
		return nil, err
	}
	if iss, _ := c.Text("iss"); iss != r.config.ID {
		return nil, fault(Malformed, "iss is not the issuer's identifier")
	}
	if !names(c, r.config.Audience) {
		return nil, fault(Malformed, "aud is not our client_id")
	}
	if err := r.inTime(c, asked, time.Now()); err != nil {
		return nil, &Error{Fault: Malformed, Cause: err}
	}
	answer, ok := c.Get("token_introspection")
	if !ok || answer[0] != '{' {
		return nil, fault(Malformed, "token_introspection is no object")
	}
	return []byte(answer), nil
}

// names reports whether aud is who, or a list that holds who.
func names(c watchword.Claims, who string) bool {
	if one, ok := c.Text("aud"); ok {
		return one == who
	}
	v, _ := c.Get("aud")
	list, _ := watchword.Strings(v)
	return slices.Contains(list, who)
}

// inTime binds an answer to the question that it came for: it was signed after that, and before now.
func (r *Responses) inTime(c watchword.Claims, asked, now time.Time) error {
	v, _ := c.Get("iat")
	iat, err := strconv.ParseFloat(v, 64)
	if err != nil || iat < 0 || iat > 253402300799 {
		return errors.New("iat is no instant")
	}
	at := time.Unix(int64(iat), 0)
	switch skew := r.config.Skew; {
	case at.Add(time.Second+skew).Sub(asked) < 0: // iat is cut to a second
		return errors.New("it was signed before the question: iat is too old, by more than skew")
	case at.Sub(now) > skew:
		return errors.New("it was signed in the future: iat is ahead of our clock by more than skew")
	}
	return nil
}

// decrypt takes the encryption off a nested JWT (RFC 7519 §5.2). Where a key is configured, nothing else is accepted.
func (r *Responses) decrypt(compact string) (string, error) {
	if r.key == nil {
		return compact, nil
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 5 || len(compact) > maxResponse {
		return "", fault(Malformed, "not encrypted, though a decryption key is configured")
	}
	header, err := decode64(parts[0])
	if err != nil {
		return "", fault(Malformed, "header: %w", err)
	}
	h, err := watchword.ParseClaims(header)
	if err != nil {
		return "", fault(Malformed, "header: %w", err)
	}
	for name := range h.All() {
		switch name {
		case "zip", "crit", "p2c", "p2s": // nothing here grows, and nobody else chooses what it costs
			return "", fault(Malformed, "header: %s is not understood here", name)
		}
	}
	e, err := jose.ParseEncryptedCompact(compact, r.ways, encryptions)
	if err != nil {
		return "", fault(Malformed, "not encrypted in a way that is allowed")
	}
	inner, err := e.Decrypt(r.key)
	if err != nil {
		return "", fault(Malformed, "not encrypted to our key")
	}
	return string(inner), nil
}

// ResponseSigner signs introspection answers of our own (RFC 9701 §5). It prints REDACTED. Safe for concurrent use.
type ResponseSigner struct {
	sign   jose.Signer
	issuer string
}

// NewResponseSigner reads a private key as NewSigner does. issuer is our own identifier, under which the callers know
// the key.
func NewResponseSigner(key []byte, alg, kid, issuer string) (*ResponseSigner, error) {
	if issuer == "" {
		return nil, errors.New("an issuer identifier is missing")
	}
	s, err := signer(key, alg, kid, responseType)
	if err != nil {
		return nil, err
	}
	return &ResponseSigner{s, issuer}, nil
}

// Format prints REDACTED for every verb.
func (*ResponseSigner) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte("REDACTED")) }

// Sign wraps one introspection response, a JSON object, for audience. It has no sub and no exp at the top, so that
// nobody takes it for an access token (RFC 9701 §5, §8.1).
func (s *ResponseSigner) Sign(audience string, response []byte) (string, error) {
	payload, err := json.Marshal(struct {
		Issuer   string          `json:"iss"`
		Audience string          `json:"aud"`
		Issued   int64           `json:"iat"`
		Response json.RawMessage `json:"token_introspection"`
	}{s.issuer, audience, time.Now().Unix(), response})
	if err != nil {
		return "", errors.New("the response is no JSON")
	}
	signed, err := s.sign.Sign(payload)
	if err != nil {
		return "", errors.New("signing failed")
	}
	return signed.CompactSerialize()
}
