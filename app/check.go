package app

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// check finds what is wrong between keys: what is missing together, contradicts, or would be read and do nothing.
func (c *Config) check(r *reader) {
	c.checkIssuers(r)
	c.checkFreshness(r)
	c.checkCache(r)
	c.checkL2(r)
	c.checkBus(r)
	c.checkPolicies(r)
	c.checkIntrospection(r)
	c.checkForwardAuth(r)
	c.checkEvents(r)
	c.checkOperators(r)
	c.checkCanaries(r)
	c.checkListeners(r)
	if b := c.Revocation.MaxBytes; b > 0 && b < revocation.MinBytes {
		r.wrong(r.at("revocation.max_bytes"), "is too small to hold anything", "write at least 64KiB")
	}
	if r.has("decision_log.decisions") && c.DecisionLog.To == "none" {
		r.inert("decision_log.decisions", "no decision is written", "remove it, or write where to")
	}
	if c.DecisionLog.To != "" && !slices.Contains(logTargets, c.DecisionLog.To) {
		c.DecisionLog.To = r.file(c.DecisionLog.To)
	}
	c.warn()
}

// inert reports a key that would be read and do nothing.
func (r *reader) inert(path, because, fix string) {
	if r.has(path) {
		r.wrong(r.at(path), "has no effect: "+because, fix)
	}
}

// unique reports a name that was given before.
func (r *reader) unique(path, name string, seen map[string]string) {
	if first, twice := seen[name]; twice && name != "" {
		r.wrong(r.at(path), "is also the name of "+first, "give each a name of its own")
		return
	}
	seen[name] = path[:strings.LastIndex(path, ".")]
}

func (c *Config) checkIssuers(r *reader) {
	names := map[string]string{}
	for i := range c.Issuers {
		path, is := fmt.Sprintf("issuers[%d]", i), &c.Issuers[i]
		r.unique(path+".name", is.Name, names)
		endpoint := r.has(path + ".introspection_endpoint")
		if !endpoint && !r.has(path+".issuer") {
			r.silent(r.at(path), "has neither introspection_endpoint nor issuer: nobody could be asked", "write introspection_endpoint, or issuer for its endpoint to be discovered")
		}
		asked := is.Endpoint
		if !endpoint || !is.introspects() {
			asked = is.ID
		}
		plainHTTP := strings.HasPrefix(asked, "http:")
		if plainHTTP {
			r.inert(path+".tls", "it is asked over http", "remove it, or write https")
		}
		c.checkClientAuth(r, path, is, plainHTTP)
		c.checkJWT(r, path, is)
		checkGuard(r, path, is)
		c.checkResponse(r, path, is)
	}
}

// authKeys says which keys each method takes: the required ones, then the optional ones after the bar.
var authKeys = map[string]string{
	"client_secret_basic": "client_id client_secret |",
	"client_secret_post":  "client_id client_secret |",
	"private_key_jwt":     "client_id private_key | kid alg audience",
	"tls_client_auth":     "client_id cert key |",
	"bearer":              "token |",
	"none":                "|",
}

func (c *Config) checkClientAuth(r *reader, path string, is *Issuer, plainHTTP bool) {
	auth := path + ".client_auth"
	forwards := c.Introspection != nil && c.Introspection.Forward
	if !is.introspects() {
		r.inert(auth, "it does not introspect, so nobody is asked", "remove it, or write introspection_endpoint")
	} else if !r.has(auth) && !(forwards && c.ForwardAuth == nil) {
		r.silent(place{auth, r.at(path).node}, "is missing", "say how we authenticate to it; {method: none} if not at all")
	}
	r.methodKeys(auth, &is.ClientAuth, r.has(path+".issuer"))
	if is.ClientAuth.Method != "tls_client_auth" {
		return
	}
	if forwards {
		r.silent(r.at(auth+".method"), "does not go with forward_caller_auth: our certificate would vouch for every caller", "choose another method, or write callers")
	}
	if plainHTTP {
		r.silent(r.at(auth+".method"), "needs https: over http there is no certificate", "write an https URL, or another method")
	}
}

