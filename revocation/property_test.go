package revocation_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// Whoever reads a proof finds every event that came before it in force: events are published before Through moves.
//
// Covers: SIG-21
func TestSIG21EventsBeforeProofs(t *testing.T) {
	t.Parallel()
	l := ledger(t, revocation.Config{})
	start := time.Now().Add(-time.Hour)
	const n = 2000
	old := make([]*watchword.Answer, n)
	for i := range old {
		old[i] = answer(t, time.Now(), fmt.Sprintf(`,"sub":"s%d","iat":5`, i))
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				if through := l.Coverage("main").Through; !through.IsZero() {
					i := int(through.Sub(start) / time.Second)
					if v := l.Voids(watchword.Query{Issuer: "main"}, old[i]); !v.Revoked {
						t.Errorf("proof %d is seen before its event", i)
						return
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range n {
		apply(t, l, revocation.Event{ID: fmt.Sprint(i), Selector: revocation.Selector{Subject: fmt.Sprint("s", i)}, Operator: true})
		l.Cover("main", start.Add(time.Duration(i)*time.Second))
	}
	close(done)
	wg.Wait()
}

// A look at the ledger costs no memory.
func TestVoidsAllocatesNothing(t *testing.T) {
	l := held(t, "", 100, bySubject)
	apply(t, l, revocation.Event{Token: l.TokenID("main", "another")})
	a := answer(t, time.Now(), `,"sub":"ann","client_id":"web","iat":5,"jti":"x"`)
	q := watchword.Query{Issuer: "main", Token: "an-opaque-token-of-some-length"}
	if n := testing.AllocsPerRun(100, func() { l.Voids(q, a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
