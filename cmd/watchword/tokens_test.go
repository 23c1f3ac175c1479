package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// What an instance remembers of a token is found by the token and by what its answer says, and purged; no token is
// shown.
//
// Covers: T18 T27
func TestTokensAreFoundAndPurged(t *testing.T) {
	t.Parallel()
	admin, introspect, log := fleetOfOne(t)
	for _, who := range []string{"ann", "bob"} {
		if !isActive(t, introspect, who) {
			t.Fatalf("%s is not active", who)
		}
	}
	ops := map[string]string{"WATCHWORD_OPERATOR": "ops-secret-of-the-test"}
	remembered := func(stdin string, args ...string) int {
		t.Helper()
		status, out, stderr := command(t, stdin, ops, append([]string{"tokens", "find", "--admin", admin, "--issuer", "main", "--json"}, args...)...)
		var found struct{ Remembered []map[string]any }
		if err := json.Unmarshal([]byte(out), &found); err != nil || status != exitDone {
			t.Fatalf("%v: %d %s%s", args, status, out, stderr)
		}
		if strings.Contains(out, "token-of-") {
			t.Errorf("%v shows a token: %s", args, out)
		}
		return len(found.Remembered)
	}
	if n := remembered("token-of-ann\n", "--token-stdin"); n != 1 {
		t.Errorf("by token: %d", n)
	}
	if n := remembered("", "--sub", "bob"); n != 1 {
		t.Errorf("by sub: %d", n)
	}
	if n := remembered("", "--tenant", "acme"); n != 2 {
		t.Errorf("by tenant: %d", n)
	}
	status, out, stderr := command(t, "", ops, "tokens", "find", "--admin", admin, "--issuer", "main", "--client", "app")
	if status != exitDone || strings.Count(out, "true") != 2 || !strings.Contains(out, "ENTRY") {
		t.Errorf("for people: %d %s%s", status, out, stderr)
	}
	status, out, stderr = command(t, "", ops, "tokens", "purge", "--admin", admin, "--issuer", "main", "--sub", "ann", "--why", "her scopes changed")
	if status != exitDone || !strings.Contains(out, "forgot 1") {
		t.Errorf("purge: %d %s%s", status, out, stderr)
	}
	if n := remembered("", "--client", "app"); n != 1 {
		t.Errorf("after the purge: %d", n)
	}
	if said := log.String(); !strings.Contains(said, "an operator purged tokens") || !strings.Contains(said, "her scopes changed") || strings.Contains(said, "token-of-") {
		t.Errorf("the audit log: %s", said)
	}
	acme := map[string]string{"WATCHWORD_OPERATOR": "acme-secret-of-the-test"}
	for _, args := range [][]string{{"--sub", "bob"}, {"--whole-issuer"}} {
		if status, out, stderr := command(t, "", acme, append([]string{"tokens", "find", "--admin", admin, "--issuer", "main"}, args...)...); status == exitDone {
			t.Errorf("beyond its tenant %v: %s%s", args, out, stderr)
		}
	}
	for _, args := range [][]string{{"find"}, {"purge", "--admin", admin, "--issuer", "main", "--sub", "a"}, {"find", "--admin", admin, "--issuer", "main"}, {"find", "--admin", "http://as.example", "--issuer", "main", "--sub", "a"}} {
		if status, _, stderr := command(t, "", ops, append([]string{"tokens"}, args...)...); status != exitUsage || stderr == "" {
			t.Errorf("%v: %d %s", args, status, stderr)
		}
	}
}
