package observe

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

const (
	defaultQueue = 4096
	maxBatch     = 64 << 10
)

// LogConfig makes a DecisionLog. The zero value logs refused and degraded decisions, under keys of this process.
type LogConfig struct {
	All     bool         // every decision, instead of those refused and those allowed on stale evidence
	Secret  []byte       // keys fingerprints and pseudonyms, so that instances agree on them; empty: random
	Queue   int          // decisions that may wait for the sink; zero: 4,096; negative: a mistake
	Metrics *Metrics     // counts what is dropped; nil: nobody does
	Log     *slog.Logger // told when the sink begins to refuse lines, and when it recovers; nil: nobody is
}

// DecisionLog is an Observer that writes decisions as JSON lines. It never waits for its sink: what does not fit its
// queue is dropped and counted. Make it with NewDecisionLog, and Close it. Safe for concurrent use.
type DecisionLog struct {
	config  LogConfig
	sink    io.Writer
	lines   chan *line
	pool    sync.Pool
	written chan struct{} // closed when the writer is done

	mu     sync.RWMutex
	closed bool
}

// NewDecisionLog starts a DecisionLog that writes to sink, several lines at once where they come fast. Only one
// goroutine writes.
func NewDecisionLog(sink io.Writer, c LogConfig) (*DecisionLog, error) {
	switch {
	case sink == nil:
		return nil, errors.New("observe: a decision log without a sink: give NewDecisionLog a writer, or make no log")
	case c.Queue < 0:
		return nil, fmt.Errorf("observe: LogConfig.Queue is %d: give a positive number of lines, or 0 for %d", c.Queue, defaultQueue)
	case c.Queue == 0:
		c.Queue = defaultQueue
	}
	if len(c.Secret) == 0 {
		c.Secret = make([]byte, sha256.Size)
		_, _ = rand.Read(c.Secret) // never fails (crypto/rand)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	tokens, err := hkdf.Key(sha256.New, c.Secret, nil, "watchword decision log: token", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("observe: deriving a key: %w", err)
	}
	subjects, err := hkdf.Key(sha256.New, c.Secret, nil, "watchword decision log: subject", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("observe: deriving a key: %w", err)
	}
	c.Secret = nil
	l := &DecisionLog{config: c, sink: sink, lines: make(chan *line, c.Queue), written: make(chan struct{})}
	l.pool.New = func() any {
		return &line{json: make([]byte, 0, 1024), token: hmac.New(sha256.New, tokens), subject: hmac.New(sha256.New, subjects)}
	}
	go l.write()
	return l, nil
}

// Observe queues a line about d, if it is one to log. Otherwise it costs nothing.
func (l *DecisionLog) Observe(r watchword.Request, d watchword.Decision, _ time.Duration) {
	if d.Allowed() && d.Degraded == watchword.Whole && !l.config.All {
		return
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed || len(l.lines) == cap(l.lines) { // nothing is computed to be thrown away
		l.drop(1)
		return
	}
	one := l.pool.Get().(*line)
	one.describe(time.Now(), &r, &d)
	select {
	case l.lines <- one:
	default:
		l.pool.Put(one)
		l.drop(1)
	}
}

func (l *DecisionLog) drop(n int) {
	if m := l.config.Metrics; m != nil {
		m.dropped.Add(float64(n))
	}
}

// Close writes what waits, and returns when that is done, or with ctx's error when ctx ends first: the sink is stalled.
// Decisions that come later are dropped and counted. The sink stays open.
func (l *DecisionLog) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.lines)
	}
	l.mu.Unlock()
	select {
	case <-l.written:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("observe: decision log: its sink is stalled, at least %d decisions are not written: %w", len(l.lines), ctx.Err())
	}
}

// write is the one goroutine that touches the sink.
func (l *DecisionLog) write() {
	defer close(l.written)
	var batch []byte
	waiting, torn, failing := 0, false, false
	for one := range l.lines {
		if torn { // a part of a line went out: what follows begins on a line of its own
			batch, torn = append(batch, '\n'), false
		}
		batch = append(batch, one.json...)
		waiting++
		l.pool.Put(one)
		if len(l.lines) > 0 && len(batch) < maxBatch {
			continue
		}
		n, err := l.sink.Write(batch)
		if err != nil {
			l.drop(waiting)
			torn = n > 0 && n < len(batch)
		}
		switch failed := err != nil; {
		case failed && !failing:
			l.config.Log.Error("decision log: the sink refuses lines; they are dropped and counted", "error", err)
		case !failed && failing:
			l.config.Log.Info("decision log: the sink takes lines again")
		}
		batch, waiting, failing = batch[:0], 0, err != nil
	}
}
