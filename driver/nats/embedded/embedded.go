// Package embedded runs a NATS server with JetStream in this process, for a small fleet without a broker. It adds about
// 17 MB to a binary, so it is there under the build tag embedded_nats only.
package embedded

import "net"

// Config says where the server keeps what it stores, and who its peers are.
type Config struct {
	Folder  string   // for JetStream
	Name    string   // of this node; needed with Routes, and unlike every other's
	Listen  string   // host:port for the routes of other nodes; empty: this node is alone
	Routes  []string // host:port of the other nodes
	Cluster string   // name of the cluster; empty: watchword
	Secret  string   // that nodes show each other; needed with Listen
}

// Server is a running one; it is what nats.Config.Server takes.
type Server interface {
	InProcessConn() (net.Conn, error)
	Close()
}
