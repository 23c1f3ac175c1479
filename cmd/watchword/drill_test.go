package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type drilled struct {
	Held   bool
	Drills []struct {
		Scenario string
		Held     bool
		Promises []struct {
			Promise, Detail string
			Held            bool
		}
		Nodes []struct{ Samples int }
	}
}

// play runs one drill, generous with time: what is counted must be right on the slowest machine.
func play(t *testing.T, args ...string) (status int, found drilled) {
	t.Helper()
	status, out, stderr := command(t, "", map[string]string{}, append([]string{"drill", "--json", "--slack", "20s", "--unit", "1s"}, args...)...)
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("drill %v: %d %v\n%s%s", args, status, err, out, stderr)
	}
	return status, found
}

// Covers: T29 CAC-02
func TestDrillHerd(t *testing.T) {
	t.Parallel()
	report := filepath.Join(t.TempDir(), "report.html")
	status, found := play(t, "herd", "--report", report)
	if status != exitDone || !found.Held || len(found.Drills) != 1 || len(found.Drills[0].Promises) != 2 {
		t.Errorf("%d %+v", status, found)
	}
	page, err := os.ReadFile(report)
	if err != nil || !strings.Contains(string(page), "<svg") || strings.Contains(string(page), "wwat_") {
		t.Errorf("the report: %v", err)
	}
}

// Covers: CAU-03
func TestDrillRotate(t *testing.T) {
	t.Parallel()
	if status, found := play(t, "rotate"); status != exitDone {
		t.Errorf("%d %+v", status, found)
	}
}

// A target that runs already is drilled through its own doors; its authorization server is behind the drill's proxy.
func TestDrillATarget(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	as, err := startAuthority(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer as.Close()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := socket.Addr().String()
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg, err := demoConfig(dir, "http://"+proxy)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	// One call is promised while its answer is young enough, and in time: both last on the slowest machine.
	patient := strings.NewReplacer("max_staleness: 2s", "max_staleness: 10m", "  - name: demo\n", "  - name: demo\n    timeout: 10s\n").Replace(string(text))
	if err := os.WriteFile(cfg.Path, []byte(patient), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := startForDrill(io.Discard)(ctx, cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	client := filepath.Join(dir, "client")
	if err := os.WriteFile(client, []byte(demoSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "target.json")
	description := fmt.Sprintf(`{"doors":[{"introspection":"http://%s/introspect","caller":{"client_id":"%s","client_secret":{"file":%q}}}],
"token_endpoint":"%s/token","client":{"client_id":"%s","client_secret":{"file":%q}},"scope":"orders:read",
"introspection_endpoint":"%s/introspect","proxy":%q,"max_staleness":"10m","timeout":"10s"}`,
		w.Introspection, demoCaller, filepath.Join(dir, "caller-secret"), as.url, demoClient, client, as.url, proxy)
	if err := os.WriteFile(target, []byte(description), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, found := play(t, "herd", "--target", target); status != exitDone {
		t.Errorf("%d %+v", status, found)
	}
	status, out, stderr := command(t, "", nil, "drill", "rotate", "--target", target)
	if status != exitFailed || !strings.Contains(stderr, "without a target only") {
		t.Errorf("rotate against a target: %d\n%s%s", status, out, stderr)
	}
}

// Nobody waits for a drill whose report cannot be kept, and one that could not be played takes no earlier report along.
func TestDrillReportIsOpenedFirst(t *testing.T) {
	t.Parallel()
	status, out, stderr := command(t, "", nil, "drill", "herd", "--report", filepath.Join(t.TempDir(), "absent", "report.html"))
	if status != exitUsage || out != "" || strings.Contains(stderr, "…") {
		t.Errorf("%d, played in vain:\n%s%s", status, out, stderr)
	}
	report := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(report, []byte(strings.Repeat("earlier ", 1<<14)), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := command(t, "", nil, "drill", "herd", "--report", report, "--target", "absent.json"); status != exitUsage {
		t.Errorf("%d %s", status, stderr)
	}
	if page, err := os.ReadFile(report); err != nil || len(page) != 1<<17 {
		t.Errorf("an earlier report: %d bytes, %v", len(page), err)
	}
	if status, found := play(t, "herd", "--report", report); status != exitDone {
		t.Errorf("%d %+v", status, found)
	}
	if page, err := os.ReadFile(report); err != nil || !strings.HasSuffix(string(page), "</html>\n") || strings.Contains(string(page), "earlier") {
		t.Errorf("a new report: %v, ends with %q", err, page[max(0, len(page)-20):])
	}
}

func TestDrillMistakes(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"nonsense"}, {"herd", "--target", "absent.json"}, {"herd", "--unit", "1ms"}, {}} {
		if status, _, stderr := command(t, "", nil, append([]string{"drill"}, args...)...); status != exitUsage || stderr == "" {
			t.Errorf("%q: %d %s", args, status, stderr)
		}
	}
}