// methodKeys finds keys that the method lacks, or does not use, and fills in its defaults. named: there is an issuer
// that the audience may default to.
func (r *reader) methodKeys(auth string, a *ClientAuth, named bool) {
	takes, known := authKeys[a.Method]
	if !known {
		return
	}
	required, optional, _ := strings.Cut(takes, "|")
	for _, e := range clientAuthKeys.keys {
		switch p := auth + "." + e.name; {
		case e.name == "method":
		case slices.Contains(strings.Fields(required), e.name):
			if !r.has(p) {
				r.silent(place{p, r.at(auth).node}, "is missing: "+a.Method+" needs it", e.hint)
			}
		case !slices.Contains(strings.Fields(optional), e.name):
			if r.has(p) {
				r.silent(r.at(p), "has no effect: "+a.Method+" does not use it", "remove it, or write another method")
			}
		}
	}
	if a.Method != "private_key_jwt" {
		return
	}
	if a.Alg == "" {
		a.Alg = "RS256"
	}
	if a.Audience == "" && !named && !r.has(auth+".audience") {
		r.silent(place{auth + ".audience", r.at(auth).node}, "is missing: there is no issuer to take its place", "write issuer or audience")
	}
}

// checkFreshness lets what a policy or caller leaves out fall back, key by key, and finds a max_age below the
// max_staleness that it then works with.
func (c *Config) checkFreshness(r *reader) {
	top := "freshness"
	inUse := c.Introspection != nil && c.Introspection.Forward
	each := func(path string, f *watchword.Freshness) {
		for _, b := range []struct {
			key      string
			own, top *time.Duration
		}{
			{"max_staleness", &f.MaxStaleness, &c.Freshness.MaxStaleness},
			{"max_age", &f.MaxAge, &c.Freshness.MaxAge},
			{"stale_if_error", &f.StaleIfError, &c.Freshness.StaleIfError},
		} {
			if !r.has(path + "." + b.key) {
				*b.own = *b.top
			}
		}
		staleness, age := r.has(path+".max_staleness"), r.has(path+".max_age")
		if f.MaxStaleness == watchword.UntilExpiry {
			r.inert(path+".max_age", "max_staleness is until_expiry", "remove one of the two")
			f.MaxAge = 0 // as long as max_staleness
			return
		}
		switch {
		case r.bad(path+".max_staleness") || r.bad(top+".max_staleness") || r.bad(top+".max_age"):
		case !age && !r.has(top+".max_age"):
		case !age && !staleness:
			inUse = true // both from the top: reported there
		case f.MaxAge < f.MaxStaleness && age:
			r.below(path+".max_age", f.MaxStaleness)
		case f.MaxAge < f.MaxStaleness:
			r.wrong(r.at(path+".max_staleness"), fmt.Sprintf("is longer than the max_age %v that it works with (%s.max_age)", f.MaxAge, top), "lower it, or write a max_age of at least "+f.MaxStaleness.String()+" beside it")
		}
	}
	for i := range c.Policies {
		path := fmt.Sprintf("policies[%d]", i)
		each(path+".freshness", &c.Policies[i].Policy.Freshness)
		c.checkTiers(r, path, &c.Policies[i].Policy)
	}
	if c.Introspection != nil {
		for i := range c.Introspection.Callers {
			each(fmt.Sprintf("doors.introspection.callers[%d].freshness", i), &c.Introspection.Callers[i].Policy.Freshness)
		}
	}
	if f := c.Freshness; r.has(top+".max_age") && f.MaxStaleness != watchword.UntilExpiry && f.MaxAge < f.MaxStaleness && (inUse || r.has(top+".max_staleness")) {
		r.below(top+".max_age", f.MaxStaleness)
	}
}

