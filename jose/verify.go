package jose

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-dev/watchword"
)

// MaxEnvelopeBytes is the longest signed envelope (SET, logout token) that is looked at.
const MaxEnvelopeBytes = 64 << 10

const maxKeyID = 256 // bytes of a kid; a longer one names no key

// algorithms are what an envelope may be signed with: asymmetric, so that whoever can verify cannot sign
// (RFC 8725 §3.1, §3.2).
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// Algorithms lists every algorithm that can be allowed.
func Algorithms() []string { return slices.Clone(algorithms) }

// Fault is why a signed message was not accepted. The list is closed. It is an error, so errors.Is(err, Forged) works
// on every *Error.
type Fault uint8

// The faults, with the RFC 8935 §2.4 code that fits each. There is no zero Fault.
const (
	Malformed       Fault = iota + 1 // encoding, header, type or claims are not what they must be: invalid_request
	BadAlgorithm                     // signed with an algorithm that is not allowed: invalid_key
	UnknownKey                       // the issuer's keys are known, and the one named is none of them: invalid_key
	Forged                           // the signature is wrong: authentication_failed
	KeysUnavailable                  // the issuer's keys cannot be had now: whoever sent it should come again
)

var faults = [...]string{"unknown", "malformed", "bad_algorithm", "unknown_key", "forged", "keys_unavailable"}

// Error returns the word of f.
func (f Fault) Error() string {
	if int(f) >= len(faults) {
		f = 0
	}
	return faults[f]
}

// Error is why a signed message was not accepted. It holds nothing of the message.
type Error struct {
	Fault      Fault
	RetryAfter time.Duration // KeysUnavailable: when it is worth another try; zero: any time
	Cause      error         // for logs
}

// Error names the fault and its cause.
func (e *Error) Error() string { return fmt.Sprintf("%v: %v", e.Fault, e.Cause) }

// Unwrap lets errors.Is find the Fault and the Cause.
func (e *Error) Unwrap() []error { return []error{e.Fault, e.Cause} }

func fault(f Fault, format string, args ...any) *Error {
	return &Error{Fault: f, Cause: fmt.Errorf(format, args...)}
}

// VerifySET checks the envelope of a Security Event Token (RFC 8417 §2.3): compact, of type secevent+jwt, signed by a
// key of this issuer. It returns the claims, strictly decoded and not looked at: iss, aud and events are the caller's to
// judge. Errors are *Error.
func (k *Keys) VerifySET(ctx context.Context, compact string) (watchword.Claims, error) {
	return k.envelope(ctx, compact, "secevent+jwt")
}

// VerifyLogoutToken is VerifySET for a logout token (OpenID Connect Back-Channel Logout 1.0 §2.4), of type logout+jwt.
func (k *Keys) VerifyLogoutToken(ctx context.Context, compact string) (watchword.Claims, error) {
	return k.envelope(ctx, compact, "logout+jwt")
}

func (k *Keys) envelope(ctx context.Context, compact, typ string) (watchword.Claims, error) {
	m, err := read(compact, MaxEnvelopeBytes)
	if err == nil {
		err = m.check(typ, algorithms)
	}
	if err != nil {
		return watchword.Claims{}, err
	}
	return k.claims(ctx, m)
}

// claims verifies the signature of m and decodes what it signs.
func (k *Keys) claims(ctx context.Context, m *message) (watchword.Claims, error) {
	found, _, err := k.find(ctx, m.alg, m.kid)
	if err != nil {
		return watchword.Claims{}, err
	}
	if err := m.verify(found); err != nil {
		return watchword.Claims{}, err
	}
	c, bad := watchword.ParseClaims(m.payload)
	if bad != nil {
		return watchword.Claims{}, fault(Malformed, "claims: %w", bad)
	}
	return c, nil
}

// message is a JWS in compact serialization (RFC 7515 §7.1), taken apart and not verified.
type message struct {
	compact       string
	typ, alg, kid string
	payload       []byte
}

// read takes a compact JWS apart. One message has one spelling here: what a lenient reader would also accept (padding,
// white space, line ends, idle bits of a last character) is refused, and so is every header that changes how the rest
// is read. Keys in a header, or where it points to some, are never looked at (RFC 8725 §3.10).
func read(compact string, most int) (*message, error) {
	if len(compact) > most {
		return nil, fault(Malformed, "longer than %d bytes", most)
	}
	if strings.Count(compact, ".") == 4 {
		return nil, fault(Malformed, "encrypted (a JWE) where a signed JWT (a JWS) is expected")
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, fault(Malformed, "not three parts: no JWS in compact serialization")
	}
	var decoded [3][]byte
	for i, p := range parts {
		var err error
		if decoded[i], err = decode64(p); err != nil {
			return nil, fault(Malformed, "part %d: %w", i+1, err)
		}
	}
	m := &message{compact: compact, payload: decoded[1]}
	if err := m.header(decoded[0]); err != nil {
		return nil, &Error{Fault: Malformed, Cause: err}
	}
	return m, nil
}

var strict = base64.RawURLEncoding.Strict()

// decode64 reads base64url without padding, in its one canonical spelling. The standard library passes over line ends.
func decode64(part string) ([]byte, error) {
	if part == "" || strings.ContainsAny(part, "\r\n") {
		return nil, errors.New("empty, or with a line end")
	}
	b, err := strict.DecodeString(part)
	if err != nil {
		return nil, errors.New("not base64url in its canonical spelling, without padding")
	}
	return b, nil
}

func (m *message) header(body []byte) error {
	h, err := watchword.ParseClaims(body)
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	for name := range h.All() {
		switch name {
		case "crit", "b64", "zip", "enc": // RFC 7515 §4.1.11, RFC 7797 §3, RFC 7516 §4.1
			return fmt.Errorf("header: %s is not understood here", name)
		}
	}
	for name, to := range map[string]*string{"alg": &m.alg, "typ": &m.typ, "kid": &m.kid} {
		if _, there := h.Get(name); there {
			var is bool
			if *to, is = h.Text(name); !is {
				err = fmt.Errorf("header: %s is no string", name)
			}
		}
	}
	if err == nil && m.alg == "" {
		err = errors.New("header: no alg")
	}
	return err
}

// check asks for the type and for one of the algorithms. Every kind of JWT has a type of its own, so that none is taken
// for another (RFC 8725 §3.11, §3.12).
func (m *message) check(typ string, allowed []string) error {
	if !m.is(typ) {
		return fault(Malformed, "header: typ is not %s", typ)
	}
	if !slices.Contains(allowed, m.alg) {
		return fault(BadAlgorithm, "header: alg is none of %s", strings.Join(allowed, ", "))
	}
	return nil
}

// is compares typ as the media type that it is: without case, application/ may be left out (RFC 7515 §4.1.9).
func (m *message) is(typ string) bool {
	const prefix = "application/"
	t := m.typ
	if len(t) > len(prefix) && strings.EqualFold(t[:len(prefix)], prefix) {
		t = t[len(prefix):]
	}
	return strings.EqualFold(t, typ)
}

// verify checks the signature with the first key that fits. Which algorithm it is was decided before: nothing in the
// message can choose another one.
func (m *message) verify(with []*verifyingKey) error {
	signed, err := jose.ParseSignedCompact(m.compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(m.alg)})
	if err != nil {
		return fault(Malformed, "a header that cannot be read")
	}
	for _, key := range with {
		if _, err := signed.Verify(key.public); err == nil {
			return nil
		}
	}
	return fault(Forged, "the signature is not by the key that it names")
}
