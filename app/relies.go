package app

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/revocation"
)

// Assumption is one that a configuration relies on, by its number in docs/assumptions.md.
type Assumption struct {
	ID  string `json:"id"`
	Why string `json:"why"`
}

// Assumptions are what c takes for granted, in the order of docs/assumptions.md.
func (c *Config) Assumptions() (all []Assumption) {
	add := func(id, format string, args ...any) { all = append(all, Assumption{id, fmt.Sprintf(format, args...)}) }
	feeds := c.covering()
	for i := range c.Issuers {
		is := &c.Issuers[i]
		if feed := feeds[is.Name]; feed != "" {
			add("A1", "issuer %s: feed %s extends answers, so introspection must know of a revocation within settle (%v)%s", is.Name, feed, is.Settle, c.unwatched(is.Name))
		}
	}
	if c.Cache.L2 != nil {
		add("A2", "a shared store (cache.l2): the clocks of its hosts differ by at most %v", cache.DefaultSkew)
	}
	if c.Revocation.Bus != nil {
		add("A2", "a shared bus (revocation.bus): the clocks of its nodes differ by at most %v", revocation.DefaultSkew)
	}
	for i := range c.Issuers {
		add("A2", "issuer %s: exp, nbf and iat are read by our clock, so its clocks differ from ours by at most skew (%v)", c.Issuers[i].Name, c.Issuers[i].Skew)
	}
	add("A3", "every bound is a time: when this host sleeps or is paused, one of its clocks tells")
	for i := range c.Issuers {
		is := &c.Issuers[i]
		if s := c.stream(feeds[is.Name], is.Name); s != nil {
			add("A4", "issuer %s: it puts %s into feed %s, each before a heartbeat that is %v younger%s", is.Name, strings.Join(s.Covers, ", "), s.Name, s.Lag, c.unwatched(is.Name))
		}
	}
	if c.Revocation.Bus != nil {
		add("A5", "revocation.bus: %s keeps what it acknowledged, also through a failover", strings.TrimPrefix(c.Revocation.Bus.engine().path, "revocation.bus."))
	}
	if d := c.ForwardAuth; d != nil && d.Listen.Network == "unix" {
		add("A6", "forward_auth: whoever may connect to its socket overwrites the forwarded headers")
	} else if d != nil {
		add("A6", "forward_auth: the gateways in trusted_proxies overwrite the forwarded headers")
	}
	for i := range c.Issuers {
		if is := &c.Issuers[i]; is.introspects() {
			add("A7", "issuer %s: what caches between it and us says so in Age", is.Name)
		}
	}
	for i := range c.Issuers {
		switch is := &c.Issuers[i]; {
		case !is.introspects():
			add("A8", "issuer %s: only it has the keys of its key set, and their signatures tell the truth", is.Name)
		case c.canaryOf(is.Name) == nil:
			add("A8", "issuer %s: its introspection tells the truth; no canary of it would show a lie", is.Name)
		default:
			add("A8", "issuer %s: its introspection tells the truth", is.Name)
		}
	}
	if c.hearsOf() {
		for i := range c.Issuers {
			add("A9", "issuer %s: no token lives longer than max_token_life (%v), after which what was denied is forgotten", c.Issuers[i].Name, c.Issuers[i].MaxTokenLife)
		}
	}
	return all
}

// canaryOf is the canary of an issuer, or nil.
func (c *Config) canaryOf(issuer string) *Canary {
	if i := slices.IndexFunc(c.Canaries, func(n Canary) bool { return n.Issuer == issuer }); i >= 0 {
		return &c.Canaries[i]
	}
	return nil
}

// unwatched says that no canary revokes at an issuer, so that nothing measures what is assumed of its revocations.
func (c *Config) unwatched(issuer string) string {
	if n := c.canaryOf(issuer); n != nil && n.RevokeEvery > 0 {
		return ""
	}
	return "; no canary revokes there, so nothing would show it broken"
}

// stream is the stream of an issuer of that name, or nil.
func (c *Config) stream(name, issuer string) *StreamIn {
	if c.Events != nil && name != "" {
		for i := range c.Events.Streams {
			if s := &c.Events.Streams[i]; s.Name == name && s.Issuer == issuer {
				return s
			}
		}
	}
	return nil
}

// Promises are what each policy and caller may rely on, one line each.
func (c *Config) Promises() (all []string) {
	add := func(what, name string, f watchword.Freshness) {
		line := fmt.Sprintf("%s %s: a token is refused at most %v after its server calls it inactive (max_staleness)", what, name, f.MaxStaleness)
		switch {
		case f.MaxStaleness == watchword.UntilExpiry:
			line = fmt.Sprintf("%s %s: a revoked token is accepted until it expires, unless somebody tells (until_expiry)", what, name)
		case f.MaxStaleness == 0:
			line = fmt.Sprintf("%s %s: a token is refused as soon as its server calls it inactive: it is asked every time (max_staleness 0)", what, name)
		}
		if f.StaleIfError > 0 {
			line += fmt.Sprintf(", and %v later while that cannot answer (stale_if_error)", f.StaleIfError)
		}
		all = append(all, line)
	}
	for i := range c.Policies {
		add("policy", c.Policies[i].Policy.Name, c.Policies[i].Policy.Freshness)
	}
	if d := c.Introspection; d != nil {
		for i := range d.Callers {
			add("caller", d.Callers[i].Policy.Name, d.Callers[i].Policy.Freshness)
		}
		if d.Forward {
			add("callers", "with credentials of their own", c.Freshness)
		}
	}
	return all
}

// answerBytes is about what an answer takes in memory, for an estimate of how many are held at most.
const answerBytes = 1 << 10

