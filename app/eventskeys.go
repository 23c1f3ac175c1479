package app

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/watchword-dev/watchword/revocation"
)

// Events is the door for what others know of revocations.
type Events struct {
	Listen     Listen
	SocketMode uint32
	TLS        *TLS
	Logouts    []LogoutIn
	Streams    []StreamIn
	Webhooks   []WebhookIn
	Revokes    []RevokeIn
	Globals    []GlobalIn
}

// LogoutIn receives logout tokens of one issuer.
type LogoutIn struct {
	Issuer, Path string
	Audience     []string
}

// StreamIn receives the events of one SSF transmitter.
type StreamIn struct {
	Name, Issuer, Transmitter, JWKS string
	Delivery                        string // push or poll
	Path, Endpoint                  string
	Bearer, Token                   Secret
	Audience, Covers, Keys          []string
	Lag, Every                      time.Duration
	ClientAuth                      ClientAuth // gets a token for the stream API at TokenEndpoint, where there is no Token
	TokenEndpoint, Scope            string
}

// managed reports whether we use the transmitter's stream API.
func (s *StreamIn) managed() bool { return !s.Token.IsZero() || s.TokenEndpoint != "" }

// WebhookIn receives signed JSON.
type WebhookIn struct {
	Issuer, Path string
	Secret       Secret
	When         map[string][]string
	Map          map[string]string
}

// RevokeIn passes RFC 7009 revocations on.
type RevokeIn struct{ Issuer, Path string }

// GlobalIn receives global token revocations.
type GlobalIn struct {
	Issuer, Path, Tenant string
	Bearer               Secret
}

// Operator may call the admin API.
type Operator struct {
	Name             string
	Bearer           Secret
	Issuers, Tenants []string
}

var (
	ofIssuer  = "Whose tokens, by the name of the issuer."
	wherePath = text("path", "write an absolute path such as /logout/main", pathExact)
	// kinds of revocation that a feed may announce.
	covered = []string{"logout", "token", "user", "client"}
)

var eventsKeys = object([]row[Events]{
	key("listen", listen, func(d *Events) *Listen { return &d.Listen }, listenDoc).required(),
	key("back_channel_logout", list(logoutKeys), func(d *Events) *[]LogoutIn { return &d.Logouts }, "OpenID Connect back-channel logout: logout tokens, posted by the AS. Verified by the issuer's keys."),
	key("ssf", list(streamKeys), func(d *Events) *[]StreamIn { return &d.Streams }, "Security event tokens of an SSF transmitter (CAEP, RISC), by push (RFC 8935) or poll (RFC 8936)."),
	key("webhooks", list(webhookKeys), func(d *Events) *[]WebhookIn { return &d.Webhooks }, "JSON of any shape, signed with a shared secret. docs/revocation.md has the header."),
	key("revoke", list(revokeKeys), func(d *Events) *[]RevokeIn { return &d.Revokes }, "RFC 7009: clients revoke here; it is passed on to the AS with their own credential, and in force here before they hear that it is done."),
	key("global_token_revocation", list(globalKeys), func(d *Events) *[]GlobalIn { return &d.Globals }, "Global token revocation: a user's home says that all tokens of a subject end now."),
	key("tls", optional(tlsInKeys), func(d *Events) **TLS { return &d.TLS }, tlsDoc),
	key("socket_mode", socketMode, func(d *Events) *uint32 { return &d.SocketMode }, modeDoc),
})

var logoutKeys = object([]row[LogoutIn]{
	key("issuer", label, func(l *LogoutIn) *string { return &l.Issuer }, ofIssuer).required(),
	key("path", wherePath, func(l *LogoutIn) *string { return &l.Path }, "Where the AS posts: its backchannel_logout_uri.").required(),
	key("audience", oneOrList(audience), func(l *LogoutIn) *[]string { return &l.Audience }, "One of these must be in aud: the client_id at which the AS has this URI.").required(),
})

