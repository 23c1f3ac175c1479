package app

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
)

// folderAt is everything in a folder: names, contents and times.
func folderAt(t *testing.T, dir string) string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range all {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d %v %q\n", e.Name(), info.Size(), info.ModTime(), content(t, filepath.Join(dir, e.Name())))
	}
	return b.String()
}

// `watchword check` names the event that revokes, while the process that heard of it serves and holds its log; it
// changes nothing of that log, also where its end is torn, and says nothing of a token.
func TestCheckNamesWhatIsHeld(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	for name, more := range map[string]string{
		"one machine":       "",
		"a node of a fleet": fmt.Sprintf("deployment_secret: {file: deployment}\nrevocation: {log: held, bus: {nats: {url: %q}}}\n", broker(t).ClientURL()), // its ids are made under another key
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			as := newServer(t, "lost-token", "live-token")
			path, text := site(t, as)
			dir := filepath.Dir(path)
			write(t, dir, "deployment", strings.Repeat("k", 32))
			write(t, dir, "ops", "ops-secret-of-the-test")
			if more == "" {
				more = "revocation: {log: held}\n"
			}
			put(t, path, change(t, text, "admin: {listen: 127.0.0.1:0}", "admin: {listen: 127.0.0.1:0, operators: [{name: ops, bearer: {file: ops}}]}")+more)
			r := start(t, path)
			revoke := func(body string) {
				t.Helper()
				until(t, func() bool { // once the bus is there
					status, _ := r.post("admin", "/v1/revocations", "application/json", body, "Authorization", "Bearer ops-secret-of-the-test")
					return status == 200
				})
			}
			var log bytes.Buffer
			check := func(token watchword.Token) *Verdict {
				t.Helper()
				c, err := Parse(path)
				if err != nil {
					t.Fatal(err)
				}
				before := folderAt(t, filepath.Join(dir, "held"))
				verdicts, err := Check(t.Context(), c, Question{Token: token}, &log)
				if err != nil {
					t.Fatal(err)
				}
				if after := folderAt(t, filepath.Join(dir, "held")); after != before {
					t.Errorf("the folder was\n%s\nand is\n%s", before, after)
				}
				return &verdicts[0]
			}
			revoke(`{"issuer":"main","token":"lost-token","why":"leaked \"in\" a log"}`)
			v := check("lost-token")
			if h := v.Held; v.Decision.Reason != watchword.Revoked || h == nil || h.Tokens != "this token" || h.Effect != "deny" || !h.Revokes || h.Who != "ops" || h.Way != "admin" || h.Applied.IsZero() ||
				!strings.Contains(h.String(), `deny of this token, revoked since `) || !strings.Contains(h.String(), `who "ops", why "leaked \"in\" a log"`) {
				t.Errorf("%v %s", v.Decision.Reason, h)
			}
			if v = check("live-token"); v.Held != nil || v.Decision.Reason != watchword.OK {
				t.Errorf("%v %s", v.Decision.Reason, v.Held)
			}
			revoke(`{"issuer":"main","sub":"ann","client":"app","effect":"revalidate"}`) // no answer has that client: it is asked about, and it was
			if v = check("live-token"); v.Held != nil || v.Decision.Reason != watchword.OK {
				t.Errorf("asked for since: %v %s", v.Decision.Reason, v.Held)
			}
			revoke(`{"issuer":"main","sub":"ann","why":"stolen laptop"}`)
			if v = check("live-token"); v.Decision.Reason != watchword.Revoked || v.Held == nil || v.Held.Tokens != `sub "ann"` || v.Held.Why != "stolen laptop" {
				t.Errorf("%v %s", v.Decision.Reason, v.Held)
			}

			r.stop()
			<-r.done
			r.done <- nil
			file := filepath.Join(dir, "held", "log")
			if err := os.WriteFile(file, append([]byte(content(t, file)), "WWL1\x00\x00"...), 0o600); err != nil { // as a killed process leaves it
				t.Fatal(err)
			}
			if v = check("lost-token"); v.Held == nil || v.Held.Why != "stolen laptop" { // the newest that revokes
				t.Errorf("%v %s", v.Decision.Reason, v.Held)
			}
			if strings.Contains(log.String(), "-token") {
				t.Errorf("a token is logged:\n%s", &log)
			}
		})
	}
}

// What made room is seen: the metric is there before it is needed, and counts.
func TestForgettingIsSeen(t *testing.T) {
	t.Parallel()
	path, text := site(t, newServer(t))
	write(t, filepath.Dir(path), "ops", "ops-secret-of-the-test")
	put(t, path, change(t, text, "admin: {listen: 127.0.0.1:0}", "admin: {listen: 127.0.0.1:0, operators: [{name: ops, bearer: {file: ops}}]}")+"revocation: {max_bytes: 64KiB}\n")
	r := start(t, path)
	forgot := func() string {
		_, page := r.get("admin", "/metrics")
		_, after, _ := strings.Cut(page, "\nwatchword_ledger_forgotten_total{issuer=\"main\"} ")
		count, _, _ := strings.Cut(after, "\n")
		return count
	}
	if got := forgot(); got != "0" {
		t.Errorf("at the beginning %q", got)
	}
	for i := 0; forgot() == "0"; i++ {
		if i > 100 {
			t.Fatal("nothing is ever forgotten")
		}
		status, text := r.post("admin", "/v1/revocations", "application/json", fmt.Sprintf(`{"issuer":"main","sub":"s%d","effect":"revalidate","why":%q}`, i, strings.Repeat("y", 1000)), "Authorization", "Bearer ops-secret-of-the-test")
		if status != 200 {
			t.Fatal(status, text)
		}
	}
}
