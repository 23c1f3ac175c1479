package jose

import (
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-dev/watchword"
)

// BenchmarkJWT is what a miss costs that a signature answers, beside the library's bare verification of the same token:
// parse, and check the signature with a key at hand; no header, claim or time is judged there.
func BenchmarkJWT(b *testing.B) {
	for _, alg := range DefaultAlgorithms() {
		tok := token(keyFor[alg], alg, nil)
		public := keys()[keyFor[alg]].Public()
		b.Run("alg="+alg+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m, err := jose.ParseSignedCompact(string(tok), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := m.Verify(public); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("alg="+alg+"/whole", func(b *testing.B) {
			s := newSource(b, nil)
			b.ReportAllocs()
			for b.Loop() {
				if a, err := s.Introspect(b.Context(), watchword.Query{Token: tok, Issuer: "main", At: time.Now(), Freshness: until}); err != nil || !a.Active() {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTooOldToCount is a token whose signature would not be fresh enough: nothing is verified, the server is asked.
func BenchmarkTooOldToCount(b *testing.B) {
	s := newSource(b, new(asked))
	tok := token("p256", "ES256", nil, "iat", time.Now().Unix()-300)
	b.ReportAllocs()
	for b.Loop() {
		if a, err := s.Introspect(b.Context(), query(tok, half)); err != nil || a.Vouched() {
			b.Fatal(err)
		}
	}
}
