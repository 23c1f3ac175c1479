// Package lane answers the HTTP/1.1 requests that are plainly right, at half of what they cost net/http, and leaves
// all others to net/http.
//
// A connection begins in the lane. The first request on it that is not plain (parse says what is) goes to an
// http.Server with the whole connection, before anything of it was answered: HTTP/2, chunked or large bodies, upgrades,
// odd spelling, and whatever is malformed. So the lane refuses nothing, and what it takes means to it what it means to
// net/http, which a fuzz test compares.
//
// The strings of a request share one memory, a token among them: whoever keeps one clones it.
package lane

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Lane is the listener that an http.Server serves in place of another: it accepts the connections which left the lane.
// The lane uses the server's Handler, which must not keep a request, its Body or its Header after it returned, and its
// ReadHeaderTimeout, ReadTimeout, WriteTimeout and IdleTimeout, which must be set. Make it with New.
type Lane struct {
	net.Listener
	server *http.Server
	body   int
	left   chan accepted
	stop   func() error // closes the listener
	closed chan struct{}
	close  func()
	date   atomic.Pointer[date]

	mu      sync.Mutex
	conns   map[*conn]struct{}
	closing atomic.Bool // set under mu
	serving sync.WaitGroup
}

type accepted struct {
	net.Conn
	err error
}

// New makes a lane of what l accepts; s must serve it. A request whose body has up to that many bytes waits for it in
// the lane; 0: any body goes to s, unread.
func New(l net.Listener, s *http.Server, body int) *Lane {
	lane := &Lane{Listener: l, server: s, body: body, left: make(chan accepted), stop: sync.OnceValue(l.Close), closed: make(chan struct{}), conns: map[*conn]struct{}{}}
	lane.close = sync.OnceFunc(func() { close(lane.closed) })
	go lane.accept()
	return lane
}

// accept takes connections in until the listener closes. An error goes to the server, who knows which ones pass.
func (l *Lane) accept() {
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			l.take(c)
			continue
		}
		if l.closing.Load() {
			return
		}
		select {
		case l.left <- accepted{err: err}:
		case <-l.closed:
			return
		}
	}
}

// take begins to serve c.
func (l *Lane) take(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing.Load() {
		_ = c.Close()
		return
	}
	one := newConn(l, c)
	l.conns[one] = struct{}{}
	l.serving.Go(func() {
		one.serve()
		l.forget(one)
	})
}

func (l *Lane) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// Accept waits for a connection that left the lane, with what was read of it.
func (l *Lane) Accept() (net.Conn, error) {
	select {
	case a := <-l.left:
		return a.Conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// leave hands c to the server, to whom it looks new. What some clients send after the body of a POST is dropped here,
// since the server would do so only for a POST of its own (RFC 9112 §2.2).
func (l *Lane) leave(c *conn) {
	read := c.in[:c.have]
	for i := 0; i < 4 && c.posted && len(read) > 0 && (read[0] == '\r' || read[0] == '\n'); i++ {
		read = read[1:]
	}
	select {
	case l.left <- accepted{Conn: &begun{Conn: c.Conn, read: read}}:
	case <-l.closed:
		_ = c.Conn.Close()
	}
}

// Close accepts nothing more, neither here nor there. What is in the lane goes on.
func (l *Lane) Close() error {
	l.close()
	return l.stop()
}

// Shutdown empties the lane: nothing more comes in, connections that wait for a further request close, and those that
// have one get their answer, or reach the server, which must be shut down afterwards. When ctx ends, what is left is cut
// off, and its error returned.
func (l *Lane) Shutdown(ctx context.Context) error {
	l.mu.Lock()
	l.closing.Store(true)
	l.mu.Unlock()
	err := l.stop()
	l.each((*conn).hurry)
	empty := make(chan struct{})
	go func() { l.serving.Wait(); close(empty) }()
	select {
	case <-empty:
		return err
	case <-ctx.Done():
		l.each(func(c *conn) { _ = c.Conn.Close() })
		return errors.Join(err, ctx.Err())
	}
}

func (l *Lane) each(do func(*conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		do(c)
	}
}

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	read []byte
}

// Read returns that first.
func (c *begun) Read(p []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.read)
	if c.read = c.read[n:]; len(c.read) == 0 {
		c.read = nil
	}
	return n, nil
}

// date is the value of a Date header for one second (RFC 9110 §5.6.7).
type date struct {
	second int64
	text   string
}

func (l *Lane) dated(now time.Time) string {
	d := l.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
		l.date.Store(d)
	}
	return d.text
}
