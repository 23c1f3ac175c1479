package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door/forwardauth"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/jose"
	"github.com/watchword-dev/watchword/observe"
	"github.com/watchword-dev/watchword/revocation"
)

// discoveryPatience is how long a reload waits for the metadata of a new issuer before it serves without.
const discoveryPatience = 10 * time.Second

// Reload reads the file again and serves by it from then on. On error the old configuration stays whole. The cache and
// the sockets stay in any case, and so do the connections to an issuer whose section is unchanged.
func (a *App) Reload() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, err := a.reload()
	return err
}

// reload also returns what it saw of the files whose change is worth another try.
func (a *App) reload() (seen snapshot, err error) {
	old := a.now.Load()
	seen = look(old.config.Files())
	c, err := parse(old.config.Path)
	if c != nil {
		maps.Copy(seen, c.seen)
	}
	if err == nil {
		err = c.restarts(old.config)
	}
	var p *parts
	if err == nil {
		p, err = a.assemble(c)
	}
	if err == nil {
		a.meet(p, old)
		err = a.install(p)
	}
	if err != nil {
		a.metrics.ConfigRefused()
		mistakes, is := errors.AsType[Mistakes](err)
		if !is {
			mistakes = Mistakes{{Reason: err.Error()}}
		}
		for _, m := range mistakes {
			old.logger.Error("the new configuration is refused; the old one stays", "file", old.config.Path, "mistake", m.String())
		}
		return seen, err
	}
	a.warn()
	p.logger.Info("the new configuration serves", "file", c.Path, "hash", c.Hash)
	return c.seen, nil
}

func (a *App) warn() {
	now := a.now.Load()
	for _, w := range now.config.Warnings() {
		now.logger.Warn("configuration: " + w)
	}
}

// restarts reports, as Mistakes, what of c cannot be changed while old serves.
func (c *Config) restarts(old *Config) error {
	var ms Mistakes
	was, is := old.fixed(), c.fixed()
	for i := range is {
		if is[i] != was[i] {
			ms = append(ms, Mistake{Path: is[i][0], Value: is[i][1], Reason: "was " + was[i][1] + ", and cannot change while it serves", Fix: "restart, or change it back"})
		}
	}
	if ms == nil {
		return nil
	}
	return ms
}

// fixed lists what is chosen once: the sockets, and the memory.
func (c *Config) fixed() (all [][2]string) {
	gate := func(path string, open bool, l Listen, mode uint32, t *TLS) {
		at, how := "absent", "without"
		if open {
			at = l.String()
		}
		if t != nil {
			how = "with"
		}
		all = append(all, [2]string{path + ".listen", at}, [2]string{path + ".tls", how}, [2]string{path + ".socket_mode", fmt.Sprintf("%04o", mode)})
	}
	i, f := c.Introspection, c.ForwardAuth
	if i == nil {
		i = new(Introspection)
	}
	if f == nil {
		f = new(ForwardAuth)
	}
	gate("doors.introspection", c.Introspection != nil, i.Listen, i.SocketMode, i.TLS)
	gate("doors.forward_auth", c.ForwardAuth != nil, f.Listen, f.SocketMode, f.TLS)
	e := c.Events
	if e == nil {
		e = new(Events)
	}
	gate("doors.events", c.Events != nil, e.Listen, e.SocketMode, e.TLS)
	gate("admin", c.Admin != Listen{}, c.Admin, 0, nil)
	own := c.Cache
	own.L2 = nil
	return append(all, [2]string{"cache", fmt.Sprintf("%+v", own)}, [2]string{"cache.l2", c.Cache.L2.String()}, [2]string{"revocation", fmt.Sprintf("%+v", c.Revocation)})
}

// meet lets new issuers be discovered before they serve, so that a reload does not begin with questions that nobody
// can answer.
func (a *App) meet(p, old *parts) {
	ctx := a.live
	if ctx == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, discoveryPatience)
	defer cancel()
	var wait sync.WaitGroup
	for _, one := range p.clients {
		if !slices.Contains(old.clients, one) {
			wait.Go(func() {
				if err := one.Discover(ctx); err != nil {
					p.logger.Warn("a new issuer is not discovered yet", "issuer", one.section.Name, "error", err)
				}
			})
		}
	}
	wait.Wait()
}

// discover lets every issuer without a configured endpoint be discovered, and the keys of every issuer that needs them
// be fetched, in the background, as long as it serves.
func (a *App) discover() {
	if a.live == nil {
		return
	}
	for _, one := range a.now.Load().clients {
		if one.stop != nil || one.section.Endpoint != "" && !one.section.verifies() {
			continue
		}
		var ctx context.Context
		ctx, one.stop = context.WithCancel(a.live)
		a.asking.Go(func() { one.Run(ctx) })
		if one.section.verifies() {
			a.asking.Go(func() { one.keys.Run(ctx) })
		}
	}
}

