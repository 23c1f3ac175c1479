package main

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// spray lets one client send random tokens through the gateway that others come through too, with the guard and the
// budget of each client as shipped.
func (b *bench) spray(ctx context.Context) error {
	const known, cold, lasts = 10_000, 1_000, 20 * time.Second
	random := 100_000
	if b.short {
		random = 20_000
	}
	i, err := b.launchFilled(ctx, 2*time.Second, known)
	if err != nil {
		return err
	}
	defer i.stop()
	log := &diary{}
	b.as.diary.Store(log)
	defer b.as.diary.Store(nil)
	first := b.cold + 1
	b.cold += cold
	began := time.Now()
	until := began.Add(lasts)
	crowds := []*struct {
		name     string
		shape    *shape
		n, first int
		conns    int
		became   crowdOf
	}{{name: "random", shape: ofSprayer, n: random, first: nobody, conns: 64}, {name: "cold", shape: forwardAuth, n: cold, first: first, conns: 16}, {name: "known", shape: forwardAuth, n: known, conns: 16}}
	failed := make(chan error, len(crowds))
	for _, k := range crowds {
		conns, err := dialAll(ctx, i.forwardAuth, k.conns, k.shape)
		defer closeAll(conns)
		if err != nil {
			return err
		}
		var next atomic.Int64
		go func() {
			_, err := steadily(conns, k.n/int(lasts/time.Second), until, k.became.asks(func(*conn, bool) int { return k.first + int(next.Add(1)-1)%k.n }))
			failed <- err
		}()
	}
	for range crowds {
		err = cmp.Or(err, <-failed)
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	var by [3]map[int]int
	for n, k := range crowds {
		by[n], _ = k.became.count(time.Time{})
	}
	b.report.none(fmt.Sprintf("one client sends %d random tokens in %v: good cold tokens of others refused", random, took.Round(time.Second)), total(by[1])-by[1][200], fmt.Sprintf("of %d; the random ones: %s", total(by[1]), listed(by[0])))
	fromAS := log.count(func(q question) bool { return q.id < known })
	b.report.figure("– hit ratio of known tokens drops by", "%.2f points", 100*float64(fromAS+total(by[2])-by[2][200])/float64(total(by[2])), limit{1, 0}, fmt.Sprintf("%d requests", total(by[2])))
	b.report.figure("– questions", "%.0f", float64(log.count(func(question) bool { return true })), limit{1000 + 100*took.Seconds() + cold, 0}, "1,000 at once and 100 a second for that client, and one for each good one")
	return nil
}

func total(by map[int]int) (n int) {
	for _, k := range by {
		n += k
	}
	return n
}
