// Package redis keeps the revocations of a fleet and its shared answers in Redis, or in what speaks like it (Valkey).
package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// Deadlines of every connection.
const (
	dialTimeout = 2 * time.Second
	pingEvery   = 500 * time.Millisecond // also what tells a connection that died silently
	askTimeout  = 3 * time.Second        // of a command whose context has no deadline
)

// Config says which server, and as whom.
type Config struct {
	Address  string                 // host:port
	Username string                 // of an ACL user; empty: the default one
	Password func() (string, error) // asked for every connection, so that a rotation needs no restart; nil: none
	TLS      *tls.Config            // nil: none
	Prefix   string                 // of every key; empty: watchword
}

// Prefix names keys. It goes into no pattern, but braces would choose a cluster slot.
var prefix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$`) })

// Validate reports every mistake of c at once.
func (c *Config) Validate() error {
	var errs []error
	if host, port, err := net.SplitHostPort(c.Address); err != nil || host == "" || port == "" {
		errs = append(errs, errors.New("redis: the address is no host:port"))
	}
	if c.Prefix != "" && !prefix().MatchString(c.Prefix) {
		errs = append(errs, errors.New("redis: the prefix may hold letters, digits and _ . : -, at most 64"))
	}
	if c.Username != "" && c.Password == nil {
		errs = append(errs, errors.New("redis: a username without a password"))
	}
	return errors.Join(errs...)
}

// key is a name below the prefix.
func (c *Config) key(name string) string {
	if c.Prefix == "" {
		return "watchword:" + name
	}
	return c.Prefix + ":" + name
}

// dial connects. adjust, if any, changes the options last. The client reconnects by itself; only the first connection
// must succeed. Close it.
func (c *Config) dial(adjust ...func(*rueidis.ClientOption)) (rueidis.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	o := rueidis.ClientOption{
		InitAddress:       []string{c.Address},
		ForceSingleClient: true, // one server decides the order
		TLSConfig:         c.TLS,
		Dialer:            net.Dialer{Timeout: dialTimeout, KeepAlive: pingEvery},
		ConnWriteTimeout:  askTimeout,
		ClientName:        "watchword",
		ClientSetInfo:     rueidis.DisableClientSetInfo,
		DisableCache:      true,
		DisableRetry:      true, // who asks knows whether to ask again
		RetryDelay:        func(attempts int, _ rueidis.Completed, _ error) time.Duration { return pause(attempts, rand.Float64()) },
		RingScaleEachConn: 6,
		BlockingPoolSize:  4,
	}
	if c.Password != nil {
		o.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			password, err := c.Password()
			return rueidis.AuthCredentials{Username: c.Username, Password: password}, err
		}
	}
	for _, f := range adjust {
		f(&o)
	}
	client, err := rueidis.NewClient(o)
	if err != nil {
		return nil, fmt.Errorf("redis %s: %w", c.Address, err)
	}
	return client, nil
}

// pause is how long to wait before attempt n+1: doubling from 50 ms to 2 s, with a jitter u of [0, 1) down to half.
func pause(n int, u float64) time.Duration {
	d := min(50*time.Millisecond<<min(max(n, 0), 10), 2*time.Second)
	return d/2 + time.Duration(u*float64(d/2))
}
