package watchword_test

import (
	"context"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

func BenchmarkVerifyConstantSource(b *testing.B) {
	a, err := watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann","aud":"api","scope":"read write","exp":4102444800}`), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	if err != nil {
		b.Fatal(err)
	}
	src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { return a, nil })
	v, err := watchword.New(watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{
		Match:  watchword.Match{Hosts: []string{"api.example"}, Paths: []string{"/orders/*"}, Methods: []string{"GET"}},
		Policy: watchword.Policy{Name: "p", Scopes: []string{"read"}, Audience: []string{"api"}, Freshness: watchword.Freshness{MaxStaleness: time.Hour}}}}})
	if err != nil {
		b.Fatal(err)
	}
	r := watchword.Request{Door: "x", Token: "0123456789012345678901234567890123456789abc", Method: "GET", Host: "api.example", Path: "/orders/1"}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if d := v.Verify(ctx, r); d.Reason != watchword.OK {
			b.Fatal(d.Reason, d.Err)
		}
	}
}
