package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// pause stops the process until resume: it is connected, and hears nothing.
func (p *process) pause()  { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }
func (p *process) resume() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) }

// turnable is an address whose server changes, as a name's does in a failover.
type turnable struct {
	address string
	mu      sync.Mutex
	to      string
	open    []net.Conn
}

func newTurnable(t *testing.T, to string) *turnable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := &turnable{address: l.Addr().String(), to: to}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			out, err := net.Dial("tcp", f.to)
			if err != nil {
				_ = in.Close()
			} else {
				f.open = append(f.open, in, out)
				for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
					go func() {
						_, _ = io.Copy(way[0], way[1])
						_, _ = way[0].Close(), way[1].Close()
					}()
				}
			}
			f.mu.Unlock()
		}
	}()
	return f
}

// turn leads to another server from now on, and breaks what leads to the old one.
func (f *turnable) turn(to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to = to
	for _, c := range f.open {
		_ = c.Close()
	}
	f.open = nil
}

// latency measures a real engine on loopback: from Publish on one node until the event is in force on another.
func latency(t *testing.T, engine string, open func(t *testing.T) revocation.Log) {
	t.Helper()
	const rounds = 400
	var nodes []*revocation.Fleet
	applied := make(chan time.Time, 1)
	for i := range 2 {
		log := open(t)
		sink := &feedtest.Sink{}
		watch := revocation.FleetWatch{}
		if i == 1 {
			watch.Message = func(outcome string) {
				if outcome == "applied" {
					applied <- time.Now()
				}
			}
		}
		f, err := revocation.NewFleet(revocation.FleetConfig{Log: log, Sink: sink, Secret: []byte("0123456789abcdef"), Watch: watch,
			Issuer: func(string) (string, bool) { return "as", true }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = f.Run(ctx, sink) }()
		t.Cleanup(func() { cancel(); <-done; _ = log.Close() })
		await(t, "a node to be ready", patience, f.Ready)
		nodes = append(nodes, f)
	}
	var took, acked []time.Duration
	for i := range rounds {
		began := time.Now()
		err := nodes[0].Publish(t.Context(), revocation.Event{Issuer: "main", Selector: revocation.Selector{Subject: fmt.Sprint(i)}, Way: "test"})
		if err != nil {
			t.Fatal(err)
		}
		acked = append(acked, time.Since(began))
		took = append(took, (<-applied).Sub(began))
	}
	slices.Sort(took)
	slices.Sort(acked)
	t.Logf("%s: published -> applied on the other node p50 %v p99 %v max %v; durable (nil to the sender) p50 %v p99 %v", engine,
		took[rounds/2], took[rounds*99/100], took[rounds-1], acked[rounds/2], acked[rounds*99/100])
}
