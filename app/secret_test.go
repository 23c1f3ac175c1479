package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func isMistakes(err error) bool {
	_, ok := errors.AsType[Mistakes](err)
	return ok
}

func write(t *testing.T, dir, name, body string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reads := func(body, want string) {
		t.Helper()
		got, err := Secret{[]reference{{file: write(t, dir, "s", body)}}}.Resolve()
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q reads %q, %v; want %q", body, got, err, want)
		}
	}
	reads("hunter2", "hunter2")
	reads("hunter2\n", "hunter2")
	reads("hunter2\r\n", "hunter2")
	reads("hunter2\n\n", "hunter2\n")
	reads(" hunter2 ", " hunter2 ")
	fails := func(path, want string) {
		t.Helper()
		_, err := Secret{[]reference{{file: path}}}.Resolve()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
	fails(filepath.Join(dir, "none"), "no such file")
	fails(write(t, dir, "empty", ""), "is empty")
	fails(write(t, dir, "newline", "\n"), "is empty")
	fails(write(t, dir, "large", strings.Repeat("hunter2", maxSecretBytes)), "larger than")
	fails(dir, "no regular file")
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	fails(fifo, "no regular file") // and does not wait for a writer
}

func TestSecretEnvironment(t *testing.T) {
	t.Setenv("APP_TEST_SECRET", "hunter2")
	t.Setenv("APP_TEST_EMPTY", "")
	both := Secret{[]reference{{env: "APP_TEST_SECRET"}, {env: "APP_TEST_SECRET"}}}
	if got, err := both.Resolve(); err != nil || !slices.Equal(got, []string{"hunter2", "hunter2"}) {
		t.Error(got, err)
	}
	for _, name := range []string{"APP_TEST_EMPTY", "APP_TEST_UNSET"} {
		if _, err := (Secret{[]reference{{env: "APP_TEST_SECRET"}, {env: name}}}).Resolve(); err == nil || !strings.Contains(err.Error(), name) {
			t.Error(name, err)
		}
	}
}

func TestT18SecretPrintsRedacted(t *testing.T) {
	t.Parallel()
	c := accepted(t, base)
	js, err := json.Marshal(c.Introspection.Callers[0].Secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprintf("%v %+v %#v %q", c.Introspection.Callers[0].Secret, *c.Introspection, c.Introspection.Callers, c.Introspection.Callers[0].Secret), string(js)} {
		if strings.Contains(out, "ORDERS_SECRET") {
			t.Errorf("prints %s", out)
		}
	}
}

// A secret that was written into the file, or nearly so, is a mistake that never repeats it.
func TestT18LiteralSecretsAreNotRepeated(t *testing.T) {
	t.Parallel()
	literal := func(text string) {
		t.Helper()
		ms := mistakes(t, text)
		if len(ms) == 0 {
			t.Errorf("accepted:\n%s", text)
		}
		js, _ := json.Marshal(ms)
		if out := ms.Error() + string(js); strings.Contains(out, "hunter2") {
			t.Errorf("repeats the secret: %s", out)
		}
	}
	for _, s := range []string{"hunter2", "{value: hunter2}", "{hunter2: file}", "{file: a, env: hunter2}", "[hunter2]", "[{env: A}, hunter2]", "[[hunter2]]", "{env: 'hunter2!'}",
		"{file: [hunter2]}", "!!binary hunter2", "&hunter2 {env: A}", "*hunter2", "{env: {hunter2: x}}", "22hunter2", "'hunter2", "hunter2: x"} {
		literal(change(t, base, "{env: ORDERS_SECRET}", s))
		literal(base + "deployment_secret: " + s + "\n")
	}
	literal(change(t, base, "client_secret: {env: ORDERS_SECRET}", "client_secret:hunter2"))
	literal(change(t, base, "client_secret: {env: ORDERS_SECRET}", "client_secret, hunter2"))
	literal(change(t, base, "client_secret: {env: ORDERS_SECRET}", "client_secert: hunter2"))
	literal(change(t, base, "{method: none}", "hunter2"))
	literal(change(t, base, "{method: none}", "{method: bearer, token: hunter2}"))
	literal(change(t, base, "{method: none}", "{method: private_key_jwt, client_id: a, audience: b, private_key: hunter2}"))
}

