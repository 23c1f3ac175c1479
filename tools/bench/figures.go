package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

var heapLine = regexp.MustCompile(`(\d+) bytes of heap per entry`)

// inProcess runs the product's own benchmarks of the whole path: policy, cache, judgement.
func (b *bench) inProcess(ctx context.Context) error {
	runs, benchtime := 3, "1s"
	if b.short {
		runs, benchtime = 2, "0.3s"
	}
	s, heap := said{}, 0.0
	for range runs {
		out, err := b.test(ctx, "cache", s, "-test.run", "^TestCAC06BytesPerEntry$", "-test.v",
			"-test.bench", "SHA256|VerifyHot|VerifyZipf", "-test.cpu", "1", "-test.benchtime", benchtime)
		if err != nil {
			return err
		}
		if m := heapLine.FindSubmatch(out); m != nil {
			heap, _ = strconv.ParseFloat(string(m[1]), 64)
		}
	}
	const hot, small, large = "VerifyHot", "VerifyZipf/10000", "VerifyZipf/1000000"
	if err := s.lacks("SHA256", hot, small, large); err != nil {
		return err
	}
	ns := func(name string) float64 { return s.of(name, "ns/op") }
	allocs := most(append(s[hot]["allocs/op"], s[large]["allocs/op"]...))
	detail := func(name string) string {
		return fmt.Sprintf("at best %.0f; %.0f allocations", slices.Min(s[name]["ns/op"]), most(s[name]["allocs/op"]))
	}
	sum := ns("SHA256")
	b.report.figure("in-process `Verify`, one hot key", "%.0f ns", ns(hot), limit{400, 160}, detail(hot))
	b.report.figure("– over SHA-256 of 43 bytes", "%.1f×", ns(hot)/sum, limit{5, 2.2}, fmt.Sprintf("which takes %.0f ns", sum))
	b.report.figure("in-process `Verify`, Zipf over 1M", "%.0f ns", ns(large), limit{1600, 600}, detail(large))
	b.report.figure("– growth from 10k to 1M", "%.1f×", ns(large)/ns(small), limit{4, 2.7}, fmt.Sprintf("10k: %.0f ns", ns(small)))
	verdict := map[bool]string{true: "moonshot", false: "**missed**"}[allocs == 0]
	b.report.row("– allocations, both", fmt.Sprint(allocs), "0", "0", verdict)
	b.report.figure("heap per entry, 552-byte answer", "%.0f B", heap, limit{1250, 720}, "")
	return nil
}

// start measures processes that have done nothing yet, on both CPUs: the default build, then the one without engines.
func (b *bench) start(ctx context.Context) error {
	alone := filepath.Join(b.dir, "standalone")
	if err := b.compile(ctx, "build", "-tags", "standalone", "-trimpath", "-ldflags", "-s -w", "-o", alone, "./cmd/watchword"); err != nil {
		return fmt.Errorf("go build -tags standalone: %w", err)
	}
	const engines = "with the clients of Redis, NATS and Kafka"
	if err := b.begin(ctx, "", engines, limit{40, 15}, limit{}, limit{}); err != nil {
		return err
	}
	whole := b.binary
	defer func() { b.binary = whole }()
	b.binary = alone
	return b.begin(ctx, ", `-tags standalone`", "without them", limit{40, 15}, limit{25, 12}, limit{30, 15})
}

// begin measures one build.
func (b *bench) begin(ctx context.Context, build, detail string, start, idle, size limit) error {
	runs := 11
	if b.short {
		runs = 5
	}
	var took, resident []float64
	for range runs {
		began := time.Now()
		i, err := b.launch(ctx, settings{"tcp", "standard", "64MiB", 2 * time.Second, wideOpen}, b.machine.everywhere)
		if err != nil {
			return err
		}
		took = append(took, time.Since(began).Seconds()*1000)
		if len(took)%5 == 0 {
			time.Sleep(time.Second)
			resident = append(resident, memory(i.cmd.Process.Pid, "VmRSS"))
		}
		i.stop()
	}
	file, err := os.Stat(b.binary)
	if err != nil {
		return err
	}
	b.report.figure("start to the first right answer"+build, "%.0f ms", median(took), start, fmt.Sprintf("at best %.0f", slices.Min(took)))
	b.report.figure("resident memory when idle"+build, "%.1f MB", median(resident), idle, detail)
	b.report.figure("stripped binary"+build, "%.1f MB", float64(file.Size())/1e6, size, detail)
	return nil
}

