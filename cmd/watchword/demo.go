package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/watchword-dev/watchword/app"
	"github.com/watchword-dev/watchword/authority"
)

type demoCmd struct{}

// The demo's cast. None of these secrets protects anything: the authority lives on loopback, and as long as the demo.
const (
	demoAudience = "https://api.example"
	demoClient   = "app"
	demoSecret   = "app-secret"
	demoRS       = "watchword"
	demoRSSecret = "watchword-secret"
	demoCaller   = "orders"
)

// Run starts an authorization server, Watchword with both doors, and a sample API behind the middleware; prints lines
// to try; and lives until SIGINT or SIGTERM.
func (c *demoCmd) Run(e *env) error {
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	dir, err := os.MkdirTemp("", "watchword-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	as, err := startAuthority(ctx)
	if err != nil {
		return err
	}
	defer as.Close()
	cfg, err := demoConfig(dir, as.url)
	if err != nil {
		return err
	}
	a, err := app.Build(cfg, e.stdout, e.stderr)
	if err != nil {
		return err
	}
	if err := a.Listen(); err != nil {
		return err
	}
	api, err := serveLoopback(ctx, a.Protect(http.HandlerFunc(sampleAPI)))
	if err != nil {
		return err
	}
	if err := c.introduce(e.stdout, as, "http://"+api, cfg, a); err != nil { // every socket listens already
		return err
	}
	return a.Run(ctx)
}

// introduce prints the lines. Printing the demo's own tokens is the one exception to the rule that no token is ever
// printed.
func (c *demoCmd) introduce(w io.Writer, as *demoAuthority, api string, cfg *app.Config, a *app.App) error {
	var tokens [3]string
	for i, scope := range []string{"orders:read", "profile", "orders:read"} {
		var err error
		if tokens[i], err = as.token(scope); err != nil {
			return err
		}
	}
	ask := func(token string) string {
		return fmt.Sprintf(`curl -s -o /dev/null -w '%%{http_code}\n' -H 'Authorization: Bearer %s' %s/orders/1`, token, api)
	}
	fmt.Fprintf(w, `Watchword demo: an authorization server, two doors and a sample API, all on loopback, until Ctrl-C.

1. A token that holds the scope orders:read: 200
%s

2. A token that lacks it: 403
%s

3. A token that is accepted, revoked at the authorization server, and refused within max_staleness (2s): 200, then 401
%s; curl -s -u %s:%s -d token=%s %s/revoke; sleep 3; %s

Look closer:
  the answer's body     curl -s -H 'Authorization: Bearer %s' %s/orders/1
  RFC 7662 door         curl -s -u %s:%s-secret -d token=%s http://%s/introspect
  forward-auth door     curl -si -H 'X-Forwarded-Method: GET' -H 'X-Forwarded-Uri: /orders/1' -H 'Authorization: Bearer %s' http://%s/
  revoke at once        curl -s -u %s:%s -d token=%s http://%s/revoke      (through Watchword: no cache remembers it)
  metrics               curl -s http://%s/metrics
  break the server      curl -s -X PUT '%s/faults?mode=status&status=503'      mend it: curl -s -X DELETE %s/faults
  a new token           curl -s -u %s:%s -d grant_type=client_credentials -d scope=orders:read %s/token
  the configuration     %s
Every decision is a line on stderr, without the token.
`, ask(tokens[0]), ask(tokens[1]), ask(tokens[2]), demoClient, demoSecret, tokens[2], as.url, ask(tokens[2]),
		tokens[0], api, demoCaller, demoCaller, tokens[0], a.Addr("introspection"), tokens[0], a.Addr("forward_auth"),
		demoClient, demoSecret, tokens[0], a.Addr("events"), a.Addr("admin"), as.control, as.control, demoClient, demoSecret, as.url, cfg.Path)
	return nil
}

// demoConfig writes and reads the demo's file: what the demo runs is what `serve` runs.
func demoConfig(dir, as string) (*app.Config, error) {
	files := map[string]string{"rs-secret": demoRSSecret, "caller-secret": demoCaller + "-secret"}
	files["watchword.yaml"] = `# The demo's configuration, as ` + "`watchword serve`" + ` would read it.
issuers:
  - name: demo
    introspection_endpoint: ` + as + `/introspect
    revocation_endpoint: ` + as + `/revoke
    client_auth: {method: client_secret_basic, client_id: ` + demoRS + `, client_secret: {file: rs-secret}}
    tokens: {prefix: ` + authority.TokenPrefix + `}
freshness: {max_staleness: 2s}
policies:
  - name: orders-read
    match: {paths: ["/orders/*"], methods: [GET]}
    require: {scopes: ["orders:read"], audience: ["` + demoAudience + `"]}
doors:
  introspection:
    listen: 127.0.0.1:0
    callers: [{client_id: ` + demoCaller + `, client_secret: {file: caller-secret}, audience: ["` + demoAudience + `"]}]
  forward_auth:
    listen: 127.0.0.1:0
    headers: {X-Auth-Subject: sub, X-Auth-Scopes: scope}
    trusted_proxies: [127.0.0.0/8]
  events:
    listen: 127.0.0.1:0
    revoke: [{issuer: demo, path: /revoke}]
log: {level: warn}
decision_log: {to: stderr, decisions: all}
admin: {listen: 127.0.0.1:0}
`
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			return nil, err
		}
	}
	return app.Parse(filepath.Join(dir, "watchword.yaml"))
}

// demoAuthority is the demo's authorization server, with its fault switches on a socket of their own.
type demoAuthority struct {
	*authority.Authority
	url, control string
}

func startAuthority(ctx context.Context) (*demoAuthority, error) {
	config := authority.Config{
		Clients: []authority.Client{
			{ID: demoClient, Secret: demoSecret, Scopes: []string{"orders:read", "profile"}, Audience: []string{demoAudience}},
			{ID: demoRS, Secret: demoRSSecret, Introspects: true},
		},
		AccessTokenLifetime: time.Hour,
	}
	socket, err := config.Listen("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	config.Issuer = "http://" + socket.Addr().String()
	a, err := authority.New(config)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	faults := authority.NewFaults(a)
	serve(ctx, socket, faults)
	control, err := serveLoopback(ctx, http.StripPrefix("/faults", faults.Control()))
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &demoAuthority{Authority: a, url: config.Issuer, control: "http://" + control}, nil
}

// token asks for an access token as any client would (RFC 6749 §4.4).
func (a *demoAuthority) token(scope string) (string, error) {
	req, err := http.NewRequest(http.MethodPost, a.url+"/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(demoClient, demoSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&body); err != nil || body.AccessToken == "" {
		return "", fmt.Errorf("the demo's authorization server gave no token (status %d)", resp.StatusCode)
	}
	return body.AccessToken, nil
}

// sampleAPI is what is protected.
func sampleAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"order": strings.TrimPrefix(r.URL.Path, "/orders/"), "state": "shipped"})
}

// serveLoopback serves h on a free loopback port until ctx ends.
func serveLoopback(ctx context.Context, h http.Handler) (address string, err error) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	serve(ctx, socket, h)
	return socket.Addr().String(), nil
}

func serve(ctx context.Context, socket net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() { _ = s.Serve(socket) }()
}
