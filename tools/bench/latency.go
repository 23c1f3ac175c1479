package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	hitsPerSecond = 400 // over hitConns: far below what the door can do, so that nothing but trouble makes a queue
	hitConns      = 16
	coldPerSecond = 50 // new tokens, in every window: trouble changes what becomes of them, not how many there are
	coldConns     = 64
)

// steadily asks over all connections, each at its own random instants, whatever became of the request before (an open
// loop): requests that were in step would always meet the same others. A request that waits for the one before it counts
// from when it was due; our own late waking is not counted.
func steadily(all []*conn, perSecond int, until time.Time, ask func(*conn) error) (took []time.Duration, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	every := time.Duration(len(all)) * time.Second / time.Duration(perSecond)
	began := time.Now()
	for i, c := range all {
		wg.Go(func() {
			var mine []time.Duration
			var failed error
			for due := began.Add(every * time.Duration(i) / time.Duration(len(all))); due.Before(until) && failed == nil; due = due.Add(time.Duration((0.5 + rand.Float64()) * float64(every))) {
				from := due
				if wait := time.Until(due); wait > 0 {
					time.Sleep(wait)
					from = time.Now()
				}
				failed = ask(c)
				mine = append(mine, time.Since(from))
			}
			mu.Lock()
			defer mu.Unlock()
			took, err = append(took, mine...), cmp.Or(err, failed)
		})
	}
	wg.Wait()
	return took, err
}

func percentile(sorted []time.Duration, p float64) float64 {
	return float64(sorted[min(len(sorted)-1, int(p*float64(len(sorted))))].Microseconds())
}

// window looks at what hits take while new tokens come too, and counts what became of those.
func (b *bench) window(i *instance, hits, cold []*conn, length time.Duration) (took []time.Duration, statuses map[int]int, err error) {
	until := time.Now().Add(length)
	statuses = map[int]int{}
	var mu sync.Mutex
	var next atomic.Int64
	next.Store(int64(b.cold))
	failed := make(chan error, 1)
	go func() {
		_, err := steadily(cold, coldPerSecond, until, func(c *conn) error {
			_, err := c.send(int(next.Add(1)))
			mu.Lock()
			statuses[c.Status]++
			mu.Unlock()
			return err
		})
		failed <- err
	}()
	took, err = hitting(hits, until)
	err = cmp.Or(err, <-failed)
	b.cold = int(next.Load())
	return took, statuses, err
}

// hitting asks about tokens that are known until then, at hitsPerSecond, and returns what each took, sorted.
func hitting(all []*conn, until time.Time) (took []time.Duration, err error) {
	var never atomic.Bool
	var one sync.Mutex
	draw := zipf(10_000, &never)(int(until.UnixNano()))
	took, err = steadily(all, hitsPerSecond, until, func(c *conn) error {
		one.Lock()
		id := draw()
		one.Unlock()
		return c.ask(id)
	})
	slices.Sort(took)
	return took, err
}

// latency is what a hit takes while the authorization server answers 503 to new tokens, while it hangs, and, to compare,
// while it is well and every question needs a new connection; each window beside one in which all is well: nobody who is
// served from memory may notice.
func (b *bench) latency(ctx context.Context) error {
	i, err := b.launchFilled(ctx, 500*time.Millisecond, 10_000)
	if err != nil {
		return err
	}
	defer i.stop()
	hits, err := dialAll(ctx, i.forwardAuth, hitConns, forwardAuth)
	defer closeAll(hits)
	if err != nil {
		return err
	}
	cold, err := dialAll(ctx, i.forwardAuth, coldConns, forwardAuth)
	defer closeAll(cold)
	if err != nil {
		return err
	}
	length := 3 * b.length
	for _, fault := range []struct {
		name string
		mode int32
		then int // the status of a new token meanwhile
	}{{"answers 503", refuses, 503}, {"hangs", hangs, 503}, {"answers, and closes every connection", closes, 200}} {
		var p50, p99 [2][]float64
		var ratios50, ratios99 []float64
		asked, requests := 0, 0
		var slowest [2]time.Duration
		for range b.times {
			var at [2][2]float64
			for state, mode := range []int32{answers, fault.mode} {
				took, statuses, err := b.during(mode, func() ([]time.Duration, map[int]int, error) { return b.window(i, hits, cold, length) })
				if err != nil {
					b.as.mode.Store(answers)
					return err
				}
				want := 200
				if mode != answers {
					want = fault.then
					asked, requests = asked+statuses[want], requests+len(took)
				}
				if len(statuses) != 1 || statuses[want] == 0 {
					return fmt.Errorf("AS %s (%v): new tokens got %v; want %d", fault.name, mode != answers, statuses, want)
				}
				slowest[state] = max(slowest[state], took[len(took)-1])
				at[state] = [2]float64{percentile(took, 0.5), percentile(took, 0.99)}
				p50[state], p99[state] = append(p50[state], at[state][0]), append(p99[state], at[state][1])
			}
			ratios50, ratios99 = append(ratios50, at[1][0]/at[0][0]), append(ratios99, at[1][1]/at[0][1])
			b.as.mode.Store(answers)
			if err := b.recovered(cold[0]); err != nil {
				return err
			}
		}
		must := limit{1.10, 0}
		if fault.then == 200 {
			must = limit{} // nothing is wrong: to compare with
		}
		b.report.figure("AS "+fault.name+": median of hits, over before", "%.2f×", median(ratios50), must,
			fmt.Sprintf("%.0f µs, before %.0f µs; %d hits, all right; %d new tokens got %d", median(p50[1]), median(p50[0]), requests, asked, fault.then))
		b.report.figure("– p99 of hits, over before", "%.2f×", median(ratios99), must,
			fmt.Sprintf("%.0f µs, before %.0f µs; in single rounds %.2f to %.2f; the slowest hit of all: %.1f ms, before %.1f ms", median(p99[1]), median(p99[0]), slices.Min(ratios99), slices.Max(ratios99), slowest[1].Seconds()*1000, slowest[0].Seconds()*1000))
	}
	return nil
}

