package app

import (
	"context"
	"crypto/tls"
	"errors"
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

// Redis is a Redis or Valkey server.
type Redis struct {
	Address, Prefix, Username string
	Password                  Secret
	CA                        string // PEM file; empty: no TLS
}

// NATS is a NATS cluster with JetStream.
type NATS struct {
	URL, Bucket, Username string
	Password              Secret
	CA                    string // PEM file; empty: TLS by the system's authorities, where the URL says tls
	Replicas              int
}

var l2Keys = object([]row[L2]{
	key("redis", optional(redisKeys), func(l *L2) **Redis { return &l.Redis }, "Redis or Valkey."),
	key("nats", optional(natsKeys), func(l *L2) **NATS { return &l.NATS }, "A JetStream key-value bucket, in the memory of NATS."),
	key("timeout", duration(5*time.Millisecond, 5*time.Second), func(l *L2) *time.Duration { return &l.Timeout },
		"How long one call to it may take before this host asks the AS for itself. For an answer that another host is asking for, five times that is waited.").or("50ms"),
})

const (
	passwordDoc = "With username. Read again for every connection, so a rotation needs no restart."
	caDoc       = "The certificates, in PEM, that the server's must chain to. Read at start."
)

var redisKeys = object([]row[Redis]{
	key("address", text("address", "write host:port, such as 127.0.0.1:6379", like(`^.+:[0-9]{1,5}$`, "has no port")), func(s *Redis) *string { return &s.Address }, "Where it listens.").required(),
	key("prefix", text("prefix", "write letters, digits and _ . : -, at most 64", like(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$`, "is no prefix")), func(s *Redis) *string { return &s.Prefix },
		"Of every key, so that others can use the server too.").or("watchword"),
	key("username", text("name", "write the name of its ACL user"), func(s *Redis) *string { return &s.Username }, "Of an ACL user. Absent: the default one."),
	key("password", secret(1), func(s *Redis) *Secret { return &s.Password }, "Read again for every connection, so a rotation needs no restart."),
	key("tls", object([]row[Redis]{key("ca", filePath, func(s *Redis) *string { return &s.CA }, caDoc).required()}), self[Redis], "TLS towards it. Absent: none."),
})

var natsKeys = object([]row[NATS]{
	key("url", text("URL", "write nats://host:port or tls://host:port, several with commas", like(`^(nats|tls)://[^@]+$`, "is no URL of NATS without credentials")), func(s *NATS) *string { return &s.URL }, "Where it listens.").required(),
	key("bucket", text("bucket", "write letters, digits, _ and -, at most 64", like(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`, "is no name of a bucket")), func(s *NATS) *string { return &s.Bucket },
		"The bucket; made if it is not there, in memory, bounded to 256 MiB.").or("watchword-answers"),
	key("username", text("name", "write the name of its user"), func(s *NATS) *string { return &s.Username }, "Its user. Absent: none."),
	key("password", secret(1), func(s *NATS) *Secret { return &s.Password }, passwordDoc),
	key("replicas", integer(1, 5), func(s *NATS) *int { return &s.Replicas }, "Of a bucket that we make.").or("1"),
	key("tls", object([]row[NATS]{key("ca", filePath, func(s *NATS) *string { return &s.CA }, caDoc).required()}), self[NATS], "TLS towards it. Absent: the system's certificates, where the URL says tls."),
})

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
	for _, s := range []struct {
		path, user string
		password   Secret
	}{{path + ".redis", l.redis().Username, l.redis().Password}, {path + ".nats", l.nats().Username, l.nats().Password}} {
		if s.user != "" && s.password.IsZero() {
			r.silent(place{s.path + ".password", r.at(s.path).node}, "is missing: username needs it", secretHint)
		}
	}
	if n := l.NATS; n != nil && n.Username == "" {
		r.inert(path+".nats.password", "there is no username", "write username, or remove it")
	}
	if n := l.NATS; n != nil && n.URL != "" && len(n.URL) >= 4 && n.URL[:4] == "nats" {
		r.inert(path+".nats.tls", "the URL says nats", "write tls:// in the URL, or remove it")
	}
	reach := false
	for _, f := range c.bounds() {
		reach = reach || f.Life() > cache.DefaultSkew
	}
	if len(c.bounds()) > 0 && !reach {
		r.inert(path, fmt.Sprintf("no bound is longer than the %v by which the clocks of hosts may differ, so no shared answer could serve", cache.DefaultSkew), "remove it")
	}
}

func (l *L2) redis() *Redis {
	if l == nil || l.Redis == nil {
		return new(Redis)
	}
	return l.Redis
}

func (l *L2) nats() *NATS {
	if l == nil || l.NATS == nil {
		return new(NATS)
	}
	return l.NATS
}

// String is what of l cannot change while it serves.
func (l *L2) String() string {
	switch {
	case l == nil:
		return "absent"
	case l.Redis != nil:
		return fmt.Sprintf("redis %s prefix %s username %q ca %q timeout %v", l.Redis.Address, l.Redis.Prefix, l.Redis.Username, l.Redis.CA, l.Timeout)
	}
	n := l.nats()
	return fmt.Sprintf("nats %s bucket %s username %q ca %q replicas %d timeout %v", n.URL, n.Bucket, n.Username, n.CA, n.Replicas, l.Timeout)
}

func (l *L2) ca() string { return l.redis().CA + l.nats().CA }

// driver is a cache.Store that can be closed.
type driver interface {
	cache.Store
	Close()
}

// open makes the store and touches no network. password is asked for every connection.
func (l *L2) open(password func() (string, error)) (driver, error) {
	var secured *tls.Config
	if l.ca() != "" {
		pool, err := certPool(l.ca())
		if err != nil {
			return nil, fmt.Errorf("cache.l2: tls: ca: %w", err)
		}
		secured = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if l.redis().Password.IsZero() && l.nats().Password.IsZero() {
		password = nil
	}
	return l.store(password, secured)
}

// share makes what the hosts of a fleet share, if c says so. It stays for the life of the process.
func (a *App) share(c *Config, logger *slog.Logger) error {
	if c.Cache.L2 == nil {
		return nil
	}
	store, err := c.Cache.L2.open(func() (string, error) {
		l := c.Cache.L2
		if now := a.now.Load(); now != nil {
			l = now.config.Cache.L2
		}
		for _, s := range []Secret{l.redis().Password, l.nats().Password} {
			if !s.IsZero() {
				values, err := s.Resolve()
				if err != nil {
					return "", err
				}
				return values[0], nil
			}
		}
		return "", errors.New("cache.l2: no password any more")
	})
	if err != nil {
		return err
	}
	a.store = store
	a.shared, err = cache.NewShared(cache.SharedConfig{Store: store, Timeout: c.Cache.L2.Timeout, Follow: 5 * c.Cache.L2.Timeout, Changed: func(why error) {
		if why != nil {
			logger.Warn("the shared store is not in use: this host asks for itself", "error", why)
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
		a.asking.Go(func() { a.shared.Run(ctx, func(key watchword.Key) { a.memory.Forget(key) }) })
	}
}

// unshare gives the shared store up.
func (a *App) unshare() {
	if a.shared != nil {
		a.shared.Close()
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