// checkTiers lets what a tier leaves out fall back to its policy, and finds bounds that would loosen.
func (c *Config) checkTiers(r *reader, policy string, p *watchword.Policy) {
	for i := range p.Tiers {
		path, f := fmt.Sprintf("%s.tiers[%d].freshness", policy, i), &p.Tiers[i].Freshness
		if !slices.ContainsFunc(c.Issuers, func(is Issuer) bool { return is.Selectors["tenant"] != "" }) {
			r.inert(fmt.Sprintf("%s.tiers[%d].when.tenant", policy, i), "no issuer says which claim names the tenant", "write selector_claims: {tenant: …} for the issuer")
		}
		age := p.Freshness.MaxAge
		if age == 0 {
			age = max(p.Freshness.MaxStaleness, watchword.DefaultMaxAge)
		}
		for _, b := range []struct {
			key      string
			own, top *time.Duration
		}{{"max_staleness", &f.MaxStaleness, &p.Freshness.MaxStaleness}, {"max_age", &f.MaxAge, &age}, {"stale_if_error", &f.StaleIfError, &p.Freshness.StaleIfError}} {
			switch at := path + "." + b.key; {
			case !r.has(at):
				*b.own = *b.top
			case *b.own > *b.top && !r.bad(at):
				r.wrong(r.at(at), fmt.Sprintf("is above the policy's %v: a tier can only tighten", *b.top), "lower it, or raise the policy's and write a tier for all others")
			}
		}
		if f.MaxStaleness == watchword.UntilExpiry {
			r.inert(path+".max_age", "max_staleness is until_expiry", "write a max_staleness that can be kept, or remove it")
		}
		if r.has(path+".max_age") && f.MaxAge < f.MaxStaleness && !r.bad(path+".max_age") && !r.bad(path+".max_staleness") {
			r.below(path+".max_age", f.MaxStaleness)
		}
	}
}

func (r *reader) below(path string, staleness time.Duration) {
	r.wrong(r.at(path), fmt.Sprintf("is below the max_staleness %v that it works with: the promise %v would never be used", staleness, staleness), "write at least "+staleness.String()+", lower max_staleness, or remove max_age")
}

// bounds are the bounds of everything that asks.
func (c *Config) bounds() (all []watchword.Freshness) {
	for _, p := range c.accepting("") {
		all = append(all, p.Freshness)
	}
	return all
}

// accepts reports whether tokens of issuer are accepted by p.
func accepts(p *watchword.Policy, issuer string) bool {
	return len(p.Issuers) == 0 || slices.Contains(p.Issuers, issuer)
}

// accepting are the policies, and those of callers, by which tokens of an issuer are accepted; empty: of any.
func (c *Config) accepting(issuer string) (all []*watchword.Policy) {
	add := func(p *watchword.Policy) {
		if issuer == "" || accepts(p, issuer) {
			all = append(all, p)
		}
	}
	for i := range c.Policies {
		add(&c.Policies[i].Policy)
	}
	if d := c.Introspection; d != nil {
		for i := range d.Callers {
			add(&d.Callers[i].Policy)
		}
		if d.Forward {
			add(&watchword.Policy{Freshness: c.Freshness})
		}
	}
	return all
}

func (c *Config) checkCache(r *reader) {
	all := c.bounds()
	if len(all) > 0 && !slices.ContainsFunc(all, func(f watchword.Freshness) bool { return f.MaxStaleness > 0 }) {
		const because = "max_staleness is 0 everywhere, so the AS is asked every time"
		if c.Cache.InactiveTTL > 0 {
			r.inert("cache.inactive.ttl", because, "remove it")
		}
		r.inert("cache.refresh_ahead", because, "remove it")
	}
}

