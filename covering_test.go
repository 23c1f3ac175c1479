package watchword_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/revocation"
)

// The same hour of traffic twice, with the defaults of the file: by max_staleness alone, and with a covering feed whose
// heartbeat comes every ten seconds. Both are asked about as often as the bounds make necessary, and no oftener.
func TestFiguresCovering(t *testing.T) {
	t.Parallel()
	const tokens = 200
	hour := func(covering bool) (calls, decisions int) {
		synctest.Test(t, func(t *testing.T) {
			m, err := cache.New(cache.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			l, err := revocation.New(revocation.Config{Issuers: []revocation.Issuer{{Name: "as", Settle: 5 * time.Second, Skew: 2 * time.Second, Keys: []string{"sub"}}}})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // it questions what is as old as itself
			end := time.Now().Add(time.Hour)
			as := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
				calls++
				return watchword.ParseAnswer(fmt.Appendf(nil, `{"active":true,"sub":"user-%s","exp":%d}`, q.Token, end.Add(time.Hour).Unix()), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
			})
			bounds := watchword.Freshness{MaxStaleness: 30 * time.Second, MaxAge: watchword.DefaultMaxAge}
			v := verifier(t, watchword.Config{Source: m.Over(as, bounds.Covered()), Issuers: []watchword.Issuer{{Name: "as"}}, Callers: []watchword.Policy{{Name: "p", Freshness: bounds}}, Ledger: l})
			r := rand.New(rand.NewPCG(1, 2))
			for next := time.Now(); time.Now().Before(end); time.Sleep(time.Duration(r.ExpFloat64() * float64(5*time.Second/tokens))) { // a token is used every five seconds
				if covering && !time.Now().Before(next) {
					l.Cover("as", time.Now().Add(-2*time.Second)) // less skew
					next = next.Add(10 * time.Second)
				}
				if d := v.Verify(t.Context(), watchword.Request{Token: watchword.Token(fmt.Sprint(r.IntN(tokens))), Caller: "p"}); d.Reason != watchword.OK || d.Degraded != watchword.Whole {
					t.Fatal(d.Reason, d.Err)
				}
				synctest.Wait() // for what is asked ahead
				decisions++
			}
		})
		return calls, decisions
	}
	alone, n := hour(false)
	covered, _ := hour(true)
	t.Logf("%d decisions about %d tokens in an hour: %.1f questions per token-hour by max_staleness alone, %.1f with a covering feed: %.3f of them",
		n, tokens, float64(alone)/tokens, float64(covered)/tokens, float64(covered)/float64(alone))
	if alone < 100*tokens || covered > 10*tokens {
		t.Errorf("%d and %d questions", alone, covered)
	}
}
