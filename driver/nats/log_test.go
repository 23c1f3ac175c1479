package nats

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// embedded is a server in this process that restarts with what it stored.
type embedded struct {
	*server.Server
	dir  string
	port int
}

func (e *embedded) start(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: e.port, NoLog: true, NoSigs: true, JetStream: true, StoreDir: e.dir, SyncAlways: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	e.Server, e.port = s, s.Addr().(*net.TCPAddr).Port
}

func (e *embedded) stop() {
	e.Shutdown()
	e.WaitForShutdown()
}

// Covers: SIG-21
func TestLog(t *testing.T) {
	t.Parallel()
	feedtest.Run(t, func(t *testing.T) feedtest.Engine {
		e := &embedded{dir: t.TempDir(), port: -1}
		e.start(t)
		t.Cleanup(func() { e.stop() })
		return feedtest.Engine{
			Open: func(t *testing.T) revocation.Log {
				l, err := NewLog(LogConfig{Config: Config{URL: e.ClientURL()}})
				if err != nil {
					t.Fatal(err)
				}
				return l
			},
			Restart: func(t *testing.T) { e.stop(); e.start(t) },
			Lose: func(t *testing.T, write func()) { // the store of a moment ago comes back
				e.stop()
				copyDir := t.TempDir()
				old := e.dir
				if err := os.CopyFS(copyDir, os.DirFS(old)); err != nil {
					t.Fatal(err)
				}
				e.start(t)
				write()
				e.stop()
				e.dir = copyDir
				e.start(t)
			},
		}
	})
}
