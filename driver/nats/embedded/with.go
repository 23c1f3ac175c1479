//go:build embedded_nats

package embedded

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/watchword-dev/watchword/revocation"
)

// Linked tells whether this binary has the server.
const Linked = true

const (
	clusterName  = "watchword"
	maxBytes     = 256 << 20
	memoryBytes  = 32 << 20 // nothing of ours is kept in memory alone
	startTimeout = 10 * time.Second
)

type node struct {
	*server.Server
	folder string
	lock   *os.File // nil: not started
}

// insiders admits connections that never left this process.
type insiders struct{}

// Check implements server.Authentication.
func (insiders) Check(c server.ClientAuthentication) bool {
	at := c.RemoteAddress()
	return at != nil && at.Network() == "pipe"
}

// New makes a server and opens nothing; it reports every mistake of c at once. No client reaches it from outside, and it
// syncs what it acknowledges.
func New(c Config) (Server, error) {
	o := &server.Options{ServerName: c.Name, DontListen: true, NoSigs: true, JetStream: true, StoreDir: c.Folder, SyncAlways: true,
		JetStreamMaxStore: c.MaxBytes, JetStreamMaxMemory: memoryBytes}
	if c.MaxBytes == 0 {
		o.JetStreamMaxStore = maxBytes
	}
	var errs []error
	wrong := func(is bool, text string) {
		if is {
			errs = append(errs, errors.New("embedded NATS: "+text))
		}
	}
	wrong(c.Folder == "", "no folder")
	wrong(c.MaxBytes < 0, "MaxBytes is negative")
	wrong(c.Listen == "" && len(c.Nodes) > 0, "nodes, and nothing to listen on for them")
	if c.Listen != "" {
		host, port, err := hostPort(c.Listen)
		wrong(err != nil, "what it listens on is no host:port")
		wrong(c.Name == "", "a cluster needs a name for each node")
		wrong(len(c.Secrets) == 0, "a cluster needs a secret")
		o.Cluster = server.ClusterOpts{Name: clusterName, Host: host, Port: port, NoAdvertise: true}
		// It begins to route when it listens for clients only, so it does, where nobody else is, and admits none.
		o.DontListen, o.Host, o.Port, o.CustomClientAuthentication = false, "127.0.0.1", server.RANDOM_PORT, insiders{}
		for _, at := range c.Nodes {
			_, _, err := hostPort(at)
			wrong(err != nil, "a node is no host:port")
			if at != c.Listen {
				o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: at})
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Listen != "" {
		var err error
		if o.Cluster.TLSConfig, err = acquaintance(c.Secrets); err != nil {
			return nil, err
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	s.SetLoggerV2(&logger{warn: c.Warn}, false, false, false)
	return &node{Server: s, folder: c.Folder}, nil
}

func hostPort(at string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(at)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if n == 0 && err == nil {
		err = errors.New("no port")
	}
	return host, int(n), err
}

// Start implements Server. Two servers over one folder would each write over what the other has acknowledged.
func (n *node) Start() (err error) {
	if n.lock, err = revocation.LockFolder(n.folder); err != nil {
		return fmt.Errorf("embedded NATS: %w", err)
	}
	n.Server.Start()
	if !n.ReadyForConnections(startTimeout) {
		n.Close()
		return fmt.Errorf("embedded NATS: it did not start within %v", startTimeout)
	}
	return nil
}

// Close stops the server and waits for it.
func (n *node) Close() {
	n.Shutdown()
	n.WaitForShutdown()
	if n.lock != nil {
		_ = n.lock.Close()
	}
}

// logger hands on what the server calls an error, once in a while: a stranger may knock as often as it likes. The rest is
// about routes that come and go.
type logger struct {
	warn func(what string)

	mu   sync.Mutex
	last time.Time
}

const sayAgain = 10 * time.Second

// Noticef implements server.Logger, as the others do.
func (l *logger) Noticef(string, ...any) {}

// Warnf says nothing.
func (l *logger) Warnf(string, ...any) {}

// Debugf says nothing.
func (l *logger) Debugf(string, ...any) {}

// Tracef says nothing.
func (l *logger) Tracef(string, ...any) {}

// Errorf hands on what was not said lately.
func (l *logger) Errorf(format string, v ...any) {
	l.mu.Lock()
	again := l.warn != nil && (l.last.IsZero() || time.Since(l.last) > sayAgain)
	if again {
		l.last = time.Now()
	}
	l.mu.Unlock()
	if again {
		l.warn(fmt.Sprintf(format, v...))
	}
}

// Fatalf hands it on in any case, and does not end the process: Start says that it did not start.
func (l *logger) Fatalf(format string, v ...any) {
	if l.warn != nil {
		l.warn(fmt.Sprintf(format, v...))
	}
}
