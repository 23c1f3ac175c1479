package interop

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// fault is what a link does to what passes.
type fault string

const (
	open      fault = "open"
	cut       fault = "cut"       // connections are reset, and new ones too
	blackhole fault = "blackhole" // connections stay, new ones are accepted, and nothing passes until it ends: then all of it does
	delay     fault = "delay"     // everything comes linkDelay later
	throttle  fault = "throttle"  // linkRate
)

const (
	linkDelay = 200 * time.Millisecond // each way
	linkRate  = 4 << 10                // bytes a second, each way, for one connection
	linkPiece = 50 * time.Millisecond
	linkBytes = 32 << 10 // read at once
)

// link is a way from one node to an engine that can be broken and mended. It outlives restarts of the engine.
type link struct {
	address, to string

	mu      sync.Mutex
	now     fault
	changed chan struct{} // closed when now changes
	open    map[*net.TCPConn]bool
	ended   chan struct{} // closed at the end of the test
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{address: l.Addr().String(), to: to, now: open, changed: make(chan struct{}), open: map[*net.TCPConn]bool{}, ended: make(chan struct{})}
	t.Cleanup(func() {
		_ = l.Close()
		close(k.ended)
		k.set(cut)
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go k.carry(c.(*net.TCPConn))
		}
	}()
	return k
}

// set breaks or mends the link, at once and for every connection.
func (k *link) set(f fault) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now == f {
		return
	}
	k.now = f
	close(k.changed)
	k.changed = make(chan struct{})
	if f == cut {
		for c := range k.open {
			reset(c)
		}
		clear(k.open)
	}
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (k *link) state() (fault, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now, k.changed
}

// passable waits while nothing passes, and returns what the link does now.
func (k *link) passable() fault {
	for {
		now, changed := k.state()
		if now != blackhole {
			return now
		}
		select {
		case <-changed:
		case <-k.ended:
			return cut
		}
	}
}

// hold notes a connection for a cut to find; false: it is cut already.
func (k *link) hold(c *net.TCPConn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now == cut {
		reset(c)
		return false
	}
	k.open[c] = true
	return true
}

func (k *link) drop(c *net.TCPConn) {
	k.mu.Lock()
	delete(k.open, c)
	k.mu.Unlock()
	_ = c.Close()
}

// carry serves one connection of a node.
func (k *link) carry(in *net.TCPConn) {
	if !k.hold(in) {
		return
	}
	defer k.drop(in)
	if k.passable() == cut {
		return
	}
	c, err := net.DialTimeout("tcp", k.to, time.Second)
	if err != nil {
		reset(in)
		return
	}
	out := c.(*net.TCPConn)
	if !k.hold(out) {
		return
	}
	defer k.drop(out)
	var both sync.WaitGroup
	both.Go(func() { k.pump(out, in) })
	both.Go(func() { k.pump(in, out) })
	both.Wait()
}

// piece is what was read at once, and when.
type piece struct {
	bytes []byte
	at    time.Time
}

// pump copies one way until an end is gone; then the other end goes too, when the link lets that pass.
func (k *link) pump(to, from *net.TCPConn) {
	way := make(chan piece, 256)
	gone := make(chan struct{})
	go func() {
		defer close(way)
		for {
			b := make([]byte, linkBytes)
			n, err := from.Read(b)
			if n > 0 {
				select {
				case way <- piece{b[:n], time.Now()}:
				case <-gone:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	defer close(gone)
	for p := range way {
		if err := k.write(to, p); err != nil {
			_ = from.Close() // ends the reader
			return
		}
	}
	k.passable()
	_ = to.CloseWrite()
}

func (k *link) write(to io.Writer, p piece) error {
	switch k.passable() {
	case delay:
		time.Sleep(time.Until(p.at.Add(linkDelay)))
	case throttle:
		for len(p.bytes) > 0 {
			if now, _ := k.state(); now != throttle {
				break
			}
			n := min(len(p.bytes), int(linkRate*linkPiece/time.Second))
			if _, err := to.Write(p.bytes[:n]); err != nil {
				return err
			}
			p.bytes = p.bytes[n:]
			time.Sleep(linkPiece)
		}
	}
	k.passable() // it may have changed meanwhile
	_, err := to.Write(p.bytes)
	return err
}
