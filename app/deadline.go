package app

import (
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lazy is a connection that moves its deadlines in the runtime as seldom as it can. net/http moves them seven times a
// request, nearly always to later, and each time the runtime moves a timer. Here a later one is only noted; whoever is
// woken too early looks at the note, sets that, and goes on. So a deadline is as exact as ever, and a timer moves every
// few seconds. Make it with lazily.
type lazy struct {
	net.Conn
	read, write limit
}

func lazily(c net.Conn) *lazy {
	now := time.Now()
	return &lazy{c, limit{set: c.SetReadDeadline, since: now}, limit{set: c.SetWriteDeadline, since: now}}
}

// Read reads until the deadline that holds when it ends.
func (c *lazy) Read(p []byte) (n int, err error) {
	if !c.read.enter() {
		return 0, os.ErrDeadlineExceeded
	}
	for {
		if n, err = c.Conn.Read(p); err == nil || n > 0 || !c.read.early(err) {
			c.read.busy.Add(-1)
			return n, err
		}
	}
}

// Write writes all of p, or as much as goes out until the deadline that holds when it ends.
func (c *lazy) Write(p []byte) (n int, err error) {
	if !c.write.enter() {
		return 0, os.ErrDeadlineExceeded
	}
	for {
		m, err := c.Conn.Write(p[n:])
		if n += m; err == nil || !c.write.early(err) {
			c.write.busy.Add(-1)
			return n, err
		}
	}
}

// SetReadDeadline moves that of a Read that waits, too.
func (c *lazy) SetReadDeadline(t time.Time) error { return c.read.move(t) }

// SetWriteDeadline moves that of a Write that waits, too.
func (c *lazy) SetWriteDeadline(t time.Time) error { return c.write.move(t) }

// SetDeadline sets both.
func (c *lazy) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// limit is a deadline: the one that holds, and the one that the runtime knows, which is never later.
type limit struct {
	set   func(time.Time) error // the runtime's
	since time.Time             // before every deadline but those that mean at once

	holds, armed atomic.Int64 // stamps
	busy         atomic.Int32 // how many read, or write
	arming       sync.Mutex
}

const atOnce = math.MinInt64

// stamp is t as a number: more is later, zero is none, and what is over since before the connection began is atOnce.
func (l *limit) stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	if d := t.Sub(l.since); d > 0 {
		return int64(d) - math.MaxInt64
	}
	return atOnce
}

func (l *limit) time(stamp int64) time.Time {
	switch stamp {
	case 0:
		return time.Time{}
	case atOnce:
		return time.Unix(1, 0)
	}
	return l.since.Add(time.Duration(stamp + math.MaxInt64))
}

func (l *limit) move(t time.Time) error {
	to := l.stamp(t)
	l.holds.Store(to)
	if to >= l.armed.Load() || to == atOnce && l.busy.Load() == 0 {
		return nil // the runtime wakes us earlier, or nobody is there to be woken
	}
	return l.arm()
}

// enter is called before reading or writing; false: the deadline is over.
func (l *limit) enter() bool {
	l.busy.Add(1) // before the look: either we see what move noted, or it sees us
	if l.holds.Load() != atOnce {
		return true
	}
	l.busy.Add(-1)
	return false
}

// early reports that err is of a deadline which does not hold any more, and sets the one that does.
func (l *limit) early(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	holds := l.holds.Load()
	if holds != 0 && l.stamp(time.Now()) >= holds {
		return false
	}
	return l.arm() == nil
}

// arm tells the runtime what holds, until nobody has changed it meanwhile.
func (l *limit) arm() error {
	l.arming.Lock()
	defer l.arming.Unlock()
	for {
		holds := l.holds.Load()
		if err := l.set(l.time(holds)); err != nil {
			return err
		}
		l.armed.Store(holds)
		if l.holds.Load() == holds {
			return nil
		}
	}
}
