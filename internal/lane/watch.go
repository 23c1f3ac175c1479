package lane

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// lookAfter is how long somebody must wait before it is worth looking whether the client is still there.
const lookAfter = 50 * time.Millisecond

// life is the context of a connection's requests: it ends when the client goes away, if somebody waits for that.
type life struct {
	context.Context
	c *conn
}

// Done also has somebody look.
func (l life) Done() <-chan struct{} {
	l.c.watch.want(l.c)
	return l.Context.Done()
}

// watch looks whether a client goes away while its request is being answered. net/http reads ahead in a goroutine for
// that, for each request; here one begins when somebody has asked for Done and has waited for a while.
type watch struct {
	gone context.CancelFunc

	mu        sync.Mutex
	answering bool
	wanted    bool
	timer     *time.Timer   // runs look; made when first wanted
	looking   chan struct{} // closed when look is done
	byte      [1]byte       // what look read, of a further request …
	has       bool          // … if it did
}

func (w *watch) begin() {
	w.mu.Lock()
	w.answering = true
	w.mu.Unlock()
}

func (w *watch) want(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.answering || w.wanted:
		return
	case w.timer == nil:
		w.timer = time.AfterFunc(lookAfter, func() { w.look(c) })
	default:
		w.timer.Reset(lookAfter)
	}
	w.wanted = true
}

// look reads one byte ahead. The end of the connection, and nothing else, ends the context.
func (w *watch) look(c *conn) {
	w.mu.Lock()
	if !w.answering || !w.wanted || w.looking != nil {
		w.mu.Unlock()
		return
	}
	done := make(chan struct{})
	w.looking = done
	_ = c.SetReadDeadline(time.Time{}) // under mu: hurry comes later
	w.mu.Unlock()
	defer close(done)
	n, err := c.Read(w.byte[:])
	if w.has = n > 0; !w.has && !errors.Is(err, os.ErrDeadlineExceeded) {
		w.gone()
	}
}

// end waits until nobody looks any more.
func (w *watch) end(c *conn) {
	w.mu.Lock()
	if w.wanted {
		w.timer.Stop()
	}
	looking := w.looking
	w.answering, w.wanted, w.looking = false, false, nil
	w.mu.Unlock()
	if looking != nil {
		c.hurry()
		<-looking
	}
}

// early puts what was read ahead into p, and says how much that is.
func (w *watch) early(p []byte) (n int) {
	if w.has {
		n = copy(p, w.byte[:])
	}
	w.has = false
	return n
}
