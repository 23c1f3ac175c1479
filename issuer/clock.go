package issuer

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

// compareClocks measures the server's clock, and says, once while it is so, that it differs from ours by more than
// Config.Skew: exp and nbf mean another instant there than here. An answer that was kept in between says nothing of the
// clock.
func (c *Client) compareClocks(ctx context.Context, r reply, now time.Time) {
	date, err := http.ParseTime(r.header.Get("Date")) // RFC 9110 §6.6.1
	if err != nil || len(r.header["Age"]) > 0 {
		return
	}
	off := c.clock.learn(between(date, r.asked, now), now)
	over := off > c.config.Skew || -off > c.config.Skew
	if was := c.skewed.Swap(over); over && !was {
		c.config.Logger.LogAttrs(ctx, slog.LevelWarn, "the server's clock differs from ours by more than skew",
			slog.String("issuer", c.config.Name), slog.Duration("at_least", off.Round(time.Second)), slog.Duration("skew", c.config.Skew))
	}
}

// ClockOffset is by how much at least the server's clock is ahead of ours; negative: behind; zero: nothing is sure.
func (c *Client) ClockOffset() time.Duration { return c.clock.offset() }

// mostShortened is the most by which a measured offset shortens what is accepted, the most that leeway may lengthen it.
// A clock that is off by more is an alarm; a proxy with a wrong Date must not refuse every token.
const mostShortened = maxLeeway

// shortens is the offset as far as answers are read by it.
func (c *Client) shortens() time.Duration {
	return min(max(c.ClockOffset(), -mostShortened), mostShortened)
}

// span is between which two offsets a clock surely is, ahead of ours.
type span struct{ low, high time.Duration }

// between is what one answer shows: its server read date, a whole second, at some instant between asked and now.
func between(date, asked, now time.Time) span {
	return span{date.Sub(now.Round(0)), date.Add(time.Second).Sub(asked.Round(0))}
}

// sure is the part of s that is beyond doubt: by how much at least the clock is ahead (negative: behind).
func (s span) sure() time.Duration {
	switch {
	case s.low > 0:
		return s.low
	case s.high < 0:
		return s.high
	}
	return 0
}

// clock is an estimate of another clock. Every answer narrows it, as Date's whole seconds and the way of an answer leave
// seconds open, and time widens it, as clocks drift. An answer that contradicts it (a step, another machine behind the
// same name) begins anew. The zero value knows nothing. Safe for concurrent use.
type clock struct {
	mu   sync.Mutex
	span span
	when time.Time // of span; zero: nothing is known
}

// drifts is how far two clocks may drift apart in a second: 200 parts in a million, four times what quartz does.
const drifts = 200e-6

// learn takes one answer in, and returns what is sure of the clock then.
func (c *clock) learn(s span, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.when.IsZero() {
		slack := time.Duration(float64(max(0, watchword.Age(now, c.when))) * drifts)
		narrow := span{max(s.low, c.span.low-slack), min(s.high, c.span.high+slack)}
		if narrow.low <= narrow.high {
			s = narrow
		}
	}
	c.span, c.when = s, now
	return s.sure()
}

func (c *clock) offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.span.sure()
}
