package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/watchword-dev/watchword/authority"
)

// stage is where a scenario plays: a target, a proxy in front of its authorization server, and what was seen.
type stage struct {
	Config
	target   *Target
	embedded *embedded // nil: the target is somebody's
	proxy    *proxy    // nil: the scenario breaks nothing
	gateway  *Door     // the forward-auth door; nil: none
	client   *http.Client
	timeline *timeline
	promises []Promise
	nodes    []Node
	undo     []func()
}

// stage builds what a scenario needs, or says what is missing.
func (c Config) stage(ctx context.Context, sc Scenario) (_ *stage, err error) {
	s := &stage{Config: c, timeline: newTimeline(), client: &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if c.Target == nil {
		if c.Start == nil {
			return nil, errors.New("no target is named, and nobody can start one")
		}
		if err := s.embed(ctx, sc); err != nil {
			return nil, err
		}
	} else {
		s.target = c.Target
		if lacks := s.target.lacks(sc.needs); lacks != "" {
			return nil, errors.New(lacks)
		}
		if strings.Contains(sc.needs, "proxy") {
			upstream, _ := url.Parse(s.target.IntrospectionEndpoint) // checked by ReadTarget
			if s.proxy, err = newProxy(s.target.Proxy, upstream, s.timeline.call); err != nil {
				return nil, err
			}
		}
	}
	if s.proxy != nil {
		s.undo = append(s.undo, s.proxy.close)
	}
	for i := range s.target.Doors {
		if s.target.Doors[i].ForwardAuth != "" {
			s.gateway = &s.target.Doors[i]
		}
	}
	return s, nil
}

func (s *stage) close() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		s.undo[i]()
	}
	s.undo = nil
	s.client.CloseIdleConnections()
}

// promise records a verdict.
func (s *stage) promise(held bool, text, detail string, args ...any) {
	s.promises = append(s.promises, Promise{text, held, fmt.Sprintf(detail, args...)})
}

// phase says what begins now.
func (s *stage) phase(text string) {
	s.timeline.mark(text)
	fmt.Fprintln(s.Progress, "  …", text)
}

// broken plays f while the authorization server has a fault.
func (s *stage) broken(fault authority.Fault, f func()) error {
	if err := s.proxy.faults.Set(fault); err != nil {
		return err
	}
	defer s.proxy.faults.Clear()
	f()
	return nil
}

// question is one token, asked of one door.
type question struct {
	door  *Door
	token string
	peer  string // the client that a gateway attests; empty: the drill itself
}

// sample is what became of a question.
type sample struct {
	question
	at         time.Time
	took       time.Duration
	outcome    outcome
	retryAfter bool
}

// ask asks one door about one token.
func (s *stage) ask(ctx context.Context, q question) sample {
	got := sample{question: q, at: time.Now(), outcome: failed}
	req, err := q.door.request(ctx, q)
	if err != nil {
		return got
	}
	resp, err := s.client.Do(req)
	if err == nil {
		got.outcome, got.retryAfter = read(q.door, resp)
	}
	got.took = time.Since(got.at)
	if ctx.Err() == nil {
		s.timeline.add(got.at, got.outcome)
	}
	return got
}

func (d *Door) request(ctx context.Context, q question) (*http.Request, error) {
	if d.Introspection != "" {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Introspection, strings.NewReader("token="+url.QueryEscape(q.token)))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(url.QueryEscape(d.Caller.ID), url.QueryEscape(d.Caller.resolved))
		}
		return req, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.ForwardAuth, nil)
	if err == nil {
		req.Header.Set("X-Forwarded-Method", http.MethodGet)
		req.Header.Set("X-Forwarded-Uri", d.Path)
		req.Header.Set("X-Forwarded-Host", d.Host)
		req.Header.Set("Authorization", "Bearer "+q.token)
		if q.peer != "" {
			req.Header.Set("X-Forwarded-For", q.peer)
		}
	}
	return req, err
}

func read(d *Door, resp *http.Response) (o outcome, retryAfter bool) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return failed, false
	}
	retryAfter = resp.Header.Get("Retry-After") != ""
	switch resp.StatusCode {
	case http.StatusOK:
		var answer struct{ Active bool }
		if d.Introspection != "" && (json.Unmarshal(body, &answer) != nil || !answer.Active) {
			return refused, retryAfter
		}
		if resp.Header.Get("X-Watchword-Degraded") != "" {
			return degraded, retryAfter
		}
		return accepted, retryAfter
	case http.StatusUnauthorized:
		return refused, retryAfter
	case http.StatusForbidden:
		return forbidden, retryAfter
	case http.StatusTooManyRequests:
		return throttled, retryAfter
	case http.StatusServiceUnavailable:
		return unknown, retryAfter
	}
	return failed, retryAfter
}