var streamKeys = object([]row[StreamIn]{
	key("name", label, func(s *StreamIn) *string { return &s.Name }, "Our name for it, in `covering`, metrics and logs.").required(),
	key("issuer", label, func(s *StreamIn) *string { return &s.Issuer }, ofIssuer).required(),
	key("transmitter", text("URL", "write the transmitter's issuer identifier, an https URL", webURL, noQuery), func(s *StreamIn) *string { return &s.Transmitter }, "The transmitter's issuer identifier: iss of its events.").required(),
	key("jwks_uri", text("URL", "write the https URL of its key set", webURL), func(s *StreamIn) *string { return &s.JWKS }, "Where the transmitter's keys are. Required where it is another than the issuer, whose keys count otherwise."),
	key("audience", oneOrList(audience), func(s *StreamIn) *[]string { return &s.Audience }, "One of these must be in aud.").required(),
	key("delivery", word("push", "poll"), func(s *StreamIn) *string { return &s.Delivery }, "push: the transmitter posts to `path`. poll: we fetch.").or("push"),
	key("path", wherePath, func(s *StreamIn) *string { return &s.Path }, "push: where the transmitter posts."),
	key("bearer", secret(2), func(s *StreamIn) *Secret { return &s.Bearer }, "push: what the transmitter sends as a bearer token. Two during a rotation."),
	key("token", secret(2), func(s *StreamIn) *Secret { return &s.Token }, "Authorizes us at the transmitter's stream API, to set the stream up, verify and poll it. Read again for every request. Absent, with client_auth absent too: the stream is set up there by somebody else."),
	key("client_auth", clientAuthKeys, func(s *StreamIn) *ClientAuth { return &s.ClientAuth }, "Instead of token: gets tokens for the stream API at `token_endpoint` (client_credentials, RFC 6749 §4.4). They are renewed when half their life is over, or when one is refused."),
	key("token_endpoint", text("URL", "write the https URL of the token endpoint", webURL), func(s *StreamIn) *string { return &s.TokenEndpoint }, "With client_auth: https, or http on loopback."),
	key("scope", text("scope", "write the scopes to ask for, such as ssf.manage"), func(s *StreamIn) *string { return &s.Scope }, "With client_auth: of the tokens. Absent: none is asked for."),
	key("endpoint", text("URL", "write the https URL at which the transmitter reaches path", webURL), func(s *StreamIn) *string { return &s.Endpoint }, "push with token or client_auth: the URL at which the transmitter reaches `path`."),
	key("verify_every", duration(time.Second, time.Hour), func(s *StreamIn) *time.Duration { return &s.Every }, "With token or client_auth: how often the stream is verified, and no faster than the transmitter allows.").or("10s"),
	key("covers", list(word(covered...)), func(s *StreamIn) *[]string { return &s.Covers }, "Which kinds of revocation the AS puts into it. Only a feed that covers all of them can extend an answer."),
	key("keys", list(text("claim", "write the name of a claim")), func(s *StreamIn) *[]string { return &s.Keys }, "The claims that its events name. An answer that lacks one of them is never extended."),
	key("lag", duration(0, time.Hour), func(s *StreamIn) *time.Duration { return &s.Lag }, "How far an event may lag a verification event: SSF promises no order. Required of a covering stream."),
})

var webhookKeys = object([]row[WebhookIn]{
	key("issuer", label, func(w *WebhookIn) *string { return &w.Issuer }, ofIssuer).required(),
	key("path", wherePath, func(w *WebhookIn) *string { return &w.Path }, "Where it is posted.").required(),
	key("secret", secret(2), func(w *WebhookIn) *Secret { return &w.Secret }, "Signs the messages, at least 16 bytes. Two during a rotation: either counts.").required(),
	key("when", texts("path to value", "write {type: user.blocked}"), func(w *WebhookIn) *map[string][]string { return &w.When }, "Only messages that have one of these values at each of these paths; others are ignored. Absent: all."),
	key("map", pairs("selector to path", "write {sub: user.id}"), func(w *WebhookIn) *map[string]string { return &w.Map },
		"Where in the message is what: sub, client, session, tenant, jti or a declared selector; id, the message's own identity; at, when it happened. `effect` is deny or revalidate itself, not a path; absent: revalidate.").required(),
})

