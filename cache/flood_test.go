package cache_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// One tenant brings twenty times as many good tokens as there is room for; of the hits on those that
// others use meanwhile at most one in a hundred is lost.
//
// Covers: CAC-12
func TestCAC12FloodOfOneTenant(t *testing.T) {
	t.Parallel()
	const hot, flood = 200, 20_000
	m, err := cache.New(cache.Config{MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	asked := map[watchword.Token]int{}
	src := m.Over(watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		asked[q.Token]++ // one at a time: every asking is waited for
		return watchword.ParseAnswer(body(1), watchword.Evidence{Asked: time.Now()})
	}), time.Hour)
	v, err := watchword.New(watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}}, Callers: []watchword.Policy{{Name: "p", Freshness: watchword.Freshness{MaxStaleness: time.Hour}}}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(format string, i int) {
		if d := v.Verify(t.Context(), watchword.Request{Token: watchword.Token(fmt.Sprintf(format, i)), Caller: "p"}); !d.Allowed() {
			t.Fatal(d.Reason, d.Err)
		}
	}
	for range 5 {
		for i := range hot {
			ask("other-%d", i)
		}
	}
	for i := range flood {
		ask("flood-%d", i)
		ask("other-%d", i%hot) // others go on, at the same rate
	}
	again := 0
	for i := range hot {
		again += asked[watchword.Token(fmt.Sprintf("other-%d", i))] - 1
	}
	s := m.Stats()
	if again > flood/100 || s.Bytes > 1<<20 || s.Evicted < flood/2 {
		t.Errorf("%d askings about tokens in use, %d bytes, %d evicted", again, s.Bytes, s.Evicted)
	}
	t.Logf("%d of %d hits on tokens in use missed; %d of %d evicted", again, flood, s.Evicted, flood)
}
