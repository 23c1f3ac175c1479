package lane

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

const (
	firstBytes = 4 << 10  // what a connection's buffer begins with
	mostBytes  = 16 << 10 // a request that is longer leaves the lane
)

// conn is a connection in the lane; one goroutine serves it. The runtime's deadlines are moved only when one has passed
// that does not hold any more: to move them for every request would cost it a tenth of its time.
type conn struct {
	net.Conn
	lane    *Lane
	blank   http.Request // holds the context, which cannot be assigned, and the address
	request request
	body    body
	answer  answer
	watch   watch

	in   []byte // what was read …
	have int    // … ends here
	seen int    // no head ends before

	since  time.Time // it waits for a request
	asked  bool      // it had one …
	posted bool      // … the last a POST
}

func newConn(l *Lane, inner net.Conn) *conn {
	c := &conn{Conn: inner, lane: l, in: make([]byte, firstBytes), since: time.Now()}
	ctx, gone := context.WithCancel(context.Background())
	c.watch.gone = gone
	c.blank = *new(http.Request).WithContext(life{ctx, c})
	c.blank.RemoteAddr = inner.RemoteAddr().String()
	c.request.header, c.answer.header = http.Header{}, http.Header{}
	c.forget()
	_ = c.SetReadDeadline(c.since.Add(l.server.ReadHeaderTimeout)) // from here on there is always one, never too late
	_ = c.SetWriteDeadline(c.since.Add(l.server.WriteTimeout))
	return c
}

// serve answers until the connection ends or leaves.
func (c *conn) serve() {
	defer c.watch.gone()
	for {
		size, plain, err := c.next()
		if err == nil && !plain {
			c.lane.forget(c) // from here on nobody hurries it
			_ = c.SetDeadline(time.Time{})
			c.lane.leave(c)
			return
		}
		if err != nil || !c.respond(size) {
			_ = c.Close()
			return
		}
		rest := copy(c.in, c.in[size:c.have])
		clear(c.in[rest:c.have]) // it held a token
		c.have, c.seen, c.asked = rest, 0, true
		c.have += c.watch.early(c.in[rest:])
	}
}

// next waits for one whole request and parses its head. An error is the end of the connection.
func (c *conn) next() (size int, plain bool, err error) {
	if c.have == 0 {
		patience := c.lane.server.IdleTimeout
		if !c.asked {
			patience = c.lane.server.ReadHeaderTimeout
		}
		if err := c.fill(c.since.Add(patience)); err != nil {
			return 0, false, err
		}
	}
	head, plain := c.head()
	if plain && head == 0 {
		until := time.Now().Add(c.lane.server.ReadHeaderTimeout)
		for err = c.SetReadDeadline(until); plain && head == 0 && err == nil; head, plain = c.head() {
			err = c.fill(until)
		}
	}
	if err != nil || !plain || !c.parse(head) {
		return 0, false, err
	}
	size = head + int(c.request.ContentLength)
	if c.have < size {
		until := time.Now().Add(c.lane.server.ReadTimeout)
		for err = c.SetReadDeadline(until); c.have < size && err == nil; {
			err = c.fill(until)
		}
	}
	return size, true, err
}

// head looks for the end of a head, and says how long it is; 0: it has not come yet. Not plain is one whose lines end
// otherwise than in CRLF, or that is too long.
func (c *conn) head() (size int, plain bool) {
	for {
		n := bytes.IndexByte(c.in[c.seen:c.have], '\n')
		if n < 0 {
			c.seen = c.have
			return 0, c.have < mostBytes
		}
		n += c.seen
		if n == 0 || c.in[n-1] != '\r' {
			return 0, false
		}
		if c.seen = n + 1; n >= 3 && c.in[n-2] == '\n' {
			return c.seen, true
		}
	}
}

// parse reads the head; one with a body that does not belong here is not plain.
func (c *conn) parse(head int) bool {
	if !c.request.parse(string(c.in[:head])) {
		return false
	}
	n := int(c.request.ContentLength)
	return n <= c.lane.body && head+n <= mostBytes
}

// fill reads something more until then.
func (c *conn) fill(until time.Time) error {
	if c.have == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	for {
		n, err := c.Read(c.in[c.have:])
		c.have += n
		switch {
		case n > 0:
			return nil
		case err == nil:
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(until):
			return err
		}
		if err := c.SetReadDeadline(until); err != nil {
			return err
		}
		if c.have == 0 && c.asked && c.lane.closing.Load() { // after setting: then hurry comes later, or was seen here
			return err
		}
	}
}

// hurry wakes whoever waits for a request.
func (c *conn) hurry() { _ = c.SetReadDeadline(time.Unix(1, 0)) }

// respond has the request of so many bytes answered. It reports whether a further one may follow.
func (c *conn) respond(size int) bool {
	r := &c.request
	r.Body = http.NoBody
	if r.ContentLength > 0 {
		c.body.rest = c.in[size-int(r.ContentLength) : size]
		r.Body = &c.body
	}
	c.watch.begin()
	finished := c.handle()
	c.watch.end(c)
	if !finished {
		return false
	}
	now := time.Now()
	c.since = now
	out := c.answer.finish(r.Method == http.MethodHead, r.Close || c.lane.closing.Load(), c.lane.dated(now))
	more := c.write(out, now.Add(c.lane.server.WriteTimeout)) == nil && !c.answer.close
	c.posted = r.Method == http.MethodPost
	c.forget()
	return more
}

// forget lets go of a request and its answer: it may be long until the next.
func (c *conn) forget() {
	clear(c.request.header)
	clear(c.request.values)
	c.request.Request, c.request.url, c.request.values = c.blank, url.URL{}, c.request.values[:0]
	c.body.rest = nil
	c.answer.reset()
}

// handle reports false if the handler panicked: as with net/http, that is all that happens.
func (c *conn) handle() (finished bool) {
	defer func() { finished = recover() == nil }()
	c.lane.server.Handler.ServeHTTP(&c.answer, &c.request.Request)
	return
}

func (c *conn) write(p []byte, until time.Time) error {
	for {
		n, err := c.Write(p)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(until) {
			return err
		}
		p = p[n:]
		if err := c.SetWriteDeadline(until); err != nil {
			return err
		}
	}
}

// body is a request's, which is there already.
type body struct{ rest []byte }

// Read never waits.
func (b *body) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close forgets the rest.
func (b *body) Close() error {
	b.rest = nil
	return nil
}
