package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// front is a Watchword that faces callers (introspection door) and gateways (forward-auth door) at once.
type front struct {
	*daemon
	introspect string // the introspection door's URL
	door       string // the forward-auth door, host:port
	admin      string // host:port
	events     string // the events door's URL
	env        []string
}

// newFront runs Watchword with one issuer, written as YAML lines below `- name: main`. Callers of the introspection
// door are orders:orders-secret, or the authorization server's own clients if forward says so.
func newFront(t *testing.T, issuer []string, callers string) *front {
	t.Helper()
	return newFrontWithin(t, staleness.String(), issuer, callers)
}

// newFrontWithin is newFront with another max_staleness.
func newFrontWithin(t *testing.T, bound string, issuer []string, callers string) *front {
	t.Helper()
	return hall{bound: bound, issuer: issuer, callers: callers}.open(t)
}

// hall is what a front's configuration says.
type hall struct {
	bound   string   // max_staleness
	issuer  []string // YAML lines below `- name: main`
	callers string   // of the introspection door
	events  []string // YAML lines below doors.events, after listen; none: no such door
	address string   // of the events door; empty: a free one
	admin   string   // more keys of the section admin, each after a comma
	more    string   // further sections of the file
	env     []string
}

func (h hall) open(t *testing.T) *front {
	t.Helper()
	introspect, door, admin := freePort(t), freePort(t), freePort(t)
	if h.address == "" {
		h.address = freePort(t)
	}
	events := ""
	if len(h.events) > 0 {
		events = "  events:\n    listen: " + h.address + "\n    " + strings.Join(h.events, "\n    ") + "\n"
	}
	config := `issuers:
  - name: main
    ` + strings.Join(h.issuer, "\n    ") + `
freshness: {max_staleness: ` + h.bound + `}
policies:
  - name: orders
    match: {paths: ["/orders/*"]}
doors:
  introspection:
    listen: ` + introspect + `
    ` + h.callers + `
  forward_auth:
    listen: ` + door + `
    trusted_proxies: [127.0.0.1/32]
    headers: {X-Auth-Subject: sub}
` + events + `admin: {listen: ` + admin + h.admin + `}
` + h.more
	h.env = append(h.env, "ORDERS_SECRET=orders-secret")
	f := &front{
		daemon: serve(t, config, admin, h.env...), env: h.env,
		introspect: "http://" + introspect + "/introspect", door: door, admin: admin, events: "http://" + h.address,
	}
	if !strings.Contains(config, "introspection_endpoint:") && h.callers == ordersCalls {
		f.ready(t, patience, f.discovered) // it serves before, as misconfigured
	}
	return f
}

// discovered asks about no token at all: 503 until it is known whom to ask.
func (f *front) discovered() error {
	r, err := http.NewRequest(http.MethodGet, "http://"+f.door+"/", nil)
	if err != nil {
		return err
	}
	r.Header.Set("X-Forwarded-Method", "GET")
	r.Header.Set("X-Forwarded-Uri", "/orders/1")
	r.Header.Set("Authorization", "Bearer never-issued")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode == http.StatusServiceUnavailable {
		return fmt.Errorf("still %s", answer.Status)
	}
	return nil
}

const (
	ordersCalls = "callers: [{client_id: orders, client_secret: {env: ORDERS_SECRET}}]"
	asClients   = "forward_caller_auth: true"
)

// secretAuth is the client_auth line of a client whose secret is its name and "-secret", or another one.
func secretAuth(t *testing.T, method, client, secret string) string {
	t.Helper()
	return fmt.Sprintf("client_auth: {method: %s, client_id: %s, client_secret: {file: %s}}",
		method, client, write(t, t.TempDir(), "secret", secret+"\n"))
}

type claims map[string]json.RawMessage

// asks introspects a token through us, as the caller orders.
func (f *front) asks(t *testing.T, token string) (int, http.Header, []byte) {
	t.Helper()
	return postAs(t, f.introspect, "orders", "orders-secret", url.Values{"token": {token}})
}

