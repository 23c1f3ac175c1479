package app

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// Bus carries revocations through a fleet: exactly one of the three.
type Bus struct {
	Redis *Redis
	NATS  *BusNATS
	Kafka *Kafka
}

// BusNATS is a NATS cluster with a stream.
type BusNATS struct {
	URL, Stream, Username string
	Password              Secret
	CA                    string // PEM file; empty: TLS by the system's authorities, where the URL says tls
	Replicas              int
}

// Kafka is a Kafka cluster.
type Kafka struct {
	Brokers                    []string
	Topic, Username, Mechanism string
	Password                   Secret
	CA                         string // PEM file; empty: no TLS
}

var busKeys = object([]row[Bus]{
	key("redis", optional(redisKeys), func(b *Bus) **Redis { return &b.Redis }, "A Redis or Valkey stream. It should run with `appendonly yes`, better `appendfsync always`."),
	key("nats", optional(busNATSKeys), func(b *Bus) **BusNATS { return &b.NATS }, "A JetStream stream, and a bucket STREAM-kept."),
	key("kafka", optional(kafkaKeys), func(b *Bus) **Kafka { return &b.Kafka }, "A Kafka topic, and a compacted topic TOPIC-kept. Their min.insync.replicas should be 2 or more."),
})

var busNATSKeys = object([]row[BusNATS]{
	key("url", text("URL", "write nats://host:port or tls://host:port, several with commas", like(`^(nats|tls)://[^@]+$`, "is no URL of NATS without credentials")), func(s *BusNATS) *string { return &s.URL }, "Where it listens.").required(),
	key("stream", text("stream", "write letters, digits, _ and -, at most 64", like(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`, "is no name of a stream")), func(s *BusNATS) *string { return &s.Stream },
		"The stream; made if it is not there.").or("watchword"),
	key("username", text("name", "write the name of its user"), func(s *BusNATS) *string { return &s.Username }, "Its user. Absent: none."),
	key("password", secret(1), func(s *BusNATS) *Secret { return &s.Password }, passwordDoc),
	key("replicas", integer(1, 5), func(s *BusNATS) *int { return &s.Replicas }, "Of what we make.").or("1"),
	key("tls", object([]row[BusNATS]{key("ca", filePath, func(s *BusNATS) *string { return &s.CA }, caDoc).required()}), self[BusNATS], "TLS towards it. Absent: the system's certificates, where the URL says tls."),
}, "embedded")

var kafkaKeys = object([]row[Kafka]{
	key("brokers", list(text("broker", "write host:port, such as 127.0.0.1:9092", like(`^.+:[0-9]{1,5}$`, "has no port"))), func(s *Kafka) *[]string { return &s.Brokers }, "Some of the cluster, to begin with.").required(),
	key("topic", text("topic", "write letters, digits, . _ and -, at most 200", like(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`, "is no name of a topic")), func(s *Kafka) *string { return &s.Topic },
		"The topic; made with one partition if it is not there. Only partition 0 is used: one order.").or("watchword"),
	key("username", text("name", "write the name of its user"), func(s *Kafka) *string { return &s.Username }, "SASL. Absent: none."),
	key("password", secret(1), func(s *Kafka) *Secret { return &s.Password }, passwordDoc),
	key("mechanism", word("scram-sha-512", "scram-sha-256", "plain"), func(s *Kafka) *string { return &s.Mechanism }, "Of SASL; plain needs TLS.").or("scram-sha-512"),
	key("tls", object([]row[Kafka]{key("ca", filePath, func(s *Kafka) *string { return &s.CA }, caDoc).required()}), self[Kafka], "TLS towards it. Absent: none."),
})

// engine is what is common to the three. A nil Bus has none.
func (b *Bus) engine() (name, user, where, ca string, password Secret) {
	switch {
	case b == nil:
	case b.Redis != nil:
		return "redis", b.Redis.Username, b.Redis.Address + " " + b.Redis.Prefix, b.Redis.CA, b.Redis.Password
	case b.NATS != nil:
		return "nats", b.NATS.Username, fmt.Sprint(b.NATS.URL, " ", b.NATS.Stream, " ", b.NATS.Replicas), b.NATS.CA, b.NATS.Password
	case b.Kafka != nil:
		return "kafka", b.Kafka.Username, strings.Join(b.Kafka.Brokers, ",") + " " + b.Kafka.Topic + " " + b.Kafka.Mechanism, b.Kafka.CA, b.Kafka.Password
	}
	return "", "", "", "", Secret{}
}

