package watchword

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

const redacted = "REDACTED"

// MaxTokenBytes is the longest token that is looked at; a longer one is MalformedToken.
const MaxTokenBytes = 16 << 10

// Token is an access token as presented, byte for byte. However it is printed, logged or marshalled it reads
// REDACTED; string(t) is the only way to its bytes. Three things are beyond the reach of a type: fmt prints unexported
// struct fields raw (keep tokens in exported ones, or behind a Format method), its verbs %p and %w skip every method,
// and encoding/json writes the keys of a map as they are (never key one by Token; Key is made for that).
type Token string

// Format prints REDACTED for every verb.
func (Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// String returns REDACTED.
func (Token) String() string { return redacted }

// MarshalText returns REDACTED, for encoding/json, log/slog and their like.
func (Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// problem says what is wrong with t before anybody is asked, or OK. A token is visible ASCII: what RFC 6750 §2.1
// allows and a little more, because RFC 7662 §2.1 says nothing; CR, LF, NUL, space and non-ASCII never pass.
func (t Token) problem() Reason {
	if t == "" {
		return NoToken
	}
	if len(t) > MaxTokenBytes {
		return MalformedToken
	}
	i := 0
	for ; i+8 <= len(t); i += 8 { // eight bytes at a time: every hit comes by here
		const each = ^uint64(0) / 255
		w := uint64(t[i]) | uint64(t[i+1])<<8 | uint64(t[i+2])<<16 | uint64(t[i+3])<<24 |
			uint64(t[i+4])<<32 | uint64(t[i+5])<<40 | uint64(t[i+6])<<48 | uint64(t[i+7])<<56
		below := (w - each*'!') &^ w      // high bit of a byte that is less than '!', or has one of its own
		above := (w + each*(127-'~')) | w // high bit of a byte that is more than '~'
		if (below|above)&(each*128) != 0 {
			return MalformedToken
		}
	}
	for ; i < len(t); i++ {
		if t[i] < '!' || t[i] > '~' {
			return MalformedToken
		}
	}
	return OK
}

// Credential is a caller's own credential that goes on to the authorization server as it came, instead of the one
// configured for the issuer. Answers asked with it serve that credential only (RFC 7662 §2.2: an authorization server
// may answer each caller differently). It prints REDACTED.
type Credential struct {
	Authorization string      // the Authorization header, empty if there was none
	Parameters    [][2]string // the form members that authenticate, in order: client_id, client_secret, client_assertion, …
	Hint          string      // the caller's token_type_hint, empty if there was none
}

// Format prints REDACTED for every verb.
func (Credential) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// MarshalText returns REDACTED.
func (Credential) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Key is the identity of one question: a keyed SHA-256 over the token, its issuer and everything else that may change
// the answer (whom we ask, as whom, with which parameters). Two questions with one Key have one answer. It means
// nothing outside the process that made it.
type Key [sha256.Size]byte

// Pepper keys every Key, so that nobody outside can aim at one. The zero value lets New draw a random one.
type Pepper [32]byte

// Format prints REDACTED for every verb.
func (Pepper) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// MarshalText returns REDACTED.
func (Pepper) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// asking begins every Key of one issuer and one way of asking. block is one SHA-256 block, so what follows cannot be
// confused with it: the pepper, then a digest of the length-prefixed parts. brief stands for block where that saves a
// block of hashing: with a usual token it is one block in all, and messages of the two kinds differ in length.
type asking struct {
	block [sha256.BlockSize]byte
	brief [briefBytes]byte
}

const (
	briefBytes = 12 // two askings of one process are told apart by 96 bits that nobody outside can aim at
	briefToken = sha256.BlockSize - 9 - briefBytes
)

func (p Pepper) asking(parts ...string) (b asking) {
	h := sha256.New()
	for _, part := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		io.WriteString(h, part)
	}
	copy(b.block[:], p[:])
	h.Sum(b.block[:len(p)])
	sum := sha256.Sum256(b.block[:])
	copy(b.brief[:], sum[:])
	return b
}

func (b *asking) key(t Token) Key {
	if len(t) <= briefToken {
		var one [sha256.BlockSize - 9]byte
		n := copy(one[:], b.brief[:])
		n += copy(one[n:], t)
		return sha256.Sum256(one[:n])
	}
	var stack [384]byte // a longer token costs an allocation
	n := copy(stack[:], b.block[:])
	if len(t) <= len(stack)-n {
		n += copy(stack[n:], t)
		return sha256.Sum256(stack[:n])
	}
	return sha256.Sum256(append(append(make([]byte, 0, n+len(t)), b.block[:]...), t...))
}

// as returns the block for a caller's own credential: entries of two credentials never meet.
func (b *asking) as(c *Credential) asking {
	parts := []string{string(b.block[:]), c.Authorization, c.Hint}
	for _, p := range c.Parameters {
		parts = append(parts, p[0], p[1])
	}
	return Pepper(b.block[:len(Pepper{})]).asking(parts...)
}
