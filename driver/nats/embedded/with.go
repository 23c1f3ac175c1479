//go:build embedded_nats

package embedded

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

type running struct{ *server.Server }

// Close stops the server and waits for it.
func (r running) Close() {
	r.Shutdown()
	r.WaitForShutdown()
}

// Start starts a server that no client reaches from outside. It syncs what it acknowledges.
func Start(c Config) (Server, error) {
	if c.Folder == "" {
		return nil, errors.New("embedded NATS: no folder")
	}
	o := &server.Options{ServerName: c.Name, DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: c.Folder, SyncAlways: true}
	if c.Listen != "" {
		if c.Name == "" || c.Secret == "" {
			return nil, errors.New("embedded NATS: a cluster needs a name for each node and a secret for all")
		}
		host, port, err := net.SplitHostPort(c.Listen)
		if err != nil {
			return nil, errors.New("embedded NATS: the listener is no host:port")
		}
		if c.Cluster == "" {
			c.Cluster = "watchword"
		}
		o.Cluster = server.ClusterOpts{Name: c.Cluster, Host: host, Username: "watchword", Password: c.Secret}
		if o.Cluster.Port, err = strconv.Atoi(port); err != nil {
			return nil, errors.New("embedded NATS: the listener's port is no number")
		}
		for _, r := range c.Routes {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: r, User: url.UserPassword("watchword", c.Secret)})
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		return nil, errors.New("embedded NATS: it did not start within 10s")
	}
	return running{s}, nil
}
