package app

import (
	"net/netip"
	"slices"
	"time"

	"github.com/watchword-dev/watchword"
)

// file is the table: every key of the configuration file.
var file = object([]row[Config]{
	key("issuers", list(issuerKeys), func(c *Config) *[]Issuer { return &c.Issuers },
		"The authorization servers (AS) whose tokens are accepted.").required(),
	key("freshness", freshnessKeys("30s"), func(c *Config) *watchword.Freshness { return &c.Freshness },
		"The promise about revoked tokens. Each key falls back alone: the policy's or caller's, then the one here, then the default."),
	key("cache", cacheKeys, func(c *Config) *Cache { return &c.Cache }, "What is remembered, and what bounds it."),
	key("policies", list(policyKeys), func(c *Config) *[]watchword.Route { return &c.Policies },
		"What the forward_auth door and the middleware require. The first policy that matches decides; a request that none matches is refused."),
	key("doors", doorKeys, self[Config], "Where tokens are checked. At least one is needed.").required(),
	key("log", logKeys, func(c *Config) *Log { return &c.Log }, "What the process says about itself, on stderr."),
	key("decision_log", decisionLogKeys, func(c *Config) *DecisionLog { return &c.DecisionLog },
		"One JSON line for each decision. It holds no token: a keyed fingerprint stands for it."),
	key("deployment_secret", secret(2), func(c *Config) *Secret { return &c.DeploymentSecret },
		"Keys the fingerprints and pseudonyms that leave the process, so that they are the same on every instance and after a restart, and seals what `cache.l2` and `revocation.bus` share. Two during a rotation: the first is used, and what the second sealed is still read. Absent: random for the life of the process."),
	key("admin", adminKeys, self[Config],
		"The listener for operators: /metrics, /healthz, /readyz, and with operators their API. Absent: none."),
	key("revocation", revocationKeys, func(c *Config) *Revocation { return &c.Revocation },
		"What is held against tokens. [docs/revocation.md](revocation.md) says how long, and what a restart keeps."),
	key("canary", list(canaryKeys), func(c *Config) *[]Canary { return &c.Canaries },
		"Tokens of our own: one that lives tells a server that lost its memory from one that revokes; others are revoked, to measure how long that takes."),
})

var revocationKeys = object([]row[Revocation]{
	key("log", folder, func(r *Revocation) *string { return &r.Log },
		"A folder of this process alone, where what is heard is written before it is acknowledged, so that a restart forgets nothing. Absent: memory only."),
	key("max_bytes", size, func(r *Revocation) *int64 { return &r.MaxBytes },
		"Memory for revocations, at least 64KiB. When it is full the oldest are forgotten, and every answer from before them is asked for again; what operators deny is never forgotten and has a quarter.").or("64MiB"),
	key("reask_per_second", integer(1, 1_000_000), func(r *Revocation) *int { return &r.ReaskPerSecond },
		"How many questions a second revocations may cause at one issuer: when the proof of its covering feed is older than half of max_staleness, or an event questions many answers. The hottest tokens come first; a request that finds the rate spent is `unavailable`.").or("500"),
	key("bus", optional(busKeys), func(r *Revocation) **Bus { return &r.Bus },
		"What carries revocations through a fleet: an engine that is there already. It needs deployment_secret, the same on every node."),
})

