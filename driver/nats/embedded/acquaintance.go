//go:build embedded_nats

package embedded

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"time"
)

// acquaintance is TLS by which nodes know each other: all have the same key, which comes of the deployment's secret. So
// there are no certificates to hand out, and nobody else joins or listens. Whoever connects sees the public half, by
// which a secret that is short could be found.
func acquaintance(secrets []string) (*tls.Config, error) {
	var keys []ed25519.PrivateKey
	var known []ed25519.PublicKey
	for _, secret := range secrets {
		seed, err := hkdf.Key(sha256.New, []byte(secret), nil, "watchword embedded nats 1", ed25519.SeedSize)
		if err != nil {
			return nil, err
		}
		key := ed25519.NewKeyFromSeed(seed)
		keys, known = append(keys, key), append(known, key.Public().(ed25519.PublicKey))
	}
	// What else the certificate says, nobody reads.
	text := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(100, 0, 0)}
	body, err := x509.CreateCertificate(rand.Reader, text, text, known[0], keys[0])
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{{Certificate: [][]byte{body}, PrivateKey: keys[0]}},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // of names and authorities: VerifyConnection looks at the key itself
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 {
				key, is := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
				if is && slices.ContainsFunc(known, func(k ed25519.PublicKey) bool { return k.Equal(key) }) {
					return nil
				}
			}
			return errors.New("it does not know the secret of this deployment")
		},
	}, nil
}
