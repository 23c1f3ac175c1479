package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// What is asked about during an outage, besides the hits that latency.go sends.
const (
	newcomers  = 25  // each holds a token that nobody has seen until it is accepted, and then the next
	newPerSec  = 50  // of theirs
	strictOnes = 200 // tokens in use whose bound the outage outlasts; each once a second
	guardRate  = 200 // as shipped
)

// became is an answer that somebody got.
type became struct {
	at     time.Time
	status int
}

// crowdOf asks without an end about tokens, and keeps what became of every request.
type crowdOf struct {
	sync.Mutex
	all []became
}

// asks is what one connection does at each of its instants: it asks about the token of number next says, which is told
// whether the one before was accepted.
func (k *crowdOf) asks(next func(c *conn, accepted bool) int) func(c *conn) error {
	last := map[*conn]bool{}
	return func(c *conn) error {
		k.Lock()
		id := next(c, last[c])
		k.Unlock()
		answer, err := c.send(id)
		if err == nil && c.Status == 200 {
			err = c.right(answer, id)
		}
		k.Lock()
		defer k.Unlock()
		last[c] = c.Status == 200
		k.all = append(k.all, became{time.Now(), c.Status})
		return err
	}
}

// count returns how many answers of each status came from then on, and when the last was no 200.
func (k *crowdOf) count(from time.Time) (by map[int]int, refused time.Time) {
	k.Lock()
	defer k.Unlock()
	by = map[int]int{}
	for _, one := range k.all {
		if one.at.Before(from) {
			continue
		}
		by[one.status]++
		if one.status != 200 && one.at.After(refused) {
			refused = one.at
		}
	}
	return by, refused
}

// windows are what hits took in each of several.
type windows struct {
	p50, p99 []float64
	hits     int
}

func (w *windows) add(sorted []time.Duration) {
	if len(sorted) > 0 {
		w.p50, w.p99, w.hits = append(w.p50, percentile(sorted, 0.5)), append(w.p99, percentile(sorted, 0.99)), w.hits+len(sorted)
	}
}

// outage lets the authorization server answer 503 for a minute under load, with the guard as shipped: tokens that
// memory can answer for, tokens whose bound ends meanwhile, and new ones, whose holders come again until they are
// accepted. All are good.
func (b *bench) outage(ctx context.Context) error {
	lasts, around := time.Minute, 20*time.Second
	if b.short {
		lasts, around = 15*time.Second, 10*time.Second
	}
	i, err := b.launchFilled(ctx, 2*time.Second, 10_000)
	if err != nil {
		return err
	}
	defer i.stop()
	var conns [3][]*conn
	for k, of := range []struct {
		n     int
		shape *shape
	}{{hitConns, forwardAuth}, {newcomers, forwardAuth}, {newcomers, strictly}} {
		conns[k], err = dialAll(ctx, i.forwardAuth, of.n, of.shape)
		defer closeAll(conns[k])
		if err != nil {
			return err
		}
	}
	begins := time.Now().Add(around)
	ends := begins.Add(lasts)
	until := ends.Add(around)
	fresh, strict := &crowdOf{}, &crowdOf{}
	holds, turn := map[*conn]int{}, 0
	failed := make(chan error, 2)
	go func() {
		_, err := steadily(conns[1], newPerSec, until, fresh.asks(func(c *conn, accepted bool) int {
			if accepted || holds[c] == 0 {
				b.cold++
				holds[c] = b.cold
			}
			return holds[c]
		}))
		failed <- err
	}()
	go func() {
		_, err := steadily(conns[2], strictOnes, until, strict.asks(func(*conn, bool) int {
			turn++
			return 20_000 + turn%strictOnes
		}))
		failed <- err
	}()
	hits := func(until time.Time) (w windows) {
		for err == nil && time.Now().Before(until) {
			var took []time.Duration
			took, err = hitting(conns[0], time.Now().Add(min(3*time.Second, time.Until(until))))
			w.add(took)
		}
		return w
	}
	retries := func() float64 {
		n, failed := metric(ctx, i.metrics(), `watchword_guard_retries_total{issuer="main"}`)
		err = cmp.Or(err, failed)
		return n
	}
	before := hits(begins)
	log := &diary{}
	again := retries()
	b.as.diary.Store(log)
	b.as.mode.Store(refuses)
	defer b.as.diary.Store(nil)
	defer b.as.mode.Store(answers)
	meanwhile := hits(ends)
	b.as.mode.Store(answers)
	back := time.Now()
	again = retries() - again
	hits(until)
	if err = cmp.Or(err, errors.Join(<-failed, <-failed)); err != nil {
		return err
	}
	return b.tellOutage(begins, back, log, again, before, meanwhile, fresh, strict)
}

func (b *bench) tellOutage(down, back time.Time, log *diary, retries float64, before, meanwhile windows, fresh, strict *crowdOf) error {
	calls := log.count(func(q question) bool { return q.at.Before(back) })
	all, last := fresh.count(down)
	strictly, refused := strict.count(down)
	for status, n := range strictly {
		all[status] += n
	}
	if refused.After(last) {
		last = refused
	}
	wrong := 0
	for status, n := range all {
		if status != 200 && status != 503 {
			wrong += n
		}
	}
	if all[503] == 0 || calls == 0 {
		return fmt.Errorf("an outage that nobody noticed: %v", all)
	}
	length := back.Sub(down).Round(time.Second)
	first := float64(calls) - retries
	b.report.figure(fmt.Sprintf("AS answers 503 for %v: questions over first questions", length), "%.3f×", float64(calls)/first, limit{1.1 + 3/first, 0},
		fmt.Sprintf("`retry_budget` is 0.1, and 3 may be saved up; %d, %.0f of them asked once more; %v answers to %d requests a second that memory cannot answer, of good tokens", calls, retries, listed(all), newPerSec+strictOnes))
	b.report.figure("– p99 of hits, over before", "%.2f×", median(meanwhile.p99)/median(before.p99), limit{1.1, 0}, fmt.Sprintf("%.0f µs, before %.0f µs, medians of windows of 3 s; their median %.2f×; %d hits, all right",
		median(meanwhile.p99), median(before.p99), median(meanwhile.p50)/median(before.p50), meanwhile.hits))
	b.report.none("– good tokens that were called anything but good or unknown (401 …)", wrong, "")
	b.report.figure("– the last good token was refused, after the return", "%.1f s", max(0, last.Sub(back).Seconds()), limit{5, 0}, "the breaker tries after 2.5 to 4.5 s, by chance")
	b.report.figure("– questions in the fullest second after the return", "%.0f", float64(log.fullest(back)), limit{1.01 * guardRate, 0}, "`guard.rate` is 200; counted where they arrive")
	return nil
}

func listed(by map[int]int) (text string) {
	for _, status := range slices.Sorted(maps.Keys(by)) {
		text += fmt.Sprintf("%d×%d, ", by[status], status)
	}
	return text[:max(0, len(text)-2)]
}
