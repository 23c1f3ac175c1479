// Package embedded runs a NATS server with JetStream in this process, for a small fleet without a broker. It makes a
// binary a quarter larger, so it is there under the build tag embedded_nats only.
package embedded

import "net"

// Config says where the server keeps what it stores, and who its peers are. Zero fields mean the stated default.
type Config struct {
	Folder   string            // what it stores; of this process alone, and locked from Start to Close
	MaxBytes int64             // of Folder: beyond it nothing more is taken; 0: 256 MiB
	Name     string            // of this node; needed with Listen, unlike every other's, and the same after a restart
	Listen   string            // host:port for the other nodes; empty: this node is alone
	Nodes    []string          // host:port of the nodes; its own may be among them
	Secrets  []string          // needed with Listen: who knows one of them is a node. The first is shown, all are accepted
	Warn     func(what string) // told what the server calls an error, from several goroutines; nil: nobody
}

// Server is one of these. Make it with New, Start it once, Close it. It is what nats.Config.Server takes, also before it
// was started: a connection fails then, and is tried again.
type Server interface {
	Start() error // returns when it listens, and does not wait for other nodes
	InProcessConn() (net.Conn, error)
	Close()
}