// rehearse makes everything that serving makes, opens nothing, and reports what went wrong: `config check` finds every
// mistake that `serve` would.
func (c *Config) rehearse(r *reader) {
	note := func(path string, err error) {
		if err != nil {
			r.silent(r.at(path), strings.ReplaceAll(err.Error(), "\n", "; "), "correct what it names")
		}
	}
	var shapes []watchword.Issuer
	var clients []*client
	for i := range c.Issuers {
		quiet := slog.New(slog.DiscardHandler)
		one, keys, err := c.Issuers[i].connect(c.Issuers[i].config(quiet), nil, quiet)
		if err == nil {
			_, err = c.Issuers[i].chain(one, keys, nil)
		}
		if err == nil {
			_, _, err = c.Issuers[i].protect(one, one.Held, storm{}, quiet)
		}
		note(fmt.Sprintf("issuers[%d]", i), err)
		if err == nil {
			shapes = append(shapes, c.Issuers[i].shape(one))
			clients = append(clients, &client{Client: one, section: &c.Issuers[i], keys: keys})
		}
	}
	if len(r.mistakes) > 0 {
		return
	}
	v, err := watchword.New(c.judgement(issuer.Router{}, shapes, nil))
	note("policies", err)
	if c.Introspection != nil {
		_, err = c.introspectionDoor(v)
		note("doors.introspection", err)
	}
	if c.ForwardAuth != nil {
		_, err = forwardauth.New(c.forwardAuthConfig(v, nil))
		note("doors.forward_auth", err)
	}
	ledger, err := revocation.New(revocation.Config{Issuers: c.ledgerIssuers()})
	note("issuers", err)
	if err != nil {
		return
	}
	defer func() { _ = ledger.Close() }()
	nobody := observe.NewMetrics(observe.MetricsConfig{})
	if c.Events != nil {
		_, err = c.hears(clients, ledger, ledger, v, nobody, slog.New(slog.DiscardHandler), nil)
		note("doors.events", err)
	}
	for i := range c.Canaries {
		asks := clients[slices.IndexFunc(clients, func(one *client) bool { return one.section.Name == c.Canaries[i].Issuer })]
		_, err := c.canary(&c.Canaries[i], asks.Client, v, nobody, slog.New(slog.DiscardHandler))
		note(fmt.Sprintf("canary[%d]", i), err)
	}
	_, err = c.operators(ledger, ledger, nil, nobody, slog.New(slog.DiscardHandler), nil)
	note("admin.operators", err)
}

// client is an issuer's, with what it was made of.
type client struct {
	*issuer.Client
	protection
	section *Issuer
	read    []byte             // of files that are read once: the CA, the decryption key
	keys    *jose.Keys         // nil: nothing says where they are
	source  watchword.Source   // what asks it: the Client, and what protects it
	stop    context.CancelFunc // of its discovery; nil: none runs
}

// client makes a client for is. One of the same section is kept: its connections and what it discovered stay, and it
// reads secrets, keys and its own certificate again by itself.
func (a *App) client(is *Issuer, logger *slog.Logger) (*client, error) {
	next := &client{section: is}
	if is.CA != "" {
		var err error
		if next.read, err = readFile(is.CA, maxPEMBytes); err != nil {
			return nil, fmt.Errorf("issuer %q: tls: ca: %w", is.Name, err)
		}
	}
	if !is.Response.Decryption.IsZero() {
		key, err := is.Response.Decryption.Resolve()
		if err != nil {
			return nil, fmt.Errorf("issuer %q: introspection_response: decryption_key: %w", is.Name, err)
		}
		next.read = append(next.read, key[0]...)
	}
	var before *client // of the same server
	if now := a.now.Load(); now != nil {
		for _, old := range now.clients {
			if reflect.DeepEqual(old.section, is) && bytes.Equal(old.read, next.read) {
				return old, nil
			}
			if o := old.section; o.Name == is.Name && o.Endpoint == is.Endpoint && o.ID == is.ID {
				before = old
			}
		}
	}
	var err error
	c := is.config(logger)
	c.Observe = a.metrics.Asked(is.Name)
	if next.Client, next.keys, err = is.connect(c, a.metrics.KeysFetched(is.Name, is.JWT.KeysMaxAge), logger); err != nil {
		return next, err
	}
	next.source, next.protection, err = is.protect(next.Client, next.Held, storm{a.canaryOf(is.Name), a.recent.explained(is.Name, is.Storm.AtLeast)}, logger)
	if err == nil && before != nil {
		next.storm.Inherit(before.storm)
		if next.keys != nil && before.keys != nil && before.section.JWKS == is.JWKS {
			next.keys.Inherit(before.keys)
		}
	}
	return next, err
}
