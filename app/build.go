package app

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	weak "math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/door"
	"github.com/watchword-dev/watchword/door/admin"
	"github.com/watchword-dev/watchword/door/forwardauth"
	"github.com/watchword-dev/watchword/door/introspection"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/jose"
	"github.com/watchword-dev/watchword/observe"
	"github.com/watchword-dev/watchword/revocation"
)

// App is a Watchword. Make it with Build. What outlives a reload is here; what a reload replaces is its parts.
type App struct {
	stdout, stderr io.Writer
	digests        []byte // keys what leaves the process, where no deployment secret does
	memory         *cache.Cache
	store          driver        // what shared is kept in
	shared         *cache.Shared // nil: this host shares nothing
	ledger         *revocation.Ledger
	recent         recent               // what was heard of lately
	publisher      revocation.Publisher // where what comes in becomes durable: the ledger itself, or the fleet
	fleet          *revocation.Fleet    // nil: this machine is alone
	bus            revocation.Log       // of the fleet; nil: none
	inner          inside               // that bus is made of; nil: none in this process
	metrics        *observe.Metrics
	verifier       watchword.Verifier
	modes          modes
	doors          []*gate // in the order of the file: introspection, forward_auth, events, admin

	state  atomic.Int32          // starting, serving, draining
	now    atomic.Pointer[parts] // changed under mu only
	mu     sync.Mutex
	live   context.Context // while Run serves; nil: it does not. Guarded by mu
	asking sync.WaitGroup  // discovery in the background
}

const (
	starting int32 = iota
	serving
	draining
)

// parts are made of one configuration.
type parts struct {
	config    *Config
	logger    *slog.Logger
	clients   []*client
	decisions *observe.DecisionLog // nil: none
	sink      io.Closer            // of decisions; nil: not ours to close
	hearing   *hearing             // nil: no events door
	canaries  canaries
	handlers  map[string]http.Handler
	certs     map[string]*tls.Certificate
}

// Build makes everything that c describes and touches no network. Decisions may go to stdout; what the process says
// about itself goes to stderr.
func Build(c *Config, stdout, stderr io.Writer) (*App, error) {
	a := &App{stdout: &locked{w: stdout}, stderr: &locked{w: stderr}, digests: make([]byte, 32)}
	_, _ = rand.Read(a.digests) // never fails (crypto/rand)
	if err := a.build(c); err != nil {
		_ = a.giveUp()
		return nil, err
	}
	return a, nil
}

func (a *App) build(c *Config) (err error) {
	remember := c.remember()
	remember.OnInactive = func(q watchword.Query, answer *watchword.Answer) { a.ledger.Doubt(q, answer) }
	remember.WasActive = func(q watchword.Query) bool { return a.ledger.WasActive(q) }
	if a.memory, err = cache.New(remember); err != nil {
		return err
	}
	logger, err := observe.NewLogger(a.stderr, observe.LoggerConfig{Level: c.Log.Level, Format: c.Log.Format})
	if err != nil {
		return err
	}
	if err := a.share(c, logger); err != nil {
		return err
	}
	watched := observe.MetricsConfig{Cache: a.lookAtCache, Issuers: a.lookAtIssuers, Proven: a.proven, Ledger: a.lookAtLedger, Log: logger}
	watched.Modes = a.modes.standing
	if a.shared != nil {
		watched.Shared = a.lookAtShared
	}
	a.metrics = observe.NewMetrics(watched)
	if err := a.openLedger(c, logger); err != nil {
		return err
	}
	if err := a.openBus(c, logger); err != nil {
		return err
	}
	a.doors = c.gates(logger)
	a.mu.Lock()
	defer a.mu.Unlock()
	p, err := a.assemble(c)
	if err != nil {
		return err
	}
	return a.install(p)
}

// giveUp closes what outlives a reload, as far as it is there.
func (a *App) giveUp() error {
	a.unshare()
	a.leave()
	if a.memory != nil {
		a.memory.Close()
	}
	if a.ledger != nil {
		return a.ledger.Close()
	}
	return nil
}

// Verifier decides as the doors do, for a middleware in the same process. It follows every reload.
func (a *App) Verifier() *watchword.Verifier { return &a.verifier }

