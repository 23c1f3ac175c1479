package guard

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

// budget is how many questions may be asked once more: a share of all that are asked, a few of them saved up. A server
// that fails gets at most that much on top.
type budget struct {
	share float64

	mu   sync.Mutex
	left float64 // guarded by mu
}

const mostSaved = 3

func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(b.left+b.share, mostSaved)
}

func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.share == 0 || b.left < 1 {
		return false
	}
	b.left--
	return true
}

// hedged asks, and where HedgeAfter is set asks a second time when the first question takes long, if budget and turns
// allow without waiting. The first answer counts, and the other question is given up. Asking twice is harmless:
// introspection changes nothing (RFC 7662 §2).
func (g *Guard) hedged(ctx context.Context, q *watchword.Query, first *turn, state uint64) (*watchword.Answer, error) {
	if g.config.HedgeAfter == 0 || q.Background {
		return g.ask(ctx, *q, first, state)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		a   *watchword.Answer
		err error
	}
	came := make(chan outcome, 2)
	ask := func(t *turn) {
		go func() {
			o := outcome{err: errors.New("panic while asking")}
			defer func() { _ = recover(); came <- o }() // what it says may hold a token
			o.a, o.err = g.ask(ctx, *q, t, state)
		}()
	}
	ask(first)
	flying := 1
	after := time.NewTimer(g.config.HedgeAfter)
	defer after.Stop()
	for {
		select {
		case o := <-came:
			if flying--; o.err == nil || flying == 0 {
				return o.a, o.err
			}
		case <-after.C:
			if !g.breaker.IsClosed() || !g.budget.spend() {
				continue
			}
			if t := g.turns.now(false); t != nil {
				g.hedges.Add(1)
				flying++
				ask(t)
			}
		}
	}
}