// during does something while the authorization server is in that mode. One that hangs is stuck as a whole: what it does
// about each question would run on the CPU of those who measure.
func (b *bench) during(mode int32, do func() ([]time.Duration, map[int]int, error)) (took []time.Duration, statuses map[int]int, err error) {
	if mode != hangs {
		b.as.mode.Store(mode)
		return do()
	}
	thaw, err := b.as.freeze()
	if err != nil {
		return nil, nil, err
	}
	took, statuses, err = do()
	return took, statuses, cmp.Or(err, thaw())
}

// recovered waits until a new token is accepted again.
func (b *bench) recovered(c *conn) error {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(100 * time.Millisecond) {
		b.cold++
		if err := c.ask(b.cold); err == nil {
			return nil
		}
	}
	return fmt.Errorf("new tokens are refused %v after the authorization server came back", patience)
}

// hanging sends everything at once for as many new tokens while the authorization server hangs, and looks at what that
// takes: each has its 503 in time, and all of it is given back.
func (b *bench) hanging(ctx context.Context) error {
	n, timeout := 10_000, 2*time.Second
	if b.short {
		n = 2_000
	}
	i, err := b.launch(ctx, settings{"tcp", "standard", "64MiB", timeout, asShipped}, b.machine.serving)
	if err != nil {
		return err
	}
	defer i.stop()
	all, err := dialAll(ctx, i.forwardAuth, n, forwardAuth)
	defer closeAll(all)
	if err != nil {
		return err
	}
	if _, err := askOver(all, func(int) draw { return count(0, 1, new(atomic.Bool))(0) }); err != nil { // each has been used once
		return err
	}
	goroutines := func() float64 {
		v, err := metric(ctx, i.metrics(), "go_goroutines")
		if err != nil {
			fmt.Fprintln(os.Stderr, "go_goroutines:", err)
		}
		return v
	}
	pid := i.cmd.Process.Pid
	calm, before := goroutines(), memory(pid, "VmRSS")
	b.as.mode.Store(hangs)
	defer b.as.mode.Store(answers)
	done := make(chan bool)
	most := make(chan float64, 1)
	go func() {
		v := 0.0
		for {
			v = max(v, goroutines())
			select {
			case <-done:
				most <- v
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	first := b.cold + 1
	b.cold += n
	var wg sync.WaitGroup
	took, errs := make([]time.Duration, n), make([]error, n)
	for k, c := range all {
		wg.Go(func() {
			began := time.Now()
			if _, errs[k] = c.send(first + k); errs[k] == nil && c.Status != 503 {
				errs[k] = fmt.Errorf("a new token got %d; want 503", c.Status)
			}
			took[k] = time.Since(began)
		})
	}
	wg.Wait()
	close(done)
	peak, peakGoroutines := memory(pid, "VmHWM"), <-most
	if at := slices.IndexFunc(errs, func(err error) bool { return err != nil }); at >= 0 {
		return errs[at]
	}
	after := goroutines()
	for began := time.Now(); after > calm+100 && time.Since(began) < patience; after = goroutines() {
		time.Sleep(200 * time.Millisecond)
	}
	name := fmt.Sprintf("AS hangs, %d requests at once for as many new tokens: ", n)
	b.report.figure(name+"all have 503 after", "%.0f ms", float64(slices.Max(took).Milliseconds()), limit{float64((timeout + time.Second).Milliseconds()), 0},
		fmt.Sprintf("`timeout` is %v, and they are sent on one CPU that others use", timeout))
	b.report.figure("– resident memory at most", "%.0f MB", peak, limit{400, 0}, fmt.Sprintf("before, with %d connections open: %.0f MB", n, before))
	b.report.figure("– goroutines at most", "%.0f", peakGoroutines, limit{float64(5*n + 1000), 0}, fmt.Sprintf("before: %.0f; afterwards: %.0f", calm, after))
	if after > calm+100 {
		return fmt.Errorf("%.0f goroutines are left, %.0f before", after, calm)
	}
	return nil
}
