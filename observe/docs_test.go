package observe

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

func page(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile("../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// shown lists the metrics that are ours, as they are scraped, with their sorted labels.
func shown(t *testing.T) map[string][]string {
	t.Helper()
	families, err := used(t).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "watchword_") {
			labels := []string{}
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
			slices.Sort(labels)
			all[f.GetName()] = labels
		}
	}
	return all
}

var quoted = regexp.MustCompile("`([a-z_]+)`")

func TestOBS01MetricsPageIsTrue(t *testing.T) {
	t.Parallel()
	missing := shown(t)
	for line := range strings.Lines(page(t, "docs/metrics.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		var labels []string
		for _, l := range quoted.FindAllStringSubmatch(cells[2], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		for _, name := range quoted.FindAllStringSubmatch(cells[1], -1) {
			if want, ok := missing[name[1]]; !ok || !slices.Equal(labels, want) {
				t.Errorf("docs/metrics.md gives %s the labels %v; it has %v", name[1], labels, want)
			}
			delete(missing, name[1])
		}
	}
	for name := range missing {
		t.Errorf("docs/metrics.md lacks %s", name)
	}
}

var (
	selector = regexp.MustCompile(`\b(watchword_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`([a-z]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	suffix   = regexp.MustCompile(`_(bucket|sum|count)$`)
	grouping = regexp.MustCompile(`by \(([a-z, ]*)\) ?\(`)
)

// words are what a label from a closed list may be.
func words() map[string][]string {
	w := map[string][]string{
		"source":  sources[:],
		"outcome": {"ok", "inactive", "caller_rejected"},
		"result":  {"hit", "miss", "joined", "stale", "inactive", "refresh", "throttled", "paced"},
	}
	w["kind"] = []string{GapStream, string(revocation.GapStart), string(revocation.GapLog), string(revocation.GapMissing), string(revocation.GapUnread),
		string(revocation.GapClock), string(revocation.GapSilent), string(revocation.GapTold)}
	for _, d := range watchword.Degradations() {
		w["kind of a degradation"] = append(w["kind of a degradation"], d.String())
	}
	w["kind of a revocation"] = []string{"logout", "token", "user", "client"}
	w["what"] = []string{"unsettled", "late"}
	w["result of a shared store"] = []string{"hit", "miss", "joined", "stale", "skipped", "refused", "failed", "written", "lost"}
	w["outcome of a message"] = []string{"applied", "own", "duplicate", "stranger", "foreign", "unreadable", "refused"}
	w["outcome of a look"] = []string{"alive", "lying", "unknown"}
	w["outcome of a revocation"] = []string{"repeated", "ignored", "unfit", "refused", "failed"}
	for o := revocation.Applied; o <= revocation.Full; o++ {
		w["outcome of a revocation"] = append(w["outcome of a revocation"], o.String())
	}
	for _, r := range watchword.Reasons() {
		w["reason"] = append(w["reason"], r.String())
	}
	for _, f := range watchword.Failures() {
		w["outcome"] = append(w["outcome"], f.Error())
	}
	for _, b := range ageBounds {
		w["le"] = append(w["le"], fmt.Sprint(b.Seconds()))
	}
	return w
}

// An alert on a name or a word that does not exist never fires.
func TestOBS01AlertsAndPagesAskForWhatExists(t *testing.T) {
	t.Parallel()
	real, known := shown(t), words()
	for _, path := range []string{"deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts_test.yaml", "docs/metrics.md", "docs/runbooks.md", "docs/assumptions.md", "docs/revocation.md", "docs/outages.md"} {
		body := page(t, path)
		for _, found := range selector.FindAllStringSubmatch(body, -1) {
			name := found[1]
			labels, ok := real[name]
			if base := suffix.ReplaceAllString(name, ""); !ok && base != name && strings.HasSuffix(base, "_seconds") {
				labels, ok = append([]string{"le"}, real[base]...), real[base] != nil
			}
			if !ok {
				t.Errorf("%s: there is no metric %s", path, name)
			}
			for _, m := range matcher.FindAllStringSubmatch(found[2], -1) {
				label, values := m[1], strings.Split(m[2], "|")
				if !slices.Contains(append(labels, "job", "instance"), label) {
					t.Errorf("%s: %s has no label %s", path, name, label)
				}
				switch {
				case label == "outcome" && name == "watchword_revocation_events_total":
					label = "outcome of a revocation"
				case label == "kind" && name == "watchword_degraded_total":
					label = "kind of a degradation"
				case label == "kind" && strings.HasPrefix(name, "watchword_canary_"):
					label = "kind of a revocation"
				case label == "result" && name == "watchword_shared_answers_total":
					label = "result of a shared store"
				case label == "outcome" && name == "watchword_feed_messages_total":
					label = "outcome of a message"
				case label == "outcome" && name == "watchword_canary_looks_total":
					label = "outcome of a look"
				}
				for _, v := range values {
					if known[label] != nil && !strings.HasSuffix(name, "request_seconds_bucket") && !slices.Contains(known[label], v) {
						t.Errorf("%s: %s is never %s", path, label, v)
					}
				}
			}
		}
	}
	all := []string{"job", "instance", "le"}
	for _, labels := range real {
		all = append(all, labels...)
	}
	for _, found := range grouping.FindAllStringSubmatch(page(t, "deploy/prometheus/alerts.yaml"), -1) {
		for _, label := range strings.Split(found[1], ", ") {
			if !slices.Contains(all, label) {
				t.Errorf("alerts group by %s, which is no label", label)
			}
		}
	}
}

// Every assumption has its number, in order, and a metric of ours that shows it broken.
func TestEveryAssumptionHasAMetric(t *testing.T) {
	t.Parallel()
	n := 0
	for line := range strings.Lines(page(t, "docs/assumptions.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 6 || !strings.HasPrefix(cells[1], " A") {
			continue
		}
		if n++; strings.TrimSpace(cells[1]) != fmt.Sprintf("A%d", n) || !selector.MatchString(cells[4]) {
			t.Errorf("row %d: %s", n, line)
		}
	}
	if n < 5 {
		t.Errorf("%d assumptions", n)
	}
}

func TestOBS01EveryAlertHasARunbookAndATest(t *testing.T) {
	t.Parallel()
	rules, tests, runbooks := page(t, "deploy/prometheus/alerts.yaml"), page(t, "deploy/prometheus/alerts_test.yaml"), page(t, "docs/runbooks.md")
	alerts := strings.Split(rules, "- alert: ")[1:]
	if len(alerts) == 0 {
		t.Fatal("no alerts")
	}
	for _, rule := range alerts {
		name, _, _ := strings.Cut(rule, "\n")
		_, anchor, ok := strings.Cut(rule, "runbook: docs/runbooks.md#")
		anchor, _, _ = strings.Cut(anchor, "\n")
		if !ok || !strings.Contains(runbooks, "\n## "+anchor+"\n") {
			t.Errorf("%s: no runbook %q", name, anchor)
		}
		if !strings.Contains(tests, `alertname="`+name+`"`) {
			t.Errorf("%s: alerts_test.yaml does not try it", name)
		}
	}
}

// Whoever is paged finds for every word what it means, why, how to see it and what to do.
func TestEveryWordHasARunbook(t *testing.T) {
	t.Parallel()
	entries := map[string]string{}
	for _, entry := range strings.Split("\n"+page(t, "docs/runbooks.md"), "\n## ")[1:] {
		word, text, _ := strings.Cut(entry, "\n")
		if entries[word] != "" {
			t.Errorf("%s has two entries", word)
		}
		text, _, _ = strings.Cut(text, "\n# ")
		entries[word] = text
	}
	for _, f := range append(words()["reason"], words()["outcome"]...) {
		if entries[f] == "" && f != "ok" {
			t.Errorf("%s has no entry", f)
		}
	}
	for word, text := range entries {
		if word == "What the user sees" {
			continue
		}
		var had []string
		for _, part := range regexp.MustCompile(`(?m)^\*\*(\w+)\.\*\* \S`).FindAllStringSubmatch(text, -1) {
			had = append(had, part[1])
		}
		if !slices.Equal(had, []string{"Means", "Causes", "Check", "Fix"}) {
			t.Errorf("%s says %v", word, had)
		}
	}
	for _, r := range watchword.Reasons() { // the table of what is seen
		if row := fmt.Sprintf("\n| `%s` | %d", r, r.Row().HTTP); !strings.Contains(entries["What the user sees"], row) {
			t.Errorf("the table has no row that begins %q", row)
		}
	}
}