var label = text("name", "write letters, digits, _ . and -, at most 64",
	like(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`, "is no name"))

var issuerKeys = object([]row[Issuer]{
	key("name", label, func(i *Issuer) *string { return &i.Name }, "Our name for it, in policies, metrics and logs.").required(),
	key("issuer", text("URL", "write its issuer identifier, an https URL", webURL, noQuery), func(i *Issuer) *string { return &i.ID },
		"Its issuer identifier (RFC 8414 §2). Required where the endpoint is discovered; otherwise it tells whose JWT a token is, and an answer that names another iss is refused."),
	key("introspection_endpoint", text("URL, or `none`", "write the https URL of its introspection endpoint", webURLOrNone), func(i *Issuer) *string { return &i.Endpoint },
		"Where it introspects (RFC 7662): https, or http on loopback. Absent: discovered from `issuer` (RFC 8414, OpenID Connect Discovery) at start and every hour. `none`: it does not introspect, and `jwt` decides alone."),
	key("client_auth", clientAuthKeys, func(i *Issuer) *ClientAuth { return &i.ClientAuth },
		"How we authenticate to it. Required unless every door forwards its callers' own credentials."),
	key("tokens", tokensKeys, self[Issuer], "How its tokens look. A token is shown to the issuer with the longest matching prefix, else to the one whose `issuer` a JWT names, else to the one accepted issuer without `tokens`, else to nobody."),
	key("timeout", duration(time.Millisecond, maxTimeout), func(i *Issuer) *time.Duration { return &i.Timeout },
		"Bounds one whole asking, retries included. At most 30s.").or("2s"),
	key("skew", duration(0, time.Hour), func(i *Issuer) *time.Duration { return &i.Skew },
		"How far this AS's clocks may differ from ours: the log warns where its answers show more, and when it signed or revoked something is in doubt by that much. It lengthens no token's life; what is sure of its clock shortens it.").or("2s"),
	key("leeway", duration(0, time.Minute), func(i *Issuer) *time.Duration { return &i.Leeway },
		"Moves nbf, and exp at the forward_auth door and the middleware. At most 60s.").or("0s"),
	key("tls", tlsOutKeys, self[Issuer], "TLS towards it."),
	key("token_type_hint", word("access_token", "none"), func(i *Issuer) *string { return &i.Hint },
		"The hint sent along (RFC 7662 §2.1).").or("access_token"),
	key("max_age_hint", boolean, func(i *Issuer) *bool { return &i.MaxAgeHint },
		"Cache-Control: max-age of its answers lowers max_age for them; no-store is ignored.").or("false"),
	key("quirks", quirkKeys, func(i *Issuer) *watchword.Quirks { return &i.Quirks },
		"Declared departures of its answers from RFC 7662 §2.2."),
	key("jwks_uri", text("URL", "write the https URL of its key set", webURL), func(i *Issuer) *string { return &i.JWKS },
		"Where its public keys are (RFC 7517 §5): https, or http on loopback. Absent: discovered from `issuer`."),
	key("jwt", jwtKeys, func(i *Issuer) *JWT { return &i.JWT }, "Its JWT access tokens (RFC 9068), verified here. [docs/jwt.md](jwt.md) says what that is worth."),
	key("introspection_response", responseKeys, func(i *Issuer) *Response { return &i.Response }, "How it answers."),
	key("settle", duration(0, time.Hour), func(i *Issuer) *time.Duration { return &i.Settle },
		"How long its introspection may lag its own revocations. Matters only where a feed extends.").or("5s"),
	key("max_token_life", duration(time.Minute, 10*365*24*time.Hour), func(i *Issuer) *time.Duration { return &i.MaxTokenLife },
		"How long a token of it may live: what was revoked is held as long.").or("24h"),
	key("selector_claims", selectorClaims, func(i *Issuer) *map[string]string { return &i.Selectors },
		"Claims, besides sub, client_id and sid, by which tokens can be revoked: a name for each of at most four. `tenant` is the one that operators can be held to; `email`, `phone_number`, `device` and the like are what events name."),
	key("revocation_endpoint", text("URL", "write the https URL of its revocation endpoint", webURL), func(i *Issuer) *string { return &i.Revocation },
		"Where it revokes (RFC 7009), for doors.events.revoke: https, or http on loopback. Absent: discovered from `issuer`, if it is on the same host."),
	key("covering", label, func(i *Issuer) *string { return &i.Covering },
		"The one entry of doors.events.ssf whose silence proves that nothing was revoked. Absent: every answer lives for max_staleness."),
	key("guard", guardKeys, func(i *Issuer) *Guard { return &i.Guard }, "What protects it from us, and us from it when it is slow or down. [docs/outages.md](outages.md) says what happens when."),
	key("storm", stormKeys, func(i *Issuer) *Storm { return &i.Storm },
		"When it is no longer believed that it calls tokens inactive: so many known ones turn at once that its storage or our credential failed. Inactive answers are `unavailable` then."),
})

var guardKeys = object([]row[Guard]{
	key("retries", integer(0, 10), func(c *Guard) *int { return &c.Retries }, "How often one question is asked again after a timeout, a reset or a 5xx without Retry-After, at most, within `timeout`.").or("2"),
	key("retry_budget", share, func(c *Guard) *float64 { return &c.RetryBudget }, "How many questions may be asked again, as a share of all.").or("0.1"),
	key("max_in_flight", integer(1, 10_000), func(c *Guard) *int { return &c.MaxInFlight }, "How many may be in the air at once, at most. While it slows down, fewer, but at least a quarter.").or("64"),
	key("rate", integer(1, 1_000_000), func(c *Guard) *int { return &c.Rate }, "Questions a second at most, and so many at once. More wait for their turn, peer by peer; beyond `timeout` they are unavailable.").or("200"),
	key("breaker", breakerKeys, self[Guard], "Stops asking while it does not answer."),
	key("hedge_after", duration(0, maxTimeout), func(c *Guard) *time.Duration { return &c.HedgeAfter }, "Ask a second time if there is no answer until then, within retry_budget. 0: never.").or("0"),
})

var breakerKeys = object([]row[Guard]{
	key("failures", share, func(b *Guard) *float64 { return &b.Failures }, "Share of the last ten seconds' questions that failed, from which on it is left alone.").or("0.5"),
	key("over", integer(1, 1_000_000), func(b *Guard) *int { return &b.Over }, "Among at least so many.").or("20"),
	key("open", duration(100*time.Millisecond, 10*time.Minute), func(b *Guard) *time.Duration { return &b.Open }, "At most so long, at least half of it. Then three questions try.").or("5s"),
})

var stormKeys = object([]row[Storm]{
	key("share", share, func(c *Storm) *float64 { return &c.Share }, "Of its answers about known, unexpired tokens that is inactive.").or("0.3"),
	key("within", duration(time.Second, time.Hour), func(c *Storm) *time.Duration { return &c.Within }, "The window in which they are counted.").or("10s"),
	key("at_least", integer(1, 1_000_000), func(c *Storm) *int { return &c.AtLeast }, "So many known tokens must have turned: fewer are denials one by one, and are honoured.").or("20"),
})

var clientAuthKeys = object([]row[ClientAuth]{
	key("method", word("client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "bearer", "none"),
		func(a *ClientAuth) *string { return &a.Method }, "How. The other keys are those of the method; any other is a mistake.").required(),
	key("client_id", text("client identifier", "write the client_id registered at the AS"), func(a *ClientAuth) *string { return &a.ClientID },
		"Every method but bearer and none."),
	key("client_secret", secret(2), func(a *ClientAuth) *Secret { return &a.Secret },
		"client_secret_basic and client_secret_post. Two during a rotation: the second is tried where the first is refused."),
	key("private_key", secret(1), func(a *ClientAuth) *Secret { return &a.PrivateKey },
		"private_key_jwt: the key in PEM (RFC 7523 §2.2)."),
	key("kid", text("key identifier", "write the key's kid at the AS"), func(a *ClientAuth) *string { return &a.KeyID },
		"private_key_jwt: names the key to the AS. Absent: no kid is sent."),
	key("alg", word("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"), func(a *ClientAuth) *string { return &a.Alg },
		"private_key_jwt: the signature's algorithm. Absent: RS256."),
	key("audience", text("audience", "write what the AS expects as aud"), func(a *ClientAuth) *string { return &a.Audience },
		"private_key_jwt: aud of the assertion. Absent: `issuer`."),
	key("cert", filePath, func(a *ClientAuth) *string { return &a.CertFile }, "tls_client_auth: the certificate in PEM (RFC 8705 §2); read again when it changes."),
	key("key", filePath, func(a *ClientAuth) *string { return &a.KeyFile }, "tls_client_auth: the certificate's key in PEM."),
	key("token", secret(2), func(a *ClientAuth) *Secret { return &a.Secret }, "bearer: the access token with which we introspect. Two during a rotation."),
})

var tokensKeys = object([]row[Issuer]{
	key("prefix", oneOrList(text("prefix", "write how its tokens begin, visible ASCII", like(`^[!-~]+$`, "no token begins like that"))),
		func(i *Issuer) *[]string { return &i.Prefixes }, "How its tokens begin, such as `ory_at_`.").required(),
})

var tlsOutKeys = object([]row[Issuer]{
	key("ca", filePath, func(i *Issuer) *string { return &i.CA }, "The certificates, in PEM, that its certificate must chain to. Absent: the system's.").required(),
})

var quirkKeys = object([]row[watchword.Quirks]{
	key("string_booleans", boolean, func(q *watchword.Quirks) *bool { return &q.StringBooleans }, "`\"active\":\"true\"` is active.").or("false"),
	key("string_numbers", boolean, func(q *watchword.Quirks) *bool { return &q.StringNumbers }, "`\"exp\":\"1700000000\"` is a number.").or("false"),
	key("scope_array", boolean, func(q *watchword.Quirks) *bool { return &q.ScopeArray }, "`\"scope\":[\"a\",\"b\"]` is `\"a b\"`.").or("false"),
})

