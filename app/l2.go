package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/observe"
)

// L2 is memory that the hosts of a fleet share: exactly one of the two.
type L2 struct {
	Redis   *Redis
	NATS    *NATS
	Timeout time.Duration // of one call
}

var l2Keys = object([]row[L2]{
	key("redis", optional(redisKeys), func(l *L2) **Redis { return &l.Redis }, "Redis or Valkey."),
	key("nats", optional(natsKeys), func(l *L2) **NATS { return &l.NATS }, "A JetStream key-value bucket, in the memory of NATS."),
	key("timeout", duration(5*time.Millisecond, 5*time.Second), func(l *L2) *time.Duration { return &l.Timeout },
		"How long one call to it may take before this host asks the AS for itself. For an answer that another host is asking for, five times that is waited.").or("50ms"),
})

var natsKeys = object(append(natsRows(),
	natsURL("Where it listens.").required(),
	key("bucket", text("bucket", "write letters, digits, _ and -, at most 64", like(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`, "is no name of a bucket")), func(s *NATS) *string { return &s.Bucket },
		"The bucket; made if it is not there, in memory, bounded to 256 MiB.").or("watchword-answers")))

// checkL2 finds what is missing for answers to be shared.
func (c *Config) checkL2(r *reader) {
	const path = "cache.l2"
	l := c.Cache.L2
	switch {
	case l == nil:
		return
	case !fleets:
		r.silent(r.at(path), notInThisBuild, "build without the tag standalone, or remove it")
		return
	}
	if l.Redis == nil && l.NATS == nil && !r.bad(path) {
		r.silent(r.at(path), "names no store", "write redis or nats")
	}
	if l.Redis != nil && l.NATS != nil {
		r.silent(r.at(path), "names two stores", "keep redis or nats")
	}
	if !r.has("deployment_secret") {
		r.silent(place{"deployment_secret", r.at(path).node}, "is missing: cache.l2 needs it, to seal what is shared", "write deployment_secret: {file: …}, the same on every host; `openssl rand -hex 32` makes one")
	}
	l.engine().check(r)
	reach := false
	for _, f := range c.bounds() {
		reach = reach || f.Life() > cache.DefaultSkew
	}
	if len(c.bounds()) > 0 && !reach {
		r.inert(path, fmt.Sprintf("no bound is longer than the %v by which the clocks of hosts may differ, so no shared answer could serve", cache.DefaultSkew), "remove it")
	}
}

// engine is the one that is named first. A nil L2 has none.
func (l *L2) engine() engine {
	const path = "cache.l2."
	switch {
	case l == nil:
	case l.Redis != nil:
		return l.Redis.engine(path)
	case l.NATS != nil:
		return l.NATS.engine(path)
	}
	return engine{}
}

// String is what of l cannot change while it serves.
func (l *L2) String() string {
	if l == nil {
		return "absent"
	}
	return fmt.Sprint(l.engine(), " timeout ", l.Timeout)
}

// driver is a cache.Store that can be closed.
type driver interface {
	cache.Store
	Close()
}

// share makes what the hosts of a fleet share, if c says so. It stays for the life of the process.
func (a *App) share(c *Config, logger *slog.Logger) error {
	if c.Cache.L2 == nil {
		return nil
	}
	now := func() engine { return a.configured(c).Cache.L2.engine() }
	with, err := now().reach(now)
	if err != nil {
		return fmt.Errorf("cache.l2: %w", err)
	}
	store, err := c.Cache.L2.store(with)
	if err != nil {
		return fmt.Errorf("cache.l2: %w", err)
	}
	a.store = store
	a.shared, err = cache.NewShared(cache.SharedConfig{Store: store, Timeout: c.Cache.L2.Timeout, Follow: 5 * c.Cache.L2.Timeout, Changed: func(why error) {
		if why != nil {
			logger.Warn("the shared store is not in use: this host asks for itself", now().because(why)...)
		} else {
			logger.Info("the shared store is in use again")
		}
	}})
	return err
}

// beneath is what is asked where no signature answers: the issuers, through what the fleet shares if there is such.
func (a *App) beneath(c *Config, issuers watchword.Source, shapes []watchword.Issuer) (watchword.Source, error) {
	if a.shared == nil {
		return issuers, nil
	}
	secrets, err := c.DeploymentSecret.Resolve()
	if err != nil {
		return nil, fmt.Errorf("deployment_secret: %w", err)
	}
	asking := cache.Asking{Issuers: map[string]string{}, Keep: c.keep()}
	for _, s := range secrets {
		asking.Secrets = append(asking.Secrets, []byte(s))
	}
	for _, s := range shapes {
		asking.Issuers[s.Name] = s.Asking
	}
	return a.shared.Over(issuers, asking)
}

// hear keeps the shared store in use until ctx ends.
func (a *App) hear(ctx context.Context) {
	if a.shared != nil {
		a.asking.Go(func() { a.shared.Run(ctx, a.memory.Distrust) })
	}
}

// unshare gives the shared store up.
func (a *App) unshare() {
	if a.shared != nil {
		a.shared.Close()
	}
	if a.store != nil {
		a.store.Close()
	}
}

func (a *App) lookAtShared() observe.SharedStats {
	s := a.shared.Stats()
	out := observe.SharedStats{InUse: s.InUse, ClockOffset: s.Offset, Results: map[string]uint64{}}
	for r, n := range s.Results {
		out.Results[cache.SharedResult(r).String()] = n
	}
	return out
}
