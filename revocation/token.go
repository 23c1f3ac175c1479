package revocation

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/watchword-dev/watchword"
)

// Key keys every TokenID. It must be the same on every node of a deployment and outlive every token event, so it is no
// other secret's relative. It prints REDACTED.
type Key [32]byte

// Format prints REDACTED for every verb.
func (Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "REDACTED") }

// MarshalText returns REDACTED.
func (Key) MarshalText() ([]byte, error) { return []byte("REDACTED"), nil }

func randomKey() (k Key) {
	_, _ = rand.Read(k[:]) // never fails (crypto/rand)
	return k
}

// mac is HMAC-SHA-256 (RFC 2104) over length-prefixed parts, without an allocation where they are short.
func (k *Key) mac(parts ...string) TokenID {
	var stack [768]byte
	const block = sha256.BlockSize
	b := append(stack[:0], k[:]...)
	for len(b) < block {
		b = append(b, 0)
	}
	for i := range b {
		b[i] ^= 0x36
	}
	for _, part := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	inner := sha256.Sum256(b)
	var outer [block + sha256.Size]byte
	copy(outer[:], k[:])
	for i := range block {
		outer[i] ^= 0x5c
	}
	copy(outer[block:], inner[:])
	return sha256.Sum256(outer[:])
}

// print tells keys apart without telling anything about them.
func (k *Key) print() (p [8]byte) {
	id := k.mac("watchword ledger key")
	copy(p[:], id[:])
	return p
}

// byJTI is the identity of the token with that jti. home is the iss that the issuer is known by; a token of that iss,
// or of none, is the issuer's own, and where home is not known every token is.
func (k *Key) byJTI(issuer, home, iss, jti string) TokenID {
	if home == "" || iss == home {
		iss = ""
	}
	return k.mac("jti", issuer, iss, jti)
}

// of is the identity of a token. Of a JWT it is made of what its signature protects, so that a copy that is encoded
// otherwise is the same token: iss and jti, or the whole payload.
func (k *Key) of(issuer, home string, token watchword.Token) TokenID {
	switch strings.Count(string(token), ".") {
	case 2: // a JWS (RFC 7515 §7.1)
		parts := strings.Split(string(token), ".")
		payload := decoded(parts[1])
		claims, err := watchword.ParseClaims(payload)
		if err != nil {
			break
		}
		if jti, ok := claims.Text("jti"); ok && jti != "" {
			iss, _ := claims.Text("iss")
			return k.byJTI(issuer, home, iss, jti)
		}
		return k.mac("payload", issuer, string(payload))
	case 4: // a JWE (RFC 7516 §7.1)
		parts := strings.Split(string(token), ".")
		if _, err := watchword.ParseClaims(decoded(parts[0])); err == nil {
			return k.mac("jwe", issuer, string(decoded(parts[1])), string(decoded(parts[2])), string(decoded(parts[3])))
		}
	}
	return k.mac("token", issuer, string(token))
}

// decoded reads base64 as the most lenient reader would: either alphabet, anything else skipped, bits that do not
// count ignored.
func decoded(s string) []byte {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '+':
			return '-'
		case r == '/':
			return '_'
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return -1
	}, s)
	if len(clean)%4 == 1 { // a lone character has no whole byte
		clean = clean[:len(clean)-1]
	}
	b, _ := base64.RawURLEncoding.DecodeString(clean) // cannot fail now
	return b
}
