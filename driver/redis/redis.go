// Package redis keeps the revocations of a fleet and its shared answers in Redis, or in what speaks like it (Valkey).
package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-dev/watchword/revocation"
)

// Deadlines of every connection.
const (
	dialTimeout = 2 * time.Second
	pingEvery   = 500 * time.Millisecond // also what tells a connection that died silently
	askTimeout  = 3 * time.Second        // of a command whose context has no deadline
	lookEvery   = 5 * time.Second        // at which node of a cluster has what
	mostHops    = 5                      // from one node of a cluster to the next, to find the one that has the log
)

// Config says which server, and as whom.
type Config struct {
	Address  string                 // host:port; of a cluster several, with commas, to begin with
	Cluster  bool                   // it is a Redis Cluster
	Username string                 // of an ACL user; empty: the default one
	Password func() (string, error) // asked for every connection, so that a rotation needs no restart; nil: none
	TLS      *tls.Config            // nil: none
	Prefix   string                 // of every key; empty: watchword
}

// Prefix names keys. It goes into no pattern, but braces would choose another slot of a cluster than we mean.
var prefix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$`) })

// Validate reports every mistake of c at once.
func (c *Config) Validate() error {
	var errs []error
	for _, one := range c.seeds() {
		if host, port, err := net.SplitHostPort(one); err != nil || host == "" || port == "" {
			errs = append(errs, errors.New("redis: the address is no host:port"))
		}
	}
	if len(c.seeds()) > 1 && !c.Cluster {
		errs = append(errs, errors.New("redis: several addresses, and no cluster"))
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

// together is a name below the prefix whose key lies in the one slot of a cluster where all such keys lie, so that one
// script may touch several.
func (c *Config) together(name string) string {
	prefix, _ := strings.CutSuffix(c.key(""), ":")
	return "{" + prefix + "}:" + name
}

// seeds are the addresses to begin with.
func (c *Config) seeds() []string {
	all := strings.Split(c.Address, ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

// one are the options of a client of the server at address.
func (c *Config) one(address string) rueidis.ClientOption {
	o := rueidis.ClientOption{
		InitAddress:       []string{address},
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
	return o
}

// whole are the options of a client of the server, or of the whole cluster.
func (c *Config) whole() rueidis.ClientOption {
	o := c.one(c.Address)
	if c.Cluster {
		o.ForceSingleClient = false
		o.ClusterOption = rueidis.ClusterOption{ShardsRefreshInterval: lookEvery, MaxMovedRedirections: 3}
	}
	return o
}

// dial connects. The client reconnects by itself; only the first connection must succeed. Close it.
func (c *Config) dial(o rueidis.ClientOption) (rueidis.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	client, err := rueidis.NewClient(o)
	if err != nil {
		return nil, c.explain(strings.Join(o.InitAddress, ","), err)
	}
	return client, nil
}

// dialWhole connects to the server or, by the first seed that answers, to the whole cluster. One seed at a time: of
// several the client drops connections at once, which looks like a loss.
func (c *Config) dialWhole(o rueidis.ClientOption) (client rueidis.Client, err error) {
	seeds := c.seeds()
	first := rand.IntN(len(seeds))
	for i := range seeds {
		o.InitAddress = []string{seeds[(first+i)%len(seeds)]}
		if client, err = c.dial(o); err == nil {
			return client, nil
		}
	}
	return nil, err
}

// explain says where err happened and, where the server's word says it, why.
func (c *Config) explain(where string, err error) error {
	said, is := rueidis.IsRedisErr(err)
	if !is {
		return fmt.Errorf("redis %s: %w", where, err)
	}
	word, _, _ := strings.Cut(said.Error(), " ")
	who := "the default user"
	if c.Username != "" {
		who = "user " + c.Username
	}
	switch word {
	case "WRONGPASS", "NOAUTH":
		return fmt.Errorf("redis %s: %w of %s (%s)", where, revocation.ErrCredential, who, word)
	case "NOPERM":
		return fmt.Errorf("redis %s: %w to %s: %w", where, revocation.ErrForbidden, who, err)
	case "MOVED":
		return fmt.Errorf("redis %s: %w (MOVED)", where, revocation.ErrCluster)
	}
	return fmt.Errorf("redis %s: %w", where, err)
}

// pause is how long to wait before attempt n+1: doubling from 50 ms to 2 s, with a jitter u of [0, 1) down to half.
func pause(n int, u float64) time.Duration {
	d := min(50*time.Millisecond<<min(max(n, 0), 10), 2*time.Second)
	return d/2 + time.Duration(u*float64(d/2))
}
