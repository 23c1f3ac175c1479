package interop

import (
	"path/filepath"
	"testing"
)

// The alert rules that we ship, by Prometheus' own tool: they are well formed, and fire when they should, and only then.
func TestAlerts(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := command("promtool", args...)
		cmd.Dir = filepath.Join(root(t), "deploy", "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v (interop/setup installs it): %v\n%s", args, err, out)
		}
	}
}
