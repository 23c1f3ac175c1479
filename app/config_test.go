package app

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"go.yaml.in/yaml/v4"
)

// base is a correct file with every door; tests add to it and take from it.
const base = `
issuers:
  - name: main
    introspection_endpoint: https://as.example/introspect
    client_auth: {method: none}
policies:
  - name: all
    require: {audience: [api]}
doors:
  introspection:
    listen: 127.0.0.1:8081
    callers:
      - {client_id: orders, client_secret: {env: ORDERS_SECRET}}
  forward_auth:
    listen: unix:/run/watchword/auth.sock
`

// change replaces one text by another in a file, and fails where the first is not there.
func change(t *testing.T, in string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(in, pairs[i]) {
			t.Fatalf("the file does not hold %q", pairs[i])
		}
		in = strings.Replace(in, pairs[i], pairs[i+1], 1)
	}
	return in
}

func mistakes(t *testing.T, text string) Mistakes {
	t.Helper()
	_, r := decode([]byte(text), "/etc/watchword")
	return r.sorted()
}

func accepted(t *testing.T, text string) *Config {
	t.Helper()
	c, r := decode([]byte(text), "/etc/watchword")
	if len(r.mistakes) > 0 {
		t.Fatalf("refused:\n%v\n%s", r.mistakes, text)
	}
	return c
}

// refused asserts that text has exactly one mistake, at path, for a reason that holds what is given.
func refused(t *testing.T, text, path, reason string) Mistake {
	t.Helper()
	ms := mistakes(t, text)
	if len(ms) != 1 || ms[0].Path != path || !strings.Contains(ms[0].Reason, reason) {
		t.Errorf("want one mistake at %s: %s; got:\n%v\nin:\n%s", path, reason, ms, text)
		return Mistake{}
	}
	if ms[0].Fix == "" {
		t.Errorf("%v has no fix", ms[0])
	}
	return ms[0]
}

func TestBaseIsAccepted(t *testing.T) {
	t.Parallel()
	c := accepted(t, base)
	if is := c.Issuers[0]; is.Timeout != 2*time.Second || is.Hint != "access_token" || is.Skew != 2*time.Second || is.Leeway != 0 {
		t.Errorf("defaults of an issuer: %+v", is)
	}
	if want := (Cache{64 << 20, 0, 4 << 20, 100, 1000, 0.75, 2, 50, nil}); c.Cache != want {
		t.Errorf("defaults of the cache: %+v", c.Cache)
	}
	if want := (watchword.Freshness{MaxStaleness: 30 * time.Second}); c.Policies[0].Policy.Freshness != want || c.Introspection.Callers[0].Policy.Freshness != want {
		t.Errorf("freshness falls back to %+v", c.Policies[0].Policy.Freshness)
	}
	if c.ForwardAuth.SocketMode != 0o660 || c.ForwardAuth.Profile != "standard" || !slices.Equal(c.Introspection.Paths, []string{"/introspect"}) {
		t.Errorf("defaults of the doors: %+v %+v", c.ForwardAuth, c.Introspection)
	}
	if c.Log != (Log{"info", "text"}) || c.DecisionLog != (DecisionLog{"stdout", "refused"}) {
		t.Errorf("defaults of the logs: %+v %+v", c.Log, c.DecisionLog)
	}
	if p := c.Introspection.Callers[0].Policy; p.Name != "orders" || !p.Relay {
		t.Errorf("a caller's policy: %+v", p)
	}
}

func TestT9UnknownKeys(t *testing.T) {
	t.Parallel()
	fix := func(text, path, want string) {
		t.Helper()
		if m := refused(t, text, path, "unknown key"); !strings.Contains(m.Fix, want) {
			t.Errorf("fix %q does not say %q", m.Fix, want)
		}
	}
	fix(base+"admn: {listen: 127.0.0.1:1}\n", "admn", "did you mean admin?")
	fix(change(t, base, "    client_auth", "    timout: 2s\n    client_auth"), "issuers[0].timout", "did you mean timeout?")
	fix(base+"max_staleness: 2s\n", "max_staleness", "known as freshness.max_staleness and policies[].freshness.max_staleness")
	fix(change(t, base, "listen: 127.0.0.1:8081", "listen: 127.0.0.1:8081\n    bogus: 1"), "doors.introspection.bogus", "known here: listen, path")
	fix(base+"JSON: {\"a\": 1}\n", "JSON", "known here")
}

