package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/issuer/guard"
	"github.com/watchword-dev/watchword/observe"
)

// protection is what stands between the cache and one authorization server.
type protection struct {
	guard *guard.Guard
	storm *issuer.Storm
}

// protect builds the order in which what protects one authorization server stands before its client: the storm, the
// guard. The guard is next to the client, for only what leaves us needs a turn. The storm sees everything that the server
// says, and nothing else: what a signature or a shared store says is no sign of its health.
func (is *Issuer) protect(asks watchword.Source, held func() time.Duration, knows storm, logger *slog.Logger) (watchword.Source, protection, error) {
	var p protection
	var err error
	guarded := is.guarded()
	guarded.Held = held
	if p.guard, err = guard.Over(asks, guarded); err != nil {
		return nil, p, err
	}
	p.storm, err = issuer.NewStorm(p.guard, is.stormy(knows, logger))
	return p.storm, p, err
}

// lives tells found of every active answer about a token that lives longer than what is denied of it is held.
func (is *Issuer) lives(asks watchword.Source, found func(life time.Duration)) watchword.Source {
	most := is.MaxTokenLife + is.Skew + time.Second // sigma, as the ledger reckons
	return watchword.SourceFunc(func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
		a, err := asks.Introspect(ctx, q)
		if err == nil && a != nil && a.Active() && !a.Refresh() {
			now := time.Now()
			left, ends := a.Remaining(now)
			if began, known := a.IssuedAt(); known {
				left += max(0, watchword.Age(now, began))
			}
			if ends && left > most {
				found(left)
			}
		}
		return a, err
	})
}

func (is *Issuer) guarded() guard.Config {
	g := is.Guard
	return guard.Config{Timeout: is.Timeout, Retries: g.Retries, RetryBudget: g.RetryBudget, MaxInFlight: g.MaxInFlight, Rate: g.Rate,
		Breaker: guard.Breaker{Failures: g.Failures, Over: g.Over, Open: g.Open}, HedgeAfter: g.HedgeAfter}
}

// checkGuard finds what protects nobody, and what is never reached.
func checkGuard(r *reader, path string, is *Issuer) {
	if !is.introspects() {
		for _, key := range []string{"guard", "storm", "token_type_hint", "max_age_hint", "quirks"} {
			r.inert(path+"."+key, "it does not introspect, so nobody is asked", "remove it, or write introspection_endpoint")
		}
		return
	}
	if g := is.Guard; g.Retries == 0 && g.HedgeAfter == 0 {
		r.inert(path+".guard.retry_budget", "retries and hedge_after are 0, so nothing is asked twice", "remove it, or write one of them")
	} else if g.HedgeAfter >= is.Timeout {
		r.inert(path+".guard.hedge_after", fmt.Sprintf("timeout is over after %v", is.Timeout), "write a shorter one, or remove it")
	}
}

// checkRecheck finds rechecks of which there is none: where every decision asks, and where nobody can be asked.
func (c *Config) checkRecheck(r *reader, path string, p *watchword.Policy) {
	asked := func(is Issuer) bool {
		return is.introspects() && accepts(p, is.Name)
	}
	switch {
	case p.Freshness.MaxStaleness == 0 && !r.bad(path+".freshness.max_staleness"):
		r.inert(path+".recheck", "max_staleness is 0, so every decision asks", "remove it, or write a longer max_staleness")
	case len(c.Issuers) > 0 && !slices.ContainsFunc(c.Issuers, asked):
		r.inert(path+".recheck", "none of its issuers introspects, so nobody can be asked", "remove it")
	}
}

// storm is what tells a lie from a revocation. The zero value knows nothing.
type storm struct {
	canary    func() (known, alive bool)
	explained func() bool
}

func (is *Issuer) stormy(knows storm, logger *slog.Logger) issuer.StormConfig {
	return issuer.StormConfig{Name: is.Name, Share: is.Storm.Share, Within: is.Storm.Within, AtLeast: is.Storm.AtLeast, Logger: logger,
		Canary: knows.canary, Explained: knows.explained}
}

func (a *App) lookAtIssuers() (all []observe.IssuerStats) {
	now := a.now.Load()
	if now == nil {
		return nil
	}
	for _, one := range now.clients {
		g, s := one.guard.Stats(), one.storm.Stats()
		stats := observe.IssuerStats{Issuer: one.section.Name, Breaker: g.Breaker.String(), InFlight: g.InFlight, Limit: g.Limit, Waiting: g.Waiting,
			Retries: g.Retries, Hedges: g.Hedges, Refused: map[string]uint64{},
			Raging: s.Raging, Doubted: s.Doubted, Storms: s.Storms, Honoured: s.Honoured, ClockOffset: one.ClockOffset().Seconds()}
		for _, gate := range guard.Gates() {
			stats.Refused[gate.String()] = g.Refused[gate]
		}
		all = append(all, stats)
	}
	return all
}