// freshnessKeys has a default for max_staleness at the top of the file only: elsewhere what is absent falls back.
func freshnessKeys(maxStaleness string) kind[watchword.Freshness] {
	staleness := key("max_staleness", staleness, func(f *watchword.Freshness) *time.Duration { return &f.MaxStaleness },
		"The promise: a check that begins this long after the AS stopped calling a token active never accepts it. 0 asks the AS every time. `until_expiry`, for issuers that do not introspect: no promise, a token is good until its exp.")
	age := key("max_age", duration(0, forever), func(f *watchword.Freshness) *time.Duration { return &f.MaxAge },
		"However healthy everything looks, ask the AS itself again after this. Never below the max_staleness it works with. Default: 10m, or max_staleness if longer.")
	stale := key("stale_if_error", duration(0, forever), func(f *watchword.Freshness) *time.Duration { return &f.StaleIfError },
		"While the AS cannot answer, both bounds grow by this; never past exp; the decision is marked degraded.")
	if maxStaleness != "" {
		staleness, stale = staleness.or(maxStaleness), stale.or("0")
	}
	return object([]row[watchword.Freshness]{staleness, age, stale})
}

var cacheKeys = object([]row[Cache]{
	key("max_bytes", size, func(c *Cache) *int64 { return &c.MaxBytes }, "Memory for active answers.").or("64MiB"),
	key("inactive", inactiveKeys, self[Cache], "Inactive answers, remembered apart so that they displace no active one."),
	key("unknown_tokens", unknownKeys, self[Cache], "What one peer may ask about tokens that turn out to be nothing: only an inactive answer for a token never seen active here is charged. Beyond it: `throttled`."),
	key("refresh_ahead", refreshKeys, self[Cache], "Popular tokens are asked about again before their answer is too old."),
	key("l2", optional(l2Keys), func(c *Cache) **L2 { return &c.L2 }, "Answers shared by the hosts of a fleet, sealed under deployment_secret, which it needs. Slow or gone, it fails and delays nothing."),
})

