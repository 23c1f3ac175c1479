package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door/admin"
	"github.com/watchword-dev/watchword/door/events"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/jose"
	"github.com/watchword-dev/watchword/observe"
	"github.com/watchword-dev/watchword/revocation"
)

// ledgerIssuers is what the ledger must know of the issuers.
func (c *Config) ledgerIssuers() (all []revocation.Issuer) {
	for i := range c.Issuers {
		is := &c.Issuers[i]
		one := revocation.Issuer{Name: is.Name, ID: is.ID, Settle: is.Settle, Skew: is.Skew, MaxTokenLife: is.MaxTokenLife, Leeway: is.Leeway, Selectors: is.Selectors}
		if s := c.stream(is.Covering, is.Name); s != nil {
			one.Keys = s.Keys
		}
		if keep := c.keep(); keep > 0 && keep < forever-time.Hour {
			one.Remember = keep + maxTimeout + is.Settle + is.Skew
		}
		one.Exempt = !c.hearsOf() || c.untilExpiry(is.Name) // nothing can have been missed, or those words accept it
		all = append(all, one)
	}
	return all
}

// untilExpiry reports whether somebody accepts tokens of that issuer for as long as they live.
func (c *Config) untilExpiry(issuer string) bool {
	return slices.ContainsFunc(c.accepting(issuer), func(p *watchword.Policy) bool { return p.Freshness.MaxStaleness == watchword.UntilExpiry })
}

// hearsOf reports whether anything says what is revoked.
func (c *Config) hearsOf() bool {
	return c.Events != nil || len(c.Operators) > 0 || c.Revocation.Log != "" || c.Revocation.Bus != nil
}

// openLedger makes the ledger, which outlives every reload.
func (a *App) openLedger(c *Config, logger *slog.Logger) (err error) {
	key, previous, err := c.ledgerKeys()
	if err != nil {
		return err
	}
	a.ledger, err = revocation.New(revocation.Config{Issuers: c.ledgerIssuers(), Logger: logger, Folder: c.Revocation.Log, MaxBytes: c.Revocation.MaxBytes,
		Key: key, Previous: previous,
		Observe: func(e *revocation.Event, outcome revocation.Outcome) {
			a.metrics.Revocation(e, outcome)
			if outcome == revocation.Applied {
				a.recent.heard(e)
				if feed := a.configured(c).disproves(e, a.ledger.Coverage(e.Issuer)); feed != "" {
					a.metrics.Disproven(feed)
					logger.Error("a covering feed brought an event after it had proven that nothing of that time was missing", "feed", feed, "issuer", e.Issuer)
				}
			}
		},
		Jumped:   func(by time.Duration) { a.metrics.ClockJumped(by) },
		OnForget: func(issuer string, n int, _ time.Time) { a.metrics.Forgot(issuer, n) }})
	a.publisher = a.ledger
	return err
}

func (a *App) lookAtLedger() observe.LedgerStats {
	s := a.ledger.Stats()
	return observe.LedgerStats{Bytes: s.Bytes, OperatorBytes: s.OperatorBytes, MaxBytes: s.MaxBytes}
}

// proven is until when each covering feed proves what it covers.
func (a *App) proven() map[string]time.Time {
	all := map[string]time.Time{}
	if now := a.now.Load(); now != nil {
		for issuer, feed := range now.config.covering() {
			if c := a.ledger.Coverage(issuer); !c.Through.IsZero() {
				all[feed] = c.Through
			}
		}
	}
	return all
}

// covering is the feed that may extend, by issuer.
func (c *Config) covering() map[string]string {
	all := map[string]string{}
	if c.Events != nil {
		for i := range c.Events.Streams {
			s := &c.Events.Streams[i]
			if is := c.issuerNamed(s.Issuer); is != nil && is.Covering == s.Name && len(s.misses()) == 0 {
				all[s.Issuer] = s.Name
			}
		}
	}
	return all
}

// proving is what each covering feed is, and what it claims, by issuer.
func (c *Config) proving() map[string]string {
	all := map[string]string{}
	for issuer, name := range c.covering() {
		s := c.stream(name, issuer)
		all[issuer] = fmt.Sprintf("%q %q %q %q %q %q %q %q %q %v", s.Name, s.Transmitter, s.JWKS, s.Delivery, s.Path, s.Endpoint, s.Audience, s.Covers, s.Keys, s.Lag)
	}
	return all
}

