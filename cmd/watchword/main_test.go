package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// output is what a command has printed so far; safe to read while the command runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// command runs one command line to its end.
func command(t *testing.T, stdin string, vars map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err output
	e := &env{ctx: t.Context(), stdin: strings.NewReader(stdin), stdout: &out, stderr: &err, getenv: func(name string) (string, bool) { v, ok := vars[name]; return v, ok }}
	return run(e, args), out.String(), err.String()
}

// demo starts the demo and waits for what it prints.
func demo(t *testing.T) (printed, decisions *output, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	printed, decisions = new(output), new(output)
	done := make(chan int, 1)
	go func() {
		done <- run(&env{ctx: ctx, stdin: strings.NewReader(""), stdout: printed, stderr: decisions, getenv: os.LookupEnv}, []string{"demo"})
	}()
	deadline, tick := time.After(20*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(printed.String(), "without the token.") {
		select {
		case status := <-done:
			t.Fatalf("the demo ended with %d\n%s%s", status, printed, decisions)
		case <-deadline:
			t.Fatalf("the demo printed only\n%s%s", printed, decisions)
		case <-tick.C:
		}
	}
	return printed, decisions, func() int { cancel(); return <-done }
}

// curl does what a printed line does, with net/http: the status of the request, and its body.
func curl(t *testing.T, line string) (status int, body string) {
	t.Helper()
	quoted := false
	words := strings.FieldsFunc(line, func(r rune) bool {
		if r == '\'' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
	for i := range words {
		words[i] = strings.Trim(words[i], "'")
	}
	method, form, target, user := http.MethodGet, []string(nil), "", ""
	header := http.Header{}
	for i := 1; i < len(words); i++ {
		switch words[i] {
		case "-s", "-si":
		case "-o", "-w":
			i++
		case "-H":
			i++
			name, value, _ := strings.Cut(words[i], ":")
			header.Add(name, strings.TrimSpace(value))
		case "-u":
			i++
			user = words[i]
		case "-d":
			i++
			method, form = http.MethodPost, append(form, words[i])
		default:
			target = words[i]
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(strings.Join(form, "&")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if id, secret, ok := strings.Cut(user, ":"); ok {
		req.SetBasicAuth(id, secret)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// The demo's three lines do what the demo says, and no token is in what else it writes.
// Covers: T18
func TestDemoLinesWorkAsPrinted(t *testing.T) {
	t.Parallel()
	printed, decisions, stop := demo(t)
	var lines []string
	for line := range strings.Lines(printed.String()) {
		if strings.HasPrefix(line, "curl ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) != 3 {
		t.Fatalf("%d lines that begin with curl; want 3", len(lines))
	}
	if status, _ := curl(t, lines[0]); status != 200 {
		t.Errorf("the good token: %d", status)
	}
	if status, _ := curl(t, lines[1]); status != 403 {
		t.Errorf("the token without the scope: %d", status)
	}
	parts := strings.Split(lines[2], "; ")
	if len(parts) != 4 || parts[2] != "sleep 3" {
		t.Fatalf("the third line is %q", lines[2])
	}
	if status, _ := curl(t, parts[0]); status != 200 {
		t.Errorf("before its revocation: %d", status)
	}
	if status, _ := curl(t, parts[1]); status != 200 {
		t.Errorf("its revocation: %d", status)
	}
	limit := time.Now().Add(20 * time.Second) // the line waits 3 s; here the refusal itself is awaited
	for {
		status, _ := curl(t, parts[3])
		if status == 401 {
			break
		}
		if status != 200 || time.Now().After(limit) {
			t.Fatalf("after its revocation: %d", status)
		}
	}
	if status := stop(); status != exitDone {
		t.Errorf("exit status %d after the signal; want 0", status)
	}
	for _, word := range []string{"wwat_", "app-secret", "watchword-secret"} {
		if strings.Contains(decisions.String(), word) {
			t.Errorf("stderr holds %q", word)
		}
	}
	if !strings.Contains(decisions.String(), `"reason":"scope"`) || !strings.Contains(decisions.String(), `"reason":"inactive"`) {
		t.Errorf("the decision log lacks a refusal:\n%s", decisions)
	}
}

// The commands beside the demo's lines work too, and check explains its token.
func TestDemoCloserLookAndCheck(t *testing.T) {
	t.Parallel()
	printed, _, stop := demo(t)
	defer stop()
	found := map[string]string{}
	for line := range strings.Lines(printed.String()) {
		if name, rest, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			found[name] = strings.TrimSpace(rest)
		}
	}
	if _, body := curl(t, found["RFC 7662 door"]); !strings.Contains(body, `"active":true`) || !strings.Contains(body, `"expires_in":`) {
		t.Errorf("introspection: %s", body)
	}
	if status, _ := curl(t, found["forward-auth door"]); status != 200 {
		t.Errorf("forward-auth: %d", status)
	}
	if _, body := curl(t, found["metrics"]); !strings.Contains(body, "watchword_decisions_total{") {
		t.Errorf("metrics: %s", body)
	}
	_, body := curl(t, found["a new token"])
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &token); err != nil || token.AccessToken == "" {
		t.Fatalf("no token: %v", err)
	}
	defer func() { // after all that needs the token
		revoke, _, _ := strings.Cut(found["revoke at once"], "      ")
		if status, _ := curl(t, revoke); status != 200 {
			t.Errorf("the revocation: %d", status)
		}
		if status, _ := curl(t, found["forward-auth door"]); status != 401 {
			t.Errorf("after the revocation: %d", status)
		}
	}()
	file := found["the configuration"]
	status, out, stderr := command(t, token.AccessToken+"\n", nil, "check", "--config", file, "-")
	if status != exitDone || !strings.Contains(out, "decision  ok (HTTP 200)") || !strings.Contains(out, "scope: all of orders:read required") {
		t.Errorf("check: %d\n%s%s", status, out, stderr)
	}
	if strings.Contains(out+stderr, token.AccessToken) {
		t.Error("check repeats the token")
	}
	status, out, _ = command(t, "", map[string]string{"T": "wwat_nothing"}, "check", "--config", file, "--token-env", "T", "--method", "GET", "--path", "/orders/7", "--json")
	var answer struct {
		Verdicts []finding `json:"verdicts"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || status != exitRefused || len(answer.Verdicts) != 1 || answer.Verdicts[0].Reason != "inactive" {
		t.Errorf("check --json: %d %v\n%s", status, err, out)
	}
	if status, out, _ = command(t, token.AccessToken, nil, "check", "--config", file, "--path", "/nowhere", "-"); status != exitRefused || !strings.Contains(out, "policy (HTTP 403)") {
		t.Errorf("check without a matching policy: %d\n%s", status, out)
	}
	if status, _, stderr = command(t, token.AccessToken, nil, "check", "--config", file, "--policy", "nope", "-"); status != exitUsage || !strings.Contains(stderr, "orders-read") {
		t.Errorf("check of an unknown policy: %d\n%s", status, stderr)
	}
}

func TestCheckNobodyKnows(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "w.yaml")
	text := `{issuers: [{name: main, introspection_endpoint: "http://127.0.0.1:1/introspect", client_auth: {method: none}}],
policies: [{name: all, require: {audience: [a]}}], doors: {forward_auth: {listen: "127.0.0.1:0", trusted_proxies: [127.0.0.1/32]}}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, stderr := command(t, "some-token", nil, "check", "--config", file, "-")
	if status != exitUnknown || !strings.Contains(out, "unavailable (HTTP 503)") {
		t.Errorf("%d\n%s%s", status, out, stderr)
	}
}

// A token as an argument is refused and not repeated.
func TestCheckRefusesATokenAsArgument(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"secret-canary"}, {"-", "--token-env", "X"}, {}, {"--token-env", "ABSENT"}} {
		status, out, stderr := command(t, "", nil, append([]string{"check", "--config", "x.yaml"}, args...)...)
		if status != exitUsage || strings.Contains(out+stderr, "canary") || stderr == "" {
			t.Errorf("%q: %d %s", args, status, stderr)
		}
	}
	if status, _, stderr := command(t, "", nil, "check", "--config", "x.yaml", "-"); status != exitUsage || !strings.Contains(stderr, "no token") {
		t.Errorf("an empty standard input: %d %s", status, stderr)
	}
}

func TestExitStatusOfMistakes(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("isuers: []\ndoors: {}\nfreshness: {max_staleness: -1s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve"}, {"serve", "--config", bad}, {"serve", "--config", "absent.yaml"}, {"nonsense"}, {"serve", "--nonsense"},
		{"config", "check", "--config", bad}, {"config", "check", "--config", bad, "--json"}, {"completion", "tcsh"}, {"check", "--config", bad, "-"}} {
		if status, out, stderr := command(t, "t", nil, args...); status != exitUsage || out+stderr == "" {
			t.Errorf("%q: %d %s%s; want 2 and a word why", args, status, out, stderr)
		}
	}
	_, _, stderr := command(t, "", nil, "serve", "--config", bad)
	for _, word := range []string{"isuers", "issuers", "max_staleness"} {
		if !strings.Contains(stderr, word) {
			t.Errorf("all mistakes at once: lacks %s\n%s", word, stderr)
		}
	}
}

func TestHelpVersionAndInit(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"--help"}, {"serve", "--help"}} {
		if status, out, _ := command(t, "", nil, args...); status != exitDone || !strings.Contains(out, "Usage: watchword") {
			t.Errorf("%q: %d %s", args, status, out)
		}
	}
	if status, out, _ := command(t, "", nil, "version", "--json"); status != exitDone || !json.Valid([]byte(out)) {
		t.Errorf("version: %d %s", status, out)
	}
	status, out, _ := command(t, "", nil, "config", "init")
	file := filepath.Join(t.TempDir(), "init.yaml")
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil || status != exitDone {
		t.Fatal(status, err)
	}
	if status, out, stderr := command(t, "", nil, "config", "check", "--config", file); status != exitDone || !strings.Contains(out, "is correct") {
		t.Errorf("what init prints is not correct: %d %s%s", status, out, stderr)
	}
	for _, want := range []string{"\npromises callers with credentials of their own: ", "max_staleness", "\nassumes A2: issuer ", "\nassumes A3: "} {
		if _, out, _ := command(t, "", nil, "config", "check", "--config", file); !strings.Contains("\n"+out, want) {
			t.Errorf("config check does not say %q:\n%s", want, out)
		}
	}
	_, out, _ = command(t, "", nil, "config", "check", "--config", file, "--json", "--tokens", "1000")
	var found struct {
		OK                bool
		Promises          []string
		Assumptions       []struct{ ID, Why string }
		Demands, Mistakes []any
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil || !found.OK || len(found.Promises) == 0 || len(found.Assumptions) < 3 || found.Demands == nil || found.Mistakes == nil {
		t.Errorf("config check --json: %v %s", err, out)
	}
	if status, _, _ := command(t, "", nil, "config", "check", "--config", file, "--tokens", "-1"); status != exitUsage {
		t.Errorf("--tokens -1: %d", status)
	}
	if status, out, _ := command(t, "", nil, "config", "schema"); status != exitDone || !json.Valid([]byte(out)) {
		t.Errorf("schema: %d", status)
	}
}

// The scripts are made of the command line itself; bash's is also run, where there is a bash.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		status, out, _ := command(t, "", nil, "completion", shell)
		if status != exitDone {
			t.Fatal(shell, status)
		}
		for _, word := range []string{"serve", "demo", "check", "completion", "schema", "token-env"} {
			if !strings.Contains(out, word) {
				t.Errorf("%s lacks %s", shell, word)
			}
		}
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		return
	}
	_, script, _ := command(t, "", nil, "completion", "bash")
	ask := script + "\nCOMP_WORDS=(watchword config s); COMP_CWORD=2; _watchword; echo \"${COMPREPLY[*]}\""
	got, err := exec.CommandContext(t.Context(), bash, "-c", ask).CombinedOutput()
	if err != nil || strings.TrimSpace(string(got)) != "schema" {
		t.Errorf("watchword config s<TAB>: %q %v", got, err)
	}
}
