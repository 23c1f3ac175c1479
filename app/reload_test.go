package app

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	reloaded = "the new configuration serves"
	kept     = "the new configuration is refused; the old one stays"
)

func TestReloadKeepsTheCache(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	r := start(t, path)
	r.wants("door", "live-token", 200, `"sub":"ann"`)
	put(t, path, change(t, text, "{client_id: orders", "{client_id: orders, claims: [scope]", "{level: debug}", "{level: info}"))
	r.err.await(t, reloaded)
	if status, body := r.introspect("door", "live-token"); status != 200 || strings.Contains(body, "ann") || !strings.Contains(body, "read") {
		t.Errorf("the caller's new claims: %d %s", status, body)
	}
	if n := as.asked.Load(); n != 1 {
		t.Errorf("the AS was asked %d times, want 1", n)
	}
}

func TestReloadPicksUpSecrets(t *testing.T) {
	t.Parallel()
	as := newServer(t, "a", "b", "c")
	path, _ := site(t, as)
	r := start(t, path)
	r.wants("door", "a", 200, `"sub":"ann"`)

	as.accept("two")
	put(t, filepath.Join(filepath.Dir(path), "as-secret"), "two\n")
	r.err.await(t, reloaded)
	r.wants("door", "b", 200, `"sub":"ann"`)
	if n := as.refused.Load(); n > 1 {
		t.Errorf("the AS refused %d times, want 1 at most", n)
	}

	put(t, filepath.Join(filepath.Dir(path), "caller-secret"), "gate\n")
	r.err.await(t, reloaded)
	r.wants("gate", "c", 200, `"sub":"ann"`)
	r.wants("door", "c", 401, "invalid_client")
}

func TestBadFileKeepsTheOldConfiguration(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	r := start(t, path)
	r.wants("door", "live-token", 200, `"sub":"ann"`)
	bad := func(text, why string) {
		t.Helper()
		put(t, path, text)
		r.err.await(t, kept)
		r.err.await(t, why)
		r.wants("door", "live-token", 200, `"sub":"ann"`)
		if _, metrics := r.get("admin", "/metrics"); !strings.Contains(metrics, "watchword_config_last_load_successful 0") {
			t.Error("the metric does not tell")
		}
	}
	bad("issuers: [", "is no YAML")
	bad(change(t, text, "{level: debug}", "{level: loud}"), "log.level")
	bad(change(t, text, "caller-secret", "no-such-secret"), "no such file")
	bad(change(t, text, "listen: 127.0.0.1:0", "listen: 127.0.0.1:1"), "doors.introspection.listen")
	bad(change(t, text, "admin: {listen: 127.0.0.1:0}\n", ""), "admin.listen")
	bad(text+"cache: {max_bytes: 1MiB}\n", "cannot change while it serves")
	if err := r.Reload(); !isMistakes(err) {
		t.Errorf("Reload: %v", err)
	}
	put(t, path, text+"# good again\n")
	r.err.await(t, reloaded)
	if _, metrics := r.get("admin", "/metrics"); !strings.Contains(metrics, "watchword_config_last_load_successful 1") {
		t.Error("the metric does not recover")
	}
}

// A configuration may come before the secret that it refers to.
func TestReloadRetriesWhenTheMissingFileAppears(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	r := start(t, path)
	put(t, path, change(t, text, "caller-secret", "late-secret"))
	r.err.await(t, kept)
	write(t, filepath.Dir(path), "late-secret", "late")
	r.err.await(t, reloaded)
	r.wants("late", "live-token", 200, `"sub":"ann"`)
}

// Kubernetes mounts link every file to ..data/file and ..data to a folder with a date, and switch ..data.
func TestReloadFollowsSwitchedLinks(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	dir := t.TempDir()
	version := func(name, secret string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), "secret", secret)
		if err := errors.Join(os.Symlink(name, filepath.Join(dir, "..new")), os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "first")
	if err := os.Symlink("..data/secret", filepath.Join(dir, "secret")); err != nil {
		t.Fatal(err)
	}
	put(t, path, change(t, text, "caller-secret", filepath.Join(dir, "secret")))
	r := start(t, path)
	r.wants("first", "live-token", 200, `"sub":"ann"`)
	version("..2", "second")
	r.err.await(t, reloaded)
	r.wants("second", "live-token", 200, `"sub":"ann"`)
	r.wants("first", "live-token", 401, "invalid_client")
}