// beginAnew is a gap of every issuer that has another covering feed since old, or one that claims something else: what
// happened before it was listened to, it does not know of, and a proof of it would extend what was asked then.
func (a *App) beginAnew(c, old *Config) {
	before, to := old.proving(), counted{a.publisher, c.covering(), a.metrics.Gap}
	for issuer, now := range c.proving() {
		if before[issuer] != now {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = to.Lapse(ctx, issuer, "the configuration names another covering feed, or lets it cover otherwise") // what the bus does not take now, it takes before any proof
			cancel()
		}
	}
}

// outlived says once, and counts each time, that a token of is lives longer than its denials.
func (a *App) outlived(is *Issuer, logger *slog.Logger) func(life time.Duration) {
	var once sync.Once
	return func(life time.Duration) {
		a.metrics.Outlives(is.Name)
		once.Do(func() {
			logger.Warn("a token lives longer than max_token_life: what is denied of it is forgotten while it lives", "issuer", is.Name, "lives", life.Round(time.Second),
				"max_token_life", is.MaxTokenLife, "fix", "raise max_token_life of the issuer to the longest that it gives")
		})
	}
}

// disproves is the covering feed that claimed, by proven, to have brought everything of a time of which it brings e only
// now; empty: none did. Clocks that differ and whole seconds do not count.
func (c *Config) disproves(e *revocation.Event, proven watchword.Coverage) (feed string) {
	is := c.issuerNamed(e.Issuer)
	if is == nil || e.Way != "ssf" || e.Who != c.covering()[e.Issuer] || e.At.IsZero() || proven.Through.IsZero() {
		return ""
	}
	if sigma := time.Second + is.Skew; e.At.Add(-sigma).After(proven.Since) && e.At.Add(sigma).Before(proven.Through) {
		return e.Who
	}
	return ""
}

// counted is a Publisher whose gaps are counted.
type counted struct {
	revocation.Publisher
	feeds map[string]string // by issuer
	gap   func(feed, kind string)
}

// Lapse counts the gap and forwards it.
func (c counted) Lapse(ctx context.Context, issuer, why string) error {
	c.gap(c.feeds[issuer], observe.GapStream)
	return c.Publisher.Lapse(ctx, issuer, why)
}

// hearing is the events door, with what runs beside it.
type hearing struct {
	*events.Door
	endpoints []*revocationEndpoint
	stop      context.CancelFunc // nil: nothing runs
}

// run keeps streams and endpoints up to date until ctx ends.
func (h *hearing) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Door.Run(ctx)
	}()
	for _, one := range h.endpoints {
		one.follow(ctx)
	}
	<-done
}

// revocationEndpoint is where an issuer revokes.
type revocationEndpoint struct {
	client *issuer.Client
	logger *slog.Logger
	now    atomic.Pointer[string]
}

func (e *revocationEndpoint) at() string {
	if p := e.now.Load(); p != nil {
		return *p
	}
	return ""
}

