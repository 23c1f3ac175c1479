package cache_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// body is a typical answer of 552 bytes.
func body(i int) []byte {
	s := fmt.Sprintf(`{"active":true,"sub":"user-%08d-4f0c-9d1e-7a6b5c4d3e2f","client_id":"orders-frontend","scope":"openid profile orders:read orders:write","aud":"https://api.example","iss":"https://as.example","exp":%d,"iat":%d,"nbf":%d,"jti":"0d3a4d52-%08d-8e9f","token_type":"Bearer","username":"ann.example@example.com","sid":"c7a1b2c3-d4e5-f607","tenant":"acme-corporation","roles":["reader","writer","auditor"],"department":{"id":4711,"name":"logistics"},"locale":"en-GB"`,
		i, time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Minute).Unix(), time.Now().Add(-time.Minute).Unix(), i)
	for len(s) < 552-len(`,"pad":""}`) {
		s += " "
	}
	return []byte(s + `,"pad":""}`)
}

func token(i int) watchword.Token { return watchword.Token(fmt.Sprintf("tok_%039d", i)) }

// verifier is the whole path in process: policy, cache, judge; with n tokens remembered.
func verifier(tb testing.TB, n int) (*watchword.Verifier, *cache.Cache) {
	m, err := cache.New(cache.Config{MaxBytes: 4 << 30})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Close)
	i := 0
	as := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		i++
		return watchword.ParseAnswer(body(i), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
	})
	v, err := watchword.New(watchword.Config{Source: m.Over(as, 0), Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{
		Match: watchword.Match{Hosts: []string{"api.example"}, Paths: []string{"/orders/*"}, Methods: []string{"GET"}},
		Policy: watchword.Policy{Name: "orders-read", Scopes: []string{"orders:read"}, Audience: []string{"https://api.example"},
			Freshness: watchword.Freshness{MaxStaleness: time.Hour, MaxAge: time.Hour}}}}})
	if err != nil {
		tb.Fatal(err)
	}
	for t := range n {
		if d := v.Verify(tb.Context(), request(token(t))); !d.Allowed() {
			tb.Fatal(d.Reason, d.Err)
		}
	}
	return v, m
}

func request(t watchword.Token) watchword.Request {
	return watchword.Request{Door: "forward_auth", Token: t, Method: "GET", Host: "api.example", Path: "/orders/1"}
}

func BenchmarkSHA256(b *testing.B) {
	t := []byte(token(1))
	for b.Loop() {
		sha256.Sum256(t)
	}
}

func BenchmarkVerifyHot(b *testing.B) {
	v, _ := verifier(b, 1)
	r := request(token(0))
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if d := v.Verify(ctx, r); d.Reason != watchword.OK {
			b.Fatal(d.Reason)
		}
	}
}

func BenchmarkVerifyZipf(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			v, _ := verifier(b, n)
			tokens := make([]watchword.Token, 1<<20)
			z := zipf(n)
			for i := range tokens {
				tokens[i] = token(z())
			}
			ctx, r, i := b.Context(), request(""), 0
			b.ReportAllocs()
			for b.Loop() {
				r.Token = tokens[i&(1<<20-1)]
				i++
				if d := v.Verify(ctx, r); d.Reason != watchword.OK {
					b.Fatal(d.Reason)
				}
			}
		})
	}
}

// zipf draws ranks with exponent 1, which rand.Zipf cannot, and spreads them over the table.
func zipf(n int) func() int {
	r := rand.New(rand.NewPCG(1, 2))
	h := math.Log(float64(n))
	place := r.Perm(n)
	return func() int { return place[min(n-1, int(math.Exp(r.Float64()*h))-1)] }
}