// doors measures hits and misses at the doors, and behind nginx.
func (b *bench) doors(ctx context.Context) error {
	bare, calling, err := b.startHello(ctx)
	if err != nil {
		return err
	}
	targets := []*target{
		{name: "hello", to: bare, conns: 16, shape: bareRequest, draws: func(stop *atomic.Bool) func(int) draw { return count(0, math.MaxInt, stop) }},
	}
	var tcp, unix *instance
	for _, one := range []struct {
		name     string
		tokens   int
		settings settings
		at       **instance
	}{
		{"tcp", b.tokens, settings{"tcp", "standard", "256MiB", 2 * time.Second, wideOpen}, &tcp},
		{"unix", b.tokens, settings{"unix", "nginx", "256MiB", 2 * time.Second, wideOpen}, &unix},
		{"small", 10_000, settings{"tcp", "standard", "256MiB", 2 * time.Second, wideOpen}, new(*instance)},
		{"large", b.many, settings{"tcp", "standard", "2GiB", 2 * time.Second, wideOpen}, new(*instance)},
	} {
		i, err := b.launch(ctx, one.settings, b.machine.serving)
		if err == nil {
			err = fill(ctx, i.forwardAuth, forwardAuth, one.tokens)
		}
		if err != nil {
			return err
		}
		defer i.stop()
		*one.at = i
		known := func(stop *atomic.Bool) func(int) draw { return zipf(one.tokens, stop) }
		targets = append(targets, &target{name: "forward " + one.name, to: i.forwardAuth, conns: 16, shape: forwardAuth, draws: known})
		if one.at == &tcp || one.at == &unix {
			targets = append(targets, &target{name: "introspect " + one.name, to: i.introspection, conns: 16, shape: introspect, draws: known})
		}
	}
	targets = append(targets, b.crowd(targets)...)
	behind, err := b.startNginx(ctx, unix)
	if err != nil {
		b.report.note("nginx: not measured: %v", err)
	}
	targets = append(targets, behind...)
	all, err := b.rounds(ctx, targets, b.times, b.length)
	if err != nil {
		return err
	}
	defer b.tellDoors(all)
	if err := b.allocations(ctx, bare, "http://"+calling.address+"/mallocs", tcp); err != nil {
		return err
	}
	// Misses last: they push out what hits need.
	missed, err := b.rounds(ctx, []*target{
		{name: "call", to: calling, conns: 16, shape: callRequest, draws: b.strangers(), asks: 1},
		{name: "miss", to: tcp.forwardAuth, conns: 16, shape: forwardAuth, draws: b.strangers(), asks: 1},
	}, b.times, b.length)
	maps.Copy(all, missed)
	return err
}

// crowd is three of the targets again, at 64 connections.
func (b *bench) crowd(of []*target) (more []*target) {
	for _, t := range of {
		if t.name == "hello" || t.name == "forward tcp" || t.name == "introspect tcp" {
			c := *t
			c.name, c.conns = t.name+" 64", 64
			more = append(more, &c)
		}
	}
	return more
}

func (b *bench) tellDoors(all map[string][]sample) {
	hits := func(name, of, under string, l limit) {
		if all[of] != nil {
			b.report.figure(name, "%.2f×", ratio(all, of, under), l, fmt.Sprintf("%.1f µs", microseconds(all[of])))
		}
	}
	b.report.figure("hello: a bare handler, tcp, CPU per request", "%.1f µs", microseconds(all["hello"]), limit{}, "")
	hits("introspection door, hit, tcp, over hello", "introspect tcp", "hello", limit{1.8, 0.9})
	hits("– unix", "introspect unix", "hello", limit{1.35, 0.6})
	hits("– tcp, 64 connections each", "introspect tcp 64", "hello 64", limit{})
	hits("forward-auth door, hit, tcp, over hello", "forward tcp", "hello", limit{1.7, 0.85})
	hits("– unix", "forward unix", "hello", limit{1.3, 0.62})
	hits("– tcp, 64 connections each", "forward tcp 64", "hello 64", limit{})
	hits("– growth from 10k to 1M entries", "forward large", "forward small", limit{1.6, 1.15})
	hits("a miss, over hello with a bare call to the same AS", "miss", "call", limit{1.9, 1.25})
	hits("nginx auth_request + us (unix), over nginx + proxy_cache", "nginx with us", "nginx alone", limit{1.8, 1.1})
}

// strangers are tokens that nobody has seen yet.
func (b *bench) strangers() func(stop *atomic.Bool) func(int) draw {
	return func(stop *atomic.Bool) func(int) draw {
		b.cold += 1_000_000
		return count(b.cold, 1_000_000, stop)
	}
}

func (b *bench) startHello(ctx context.Context) (bare, calling *server, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	bare, calling = &server{network: "tcp", address: free()}, &server{network: "tcp", address: free()}
	c := b.machine.serving(ctx, self, "hello", bare.address, calling.address, b.as.addr)
	c.Stderr = os.Stderr
	if _, err := c.StdinPipe(); err != nil {
		return nil, nil, err
	}
	if err := c.Start(); err != nil {
		return nil, nil, err
	}
	bare.pids, calling.pids = []int{c.Process.Pid}, []int{c.Process.Pid}
	for began := time.Now(); time.Since(began) < patience; time.Sleep(time.Millisecond) {
		var c *conn
		if c, err = dial(ctx, bare, bareRequest); err == nil {
			c.Close()
			break
		}
	}
	return bare, calling, err
}

// allocations compares what a hit allocates with what hello does for the same request.
func (b *bench) allocations(ctx context.Context, bare *server, helloURL string, i *instance) error {
	const n = 20_000
	per := func(to *server, s shape, url string) (float64, error) {
		var at [3]float64
		for k := range at {
			var err error
			if k == 2 {
				if _, err = drive(ctx, to, 16, &s, count(0, n, new(atomic.Bool)), func() {}); err != nil {
					return 0, err
				}
			}
			if at[k], err = metric(ctx, url, "go_memstats_mallocs_total"); err != nil {
				return 0, err
			}
		}
		return (at[2] - at[1] - (at[1] - at[0])) / n, nil
	}
	for _, door := range []struct {
		name  string
		to    *server
		shape *shape
	}{{"introspection", i.introspection, introspect}, {"forward-auth", i.forwardAuth, forwardAuth}} {
		same := *door.shape
		same.right, same.whose = bareRequest.right, false
		under, err := per(bare, same, helloURL)
		if err != nil {
			return err
		}
		ours, err := per(door.to, *door.shape, i.metrics())
		if err != nil {
			return err
		}
		b.report.figure("allocations per "+door.name+" hit", "%.0f", math.Round(ours), limit{math.Round(under) + 3, 0}, fmt.Sprintf("hello with the same request: %.1f", under))
	}
	return nil
}
