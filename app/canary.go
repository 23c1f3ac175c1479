package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/observe"
	"github.com/watchword-dev/watchword/revocation"
)

// Canary are tokens of our own at one issuer.
type Canary struct {
	Issuer, TokenEndpoint, Scope string
	ClientAuth                   ClientAuth
	Every, RevokeEvery           time.Duration // RevokeEvery zero: nothing is revoked
}

var canaryKeys = object([]row[Canary]{
	key("issuer", label, func(n *Canary) *string { return &n.Issuer }, "Whose tokens, by the issuer's name. One canary for an issuer.").required(),
	key("client_auth", clientAuthKeys, func(n *Canary) *ClientAuth { return &n.ClientAuth },
		"How the canary's own client authenticates at the token and the revocation endpoint. It needs the client_credentials grant, and nothing else.").required(),
	key("token_endpoint", text("URL", "write the https URL of its token endpoint", webURL), func(n *Canary) *string { return &n.TokenEndpoint },
		"Where it gets its tokens (RFC 6749 §4.4): https, or http on loopback.").required(),
	key("scope", text("scope", "write the scopes to ask for"), func(n *Canary) *string { return &n.Scope }, "Of its tokens. Absent: none is asked for."),
	key("every", duration(time.Second, time.Hour), func(n *Canary) *time.Duration { return &n.Every },
		"How often the token that lives is asked about. A storm of inactive answers asks at once.").or("10s"),
	key("revoke_every", duration(0, 24*time.Hour), func(n *Canary) *time.Duration { return &n.RevokeEvery },
		"How often a token is revoked at the AS, to measure how long it is accepted here (`watchword_canary_enforcement_seconds`). Needs the issuer's `revocation_endpoint`, written or discovered. 0: never.").or("5m"),
})

// checkCanaries finds canaries of nobody, and two of one issuer.
func (c *Config) checkCanaries(r *reader) {
	seen := map[string]bool{}
	for i := range c.Canaries {
		path, n := fmt.Sprintf("canary[%d]", i), &c.Canaries[i]
		is := c.issuerNamed(n.Issuer)
		switch {
		case n.Issuer == "":
		case is == nil:
			r.wrong(r.at(path+".issuer"), "is the name of no issuer", "write the name of one of issuers")
		case seen[n.Issuer]:
			r.wrong(r.at(path+".issuer"), "has a canary already", "keep one")
		case !is.introspects():
			r.wrong(r.at(path+".issuer"), "does not introspect, so nobody can be asked about the canary", "remove it")
		case n.RevokeEvery > 0 && is.Revocation == "" && is.ID == "":
			r.silent(place{path + ".revoke_every", r.at(path).node}, "has nowhere to revoke", "write the issuer's revocation_endpoint, or its issuer for that to be discovered, or revoke_every: 0")
		}
		seen[n.Issuer] = true
		r.methodKeys(path+".client_auth", &n.ClientAuth, is != nil && is.ID != "")
		if n.ClientAuth.Method == "tls_client_auth" && strings.HasPrefix(n.TokenEndpoint, "http:") {
			r.silent(r.at(path+".client_auth.method"), "needs https: over http there is no certificate", "write an https URL, or another method")
		}
	}
}

// canaryKind is the kind of revocation, among those that a feed may cover, that a canary can make by itself: RFC 7009.
// The others need a user, or somebody who administers the server.
const canaryKind = "token"

// canaryPolicy is under which policy canaries are decided about, in metrics and logs. No file can hold it.
func canaryPolicy(issuer string) string { return "canary\u00a0" + issuer }

// canaryPolicies are the promise of the file's own freshness: what most policies keep.
func (c *Config) canaryPolicies() (all []watchword.Policy) {
	for _, n := range c.Canaries {
		all = append(all, watchword.Policy{Name: canaryPolicy(n.Issuer), Issuers: []string{n.Issuer}, Freshness: c.Freshness, Relay: true})
	}
	return all
}

// own is a client of our own at a token endpoint, beside the one that introspects; id is what its assertions name.
func (is *Issuer) own(name, id, tokenEndpoint string, auth *ClientAuth) (*issuer.Client, error) {
	return issuer.New(issuer.Config{Name: name, Issuer: id, IntrospectionEndpoint: tokenEndpoint, Auth: auth.auth(), Timeout: is.Timeout,
		TLS: issuer.TLS{CAFile: is.CA, CertFile: auth.CertFile, KeyFile: auth.KeyFile}})
}

