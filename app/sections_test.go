package app

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWhereAnIssuerIs(t *testing.T) {
	t.Parallel()
	endpoint := func(url string) string { return change(t, base, "https://as.example/introspect", url) }
	for _, url := range []string{"https://as.example/i", "https://as.example:8443/i?x=1", "http://127.0.0.1:1/i", "http://127.9.9.9/i", "http://[::1]:1/i", "http://localhost:1/i"} {
		accepted(t, endpoint(url))
	}
	const path = "issuers[0].introspection_endpoint"
	refused(t, endpoint("http://as.example/i"), path, "not protected")
	refused(t, endpoint("http://localhost.example/i"), path, "not protected")
	refused(t, endpoint("ftp://as.example/i"), path, "no web URL")
	refused(t, endpoint("as.example/i"), path, "no absolute URL")
	refused(t, endpoint("https://as.example/i#f"), path, "fragment")
	if m := refused(t, endpoint("https://rs:hunter2@as.example/i"), path, "a user or a password"); strings.Contains(m.String(), "hunter2") {
		t.Errorf("repeats a password: %v", m)
	}
	discovered := change(t, base, "introspection_endpoint: https://as.example/introspect", "issuer: https://as.example")
	if is := accepted(t, discovered).Issuers[0]; is.Endpoint != "" || is.ID != "https://as.example" {
		t.Errorf("%+v", is)
	}
	refused(t, change(t, discovered, "https://as.example", "https://as.example?x=1"), "issuers[0].issuer", "query")
	refused(t, change(t, base, "    introspection_endpoint: https://as.example/introspect\n", ""), "issuers[0]", "neither introspection_endpoint nor issuer")
}

func TestClientAuthKeys(t *testing.T) {
	t.Parallel()
	auth := func(a string) string { return change(t, base, "{method: none}", a) }
	for _, a := range []string{
		"{method: client_secret_basic, client_id: rs, client_secret: {file: s}}",
		"{method: client_secret_post, client_id: rs, client_secret: [{file: s}, {env: S}]}",
		"{method: private_key_jwt, client_id: rs, private_key: {file: k.pem}, audience: https://as.example}",
		"{method: tls_client_auth, client_id: rs, cert: c.pem, key: k.pem}",
		"{method: bearer, token: {env: T}}",
	} {
		accepted(t, auth(a))
	}
	const path = "issuers[0].client_auth"
	refused(t, change(t, base, "    client_auth: {method: none}\n", ""), path, "is missing")
	refused(t, auth("{method: basic}"), path+".method", "not known")
	refused(t, auth("{client_id: rs}"), path+".method", "is missing")
	refused(t, auth("{method: client_secret_basic, client_secret: {file: s}}"), path+".client_id", "is missing")
	refused(t, auth("{method: bearer}"), path+".token", "is missing")
	refused(t, auth("{method: private_key_jwt, client_id: rs, private_key: {file: k}}"), path+".audience", "no issuer to take its place")
	refused(t, auth("{method: private_key_jwt, client_id: rs, private_key: {file: k}, audience: a, alg: HS256}"), path+".alg", "not known")
	refused(t, change(t, auth("{method: tls_client_auth, client_id: rs, cert: c, key: k}"), "https://as.example", "http://127.0.0.1:1"), path+".method", "needs https")
	c := accepted(t, change(t, auth("{method: private_key_jwt, client_id: rs, private_key: {file: k.pem}, kid: x}"), "    client_auth", "    issuer: https://as.example\n    client_auth"))
	if a := c.Issuers[0].ClientAuth; a.Alg != "RS256" || a.Audience != "" || a.KeyID != "x" {
		t.Errorf("%+v", a)
	}
}

func TestWhomToAskIsNoChance(t *testing.T) {
	t.Parallel()
	two := func(a, b string) string {
		return change(t, base, "policies:", "  - name: other\n    introspection_endpoint: https://other.example/i\n    client_auth: {method: none}\n"+b+"policies:",
			"    client_auth", a+"    client_auth")
	}
	const px, py = "    tokens: {prefix: x_}\n", "    tokens: {prefix: [y_, z_]}\n"
	accepted(t, two(px, ""))
	accepted(t, two("", py))
	accepted(t, two(px, py))
	ms := mistakes(t, two("", ""))
	if len(ms) != 2 || ms[0].Path != "policies[0]" || ms[1].Path != "doors.introspection.callers[0]" || !strings.Contains(ms[0].Reason, "neither says how its tokens look") {
		t.Errorf("%v", ms)
	}
	if ms := mistakes(t, two(px, px)); len(ms) != 2 || !strings.Contains(ms[0].Reason, `both begin with "x_"`) {
		t.Errorf("%v", ms)
	}
	apart := change(t, two("", ""), "    require", "    issuers: [main]\n    require", "ORDERS_SECRET}}", "ORDERS_SECRET}, issuers: [other]}")
	accepted(t, apart)
	if m := refused(t, change(t, apart, "[main]", "[mian]"), "policies[0].issuers[0]", "the name of no issuer"); !strings.Contains(m.Fix, "main") {
		t.Error(m.Fix)
	}
	refused(t, change(t, apart, "name: other", "name: main", "[other]", "[main]"), "issuers[1].name", "is also the name of issuers[0]")
}

