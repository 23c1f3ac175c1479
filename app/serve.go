package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/watchword-dev/watchword/internal/lane"
)

// Limits of every server. A request that is whole takes at most two askings of at most maxTimeout each.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 2*maxTimeout + 10*time.Second
	writeTimeout  = readTimeout + 10*time.Second
	idleTimeout   = 2 * time.Minute
	headerBytes   = 32 << 10
	hotBodyBytes  = 8 << 10
	drainTimeout  = 30 * time.Second
)

// gate is a door with its socket. The handler and the certificate change with the configuration; the socket stays.
type gate struct {
	name     string
	listen   Listen
	mode     uint32
	tls      bool
	hot      bool // it is asked for every request of somebody else
	bodies   int  // where it is hot: bodies of so many bytes are of its hot requests
	handler  atomic.Pointer[http.Handler]
	cert     atomic.Pointer[tls.Certificate]
	listener net.Listener
	lane     *lane.Lane // nil: the server has all requests
	server   *http.Server
}

// gates are the doors that c opens, each with its server.
func (c *Config) gates(logger *slog.Logger) (all []*gate) {
	if d := c.Introspection; d != nil {
		all = append(all, &gate{name: "introspection", listen: d.Listen, mode: d.SocketMode, tls: d.TLS != nil, hot: true, bodies: hotBodyBytes})
	}
	if d := c.ForwardAuth; d != nil {
		all = append(all, &gate{name: "forward_auth", listen: d.Listen, mode: d.SocketMode, tls: d.TLS != nil, hot: true})
	}
	if d := c.Events; d != nil {
		all = append(all, &gate{name: "events", listen: d.Listen, mode: d.SocketMode, tls: d.TLS != nil})
	}
	if c.Admin != (Listen{}) {
		all = append(all, &gate{name: "admin", listen: c.Admin, mode: 0o660})
	}
	for _, g := range all {
		g.server = &http.Server{
			Handler:                      g.contain(logger),
			Protocols:                    new(http.Protocols),
			DisableGeneralOptionsHandler: true, // OPTIONS * is a question too
			ReadHeaderTimeout:            headerTimeout,
			ReadTimeout:                  readTimeout,
			WriteTimeout:                 writeTimeout,
			IdleTimeout:                  idleTimeout,
			MaxHeaderBytes:               headerBytes,
			ErrorLog:                     log.New(complaints{logger, g.name}, "", 0),
		}
		g.server.Protocols.SetHTTP1(true)
		g.server.Protocols.SetHTTP2(true)
		g.server.Protocols.SetUnencryptedHTTP2(true)
		if g.tls {
			g.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.cert.Load(), nil }}
		}
	}
	return all
}

// complaints is what an http.Server writes to its log: what strangers do wrong, and that it cannot accept connections
// any more, which somebody must know.
type complaints struct {
	*slog.Logger
	door string
}

func (c complaints) Write(p []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.HasPrefix(p, []byte("http: Accept error")) { // most often it has as many files open as it may have
		level = slog.LevelWarn
	}
	c.Log(context.Background(), level, strings.TrimSpace(string(p)), "door", c.door)
	return len(p), nil
}

// servedWith yields the certificate of every door that has one.
func (c *Config) servedWith() iter.Seq2[string, TLS] {
	return func(yield func(string, TLS) bool) {
		if d := c.Introspection; d != nil && d.TLS != nil && !yield("introspection", *d.TLS) {
			return
		}
		if d := c.ForwardAuth; d != nil && d.TLS != nil && !yield("forward_auth", *d.TLS) {
			return
		}
		if d := c.Events; d != nil && d.TLS != nil {
			yield("events", *d.TLS)
		}
	}
}

// contain lets the present door answer. A fault in it is 500, and the log says where, not what: the value of a panic
// may hold a token.
func (g *gate) contain(logger *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				logger.Error("a fault while answering", "door", g.name, "stack", string(debug.Stack()))
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		(*g.handler.Load()).ServeHTTP(w, r)
	})
}

