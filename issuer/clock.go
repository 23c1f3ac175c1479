package issuer

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// compareClocks says, once while it is so, that the server's clock differs from ours by more than Config.Skew: exp and
// nbf mean another instant there than here. Only the log hears of it; nothing is accepted for longer. An answer that
// was kept in between says nothing of the clock.
func (c *Client) compareClocks(ctx context.Context, r reply, now time.Time) {
	date, err := http.ParseTime(r.header.Get("Date")) // RFC 9110 §6.6.1
	if err != nil || len(r.header["Age"]) > 0 {
		return
	}
	off := drift(date, r.asked, now)
	over := off > c.config.Skew || -off > c.config.Skew
	if was := c.skewed.Swap(over); over && !was {
		c.config.Logger.LogAttrs(ctx, slog.LevelWarn, "the server's clock differs from ours by more than skew",
			slog.String("issuer", c.config.Name), slog.Duration("at_least", off.Round(time.Second)), slog.Duration("skew", c.config.Skew))
	}
}

// drift is by how much at least a clock is ahead of ours (negative: behind) that read date, a whole second, at some
// instant between asked and now.
func drift(date, asked, now time.Time) time.Duration {
	if ahead := date.Sub(now.Round(0)); ahead > 0 {
		return ahead
	}
	return min(0, date.Add(time.Second).Sub(asked.Round(0)))
}