func TestT9InertKeys(t *testing.T) {
	t.Parallel()
	inert := func(path, text string) {
		t.Helper()
		refused(t, text, path, "has no effect")
	}
	intro := func(more string) string {
		return change(t, base, "listen: 127.0.0.1:8081", "listen: 127.0.0.1:8081\n    "+more)
	}
	forward := func(more string) string { return base + "    " + more + "\n" }
	inert("doors.introspection.socket_mode", intro(`socket_mode: "0600"`))
	inert("doors.forward_auth.trusted_proxies", forward("trusted_proxies: [127.0.0.1]"))
	inert("doors.forward_auth.path_prefix", forward("path_prefix: /authz"))
	inert("doors.introspection.callers", intro("forward_caller_auth: true"))
	inert("policies", base[:strings.Index(base, "  forward_auth")])
	inert("policies[0].tiers[0].when.tenant", change(t, base, "    require", "    tiers: [{when: {tenant: [acme]}, freshness: {max_staleness: 1s}}]\n    require"))
	inert("policies[0].dangerously_hold", change(t, base, "    require", "    dangerously_hold: true\n    require"))
	inert("cache.refresh_ahead", base+"freshness: {max_staleness: 0}\ncache: {refresh_ahead: {min_hits: 3}}\n")
	inert("cache.inactive.ttl", base+"freshness: {max_staleness: 0}\ncache: {inactive: {ttl: 5s}}\n")
	inert("decision_log.decisions", base+"decision_log: {to: none, decisions: all}\n")
	inert("issuers[0].tls", change(t, base, "https://as.example/introspect", "http://127.0.0.1:1/i\n    tls: {ca: ca.pem}"))
	inert("issuers[0].client_auth.client_id", change(t, base, "{method: none}", "{method: none, client_id: rs}"))
	inert("issuers[0].client_auth.token", change(t, base, "{method: none}", "{method: client_secret_post, client_id: rs, client_secret: {env: A}, token: {env: B}}"))
	inert("issuers[0].client_auth.alg", change(t, base, "{method: none}", "{method: bearer, token: {env: B}, alg: ES256}"))
	main := func(more string) string { return change(t, base, "    client_auth", "    "+more+"\n    client_auth") }
	inert("issuers[0].guard.retry_budget", main("guard: {retries: 0, retry_budget: 0.2}"))
	inert("issuers[0].guard.hedge_after", main("guard: {hedge_after: 2s}"))
	accepted(t, main("guard: {retries: 0, retry_budget: 0.2, hedge_after: 1999ms}"))
	recheck := "    recheck: {probability: 0.1}\n    require"
	inert("policies[0].recheck", change(t, base, "    require", "    freshness: {max_staleness: 0}\n"+recheck))
	accepted(t, change(t, base, "    require", recheck))
	alone := change(t, base, "    introspection_endpoint: https://as.example/introspect\n    client_auth: {method: none}\n",
		"    issuer: https://as.example\n    introspection_endpoint: none\n    jwt: {mode: local_first}\n") + "freshness: {max_staleness: until_expiry}\n"
	for _, key := range []string{"guard: {rate: 10}", "storm: {share: 0.5}", "token_type_hint: none", "max_age_hint: true", "quirks: {scope_array: true}"} {
		inert("issuers[0]."+key[:strings.Index(key, ":")], change(t, alone, "    jwt", "    "+key+"\n    jwt"))
	}
	inert("policies[0].recheck", change(t, alone, "    require", recheck))
}

// Every word that the contract has and this version lacks would be refused by its name. There is none now, so the table
// of the test has one.
func TestT9LaterFeaturesAreRefusedByName(t *testing.T) {
	t.Parallel()
	r := &reader{written: map[string]*yaml.Node{}, faulty: map[string]bool{}}
	object([]row[Log]{key("level", label, func(l *Log) *string { return &l.Level }, "")}, "shape").read(r, place{"log", parsed("{shape: round}")}, new(Log))
	if len(r.mistakes) != 1 || r.mistakes[0].Path != "log.shape" || !strings.Contains(r.mistakes[0].Reason, "not in this version") {
		t.Error(r.mistakes)
	}
}

