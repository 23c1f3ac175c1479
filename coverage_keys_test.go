package watchword

import (
	"testing"
	"time"
)

// An answer that lacks a claim by which a covering feed names tokens would never be named by it.
//
// Covers: SIG-15
func TestSIG15AnswersThatNoEventCanNameAreNotExtended(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for body, want := range map[string]Standing{
		`{"active":true,"sub":"ann","sid":"s1"}`: Fresh,
		`{"active":true,"sub":"ann"}`:            Unusable,
		`{"active":true,"sub":"ann","sid":""}`:   Unusable,
	} {
		a, err := ParseAnswer([]byte(body), Evidence{Issuer: "main", Asked: now.Add(-5 * time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		q := Query{At: now, Freshness: Freshness{MaxStaleness: 30 * time.Second}, Coverage: Coverage{Since: now.Add(-time.Hour), Through: now.Add(-time.Second), Keys: []string{"sub", "sid"}}}
		if got := q.Weigh(a); got != want {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
	}
}