// maxOpen bounds the questions that wait for an answer at once.
const maxOpen = 256

// load asks perSecond questions a second for d, whatever becomes of those before, and returns all samples.
func (s *stage) load(ctx context.Context, d time.Duration, perSecond int, next func(i int) question) []sample {
	var mu sync.Mutex
	var all []sample
	var wait sync.WaitGroup
	open := make(chan struct{}, maxOpen)
	began := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		if due.Sub(began) >= d {
			break
		}
		time.Sleep(time.Until(due))
		q := next(i)
		open <- struct{}{}
		wait.Go(func() {
			defer func() { <-open }()
			got := s.ask(ctx, q)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, got)
		})
	}
	wait.Wait()
	return all
}

// atOnce asks all questions together.
func (s *stage) atOnce(ctx context.Context, qs []question) []sample {
	all := make([]sample, len(qs))
	var wait sync.WaitGroup
	for i := range qs {
		wait.Go(func() { all[i] = s.ask(ctx, qs[i]) })
	}
	wait.Wait()
	return all
}

// count is how many samples ended so.
func count(all []sample, of ...outcome) (n int) {
	for i := range all {
		for _, o := range of {
			if all[i].outcome == o {
				n++
			}
		}
	}
	return n
}

// warm gets n tokens and has every door accept each.
func (s *stage) warm(ctx context.Context, n int) ([]string, error) {
	tokens, err := s.tokens(ctx, n)
	if err != nil {
		return nil, err
	}
	for _, t := range tokens {
		for i := range s.target.Doors {
			if got := s.ask(ctx, question{door: &s.target.Doors[i], token: t}); got.outcome != accepted {
				return nil, fmt.Errorf("%s does not accept a token that was just issued: %s", s.target.Doors[i].name(), outcomeNames[got.outcome])
			}
		}
	}
	return tokens, nil
}

func (s *stage) tokens(ctx context.Context, n int) ([]string, error) {
	all := make([]string, n)
	for i := range all {
		var err error
		if all[i], err = s.token(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// token asks for a token of the target's client (RFC 6749 §4.4).
func (s *stage) token(ctx context.Context) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if s.target.Scope != "" {
		form.Set("scope", s.target.Scope)
	}
	body, status, err := s.post(ctx, s.target.TokenEndpoint, form)
	if err != nil {
		return "", err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.AccessToken == "" {
		return "", fmt.Errorf("token_endpoint gave no token: status %d", status)
	}
	return answer.AccessToken, nil
}

// revoke revokes a token at an endpoint (RFC 7009).
func (s *stage) revoke(ctx context.Context, at, token string) error {
	_, status, err := s.post(ctx, at, url.Values{"token": {token}})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the revocation endpoint answers %d", status)
	}
	return err
}

// post sends a form as the target's client. Errors hold nothing of the form.
func (s *stage) post(ctx context.Context, to string, form url.Values) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(s.target.Client.ID), url.QueryEscape(s.target.Client.resolved))
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return body, resp.StatusCode, err
}

// metric is the sum of the samples of one metric whose labels hold a text, or -1 where metrics are not to be had.
func (s *stage) metric(ctx context.Context, name, labels string) float64 {
	if s.target.Metrics == "" {
		return -1
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.target.Metrics, nil)
	if err != nil {
		return -1
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil || resp.StatusCode != http.StatusOK {
		return -1
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(body)) {
		sample, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if v, err := strconv.ParseFloat(value, 64); err == nil && strings.HasPrefix(sample, name+"{") && strings.Contains(sample, labels) {
			sum, found = sum+v, true
		}
	}
	if !found {
		return -1
	}
	return sum
}

// missed is how many questions memory could not answer so far, or was refreshed for; -1: nobody says.
func (s *stage) missed(ctx context.Context) float64 {
	misses, ahead := s.metric(ctx, "watchword_lookups_total", `result="miss"`), s.metric(ctx, "watchword_lookups_total", `result="refresh"`)
	if misses < 0 {
		return -1
	}
	return misses + max(0, ahead)
}

// embedded is the authority of a drill without a target. Its credential for Watchword can be rotated.
type embedded struct {
	config authority.Config

	mu sync.RWMutex // held for writing while a rotation swaps as
	as *authority.Authority
}

const (
	resourceServer = "watchword"
	oldSecret      = "drill-secret-old"
	newSecret      = "drill-secret-new"
)

func (e *embedded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	e.as.ServeHTTP(w, r)
}

// rotate lets the authority know Watchword by the new secret only.
func (e *embedded) rotate() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.as.Close(); err != nil {
		return err
	}
	for i := range e.config.Clients {
		if e.config.Clients[i].ID == resourceServer {
			e.config.Clients[i].Secret = newSecret
		}
	}
	next, err := authority.New(e.config)
	if err == nil {
		e.as = next
	}
	return err
}