var inactiveKeys = object([]row[Cache]{
	key("ttl", duration(0, time.Minute), func(c *Cache) *time.Duration { return &c.InactiveTTL },
		"How long an inactive answer serves, at most max_staleness and at most 60s. 0: not at all.").or("0"),
	key("max_bytes", size, func(c *Cache) *int64 { return &c.InactiveMaxBytes }, "Memory for inactive answers.").or("4MiB"),
})

var unknownKeys = object([]row[Cache]{
	key("per_peer", integer(1, 1_000_000), func(c *Cache) *int { return &c.UnknownPerPeer }, "How many a second.").or("100"),
	key("burst", integer(1, 10_000_000), func(c *Cache) *int { return &c.UnknownBurst }, "How many at once.").or("1000"),
})

var refreshKeys = object([]row[Cache]{
	key("after", share, func(c *Cache) *float64 { return &c.RefreshAfter }, "At which share of the bound.").or("0.75"),
	key("min_hits", integer(1, 1_000_000), func(c *Cache) *int { return &c.RefreshMinHits }, "How often an answer must have served to be worth it.").or("2"),
	key("per_second", integer(1, 1_000_000), func(c *Cache) *int { return &c.RefreshPerSecond }, "How many a second at most, for all tokens together.").or("50"),
})