var revokeKeys = object([]row[RevokeIn]{
	key("issuer", label, func(v *RevokeIn) *string { return &v.Issuer }, ofIssuer).required(),
	key("path", wherePath, func(v *RevokeIn) *string { return &v.Path }, "Where clients revoke.").required(),
})

var globalKeys = object([]row[GlobalIn]{
	key("issuer", label, func(g *GlobalIn) *string { return &g.Issuer }, ofIssuer).required(),
	key("path", wherePath, func(g *GlobalIn) *string { return &g.Path }, "Where it is posted.").required(),
	key("bearer", secret(2), func(g *GlobalIn) *Secret { return &g.Bearer }, "What the caller sends as a bearer token. Two during a rotation.").required(),
	key("tenant", text("tenant", "write the tenant as the AS writes it"), func(g *GlobalIn) *string { return &g.Tenant }, "Only subjects of this tenant. Absent: all."),
})

var operatorKeys = object([]row[Operator]{
	key("name", label, func(o *Operator) *string { return &o.Name }, "Who, in the audit log.").required(),
	key("bearer", secret(2), func(o *Operator) *Secret { return &o.Bearer }, "The operator sends this as a bearer token. Two during a rotation.").required(),
	key("issuers", list(label), func(o *Operator) *[]string { return &o.Issuers }, "Whose tokens, by name. Absent: every issuer's."),
	key("tenants", list(text("tenant", "write a tenant as the AS writes it")), func(o *Operator) *[]string { return &o.Tenants }, "Nothing beyond one of these can be revoked or seen. Absent: everything."),
})

// pairs is a mapping of words to words.
func pairs(what, hint string) kind[map[string]string] {
	s := shape{word: "mapping of " + what, hint: hint, schema: map[string]any{"type": "object", "minProperties": 1, "additionalProperties": map[string]any{"type": "string", "minLength": 1}}}
	many := texts(what, hint)
	return kind[map[string]string]{s, func(r *reader, at place, into *map[string]string) {
		var all map[string][]string
		many.read(r, at, &all)
		for name, values := range all {
			if len(values) != 1 {
				r.silent(at.child(name, at.node), "is a list", hint)
				continue
			}
			if *into == nil {
				*into = map[string]string{}
			}
			(*into)[name] = values[0]
		}
	}}
}

// texts is a mapping of words to a word or a list of them.
func texts(what, hint string) kind[map[string][]string] {
	one := text("word", "write a word")
	value := oneOrList(one)
	s := shape{word: "mapping of " + what, hint: hint, made: func() map[string]any {
		return map[string]any{"type": "object", "minProperties": 1, "additionalProperties": value.jsonSchema()}
	}}
	return kind[map[string][]string]{s, func(r *reader, at place, into *map[string][]string) {
		switch n := at.node; {
		case n == nil || n.Kind == yaml.AliasNode:
			return
		case n.Kind != yaml.MappingNode:
			r.wrong(at, "is "+noun(n)+" where a mapping is expected", hint)
			return
		case len(n.Content) == 0:
			r.silent(at, "is empty", "remove the key, or write what belongs into it")
			return
		}
		out := map[string][]string{}
		for i := 0; i+1 < len(at.node.Content); i += 2 {
			name := at.node.Content[i]
			if name.Kind != yaml.ScalarNode || name.ShortTag() == "!!merge" {
				continue // reported by plain
			}
			spot := at.child(name.Value, at.node.Content[i+1])
			if _, twice := out[name.Value]; twice {
				r.silent(spot, "is written twice", "keep one")
			}
			var values []string
			value.read(r, spot, &values)
			out[name.Value] = values
		}
		*into = out
	}}
}

