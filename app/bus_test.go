package app

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestBusKeys(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	const path = "revocation.bus"
	bus := func(text string) string {
		return base + "deployment_secret: {env: D}\nrevocation: {bus: {" + text + "}}\n"
	}
	c := accepted(t, bus("redis: {address: 'a:1'}"))
	if b := c.Revocation.Bus; b.Redis.Prefix != "watchword" || !c.hearsOf() {
		t.Errorf("%+v", b)
	}
	if b := accepted(t, bus("nats: {url: 'nats://a:1'}")).Revocation.Bus.NATS; b.Stream != "watchword" || b.Replicas != 1 {
		t.Errorf("%+v", b)
	}
	if b := accepted(t, bus("kafka: {brokers: ['a:1']}")).Revocation.Bus.Kafka; b.Topic != "watchword" {
		t.Errorf("%+v", b)
	}
	refused(t, base+"revocation: {bus: {redis: {address: 'a:1'}}}\n", "deployment_secret", "is missing")
	refused(t, bus("redis: {address: 'a:1'}, kafka: {brokers: ['a:1']}"), path, "more than one")
	refused(t, bus("nats: {url: 'nats://u:hunter2@a:1'}"), path+".nats.url", "is no URL of NATS")
	refused(t, bus("nats: {url: 'nats://a:1', password: {env: P}}"), path+".nats.password", "has no effect")
	refused(t, bus("nats: {url: 'nats://a:1', tls: {ca: c}}"), path+".nats.tls", "has no effect")
	refused(t, bus("kafka: {brokers: [a]}"), path+".kafka.brokers[0]", "has no port")
	refused(t, bus("kafka: {brokers: ['a:1'], username: u}"), path+".kafka.password", "is missing")
	refused(t, bus("kafka: {brokers: ['a:1'], mechanism: scram-sha-256}"), path+".kafka.mechanism", "has no effect")
	refused(t, bus("kafka: {brokers: ['a:1'], username: u, password: {env: P}, mechanism: plain}"), path+".kafka.mechanism", "shows the password")
	refused(t, bus("redis: {address: 'a:1', tls: {ca: c, cert: d}}"), path+".redis.tls.key", "is missing")
	refused(t, bus("kafka: {brokers: ['a:1'], tls: {ca: c, key: d}}"), path+".kafka.tls.cert", "is missing")
	refused(t, bus("nats: {url: 'nats://a:1', username: u, password: {env: P}, nkey: {env: N}}"), path+".nats.nkey", "has no effect")
	refused(t, bus("nats: {url: 'nats://a:1', nkey: {env: N}, credentials: {env: C}}"), path+".nats.credentials", "has no effect")
	refused(t, bus("redis: {address: 'a:1, b:1'}"), path+".redis.address", "more than one")
	was := accepted(t, bus("redis: {address: 'a:1'}"))
	if err := accepted(t, bus("redis: {address: 'a:2'}")).restarts(was); err == nil || !strings.Contains(err.Error(), "revocation") {
		t.Errorf("another server without a restart: %v", err)
	}
	if err := accepted(t, bus("redis: {address: 'a:1', cluster: true}")).restarts(was); err == nil {
		t.Error("a cluster without a restart")
	}
	if err := accepted(t, bus("redis: {address: 'a:1'}")).restarts(was); err != nil {
		t.Errorf("the same again: %v", err)
	}
}