var policyKeys = object([]row[watchword.Route]{
	key("name", label, func(p *watchword.Route) *string { return &p.Policy.Name }, "In metrics and logs.").required(),
	key("match", matchKeys, func(p *watchword.Route) *watchword.Match { return &p.Match }, "Which requests. Absent: all."),
	key("issuers", list(label), func(p *watchword.Route) *[]string { return &p.Policy.Issuers }, "Whose tokens, by name. Absent: every issuer's."),
	key("require", requireKeys, func(p *watchword.Route) *watchword.Policy { return &p.Policy }, "What a token must hold."),
	key("freshness", freshnessKeys(""), func(p *watchword.Route) *watchword.Freshness { return &p.Policy.Freshness }, "As at the top; each key that is absent falls back to the one there."),
	key("on_unavailable", onUnavailable, func(p *watchword.Route) *watchword.OnUnavailable { return &p.Policy.OnUnavailable },
		"What happens when nobody knows, once stale_if_error is spent. deny: 503, never 401. dangerously_allow: a token that was good when last asked about passes, however long ago. dangerously_allow_unknown: so does one that was never asked about, as nobody, with empty identity headers. Never past exp, and never for a revoked or questioned token.").or("deny"),
	key("dangerously_hold", boolean, func(p *watchword.Route) *bool { return &p.Policy.DangerouslyHold },
		"In a storm of inactive answers that is not believed, a token that was good serves on for stale_if_error, instead of 503.").or("false"),
	key("tiers", list(tierKeys), func(p *watchword.Route) *[]watchword.Tier { return &p.Policy.Tiers },
		"Lower bounds for some tokens, chosen by what the AS says of them. All that fit count."),
	key("recheck", recheckKeys, func(p *watchword.Route) *watchword.Recheck { return &p.Policy.Recheck },
		"Asks about tokens whose answer is still fresh. Where the AS cannot answer, the fresh answer serves."),
})

var tierKeys = object([]row[watchword.Tier]{
	key("when", whenKeys, func(t *watchword.Tier) *watchword.When { return &t.When }, "Which tokens: every key that is written must fit.").required(),
	key("freshness", freshnessKeys(""), func(t *watchword.Tier) *watchword.Freshness { return &t.Freshness }, "Each key that is absent falls back to the policy's, and none may be above it.").required(),
})

var whenKeys = object([]row[watchword.When]{
	key("client", list(text("client identifier", "write a client_id")), func(w *watchword.When) *[]string { return &w.Clients }, "client_id is one of these."),
	key("scope", list(scope), func(w *watchword.When) *[]string { return &w.Scopes }, "One of these is in scope."),
	key("audience", list(audience), func(w *watchword.When) *[]string { return &w.Audiences }, "One of these is in aud."),
	key("subject", translated(word("user", "client"), func(v string) watchword.SubjectClass {
		return map[string]watchword.SubjectClass{"user": watchword.UserSubject, "client": watchword.ClientSubject}[v]
	}), func(w *watchword.When) *watchword.SubjectClass { return &w.Subject }, "client: a client on its own account, whose token has no sub or one that is client_id. user: all others."),
	key("tenant", list(text("tenant", "write a tenant as its claim has it")), func(w *watchword.When) *[]string { return &w.Tenants }, "The claim that the issuer's selector_claims.tenant names is one of these."),
})

var recheckKeys = object([]row[watchword.Recheck]{
	key("probability", share, func(c *watchword.Recheck) *float64 { return &c.Probability }, "Which share of the decisions from memory asks the AS all the same. Absent: none."),
	key("on_change", translated(list(word("client_ip", "user_agent")), func(of []string) watchword.Changes {
		return watchword.Changes{ClientIP: slices.Contains(of, "client_ip"), UserAgent: slices.Contains(of, "user_agent")}
	}), func(c *watchword.Recheck) *watchword.Changes { return &c.OnChange },
		"Ask when a token comes from another client address, or another User-Agent, than the one that it was last accepted from. Only keyed digests are remembered, of at most 65,536 tokens."),
})

var onUnavailable = translated(word("deny", "dangerously_allow", "dangerously_allow_unknown"), func(v string) watchword.OnUnavailable {
	o, _ := watchword.ParseOnUnavailable(v)
	return o
})

