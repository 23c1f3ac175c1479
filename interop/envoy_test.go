package interop

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Covers: FWD-04 T19 T20 T21 T22 T23 T25
func TestEnvoy(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(installed(t, "envoy", "lib", "python3*", "site-packages", "envoy", "_bin", "envoy"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("no Envoy, or more than one: %v %v (interop/setup installs it)", paths, err)
	}
	s := newSite(t, "envoy", "unix")
	yaml := deployed(t, "envoy/envoy.yaml",
		strings.TrimPrefix(example, "unix:"), s.door,
		"address: 127.0.0.1, port_value: 8080", "address: 127.0.0.1, port_value: "+port(s.gateway),
		"address: 127.0.0.1, port_value: 8000", "address: 127.0.0.1, port_value: "+port(s.api))
	for _, unsafe := range []string{"failure_mode_allow: true", "clear_route_cache: true"} {
		if strings.Contains(yaml, unsafe) {
			t.Errorf("the shipped configuration says %s", unsafe)
		}
	}
	cmd := exec.Command(paths[0], "--concurrency", "1", "--disable-hot-restart", "-l", "warning",
		"-c", write(t, t.TempDir(), "envoy.yaml", yaml))
	start(t, "envoy", cmd).ready(t, patience, listens(s.gateway))
	// Envoy takes a 503 for a broken Watchword: the status is what status_on_error says, and Retry-After is lost.
	s.marks = marks{retryAfter: false, gone: 503, hung: 503}
	s.judge(t)
}

func port(address string) string { return address[strings.LastIndex(address, ":")+1:] }