// Every key that the table knows is refused as later, or set by some example to other than its default; and taking it
// away there changes the Config or is a mistake. What Build makes of the Config is for build_test.go.
func TestT9EveryKeyChangesTheConfig(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	changes := map[string]bool{}
	for name, body := range examples(t) {
		whole, r := decode(body, "/etc/watchword")
		if len(r.mistakes) > 0 {
			t.Fatalf("%s is refused:\n%v", name, r.mistakes)
		}
		for path := range r.written {
			if path == "" || strings.HasSuffix(path, "]") {
				continue
			}
			less, rest := decode(without(t, body, path), "/etc/watchword")
			less.Hash = whole.Hash
			if len(rest.mistakes) > 0 || !reflect.DeepEqual(less, whole) {
				changes[indices.ReplaceAllString(path, "[]")] = true
			}
		}
	}
	walk(file.keys, "", func(path string, e entry) {
		if !e.later && !changes[path] {
			t.Errorf("no example shows that %s does anything", path)
		}
	})
}

// without takes the key at path out of a file.
func without(t *testing.T, body []byte, path string) []byte {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Load(body, &doc); err != nil {
		t.Fatal(err)
	}
	var take func(n *yaml.Node, at string)
	take = func(n *yaml.Node, at string) {
		for i, child := range n.Content {
			here := fmt.Sprintf("%s[%d]", at, i)
			if n.Kind == yaml.MappingNode {
				if i%2 == 0 {
					continue
				}
				here = strings.TrimPrefix(at+"."+n.Content[i-1].Value, ".")
				if here == path {
					n.Content = slices.Delete(n.Content, i-1, i+1)
					return
				}
			}
			take(child, here)
		}
	}
	take(doc.Content[0], "")
	out, err := yaml.Dump(&doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestYAMLIsPlain(t *testing.T) {
	t.Parallel()
	refused(t, "", "", "is empty")
	refused(t, "# nothing\n", "", "is empty")
	refused(t, base+"---\nlog: {level: info}\n", "", "a second document")
	refused(t, change(t, base, "audience: [api]", "audience: &a [api]"), "", "an anchor")
	refused(t, base+"log: *a\n", "", "an alias")
	refused(t, base+"log: {<<: {level: info}, level: info}\n", "", "a merge key")
	refused(t, base+"log: {? [level] : info, level: info}\n", "", "a key that is no word")
	refused(t, base+"log: {level: !!str info}\n", "", "an explicit tag")
	refused(t, base+"log: {level: info}\nlog: {level: info}\n", "log", "written twice")
	refused(t, base+"log: {level: info, level: warn}\n", "log.level", "written twice")
	refused(t, base+"log: {level: \xff}\n", "", "not UTF-8")
	refused(t, base+"log: [", "", "is no YAML")
	refused(t, base+"log: "+strings.Repeat("[", 40)+strings.Repeat("]", 40)+"\n", "", "nested deeper")
	refused(t, base+"#"+strings.Repeat("x", maxConfigBytes), "", "larger than 1 MiB")
	refused(t, base+"log:\n", "log", "has no value")
	refused(t, base+"log: {}\n", "log", "is empty")
	refused(t, base+"log: text\n", "log", "is a string where a mapping is expected")
	refused(t, "- a\n", "", "is a list where a mapping is expected")
	for _, one := range [][3]string{ // a number is quoted where that makes it right
		{base + "admin: {listen: 9090}\n", "admin.listen", "write address:port"},
		{change(t, base, "client_id: orders", "client_id: 42"), "doors.introspection.callers[0].client_id", `quote it: "42"`},
	} {
		if m := refused(t, one[0], one[1], "is a number where"); !strings.Contains(m.Fix, one[2]) {
			t.Errorf("%s: the fix is %q, want %q", one[1], m.Fix, one[2])
		}
	}
	refused(t, change(t, base, "audience: [api]", "audience: []"), "policies[0].require.audience", "an empty list")
	refused(t, change(t, base, "audience: [api]", "audience: [api, api]"), "policies[0].require.audience[1]", "twice")
	refused(t, change(t, base, "audience: [api]", "audience: api"), "policies[0].require.audience", "is a string where a list is expected")
}

func TestJSONIsYAML(t *testing.T) {
	t.Parallel()
	accepted(t, `{"issuers": [{"name": "main", "introspection_endpoint": "http://[::1]:1/i", "timeout": "1.5s"}],
		"doors": {"introspection": {"listen": "[::1]:0", "forward_caller_auth": true}}, "freshness": {"max_staleness": 0}}`)
}

func TestAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	ms := mistakes(t, `issuers:
  - name: main
    introspection_endpoint: ftp://as.example
    client_auth: {method: basic}
    timeout: 2
freshness: {max_age: 1s, max_staleness: 5s}
cache: {max_bytes: 0, bogus: 1}
doors:
  forward_auth: {listen: "127.0.0.1:99999"}
`)
	var got []string
	for _, m := range ms {
		got = append(got, fmt.Sprintf("%d:%d %s", m.Line, m.Column, m.Path))
	}
	want := []string{"3:29 issuers[0].introspection_endpoint", "4:27 issuers[0].client_auth.method", "5:14 issuers[0].timeout",
		"6:22 freshness.max_age", "7:20 cache.max_bytes", "7:23 cache.bogus", "9:3 doors.forward_auth", "9:26 doors.forward_auth.listen"}
	for i := range want {
		if i >= len(got) || !strings.HasSuffix(got[i], want[i][strings.Index(want[i], " "):]) {
			t.Fatalf("got:\n%s\nwant:\n%s\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"), ms)
		}
	}
	if s := ms[2].String(); s != `5:14: issuers[0].timeout: "2": has no unit; write "2s", or the unit that you mean` {
		t.Error(s)
	}
}