var matchKeys = object([]row[watchword.Match]{
	key("hosts", list(text("host", "write a host name such as api.example", host)), func(m *watchword.Match) *[]string { return &m.Hosts },
		"Compared without case, port and final dot."),
	key("paths", list(text("path", "write an absolute path such as /orders/*", pathPattern)), func(m *watchword.Match) *[]string { return &m.Paths },
		"The percent-decoded path without query, case-sensitively: exact, or with a final `*` that matches any rest, also an empty one."),
	key("methods", list(text("method", "write a method such as GET", like(`^[A-Z][A-Z0-9_-]*$`, "is no method; they are compared exactly"))),
		func(m *watchword.Match) *[]string { return &m.Methods }, "Compared exactly."),
})

var (
	// A scope is what RFC 6749 §3.3 calls a scope-token.
	scope    = text("scope", "write one scope per entry: visible ASCII without quotes and backslash", like(`^[\x21\x23-\x5B\x5D-\x7E]+$`, "is no single scope"))
	audience = text("audience", "write an audience as the AS writes it in aud")
)

var requireKeys = object([]row[watchword.Policy]{
	key("scopes", list(scope), func(p *watchword.Policy) *[]string { return &p.Scopes }, "All of these."),
	key("audience", list(audience), func(p *watchword.Policy) *[]string { return &p.Audience }, "One of these in aud. Absent: not checked, which is worth a warning."),
	key("delegation", translated(word("allowed", "forbidden"), func(v string) bool { return v == "forbidden" }), func(p *watchword.Policy) *bool { return &p.NoDelegation },
		"forbidden: a token with which somebody acts for its subject (act, RFC 8693 §4.1) is refused as policy. Default: allowed."),
})

var doorKeys = object([]row[Config]{
	key("introspection", optional(introspectionKeys), func(c *Config) **Introspection { return &c.Introspection }, "A drop-in RFC 7662 endpoint for resource servers."),
	key("forward_auth", optional(forwardAuthKeys), func(c *Config) **ForwardAuth { return &c.ForwardAuth }, "For gateways: nginx auth_request, Traefik ForwardAuth, Caddy forward_auth, HAProxy, Envoy's HTTP ext_authz."),
	key("events", optional(eventsKeys), func(c *Config) **Events { return &c.Events }, "Ways in for revocations, from any AS. [docs/revocation.md](revocation.md) has each with an example."),
})

const (
	listenDoc = "address:port, or unix:/absolute/path."
	modeDoc   = "Permissions of the unix socket. Default: \"0660\"."
	tlsDoc    = "Serve TLS (with HTTP/2). Absent: HTTP/1.1 and h2c."
)

var introspectionKeys = object([]row[Introspection]{
	key("listen", listen, func(d *Introspection) *Listen { return &d.Listen }, listenDoc).required(),
	key("path", oneOrList(text("path", "write an absolute path such as /introspect", pathExact)), func(d *Introspection) *[]string { return &d.Paths }, "Where it answers.").or("/introspect"),
	key("callers", list(callerKeys), func(d *Introspection) *[]Caller { return &d.Callers }, "Who may ask; each entry is that caller's policy."),
	key("forward_caller_auth", boolean, func(d *Introspection) *bool { return &d.Forward }, "Instead of callers: each caller's own credential goes to the AS, and its answers serve that credential only. Needs exactly one issuer.").or("false"),
	key("signing", optional(signingKeys), func(d *Introspection) **Signing { return &d.Signing },
		"Sign answers for callers that send `Accept: application/token-introspection+jwt` (RFC 9701). Absent: that header is ignored."),
	key("tls", optional(tlsInKeys), func(d *Introspection) **TLS { return &d.TLS }, tlsDoc),
	key("socket_mode", socketMode, func(d *Introspection) *uint32 { return &d.SocketMode }, modeDoc),
})