// A server inside every node: each mistake by its path, several at once, and the build that it needs.
func TestEmbeddedKeys(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	const path = "revocation.bus.nats"
	const whole = "folder: /var/lib/w, name: n1, listen: '10.0.0.1:6222', nodes: ['10.0.0.1:6222', '10.0.0.2:6222', 'c.example:6222']"
	nats := func(embedded, more string) string {
		return base + "deployment_secret: {env: D}\nrevocation: {bus: {nats: {embedded: {" + embedded + "}" + more + "}}}\n"
	}
	c := accepted(t, nats(whole, ""))
	if b := c.Revocation.Bus.NATS; b.Replicas != 3 || b.Stream != "watchword" || b.Embedded.size() != 3 || b.Embedded.MaxBytes != 256<<20 {
		t.Errorf("%+v %+v", b, b.Embedded)
	}
	if b := accepted(t, nats(whole, ", replicas: 2")).Revocation.Bus.NATS; b.Replicas != 2 {
		t.Errorf("%+v", b)
	}
	two := accepted(t, nats("folder: f, name: n1, listen: '[::1]:6222', nodes: ['[::2]:6222']", ""))
	if b := two.Revocation.Bus.NATS; b.Replicas != 2 || b.Embedded.Folder != "/etc/watchword/f" || !strings.Contains(strings.Join(two.Warnings(), "\n"), "two nodes") {
		t.Errorf("%+v %+v %q", b, b.Embedded, two.Warnings())
	}
	refused(t, nats(whole, ", url: 'nats://a:1'"), path+".url", "the nodes are the servers")
	refused(t, nats(whole, ", replicas: 4"), path+".replicas", "more than there are nodes (3)")
	refused(t, nats(whole, ", username: u, password: {env: P}"), path+".username", "the server is inside")
	refused(t, nats(whole, ", tls: {ca: c}"), path+".tls", "the server is inside")
	refused(t, nats(whole+", max_bytes: 1MiB", ""), path+".embedded.max_bytes", "too small")
	refused(t, nats(change(t, whole, "listen: '10.0.0.1:6222'", "listen: 'a.example:6222'"), ""), path+".embedded.listen", "no address of this machine")
	refused(t, nats(change(t, whole, "listen: '10.0.0.1:6222'", "listen: ':6222'"), ""), path+".embedded.listen", "is no host:port")
	refused(t, nats(change(t, whole, "c.example:6222", "nats://u:hunter2@c.example:6222"), ""), path+".embedded.nodes[2]", "is no host:port")
	refused(t, nats("folder: f, name: n1, listen: '10.0.0.1:6222', nodes: ['10.0.0.1:6222']", ""), path+".embedded.nodes", "this node only")
	refused(t, base+"deployment_secret: {env: D}\nrevocation: {bus: {nats: {stream: a}}}\n", path+".url", "is missing")
	refused(t, change(t, nats(whole, ""), "deployment_secret: {env: D}\n", ""), "deployment_secret", "is missing")
	var at []string
	for _, m := range mistakes(t, nats("listen: here, nodes: [a], max_bytes: 0, peers: 1", "")) {
		at = append(at, m.Path)
	}
	for _, want := range []string{".folder", ".name", ".listen", ".nodes[0]", ".max_bytes", ".peers"} {
		if !slices.Contains(at, path+".embedded"+want) {
			t.Errorf("%s is not among %q", want, at)
		}
	}
	if err := accepted(t, nats(change(t, whole, "c.example", "d.example"), "")).restarts(c); err == nil || !strings.Contains(err.Error(), "revocation") {
		t.Errorf("another node without a restart: %v", err)
	}
	_, r := decode([]byte(nats(whole, "")), "/etc/watchword")
	if c.linked(r); embeds != (len(r.mistakes) == 0) {
		t.Errorf("a build with the server: %v; mistakes: %v", embeds, r.mistakes)
	}
	if text := r.mistakes.Error(); !embeds && (!strings.Contains(text, path+".embedded: not in this build") || !strings.Contains(text, "-tags embedded_nats")) {
		t.Error(text)
	}
}

// What is revoked at one node is refused at all, and by who comes later; a node that cannot read the bus is not ready,
// and says why.
//
// Covers: SIG-21
func TestFleetRevokes(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	as, nats := newServer(t, "a", "b", "c"), broker(t)
	node := func() *running {
		path, text := site(t, as)
		dir := filepath.Dir(path)
		write(t, dir, "deployment", strings.Repeat("k", 32))
		write(t, dir, "ops", "ops-secret-of-the-test")
		text = strings.ReplaceAll(text, "admin: {listen: 127.0.0.1:0}", "")
		text = strings.ReplaceAll(text, `admin: {listen: "127.0.0.1:0"}`, "")
		put(t, path, text+fmt.Sprintf("revocation: {bus: {nats: {url: %q}}}\ndeployment_secret: {file: deployment}\nadmin: {listen: 127.0.0.1:0, operators: [{name: ops, bearer: {file: ops}}]}\n", nats.ClientURL()))
		return start(t, path)
	}
	ready := func(r *running) {
		until(t, func() bool { status, _ := r.get("admin", "/readyz"); return status == 200 })
	}
	revoke := func(r *running, token string) {
		t.Helper()
		status, text := r.post("admin", "/v1/revocations", "application/json", fmt.Sprintf(`{"issuer":"main","token":%q,"why":"lost"}`, token), "Authorization", "Bearer ops-secret-of-the-test")
		if status != 200 {
			t.Fatalf("%d %s", status, text)
		}
	}
	fleet := []*running{node(), node(), node()}
	for _, r := range fleet {
		ready(r)
		for _, token := range []string{"a", "b"} {
			r.wants("door", token, 200, `"sub":"ann"`)
		}
	}
	revoke(fleet[0], "a")
	inactive := func(r *running, token string) {
		t.Helper()
		until(t, func() bool { _, text := r.introspect("door", token); return text == `{"active":false}` })
	}
	for _, r := range fleet {
		inactive(r, "a")
		r.wants("door", "b", 200, `"sub":"ann"`)
	}
	late := node()
	ready(late)
	late.wants("door", "a", 200, `{"active":false}`) // at once: it is ready
	late.wants("door", "b", 200, `"sub":"ann"`)
	if _, page := late.get("admin", "/metrics"); !strings.Contains(page, `watchword_feed_lag_seconds{feed="bus"}`) {
		t.Error("the metrics do not show the bus")
	}

	nats.Shutdown()
	nats.WaitForShutdown()
	fleet[1].wants("door", "b", 200, `"sub":"ann"`) // decisions need no bus
	if status, text := fleet[1].post("admin", "/v1/revocations", "application/json", `{"issuer":"main","token":"b"}`, "Authorization", "Bearer ops-secret-of-the-test"); status == 200 {
		t.Errorf("acknowledged without a bus: %s", text)
	}
	inactive(fleet[1], "b")
	if status, text := node().get("admin", "/readyz"); status != 503 || !strings.Contains(text, "bus") && !strings.Contains(text, "revocations") {
		t.Errorf("ready without having read the bus: %d %s", status, text)
	}
}