// checkWhom finds issuers that do not exist, and pairs between which the choice would be one of chance.
func (c *Config) checkWhom(r *reader, path string, accepted []string) {
	var names []string
	for _, is := range c.Issuers {
		names = append(names, is.Name)
	}
	for i, name := range accepted {
		if name != "" && !slices.Contains(names, name) {
			fix := "issuers are: " + strings.Join(names, ", ")
			if near := nearest(name, names); near != "" {
				fix = "did you mean " + near + "?"
			}
			r.wrong(r.at(fmt.Sprintf("%s.issuers[%d]", path, i)), "is the name of no issuer", fix)
		}
	}
	owner := map[string]string{}
	for _, is := range c.Issuers {
		if len(accepted) > 0 && !slices.Contains(accepted, is.Name) {
			continue
		}
		claims := is.Prefixes
		if len(claims) == 0 {
			claims = []string{""}
		}
		for _, prefix := range claims {
			other, taken := owner[prefix]
			owner[prefix] = is.Name
			switch {
			case !taken || other == is.Name:
			case prefix == "":
				r.silent(r.at(path), fmt.Sprintf("accepts the issuers %s and %s, and neither says how its tokens look", other, is.Name), "write tokens for one of them, or accept only one")
			default:
				r.silent(r.at(path), fmt.Sprintf("accepts the issuers %s and %s, whose tokens both begin with %q", other, is.Name, prefix), "give each a prefix of its own, or accept only one")
			}
		}
	}
}

func (c *Config) checkPolicies(r *reader) {
	names := map[string]string{}
	for i := range c.Policies {
		path := fmt.Sprintf("policies[%d]", i)
		r.unique(path+".name", c.Policies[i].Policy.Name, names)
		c.checkWhom(r, path, c.Policies[i].Policy.Issuers)
		if p := &c.Policies[i].Policy; p.DangerouslyHold && p.Freshness.StaleIfError == 0 && !r.bad(path+".freshness.stale_if_error") {
			r.inert(path+".dangerously_hold", "stale_if_error bounds it, and is 0", "write how long in stale_if_error, or remove it")
		}
		c.checkReach(r, path, &c.Policies[i].Policy)
		c.checkRecheck(r, path, &c.Policies[i].Policy)
	}
	if r.has("doors") && !r.has("doors.forward_auth") && r.has("policies") {
		r.silent(r.at("policies"), "has no effect: no door uses policies", "add doors.forward_auth, or remove them (callers of the introspection door are policies of their own)")
	}
}

func (c *Config) checkIntrospection(r *reader) {
	d, path := c.Introspection, "doors.introspection"
	if r.has("doors") && d == nil && c.ForwardAuth == nil && !r.has("doors.events") {
		r.silent(r.at("doors"), "opens no door", "write introspection, forward_auth or both")
	}
	if d == nil {
		return
	}
	r.socketMode(path, d.Listen, &d.SocketMode)
	switch callers := r.has(path + ".callers"); {
	case callers && d.Forward:
		r.silent(r.at(path+".callers"), "has no effect: forward_caller_auth lets the AS decide who may ask", "keep one of the two")
	case !callers && !d.Forward:
		r.silent(r.at(path), "lets nobody ask", "write callers, or forward_caller_auth: true")
	}
	if d.Forward && len(c.Issuers) > 1 {
		r.silent(r.at(path+".forward_caller_auth"), fmt.Sprintf("needs exactly one issuer, and there are %d: a caller's credential is for one AS only", len(c.Issuers)), "write callers, or keep one issuer")
	}
	if d.Forward && len(c.Issuers) == 1 && !c.Issuers[0].introspects() {
		r.silent(r.at(path+".forward_caller_auth"), "needs an issuer that introspects: there is nobody to show a caller's credential to", "write callers")
	}
	if d.Forward {
		r.inert(path+".signing", "forward_caller_auth does not tell for whom to sign", "write callers, or remove it")
	}
	names := map[string]string{}
	for i := range d.Callers {
		c.checkCaller(r, fmt.Sprintf("%s.callers[%d]", path, i), &d.Callers[i], names)
	}
}

