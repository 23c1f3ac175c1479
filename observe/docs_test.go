package observe

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

var metricName = regexp.MustCompile(`watchword_[a-z_]+[a-z]`)

// mentioned lists the metrics that a file speaks of.
func mentioned(t *testing.T, path string) []string {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := metricName.FindAllString(string(body), -1)
	slices.Sort(found)
	return slices.Compact(found)
}

// docs/metrics.md and the alert rules speak of every metric that is written in this package, and of no other.
func TestOBS01DocsAndAlertsNameRealMetrics(t *testing.T) {
	t.Parallel()
	var real []string
	for _, file := range []string{"metrics.go", "decisions.go"} {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"(watchword_[a-z_]+[a-z])"`).FindAllStringSubmatch(string(body), -1) {
			real = append(real, m[1])
		}
	}
	documented := mentioned(t, "../docs/metrics.md")
	for _, name := range real {
		if !slices.Contains(documented, name) {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}
	for _, name := range append(documented, mentioned(t, "../deploy/prometheus/alerts.yaml")...) {
		if !slices.Contains(real, name) {
			t.Errorf("%s is documented or alerted on, and does not exist", name)
		}
	}
}
