package interop

import (
	"path/filepath"
	"testing"
)

// Covers: FWD-03 FWD-04 T19 T20 T21 T22 T23
func TestHAProxy(t *testing.T) {
	t.Parallel()
	s := newSite(t, "haproxy", "unix")
	cfg := deployed(t, "haproxy/haproxy.cfg",
		"/etc/haproxy/watchword.lua", filepath.Join(root(t), "deploy", "haproxy", "watchword.lua"),
		"unix@/run/watchword/auth.sock", "unix@"+s.door, exampleAPI, s.api, exampleGateway, s.gateway,
		"abns@watchword", "abns@watchword"+filepath.Base(filepath.Dir(s.door)), // abstract names are the whole machine's
	)
	start(t, "haproxy", command("haproxy", "-db", "-f", write(t, t.TempDir(), "haproxy.cfg", cfg))).
		ready(t, patience, listens(s.gateway))
	s.marks = marks{retryAfter: true, gone: 503, hung: 503}
	s.judge(t)
}