// follow discovers the endpoint now and every hour, and more often while that fails. It returns when ctx ends, or at
// once where there is nothing to discover.
func (e *revocationEndpoint) follow(ctx context.Context) {
	if e.client == nil {
		return
	}
	for failures := 0; ; {
		wait := time.Hour
		if where, err := e.client.RevocationEndpoint(ctx); err == nil {
			e.now.Store(&where)
			failures = 0
		} else if ctx.Err() == nil {
			wait = time.Second << min(failures, 6)
			wait -= time.Duration(rand.Float64() * float64(wait/2))
			failures++
			e.logger.Warn("where revocations go is not discovered", "error", err, "again_in", wait.Round(time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// signals is what reads events about an issuer.
func (is *Issuer) signals(sender string, audience []string) *revocation.Signals {
	s := &revocation.Signals{Issuer: is.Name, Sender: sender, Audience: audience, Skew: is.Skew, Declared: is.declared()}
	for _, name := range []string{is.ID, sender} {
		if name != "" {
			s.Names = append(s.Names, name)
		}
	}
	return s
}

// verifying says what is wrong with an envelope in the words of RFC 8935.
func verifying(verify func(ctx context.Context, compact string) (watchword.Claims, error)) events.Verify {
	return func(ctx context.Context, envelope string) (watchword.Claims, error) {
		claims, err := verify(ctx, envelope)
		bad, is := errors.AsType[*jose.Error](err)
		if !is || bad.Fault == jose.KeysUnavailable {
			return claims, err
		}
		code := revocation.InvalidRequest
		switch bad.Fault {
		case jose.BadAlgorithm, jose.UnknownKey:
			code = revocation.InvalidKey
		case jose.Forged:
			code = revocation.AuthenticationFailed
		}
		return claims, &revocation.Refusal{Code: code, Text: bad.Cause.Error()}
	}
}

// webHosts are the hosts of URLs that an operator wrote.
func webHosts(urls ...string) (hosts []string) {
	for _, text := range urls {
		if u, err := url.Parse(text); err == nil && u.Hostname() != "" {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

// hears makes the events door of c. clients are of its issuers, in order; secret keys what nodes share.
func (c *Config) hears(clients []*client, to revocation.Publisher, ledger *revocation.Ledger, verifier *watchword.Verifier, metrics *observe.Metrics, logger *slog.Logger, secret []byte) (*hearing, error) {
	d, h := c.Events, new(hearing)
	find := func(name string) *client {
		for _, one := range clients {
			if one.section.Name == name {
				return one
			}
		}
		return nil
	}
	config := events.Config{Publisher: to, Heard: metrics.Heard, Logger: logger, StateKey: secret}
	for _, l := range d.Logouts {
		one := find(l.Issuer)
		config.Logouts = append(config.Logouts, events.Logout{Path: l.Path, Signals: one.section.signals(one.section.ID, l.Audience), Verify: verifying(one.keys.VerifyLogoutToken)})
	}
	for i := range d.Streams {
		s, err := c.streamOf(&d.Streams[i], find(d.Streams[i].Issuer), logger)
		if err != nil {
			return nil, fmt.Errorf("doors.events.ssf[%d]: %w", i, err)
		}
		config.Streams = append(config.Streams, s)
	}
	for i := range d.Webhooks {
		w := &d.Webhooks[i]
		config.Webhooks = append(config.Webhooks, events.Webhook{Path: w.Path, Signals: find(w.Issuer).section.signals("", nil), Secrets: w.Secret.Resolve, Mapping: w.mapping()})
	}
	for i, v := range d.Revokes {
		one := find(v.Issuer)
		web, err := issuer.NewWeb(issuer.WebConfig{Hosts: webHosts(one.section.ID, one.section.Endpoint, one.section.Revocation), CAFile: one.section.CA})
		if err != nil {
			return nil, fmt.Errorf("doors.events.revoke[%d]: %w", i, err)
		}
		end := &revocationEndpoint{logger: logger.With("issuer", v.Issuer)}
		if end.now.Store(&one.section.Revocation); one.section.Revocation == "" {
			end.client = one.Client
			h.endpoints = append(h.endpoints, end)
		}
		config.Revokes = append(config.Revokes, events.Revoke{Path: v.Path, Signals: one.section.signals("", nil), Client: web, Endpoint: end.at,
			TokenID: ledger.TokenID, Ask: asking(verifier, revokePolicy(v.Issuer))})
	}
	for _, g := range d.Globals {
		config.Globals = append(config.Globals, events.Global{Path: g.Path, Signals: find(g.Issuer).section.signals("", nil), Secrets: g.Bearer.Resolve, Tenant: g.Tenant})
	}
	var err error
	h.Door, err = events.New(config)
	return h, err
}

func (c *Config) streamOf(s *StreamIn, one *client, logger *slog.Logger) (events.Stream, error) {
	keys, err := one.keys, error(nil)
	if s.JWKS != "" {
		keys, err = jose.NewKeys(jose.KeysConfig{
			Fetch: func(ctx context.Context) ([]byte, time.Time, error) {
				return one.KeySet(ctx, s.JWKS, jose.DefaultKeysMaxAge)
			},
			Failed: func(err error, again time.Time) {
				logger.Warn("the key set of a transmitter cannot be fetched", "stream", s.Name, "error", err, "again_in", time.Until(again).Round(time.Second))
			}})
	}
	if err != nil {
		return events.Stream{}, err
	}
	_, covering := c.covering()[s.Issuer]
	out := events.Stream{Name: s.Name, Signals: one.section.signals(s.Transmitter, s.Audience), Verify: verifying(keys.VerifySET), Lag: s.Lag,
		Covering: covering && one.section.Covering == s.Name}
	if s.Delivery == "push" {
		out.Path, out.Bearer = s.Path, s.Bearer.Resolve
	}
	if !s.managed() {
		return out, nil
	}
	out.Transmitter, out.Endpoint, out.Every = s.Transmitter, s.Endpoint, s.Every
	if out.Client, err = issuer.NewWeb(issuer.WebConfig{Hosts: webHosts(s.Transmitter), CAFile: one.section.CA}); err != nil {
		return out, err
	}
	if !s.Token.IsZero() {
		out.Token = func(context.Context) ([]string, error) { return s.Token.Resolve() }
		return out, nil
	}
	own, err := one.section.own(s.Name, s.Transmitter, s.TokenEndpoint, &s.ClientAuth)
	if err != nil {
		return out, err
	}
	grant, err := issuer.NewGrant(own, s.TokenEndpoint, s.Scope)
	if err != nil {
		return out, err
	}
	out.Token = func(ctx context.Context) ([]string, error) {
		t, err := grant.Token(ctx)
		return []string{string(t)}, err
	}
	out.Refused = func(token string) { grant.Drop(watchword.Token(token)) }
	return out, nil
}

// revokePolicy is under which policy the revoke door asks whose a token is, in metrics and logs. No file can hold it.
func revokePolicy(issuer string) string { return "revoke\u00a0" + issuer }

// revokers are the policies of the revoke door: whatever the server says now, refresh tokens too.
func (c *Config) revokers() (all []watchword.Policy) {
	if c.Events != nil {
		seen := map[string]bool{}
		for _, v := range c.Events.Revokes {
			if !seen[v.Issuer] {
				all = append(all, watchword.Policy{Name: revokePolicy(v.Issuer), Issuers: []string{v.Issuer}, Relay: true})
			}
			seen[v.Issuer] = true
		}
	}
	return all
}

// asking asks the Verifier, as every door does: what is wrong with a token is an answer, and a peer that asks about too
// many strings that are nothing learns no more.
func asking(verifier *watchword.Verifier, policy string) func(ctx context.Context, peer string, token watchword.Token, as *watchword.Credential) (*watchword.Answer, error) {
	nothing, err := watchword.ParseAnswer([]byte(`{"active":false}`), watchword.Evidence{})
	if err != nil {
		panic(err) // not reached: it is one
	}
	return func(ctx context.Context, peer string, token watchword.Token, as *watchword.Credential) (*watchword.Answer, error) {
		d := verifier.Verify(ctx, watchword.Request{Door: "events", Caller: policy, Token: token, Credential: as, Peer: peer})
		switch {
		case d.Answer != nil:
			return d.Answer, nil
		case d.Reason == watchword.MalformedToken, d.Reason == watchword.UnknownIssuer, d.Reason == watchword.TooManyUnknown, d.Reason == watchword.Revoked:
			return nothing, nil
		case d.Err != nil:
			return nil, d.Err
		}
		return nil, errors.New(d.Reason.String())
	}
}

// listen starts what runs beside the events door, as long as it serves. The caller holds mu.
func (a *App) listen() {
	now := a.now.Load()
	if a.live == nil || now.hearing == nil || now.hearing.stop != nil {
		return
	}
	var ctx context.Context
	ctx, now.hearing.stop = context.WithCancel(a.live)
	a.asking.Go(func() { now.hearing.run(ctx) })
}

// operators is the admin API, beside what every admin listener has.
func (c *Config) operators(to revocation.Publisher, ledger *revocation.Ledger, memory *admin.Memory, metrics *observe.Metrics, audit *slog.Logger, rest http.Handler, more ...admin.Endpoint) (http.Handler, error) {
	if len(c.Operators) == 0 {
		return rest, nil
	}
	config := admin.Config{Publisher: to, TokenID: ledger.TokenID, Held: ledger.Held, Heard: metrics.Heard, Audit: audit, Selectors: map[string][]string{}, Memory: memory, More: more}
	for i := range c.Issuers {
		config.Selectors[c.Issuers[i].Name] = c.Issuers[i].declared()
	}
	for _, o := range c.Operators {
		config.Operators = append(config.Operators, admin.Operator{Name: o.Name, Secrets: o.Bearer.Resolve, Issuers: o.Issuers, Tenants: o.Tenants})
	}
	door, err := admin.New(config)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			door.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	}), nil
}
