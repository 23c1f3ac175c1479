package cache

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/watchword-dev/watchword"
)

// sealSchema is the first byte of every sealed value. Another one is another layout, and a miss.
const sealSchema = 1

// MinSecretBytes is the shortest deployment secret that seals: shorter ones can be guessed from a dump.
const MinSecretBytes = 16

const (
	pepperIDBytes = 8
	sealedHead    = 1 + pepperIDBytes + 12 // schema, pepper id, nonce
)

// pepper is what one deployment secret becomes: it names entries, and with a token it seals and opens them. A dump of
// the store reveals nothing without both, and whoever writes to it forges nothing.
type pepper struct {
	id    [pepperIDBytes]byte // tells which secret sealed; reveals nothing of it
	index []byte              // keys the names
	seal  []byte              // salts the keys of values
}

func newPepper(secret []byte) (*pepper, error) {
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("the deployment secret is shorter than %d bytes: it could be guessed from what is stored; make one with `openssl rand -hex 32`", MinSecretBytes)
	}
	all, err := hkdf.Key(sha256.New, secret, nil, "watchword shared answers 1", 2*sha256.Size+pepperIDBytes)
	if err != nil {
		return nil, err
	}
	p := &pepper{index: all[:sha256.Size], seal: all[sha256.Size : 2*sha256.Size]}
	copy(p.id[:], all[2*sha256.Size:])
	return p, nil
}

// digest names the whole question: whom we ask, how, as whom, about which token (RFC 7662 §2.2: a server may answer
// each caller differently). Every part has its length before it, so that no two questions read alike.
func (p *pepper) digest(asking string, q *watchword.Query) (d Digest) {
	h := hmac.New(sha256.New, p.index)
	part := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		_, _ = io.WriteString(h, s)
	}
	part(q.Issuer)
	part(asking)
	if c := q.Credential; c != nil {
		part(c.Authorization)
		part(c.Hint)
		for _, member := range c.Parameters {
			part(member[0])
			part(member[1])
		}
	}
	part(string(q.Token))
	h.Write([]byte{sealSchema, presence(q.Credential)}) // our own question and a caller's differ also here
	h.Sum(d[:0])
	return d
}

func presence(c *watchword.Credential) byte {
	if c == nil {
		return 0
	}
	return 1
}

// cipher is for one value: its key comes from the token and the secret, so that the store's reader needs both.
func (p *pepper) cipher(d Digest, t watchword.Token) (cipher.AEAD, error) {
	prk, err := hkdf.Extract(sha256.New, []byte(t), p.seal)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Expand(sha256.New, prk, "watchword shared value 1"+string(d[:]), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// bound is what a sealed value belongs to: moved to another name, schema or secret it does not open.
func (p *pepper) bound(d Digest) []byte {
	return append(append(d[:], sealSchema), p.id[:]...)
}

func (p *pepper) close(d Digest, t watchword.Token, record []byte) ([]byte, error) {
	aead, err := p.cipher(d, t)
	if err != nil {
		return nil, err
	}
	b := make([]byte, sealedHead, sealedHead+len(record)+aead.Overhead())
	b[0] = sealSchema
	copy(b[1:], p.id[:])
	_, _ = rand.Read(b[1+pepperIDBytes:]) // never fails (crypto/rand)
	return aead.Seal(b, b[1+pepperIDBytes:], record, p.bound(d)), nil
}

func (p *pepper) open(d Digest, t watchword.Token, sealed []byte) ([]byte, error) {
	if len(sealed) < sealedHead || sealed[0] != sealSchema || string(sealed[1:1+pepperIDBytes]) != string(p.id[:]) {
		return nil, errors.New("sealed by another schema or secret")
	}
	aead, err := p.cipher(d, t)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, sealed[1+pepperIDBytes:sealedHead], sealed[sealedHead:], p.bound(d))
}