// assemble makes the parts for c, in the order in which a request meets them from the far end: whom to ask, what sees
// the decision, and the doors. Nothing that serves changes.
func (a *App) assemble(c *Config) (*parts, error) {
	p := &parts{config: c, handlers: map[string]http.Handler{}, certs: map[string]*tls.Certificate{}}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	p.logger, err = observe.NewLogger(a.stderr, observe.LoggerConfig{Level: c.Log.Level, Format: c.Log.Format})
	note(err)
	for i := range c.Issuers {
		one, err := a.client(&c.Issuers[i], p.logger)
		note(err)
		p.clients = append(p.clients, one)
	}
	note(p.openDecisions(a))
	if c.Introspection != nil {
		p.handlers["introspection"], err = c.introspectionDoor(&a.verifier)
		note(err)
	}
	if c.ForwardAuth != nil {
		p.handlers["forward_auth"], err = forwardauth.New(c.forwardAuthConfig(&a.verifier, a.metrics.HeaderDropped))
		note(err)
	}
	p.canaries.all = map[string]*issuer.Canary{}
	for i := range c.Canaries {
		n := &c.Canaries[i]
		one := slices.IndexFunc(p.clients, func(one *client) bool { return one != nil && one.section.Name == n.Issuer })
		if one < 0 || p.clients[one].Client == nil {
			continue // said above
		}
		p.canaries.all[n.Issuer], err = c.canary(n, p.clients[one].Client, &a.verifier, a.metrics, p.logger)
		note(err)
	}
	to := counted{a.publisher, c.covering(), a.metrics.Gap}
	if c.Events != nil && len(errs) == 0 {
		p.hearing, err = c.hears(p.clients, to, a.ledger, &a.verifier, a.metrics, p.logger, p.shared(a))
		note(err)
		if err == nil {
			p.handlers["events"] = p.hearing
		}
	}
	audit, err := observe.NewLogger(a.stderr, observe.LoggerConfig{Format: c.Log.Format}) // what operators do is kept at every level
	note(err)
	p.handlers["admin"], err = c.operators(to, a.ledger, a.remembered(c), a.metrics, audit, observe.Admin(a.metrics.Handler(), a.ready),
		admin.Modes{Set: a.setMode, List: a.modes.standing, Audit: audit}.Endpoints()...)
	note(err)
	for name, pair := range c.servedWith() {
		p.certs[name], err = pair.load()
		note(err)
	}
	if len(errs) > 0 {
		p.drop(a.now.Load())
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// install lets p serve. On error what served before goes on.
func (a *App) install(p *parts) error {
	if err := a.decideBy(p); err != nil {
		p.drop(a.now.Load())
		return err
	}
	for _, g := range a.doors {
		h := p.handlers[g.name]
		g.handler.Store(&h)
		g.cert.Store(p.certs[g.name])
	}
	old := a.now.Swap(p)
	if old != nil {
		a.beginAnew(p.config, old.config)
	}
	a.metrics.Configured(p.config.Hash)
	a.metrics.Covering(slices.Collect(maps.Values(p.config.covering()))...)
	for i := range p.config.Issuers {
		a.metrics.Remembers(p.config.Issuers[i].Name)
	}
	a.discover()
	a.listen()
	a.sing()
	if old != nil {
		old.drop(p)
	}
	return nil
}

// decideBy lets the Verifier decide by p and by what operators said.
func (a *App) decideBy(p *parts) error {
	asked, shapes := issuer.Router{}, []watchword.Issuer{}
	for _, one := range p.clients {
		asked[one.section.Name] = one.source
		shapes = append(shapes, one.section.shape(one.Client))
	}
	observers := []watchword.Observer{a.metrics}
	if p.decisions != nil {
		observers = append(observers, p.decisions)
	}
	said, keep := a.modes.standing(), p.config.keep()
	for _, m := range said {
		if m.OnUnavailable != watchword.Deny {
			keep = watchword.UntilExpiry
		}
	}
	below, err := a.beneath(p.config, asked, shapes)
	router := issuer.Router{}
	for _, one := range p.clients {
		if err == nil {
			var source watchword.Source
			source, err = one.section.chain(below, one.keys, a.ledger.Doubt)
			if p.config.hearsOf() {
				source = one.section.lives(source, a.outlived(one.section, p.logger))
			}
			router[one.section.Name] = source
		}
	}
	if err == nil {
		err = a.ledger.Reconfigure(p.config.ledgerIssuers()...)
	}
	if err == nil {
		next := p.config.judgement(a.memory.Over(router, keep), shapes, observers)
		next.Ledger, next.Modes = a.ledger, said
		err = a.verifier.Reconfigure(next)
	}
	return err
}

// judgement is the configuration of the Verifier.
func (c *Config) judgement(source watchword.Source, issuers []watchword.Issuer, observers []watchword.Observer) watchword.Config {
	callers := append(append(c.callers(), c.revokers()...), c.canaryPolicies()...)
	return watchword.Config{Source: source, Issuers: issuers, Routes: c.Policies, Callers: callers, Observers: observers, Chance: weak.Float64}
}

// callers are the policies of the introspection door.
func (c *Config) callers() (all []watchword.Policy) {
	if d := c.Introspection; d != nil {
		for i := range d.Callers {
			all = append(all, d.Callers[i].Policy)
		}
		if d.Forward {
			all = append(all, watchword.Policy{Name: forwardPolicy, Freshness: c.Freshness, Relay: true})
		}
	}
	return all
}

// forwardPolicy is the policy of callers whose own credentials go to the AS, in metrics and logs.
const forwardPolicy = "forward_caller_auth"

// keep is how long an answer may be of use to anybody.
func (c *Config) keep() time.Duration {
	keep := time.Duration(-1)
	for i := range c.Policies {
		if life := c.Policies[i].Policy.Life(); life > 0 {
			keep = max(keep, life)
		}
	}
	covered := slices.ContainsFunc(c.Issuers, func(is Issuer) bool { return is.Covering != "" })
	for _, f := range c.bounds() {
		life := f.Life()
		if covered && life > 0 {
			life = max(life, f.Covered()) // as long as a feed may extend it
		}
		if life > 0 {
			keep = max(keep, life)
		}
	}
	return keep
}

func (c *Config) remember() cache.Config {
	m := c.Cache.config()
	m.ReaskPerSecond = float64(c.Revocation.ReaskPerSecond)
	return m
}

func (c *Cache) config() cache.Config {
	return cache.Config{
		MaxBytes:      c.MaxBytes,
		FlightTimeout: maxTimeout + time.Second, // the issuer's own timeout comes first
		Inactive:      cache.Inactive{TTL: c.InactiveTTL, MaxBytes: c.InactiveMaxBytes},
		Unknown:       cache.Unknown{PerSecond: float64(c.UnknownPerPeer), Burst: float64(c.UnknownBurst)},
		RefreshAhead:  cache.RefreshAhead{After: c.RefreshAfter, MinHits: c.RefreshMinHits, PerSecond: float64(c.RefreshPerSecond)},
	}
}

// remembered is what this instance remembers of tokens, for operators.
func (a *App) remembered(c *Config) *admin.Memory {
	m := &admin.Memory{All: a.memory.All, Keys: a.verifier.Keys, Forget: a.memory.Forget, Claims: map[string]map[string]string{}}
	for i := range c.Issuers {
		m.Claims[c.Issuers[i].Name] = c.Issuers[i].Selectors
	}
	return m
}

func (a *App) lookAtCache() observe.CacheStats {
	s := a.memory.Stats()
	out := observe.CacheStats{Entries: s.Entries, Bytes: s.Bytes, InactiveEntries: s.InactiveEntries, InactiveBytes: s.InactiveBytes, Evicted: s.Evicted, Lookups: map[string]uint64{}}
	for r, n := range s.Lookups {
		out.Lookups[cache.Result(r).String()] = n
	}
	return out
}

func (is *Issuer) config(logger *slog.Logger) issuer.Config {
	return issuer.Config{Name: is.Name, Issuer: is.ID, IntrospectionEndpoint: is.Endpoint, Auth: is.ClientAuth.auth(), Prefixes: is.Prefixes,
		Hint: is.Hint, MaxAgeHint: is.MaxAgeHint, Quirks: is.Quirks, Timeout: is.Timeout, Leeway: is.Leeway, Skew: is.Skew, Logger: logger,
		TLS: issuer.TLS{CAFile: is.CA, CertFile: is.ClientAuth.CertFile, KeyFile: is.ClientAuth.KeyFile}}
}

func (a *ClientAuth) auth() issuer.ClientAuth {
	switch a.Method {
	case "client_secret_basic":
		return issuer.ClientSecretBasic(a.ClientID, a.Secret.Resolve)
	case "client_secret_post":
		return issuer.ClientSecretPost(a.ClientID, a.Secret.Resolve)
	case "private_key_jwt":
		return issuer.PrivateKeyJWT(a.ClientID, a.Audience, a.sign)
	case "tls_client_auth":
		return issuer.TLSClientAuth(a.ClientID)
	case "bearer":
		return issuer.Bearer(a.Secret.Resolve)
	}
	return issuer.None() // written, or nobody asks but callers with credentials of their own
}

func (a *ClientAuth) sign() (issuer.Sign, error) {
	key, err := a.PrivateKey.Resolve()
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner([]byte(key[0]), a.Alg, a.KeyID)
	if err != nil {
		return nil, err
	}
	return signer.Assert, nil
}

func (c *Config) introspectionConfig(v door.Verifier) introspection.Config {
	d := introspection.Config{Verifier: v, Paths: c.Introspection.Paths}
	if c.Introspection.Forward {
		d.Forward = forwardPolicy
	}
	for _, caller := range c.Introspection.Callers {
		d.Callers = append(d.Callers, introspection.Caller{Name: caller.Policy.Name, ClientID: caller.ClientID, Secrets: caller.Secret.Resolve, Claims: caller.Claims})
	}
	return d
}

// introspectionDoor also reads the keys with which the door signs and encrypts.
func (c *Config) introspectionDoor(v door.Verifier) (*introspection.Door, error) {
	d := c.introspectionConfig(v)
	var err error
	if d.Sign, err = c.Introspection.Signing.sign(); err != nil {
		return nil, fmt.Errorf("introspection: signing: %w", err)
	}
	for i := range d.Callers {
		if d.Callers[i].Encrypt, err = c.Introspection.Callers[i].Encrypt.encrypt(); err != nil {
			return nil, fmt.Errorf("introspection: caller %q: encryption: %w", d.Callers[i].Name, err)
		}
	}
	return introspection.New(d)
}

func (c *Config) forwardAuthConfig(v door.Verifier, dropped func(header string)) forwardauth.Config {
	d := c.ForwardAuth
	return forwardauth.Config{Verifier: v, Profile: forwardauth.Profile(d.Profile), Headers: d.Headers, OnUnheaderable: dropped,
		Trusted: d.Trusted, TrustAll: d.Listen.Network == "unix", PathPrefix: d.PathPrefix, Realm: d.Realm}
}

// openDecisions opens the decision log anew, also where a file of it has been moved away.
func (p *parts) openDecisions(a *App) error {
	c := observe.LogConfig{All: p.config.DecisionLog.Decisions == "all", Secret: a.digests, Metrics: a.metrics, Log: p.logger}
	if !p.config.DeploymentSecret.IsZero() {
		secret, err := p.config.DeploymentSecret.Resolve()
		if err != nil {
			return fmt.Errorf("deployment_secret: %w", err)
		}
		c.Secret = []byte(secret[0])
	}
	var sink io.Writer
	switch to := p.config.DecisionLog.To; to {
	case "none":
		return nil
	case "stdout":
		sink = a.stdout
	case "stderr":
		sink = a.stderr
	default:
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return fmt.Errorf("decision_log.to: %w", err)
		}
		sink, p.sink = f, f
	}
	var err error
	p.decisions, err = observe.NewDecisionLog(sink, c)
	return err
}

// shared is a secret that every instance has, or one of this process where there is no deployment secret.
func (p *parts) shared(a *App) []byte {
	if p.config.DeploymentSecret.IsZero() {
		return a.digests
	}
	secret, err := p.config.DeploymentSecret.Resolve()
	if err != nil {
		return a.digests // openDecisions reported it
	}
	return []byte(secret[0])
}

// drop gives up what p holds and next does not.
func (p *parts) drop(next *parts) {
	if p.canaries.stop != nil {
		p.canaries.stop()
	}
	if p.hearing != nil && p.hearing.stop != nil {
		p.hearing.stop()
	}
	if p.decisions != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := p.decisions.Close(ctx); err != nil {
			p.logger.Warn("the decision log could not be written to its end", "error", err)
		}
	}
	if p.sink != nil {
		_ = p.sink.Close()
	}
	for _, one := range p.clients {
		if one == nil || next != nil && slices.Contains(next.clients, one) {
			continue
		}
		if one.stop != nil {
			one.stop()
		}
	}
}

// locked lets one goroutine write at a time: old and new parts share a stream for an instant.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

// Write writes p whole.
func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
