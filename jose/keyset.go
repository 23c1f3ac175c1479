package jose

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-dev/watchword"
)

const (
	maxSetBytes = 256 << 10
	maxSetKeys  = 64
)

// verifyingKey is one public key of a set.
type verifyingKey struct {
	kid    string
	alg    string // the only algorithm that it is for; empty: the set does not say
	public crypto.PublicKey
}

// parseSet reads a JWK set (RFC 7517 §5). Keys that are of no use here are passed over, as the RFC asks: for
// encryption, symmetric, too short, too long, of a kind that we do not know. A set without any other key is an error.
func parseSet(body []byte) ([]*verifyingKey, error) {
	if len(body) > maxSetBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxSetBytes)
	}
	c, err := watchword.ParseClaims(body)
	if err != nil {
		return nil, err
	}
	list, _ := c.Get("keys")
	var raw []json.RawMessage
	if err := json.Unmarshal([]byte(list), &raw); err != nil || raw == nil {
		return nil, errors.New("no list of keys")
	}
	if len(raw) > maxSetKeys {
		return nil, fmt.Errorf("more than %d keys", maxSetKeys)
	}
	var found []*verifyingKey
	for _, one := range raw {
		if key := parseKey(one); key != nil {
			found = append(found, key)
		}
	}
	if found == nil {
		return nil, fmt.Errorf("none of its %d keys can verify a signature", len(raw))
	}
	return found, nil
}

// parseKey is nil for a key of no use.
func parseKey(raw []byte) *verifyingKey {
	c, err := watchword.ParseClaims(raw)
	if err != nil {
		return nil
	}
	if use, _ := c.Text("use"); use != "" && use != "sig" {
		return nil
	}
	if ops, there := c.Get("key_ops"); there {
		if list, _ := watchword.Strings(ops); !slices.Contains(list, "verify") {
			return nil
		}
	}
	// The certificate beside a key decides nothing here, so it is not read.
	var bare jose.JSONWebKey
	if bare.UnmarshalJSON(only(c, "kty", "kid", "alg", "n", "e", "crv", "x", "y", "d", "k")) != nil || !bare.IsPublic() || !bare.Valid() {
		return nil // a private key that is published is nobody's any more
	}
	key := &verifyingKey{kid: bare.KeyID, alg: bare.Algorithm, public: bare.Key}
	if !slices.ContainsFunc(algorithms, key.fits) {
		return nil
	}
	return key
}

// only is c with nothing but these members.
func only(c watchword.Claims, names ...string) []byte {
	kept := map[string]json.RawMessage{}
	for name, v := range c.All() {
		if slices.Contains(names, name) {
			kept[name] = json.RawMessage(v)
		}
	}
	b, _ := json.Marshal(kept) // valid before, valid now
	return b
}

// fits reports whether k may verify alg: one key, one algorithm, where the set says which (RFC 8725 §3.1).
func (k *verifyingKey) fits(alg string) bool {
	return (k.alg == "" || k.alg == alg) && suits(k.public, alg) == nil
}

// find returns the keys for a message. One that names no key is verified only where a single key fits.
func (s *keySet) find(alg, kid string) (found []*verifyingKey) {
	for _, key := range s.keys {
		if key.fits(alg) && (kid == "" || key.kid == kid) {
			found = append(found, key)
		}
	}
	if kid == "" && len(found) > 1 {
		return nil
	}
	return found
}