// String is what of b cannot change while it serves.
func (b *Bus) String() string {
	name, user, where, ca, _ := b.engine()
	return fmt.Sprintf("%s %s username %q ca %q", name, where, user, ca)
}

func (b *Bus) ca() string {
	_, _, _, ca, _ := b.engine()
	return ca
}

func (b *Bus) password() (engine string, s Secret) {
	engine, _, _, _, s = b.engine()
	return engine, s
}

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
	name, user, _, ca, password := b.engine()
	at := path + "." + name
	if user != "" && password.IsZero() {
		r.silent(place{at + ".password", r.at(at).node}, "is missing: username needs it", secretHint)
	}
	if user == "" && (name == "nats" || name == "kafka") {
		r.inert(at+".password", "there is no username", "write username, or remove it")
	}
	if b.NATS != nil && strings.HasPrefix(b.NATS.URL, "nats") {
		r.inert(at+".tls", "the URL says nats", "write tls:// in the URL, or remove it")
	}
	if b.Kafka != nil && user == "" {
		r.inert(at+".mechanism", "there is no username", "write username, or remove it")
	}
	if b.Kafka != nil && b.Kafka.Mechanism == "plain" && ca == "" {
		r.silent(r.at(at+".mechanism"), "plain shows the password to everybody on the way", "write tls, or another mechanism")
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
	log, err := c.Revocation.Bus.open(c.retention(), a.busPassword(c), func(what string) { logger.Warn(what) })
	if err != nil {
		return fmt.Errorf("revocation.bus: %w", err)
	}
	secrets, err := c.DeploymentSecret.Resolve()
	if err != nil {
		_ = log.Close()
		return fmt.Errorf("deployment_secret: %w", err)
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
			Warn:    func(what string, err error) { logger.Warn("bus: "+what, "error", err) },
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

// life is until when e must be known: the end of the last token that it can name.
func (c *Config) life(e *revocation.Event) time.Time {
	if !e.Expires.IsZero() {
		return e.Expires
	}
	began, most := e.Heard, revocation.DefaultMaxTokenLife
	if e.At.After(began) {
		began = e.At
	}
	if is := c.issuerNamed(e.Issuer); is != nil && is.MaxTokenLife > 0 {
		most = is.MaxTokenLife
	}
	if is := c.issuerNamed(e.Issuer); is != nil {
		most += is.Skew
	}
	return began.Add(most)
}

// retention is how long the log must hold a revalidate event: longer than any answer from before it may serve.
func (c *Config) retention() time.Duration {
	keep := time.Hour
	for _, is := range c.ledgerIssuers() {
		keep = max(keep, 2*is.Remember)
	}
	return keep
}

// busPassword reads the password that is configured now.
func (a *App) busPassword(first *Config) func() (string, error) {
	return func() (string, error) {
		_, s := a.configured(first).Revocation.Bus.password()
		values, err := s.Resolve()
		if err != nil || len(values) == 0 {
			return "", fmt.Errorf("revocation.bus: no password: %w", err)
		}
		return values[0], nil
	}
}

// open makes the log and touches no network.
func (b *Bus) open(retention time.Duration, password func() (string, error), warn func(what string)) (revocation.Log, error) {
	_, _, _, ca, s := b.engine()
	if s.IsZero() {
		password = nil
	}
	var secured *tls.Config
	if ca != "" {
		pool, err := certPool(ca)
		if err != nil {
			return nil, fmt.Errorf("tls: ca: %w", err)
		}
		secured = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return b.log(retention, password, secured, warn)
}

// leave gives the bus up.
func (a *App) leave() {
	if a.bus != nil {
		_ = a.bus.Close()
	}
}
