//go:build standalone

package app

import (
	"errors"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// fleets: this build has no client of Redis, NATS or Kafka, which are half of a binary. It is for a sidecar or a machine
// of its own.
const fleets = false

const embeds = false

func (e *Embedded) server([]string, func(string)) (inside, error) {
	return nil, errors.New("revocation.bus: " + notInThisBuild)
}

func (b *Bus) log(time.Duration, reach, func(string)) (revocation.Log, error) {
	return nil, errors.New("revocation.bus: " + notInThisBuild)
}

func (l *L2) store(reach) (driver, error) {
	return nil, errors.New("cache.l2: " + notInThisBuild)
}