// canary makes the canary n, whose issuer's client is ask.
func (c *Config) canary(n *Canary, ask *issuer.Client, v *watchword.Verifier, m *observe.Metrics, logger *slog.Logger) (*issuer.Canary, error) {
	is := c.issuerNamed(n.Issuer)
	own, err := is.own(n.Issuer, is.ID, n.TokenEndpoint, &n.ClientAuth)
	if err != nil {
		return nil, err
	}
	config := issuer.CanaryConfig{Issuer: n.Issuer, Ask: ask, Client: own, TokenEndpoint: n.TokenEndpoint, Scope: n.Scope, Every: n.Every, RevokeEvery: n.RevokeEvery,
		Patience: c.Freshness.Covered() + time.Minute, Settle: is.Settle, MaxStaleness: c.Freshness.MaxStaleness, Logger: logger, Broken: m.CanaryBroken(n.Issuer), Looked: m.CanaryLooked(n.Issuer), Refused: m.CanaryRefused(n.Issuer, canaryKind)}
	if n.RevokeEvery > 0 {
		config.Verify = func(ctx context.Context, t watchword.Token) watchword.Decision {
			return v.Verify(ctx, watchword.Request{Door: "canary", Caller: canaryPolicy(n.Issuer), Token: t, Peer: "canary"})
		}
		config.RevocationEndpoint = ask.RevocationEndpoint
		if is.Revocation != "" {
			config.RevocationEndpoint = func(context.Context) (string, error) { return is.Revocation, nil }
		}
	}
	return issuer.NewCanary(config)
}

// canaries are those of one configuration, by issuer.
type canaries struct {
	all  map[string]*issuer.Canary
	stop context.CancelFunc // nil: they do not run
}

// sing runs the canaries, as long as they serve. The caller holds mu.
func (a *App) sing() {
	now := a.now.Load()
	if a.live == nil || now.canaries.stop != nil {
		return
	}
	var ctx context.Context
	ctx, now.canaries.stop = context.WithCancel(a.live)
	for _, one := range now.canaries.all {
		a.asking.Go(func() { one.Run(ctx) })
	}
}

// canaryOf says what the canary of an issuer knows now.
func (a *App) canaryOf(name string) func() (known, alive bool) {
	return func() (known, alive bool) {
		if now := a.now.Load(); now != nil && now.canaries.all[name] != nil {
			return now.canaries.all[name].State()
		}
		return false, false
	}
}

// recent remembers which revocations were heard of lately, so that what they do is not taken for a lie.
type recent struct {
	mu      sync.Mutex
	issuers map[string]*lately
}

type lately struct {
	broad  time.Time // an event about more than one user
	begun  time.Time // of the minute in which narrow counts
	narrow int       // events about one token, session or user
	before int       // in the minute before
}

// explains is how long an event accounts for tokens that turn inactive.
const explains = time.Minute

// heard is told of every event that was applied.
func (h *recent) heard(e *revocation.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.issuers == nil {
		h.issuers = map[string]*lately{}
	}
	one := h.issuers[e.Issuer]
	if one == nil { // of a configured issuer: the ledger refuses others
		one = new(lately)
		h.issuers[e.Issuer] = one
	}
	now := time.Now()
	one.turn(now)
	if e.Token == (revocation.TokenID{}) && e.JTI == "" && e.Selector.Subject == "" && e.Selector.Session == "" {
		one.broad = now
	} else {
		one.narrow++
	}
}

func (l *lately) turn(now time.Time) {
	switch d := now.Sub(l.begun); {
	case d >= 2*explains:
		l.begun, l.before, l.narrow = now, 0, 0
	case d >= explains:
		l.begun, l.before, l.narrow = now, l.narrow, 0
	}
}

// explained reports whether the events of an issuer account for many tokens that turn inactive.
func (h *recent) explained(issuer string, atLeast int) func() bool {
	return func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		one := h.issuers[issuer]
		if one == nil {
			return false
		}
		now := time.Now()
		one.turn(now)
		return !one.broad.IsZero() && now.Sub(one.broad) < explains || one.narrow+one.before >= atLeast
	}
}
