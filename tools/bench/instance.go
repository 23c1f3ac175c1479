package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// instance is a Watchword of its own: one process with a configuration file, both doors on one kind of socket.
type instance struct {
	cmd                        *exec.Cmd
	introspection, forwardAuth *server
	admin, file                string
	said                       *bytes.Buffer // on stderr
}

// settings are what differs between instances.
type settings struct {
	network, profile string
	maxBytes         string
	timeout          time.Duration
	guard            string // of the issuer: a line of the file
}

// What stands before the authorization server: nothing, to measure what a question costs and not how many are allowed;
// or what the file's defaults are.
const (
	wideOpen  = "guard: {rate: 1000000, max_in_flight: 10000}"
	asShipped = ""
)

const configuration = `
issuers:
  - name: main
    introspection_endpoint: http://AS/introspect
    client_auth: {method: client_secret_basic, client_id: rs, client_secret: {env: BENCH_RS}}
    timeout: TIMEOUT
    GUARD
freshness: {max_staleness: 1h}
cache: {max_bytes: BYTES}
policies:
  - name: orders-read
    match: {hosts: [api.example], paths: ["/orders/*"], methods: [GET]}
    require: {scopes: ["orders:read"], audience: ["https://api.example"]}
  - name: orders-strict
    match: {hosts: [strict.example]}
    require: {scopes: ["orders:read"], audience: ["https://api.example"]}
    freshness: {max_staleness: 30s}
doors:
  introspection:
    listen: INTROSPECTION
    callers: [{client_id: orders, client_secret: {env: BENCH_ORDERS}, issuers: [main], audience: ["https://api.example"]}]
  forward_auth:
    listen: FORWARDAUTH
    profile: PROFILE
    headers: {X-Auth-Subject: sub, X-Auth-Scopes: scope}
    TRUSTED
decision_log: {to: DIR/decisions.log, decisions: refused}
admin: {listen: ADMIN, operators: [{name: ops, bearer: {env: BENCH_OPS}}]}
`

// The requests, as a resource server and a gateway send them.
var (
	bareRequest = newShape("Cache-Control: no-store", false, "GET / HTTP/1.1", "Host: api.example", "", "")
	callRequest = newShape("Cache-Control: no-store", false, "GET / HTTP/1.1", "Host: api.example", "Authorization: Bearer {token}", "", "")
	introspect  = newShape(`{"active":true,"sub":"user-`, true, "POST /introspect HTTP/1.1", "Host: watchword", "Authorization: Basic b3JkZXJzOnNlY3JldA==",
		"Content-Type: application/x-www-form-urlencoded", "Content-Length: 78", "", "token={token}&token_type_hint=access_token")
	forwardAuth  = ofGateway("api.example", "192.0.2.7")
	strictly     = ofGateway("strict.example", "192.0.2.7")
	ofSprayer    = ofGateway("api.example", "203.0.113.66")
	throughNginx = newShape("Content-Type: image/gif", false, "GET /orders/1?page=2 HTTP/1.1", "Host: api.example", "Authorization: Bearer {token}", "", "")
)

func ofGateway(host, client string) *shape {
	return newShape("X-Auth-Subject: user-", true, "GET / HTTP/1.1", "Host: watchword", "Authorization: Bearer {token}", "X-Forwarded-Method: GET",
		"X-Forwarded-Proto: https", "X-Forwarded-Host: "+host, "X-Forwarded-Uri: /orders/1?page=2", "X-Forwarded-For: "+client, "", "")
}

// launch starts an instance; run decides where, and it serves when launch returns.
func (b *bench) launch(ctx context.Context, s settings, run func(context.Context, ...string) *exec.Cmd) (*instance, error) {
	dir, err := os.MkdirTemp(b.dir, "watchword")
	if err != nil {
		return nil, err
	}
	i := &instance{introspection: &server{network: s.network}, forwardAuth: &server{network: s.network}, admin: free(), said: &bytes.Buffer{}}
	listen := func(name string) (address, key string) {
		if s.network == "tcp" {
			address = free()
			return address, address
		}
		address = filepath.Join(dir, name)
		return address, "unix:" + address
	}
	var introspection, forwardAuth string
	i.introspection.address, introspection = listen("i.sock")
	i.forwardAuth.address, forwardAuth = listen("f.sock")
	trusted := "trusted_proxies: [127.0.0.0/8]"
	if s.network == "unix" {
		trusted = ""
	}
	text := strings.NewReplacer("AS/", b.as.addr+"/", "TIMEOUT", s.timeout.String(), "GUARD", s.guard, "BYTES", s.maxBytes, "INTROSPECTION", introspection,
		"FORWARDAUTH", forwardAuth, "PROFILE", s.profile, "TRUSTED", trusted, "DIR", dir, "ADMIN", i.admin).Replace(configuration)
	i.file = filepath.Join(dir, "watchword.yaml")
	if err := os.WriteFile(i.file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	i.cmd = run(ctx, b.binary, "serve", "--config", i.file)
	i.cmd.Stderr = i.said
	i.cmd.Env = append(i.cmd.Environ(), "BENCH_RS=secret", "BENCH_ORDERS=secret", "BENCH_OPS=operator")
	if err := i.cmd.Start(); err != nil {
		return nil, err
	}
	i.introspection.pids, i.forwardAuth.pids = []int{i.cmd.Process.Pid}, []int{i.cmd.Process.Pid}
	if err := i.await(ctx); err != nil {
		return nil, fmt.Errorf("watchword does not serve: %w; it said: %s", err, i.said)
	}
	return i, nil
}

// launchFilled starts an instance that knows so many tokens already, and whose guard is as shipped.
func (b *bench) launchFilled(ctx context.Context, timeout time.Duration, tokens int) (*instance, error) {
	i, err := b.launch(ctx, settings{"tcp", "standard", "64MiB", timeout, wideOpen}, b.machine.serving)
	if err != nil {
		return nil, err
	}
	if err = fill(ctx, i.forwardAuth, forwardAuth, tokens); err == nil {
		err = i.reload(ctx, wideOpen, asShipped)
	}
	if err != nil {
		i.stop()
	}
	return i, err
}

// reload replaces a line of the file, and waits until it is in use.
func (i *instance) reload(ctx context.Context, old, text string) error {
	in := func() string {
		all, _ := page(ctx, i.metrics())
		_, rest, _ := strings.Cut(string(all), "\nwatchword_config_info{")
		hash, _, _ := strings.Cut(rest, "}")
		return hash
	}
	before := in()
	was, err := os.ReadFile(i.file)
	if err == nil {
		err = os.WriteFile(i.file, []byte(strings.Replace(string(was), old, text, 1)), 0o600)
	}
	if err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		if now := in(); now != "" && now != before {
			return nil
		}
	}
	return fmt.Errorf("the file was changed, and is not in use %v later", patience)
}

func (i *instance) metrics() string { return "http://" + i.admin + "/metrics" }

// await asks about a token until there is a right answer.
func (i *instance) await(ctx context.Context) (err error) {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(200 * time.Microsecond) {
		var c *conn
		if c, err = dial(ctx, i.forwardAuth, forwardAuth); err == nil {
			err = c.ask(0)
			c.Close()
			return err
		}
	}
	return err
}

func (i *instance) stop() {
	_ = i.cmd.Process.Kill()
	_ = i.cmd.Wait()
}
