package interop

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword/driver/nats"
	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// natsServer is a real nats-server in a folder of its own that can be killed and started again.
type natsServer struct {
	address, dir string
	process      *process
}

func startNATS(t *testing.T) *natsServer {
	n := &natsServer{address: freePort(t), dir: t.TempDir()}
	n.start(t)
	return n
}

func (n *natsServer) start(t *testing.T) {
	t.Helper()
	host, port, _ := net.SplitHostPort(n.address)
	config := filepath.Join(t.TempDir(), "nats.conf")
	text := "host: " + host + "\nport: " + port + "\njetstream {store_dir: \"" + n.dir + "\"}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.process = start(t, "nats", command("nats-server", "-c", config))
	n.process.ready(t, patience, listens(n.address))
}

// A real NATS, killed and restarted.
//
// Covers: SIG-21
func TestBusNATS(t *testing.T) {
	t.Parallel()
	feedtest.Run(t, func(t *testing.T) feedtest.Engine {
		server := startNATS(t)
		pause := func(*testing.T) func() {
			server.process.pause()
			return server.process.resume
		}
		return feedtest.Engine{Open: openNATS(server.address), Pause: pause, Restart: func(t *testing.T) {
			server.process.kill()
			server.start(t)
		}, Lose: func(t *testing.T, write func()) { // the store of a moment ago comes back
			server.process.kill()
			old := t.TempDir()
			if err := os.CopyFS(old, os.DirFS(server.dir)); err != nil {
				t.Fatal(err)
			}
			server.start(t)
			write()
			server.process.kill()
			server.dir = old
			server.start(t)
		}}
	})
}

func openNATS(address string) func(t *testing.T) revocation.Log {
	return func(t *testing.T) revocation.Log {
		t.Helper()
		log, err := nats.NewLog(nats.LogConfig{Config: nats.Config{URL: "nats://" + strings.TrimSpace(address)}})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
}

func TestBusNATSLatency(t *testing.T) {
	latency(t, "nats", openNATS(startNATS(t).address))
}
