package app

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// Bus carries revocations through a fleet: exactly one of the three.
type Bus struct {
	Redis *Redis
	NATS  *NATS
	Kafka *Kafka
}

var busKeys = object([]row[Bus]{
	key("redis", optional(redisKeys), func(b *Bus) **Redis { return &b.Redis }, "A Redis or Valkey stream. It should run with `appendonly yes`, better `appendfsync always`."),
	key("nats", optional(busNATSKeys), func(b *Bus) **NATS { return &b.NATS }, "A JetStream stream, and a bucket STREAM-kept."),
	key("kafka", optional(kafkaKeys), func(b *Bus) **Kafka { return &b.Kafka }, "A Kafka topic, and a compacted topic TOPIC-kept. Their min.insync.replicas should be 2 or more."),
})

var busNATSKeys = object(append(natsRows(),
	natsURL("Where it listens. This or `embedded`."),
	key("embedded", optional(embeddedKeys), func(s *NATS) **Embedded { return &s.Embedded },
		"Instead of url: a server inside every node, for a small fleet without a broker, in a binary built with `-tags embedded_nats`. Every node then has a replica, up to five, where `replicas` is not written."),
	key("stream", text("stream", "write letters, digits, _ and -, at most 64", like(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`, "is no name of a stream")), func(s *NATS) *string { return &s.Stream },
		"The stream; made if it is not there.").or("watchword")))

// engine is the one that is named first. A nil Bus has none.
func (b *Bus) engine() engine {
	const path = "revocation.bus."
	switch {
	case b == nil:
	case b.Redis != nil:
		return b.Redis.engine(path)
	case b.NATS != nil:
		return b.NATS.engine(path)
	case b.Kafka != nil:
		return b.Kafka.engine(path)
	}
	return engine{}
}

// String is what of b cannot change while it serves.
func (b *Bus) String() string { return b.engine().String() }

// notInThisBuild is said of what the tag standalone leaves out.
const notInThisBuild = "not in this build, which has the tag standalone"

// checkBus finds what is missing for revocations to be shared.
func (c *Config) checkBus(r *reader) {
	const path = "revocation.bus"
	b := c.Revocation.Bus
	if b == nil {
		return
	}
	if !fleets {
		r.silent(r.at(path), notInThisBuild, "build without the tag standalone, or remove it")
		return
	}
	n := 0
	for _, is := range []bool{b.Redis != nil, b.NATS != nil, b.Kafka != nil} {
		if is {
			n++
		}
	}
	switch {
	case n == 0 && !r.bad(path):
		r.silent(r.at(path), "names no engine", "write redis, nats or kafka")
	case n > 1:
		r.silent(r.at(path), "names more than one engine", "keep one of redis, nats and kafka")
	}
	if !r.has("deployment_secret") {
		r.silent(place{"deployment_secret", r.at(path).node}, "is missing: revocation.bus needs it, so that nobody else revokes", "write deployment_secret: {file: …}, the same on every node; `openssl rand -hex 32` makes one")
	}
	e := b.engine()
	e.check(r)
	if b.NATS != nil {
		b.NATS.check(r, e.path)
	}
	if b.Kafka != nil && e.user == "" {
		r.inert(e.path+".mechanism", "there is no username", "write username, or remove it")
	}
	if b.Kafka != nil && b.Kafka.Mechanism == "plain" && e.tls.CA == "" {
		r.silent(r.at(e.path+".mechanism"), "plain shows the password to everybody on the way", "write tls, or another mechanism")
	}
}

// ledgerKeys are the keys of token ids: in a fleet every node must have the same, so they come of deployment_secret.
func (c *Config) ledgerKeys() (key revocation.Key, previous []revocation.Key, err error) {
	if c.Revocation.Bus == nil {
		return key, nil, nil
	}
	secrets, err := c.DeploymentSecret.Resolve()
	if err != nil {
		return key, nil, fmt.Errorf("deployment_secret: %w", err)
	}
	for i, s := range secrets {
		b, err := hkdf.Key(sha256.New, []byte(s), nil, "watchword ledger key 1", len(key))
		if err != nil {
			return key, nil, err
		}
		if i == 0 {
			copy(key[:], b)
			continue
		}
		previous = append(previous, revocation.Key(b))
	}
	return key, previous, nil
}

// busFeed is the name of the bus among feeds, in metrics.
const busFeed = "bus"

// openBus makes the fleet of which this node is one, if c says so. It touches no network, and stays for the life of the
// process.
func (a *App) openBus(c *Config, logger *slog.Logger) error {
	if c.Revocation.Bus == nil {
		return nil
	}
	secrets, err := c.DeploymentSecret.Resolve()
	if err != nil {
		return fmt.Errorf("deployment_secret: %w", err)
	}
	now := func() engine { return a.configured(c).Revocation.Bus.engine() }
	with, err := now().reach(now)
	if e := c.Revocation.Bus.embedded(); err == nil && e != nil {
		with.inner, err = e.server(secrets, func(what string) { logger.Warn("embedded NATS: " + what) })
		a.inner = with.inner
	}
	var log revocation.Log
	if err == nil {
		log, err = c.Revocation.Bus.log(c.retention(), with, func(what string) { logger.Warn(what) })
	}
	if err != nil {
		return fmt.Errorf("revocation.bus: %w", err)
	}
	f := revocation.FleetConfig{Log: log, Sink: a.ledger, Secret: []byte(secrets[0]),
		Issuer: func(name string) (string, bool) {
			is := a.configured(c).issuerNamed(name)
			if is == nil {
				return "", false
			}
			if is.ID != "" {
				return is.ID, true
			}
			return is.Endpoint, true
		},
		Life: func(e *revocation.Event) time.Time { return a.configured(c).life(e) },
		Watch: revocation.FleetWatch{
			Lag:   func(d time.Duration) { a.metrics.Lag(busFeed, d) },
			Ahead: func(d time.Duration) { a.metrics.Ahead(busFeed, d) },
			Gap: func(issuer string, kind revocation.GapKind, why string) {
				a.metrics.Gap(busFeed, string(kind))
				logger.Warn("the bus may have missed something", "issuer", issuer, "kind", kind, "why", why)
			},
			Message: func(outcome string) { a.metrics.Message(busFeed, outcome) },
			Warn:    func(what string, err error) { logger.Warn("bus: "+what, now().because(err)...) },
		}}
	for _, old := range secrets[1:] {
		f.Previous = append(f.Previous, []byte(old))
	}
	if a.fleet, err = revocation.NewFleet(f); err != nil {
		_ = log.Close()
		return err
	}
	a.bus, a.publisher = log, a.fleet
	a.metrics.Bus(busFeed)
	return nil
}

// configured is the configuration that serves, or the first one.
func (a *App) configured(first *Config) *Config {
	if now := a.now.Load(); now != nil {
		return now.config
	}
	return first
}

// life is until when e must be known: when nobody accepts the last token any more that it can name.
func (c *Config) life(e *revocation.Event) time.Time {
	life, over := revocation.DefaultMaxTokenLife, time.Duration(0)
	if is := c.issuerNamed(e.Issuer); is != nil {
		life, over = is.MaxTokenLife, is.Skew+is.Leeway
	}
	if !e.Expires.IsZero() {
		return e.Expires.Add(over)
	}
	began := e.Heard
	if e.At.After(began) {
		began = e.At
	}
	return began.Add(life + over)
}

// retention is how long the log must hold a revalidate event: longer than any answer from before it may serve.
func (c *Config) retention() time.Duration {
	keep := time.Hour
	for _, is := range c.ledgerIssuers() {
		keep = max(keep, 2*is.Remember)
	}
	return keep
}

// leave gives the bus up.
func (a *App) leave() {
	if a.bus != nil {
		_ = a.bus.Close()
	}
	if a.inner != nil {
		a.inner.Close()
	}
}
