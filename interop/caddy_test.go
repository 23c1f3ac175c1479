package interop

import (
	"os"
	"strings"
	"testing"
)

// Covers: FWD-04 T19 T20 T21 T22 T23
func TestCaddy(t *testing.T) {
	t.Parallel()
	s := newSite(t, "caddy", "unix")
	dir := t.TempDir()
	// Caddy writes a socket's address with two slashes; its admin API is of no use here.
	file := "{\n\tadmin off\n}\n" + deployed(t, "caddy/Caddyfile",
		"unix/"+strings.TrimPrefix(example, "unix:"), "unix/"+s.door, exampleAPI, s.api, ":8080", ":"+port(s.gateway))
	cmd := command("caddy", "run", "--adapter", "caddyfile", "--config", write(t, dir, "Caddyfile", file))
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	start(t, "caddy", cmd).ready(t, patience, listens(s.gateway))
	s.marks = marks{retryAfter: true, gone: 502, hung: 504}
	s.judge(t)
}