// selectorClaims is at most four names, each with the claim that tells it.
var selectorClaims = func() kind[map[string]string] {
	k := pairs("selector to claim", "write {tenant: org_id}")
	return kind[map[string]string]{k.shape, func(r *reader, at place, into *map[string]string) {
		k.read(r, at, into)
		if len(*into) > 4 {
			r.silent(at, fmt.Sprintf("names %d selectors", len(*into)), "keep at most four")
		}
		for name := range *into {
			if slices.Contains([]string{"issuer", "token", "jti", "sub", "client", "session", "whole_issuer", "before", "effect", "why", "id", "at", "operator", "limit"}, name) || !keyLike().MatchString(name) {
				r.silent(at.child(name, at.node), "cannot be the name of a selector", "write another word of letters, digits, _ and -")
			}
		}
	}}
}()

// declared are the names of its selector_claims.
func (is *Issuer) declared() []string { return slices.Sorted(maps.Keys(is.Selectors)) }

// mapping is what the door reads messages by.
func (w *WebhookIn) mapping() revocation.Mapping {
	m := revocation.Mapping{When: w.When, Select: maps.Clone(w.Map), ID: w.Map["id"], At: w.Map["at"], Effect: revocation.Revalidate}
	if w.Map["effect"] == "deny" {
		m.Effect = revocation.Deny
	}
	for _, name := range []string{"id", "at", "effect"} {
		delete(m.Select, name)
	}
	return m
}

// issuerNamed is the section of that name, or nil.
func (c *Config) issuerNamed(name string) *Issuer {
	if i := slices.IndexFunc(c.Issuers, func(is Issuer) bool { return is.Name == name }); i >= 0 {
		return &c.Issuers[i]
	}
	return nil
}

// hearsSigned reports whether anything about an issuer comes in by a way that its keys verify.
func (c *Config) hearsSigned(issuer string) bool {
	if c.Events == nil {
		return false
	}
	return slices.ContainsFunc(c.Events.Logouts, func(l LogoutIn) bool { return l.Issuer == issuer }) ||
		slices.ContainsFunc(c.Events.Streams, func(s StreamIn) bool { return s.Issuer == issuer })
}

