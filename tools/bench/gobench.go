package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// said is what benchmarks say: by benchmark and unit, every value.
type said map[string]map[string][]float64

var benchLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.+)$`)

func (s said) read(out []byte) {
	for _, m := range benchLine.FindAllStringSubmatch(string(out), -1) {
		fields := strings.Fields(m[2])
		for i := 0; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				continue
			}
			if s[m[1]] == nil {
				s[m[1]] = map[string][]float64{}
			}
			s[m[1]][fields[i+1]] = append(s[m[1]][fields[i+1]], v)
		}
	}
}

// of is the median of what a benchmark says.
func (s said) of(name, unit string) float64 { return median(s[name][unit]) }

// lacks names the first of these benchmarks that said nothing.
func (s said) lacks(names ...string) error {
	for _, name := range names {
		if len(s[name]["ns/op"]) == 0 {
			return fmt.Errorf("the benchmarks say nothing of %s", name)
		}
	}
	return nil
}

// test runs tests and benchmarks of one folder of the repository on both CPUs, compiled once.
func (b *bench) test(ctx context.Context, folder string, into said, args ...string) (out []byte, err error) {
	file := filepath.Join(b.dir, folder+".test")
	if _, err := os.Stat(file); err != nil {
		if err := b.compile(ctx, "test", "-c", "-o", file, "./"+folder); err != nil {
			return nil, fmt.Errorf("go test -c ./%s: %w", folder, err)
		}
	}
	if b.short {
		args = append(args, "-test.short")
	}
	c := b.machine.everywhere(ctx, append([]string{file}, args...)...)
	c.Dir = filepath.Join(b.repo, folder)
	if out, err = c.Output(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	into.read(out)
	return out, nil
}
