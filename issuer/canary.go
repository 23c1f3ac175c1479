package issuer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

// CanaryConfig makes a Canary, which watches an authorization server by tokens of its own. One it never revokes: a server that calls it inactive,
// and a fresh one as well, does not know what it says (a storage that is gone reads as mass revocation at several
// servers). Others it revokes on a schedule, and measures how long this Watchword goes on accepting them.
type CanaryConfig struct {
	Issuer             string                                // our name for the server
	Ask                watchword.Source                      // the server itself: no memory in between
	Client             *Client                               // posts as the canary's own client
	TokenEndpoint      string                                // gives a token for client_credentials (RFC 6749 §4.4)
	RevocationEndpoint func(context.Context) (string, error) // RFC 7009; nil: nothing is revoked, and nothing measured
	Scope              string                                // of the tokens; empty: none is asked for
	Every              time.Duration                         // between two looks at the token that lives; zero: 10s
	RevokeEvery        time.Duration                         // between two revocations; zero: 5m
	Patience           time.Duration                         // a revoked token that is still accepted after this is overdue; zero: a minute
	Settle             time.Duration                         // by which the server's own introspection must call a revoked token inactive
	MaxStaleness       time.Duration                         // how much longer Verify may accept it while the server answers

	Verify  func(context.Context, watchword.Token) watchword.Decision // as doors decide; required with RevocationEndpoint
	Looked  func(outcome string)                                      // told of every look: alive, lying or unknown; nil: nobody is
	Refused func(took time.Duration, overdue bool)                    // told how long a revoked token was accepted; nil: nobody is
	Broken  func(what string)                                         // told what proved untrue: unsettled (Settle), late (accepted after both); nil: nobody is
	Logger  *slog.Logger                                              // nil: nobody hears
}

// Canary is made by NewCanary, and lives while Run runs. State is safe for concurrent use.
type Canary struct {
	config CanaryConfig
	grant  *Grant
	kick   chan struct{}

	mu     sync.Mutex
	looked time.Time // at the end of the last look that found out
	alive  bool
}

const (
	certain     = 2 * time.Second        // how long a look counts
	leastPause  = 500 * time.Millisecond // between two looks, however often State is asked
	pollQuickly = 10 * time.Millisecond
	pollSlowly  = 100 * time.Millisecond
)

// NewCanary makes a Canary, or reports every mistake of c at once.
func NewCanary(c CanaryConfig) (*Canary, error) {
	var errs []error
	wrong := func(is bool, text string) {
		if is {
			errs = append(errs, fmt.Errorf("canary of issuer %q: %s", c.Issuer, text))
		}
	}
	wrong(c.Ask == nil || c.Client == nil, "nobody can ask")
	wrong(c.Every < 0 || c.RevokeEvery < 0 || c.Patience < 0 || c.Settle < 0 || c.MaxStaleness < 0, "a duration is negative")
	if _, err := endpoint(c.TokenEndpoint); err != nil {
		wrong(true, "token_endpoint "+err.Error())
	}
	wrong(c.RevocationEndpoint != nil && c.Verify == nil, "nobody decides about the tokens that it revokes")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		field *time.Duration
		or    time.Duration
	}{{&c.Every, 10 * time.Second}, {&c.RevokeEvery, 5 * time.Minute}, {&c.Patience, time.Minute}} {
		if *d.field == 0 {
			*d.field = d.or
		}
	}
	if c.Looked == nil {
		c.Looked = func(string) {}
	}
	if c.Refused == nil {
		c.Refused = func(time.Duration, bool) {}
	}
	if c.Broken == nil {
		c.Broken = func(string) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	grant, err := NewGrant(c.Client, c.TokenEndpoint, c.Scope)
	if err != nil {
		return nil, err
	}
	return &Canary{config: c, grant: grant, kick: make(chan struct{}, 1)}, nil
}

// State says whether it is known, as of the last two seconds, whether the server tells the truth about a token that is
// good. Where it is not, a look is on its way, and a lie counts until that finds out, for Every at most: what a server
// said two seconds ago may be over, but nobody gets believed again for want of a question. It never blocks.
func (c *Canary) State() (known, alive bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looked.IsZero() {
		c.wanted()
		return false, false
	}
	age := watchword.Age(time.Now(), c.looked)
	if age > certain {
		c.wanted()
	}
	known = age <= certain || !c.alive && age <= c.config.Every+certain
	return known, known && c.alive
}