// embed starts an authority, a proxy in front of it and a Watchword in front of that.
func (s *stage) embed(ctx context.Context, sc Scenario) error {
	dir, err := os.MkdirTemp("", "watchword-drill-")
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() { _ = os.RemoveAll(dir) })
	s.embedded = &embedded{config: authority.Config{
		Path: filepath.Join(dir, "authority.db"),
		Clients: []authority.Client{
			{ID: "drill", Secret: "drill-client", Scopes: []string{"drill"}, Audience: []string{"https://drill.example"}},
			{ID: resourceServer, Secret: oldSecret, Introspects: true},
		},
		AccessTokenLifetime: time.Hour,
	}}
	if sc.Name == "skew" {
		s.embedded.config.AccessTokenLifetime = max(4*time.Second, s.Unit.Truncate(time.Second))
	}
	socket, err := s.embedded.config.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer := "http://" + socket.Addr().String()
	s.embedded.config.Issuer = issuer
	if s.embedded.as, err = authority.New(s.embedded.config); err != nil {
		return errors.Join(err, socket.Close())
	}
	server := &http.Server{Handler: s.embedded, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(socket) }()
	s.undo = append(s.undo, func() { _ = server.Close(); _ = s.embedded.as.Close() })
	upstream, err := url.Parse(issuer + "/introspect")
	if err != nil {
		return err
	}
	if s.proxy, err = newProxy("127.0.0.1:0", upstream, s.timeline.call); err != nil {
		return err
	}
	timeout, bound := 500*time.Millisecond, 2*time.Second
	switch sc.Name {
	case "spray", "rotate": // a budget is promised, or that nothing fails: a slow machine's timeouts would only blur it
		timeout = 10 * time.Second
	case "herd": // one call is promised: a slow machine takes long for a thousand requests, and an answer too old is asked for again
		timeout, bound = 10*time.Second, 10*time.Minute
	}
	file, err := configuration(dir, s.proxy.url, issuer+"/revoke", timeout, bound)
	if err != nil {
		return err
	}
	live, stop := context.WithCancel(ctx)
	s.undo = append(s.undo, stop)
	w, err := s.Start(live, file)
	if err != nil {
		return err
	}
	caller := Credential{ID: "caller", resolved: "drill-caller"}
	s.target = &Target{
		Doors: []Door{
			{Introspection: "http://" + w.Introspection + "/introspect", Caller: caller},
			{ForwardAuth: "http://" + w.ForwardAuth + "/", Path: "/drill", Host: "drill.example"},
		},
		TokenEndpoint: issuer + "/token", RevocationEndpoint: issuer + "/revoke", PassThrough: "http://" + w.Events + "/revoke",
		Client: Credential{ID: "drill", resolved: "drill-client"}, Scope: "drill", Metrics: "http://" + w.Admin + "/metrics",
		MaxStaleness: Duration(bound), StaleIfError: Duration(2 * time.Second), Timeout: Duration(timeout), StormAtLeast: 20,
	}
	return nil
}

// configuration writes the file that the Watchword of an embedded drill serves.
func configuration(dir, introspection, revocation string, timeout, bound time.Duration) (string, error) {
	files := map[string]string{"rs-old": oldSecret, "rs-new": newSecret, "caller": "drill-caller"}
	files["watchword.yaml"] = `issuers:
  - name: drill
    introspection_endpoint: ` + introspection + `
    revocation_endpoint: ` + revocation + `
    client_auth: {method: client_secret_basic, client_id: ` + resourceServer + `, client_secret: [{file: rs-old}, {file: rs-new}]}
    tokens: {prefix: ` + authority.TokenPrefix + `}
    timeout: ` + timeout.String() + `
freshness: {max_staleness: ` + bound.String() + `, stale_if_error: 2s}
policies:
  - name: drill
    require: {scopes: [drill], audience: ["https://drill.example"]}
doors:
  introspection:
    listen: 127.0.0.1:0
    callers: [{client_id: caller, client_secret: {file: caller}}]
  forward_auth:
    listen: 127.0.0.1:0
    trusted_proxies: [127.0.0.0/8]
  events:
    listen: 127.0.0.1:0
    revoke: [{issuer: drill, path: /revoke}]
log: {level: error}
decision_log: {to: none}
admin: {listen: 127.0.0.1:0}
`
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "watchword.yaml"), nil
}
