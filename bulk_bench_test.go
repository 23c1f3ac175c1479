package watchword_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/revocation"
)

// bulk is a cache with many tokens of client batch, which one event is about, and few of client web, which are in use.
type bulk struct {
	*testing.B
	many     int
	calls    [2]atomic.Int64 // about tokens of batch; about any other
	settings watchword.Config
	verifier *watchword.Verifier
	pick     func() int
	took     []time.Duration
}

const (
	inUse   = 10_000
	reasked = 500 // a second
)

func batch(i int) watchword.Token { return watchword.Token(fmt.Sprintf("b_%040d", i)) }
func web(i int) watchword.Token   { return watchword.Token(fmt.Sprintf("w_%040d", i)) }

func newBulk(b *testing.B) *bulk {
	k := &bulk{B: b, many: 1_000_000, pick: zipfian(inUse)}
	if testing.Short() {
		k.many = 100_000
	}
	m, err := cache.New(cache.Config{MaxBytes: 4 << 30, ReaskPerSecond: reasked})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(m.Close)
	iat := time.Now().Add(-time.Minute).Unix()
	as := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		asked, client := time.Now(), "web"
		if q.Token[0] == 'b' {
			client = "batch"
			k.calls[0].Add(1)
		} else {
			k.calls[1].Add(1)
		}
		return watchword.ParseAnswer(fmt.Appendf(nil, `{"active":true,"sub":"user-%s","client_id":%q,"scope":"openid orders:read orders:write","aud":"https://api.example","iat":%d,"exp":%d}`, q.Token[34:], client, iat, iat+7200), watchword.Evidence{Issuer: q.Issuer, Asked: asked})
	})
	k.settings = watchword.Config{Source: m.Over(as, 0), Issuers: []watchword.Issuer{{Name: "main"}}, Callers: []watchword.Policy{{Name: "p", Scopes: []string{"orders:read"}, Audience: []string{"https://api.example"}, Freshness: watchword.Freshness{MaxStaleness: time.Hour, MaxAge: time.Hour}}}}
	k.verifier = verifier(b, k.settings)
	for i := range k.many {
		k.want(batch(i), watchword.OK)
	}
	for i := range inUse {
		k.want(web(i), watchword.OK)
	}
	return k
}

// hears gives the Verifier a Ledger that holds this many events about others.
func (k *bulk) hears(others int) *revocation.Ledger {
	l, err := revocation.New(revocation.Config{Issuers: []revocation.Issuer{{Name: "main", Skew: 2 * time.Second, Exempt: true}}})
	if err != nil {
		k.Fatal(err)
	}
	for i := range others {
		if err := l.Apply(context.Background(), revocation.Event{ID: fmt.Sprint(i), Issuer: "main", Selector: revocation.Selector{Subject: fmt.Sprint(i)}}); err != nil {
			k.Fatal(err)
		}
	}
	k.settings.Ledger = l
	if err := k.verifier.Reconfigure(k.settings); err != nil {
		k.Fatal(err)
	}
	return l
}

func (k *bulk) verify(t watchword.Token) watchword.Decision {
	return k.verifier.Verify(context.Background(), watchword.Request{Token: t, Caller: "p"})
}

func (k *bulk) want(t watchword.Token, r watchword.Reason) {
	if d := k.verify(t); d.Reason != r {
		k.Fatal(d.Reason, d.Err)
	}
}

// hits verifies tokens in use one after the other, and returns the 99th percentile of what each took, in nanoseconds.
func (k *bulk) hits(during time.Duration) float64 {
	took := k.took[:0]
	tokens := make([]watchword.Token, 1<<14)
	for i := range tokens {
		tokens[i] = web(k.pick())
	}
	began := time.Now()
	for last := began; last.Sub(began) < during; {
		k.want(tokens[len(took)%len(tokens)], watchword.OK)
		now := time.Now()
		took, last = append(took, now.Sub(last)), now
	}
	k.took = took
	slices.Sort(took)
	return float64(took[len(took)*99/100])
}

// One event voids every token of a client while others are in use: how long until it is in force, and what the hits of
// others notice. In every round the Ledger is a new one, so that the windows before and after can be compared.
func BenchmarkBulk(b *testing.B) {
	k := newBulk(b)
	for _, others := range []int{0, 1000} {
		b.Run(fmt.Sprint("deny/", others), func(b *testing.B) {
			k.B = b
			for b.Loop() {
				k.deny(others)
			}
		})
	}
	// Everybody whose answer is in question comes at once and again, and new tokens come as ever.
	b.Run("revalidate", func(b *testing.B) {
		k.B = b
		const lasts, newOnes = 4 * time.Second, 100
		for b.Loop() {
			l := k.hears(0)
			before, others := k.calls[0].Load(), k.calls[1].Load()
			if err := l.Apply(context.Background(), revocation.Event{ID: "1", Issuer: "main", Selector: revocation.Selector{Client: "batch"}, Effect: revocation.Revalidate}); err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			came, strangers := 0, 0
			for time.Since(began) < lasts {
				if came%1000 == 0 && strangers < int(time.Since(began).Seconds()*newOnes) {
					strangers++
					k.want(web(inUse+strangers), watchword.OK)
				}
				if d := k.verify(batch(came % k.many)); d.Reason != watchword.OK && d.Reason != watchword.CannotKnow || d.Reason == watchword.OK && watchword.Age(d.Answer.AsOf(), began) < 0 {
					b.Fatal(d.Reason, d.Err, "on evidence from before the event")
				}
				came++
			}
			took := time.Since(began).Seconds()
			b.ReportMetric(float64(came), "came")
			b.ReportMetric(float64(k.calls[0].Load()-before)/took, "reasked/s")
			b.ReportMetric((reasked*took+reasked/10)/took, "allowed/s")
			b.ReportMetric(float64(k.calls[1].Load()-others-int64(strangers)), "others-asked")
			b.ReportMetric(float64(strangers)/took, "new/s")
		}
	})
}

func (k *bulk) deny(others int) {
	const window = 80 * time.Millisecond
	var applied, before, during, after []float64
	for range 25 {
		l := k.hears(others)
		p99 := k.hits(window)
		done := make(chan time.Duration)
		go func() {
			time.Sleep(window / 2)
			began := time.Now()
			err := l.Apply(context.Background(), revocation.Event{ID: "all", Issuer: "main", Selector: revocation.Selector{Client: "batch"}})
			took := time.Since(began)
			if err != nil {
				k.Error(err)
			}
			done <- took
		}()
		then := k.hits(window)
		applied = append(applied, float64(<-done))
		before, during, after = append(before, p99), append(during, then), append(after, k.hits(window))
		k.want(batch(rand.IntN(k.many)), watchword.Revoked)
	}
	for i := range k.many {
		k.want(batch(i), watchword.Revoked)
	}
	for i := range inUse {
		k.want(web(i), watchword.OK)
	}
	k.ReportMetric(float64(k.many), "voided")
	k.ReportMetric(slices.Max(applied), "slowest-apply-ns")
	k.ReportMetric(middle(applied), "apply-ns")
	for what, all := range map[string][]float64{"before": before, "during": during, "after": after} {
		k.ReportMetric(middle(all), "p99-"+what+"-ns")
	}
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// zipfian draws ranks with exponent 1, which rand.Zipf cannot.
func zipfian(n int) func() int {
	r := rand.New(rand.NewPCG(1, 2))
	h := math.Log(float64(n))
	return func() int { return min(n-1, int(math.Exp(r.Float64()*h))-1) }
}
