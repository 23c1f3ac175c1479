package app

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Embedded is a NATS server inside every node of a fleet.
type Embedded struct {
	Folder, Name, Listen string
	Nodes                []string // every node, or the others
	MaxBytes             int64
}

var embeddedKeys = object([]row[Embedded]{
	key("folder", folder, func(e *Embedded) *string { return &e.Folder }, "A folder of this process alone, for what it stores. It is synced before anything is acknowledged.").required(),
	key("name", label, func(e *Embedded) *string { return &e.Name }, "Of this node: unlike every other's, and the same after a restart.").required(),
	key("listen", nodeAddress, func(e *Embedded) *string { return &e.Listen }, "address:port for the other nodes. Nobody joins who does not know deployment_secret, and what is said is encrypted under it (TLS 1.3).").required(),
	key("nodes", list(nodeAddress), func(e *Embedded) *[]string { return &e.Nodes }, "Where the nodes listen, as host:port; this one may be among them. Three or more: most of them must be there for anything to be acknowledged.").required(),
	key("max_bytes", size, func(e *Embedded) *int64 { return &e.MaxBytes }, "On disk, at least 8MiB. When it is full a revocation is refused: in force on the node that heard it, and acknowledged by nobody.").or("256MiB"),
})

var nodeAddress = text("address", "write host:port, such as 10.0.0.1:6222", like(`^([^:/@\s]+|\[[0-9a-fA-F:.]+\]):[1-9][0-9]{0,4}$`, "is no host:port"))

// inside is a server in this process, which a bus is made of.
type inside interface {
	Start() error
	InProcessConn() (net.Conn, error)
	Close()
}

func (b *Bus) embedded() *Embedded {
	if b == nil || b.NATS == nil {
		return nil
	}
	return b.NATS.Embedded
}

// String is what of e cannot change while it serves.
func (e *Embedded) String() string {
	if e == nil {
		return "external"
	}
	return fmt.Sprint("embedded ", e.Folder, " ", e.Name, " ", e.Listen, " ", strings.Join(e.Nodes, ","), " ", e.MaxBytes)
}

// size is of how many nodes the cluster is.
func (e *Embedded) size() int {
	if slices.Contains(e.Nodes, e.Listen) {
		return len(e.Nodes)
	}
	return len(e.Nodes) + 1
}

// check finds what does not go together in s, at a path.
func (s *NATS) check(r *reader, at string) {
	e, replicas := s.Embedded, r.has(at+".replicas")
	switch url := r.has(at + ".url"); {
	case e != nil && url:
		r.silent(r.at(at+".url"), "has no effect: the nodes are the servers", "keep url or embedded")
	case e == nil && !url && !r.has(at+".embedded"):
		r.silent(place{at + ".url", r.at(at).node}, "is missing", "write where NATS listens, or embedded for a server inside every node")
	}
	if e == nil {
		return
	}
	const because = "the server is inside, and nodes know each other by deployment_secret"
	for _, name := range []string{"username", "nkey", "credentials", "tls"} {
		r.inert(at+"."+name, because, "remove it")
	}
	n := e.size()
	switch within := at + ".embedded"; {
	case r.bad(within+".nodes") || r.bad(within+".listen") || len(e.Nodes) == 0:
	case n == 1:
		r.silent(r.at(within+".nodes"), "names this node only", "write where the others listen; one machine needs revocation.log and no bus")
	case replicas && s.Replicas > n:
		r.wrong(r.at(at+".replicas"), fmt.Sprintf("is more than there are nodes (%d)", n), "lower it, or remove it")
	case !replicas:
		s.Replicas = min(n, 5)
	}
	if e.MaxBytes < 8<<20 && e.MaxBytes > 0 {
		r.wrong(r.at(at+".embedded.max_bytes"), "is too small for a log and what outlives it", "write at least 8MiB")
	}
	if host, _, err := net.SplitHostPort(e.Listen); err == nil && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			r.wrong(r.at(at+".embedded.listen"), "is no address of this machine", "write an IP address or localhost, and a port")
		}
	}
}

// linked finds what c needs and this build does not have.
func (c *Config) linked(r *reader) {
	if c.Revocation.Bus.embedded() != nil && fleets && !embeds {
		r.silent(r.at("revocation.bus.nats.embedded"), "not in this build, which has no NATS server inside", "build with `make embedded` (go build -tags embedded_nats ./cmd/watchword), or write url")
	}
}

// warnings is what is allowed and probably not meant.
func (e *Embedded) warnings() (all []string) {
	if e != nil && e.size() == 2 {
		all = append(all, "revocation.bus.nats.embedded: two nodes: while one is away nothing that is revoked is acknowledged; three bear the loss of one")
	}
	return all
}