func (c *Config) checkEvents(r *reader) {
	d, path := c.Events, "doors.events"
	for i := range c.Issuers {
		c.checkCovering(r, fmt.Sprintf("issuers[%d]", i), &c.Issuers[i])
	}
	if d == nil {
		return
	}
	r.socketMode(path, d.Listen, &d.SocketMode)
	if len(d.Logouts)+len(d.Streams)+len(d.Webhooks)+len(d.Revokes)+len(d.Globals) == 0 && !r.bad(path) {
		r.silent(r.at(path), "lets nothing in", "write back_channel_logout, ssf, webhooks, revoke or global_token_revocation")
	}
	paths := map[string]string{}
	where := func(at, p string) {
		if first, twice := paths[p]; twice && p != "" {
			r.wrong(r.at(at), "is also the path of "+first, "give each a path of its own")
		}
		paths[p] = at
	}
	whose := func(at, name string, signed bool) *Issuer {
		is := c.issuerNamed(name)
		switch {
		case is == nil && name != "":
			var names []string
			for _, is := range c.Issuers {
				names = append(names, is.Name)
			}
			r.wrong(r.at(at+".issuer"), "is the name of no issuer", "issuers are: "+strings.Join(names, ", "))
		case is != nil && signed && is.ID == "":
			r.wrong(r.at(at+".issuer"), "has no issuer identifier: whose signature counts could not be told", "write issuer in its section of issuers")
		}
		return is
	}
	for i := range d.Logouts {
		at := fmt.Sprintf("%s.back_channel_logout[%d]", path, i)
		where(at+".path", d.Logouts[i].Path)
		whose(at, d.Logouts[i].Issuer, true)
	}
	names := map[string]string{}
	for i := range d.Streams {
		at, s := fmt.Sprintf("%s.ssf[%d]", path, i), &d.Streams[i]
		r.unique(at+".name", s.Name, names)
		c.checkStream(r, at, s, whose(at, s.Issuer, false))
		where(at+".path", s.Path)
	}
	for i := range d.Webhooks {
		at, w := fmt.Sprintf("%s.webhooks[%d]", path, i), &d.Webhooks[i]
		where(at+".path", w.Path)
		is := whose(at, w.Issuer, false)
		if effect := w.Map["effect"]; effect != "" && effect != "deny" && effect != "revalidate" {
			r.wrong(r.at(at+".map"), "has an effect that is neither deny nor revalidate", "write effect: deny or effect: revalidate")
		}
		if m := w.mapping(); is != nil && r.has(at+".map") {
			if err := m.Validate(is.declared()); err != nil {
				r.silent(r.at(at+".map"), strings.ReplaceAll(err.Error(), "\n", "; "), "correct what it names")
			}
		}
	}
	for i := range d.Revokes {
		at, v := fmt.Sprintf("%s.revoke[%d]", path, i), &d.Revokes[i]
		where(at+".path", v.Path)
		if is := whose(at, v.Issuer, false); is != nil && is.Revocation == "" && is.ID == "" {
			r.silent(r.at(at), "cannot be passed on: the issuer has neither revocation_endpoint nor issuer", "write revocation_endpoint in its section, or issuer for it to be discovered")
		}
	}
	for i := range d.Globals {
		at, g := fmt.Sprintf("%s.global_token_revocation[%d]", path, i), &d.Globals[i]
		where(at+".path", g.Path)
		if is := whose(at, g.Issuer, false); is != nil && g.Tenant != "" && !slices.Contains(is.declared(), "tenant") {
			r.wrong(r.at(at+".tenant"), "cannot be told: the issuer declares no claim that holds a tenant", "write selector_claims: {tenant: …} in its section")
		}
	}
}

func (c *Config) checkStream(r *reader, at string, s *StreamIn, is *Issuer) {
	need := func(key, because, fix string) {
		if !r.has(at + "." + key) {
			r.silent(place{at + "." + key, r.at(at).node}, "is missing: "+because, fix)
		}
	}
	api := r.has(at+".token") || r.has(at+".client_auth")
	if r.has(at + ".client_auth") {
		need("token_endpoint", "client_auth gets tokens there", "write the https URL of the token endpoint")
		r.methodKeys(at+".client_auth", &s.ClientAuth, true)
		switch {
		case r.has(at + ".token"):
			r.silent(r.at(at+".token"), "is a second way to the stream API, beside client_auth", "keep one of the two")
		case s.ClientAuth.Method == "tls_client_auth" && strings.HasPrefix(s.TokenEndpoint, "http:"):
			r.silent(r.at(at+".client_auth.method"), "needs https: over http there is no certificate", "write an https URL, or another method")
		}
	} else {
		for _, key := range []string{"token_endpoint", "scope"} {
			r.inert(at+"."+key, "there is no client_auth", "remove it, or write client_auth")
		}
	}
	if s.Delivery == "poll" {
		if !api {
			need("token", "only a stream API can be polled", "write {file: PATH} or {env: NAME}, or client_auth with token_endpoint")
		}
		for _, key := range []string{"path", "bearer", "endpoint"} {
			r.inert(at+"."+key, "the stream is polled", "remove it, or write delivery: push")
		}
	} else {
		need("path", "the transmitter posts there", "write an absolute path such as /ssf/main")
		need("bearer", "else anybody could post", "write {file: PATH} or {env: NAME}")
		if api {
			need("endpoint", "the transmitter must be told where to post", "write the https URL at which it reaches path")
		} else {
			r.inert(at+".endpoint", "without token or client_auth nobody is told", "remove it, or write one of them")
			r.inert(at+".verify_every", "without token or client_auth nothing can be verified", "remove it, or write one of them")
		}
	}
	if is == nil {
		return
	}
	if s.JWKS == "" && s.Transmitter != is.ID {
		need("jwks_uri", "the transmitter is another than the issuer", "write the URL of the transmitter's key set")
	}
	if is.Covering != s.Name {
		for _, key := range []string{"covers", "keys", "lag"} {
			r.inert(at+"."+key, "it is no covering feed", "remove it, or write covering: "+s.Name+" in the issuer's section")
		}
		return
	}
	need("covers", "what a covering feed covers is the operator's to say", "write a list of "+strings.Join(covered, ", "))
	need("lag", "a covering feed extends only less an assumed lag", "write a duration such as 5s")
	if missing := s.misses(); len(s.Covers) > 0 && len(missing) > 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("issuer %q: covering feed %q does not cover %s, so it extends nothing: it revokes sooner, and every answer still lives for max_staleness only", is.Name, s.Name, strings.Join(missing, ", ")))
	}
}

