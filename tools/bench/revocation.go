package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

var coveringLine = regexp.MustCompile(`([\d.]+) questions per token-hour by max_staleness alone, ([\d.]+) with a covering feed`)

// revocation is what the ledger costs and does, by the product's own benchmarks.
func (b *bench) revocation(ctx context.Context) error {
	s := said{}
	if _, err := b.test(ctx, "", s, "-test.run", "^$", "-test.bench", "^BenchmarkBulk$", "-test.cpu", "2", "-test.benchtime", "1x"); err != nil {
		return err
	}
	out, err := b.test(ctx, "", s, "-test.run", "^TestFiguresCovering$", "-test.v")
	if err != nil {
		return err
	}
	covering := coveringLine.FindSubmatch(out)
	if covering == nil {
		return errors.New("TestFiguresCovering says nothing")
	}
	if _, err := b.test(ctx, "revocation", s, "-test.run", "^$", "-test.bench", "^Benchmark(Voids|Restart)$", "-test.cpu", "1", "-test.benchtime", "0.5s"); err != nil {
		return err
	}
	if _, err := b.test(ctx, "revocation", s, "-test.run", "^$", "-test.bench", "^BenchmarkApply$", "-test.cpu", "2", "-test.benchtime", "1s"); err != nil {
		return err
	}
	if err := s.lacks("Bulk/deny/0", "Bulk/deny/1000", "Bulk/revalidate", "Restart", "Apply/memory", "Apply/bare_sync", "Voids/nothing", "Voids/in_part/million"); err != nil {
		return err
	}
	b.tellBulk(s)
	alone, _ := strconv.ParseFloat(string(covering[1]), 64)
	covered, _ := strconv.ParseFloat(string(covering[2]), 64)
	b.report.figure("with a covering feed: questions per token-hour, over `max_staleness` alone", "%.3f×", covered/alone, limit{},
		fmt.Sprintf("%.1f and %.1f; bounds of 30 s and 10 min, each of 200 tokens used every 5 s", covered, alone))
	b.tellLedger(s)
	return nil
}

// tellBulk is one event about very many remembered tokens.
func (b *bench) tellBulk(s said) {
	const first, later, ask = "Bulk/deny/0", "Bulk/deny/1000", "Bulk/revalidate"
	b.report.figure(fmt.Sprintf("one event voids %.0f remembered tokens: in force after", s.of(first, "voided")), "%.2f ms", max(s.of(first, "apply-ns"), s.of(later, "apply-ns"))/1e6, limit{1, 0},
		fmt.Sprintf("median of 25, the slowest of 50 %.2f ms; every one of them is refused afterwards", max(s.of(first, "slowest-apply-ns"), s.of(later, "slowest-apply-ns"))/1e6))
	for _, held := range []struct{ name, of string }{{"the ledger holds 1000 events about others", later}, {"it held nothing", first}} {
		before := s.of(held.of, "p99-before-ns")
		b.report.figure("– p99 of other hits while it comes, over before: "+held.name, "%.2f×", s.of(held.of, "p99-during-ns")/before, limit{}, fmt.Sprintf("before: %.1f µs; in process, whole `Verify`; medians of 25 windows", before/1e3))
		b.report.figure("– after it, over before", "%.2f×", s.of(held.of, "p99-after-ns")/before, limit{}, "")
	}
	b.report.figure("one `revalidate` questions as many: questions about them", "%.1f/s", s.of(ask, "reasked/s"), limit{s.of(ask, "allowed/s"), 0},
		fmt.Sprintf("`reask_per_second` is 500, and 50 at once; %.0f requests about them in 4 s", s.of(ask, "came")))
	b.report.figure("– questions beyond one for each new token meanwhile", "%.0f", s.of(ask, "others-asked"), limit{}, fmt.Sprintf("%.0f/s came", s.of(ask, "new/s")))
}

// tellLedger is what events cost: those who ask, memory, disk, those who publish, and a restart.
func (b *bench) tellLedger(s said) {
	n := s.of("Restart", "events")
	for _, look := range []struct{ name, of string }{
		{"what a hit pays for the ledger: nothing is held", "nothing"},
		{"– 1000 events about others", "others/1000"}, {"– one of 1000 is about it", "this/1000"}, {"– one of 1000 matches in part", "in_part/1000"},
		{fmt.Sprintf("– %.0f events about others", n), "others/million"}, {fmt.Sprintf("– one of %.0f is about it", n), "this/million"}, {fmt.Sprintf("– one of %.0f matches in part", n), "in_part/million"},
	} {
		b.report.figure(look.name, "%.0f ns", s.of("Voids/"+look.of, "ns/op"), limit{}, fmt.Sprintf("%.0f allocations", s.of("Voids/"+look.of, "allocs/op")))
	}
	b.report.figure("memory of one event", "%.0f B", s.of("Restart", "heap-B/event"), limit{}, fmt.Sprintf("heap; counted as %.0f B; a selector of one name; in the log %.0f B", s.of("Restart", "counted-B/event"), s.of("Restart", "log-B/event")))
	rate := func(name string) float64 { return 1e9 / s.of("Apply/"+name, "ns/op") }
	b.report.figure("events applied a second, in memory", "%.0f", rate("memory"), limit{}, "")
	b.report.figure("– in the log, one publisher", "%.0f", rate("log,_1_publisher"), limit{}, fmt.Sprintf("each waits for a sync, which takes %.0f µs alone", s.of("Apply/bare_sync", "ns/op")/1e3))
	b.report.figure("– in the log, 128 publishers at once", "%.0f", rate("log,_64_publishers"), limit{}, "those who wait share a sync")
	b.report.figure(fmt.Sprintf("restart with %.0f events in the log", n), "%.1f s", s.of("Restart", "ns/op")/1e9, limit{}, fmt.Sprintf("on one CPU; the file has %.0f MB", n*s.of("Restart", "log-B/event")/1e6))
}
