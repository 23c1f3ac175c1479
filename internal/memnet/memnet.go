// Package memnet is a network in memory, for tests: real sockets do not work inside a testing/synctest bubble, these
// connections do. They behave as TCP on loopback does: a bounded buffer each way, half-read data survives a close,
// deadlines, and a refused connection where nobody listens.
package memnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	bufferBytes = 64 << 10 // one way, before Write blocks
	backlog     = 4096     // connections that nobody accepted yet
)

// Network is a set of listeners that find each other by address. The zero value is empty and ready. Make one per test
// (in a bubble: inside it). Safe for concurrent use.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	port      int
}

// Listen opens address ("as.example:80"; port 0 picks one). An address that is in use is an error.
func (n *Network) Listen(address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == "0" {
		n.port++
		address = net.JoinHostPort(host, fmt.Sprint(40000+n.port))
	}
	if n.listeners[address] != nil {
		return nil, &net.OpError{Op: "listen", Net: "mem", Addr: addr(address), Err: syscall.EADDRINUSE}
	}
	l := &listener{network: n, addr: addr(address), queue: make(chan net.Conn, backlog), closed: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = map[string]*listener{}
	}
	n.listeners[address] = l
	return l, nil
}

// Dial connects to address, for http.Transport.DialContext. Nobody listens there: ECONNREFUSED, at once.
func (n *Network) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.port++
	from := addr(fmt.Sprintf("127.0.0.1:%d", 40000+n.port))
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "mem", Addr: addr(address), Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	near, far := pipe(from, l.addr)
	select {
	case l.queue <- far:
		select {
		case <-l.closed: // perhaps after Close looked
			l.reset()
		default:
		}
		return near, nil
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: addr(address), Err: ctx.Err()}
	}
}

// Serve answers at address with h until the test ends.
func (n *Network) Serve(t testing.TB, address string, h http.Handler) {
	t.Helper()
	l, err := n.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
}

// Client is an HTTP client on this network; its idle connections close when the test ends.
func (n *Network) Client(t testing.TB) *http.Client {
	tr := &http.Transport{DialContext: n.Dial}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

type addr string

func (addr) Network() string  { return "mem" }
func (a addr) String() string { return string(a) }

type listener struct {
	network *Network
	addr    addr
	queue   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed: // before what still waits
		return nil, &net.OpError{Op: "accept", Net: "mem", Addr: l.addr, Err: net.ErrClosed}
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "mem", Addr: l.addr, Err: net.ErrClosed}
	}
}

// Close refuses who comes, and resets who waits to be accepted.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, string(l.addr))
		l.network.mu.Unlock()
		close(l.closed)
		l.reset()
	})
	return nil
}

// reset closes what waits to be accepted.
func (l *listener) reset() {
	for {
		select {
		case c := <-l.queue:
			_ = c.Close()
		default:
			return
		}
	}
}

// pipe makes two connected ends.
func pipe(a, b addr) (near, far *conn) {
	ab, ba := newStream(), newStream()
	return &conn{in: ba, out: ab, local: a, remote: b}, &conn{in: ab, out: ba, local: b, remote: a}
}

type conn struct {
	in, out       *stream
	local, remote addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) fail(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "mem", Source: c.local, Addr: c.remote, Err: err}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.fail("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.fail("write", err)
}

// Close ends both ways: the peer reads what was written, then EOF, and can write no more.
func (c *conn) Close() error {
	c.out.close(func(s *stream) { s.noWriter = true })
	c.in.close(func(s *stream) { s.noReader = true })
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.reading.set(c.in, t)
	c.out.writing.set(c.out, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { c.in.reading.set(c.in, t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.writing.set(c.out, t); return nil }

// stream is one way of a connection.
type stream struct {
	mu                 sync.Mutex
	changed            sync.Cond // waiting on it blocks durably, so a bubble's clock moves on
	data               []byte
	noReader, noWriter bool
	reading, writing   deadline
}

func newStream() *stream {
	s := new(stream)
	s.changed.L = &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.noReader:
			return 0, net.ErrClosed
		case s.reading.over():
			return 0, os.ErrDeadlineExceeded
		case len(s.data) > 0 || len(p) == 0:
			n := copy(p, s.data)
			s.data = s.data[n:]
			s.changed.Broadcast()
			return n, nil
		case s.noWriter:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.noWriter:
			return n, net.ErrClosed
		case s.writing.over():
			return n, os.ErrDeadlineExceeded
		case s.noReader:
			return n, syscall.ECONNRESET
		case n == len(p):
			return n, nil
		}
		if room := min(bufferBytes-len(s.data), len(p)-n); room > 0 {
			s.data = append(s.data, p[n:n+room]...)
			n += room
			s.changed.Broadcast()
			continue
		}
		s.changed.Wait()
	}
}

func (s *stream) close(how func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how(s)
	s.changed.Broadcast()
}

// deadline is an instant after which waiting is over. Guarded by its stream's lock.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(s *stream, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if left := time.Until(at); !at.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, func() { s.close(func(*stream) {}) })
	}
	s.changed.Broadcast()
}