// certificate writes a self-signed certificate for loopback and its key.
func certificate(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, dir, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func TestParseReadsWhatTheFileNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certificate(t, dir, "door")
	certificate(t, dir, "other")
	write(t, dir, "secret", "hunter2\n")
	text := change(t, base, "{env: ORDERS_SECRET}", "{file: secret}", "{method: none}", "{method: tls_client_auth, client_id: rs, cert: door.crt, key: door.key}\n    tls: {ca: door.crt}",
		"8081\n", "8081\n    tls: {cert: door.crt, key: door.key}\n") + "deployment_secret: {file: secret}\n"
	c, err := Parse(write(t, dir, "w.yaml", text))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range []string{"door.crt", "door.key", "secret", "w.yaml"} {
		want = append(want, filepath.Join(dir, name))
	}
	if got := c.Files(); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if !strings.Contains(strings.Join(c.Warnings(), "\n"), "deployment_secret is shorter than 16 bytes") {
		t.Errorf("%q", c.Warnings())
	}

	broken := func(path, reason string, pairs ...string) {
		t.Helper()
		_, err := Parse(write(t, dir, "broken.yaml", change(t, text, pairs...)))
		ms, ok := errors.AsType[Mistakes](err)
		if !ok || len(ms) != 1 || ms[0].Path != path || !strings.Contains(ms[0].Reason, reason) || ms[0].Line == 0 || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("want %s: %s; got %v", path, reason, err)
		}
	}
	broken("doors.introspection.callers[0].client_secret", "no such file", "client_secret: {file: secret}", "client_secret: {file: none}")
	broken("doors.introspection.tls", "private key does not match", "tls: {cert: door.crt, key: door.key}", "tls: {cert: door.crt, key: other.key}")
	broken("issuers[0].client_auth", "no such file", "cert: door.crt, key: door.key}\n    tls: {ca", "cert: none.crt, key: door.key}\n    tls: {ca")
	broken("issuers[0].tls.ca", "no certificate", "ca: door.crt", "ca: secret")
	broken("deployment_secret", "not set", "deployment_secret: {file: secret}", "deployment_secret: {env: APP_TEST_NEVER_SET}")
	write(t, dir, "spaced", "hunter2 hunter2")
	broken("doors.introspection.callers[0].bearer", "is no bearer token", "{client_id: orders, client_secret: {file: secret}}", "{name: a, bearer: {file: spaced}}")
	broken("issuers[0].client_auth.private_key", "no private key", "{method: tls_client_auth, client_id: rs, cert: door.crt, key: door.key}", "{method: private_key_jwt, client_id: rs, audience: a, private_key: {file: secret}}")
}

// What is wrong with the file does not hide what is wrong with the files and secrets that it names, nor the other way
// round.
func TestT9DiskAndFileMistakesAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := write(t, dir, "w.yaml", change(t, base, "client_auth: {method: none}", "client_auth: {method: client_secret_basic, client_id: rs, client_secret: {file: gone}}\n    tls: {ca: gone.pem}\n    timeout: -2s",
		"ORDERS_SECRET", "WATCHWORD_TEST_UNSET", "listen: 127.0.0.1:8081", "listen: 127.0.0.1:8081\n    tls: {cert: gone.pem}"))
	_, err := Parse(path)
	all, _ := errors.AsType[Mistakes](err)
	var paths []string
	for _, m := range all {
		paths = append(paths, m.Path)
	}
	want := []string{"issuers[0].client_auth.client_secret", "issuers[0].tls.ca", "issuers[0].timeout", "doors.introspection.tls.key", "doors.introspection.callers[0].client_secret"}
	if !slices.Equal(paths, want) {
		t.Errorf("%v\nwant mistakes at %v", err, want)
	}
}
