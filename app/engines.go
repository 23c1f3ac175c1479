//go:build !standalone

package app

import (
	"time"

	"github.com/watchword-dev/watchword/driver/kafka"
	"github.com/watchword-dev/watchword/driver/nats"
	"github.com/watchword-dev/watchword/driver/nats/embedded"
	"github.com/watchword-dev/watchword/driver/redis"
	"github.com/watchword-dev/watchword/revocation"
)

// fleets: this build has what a fleet shares its answers and revocations through.
const fleets = true

// embeds: this build has a server of NATS inside.
const embeds = embedded.Linked

// server makes the server of this node and opens nothing.
func (e *Embedded) server(secrets []string, warn func(what string)) (inside, error) {
	return embedded.New(embedded.Config{Folder: e.Folder, MaxBytes: e.MaxBytes, Name: e.Name, Listen: e.Listen, Nodes: e.Nodes, Secrets: secrets, Warn: warn})
}

// log makes the fleet's log and touches no network.
func (b *Bus) log(retention time.Duration, with reach, warn func(what string)) (revocation.Log, error) {
	switch {
	case b.Redis != nil:
		return redis.NewLog(redis.LogConfig{Config: b.Redis.driver(with), Retention: retention, Warn: warn})
	case b.NATS != nil:
		return nats.NewLog(nats.LogConfig{Config: b.NATS.driver(with), Retention: retention})
	}
	return kafka.NewLog(kafka.LogConfig{Retention: retention,
		Config: kafka.Config{Brokers: b.Kafka.Brokers, Topic: b.Kafka.Topic, Username: b.Kafka.Username, Mechanism: b.Kafka.Mechanism, Password: with.password, TLS: with.tls}})
}

// store makes the shared store and touches no network.
func (l *L2) store(with reach) (driver, error) {
	if l.Redis != nil {
		return redis.NewStore(l.Redis.driver(with))
	}
	return nats.NewStore(l.NATS.driver(with))
}

func (s *Redis) driver(with reach) redis.Config {
	return redis.Config{Address: s.Address, Cluster: s.Cluster, Prefix: s.Prefix, Username: s.Username, Password: with.password, TLS: with.tls}
}

func (s *NATS) driver(with reach) nats.Config {
	return nats.Config{URL: s.URL, Server: with.inner, Stream: s.Stream, Bucket: s.Bucket, Username: s.Username, Password: with.password, NKey: with.nkey, Credentials: with.credentials,
		TLS: with.tls, Replicas: s.Replicas}
}
