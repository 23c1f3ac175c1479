package app

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// relying is a file with everything that assumes something; edits change it.
func relying(edits ...string) string {
	return strings.NewReplacer(edits...).Replace(`issuers:
  - {name: main, issuer: "https://as.example", introspection_endpoint: "https://as.example/i", client_auth: {method: none}, covering: s, settle: 3s, guard: {rate: 1000}}
  - {name: keys, issuer: "https://keys.example", introspection_endpoint: none, jwt: {mode: local_first}, tokens: {prefix: ey}}
freshness: {max_staleness: 30s, stale_if_error: 1m}
cache: {max_bytes: 100MiB, l2: {redis: {address: "127.0.0.1:6379"}}}
revocation: {bus: {nats: {url: "nats://127.0.0.1:4222"}}, reask_per_second: 400}
deployment_secret: {env: S}
policies:
  - {name: orders, issuers: [main], require: {audience: [a]}, freshness: {max_staleness: 20s}, tiers: [{when: {client: [batch]}, freshness: {max_staleness: 10s, max_age: 5m}}]}
  - {name: keys, issuers: [keys], require: {audience: [a]}, freshness: {max_staleness: until_expiry, stale_if_error: 0}}
doors:
  forward_auth: {listen: "127.0.0.1:1", trusted_proxies: [127.0.0.1/32]}
  events: {listen: "127.0.0.1:2", ssf: [{name: s, issuer: main, transmitter: "https://as.example", audience: a, path: /s, bearer: {env: B}, token: {env: T}, endpoint: "https://w.example/s", lag: 2s, covers: [logout, token, user, client], keys: [sub]}]}
admin: {listen: "127.0.0.1:3"}
canary: [{issuer: main, client_auth: {method: none}, token_endpoint: "https://as.example/t", revoke_every: 0}]
`)
}