func TestCAC05_T15BoundsAndSizes(t *testing.T) {
	t.Parallel()
	at := func(path, text, reason string) { t.Helper(); refused(t, base+text+"\n", path, reason) }
	for _, k := range []string{"max_staleness", "max_age", "stale_if_error"} {
		at("freshness."+k, "freshness: {"+k+": -1s}", "negative")
		at("freshness."+k, "freshness: {"+k+": forever}", "is no duration")
		at("freshness."+k, "freshness: {"+k+": .inf}", "is no duration")
		at("freshness."+k, "freshness: {"+k+": 9999999999h}", "is no duration")
	}
	at("cache.max_bytes", "cache: {max_bytes: 0}", "cannot be zero")
	at("revocation.max_bytes", "revocation: {max_bytes: 1KiB}", "too small")
	at("cache.max_bytes", "cache: {max_bytes: -1}", "negative")
	at("cache.max_bytes", "cache: {max_bytes: -1MiB}", "negative")
	at("cache.max_bytes", "cache: {max_bytes: 9999999999GiB}", "too large")
	at("cache.max_bytes", "cache: {max_bytes: 64MB}", "is no size")
	at("cache.max_bytes", "cache: {max_bytes: unlimited}", "is no size")
	at("cache.max_bytes", "cache: {max_bytes: 0x10}", "is no size")
	at("cache.inactive.max_bytes", "cache: {inactive: {ttl: 1s, max_bytes: 0}}", "cannot be zero")
	at("cache.inactive.ttl", "cache: {inactive: {ttl: 61s}}", "too long")
	at("cache.inactive.ttl", "cache: {inactive: {ttl: -1s}}", "negative")
	at("cache.unknown_tokens.per_peer", "cache: {unknown_tokens: {per_peer: -1}}", "negative")
	at("cache.unknown_tokens.per_peer", "cache: {unknown_tokens: {per_peer: 0}}", "out of range")
	at("cache.unknown_tokens.burst", "cache: {unknown_tokens: {burst: 1_000}}", "no plain decimal")
	at("cache.unknown_tokens.burst", "cache: {unknown_tokens: {burst: 1.5}}", "is a number")
	at("cache.refresh_ahead.after", "cache: {refresh_ahead: {after: 1}}", "between 0 and 1")
	at("cache.refresh_ahead.after", "cache: {refresh_ahead: {after: .nan}}", "between 0 and 1")
	at("cache.refresh_ahead.per_second", "cache: {refresh_ahead: {per_second: -1}}", "negative")

	if f := accepted(t, base+"freshness: {max_staleness: 0}\n").Policies[0].Policy.Freshness; f.MaxStaleness != 0 {
		t.Error("max_staleness 0 asks every time")
	}
	if c := accepted(t, base+"cache: {max_bytes: 1GiB, inactive: {ttl: 60s}}\n").Cache; c.MaxBytes != 1<<30 || c.InactiveTTL != time.Minute {
		t.Errorf("%+v", c)
	}
}