func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	refused(t, change(t, base, "doors:", "  - {name: all, require: {audience: [b]}}\ndoors:"), "policies[1].name", "is also the name of policies[0]")
	refused(t, change(t, base, "  forward_auth", "      - {name: orders, bearer: {env: B}}\n  forward_auth"), "doors.introspection.callers[1].name", "is also the name of")
	refused(t, change(t, base, "name: main", "name: the main one"), "issuers[0].name", "is no name")
}

func TestCallers(t *testing.T) {
	t.Parallel()
	caller := func(c string) string {
		return change(t, base, "{client_id: orders, client_secret: {env: ORDERS_SECRET}}", c)
	}
	const path = "doors.introspection.callers[0]"
	refused(t, caller("{client_id: orders}"), path, "only one of")
	refused(t, caller("{bearer: {env: A}}"), path, "only one of")
	refused(t, caller("{client_id: a, client_secret: {env: A}, bearer: {env: B}}"), path, "mixes two ways")
	refused(t, caller("{issuers: [main]}"), path, "cannot authenticate")
	refused(t, caller("{name: a, bearer: {env: A}, claims: [active]}"), path+".claims[0]", "shown always")
	c := accepted(t, caller("{name: a, bearer: [{env: A}, {env: B}], claims: [sub], audience: [x]}")).Introspection.Callers[0]
	if c.Policy.Name != "a" || c.ClientID != "" || !slices.Equal(c.Claims, []string{"sub"}) || !slices.Equal(c.Policy.Audience, []string{"x"}) {
		t.Errorf("%+v", c)
	}
	nobody := change(t, base, "    callers:\n      - {client_id: orders, client_secret: {env: ORDERS_SECRET}}\n", "")
	refused(t, nobody, "doors.introspection", "lets nobody ask")
	forward := change(t, nobody, "8081\n", "8081\n    forward_caller_auth: true\n")
	if !accepted(t, forward).Introspection.Forward {
		t.Error("forward_caller_auth is lost")
	}
	refused(t, change(t, forward, "{method: none}", "{method: tls_client_auth, client_id: a, cert: c, key: k}"), "issuers[0].client_auth.method", "does not go with forward_caller_auth")
	refused(t, change(t, forward, "policies:", "  - {name: b, introspection_endpoint: https://b.example, client_auth: {method: none}, tokens: {prefix: b}}\npolicies:"),
		"doors.introspection.forward_caller_auth", "exactly one issuer")
}

func TestListeners(t *testing.T) {
	t.Parallel()
	intro := func(l string) string { return change(t, base, "127.0.0.1:8081", l) }
	for _, l := range []string{"127.0.0.1:0", "'[::1]:8081'", "localhost:1", "':8081'", "0.0.0.0:65535", "unix:/run/a.sock"} {
		accepted(t, intro(l))
	}
	const path = "doors.introspection.listen"
	refused(t, intro("127.0.0.1"), path, "no port")
	refused(t, intro("127.0.0.1:65536"), path, "no port from 0")
	refused(t, intro("127.0.0.1:http"), path, "no port from 0")
	refused(t, intro("example.org:80"), path, "no address of this machine")
	refused(t, intro("'::1:80'"), path, "is no address and port")
	refused(t, intro("unix:run/a.sock"), path, "no absolute path")
	refused(t, intro("unix:/run/../a.sock"), path, "no absolute path")
	refused(t, intro("unix:/"+strings.Repeat("a", 107)), path, "longer than")
	refused(t, intro("unix:/run/watchword/auth.sock"), "doors.forward_auth.listen", "taken by doors.introspection.listen")
	for _, admin := range []string{"127.0.0.1:8081", "localhost:8081", "0.0.0.0:8081", "':8081'", "'[::]:8081'"} {
		refused(t, base+"admin: {listen: "+admin+"}\n", path, "taken by admin.listen")
	}
	accepted(t, base+"admin: {listen: '[::1]:8081'}\n")
	accepted(t, intro("127.0.0.1:0")+"admin: {listen: 127.0.0.1:0}\n")
	for _, mode := range []string{`660`, `"660"`, `"0888"`, `"rw"`} {
		ms := mistakes(t, base+"    socket_mode: "+mode+"\n")
		if len(ms) != 1 || ms[0].Path != "doors.forward_auth.socket_mode" {
			t.Errorf("socket_mode %s: %v", mode, ms)
		}
	}
	if m := accepted(t, base+"    socket_mode: \"0600\"\n").ForwardAuth.SocketMode; m != 0o600 {
		t.Errorf("%o", m)
	}
}