// misses are the kinds of revocation that s says nothing about. What is revoked so is seen by asking only.
func (s *StreamIn) misses() (kinds []string) {
	for _, kind := range covered {
		if !slices.Contains(s.Covers, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

func (c *Config) checkCovering(r *reader, path string, is *Issuer) {
	if is.Covering == "" {
		return
	}
	var names []string
	if c.Events != nil {
		for _, s := range c.Events.Streams {
			if s.Issuer == is.Name {
				names = append(names, s.Name)
			}
		}
	}
	if !slices.Contains(names, is.Covering) {
		fix := "write an entry of doors.events.ssf for this issuer"
		if len(names) > 0 {
			fix = "its streams are: " + strings.Join(names, ", ")
		}
		r.wrong(r.at(path+".covering"), "is the name of no stream of this issuer", fix)
	}
}

func (c *Config) checkOperators(r *reader) {
	names := map[string]string{}
	for i := range c.Operators {
		path, o := fmt.Sprintf("admin.operators[%d]", i), &c.Operators[i]
		r.unique(path+".name", o.Name, names)
		for n, name := range o.Issuers {
			if is := c.issuerNamed(name); is == nil && name != "" {
				r.wrong(r.at(fmt.Sprintf("%s.issuers[%d]", path, n)), "is the name of no issuer", "write the name of one of issuers")
			}
		}
		for _, is := range c.Issuers {
			if len(o.Tenants) > 0 && (len(o.Issuers) == 0 || slices.Contains(o.Issuers, is.Name)) && !slices.Contains(is.declared(), "tenant") {
				r.silent(r.at(path+".tenants"), "cannot be told: issuer "+is.Name+" declares no claim that holds a tenant", "write selector_claims: {tenant: …} in its section, or name other issuers")
			}
		}
	}
}

// secrets yields every secret of d with its path in the file.
func (d *Events) secrets() iter.Seq2[string, Secret] {
	return func(yield func(string, Secret) bool) {
		if d == nil {
			return
		}
		for i, s := range d.Streams {
			at := fmt.Sprintf("doors.events.ssf[%d].", i)
			if !s.Bearer.IsZero() && !yield(at+"bearer", s.Bearer) || !s.Token.IsZero() && !yield(at+"token", s.Token) {
				return
			}
		}
		for i, w := range d.Webhooks {
			if !w.Secret.IsZero() && !yield(fmt.Sprintf("doors.events.webhooks[%d].secret", i), w.Secret) {
				return
			}
		}
		for i, g := range d.Globals {
			if !g.Bearer.IsZero() && !yield(fmt.Sprintf("doors.events.global_token_revocation[%d].bearer", i), g.Bearer) {
				return
			}
		}
	}
}
