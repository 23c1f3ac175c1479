package issuer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// sayAgain is how long Config.Logger hears nothing more about failures of one kind.
const sayAgain = time.Minute

// said is what Config.Logger heard of askings that failed. The zero value: nothing.
type said struct {
	failing atomic.Bool // and not yet that the server answers again
	mu      sync.Mutex
	last    map[watchword.Failure]time.Time
}

// due reports whether a failure of kind f may be said now, and that it is.
func (s *said) due(f watchword.Failure, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.last[f]; ok && watchword.Age(now, last) < sayAgain {
		return false
	}
	if s.last == nil {
		s.last = map[watchword.Failure]time.Time{}
	}
	s.last[f] = now
	s.failing.Store(true)
	return true
}

// tell says why an asking failed, at most once a minute for each kind, and then that the server answers again. That a
// caller left or was refused is no fault of the server's.
func (c *Client) tell(ctx context.Context, err error, now time.Time) {
	e, failed := errors.AsType[*watchword.Error](err)
	if !failed {
		if c.said.failing.Load() && c.said.failing.Swap(false) {
			c.config.Logger.LogAttrs(ctx, slog.LevelInfo, "the server answers again", slog.String("issuer", c.config.Name))
		}
		return
	}
	if e.Failure == watchword.Canceled || e.Rejection != nil || e.Cause == nil || !c.said.due(e.Failure, now) {
		return
	}
	level := slog.LevelWarn
	if e.Failure == watchword.ClientRejected || e.Failure == watchword.ConfigError { // nothing that retrying mends
		level = slog.LevelError
	}
	c.config.Logger.LogAttrs(ctx, level, "asking the server failed", slog.String("issuer", c.config.Name),
		slog.String("failure", e.Failure.Error()), slog.String("error", e.Cause.Error()))
}