// Listen opens every socket, or none. Run does it where it was not done before.
func (a *App) Listen() error {
	for _, g := range a.doors {
		var err error
		if g.listener, err = g.listen.open(g.mode); err != nil {
			a.unlisten()
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	if a.inner != nil {
		if err := a.inner.Start(); err != nil {
			a.unlisten()
			return fmt.Errorf("revocation.bus: %w", err)
		}
	}
	return nil
}

func (a *App) unlisten() {
	for _, g := range a.doors {
		if g.listener != nil {
			_ = g.listener.Close()
			g.listener = nil
		}
	}
}

// Addr is where a door listens: introspection, forward_auth, events or admin. Nil: it does not.
func (a *App) Addr(door string) net.Addr {
	for _, g := range a.doors {
		if g.name == door && g.listener != nil {
			return g.listener.Addr()
		}
	}
	return nil
}

// Run serves until ctx ends, then drains: no new connection is accepted, and every request in flight is answered. It
// returns nil where that succeeded. SIGHUP, or a change of a file that the configuration consists of, reloads. An App
// runs once.
func (a *App) Run(ctx context.Context) error {
	defer a.close()
	if len(a.doors) > 0 && a.doors[0].listener == nil {
		if err := a.Listen(); err != nil {
			return err
		}
	}
	live, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, len(a.doors))
	for _, g := range a.doors {
		if g.hot && !g.tls {
			g.lane = lane.New(g.listener, g.server, g.bodies)
		}
		go func() { failed <- a.open(g) }()
	}
	a.mu.Lock()
	a.live = live
	a.discover()
	a.hear(live)
	a.listen()
	a.sing()
	a.mu.Unlock()

	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	var background sync.WaitGroup
	background.Go(func() { a.follow(live, hangup) })
	background.Go(func() { _ = a.ledger.Run(live) })
	if a.fleet != nil {
		background.Go(func() { _ = a.fleet.Run(live, a.ledger) })
	}
	defer background.Wait()
	defer stop()

	a.state.Store(serving)
	a.warn()
	for _, g := range a.doors {
		a.logger().Info("serving", "door", g.name, "at", g.listener.Addr().String())
	}
	select {
	case <-ctx.Done():
		return a.drain()
	case err := <-failed:
		return errors.Join(err, a.drain())
	}
}

// open serves one door until its server shuts down.
func (a *App) open(g *gate) error {
	var err error
	switch {
	case g.tls:
		err = g.server.ServeTLS(g.listener, "", "")
	case g.lane != nil:
		err = g.server.Serve(g.lane)
	default:
		err = g.server.Serve(g.listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s: %w", g.name, err)
}

// drain answers what is in flight and accepts nothing more.
func (a *App) drain() error {
	a.state.Store(draining)
	a.logger().Info("draining")
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var wait sync.WaitGroup
	errs := make([]error, len(a.doors))
	for i, g := range a.doors {
		wait.Go(func() {
			if g.lane != nil {
				errs[i] = g.lane.Shutdown(ctx) // first: what leaves it is the server's
			}
			if errs[i] = errors.Join(errs[i], g.server.Shutdown(ctx)); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: not every request was answered in %v: %w", g.name, drainTimeout, errs[i])
				_ = g.server.Close()
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// close gives up everything.
func (a *App) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.live = nil
	a.now.Load().drop(nil)
	a.asking.Wait()
	if err := a.giveUp(); err != nil {
		a.logger().Error("the ledger of revocations could not be closed", "error", err)
	}
}

func (a *App) ready() error {
	switch a.state.Load() {
	case serving:
		if a.fleet != nil {
			return a.fleet.Ready()
		}
		return nil
	case draining:
		return errors.New("draining")
	}
	return errors.New("starting")
}

func (a *App) logger() *slog.Logger { return a.now.Load().logger }