// Demand is how often an issuer must be asked about tokens in use while its covering feed is silent.
type Demand struct {
	Issuer       string  `json:"issuer"`
	Feed         string  `json:"feed"`
	Tokens       int64   `json:"tokens"`                  // in use at once: each is asked about as soon as its bound is over
	MaxStaleness float64 `json:"max_staleness_seconds"`   // the shortest bound of whoever accepts its tokens
	MaxAge       float64 `json:"max_age_seconds"`         // the shortest, too
	Without      float64 `json:"without_feed_per_second"` // Tokens / MaxStaleness
	With         float64 `json:"with_feed_per_second"`    // Tokens / MaxAge
	Allowed      float64 `json:"allowed_per_second"`      // by revocation.reask_per_second and guard.rate, on one instance
	EveryRequest bool    `json:"every_request"`           // somebody's max_staleness is 0: each request of theirs is a question besides
	Alone        bool    `json:"cannot_be_asked"`         // it does not introspect: nothing replaces the feed
	Rate         int     `json:"guard_rate"`
	Reask        int     `json:"reask_per_second"`
	Lag          float64 `json:"proof_age_at_most_seconds"` // how old the proof becomes between two verifications that we ask for; 0: we do not
	Shared       bool    `json:"shared"`                    // by cache.l2: the whole fleet asks once
}

// Demands are those of every issuer whose answers a feed extends. tokens is how many of one issuer are in use at once;
// 0: as many as cache.max_bytes holds, about.
func (c *Config) Demands(tokens int64) (all []Demand) {
	if tokens <= 0 {
		tokens = c.Cache.MaxBytes / answerBytes
	}
	feeds := c.covering()
	for i := range c.Issuers {
		is := &c.Issuers[i]
		s := c.stream(feeds[is.Name], is.Name)
		if s == nil {
			continue
		}
		d := Demand{Issuer: is.Name, Feed: s.Name, Tokens: tokens, Rate: is.Guard.Rate, Reask: c.Revocation.ReaskPerSecond, Alone: !is.introspects(), Shared: c.Cache.L2 != nil}
		d.Allowed = float64(min(d.Rate, d.Reask))
		if s.managed() {
			d.Lag = (s.Lag + s.Every).Seconds()
		}
		for _, f := range c.boundsFor(is.Name) {
			if f.MaxStaleness == watchword.UntilExpiry {
				continue
			}
			if age := (f.Covered() - f.StaleIfError).Seconds(); d.MaxAge == 0 || age < d.MaxAge {
				d.MaxAge = age
			}
			switch staleness := f.MaxStaleness.Seconds(); {
			case staleness == 0:
				d.EveryRequest = true
			case d.MaxStaleness == 0 || staleness < d.MaxStaleness:
				d.MaxStaleness = staleness
			}
		}
		if d.MaxStaleness > 0 {
			d.Without, d.With = float64(tokens)/d.MaxStaleness, float64(tokens)/d.MaxAge
		}
		all = append(all, d)
	}
	return all
}

// boundsFor are the bounds of whoever accepts tokens of an issuer, tiers included.
func (c *Config) boundsFor(issuer string) (all []watchword.Freshness) {
	for _, p := range c.accepting(issuer) {
		all = append(all, p.Freshness)
		for i := range p.Tiers {
			all = append(all, p.Tiers[i].Freshness)
		}
	}
	return all
}

// String is d in words, a line for each thing to know.
func (d Demand) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, "  "+format+"\n", args...) }
	fmt.Fprintf(&b, "issuer %s: if feed %s falls silent\n", d.Issuer, d.Feed)
	if d.Alone {
		say("nobody can be asked: every token is unavailable once max_staleness (%s) has passed since the last proof", seconds(d.MaxStaleness))
		return b.String()
	}
	if d.EveryRequest {
		say("max_staleness is 0 for some: each of their requests is a question, with the feed and without")
	}
	if d.MaxStaleness == 0 {
		return b.String()
	}
	say("without it  %s tokens / max_staleness %s = %s questions a second", thousands(float64(d.Tokens)), seconds(d.MaxStaleness), thousands(d.Without))
	say("with it     %s tokens / max_age %s = %s questions a second", thousands(float64(d.Tokens)), seconds(d.MaxAge), thousands(d.With))
	allowed := fmt.Sprintf("allowed     %s a second (the less of guard.rate %s and revocation.reask_per_second %s)", thousands(d.Allowed), thousands(float64(d.Rate)), thousands(float64(d.Reask)))
	switch {
	case d.Without > d.Allowed:
		say("%s: not enough for %.0f%% of the tokens, the coldest: unavailable", allowed, math.Ceil(100*(1-d.Allowed/d.Without)))
		say("to bear it  raise both to %s if the server can answer that, or max_staleness to %s", thousands(d.Without), seconds(math.Ceil(float64(d.Tokens)/d.Allowed)))
	default:
		say("%s: enough, if the server can answer that", allowed)
	}
	if d.Lag >= d.MaxStaleness {
		say("its proof is up to %s old (lag + verify_every), which max_staleness %s does not bear: it extends only part of the time", seconds(d.Lag), seconds(d.MaxStaleness))
	}
	if d.Shared {
		say("in all: hosts share answers (cache.l2), and each is allowed that much")
	} else {
		say("on each instance: without cache.l2 every host asks for itself")
	}
	return b.String()
}

func seconds(s float64) string { return time.Duration(s * float64(time.Second)).String() }

// thousands is n rounded up, with commas.
func thousands(n float64) string {
	text := fmt.Sprintf("%.0f", math.Ceil(n))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
