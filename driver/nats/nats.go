// Package nats keeps the revocations of a fleet and its shared answers in NATS JetStream.
package nats

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Deadlines of every connection.
const (
	dialTimeout = 2 * time.Second
	pingEvery   = time.Second
	askTimeout  = 3 * time.Second // of a question whose context has no deadline
)

// Config says which servers, and as whom.
type Config struct {
	URL      string                 // nats://host:port or tls://host:port, several with commas; without credentials
	Username string                 // empty: none
	Password func() (string, error) // asked for every connection, so that a rotation needs no restart; nil: none
	TLS      *tls.Config            // nil: none, or with tls:// the system's authorities
	Stream   string                 // of the bus, and the stem of its bucket; empty: watchword
	Bucket   string                 // of shared answers; empty: watchword-answers
	Replicas int                    // of a stream or bucket that we create; 0: 1

	// Server, if not nil, is a server in this process (package embedded); URL is then empty.
	Server nats.InProcessConnProvider
}

var name = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`) })

// Validate reports every mistake of c at once.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(is bool, text string) {
		if is {
			errs = append(errs, errors.New("nats: "+text))
		}
	}
	wrong(c.Server != nil && c.URL != "", "a url and a server in this process: one of them")
	if c.Server == nil {
		for _, one := range strings.Split(c.URL, ",") {
			u, err := url.Parse(strings.TrimSpace(one))
			bad := err != nil || u.Host == "" || u.Path != "" || (u.Scheme != "nats" && u.Scheme != "tls")
			wrong(bad, "the url is not nats://host:port or tls://host:port")
			wrong(!bad && u.User != nil, "the url holds credentials: username and password are keys of their own")
		}
	}
	wrong(c.Stream != "" && !name().MatchString(c.Stream), "the stream's name may hold letters, digits, _ and -, at most 64")
	wrong(c.Bucket != "" && !name().MatchString(c.Bucket), "the bucket's name may hold letters, digits, _ and -, at most 64")
	wrong(c.Username != "" && c.Password == nil, "a username without a password")
	wrong(c.Replicas < 0 || c.Replicas > 5, "replicas are 1 to 5")
	return errors.Join(errs...)
}

func (c *Config) stream() string {
	if c.Stream == "" {
		return "watchword"
	}
	return c.Stream
}

// connect makes a connection that goes on trying, also at first, until it is closed. adjust are options that come last.
func (c *Config) connect(adjust ...nats.Option) (*nats.Conn, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	o := []nats.Option{
		nats.Name("watchword"),
		nats.Timeout(dialTimeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 500*time.Millisecond),
		nats.ReconnectBufSize(-1), // what cannot be sent fails now, and nothing is sent late
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(2),
		nats.IgnoreAuthErrorAbort(),                                       // a password that is being rotated is tried again
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default prints
	}
	if c.Password != nil {
		o = append(o, nats.UserInfoHandler(func() (string, string) {
			password, err := c.Password()
			if err != nil {
				return c.Username, "" // refused by the server, which is retried
			}
			return c.Username, password
		}))
	}
	if c.TLS != nil {
		o = append(o, nats.Secure(c.TLS))
	}
	if c.Server != nil {
		o = append(o, nats.InProcessServer(c.Server))
	}
	conn, err := nats.Connect(c.URL, append(o, adjust...)...)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	return conn, nil
}