func (c *Config) checkCaller(r *reader, path string, caller *Caller, names map[string]string) {
	has := func(key string) bool { return r.has(path + "." + key) }
	basic, bearer := has("client_id") || has("client_secret"), has("name") || has("bearer")
	switch {
	case basic && bearer:
		r.silent(r.at(path), "mixes two ways to authenticate", "keep client_id with client_secret, or name with bearer")
	case basic && !(has("client_id") && has("client_secret")):
		r.silent(r.at(path), "has only one of client_id and client_secret", "write both")
	case bearer && !(has("name") && has("bearer")):
		r.silent(r.at(path), "has only one of name and bearer", "write both")
	case !basic && !bearer:
		r.silent(r.at(path), "cannot authenticate", "write client_id with client_secret, or name with bearer")
	}
	key := ".name"
	if caller.ClientID != "" {
		caller.Policy.Name, key = caller.ClientID, ".client_id"
	}
	r.unique(path+key, caller.Policy.Name, names)
	caller.Policy.Relay = true
	c.checkWhom(r, path, caller.Policy.Issuers)
	c.checkReach(r, path, &caller.Policy)
	if !r.has("doors.introspection.signing") {
		r.inert(path+".encryption", "signing is absent, and what is encrypted must be signed first", "write doors.introspection.signing, or remove it")
	}
}

func (c *Config) checkForwardAuth(r *reader) {
	d, path := c.ForwardAuth, "doors.forward_auth"
	if d == nil {
		return
	}
	r.socketMode(path, d.Listen, &d.SocketMode)
	if d.Profile != "envoy" {
		r.inert(path+".path_prefix", "only profile envoy takes the path from the request line", "remove it, or write profile: envoy")
	}
	switch trusted := r.has(path + ".trusted_proxies"); {
	case trusted && d.Listen.Network == "unix":
		r.silent(r.at(path+".trusted_proxies"), "has no effect: on a unix socket every peer is trusted, and socket_mode says who may connect", "remove it")
	case !trusted && d.Listen.Network == "tcp":
		r.silent(place{path + ".trusted_proxies", r.at(path).node}, "is missing: whoever reaches this address could say what was asked", "write the addresses of your gateways, such as [127.0.0.1/32], or listen on a unix socket")
	}
	if !r.has("policies") {
		r.silent(r.at(path), "has no policies: it would refuse every request", "write policies; one without match is for all requests")
	}
}

func (r *reader) socketMode(door string, l Listen, mode *uint32) {
	if l.Network == "tcp" {
		r.inert(door+".socket_mode", "it listens on TCP", "remove it, or listen on unix:/absolute/path")
	}
	if l.Network == "unix" && !r.has(door+".socket_mode") {
		*mode = 0o660
	}
}

// checkListeners finds two that would want one address.
func (c *Config) checkListeners(r *reader) {
	type bound struct {
		path string
		on   Listen
	}
	all := []bound{{"admin.listen", c.Admin}}
	if c.Introspection != nil {
		all = append(all, bound{"doors.introspection.listen", c.Introspection.Listen})
	}
	if c.ForwardAuth != nil {
		all = append(all, bound{"doors.forward_auth.listen", c.ForwardAuth.Listen})
	}
	if c.Events != nil {
		all = append(all, bound{"doors.events.listen", c.Events.Listen})
	}
	for i, one := range all {
		for _, other := range all[:i] {
			if one.on.collides(other.on) {
				r.wrong(r.at(one.path), "is taken by "+other.path, "give each listener an address of its own")
			}
		}
	}
}

// collides reports whether l and o cannot both be listened on. Port 0 is any free one.
func (l Listen) collides(o Listen) bool {
	if l.Network != o.Network || l.Network == "" {
		return false
	}
	if l.Network == "unix" {
		return l.Address == o.Address
	}
	lh, lp, _ := net.SplitHostPort(l.Address)
	oh, op, _ := net.SplitHostPort(o.Address)
	return lp == op && lp != "0" && (covers(lh, oh) || covers(oh, lh))
}

// covers reports whether listening on address a takes b too: "" and :: are every address, 0.0.0.0 every IPv4 one.
func covers(a, b string) bool {
	if a == "localhost" {
		a = "127.0.0.1"
	}
	if b == "localhost" {
		b = "127.0.0.1"
	}
	x, y := net.ParseIP(a), net.ParseIP(b)
	return a == "" || x.Equal(y) || x.IsUnspecified() && (x.To4() == nil || y.To4() != nil)
}