// knocks asks the forward-auth door, as a gateway would.
func (f *front) knocks(t *testing.T, token string) reply {
	t.Helper()
	return send(t, f.door, ask{target: "/", token: token, headers: []string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders/1"}})
}

const inactive = `{"active":false}`

// faithful: through us a caller reads what the authorization server says, no member more, less or changed, but for
// expires_in. Both doors accept.
// Covers: PXY-06
func (f *front) faithful(t *testing.T, theirs []byte, token string) {
	t.Helper()
	var direct, ours claims
	if err := json.Unmarshal(theirs, &direct); err != nil || string(direct["active"]) != "true" {
		t.Fatalf("the authorization server says %s: %v", theirs, err)
	}
	for range 2 { // a miss, then a hit or another miss: no difference
		status, header, body := f.asks(t, token)
		if status != http.StatusOK {
			t.Fatalf("introspection door: %d %s", status, body)
		}
		if err := json.Unmarshal(body, &ours); err != nil {
			t.Fatal(err)
		}
		if got := header.Get("Content-Type"); got != "application/json" {
			t.Errorf("Content-Type %q", got)
		}
		if got := header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control %q", got)
		}
		if age, err := strconv.Atoi(header.Get("Age")); err != nil || age < 0 || time.Duration(age) > staleness/time.Second+1 {
			t.Errorf("Age %q", header.Get("Age"))
		}
		left, err := strconv.Atoi(string(ours["expires_in"]))
		var exp int64
		if err != nil || json.Unmarshal(ours["exp"], &exp) != nil {
			t.Fatalf("expires_in %s, exp %s: %v", ours["expires_in"], ours["exp"], err)
		}
		if over := time.Now().Unix() + int64(left) - exp; over < -2 || over > 1 {
			t.Errorf("expires_in %d ends %d s after exp %d", left, over, exp)
		}
		delete(ours, "expires_in")
		delete(direct, "expires_in")
		if !maps.EqualFunc(direct, ours, slices.Equal) {
			t.Errorf("the authorization server says\n%s\nand we\n%s", theirs, body)
		}
	}
	r := f.knocks(t, token)
	var sub string
	if direct["sub"] != nil {
		if err := json.Unmarshal(direct["sub"], &sub); err != nil {
			t.Fatal(err)
		}
	}
	if r.status != http.StatusOK || len(r.header.Values("X-Auth-Subject")) != 1 || r.header.Get("X-Auth-Subject") != sub {
		t.Errorf("forward-auth door: %d, X-Auth-Subject %q, want %q", r.status, r.header.Values("X-Auth-Subject"), sub)
	}
}

// lives: both doors accept the token.
func (f *front) lives(t *testing.T, what, token string) {
	t.Helper()
	if status, _, body := f.asks(t, token); status != http.StatusOK || !strings.Contains(string(body), `"active":true`) {
		t.Errorf("%s, introspection door: %d %s", what, status, body)
	}
	if r := f.knocks(t, token); r.status != http.StatusOK {
		t.Errorf("%s, forward-auth door: %d", what, r.status)
	}
}

// dead: both doors refuse the token, and the introspection door says nothing but that.
func (f *front) dead(t *testing.T, what, token string) {
	t.Helper()
	if status, _, body := f.asks(t, token); status != http.StatusOK || strings.TrimSpace(string(body)) != inactive {
		t.Errorf("%s, introspection door: %d %s", what, status, body)
	}
	if r := f.knocks(t, token); r.status != http.StatusUnauthorized || !strings.Contains(r.header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("%s, forward-auth door: %d %q", what, r.status, r.header.Get("WWW-Authenticate"))
	}
}

// dies holds us to the promise: a check that begins after bound is refused, at both doors.
func (f *front) dies(t *testing.T, what, token string, bound time.Time) {
	t.Helper()
	until(t, what, func() (bool, time.Time) {
		status, _, body := f.asks(t, token)
		if status != http.StatusOK {
			t.Fatalf("introspection door: %d %s", status, body)
		}
		return strings.TrimSpace(string(body)) == inactive, bound
	})
	until(t, what, func() (bool, time.Time) {
		r := f.knocks(t, token)
		if r.status != http.StatusOK && r.status != http.StatusUnauthorized {
			t.Fatalf("forward-auth door: %d", r.status)
		}
		return r.status == http.StatusUnauthorized, bound
	})
	f.dead(t, what, token)
}

// nobodyKnows: both doors say 503 with Retry-After, and neither that the token is bad.
// Covers: PXY-07 CHA-06
func (f *front) nobodyKnows(t *testing.T, what, token string) {
	t.Helper()
	status, header, body := f.asks(t, token)
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || strings.Contains(string(body), "active") {
		t.Errorf("%s, introspection door: %d, Retry-After %q, %s", what, status, header.Get("Retry-After"), body)
	}
	r := f.knocks(t, token)
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || r.header.Get("WWW-Authenticate") != "" {
		t.Errorf("%s, forward-auth door: %d, %v", what, r.status, r.header)
	}
}

// check runs `watchword check` with the token on its standard input, and returns its exit code and what it printed.
func (f *front) check(t *testing.T, token string) (int, string) {
	t.Helper()
	cmd := watchwordCommand(t, "check", "--config", f.config, "--method", "GET", "--host", "api.example", "--path", "/orders/1", "-")
	cmd.Env = append(cmd.Environ(), "ORDERS_SECRET=orders-secret")
	cmd.Stdin = strings.NewReader(token + "\n")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("watchword check: %v", err)
	}
	if strings.Contains(string(out), token) {
		t.Error("watchword check prints the token")
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// exits checks the exit code of `watchword check` and that it says why.
func (f *front) exits(t *testing.T, token string, want int, word string) {
	t.Helper()
	code, out := f.check(t, token)
	if code != want || !strings.Contains(out, word) {
		t.Errorf("watchword check exits %d, want %d with the word %s:\n%s", code, want, word, out)
	}
}