func TestAssumptionsOfAConfiguration(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	told := func(text string) string {
		var b strings.Builder
		for _, a := range accepted(t, text).Assumptions() {
			fmt.Fprintf(&b, "%s: %s\n", a.ID, a.Why)
		}
		return b.String()
	}
	const want = `A1: issuer main: feed s extends answers, so introspection must know of a revocation within settle (3s); no canary revokes there, so nothing would show it broken
A2: a shared store (cache.l2): the clocks of its hosts differ by at most 1s
A2: a shared bus (revocation.bus): the clocks of its nodes differ by at most 1s
A2: issuer main: exp, nbf and iat are read by our clock, so its clocks differ from ours by at most skew (2s)
A2: issuer keys: exp, nbf and iat are read by our clock, so its clocks differ from ours by at most skew (2s)
A3: every bound is a time: when this host sleeps or is paused, one of its clocks tells
A4: issuer main: it puts logout, token, user, client into feed s, each before a heartbeat that is 2s younger; no canary revokes there, so nothing would show it broken
A5: revocation.bus: nats keeps what it acknowledged, also through a failover
A6: forward_auth: the gateways in trusted_proxies overwrite the forwarded headers
A7: issuer main: what caches between it and us says so in Age
A8: issuer main: its introspection tells the truth
A8: issuer keys: only it has the keys of its key set, and their signatures tell the truth
A9: issuer main: no token lives longer than max_token_life (24h0m0s), after which what was denied is forgotten
A9: issuer keys: no token lives longer than max_token_life (24h0m0s), after which what was denied is forgotten
`
	if got := told(relying()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, c := range []struct {
		edits      []string
		has, lacks string // separated by bars
	}{
		{[]string{", revoke_every: 0", ", revoke_every: 1m"}, "A4: issuer main", "no canary"},
		{[]string{", covering: s", "", ", lag: 2s, covers: [logout, token, user, client], keys: [sub]", ""}, "A8: issuer main", "A1:|A4:"},
		{[]string{", client], keys: [sub]", "]"}, "A8: issuer main", "A1:|A4:"}, // it extends nothing
		{[]string{", l2: {redis: {address: \"127.0.0.1:6379\"}}", ""}, "a shared bus", "store"},
		{[]string{"bus: {nats: {url: \"nats://127.0.0.1:4222\"}}, ", ""}, "a shared store", "A5:"},
		{[]string{"canary:", "#"}, "no canary of it would show a lie", "A10"},
		{[]string{`"127.0.0.1:1", trusted_proxies: [127.0.0.1/32]`, `"unix:/run/w.sock"`}, "A6: forward_auth: whoever may connect", "trusted_proxies"},
		{[]string{"  forward_auth: {listen: \"127.0.0.1:1\", trusted_proxies: [127.0.0.1/32]}", "  introspection: {listen: \"127.0.0.1:5\", callers: [{client_id: c, client_secret: {env: C}, issuers: [main]}]}", "policies:\n", "#\n", "  - {name: orders", "  # ", "  - {name: keys, issuers", "  # "}, "A7: issuer main", "A6:"},
	} {
		got := told(relying(c.edits...))
		if !strings.Contains(got, c.has) {
			t.Errorf("%q lacks %s:\n%s", c.edits, c.has, got)
		}
		for _, word := range strings.Split(c.lacks, "|") {
			if strings.Contains(got, word) {
				t.Errorf("%q has %s:\n%s", c.edits, word, got)
			}
		}
	}
	page, err := os.ReadFile("../docs/assumptions.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accepted(t, relying()).Assumptions() {
		if !strings.Contains(string(page), "| "+a.ID+" |") {
			t.Errorf("docs/assumptions.md has no %s", a.ID)
		}
	}
}

// What an authorization server must bear when its covering feed falls silent is reckoned from stated figures.
func TestDemandsOfAConfiguration(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	for name, c := range map[string]struct {
		text   string
		tokens int64
		want   string
	}{
		"more than is allowed, by the cache's size": {relying(), 0, `issuer main: if feed s falls silent
  without it  102,400 tokens / max_staleness 10s = 10,240 questions a second
  with it     102,400 tokens / max_age 5m0s = 342 questions a second
  allowed     400 a second (the less of guard.rate 1,000 and revocation.reask_per_second 400): not enough for 97% of the tokens, the coldest: unavailable
  to bear it  raise both to 10,240 if the server can answer that, or max_staleness to 4m16s
  its proof is up to 12s old (lag + verify_every), which max_staleness 10s does not bear: it extends only part of the time
  in all: hosts share answers (cache.l2), and each is allowed that much
`},
		"enough, and no store": {relying(", l2: {redis: {address: \"127.0.0.1:6379\"}}", "", ", lag: 2s", ", lag: 2s, verify_every: 5s"), 1000, `issuer main: if feed s falls silent
  without it  1,000 tokens / max_staleness 10s = 100 questions a second
  with it     1,000 tokens / max_age 5m0s = 4 questions a second
  allowed     400 a second (the less of guard.rate 1,000 and revocation.reask_per_second 400): enough, if the server can answer that
  on each instance: without cache.l2 every host asks for itself
`},
		"somebody asks every time": {relying("max_staleness: 10s, max_age: 5m", "max_staleness: 0, max_age: 5m", "10MiB", "10MiB"), 1000, `issuer main: if feed s falls silent
  max_staleness is 0 for some: each of their requests is a question, with the feed and without
  without it  1,000 tokens / max_staleness 20s = 50 questions a second
  with it     1,000 tokens / max_age 5m0s = 4 questions a second
  allowed     400 a second (the less of guard.rate 1,000 and revocation.reask_per_second 400): enough, if the server can answer that
  in all: hosts share answers (cache.l2), and each is allowed that much
`},
		"nobody can be asked": {relying("https://as.example/i\", client_auth: {method: none}", "none\", jwt: {mode: local_first}", "canary:", "#", ", guard: {rate: 1000}", "", ", tiers: [{when: {client: [batch]}, freshness: {max_staleness: 10s, max_age: 5m}}]", ""), 1000, `issuer main: if feed s falls silent
  nobody can be asked: every token is unavailable once max_staleness (20s) has passed since the last proof
`},
		"no feed extends": {relying(", covering: s", "", ", lag: 2s, covers: [logout, token, user, client], keys: [sub]", ""), 1000, ""},
	} {
		got := ""
		for _, d := range accepted(t, c.text).Demands(c.tokens) {
			got += d.String()
		}
		if got != c.want {
			t.Errorf("%s: got\n%swant\n%s", name, got, c.want)
		}
	}
}

func TestPromisesOfAConfiguration(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	const want = `policy orders: a token is refused at most 20s after its server calls it inactive (max_staleness), and 1m0s later while that cannot answer (stale_if_error)
policy keys: a revoked token is accepted until it expires, unless somebody tells (until_expiry)
caller c: a token is refused as soon as its server calls it inactive: it is asked every time (max_staleness 0)`
	text := relying("doors:\n", "doors:\n  introspection: {listen: \"127.0.0.1:5\", callers: [{client_id: c, client_secret: {env: C}, issuers: [main], freshness: {max_staleness: 0, stale_if_error: 0}}]}\n")
	if got := strings.Join(accepted(t, text).Promises(), "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
}

// A covering feed proves what is older than its lag; where nobody can be asked, nothing younger can be had.
func TestABoundBelowTheLagCannotBeMet(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	text := relying("https://as.example/i\", client_auth: {method: none}", "none\", jwt: {mode: local_first}", "canary:", "#", ", guard: {rate: 1000}", "", ", tiers: [{when: {client: [batch]}, freshness: {max_staleness: 10s, max_age: 5m}}]", "", ", lag: 2s", ", lag: 20s")
	refused(t, text, "policies[0].freshness.max_staleness", "cannot be met")
	accepted(t, strings.Replace(text, "max_staleness: 20s", "max_staleness: 21s", 1))
}
