// Command bench measures Watchword and prints the figures of docs/performance.md, with what they must be: `make bench`.
//
// The real binary runs on one CPU. On the other this process sends the requests and is the authorization server. A
// figure is CPU of the server per request, over that of a bare net/http handler in the same round.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// bench is one run.
type bench struct {
	repo, dir, binary string
	only              string // parts, with commas between them; empty: all
	short             bool
	tokens, many      int // how many are remembered; and in the large table
	times             int // rounds
	length            time.Duration
	began             time.Time
	repeats           time.Duration // no sample is repeated later than this

	machine  *machine
	as       *authority
	report   report
	cold     int      // the number of the last token that nobody had seen
	clean    []func() // what ends processes that outlive the function which started them
	others   []float64
	repeated int
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == "hello" {
		if err := hello(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, "hello:", err)
			os.Exit(1)
		}
		return
	}
	short := flag.Bool("short", false, "smaller tables and shorter rounds: below two minutes, and less to rely on")
	only := flag.String("only", "", "measure these parts alone: a list such as doors,herd")
	binary := flag.String("binary", "", "measure this `watchword` instead of building one")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [-short] [-only PARTS] [-binary FILE] REPOSITORY")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	b := &bench{repo: flag.Arg(0), binary: *binary, only: *only, short: *short, tokens: 100_000, many: 1_000_000, cold: 10_000_000, times: 7, length: time.Second, began: time.Now(), repeats: 6 * time.Minute}
	if b.short {
		b.tokens, b.many, b.times, b.length, b.repeats = 20_000, 200_000, 3, 300*time.Millisecond, time.Minute
	}
	err := b.run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "watchword-bench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.build(ctx); err != nil {
		return err
	}
	if b.machine, err = pin(); err != nil {
		return err
	}
	if b.as, err = newAuthority(); err != nil {
		return err
	}
	ctx, kill := context.WithCancel(ctx) // and with it every process that is left
	defer kill()
	defer func() {
		for _, end := range b.clean {
			end()
		}
	}()
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{{"in process", b.inProcess}, {"start", b.start}, {"doors", b.doors}, {"herd", b.herd}, {"outages", b.outages}, {"latency", b.latency}, {"hanging", b.hanging},
		{"outage", b.outage}, {"spray", b.spray}, {"revocation", b.revocation}, {"bulk", b.bulkAtTheDoor}} {
		if b.only != "" && !slices.Contains(strings.Split(b.only, ","), part.name) {
			continue
		}
		from := time.Now()
		if err := part.do(ctx); err != nil {
			b.report.note("%s: not measured: %v", part.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: %.0f s\n", part.name, time.Since(from).Seconds())
	}
	b.report.print(os.Stdout)
	fmt.Printf("\n%s, %d CPUs, %s. %.0f s in all.\n", model(), runtime.NumCPU(), runtime.Version(), time.Since(b.began).Seconds())
	if len(b.others) > 0 {
		fmt.Printf("Other processes took %.0f%% of the machine (median of the samples; at most %.0f%%); %d samples were repeated.\n", 100*median(b.others), 100*most(b.others), b.repeated)
	}
	if b.short {
		fmt.Printf("A short run: %d tokens, %d in the large tables, %d rounds of %v.\n", b.tokens, b.many, b.times, b.length)
	}
	return ctx.Err()
}

// compile runs go in the repository.
func (b *bench) compile(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir, c.Stderr = b.repo, os.Stderr
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	return c.Run()
}

// build makes what is measured.
func (b *bench) build(ctx context.Context) error {
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "watchword")
		if err := b.compile(ctx, "build", "-trimpath", "-ldflags", "-s -w", "-o", b.binary, "./cmd/watchword"); err != nil {
			return fmt.Errorf("go build ./cmd/watchword: %w", err)
		}
	}
	return nil
}
