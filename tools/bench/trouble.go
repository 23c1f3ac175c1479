package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// herd sends everything at once for one token that nobody has seen.
func (b *bench) herd(ctx context.Context) error {
	n := 10_000
	if b.short {
		n = 2_000
	}
	i, err := b.launch(ctx, settings{"tcp", "standard", "64MiB", 2 * time.Second, wideOpen}, b.machine.serving)
	if err != nil {
		return err
	}
	defer i.stop()
	all, err := dialAll(ctx, i.forwardAuth, n, forwardAuth)
	defer closeAll(all)
	if err != nil {
		return err
	}
	each := func(id int) func(int) draw { return func(int) draw { return count(id, 1, new(atomic.Bool))(0) } }
	began := time.Now()
	if _, err := askOver(all, each(0)); err != nil { // the connections of a gateway are in use already
		return err
	}
	first := time.Since(began)
	b.as.mode.Store(takes20ms)
	defer b.as.mode.Store(answers)
	b.cold++
	asked := b.as.calls.Load()
	began = time.Now()
	answered, err := askOver(all, each(b.cold))
	took := time.Since(began)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d requests at once for one cold token, AS takes 20 ms: ", n)
	b.report.figure(name+"AS calls", "%.0f", float64(b.as.calls.Load()-asked), limit{1, 1}, fmt.Sprintf("%d right answers", answered))
	b.report.figure("– all answered after", "%.0f ms", float64(took.Milliseconds()), limit{600, 0}, fmt.Sprintf("the first request of each connection, with accepting it: %d ms", first.Milliseconds()))
	b.report.figure("– resident memory at most", "%.0f MB", memory(i.cmd.Process.Pid, "VmHWM"), limit{400, 0}, "")
	return nil
}

// outages lets the authorization server fail in four ways, asks about cold tokens, and looks at what hits cost.
func (b *bench) outages(ctx context.Context) error {
	const timeout = 500 * time.Millisecond
	i, err := b.launch(ctx, settings{"tcp", "standard", "64MiB", timeout, wideOpen}, b.machine.serving)
	if err == nil {
		defer i.stop()
		err = fill(ctx, i.forwardAuth, forwardAuth, 10_000)
	}
	if err != nil {
		return err
	}
	hits := target{name: "well", to: i.forwardAuth, conns: 16, shape: forwardAuth, draws: func(stop *atomic.Bool) func(int) draw { return zipf(10_000, stop) }}
	targets := []*target{&hits}
	slowest := map[string]time.Duration{}
	for _, fault := range []struct {
		name string
		mode int32
	}{{"hangs", hangs}, {"is dead", answers}, {"answers 500", fails}, {"answers 429", limits}} {
		ill := hits
		ill.name = fault.name
		ill.while = func(stop chan bool) error {
			if fault.mode == answers {
				b.as.die()
			}
			b.as.mode.Store(fault.mode)
			took, err := b.askInVain(ctx, i, stop)
			slowest[fault.name] = max(slowest[fault.name], took)
			b.as.mode.Store(answers)
			if err == nil && fault.mode == answers {
				err = b.as.start()
			}
			return err
		}
		targets = append(targets, &ill)
	}
	all, err := b.rounds(ctx, targets, b.times, b.length)
	if err != nil {
		return err
	}
	for _, name := range []string{"hangs", "is dead", "answers 500", "answers 429"} {
		b.report.figure("AS "+name+": a cold token gets 503 after, at most", "%.0f ms", float64(slowest[name].Milliseconds()),
			limit{float64((timeout + 100*time.Millisecond).Milliseconds()), 0}, fmt.Sprintf("`timeout` is %v", timeout))
		b.report.figure("– hits meanwhile, over hits before", "%.2f×", ratio(all, name, "well"), limit{1.10, 0}, "")
	}
	return nil
}

// askInVain asks about one cold token after the other, twenty a second at most; each answer must be 503.
func (b *bench) askInVain(ctx context.Context, i *instance, stop chan bool) (slowest time.Duration, err error) {
	c, err := dial(ctx, i.forwardAuth, forwardAuth)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for {
		b.cold++
		began := time.Now()
		answer, err := c.send(b.cold)
		if err != nil {
			return 0, err
		}
		slowest = max(slowest, time.Since(began))
		if c.Status != 503 {
			return 0, fmt.Errorf("a cold token got %q; want 503", answer[:min(len(answer), 300)])
		}
		select {
		case <-stop:
			return slowest, nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}