func TestCAC05MaxAgeBelowMaxStaleness(t *testing.T) {
	t.Parallel()
	policy := func(f, top string) string {
		return change(t, base, "    require", "    freshness: {"+f+"}\n    require") + "freshness: {" + top + "}\n"
	}
	const of = "policies[0].freshness."
	refused(t, policy("max_staleness: 5s, max_age: 4s", "max_staleness: 1s"), of+"max_age", "below the max_staleness 5s")
	refused(t, policy("max_age: 4s", "max_staleness: 5s"), of+"max_age", "below the max_staleness 5s")
	refused(t, policy("max_age: 4s", "stale_if_error: 5s"), of+"max_age", "below the max_staleness 30s")
	refused(t, policy("max_staleness: 11m", "max_age: 10m"), of+"max_staleness", "longer than the max_age 10m")
	refused(t, policy("max_staleness: 1s", "max_staleness: 5s, max_age: 4s"), "freshness.max_age", "below the max_staleness 5s")
	refused(t, base+"freshness: {max_age: 29s}\n", "freshness.max_age", "below the max_staleness 30s")
	caller := change(t, base, "ORDERS_SECRET}}", "ORDERS_SECRET}, freshness: {max_age: 29s}}")
	refused(t, caller, "doors.introspection.callers[0].freshness.max_age", "below the max_staleness 30s")

	accepted(t, policy("max_staleness: 11m", "stale_if_error: 1s")) // the default is lifted
	accepted(t, policy("max_staleness: 5s, max_age: 5s", "max_age: 1m"))
	f := accepted(t, policy("max_staleness: 5s", "max_age: 1m, stale_if_error: 7s")).Policies[0].Policy.Freshness
	if f != (watchword.Freshness{MaxStaleness: 5 * time.Second, MaxAge: time.Minute, StaleIfError: 7 * time.Second}) {
		t.Errorf("each key falls back alone: %+v", f)
	}
}

func TestDurationsAndWords(t *testing.T) {
	t.Parallel()
	issuer := func(more string) string { return change(t, base, "    client_auth", "    "+more+"\n    client_auth") }
	refused(t, issuer("timeout: 0"), "issuers[0].timeout", "too short")
	refused(t, issuer("timeout: 31s"), "issuers[0].timeout", "too long")
	refused(t, issuer("timeout: 1.5"), "issuers[0].timeout", "no unit")
	refused(t, issuer("timeout: [1s]"), "issuers[0].timeout", "is a list")
	refused(t, issuer("timeout: 2 s"), "issuers[0].timeout", "is no duration")
	refused(t, issuer("leeway: 61s"), "issuers[0].leeway", "too long")
	refused(t, issuer("token_type_hint: acess_token"), "issuers[0].token_type_hint", "not known")
	refused(t, issuer("quirks: {string_booleans: yes}"), "issuers[0].quirks.string_booleans", "is a string")
	refused(t, issuer("quirks: {string_booleans: True}"), "issuers[0].quirks.string_booleans", "neither true nor false")
	refused(t, issuer("tokens: {prefix: \"\"}"), "issuers[0].tokens.prefix", "is empty")
	refused(t, issuer("tokens: {prefix: [a b]}"), "issuers[0].tokens.prefix[0]", "no token begins like that")
	refused(t, issuer("tokens: {prefix: 123}"), "issuers[0].tokens.prefix", "is a number")
	if is := accepted(t, issuer("timeout: 30s\n    leeway: 0\n    token_type_hint: none\n    tokens: {prefix: a}")).Issuers[0]; is.Timeout != 30*time.Second || is.Hint != "none" || !slices.Equal(is.Prefixes, []string{"a"}) {
		t.Errorf("%+v", is)
	}
}

