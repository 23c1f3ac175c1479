package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// scanned is what a test file with this text covers, by id.
func scanned(t *testing.T, text string) map[string][]test {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "door"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "door", "x_test.go"), []byte("package x\n"+text), 0o644); err != nil {
		t.Fatal(err)
	}
	covers, err := scan(root)
	if err != nil {
		t.Fatal(err)
	}
	return covers
}

func found(t *testing.T, text string) string {
	t.Helper()
	var all []string
	for id := range scanned(t, text) {
		all = append(all, id)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestIdsInNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"TestINT05StringActive": "INT-05", "TestT29LeaderLeaves": "T29", "TestFWD01_T19Headers": "FWD-01 T19", "FuzzT08_MW01": "MW-01 T8",
		"TestRFC7662": "", "TestHTTP2": "", "TestUTF16": "", "TestSHA256T": "", "BenchmarkINT05": "", "helperINT05": "",
	} {
		if got := found(t, "func "+name+"() { x() }"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestIdsInComments(t *testing.T) {
	t.Parallel()
	if got := found(t, "// Covers: INT-01, T8\n// Covers: CHA-07\nfunc TestX() { x() }\n// It is like INT-02.\nfunc TestY() { x() }"); got != "CHA-07 INT-01 T8" {
		t.Error(got)
	}
}

func TestIdleTestsCoverNothing(t *testing.T) {
	t.Parallel()
	if got := found(t, `func TestINT01(t *T) {}; func TestINT02(t *T) { t.Skip("later"); x() }; func TestINT03(t *T) { t.Parallel(); x() }`); got != "INT-03" {
		t.Error(got)
	}
}

func TestPageSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	page, wrong := render(scanned(t, "func TestINT05() { x() }\nfunc TestINT99() { x() }"))
	if !strings.Contains(string(page), "[TestINT05](../door/x_test.go)") {
		t.Error(string(page))
	}
	if all := strings.Join(wrong, "; "); strings.Contains(all, "INT-05") || !strings.Contains(all, "INT-06 has no test") || !strings.Contains(all, "TestINT99 names INT-99") {
		t.Error(all)
	}
}

func TestCheckNoticesAnotherPage(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := run(root, true); err == nil || !strings.Contains(err.Error(), "INT-01 has no test") {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "conformance.md"), []byte("# other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(root, false); err == nil || !strings.Contains(err.Error(), "make docs") {
		t.Error(err)
	}
}
