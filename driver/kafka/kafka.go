// Package kafka keeps the revocations of a fleet in Kafka, or in what speaks like it.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/watchword-dev/watchword/revocation"
)

// Deadlines of every connection.
const (
	dialTimeout = 2 * time.Second
	askTimeout  = 3 * time.Second
	lookEvery   = time.Second // at who the topic is
)

// Config says which cluster, and as whom.
type Config struct {
	Brokers   []string               // host:port, to begin with
	Username  string                 // SASL; empty: none
	Password  func() (string, error) // asked for every connection, so that a rotation needs no restart; nil: none
	Mechanism string                 // plain, scram-sha-256 or scram-sha-512; empty: scram-sha-512
	TLS       *tls.Config            // nil: none
	Topic     string                 // of the log; what is kept is in TOPIC-kept; empty: watchword
	Replicas  int                    // of a topic that we create; 0: the cluster's default
}

var topic = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`) })

// Validate reports every mistake of c at once.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(is bool, text string) {
		if is {
			errs = append(errs, errors.New("kafka: "+text))
		}
	}
	wrong(len(c.Brokers) == 0, "no brokers")
	for _, b := range c.Brokers {
		host, port, err := net.SplitHostPort(b)
		wrong(err != nil || host == "" || port == "", "a broker is no host:port")
	}
	wrong(c.Topic != "" && !topic().MatchString(c.Topic), "the topic may hold letters, digits, . _ and -, at most 200")
	wrong(c.Username != "" && c.Password == nil, "a username without a password")
	wrong(c.Username == "" && c.Password != nil, "a password without a username")
	switch c.Mechanism {
	case "", "plain", "scram-sha-256", "scram-sha-512":
	default:
		wrong(true, "the mechanism is none of plain, scram-sha-256, scram-sha-512")
	}
	wrong(c.Mechanism == "plain" && c.TLS == nil, "the mechanism plain shows the password to everybody on the way: it needs TLS")
	wrong(c.Replicas < 0 || c.Replicas > 100, "replicas are 1 to 100")
	return errors.Join(errs...)
}

func (c *Config) topic() string {
	if c.Topic == "" {
		return "watchword"
	}
	return c.Topic
}

func (c *Config) kept() string { return c.topic() + "-kept" }

// client makes a client; it connects when it is used.
func (c *Config) client(adjust ...kgo.Opt) (*kgo.Client, error) {
	o := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("watchword"),
		kgo.DialTimeout(dialTimeout),
		kgo.RequestTimeoutOverhead(askTimeout),
		kgo.RetryTimeout(askTimeout),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // one partition is one order
		kgo.RecordDeliveryTimeout(askTimeout),
		kgo.AllowIdempotentProduceCancellation(), // else a record on its way to a broker that died waits for ever; one that arrives twice has its number twice
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(1024),
		kgo.FetchMaxWait(500 * time.Millisecond), // a broker answers at once when there is something
		kgo.FetchMaxBytes(4 << 20),
		kgo.FetchMaxPartitionBytes(4 << 20),
		kgo.BrokerMaxReadBytes(16 << 20),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // who is out of range learns it
	}
	if c.TLS != nil {
		o = append(o, kgo.DialTLSConfig(c.TLS))
	}
	if c.Username != "" {
		o = append(o, c.sasl())
	}
	client, err := kgo.NewClient(append(o, adjust...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return client, nil
}

func (c *Config) sasl() kgo.Opt {
	if c.Mechanism == "plain" {
		return kgo.SASL(plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := c.Password()
			return plain.Auth{User: c.Username, Pass: password}, err
		}))
	}
	auth := func(context.Context) (scram.Auth, error) {
		password, err := c.Password()
		return scram.Auth{User: c.Username, Pass: password}, err
	}
	if c.Mechanism == "scram-sha-256" {
		return kgo.SASL(scram.Sha256(auth))
	}
	return kgo.SASL(scram.Sha512(auth))
}

// explain says where err happened and, where the cluster's word says it, why.
func (c *Config) explain(err error) error {
	where := strings.Join(c.Brokers, ",")
	for _, one := range []struct{ is, means error }{
		{kerr.SaslAuthenticationFailed, revocation.ErrCredential}, {kerr.TopicAuthorizationFailed, revocation.ErrForbidden}, {kerr.ClusterAuthorizationFailed, revocation.ErrForbidden},
	} {
		if errors.Is(err, one.is) {
			return fmt.Errorf("kafka %s: %w (user %q): %w", where, one.means, c.Username, err)
		}
	}
	return fmt.Errorf("kafka %s: %w", where, err)
}