func TestForwardAuthKeys(t *testing.T) {
	t.Parallel()
	tcp := change(t, base, "unix:/run/watchword/auth.sock", "127.0.0.1:8082")
	refused(t, tcp, "doors.forward_auth.trusted_proxies", "is missing")
	p := accepted(t, tcp+"    trusted_proxies: [127.0.0.1, 10.0.0.0/8, '::1/128']\n").ForwardAuth.Trusted
	if fmt.Sprint(p) != "[127.0.0.1/32 10.0.0.0/8 ::1/128]" {
		t.Error(p)
	}
	refused(t, tcp+"    trusted_proxies: [10.0.0.1/8]\n", "doors.forward_auth.trusted_proxies[0]", "bits set")
	refused(t, tcp+"    trusted_proxies: [gateway]\n", "doors.forward_auth.trusted_proxies[0]", "no network")
	refused(t, base+"    profile: traefik\n", "doors.forward_auth.profile", "not known")
	if d := accepted(t, base+"    profile: envoy\n    path_prefix: /authz\n    realm: the api\n").ForwardAuth; d.PathPrefix != "/authz" || d.Realm != "the api" {
		t.Errorf("%+v", d)
	}
	refused(t, base+"    profile: envoy\n    path_prefix: /authz/\n", "doors.forward_auth.path_prefix", "ends in /")
	refused(t, base+"    realm: 'a\"b'\n", "doors.forward_auth.realm", "is no realm")
	refused(t, change(t, base, "policies:\n  - name: all\n    require: {audience: [api]}\n", ""), "doors.forward_auth", "has no policies")
	refused(t, base[:strings.Index(base, "policies")]+"doors: {}\n", "doors", "is empty")
}

func TestT20IdentityHeaders(t *testing.T) {
	t.Parallel()
	head := func(h string) string { return base + "    headers: {" + h + "}\n" }
	const path = "doors.forward_auth.headers"
	refused(t, head(""), path, "is empty")
	refused(t, head("X-Auth-Sub: sub, x_auth_sub: client_id"), path+".x_auth_sub", "differs from X-Auth-Sub only")
	refused(t, head("X-Auth-Sub: sub, X.Auth.Sub: client_id"), path+".X.Auth.Sub", "differs from X-Auth-Sub only")
	refused(t, head("X-Auth-Sub: sub, X-Auth-Sub: client_id"), path+".X-Auth-Sub", "written twice")
	for _, h := range []string{"Connection", "WWW-Authenticate", "Transfer-Encoding", "Authorization", "X-Watchword-Reason", "X_Forwarded_For", "Set-Cookie"} {
		refused(t, head(h+": sub"), path+"."+h, "meaning of its own")
	}
	refused(t, head("X Auth: sub"), path+".X Auth", "no header name")
	refused(t, head("X-Auth: 1"), path+".X-Auth", "is a number")
	refused(t, head("X-Auth:"), path+".X-Auth", "names no claim")
	if h := accepted(t, head("X-Auth-Subject: sub")).ForwardAuth.Headers; h["X-Auth-Subject"] != "sub" {
		t.Error(h)
	}
}

func TestT23PatternsThatCanNeverMatch(t *testing.T) {
	t.Parallel()
	match := func(m string) string { return change(t, base, "    require", "    match: {"+m+"}\n    require") }
	for _, p := range []string{"/", "/*", "/orders", "/orders/*", "/orders*", "/a b/é", "/a.*", "/.well-known/*"} {
		accepted(t, match("paths: ["+quoted(p)+"]"))
	}
	for _, p := range []string{"orders", "*", "/a*b", "/*/b", "/a/**", "/a//b", "/a/../b", "/a/.", "/a./b", "/a?x", "/a#b", "/a%20b", "/a;b", `/a\b`, "/a "} {
		ms := mistakes(t, match("paths: ["+quoted(p)+"]"))
		if len(ms) != 1 || ms[0].Path != "policies[0].match.paths[0]" {
			t.Errorf("%q: %v", p, ms)
		}
	}
	accepted(t, match("hosts: [api.example, '[::1]', 127.0.0.1, A_b.example]"))
	for _, h := range []string{"'*.example'", "api.example:443", "api.example.", "https://api", "a..b", "'::1'"} {
		ms := mistakes(t, match("hosts: ["+h+"]"))
		if len(ms) != 1 || ms[0].Path != "policies[0].match.hosts[0]" {
			t.Errorf("%q: %v", h, ms)
		}
	}
	refused(t, match("methods: [get]"), "policies[0].match.methods[0]", "is no method")
	refused(t, change(t, base, "audience: [api]", "scopes: ['a b']"), "policies[0].require.scopes[0]", "no single scope")
}

func quoted(s string) string { return "'" + s + "'" }

func TestDecisionLogTarget(t *testing.T) {
	t.Parallel()
	to := func(to string) string { return base + "decision_log: {to: " + to + "}\n" }
	if got := accepted(t, to("./d.log")).DecisionLog.To; got != "/etc/watchword/d.log" {
		t.Error(got)
	}
	if got := accepted(t, to("stderr")).DecisionLog.To; got != "stderr" {
		t.Error(got)
	}
	if m := refused(t, to("stdot"), "decision_log.to", "neither a known word"); !strings.Contains(m.Fix, "stdout") {
		t.Error(m.Fix)
	}
}
