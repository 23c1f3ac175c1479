package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/app"
)

// fleetOfOne serves a file whose authorization server calls every token active, and returns where operators and callers
// reach it.
func fleetOfOne(t *testing.T) (admin, introspect string, log *output) {
	t.Helper()
	_, admin, introspect, log = served(t)
	return admin, introspect, log
}

// served also returns the file.
func served(t *testing.T) (file, admin, introspect string, log *output) {
	t.Helper()
	as := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":true,"sub":%q,"client_id":"app","org_id":"acme","iat":%d}`, strings.TrimPrefix(r.PostFormValue("token"), "token-of-"), time.Now().Add(-time.Hour).Unix())
	}))
	t.Cleanup(as.Close)
	dir := t.TempDir()
	for name, text := range map[string]string{"caller": "door", "ops": "ops-secret-of-the-test", "acme": "acme-secret-of-the-test", "w.yaml": fmt.Sprintf(`
issuers: [{name: main, introspection_endpoint: "%s/introspect", client_auth: {method: none}, selector_claims: {tenant: org_id}}]
freshness: {max_staleness: 1h}
doors: {introspection: {listen: "127.0.0.1:0", callers: [{client_id: orders, client_secret: {file: caller}}]}}
revocation: {log: held}
admin: {listen: "127.0.0.1:0", operators: [{name: ops, bearer: {file: ops}}, {name: acme, bearer: {file: acme}, tenants: [acme]}]}
`, as.URL)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(dir, "w.yaml")
	c, err := app.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	log = new(output)
	a, err := app.Build(c, log, log)
	if err == nil {
		err = a.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return file, "http://" + a.Addr("admin").String(), "http://" + a.Addr("introspection").String() + "/introspect", log
}

// isActive is what the introspection door of fleetOfOne says of somebody's token.
func isActive(t *testing.T, introspect, who string) bool {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, introspect, strings.NewReader(url.Values{"token": {"token-of-" + who}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("orders", "door")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(body), `"active":true`)
}

func TestRevokeAtARunningInstance(t *testing.T) {
	t.Parallel()
	admin, introspect, log := fleetOfOne(t)
	active := func(who string) bool { return isActive(t, introspect, who) }
	ops, acme := map[string]string{"WATCHWORD_OPERATOR": "ops-secret-of-the-test"}, map[string]string{"WATCHWORD_OPERATOR": "acme-secret-of-the-test"}
	revoke := func(vars map[string]string, stdin string, args ...string) (int, string, string) {
		return command(t, stdin, vars, append([]string{"revoke", "--admin", admin, "--issuer", "main", "--why", "a test"}, args...)...)
	}
	for _, who := range []string{"ann", "bob", "cid", "dan"} {
		if !active(who) {
			t.Fatalf("%s is not active", who)
		}
	}
	if status, out, err := revoke(ops, "", "--sub", "ann"); status != 0 || !strings.HasPrefix(out, "revoked: ") {
		t.Errorf("a subject: %d %s %s", status, out, err)
	}
	if status, out, err := revoke(ops, "token-of-bob\n", "--token-stdin", "--json"); status != 0 || !strings.Contains(out, `"applied":true`) {
		t.Errorf("a token: %d %s %s", status, out, err)
	}
	if status, out, err := revoke(acme, "", "--sub", "cid", "--tenant", "acme"); status != 0 {
		t.Errorf("within a tenant: %d %s %s", status, out, err)
	}
	if active("ann") || active("bob") || active("cid") || !active("dan") {
		t.Error("not exactly those that were revoked are dead")
	}
	if strings.Contains(log.String(), "token-of-") || strings.Contains(log.String(), "secret-of-the-test") {
		t.Errorf("a token or a secret is logged:\n%s", log)
	}
	for what, c := range map[string]struct {
		vars   map[string]string
		args   []string
		status int
		says   string
	}{
		"beyond the tenant":   {acme, []string{"--sub", "dan"}, 3, "beyond"},
		"no operator":         {map[string]string{"WATCHWORD_OPERATOR": "wrong"}, []string{"--sub", "dan"}, 3, "no operator"},
		"no secret":           {nil, []string{"--sub", "dan"}, 2, "WATCHWORD_OPERATOR"},
		"nobody":              {ops, nil, 2, "whose tokens"},
		"two ways":            {ops, []string{"--whole-issuer", "--sub", "dan"}, 2, "stand alone"},
		"two tokens":          {ops, []string{"--jti", "a", "--token-stdin"}, 2, "stand alone"},
		"a jti and more":      {ops, []string{"--jti", "a", "--sub", "dan"}, 2, "stand alone"},
		"an empty token":      {ops, []string{"--token-stdin"}, 2, "no token"},
		"before what":         {ops, []string{"--sub", "dan", "--before", "yesterday"}, 2, "RFC 3339"},
		"of the future":       {ops, []string{"--sub", "dan", "--before", "2999-01-01T00:00:00Z"}, 2, "future"},
		"an effect":           {ops, []string{"--sub", "dan", "--effect", "kill"}, 2, "effect"},
		"no such selector":    {ops, []string{"--select", "color=red"}, 2, "not known"},
		"no such issuer":      {ops, []string{"--sub", "dan", "--issuer", "other"}, 2, "configured"},
		"http to the network": {ops, []string{"--sub", "dan", "--admin", "http://192.0.2.1:9090"}, 2, "https"},
		"no URL":              {ops, []string{"--sub", "dan", "--admin", "localhost"}, 2, "no URL"},
		"nobody there":        {ops, []string{"--sub", "dan", "--admin", "http://127.0.0.1:1"}, 1, "cannot be reached"},
		"another listener":    {ops, []string{"--sub", "dan", "--admin", strings.TrimSuffix(introspect, "/introspect")}, 2, "admin.operators"},
	} {
		if status, out, err := revoke(c.vars, "", c.args...); status != c.status || !strings.Contains(err, c.says) || out != "" {
			t.Errorf("%s: %d %q %q, want %d and %q", what, status, out, err, c.status, c.says)
		}
	}
	if !active("dan") {
		t.Error("a refused command revoked somebody")
	}
}

// What an operator said is named by `watchword check`, while the process that heard of it serves.
func TestCheckNamesTheRevocation(t *testing.T) {
	t.Parallel()
	file, admin, _, _ := served(t)
	check := func(flags ...string) (int, string) {
		t.Helper()
		status, out, stderr := command(t, "token-of-ann", nil, append([]string{"check", "--config", file, "-"}, flags...)...)
		if strings.Contains(out+stderr, "token-of-ann") {
			t.Errorf("check repeats the token:\n%s%s", out, stderr)
		}
		return status, out
	}
	if status, out := check(); status != exitDone || strings.Contains(out, "held") {
		t.Errorf("%d\n%s", status, out)
	}
	if status, _, stderr := command(t, "", map[string]string{"WATCHWORD_OPERATOR": "ops-secret-of-the-test"}, "revoke", "--admin", admin, "--issuer", "main", "--sub", "ann", "--why", "stolen laptop"); status != exitDone {
		t.Fatal(status, stderr)
	}
	if status, out := check(); status != exitRefused || !strings.Contains(out, `  held      deny of sub "ann", revoked since 2`) || !strings.Contains(out, `, by admin, who "ops", why "stolen laptop"`) || !strings.Contains(out, "decision  revoked") {
		t.Errorf("%d\n%s", status, out)
	}
	if _, out := check("--json"); !strings.Contains(out, `"held":{"tokens":"sub \"ann\"","effect":"deny","revokes":true,`) {
		t.Error(out)
	}
}