var callerKeys = object([]row[Caller]{
	key("client_id", text("client identifier", "write the caller's client_id"), func(c *Caller) *string { return &c.ClientID }, "With client_secret: the caller uses HTTP Basic or the body. Also its name in metrics and logs."),
	key("client_secret", secret(2), func(c *Caller) *Secret { return &c.Secret }, "Two during a rotation: either is accepted."),
	key("name", text("name", "write a name for the caller"), func(c *Caller) *string { return &c.Policy.Name }, "With bearer: its name in metrics and logs."),
	key("bearer", secret(2), func(c *Caller) *Secret { return &c.Secret }, "The caller sends this as a bearer token. Two during a rotation: either is accepted."),
	key("issuers", list(label), func(c *Caller) *[]string { return &c.Policy.Issuers }, "Whose tokens it may ask about, by name. Absent: every issuer's."),
	key("audience", list(audience), func(c *Caller) *[]string { return &c.Policy.Audience }, "aud must hold one of these, else the token is inactive to it. Absent: any."),
	key("claims", list(text("claim", "write the name of a claim", shownClaim)), func(c *Caller) *[]string { return &c.Claims }, "The members shown to it besides active. Absent: all."),
	key("encryption", optional(encryptionKeys), func(c *Caller) **Encryption { return &c.Encrypt },
		"Encrypt its answers, once they are signed: it gets nested JWTs (RFC 9701 §5), and a question without that Accept is invalid_request. Needs signing."),
	key("freshness", freshnessKeys(""), func(c *Caller) *watchword.Freshness { return &c.Policy.Freshness }, "As at the top; each key that is absent falls back to the one there."),
})

var forwardAuthKeys = object([]row[ForwardAuth]{
	key("listen", listen, func(d *ForwardAuth) *Listen { return &d.Listen }, listenDoc).required(),
	key("profile", word("standard", "nginx", "envoy"), func(d *ForwardAuth) *string { return &d.Profile },
		"nginx: only 200, 401 and 403 leave, with X-Watchword-Reason. envoy: method, host and path are those of the request itself.").or("standard"),
	key("headers", headers, func(d *ForwardAuth) *map[string]string { return &d.Headers },
		"Identity headers and the claims they carry. Every one is in every 200, empty where the claim is missing."),
	key("trusted_proxies", list(prefixes), func(d *ForwardAuth) *[]netip.Prefix { return &d.Trusted },
		"The gateways that may ask. Required on TCP; a mistake on a unix socket, where every peer is trusted."),
	key("path_prefix", text("path", "write the path_prefix of Envoy's filter, such as /authz", pathExact, noFinalSlash), func(d *ForwardAuth) *string { return &d.PathPrefix },
		"profile envoy: taken off the front of the path."),
	key("realm", text("realm", "write printable ASCII without quotes and backslash", like(`^[ !#-\[\]-~]+$`, "is no realm")), func(d *ForwardAuth) *string { return &d.Realm },
		"In challenges (RFC 6750 §3). Absent: none."),
	key("tls", optional(tlsInKeys), func(d *ForwardAuth) **TLS { return &d.TLS }, tlsDoc),
	key("socket_mode", socketMode, func(d *ForwardAuth) *uint32 { return &d.SocketMode }, modeDoc),
})

var tlsInKeys = object([]row[TLS]{
	key("cert", filePath, func(t *TLS) *string { return &t.Cert }, "The certificate chain in PEM; read again when it changes.").required(),
	key("key", filePath, func(t *TLS) *string { return &t.Key }, "Its key in PEM.").required(),
})

var logKeys = object([]row[Log]{
	key("level", word("debug", "info", "warn", "error"), func(l *Log) *string { return &l.Level }, "The least that is said. What operators do is said at every level.").or("info"),
	key("format", word("text", "json"), func(l *Log) *string { return &l.Format }, "One line a message: text for people, json for machines.").or("text"),
})

var decisionLogKeys = object([]row[DecisionLog]{
	key("to", text("`stdout`, `stderr`, `none` or file", "write stdout, stderr, none, or a file such as ./decisions.log", logTarget), func(d *DecisionLog) *string { return &d.To }, "Where to. A file is appended to, and opened again on SIGHUP.").or("stdout"),
	key("decisions", word("refused", "all"), func(d *DecisionLog) *string { return &d.Decisions }, "Which of them; refused includes degraded allows.").or("refused"),
})

var adminKeys = object([]row[Config]{
	key("listen", listen, func(c *Config) *Listen { return &c.Admin }, listenDoc).required(),
	key("operators", list(operatorKeys), func(c *Config) *[]Operator { return &c.Operators }, "Who may revoke here, find and purge what is remembered of tokens, and say what a policy does in an outage (`watchword revoke`, `tokens`, `mode`; /v1/…). Absent: nobody."),
})
