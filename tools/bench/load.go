package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// tokenStem and the eight digits that follow are a token of 43 bytes.
const tokenStem = "tok_0000000000000000000000000000000"

func token(id int) string { return fmt.Sprintf("%s%08d", tokenStem, id) }

// shape is a request in HTTP/1.1, made once; only the digits of its token change.
type shape struct {
	text  []byte
	digit int    // where they begin; 0: there is no token
	right string // what a right answer holds, besides status 200
	whose bool   // and the eight digits of the token's subject follow
}

func newShape(right string, whose bool, lines ...string) *shape {
	text := strings.Join(lines, "\r\n")
	s := &shape{right: right, whose: whose}
	if at := strings.Index(text, "{token}"); at >= 0 {
		text = strings.Replace(text, "{token}", token(0), 1)
		s.digit = at + len(tokenStem)
	}
	s.text = []byte(text)
	return s
}

func (s *shape) write(b []byte, id int) {
	if s.digit > 0 {
		digits(b[s.digit:], id)
	}
}

func digits(b []byte, id int) {
	for i := 7; i >= 0; i-- {
		b[i] = byte('0' + id%10)
		id /= 10
	}
}

// server is where requests go, and whose CPU they cost.
type server struct {
	network, address string
	pids             []int
}

// draw gives a connection the number of its next token; negative: enough.
type draw func() int

// zipf draws ranks with exponent 1, which rand.Zipf cannot; a stride spreads them over tokens that came in order.
func zipf(n int, stop *atomic.Bool) func(conn int) draw {
	h := math.Log(float64(n))
	return func(conn int) draw {
		r := rand.New(rand.NewPCG(uint64(conn), uint64(time.Now().UnixNano())))
		return func() int {
			if stop.Load() {
				return -1
			}
			return min(n-1, int(math.Exp(r.Float64()*h))-1) * 7919 % n
		}
	}
}

// count draws from the numbers from first on, each once, until there were n or stop says so.
func count(first, n int, stop *atomic.Bool) func(conn int) draw {
	var next atomic.Int64
	return func(int) draw {
		return func() int {
			id := int(next.Add(1)) - 1
			if id >= n || stop.Load() {
				return -1
			}
			return first + id
		}
	}
}

// drive sends requests over connections that are kept, one at a time on each, and returns how many were answered. Any
// wrong answer is an error. Dialling is done before ready is called.
func drive(ctx context.Context, to *server, conns int, s *shape, draws func(conn int) draw, ready func()) (answered int, err error) {
	all, err := dialAll(ctx, to, conns, s)
	defer closeAll(all)
	if err != nil {
		return 0, err
	}
	ready()
	return askOver(all, draws)
}

func dialAll(ctx context.Context, to *server, conns int, s *shape) (all []*conn, err error) {
	for range conns {
		c, err := dial(ctx, to, s)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

func closeAll(all []*conn) {
	for _, c := range all {
		_ = c.Close()
	}
}

// askOver asks over all connections at once until there is nothing more to draw.
func askOver(all []*conn, draws func(conn int) draw) (answered int, err error) {
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	counts := make([]int, len(all))
	for i, c := range all {
		next := draws(i)
		wg.Go(func() {
			for id := next(); id >= 0 && errs[i] == nil; id = next() {
				if errs[i] = c.ask(id); errs[i] == nil {
					counts[i]++
				}
			}
		})
	}
	wg.Wait()
	for _, n := range counts {
		answered += n
	}
	return answered, errors.Join(errs...)
}

// conn is one connection with its copy of the request.
type conn struct {
	net.Conn
	shape  *shape
	out    []byte
	in     [8 << 10]byte
	Status int
}

const patience = 20 * time.Second

func dial(ctx context.Context, to *server, s *shape) (*conn, error) {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, to.network, to.address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, shape: s, out: bytes.Clone(s.text)}, nil
}

// ask sends the request for one token and reads the answer, which must be right.
func (c *conn) ask(id int) error {
	answer, err := c.send(id)
	if err != nil {
		return err
	}
	if c.Status != 200 {
		return fmt.Errorf("%s answered %q", c.RemoteAddr(), answer[:min(len(answer), 300)])
	}
	return c.right(answer, id)
}

// right reports an answer that is about another token.
func (c *conn) right(answer []byte, id int) error {
	at := bytes.Index(answer, []byte(c.shape.right))
	if at >= 0 && c.shape.whose {
		var want [8]byte
		digits(want[:], id)
		if !bytes.HasPrefix(answer[at+len(c.shape.right):], want[:]) {
			at = -1
		}
	}
	if at < 0 {
		return fmt.Errorf("%s answered about somebody else: %q", c.RemoteAddr(), answer[:min(len(answer), 300)])
	}
	return nil
}

var (
	headEnd = []byte("\r\n\r\n")
	length  = []byte("Content-Length: ")
)

// send returns the whole answer, which is good until the next one.
func (c *conn) send(id int) ([]byte, error) {
	c.shape.write(c.out, id)
	if _, err := c.Write(c.out); err != nil {
		return nil, err
	}
	for n := 0; n < len(c.in); {
		m, err := c.Read(c.in[n:])
		n += m
		if err != nil {
			return nil, fmt.Errorf("after %d bytes of an answer: %w", n, err)
		}
		head := bytes.Index(c.in[:n], headEnd)
		if head < 0 {
			continue
		}
		body := 0
		if at := bytes.Index(c.in[:head], length); at >= 0 {
			for _, d := range c.in[at+len(length) : head] {
				if d < '0' || d > '9' {
					break
				}
				body = body*10 + int(d-'0')
			}
		}
		if n >= head+len(headEnd)+body {
			if c.Status, err = strconv.Atoi(string(c.in[9:12])); err != nil {
				return nil, fmt.Errorf("no HTTP status in %q", c.in[:12])
			}
			return c.in[:n], nil
		}
	}
	return nil, errors.New("an answer is longer than 8 KiB")
}

// fill makes a server know the tokens from 0 on.
func fill(ctx context.Context, to *server, s *shape, n int) error {
	got, err := drive(ctx, to, 16, s, count(0, n, new(atomic.Bool)), func() {})
	if err == nil && got != n {
		err = fmt.Errorf("%d of %d tokens answered", got, n)
	}
	return err
}
