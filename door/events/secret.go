package events

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// bearers knows who may call by a keyed digest of what they send, and keeps no secret. Every comparison takes the same
// time, whatever is compared.
type bearers struct {
	key     [32]byte
	digests [][sha256.Size]byte
}

func admit(secrets Secrets) (*bearers, error) {
	if secrets == nil {
		return nil, errors.New("a secret is required: else anybody could revoke")
	}
	values, err := secrets()
	if err != nil {
		return nil, err
	}
	if len(values) == 0 || len(values) > 2 {
		return nil, fmt.Errorf("it has %d secrets: give one, or two during a rotation", len(values))
	}
	b := new(bearers)
	_, _ = rand.Read(b.key[:]) // never fails (crypto/rand)
	for _, v := range values {
		if v == "" {
			return nil, errors.New("a secret is empty")
		}
		b.digests = append(b.digests, b.digest(v))
	}
	return b, nil
}

func (b *bearers) digest(v string) (d [sha256.Size]byte) {
	h := hmac.New(sha256.New, b.key[:])
	_, _ = h.Write([]byte(v)) // a hash never fails
	h.Sum(d[:0])
	return d
}

// lets reports whether r carries one of the secrets (RFC 6750 §2.1).
func (b *bearers) lets(r *http.Request) bool {
	v := r.Header["Authorization"]
	if len(v) != 1 {
		return false
	}
	scheme, secret, _ := strings.Cut(v[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got, ok := b.digest(strings.Trim(secret, " ")), 0
	for _, want := range b.digests {
		ok |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return ok == 1
}