func TestThroughEveryLink(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	in := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	if err := errors.Join(os.MkdirAll(in("v2", "deep"), 0o700), os.Symlink("v2", in("current")), os.Symlink(in("v2", "deep", "f"), in("v2", "link")), os.Symlink("../loop", in("loop"))); err != nil {
		t.Fatal(err)
	}
	write(t, in("v2", "deep"), "f", "x")
	check := func(path string, want ...string) {
		t.Helper()
		if got := through(path); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is found through %q, want %q", path, got, want)
		}
	}
	check(in("v2", "deep", "f"), in("v2", "deep"))
	check(in("current", "deep", "f"), dir, in("v2", "deep"))
	check(in("current", "link"), dir, in("v2"), in("v2", "deep"))
	check(in("none", "f"), in("none"))
	if n := len(through(in("loop"))); n > maxLinks+1 {
		t.Errorf("a loop is followed %d times", n)
	}
}

func TestDiscoveryDoesNotDelayServing(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	as.down.Store(true)
	path, text := site(t, as)
	put(t, path, change(t, text, "introspection_endpoint: "+as.URL+"/introspect", "issuer: "+as.URL))
	r := start(t, path)
	r.wants("door", "live-token", 503, "")
	if status, _ := r.get("admin", "/readyz"); status != 200 {
		t.Errorf("readyz is %d", status)
	}
	_, metrics := r.get("admin", "/metrics")
	if !strings.Contains(metrics, `reason="misconfigured"`) {
		t.Error("not misconfigured")
	}
	as.down.Store(false)
	until(t, func() bool { status, _ := r.introspect("door", "live-token"); return status == 200 })

	// A reload that leaves the issuer alone keeps what was discovered, also while metadata cannot be had.
	as.down.Store(true)
	as.live.Store("cold", true)
	put(t, path, change(t, text, "introspection_endpoint: "+as.URL+"/introspect", "issuer: "+as.URL, "{level: debug}", "{level: info}"))
	r.err.await(t, reloaded)
	r.wants("door", "cold", 200, `"sub":"ann"`)
}

func TestReloadDiscoversANewIssuerFirst(t *testing.T) {
	t.Parallel()
	as, other := newServer(t, "live-token"), newServer(t, "b_cold")
	other.veil = make(chan struct{})
	path, text := site(t, as)
	r := start(t, path)
	put(t, path, change(t, text, "freshness:", "  - name: other\n    issuer: "+other.URL+"\n    tokens: {prefix: b_}\n    client_auth: {method: client_secret_basic, client_id: rs, client_secret: {file: as-secret}}\nfreshness:"))
	until(t, func() bool { return other.found.Load() == 1 })
	if strings.Contains(r.err.String(), reloaded) {
		t.Error("it serves an issuer that nobody can ask yet")
	}
	r.wants("door", "live-token", 200, `"sub":"ann"`) // the old configuration serves meanwhile
	close(other.veil)
	r.err.await(t, reloaded)
	r.wants("door", "b_cold", 200, `"sub":"ann"`)
	r.wants("door", "live-token", 200, `"sub":"ann"`)
}

func TestTLSAndItsReload(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	path, text := site(t, as)
	dir := filepath.Dir(path)
	certificate(t, dir, "one")
	certificate(t, dir, "two")
	copyTo := func(name string) {
		t.Helper()
		for _, kind := range []string{".key", ".crt"} {
			body, err := os.ReadFile(filepath.Join(dir, name+kind))
			if err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, "door"+kind), string(body))
		}
	}
	copyTo("one")
	put(t, path, change(t, text, "listen: 127.0.0.1:0\n", "listen: 127.0.0.1:0\n    tls: {cert: door.crt, key: door.key}\n"))
	r := start(t, path)
	served := func(protocols ...string) (string, string) {
		t.Helper()
		c, err := tls.Dial("tcp", r.Addr("introspection").String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols, //nolint:gosec // compared below
			VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName, c.ConnectionState().NegotiatedProtocol
	}
	if name, protocol := served("h2", "http/1.1"); name != "one" || protocol != "h2" {
		t.Errorf("%s %s", name, protocol)
	}
	if _, protocol := served("http/1.1"); protocol != "http/1.1" {
		t.Error(protocol)
	}
	copyTo("two") // the key first: for an instant the two do not belong together
	until(t, func() bool { name, _ := served("h2"); return name == "two" })
}

// A file that is just being written is not read until it is still: half a secret is a secret too.
func TestMovingFilesAreWaitedFor(t *testing.T) {
	t.Parallel()
	holds := func(text string) snapshot { return snapshot{"secret": sha256.Sum256([]byte(text))} }
	seen := holds("old")
	step := func(pending, now, want snapshot, still bool) snapshot {
		t.Helper()
		next, is := moved(seen, pending, now)
		if !maps.Equal(next, want) || is != still {
			t.Errorf("%v %v", next, is)
		}
		return next
	}
	p := step(nil, holds("old"), nil, false)
	p = step(p, holds("hun"), holds("hun"), false)
	p = step(p, holds("hunter2"), holds("hunter2"), false)
	step(p, holds("hunter2"), nil, true)
	step(p, holds("old"), nil, false)
}
