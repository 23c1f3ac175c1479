package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// machine is two CPUs: one for whoever serves, the other for us, who ask and are the authorization server.
type machine struct{ servers, ours string }

// pin keeps this process on one CPU.
func pin() (*machine, error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("two CPUs are needed: one to serve, one to ask")
	}
	m := &machine{}
	out, err := exec.Command("taskset", "-cp", strconv.Itoa(os.Getpid())).Output()
	if err != nil {
		return nil, fmt.Errorf("taskset (util-linux) cannot be run: %w", err)
	}
	list := string(bytes.TrimSpace(out[bytes.LastIndexByte(out, ' ')+1:])) // such as 0-3 or 0,2
	cpus := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '-' })
	m.servers, m.ours = cpus[0], cpus[len(cpus)-1]
	runtime.GOMAXPROCS(1)
	return m, exec.Command("taskset", "-acp", m.ours, strconv.Itoa(os.Getpid())).Run()
}

// everywhere runs a command on both CPUs, as a user would.
func (m *machine) everywhere(ctx context.Context, command ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "taskset", append([]string{"-c", m.servers + "," + m.ours}, command...)...)
}

// serving runs a command on the servers' CPU.
func (m *machine) serving(ctx context.Context, command ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "taskset", append([]string{"-c", m.servers}, command...)...)
	c.Env = append(os.Environ(), "GOMAXPROCS=1")
	return c
}

// cpu is what processes and their children have used so far, to the nanosecond where the kernel tells.
func cpu(pids ...int) (used time.Duration) {
	for _, pid := range pids {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, task := range tasks {
			stat, _ := os.ReadFile(task + "/schedstat")
			first, _, _ := strings.Cut(string(stat), " ")
			ns, _ := strconv.ParseInt(first, 10, 64)
			used += time.Duration(ns)
			children, _ := os.ReadFile(task + "/children")
			for _, child := range strings.Fields(string(children)) {
				if id, err := strconv.Atoi(child); err == nil && pid != os.Getpid() {
					used += cpu(id)
				}
			}
		}
	}
	return used
}

// busy is what all processes of the machine have used, and what its host took.
func busy() (used time.Duration) {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, field := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // its name, idle, iowait, guests (counted in user)
			continue
		}
		ticks, _ := strconv.ParseInt(field, 10, 64)
		used += time.Duration(ticks) * 10 * time.Millisecond
	}
	return used
}

// memory reads a field such as VmRSS, in MB.
func memory(pid int, field string) float64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), field+":")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.ParseFloat(fields[0], 64)
	return kb * 1024 / 1e6
}

// target is something to measure by CPU per request.
type target struct {
	name  string
	to    *server
	conns int
	shape *shape
	draws func(stop *atomic.Bool) func(conn int) draw
	asks  int                        // how often a request makes its server ask the authorization server
	while func(stop chan bool) error // what goes on meanwhile; nil: nothing
}

// sample is one round of a target.
type sample struct {
	perRequest time.Duration
	others     float64 // share of the machine that other processes took
}

const maxOthers = 0.25

// rounds measures all targets in turn, in random order, n times. A disturbed sample is
// repeated, at most twice, and as long as there is time.
func (b *bench) rounds(ctx context.Context, targets []*target, n int, length time.Duration) (map[string][]sample, error) {
	all := map[string][]sample{}
	for range n {
		rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		for _, t := range targets {
			var best sample
			for try := range 3 {
				s, err := b.sample(ctx, t, length)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", t.name, err)
				}
				if try == 0 || s.others < best.others {
					best = s
				}
				if best.others <= maxOthers || time.Since(b.began) > b.repeats {
					break
				}
				b.repeated++
			}
			b.others = append(b.others, best.others)
			all[t.name] = append(all[t.name], best)
		}
	}
	return all, nil
}

func (b *bench) sample(ctx context.Context, t *target, length time.Duration) (sample, error) {
	var stop atomic.Bool
	var began time.Time
	var theirs, mine, everybody time.Duration
	ended, failed := make(chan bool), make(chan error, 1)
	if t.while != nil {
		go func() { failed <- t.while(ended) }()
	} else {
		failed <- nil
	}
	asked := b.as.calls.Load()
	answered, err := drive(ctx, t.to, t.conns, t.shape, t.draws(&stop), func() {
		began, theirs, mine, everybody = time.Now(), cpu(t.to.pids...), cpu(os.Getpid()), busy()
		time.AfterFunc(length, func() { stop.Store(true) })
	})
	took, theirs, mine, everybody := time.Since(began), cpu(t.to.pids...)-theirs, cpu(os.Getpid())-mine, busy()-everybody
	asked = b.as.calls.Load() - asked
	close(ended)
	if err := errors.Join(err, <-failed); err != nil {
		return sample{}, err
	}
	if t.while == nil && asked != int64(t.asks*answered) {
		return sample{}, fmt.Errorf("the authorization server was asked %d times for %d requests; want %d for each", asked, answered, t.asks)
	}
	return sample{theirs / time.Duration(max(1, answered)), max(0, float64(everybody-theirs-mine)/float64(took)/float64(runtime.NumCPU()))}, nil
}

// ratio is the median over the rounds of one target over another.
func ratio(all map[string][]sample, over, under string) float64 {
	var r []float64
	for i, s := range all[over] {
		r = append(r, float64(s.perRequest)/float64(all[under][i].perRequest))
	}
	return median(r)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

func microseconds(all []sample) float64 {
	var m []float64
	for _, s := range all {
		m = append(m, float64(s.perRequest)/1e3)
	}
	return median(m)
}
