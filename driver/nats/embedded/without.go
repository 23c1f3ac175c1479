//go:build !embedded_nats

package embedded

import "errors"

// Linked tells whether this binary has the server.
const Linked = false

// New makes a server. This binary has none.
func New(Config) (Server, error) {
	return nil, errors.New("embedded NATS: this binary has none inside: build it with `-tags embedded_nats`")
}