// Covers: POL-04
func TestPOL04DelegationIsAWord(t *testing.T) {
	t.Parallel()
	if accepted(t, base).Policies[0].Policy.NoDelegation {
		t.Error("forbidden though nobody said so")
	}
	for word, forbidden := range map[string]bool{"allowed": false, "forbidden": true} {
		if p := accepted(t, change(t, base, "require: {", "require: {delegation: "+word+", ")).Policies[0].Policy; p.NoDelegation != forbidden {
			t.Errorf("%s: %+v", word, p)
		}
	}
	refused(t, change(t, base, "require: {", "require: {delegation: none, "), "policies[0].require.delegation", "not known")
}

// What a tier leaves out is the policy's, and what it writes is below it.
//
// Covers: T2
func TestT2TiersFallBackAndTighten(t *testing.T) {
	t.Parallel()
	tier := func(policy, tier string) string {
		return change(t, base, "    require", "    freshness: {"+policy+"}\n    tiers: [{when: {client: [batch]}, freshness: {"+tier+"}}]\n    require")
	}
	got := accepted(t, tier("max_staleness: 10s, stale_if_error: 1m", "max_staleness: 2s")).Policies[0].Policy.Tiers[0].Freshness
	if want := (watchword.Freshness{MaxStaleness: 2 * time.Second, MaxAge: watchword.DefaultMaxAge, StaleIfError: time.Minute}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	const of = "policies[0].tiers[0].freshness."
	refused(t, tier("max_staleness: 10s", "max_staleness: 11s"), of+"max_staleness", "is above the policy's 10s: a tier can only tighten")
	refused(t, tier("max_staleness: 10s", "stale_if_error: 1s"), of+"stale_if_error", "is above the policy's 0s")
	refused(t, tier("max_staleness: 10s, max_age: 1m", "max_age: 2m"), of+"max_age", "is above the policy's 1m0s")
	refused(t, tier("max_staleness: 10s", "max_age: 5s"), of+"max_age", "below the max_staleness 10s")
	refused(t, change(t, base, "    require", "    recheck: {probability: 1.5}\n    require"), "policies[0].recheck.probability", "is not between 0 and 1")
	refused(t, change(t, base, "    require", "    recheck: {on_change: [mood]}\n    require"), "policies[0].recheck.on_change[0]", "is not known here")
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	warns := func(text, want string) {
		t.Helper()
		if got := accepted(t, text).Warnings(); !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("no warning %q in %q", want, got)
		}
	}
	warns(change(t, base, "audience: [api]", "scopes: [a]"), `policy "all" requires no audience`)
	warns(change(t, base, "    require", "    on_unavailable: dangerously_allow\n    require"), `policy "all" says dangerously_allow: while an authorization server cannot answer, revoked tokens pass it too`)
	warns(base, "admin is absent")
	warns(base, "deployment_secret is absent")
	warns(change(t, base, "doors:", "  - {name: b, require: {audience: [b]}}\ndoors:"), `policy "b" is never reached`)
	warns(change(t, base, "unix:/run/watchword/auth.sock", "127.0.0.1:8082\n    trusted_proxies: [0.0.0.0/0]"), "trusts every address")
	warns(change(t, base, "policies:", "  - {name: b, introspection_endpoint: https://b.example, client_auth: {method: none}}\npolicies:",
		"    require", "    issuers: [main]\n    require", "ORDERS_SECRET}}", "ORDERS_SECRET}, issuers: [main]}"), `issuer "b" is never asked`)
	quiet := base + "admin: {listen: 127.0.0.1:9090}\ndeployment_secret: {env: D}\n"
	if got := accepted(t, quiet).Warnings(); len(got) != 0 {
		t.Errorf("warnings: %q", got)
	}
}

func TestParseSaysWhichFileIsMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := Parse(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if _, err := Parse(t.TempDir()); err == nil {
		t.Error("a folder is no file")
	}
	if err := os.WriteFile(path, []byte("log: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(path); !isMistakes(err) {
		t.Errorf("%T %v", err, err)
	}
}
