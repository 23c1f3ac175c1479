//go:build !standalone

package app

import (
	"crypto/tls"
	"time"

	"github.com/watchword-dev/watchword/driver/kafka"
	"github.com/watchword-dev/watchword/driver/nats"
	"github.com/watchword-dev/watchword/driver/redis"
	"github.com/watchword-dev/watchword/revocation"
)

// fleets: this build has what a fleet shares its answers and revocations through.
const fleets = true

// log makes the fleet's log and touches no network.
func (b *Bus) log(retention time.Duration, password func() (string, error), secured *tls.Config, warn func(what string)) (revocation.Log, error) {
	switch {
	case b.Redis != nil:
		return redis.NewLog(redis.LogConfig{Retention: retention, Warn: warn,
			Config: redis.Config{Address: b.Redis.Address, Prefix: b.Redis.Prefix, Username: b.Redis.Username, Password: password, TLS: secured}})
	case b.NATS != nil:
		return nats.NewLog(nats.LogConfig{Retention: retention,
			Config: nats.Config{URL: b.NATS.URL, Stream: b.NATS.Stream, Username: b.NATS.Username, Password: password, TLS: secured, Replicas: b.NATS.Replicas}})
	}
	return kafka.NewLog(kafka.LogConfig{Retention: retention,
		Config: kafka.Config{Brokers: b.Kafka.Brokers, Topic: b.Kafka.Topic, Username: b.Kafka.Username, Mechanism: b.Kafka.Mechanism, Password: password, TLS: secured}})
}

// store makes the shared store and touches no network.
func (l *L2) store(password func() (string, error), secured *tls.Config) (driver, error) {
	if l.Redis != nil {
		return redis.NewStore(redis.Config{Address: l.Redis.Address, Prefix: l.Redis.Prefix, Username: l.Redis.Username, Password: password, TLS: secured})
	}
	return nats.NewStore(nats.Config{URL: l.NATS.URL, Bucket: l.NATS.Bucket, Username: l.NATS.Username, Password: password, TLS: secured, Replicas: l.NATS.Replicas})
}
