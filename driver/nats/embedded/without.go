//go:build !embedded_nats

package embedded

import "errors"

// Start starts a server. This binary has none.
func Start(Config) (Server, error) {
	return nil, errors.New("this binary has no NATS server inside: build it with `-tags embedded_nats`, or name one by nats.url")
}
