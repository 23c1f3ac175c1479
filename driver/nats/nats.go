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
	"github.com/nats-io/nkeys"
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

	NKey        func() (string, error) // seed of a user's NKey, asked for every connection; nil: none
	Credentials func() (string, error) // a file of a user's JWT and its seed, asked for every connection; nil: none

	Stream   string // of the bus, and the stem of its bucket; empty: watchword
	Bucket   string // of shared answers; empty: watchword-answers
	Replicas int    // of a stream or bucket that we create; 0: 1

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
	credentials := 0
	for _, is := range []bool{c.Username != "", c.NKey != nil, c.Credentials != nil} {
		if is {
			credentials++
		}
	}
	wrong(credentials > 1, "more than one of username, nkey and credentials")
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
func (c *Config) connect(adjust ...nats.Option) (*link, error) {
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
		nats.IgnoreAuthErrorAbort(), // a password that is being rotated is tried again
	}
	k := &link{where: c.URL, told: make(chan struct{})}
	if c.Server != nil {
		k.where = "in this process"
	}
	o = append(o, k.options()...)
	if c.Password != nil {
		o = append(o, nats.UserInfoHandler(func() (string, string) {
			password, err := c.Password()
			if err != nil {
				return c.Username, "" // refused by the server, which is retried
			}
			return c.Username, password
		}))
	}
	if c.NKey != nil {
		sign, err := c.nkey()
		if err != nil {
			return nil, err
		}
		o = append(o, sign)
	}
	if c.Credentials != nil {
		o = append(o, nats.UserJWT(c.userJWT, c.signJWT))
	}
	if c.TLS != nil {
		o = append(o, nats.Secure(c.TLS))
	}
	if c.Server != nil {
		o = append(o, nats.InProcessServer(c.Server))
	}
	conn, err := nats.Connect(c.URL, append(o, adjust...)...)
	if err != nil {
		return nil, fmt.Errorf("nats %s: %w", k.where, err)
	}
	k.Conn = conn
	return k, nil
}

// nkey shows the user's public key, which stays, and signs with the seed as it is then.
func (c *Config) nkey() (nats.Option, error) {
	pair := func() (nkeys.KeyPair, error) {
		seed, err := c.NKey()
		if err != nil {
			return nil, err
		}
		kp, err := nkeys.FromSeed([]byte(strings.TrimSpace(seed)))
		if err != nil {
			return nil, errors.New("nats: the nkey is no seed") // an error of others might show it
		}
		return kp, nil
	}
	kp, err := pair()
	if err != nil {
		return nil, err
	}
	public, err := kp.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, errors.New("nats: the nkey is not a user's")
	}
	return nats.Nkey(public, func(nonce []byte) ([]byte, error) {
		kp, err := pair()
		if err != nil {
			return nil, err
		}
		defer kp.Wipe()
		return kp.Sign(nonce)
	}), nil
}

// userJWT and signJWT read a credentials file anew.
func (c *Config) userJWT() (string, error) {
	text, err := c.Credentials()
	if err != nil {
		return "", err
	}
	jwt, err := nkeys.ParseDecoratedJWT([]byte(text))
	if err != nil {
		return "", errors.New("nats: the credentials hold no JWT")
	}
	return jwt, nil
}

func (c *Config) signJWT(nonce []byte) ([]byte, error) {
	text, err := c.Credentials()
	if err != nil {
		return nil, err
	}
	kp, err := nkeys.ParseDecoratedNKey([]byte(text))
	if err != nil {
		return nil, errors.New("nats: the credentials hold no seed")
	}
	defer kp.Wipe()
	return kp.Sign(nonce)
}