// wanted has somebody look soon.
func (c *Canary) wanted() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Run looks and revokes until ctx ends.
func (c *Canary) Run(ctx context.Context) {
	var wait sync.WaitGroup
	defer wait.Wait()
	if c.config.RevocationEndpoint != nil {
		wait.Go(func() { c.revoking(ctx) })
	}
	every := time.NewTicker(c.config.Every)
	defer every.Stop()
	for {
		c.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(leastPause):
		}
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
		case <-every.C:
		}
	}
}

// look asks about the token that lives. A server that calls it inactive is asked about a fresh one before it is called
// a liar: somebody may really have revoked the first. That one is kept: a server whose introspection lags knows it when
// it is asked about next.
func (c *Canary) look(ctx context.Context) {
	outcome := "unknown"
	defer func() { c.config.Looked(outcome) }()
	for try := range 2 {
		token, err := c.grant.Token(ctx)
		if err == nil {
			var a *watchword.Answer
			if a, err = c.ask(ctx, token); err == nil {
				outcome = map[bool]string{true: "alive", false: "lying"}[a.Active()]
			}
		}
		if err != nil {
			outcome = "unknown"
			if ctx.Err() == nil {
				c.config.Logger.LogAttrs(ctx, slog.LevelDebug, "the canary knows nothing", slog.String("issuer", c.config.Issuer), slog.String("error", err.Error()))
			}
			return
		}
		if outcome == "alive" {
			break
		}
		if try == 0 {
			c.grant.Drop(token)
		}
	}
	c.mu.Lock()
	was := c.looked.IsZero() || c.alive
	c.looked, c.alive = time.Now(), outcome == "alive"
	c.mu.Unlock()
	if was && outcome == "lying" {
		c.config.Logger.LogAttrs(ctx, slog.LevelError, "the server calls tokens inactive that it issued just now", slog.String("issuer", c.config.Issuer))
	}
}

func (c *Canary) ask(ctx context.Context, t watchword.Token) (*watchword.Answer, error) {
	return c.config.Ask.Introspect(ctx, watchword.Query{Token: t, Issuer: c.config.Issuer, At: time.Now()})
}

// revoking measures, now and then, how long a revoked token is accepted.
func (c *Canary) revoking(ctx context.Context) {
	every := time.NewTicker(c.config.RevokeEvery)
	defer every.Stop()
	for {
		if err := c.measure(ctx); err != nil && ctx.Err() == nil {
			c.config.Logger.LogAttrs(ctx, slog.LevelWarn, "the canary could not measure", slog.String("issuer", c.config.Issuer), slog.String("error", err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// measure revokes a token that is accepted here and waits until it is refused.
func (c *Canary) measure(ctx context.Context) error {
	t, _, err := c.grant.Fresh(ctx)
	if err != nil {
		return err
	}
	if d := c.config.Verify(ctx, t); !d.Allowed() {
		return fmt.Errorf("a token that was just issued is not accepted: %v", d.Reason)
	}
	where, err := c.config.RevocationEndpoint(ctx)
	if err != nil {
		return err
	}
	status, _, err := c.config.Client.Post(ctx, where, url.Values{"token": {string(t)}, "token_type_hint": {"access_token"}})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("revocation_endpoint: status %d", status)
	}
	revoked, late := time.Now(), false
	var settling sync.WaitGroup
	defer settling.Wait()
	settling.Go(func() { c.settles(ctx, t) })
	for {
		at := time.Now()
		d := c.config.Verify(ctx, t)
		took := max(0, watchword.Age(at, revoked))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case d.Reason == watchword.Revoked || d.Reason == watchword.Inactive:
			c.config.Refused(took, false)
			return nil
		case took > c.config.Patience:
			c.config.Refused(took, true)
			c.config.Logger.LogAttrs(ctx, slog.LevelError, "a revoked token is not refused", slog.String("issuer", c.config.Issuer), slog.Duration("after", took))
			return nil
		case !late && d.Allowed() && d.Degraded == watchword.Whole && took-c.config.Settle > c.config.MaxStaleness:
			late = true
			c.broken(ctx, "late", "a revoked token is accepted for longer than settle and max_staleness")
		}
		pause := pollQuickly
		if took > time.Second {
			pause = pollSlowly
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// settles asks the server itself about a token that it revoked just now, when its introspection must know of that.
func (c *Canary) settles(ctx context.Context, revoked watchword.Token) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(c.config.Settle):
	}
	if a, err := c.ask(ctx, revoked); err == nil && a.Active() {
		c.broken(ctx, "unsettled", "introspection calls a revoked token active for longer than settle")
	}
}

func (c *Canary) broken(ctx context.Context, what, text string) {
	c.config.Broken(what)
	c.config.Logger.LogAttrs(ctx, slog.LevelError, text, slog.String("issuer", c.config.Issuer))
}
