package app

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/issuer"
)

// made is everything that Build hands to the other packages, as text.
func made(c *Config) string {
	var b strings.Builder
	for i := range c.Issuers {
		ic := c.Issuers[i].config(slog.New(slog.DiscardHandler))
		ic.Logger = nil
		ic.Auth = c.Issuers[0].ClientAuth.auth() // prints REDACTED; what is in it is tested against a server
		fmt.Fprintf(&b, "%+v %+v\n", c.Issuers[i].guarded(), c.Issuers[i].stormy(storm{}, nil))
		fmt.Fprintf(&b, "%+v %v\n", ic, c.Issuers[i].shape(new(issuer.Client)))
	}
	j := c.judgement(nil, nil, nil)
	fmt.Fprintf(&b, "%+v %+v %v %+v %v\n", j.Routes, j.Callers, c.keep(), c.remember(), c.fixed())
	fmt.Fprintf(&b, "%+v\n", c.ledgerIssuers())
	if c.Introspection != nil {
		d := c.introspectionConfig(nil)
		for i := range d.Callers {
			d.Callers[i].Secrets = nil
		}
		fmt.Fprintf(&b, "%+v\n", d)
	}
	if c.ForwardAuth != nil {
		fmt.Fprintf(&b, "%+v\n", c.forwardAuthConfig(nil, nil))
	}
	for name, pair := range c.servedWith() {
		fmt.Fprintf(&b, "%s %+v\n", name, pair)
	}
	return b.String()
}

// Every field of Config that the table fills reaches another package. Those that a test names elsewhere: secrets and
// keys (TestReloadPicksUpSecrets, TestClientAuthMethods), ways in (events_test.go), logs (TestForwardAuthOnASocketAndDecisionsInAFile, TestServe).
func TestT9EveryFieldReachesARoom(t *testing.T) {
	t.Parallel()
	elsewhere := []string{".Path", ".Hash", ".Log", ".DecisionLog", ".DeploymentSecret", ".Secret", ".PrivateKey",
		".ClientAuth.Method", ".ClientAuth.ClientID", ".KeyID", ".Alg", ".ClientAuth.Audience", ".Network", ".Revocation", ".Covering", ".Operators", ".Events", ".Introspection.Callers[0].ClientID", ".Freshness"}
	fresh := func() *Config {
		c := accepted(t, change(t, base, "8081\n", "8081\n    tls: {cert: c, key: k}\n")+"    tls: {cert: c, key: k}\n    headers: {X-Auth: sub}\nadmin: {listen: 127.0.0.1:1}\n")
		c.Issuers[0].Prefixes = []string{"a"}
		c.Issuers[0].JWT.Mode = "local_first"
		c.Policies[0].Match = watchword.Match{Hosts: []string{"a"}, Paths: []string{"/"}, Methods: []string{"GET"}}
		c.Policies[0].Policy.Issuers, c.Policies[0].Policy.Scopes = []string{"main"}, []string{"a"}
		return c
	}
	before := made(fresh())
	for n := 0; ; n++ {
		c := fresh()
		at := changeLeaf(reflect.ValueOf(c).Elem(), "", new(int), n)
		if at == "" {
			if n < 40 {
				t.Errorf("only %d fields were found", n)
			}
			return
		}
		named := false
		for _, e := range elsewhere {
			named = named || strings.HasSuffix(at, e) || strings.HasPrefix(at, e)
		}
		if !named && made(c) == before {
			t.Errorf("%s is read and does nothing", at)
		}
	}
}

// changeLeaf gives the nth leaf of v another value and returns its path; "": there are fewer.
func changeLeaf(v reflect.Value, path string, count *int, n int) string {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type().PkgPath() == "net/netip" {
			break
		}
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue
			}
			if at := changeLeaf(v.Field(i), path+"."+v.Type().Field(i).Name, count, n); at != "" {
				return at
			}
		}
		return ""
	case reflect.Pointer:
		if v.IsNil() {
			return ""
		}
		return changeLeaf(v.Elem(), path, count, n)
	case reflect.Slice:
		if v.Len() > 0 {
			return changeLeaf(v.Index(0), path+"[0]", count, n)
		}
	}
	if *count++; *count-1 != n {
		return ""
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint32:
		v.SetUint(v.Uint() + 1)
	case reflect.Float64:
		v.SetFloat((v.Float() + 1) / 2)
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		v.SetMapIndex(reflect.ValueOf("X-More"), reflect.ValueOf("sub"))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		if v.Index(0).Kind() == reflect.String {
			v.Index(0).SetString("x")
		}
	default:
		panic("a kind of field that this test does not know: " + path)
	}
	return path
}

// SIGHUP goes to the whole process, so no other test may serve meanwhile.
func TestHangupReloads(t *testing.T) {
	as := newServer(t, "live-token")
	path, _ := site(t, as)
	r := start(t, path)
	before := r.err.String()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.err.await(t, reloaded) // though no file has changed
	if strings.Contains(before, reloaded) {
		t.Error("it had reloaded before")
	}
	r.wants("door", "live-token", 200, `"sub":"ann"`)
}

// The policies by which the revoke door and a canary ask are in no file, so nobody is told what they say.
func TestCheckGoesByWhatIsWritten(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	dir := t.TempDir()
	write(t, dir, "as-secret", "one")
	c, err := Parse(write(t, dir, "w.yaml", fmt.Sprintf(`
issuers:
  - name: main
    issuer: %[1]s
    revocation_endpoint: %[1]s/revoke
    client_auth: {method: client_secret_basic, client_id: rs, client_secret: {file: as-secret}}
canary: [{issuer: main, client_auth: {method: client_secret_basic, client_id: c, client_secret: {file: as-secret}}, token_endpoint: %[1]s/token}]
doors:
  introspection: {listen: "127.0.0.1:0", callers: [{name: orders, bearer: {file: as-secret}}]}
  events: {listen: "127.0.0.1:0", revoke: [{issuer: main, path: /revoke}]}
`, as.URL)))
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := Check(t.Context(), c, Question{Token: "live-token"}, io.Discard)
	if err != nil || len(verdicts) != 1 || verdicts[0].Policy != "orders" || verdicts[0].Decision.Reason != watchword.OK {
		t.Errorf("%+v, %v", verdicts, err)
	}
	if _, err := Check(t.Context(), c, Question{Token: "live-token", Policy: "none"}, io.Discard); err == nil || !strings.HasSuffix(err.Error(), "there are: orders") {
		t.Errorf("%v", err)
	}
	c.Introspection = nil
	if _, err := Check(t.Context(), c, Question{Token: "live-token"}, io.Discard); err == nil || !strings.Contains(err.Error(), "nothing to judge by") {
		t.Errorf("%v", err)
	}
}

func TestCheckExplains(t *testing.T) {
	t.Parallel()
	as := newServer(t, "live-token")
	dir := t.TempDir()
	write(t, dir, "as-secret", "one")
	path := write(t, dir, "w.yaml", fmt.Sprintf(`
issuers:
  - name: main
    issuer: %s
    client_auth: {method: client_secret_basic, client_id: rs, client_secret: {file: as-secret}}
policies:
  - {name: read, match: {paths: ["/r/*"], methods: [GET]}, require: {scopes: [read], audience: [api]}}
  - {name: write, match: {paths: ["/w/*"]}, require: {scopes: [read, write], audience: [api]}}
doors:
  introspection: {listen: "127.0.0.1:0", callers: [{name: orders, bearer: {file: as-secret}, audience: [other]}]}
  forward_auth: {listen: "unix:/run/w.sock"}
`, as.URL))
	c, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	check := func(q Question, want ...string) []Verdict {
		t.Helper()
		if q.Token == "" {
			q.Token = "live-token"
		}
		verdicts, err := Check(t.Context(), c, q, &log)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range verdicts {
			got = append(got, v.Policy+" "+v.Decision.Reason.String())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: %q, want %q\n%s", q, got, want, &log)
		}
		return verdicts
	}
	all := check(Question{}, "read ok", "write scope")
	if n := as.asked.Load(); n != 1 {
		t.Errorf("two policies, one token: the AS was asked %d times", n)
	}
	last := all[1].Findings[len(all[1].Findings)-1]
	if last.Clause != "scope" || last.Holds || !strings.Contains(last.Detail, "missing write") {
		t.Errorf("%+v", all[1].Findings)
	}
	check(Question{Policy: "write"}, "write scope")
	check(Question{Policy: "orders"}, "orders audience")
	check(Question{Method: "GET", Path: "/r/a%20b"}, "read ok")
	check(Question{Method: "POST", Path: "/r/a"}, " policy")
	check(Question{Token: "dead-token"}, "read inactive", "write inactive")
	for _, q := range []Question{{Policy: "none"}, {Policy: "read", Method: "GET"}, {Path: "/a/../b"}} {
		q.Token = "live-token"
		if _, err := Check(t.Context(), c, q, &log); err == nil || strings.Contains(err.Error(), "live-token") {
			t.Errorf("%+v: %v", q, err)
		}
	}
	as.down.Store(true)
	check(Question{Policy: "read"}, "read misconfigured")
	if !strings.Contains(log.String(), "an issuer is not discovered") || strings.Contains(log.String(), "live-token") {
		t.Errorf("%s", &log)
	}
}

// What only the other packages can find is a mistake of `config check` as well.
func TestParseRehearsesServing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "one", "same")
	write(t, dir, "two", "same")
	certificate(t, dir, "c") // an EC key
	text := change(t, base, "{client_id: orders, client_secret: {env: ORDERS_SECRET}}", "{name: a, bearer: {file: one}}\n      - {name: b, bearer: {file: two}}")
	broken := func(text, path, reason string) {
		t.Helper()
		_, err := Parse(write(t, dir, "w.yaml", text))
		if ms, _ := err.(Mistakes); len(ms) != 1 || ms[0].Path != path || !strings.Contains(ms[0].Reason, reason) { //nolint:errorlint // Parse returns it bare
			t.Errorf("want %s: %s; got %v", path, reason, err)
		}
	}
	broken(text, "doors.introspection", "cannot be told from")
	broken(change(t, text, "{method: none}", "{method: private_key_jwt, client_id: a, audience: x, private_key: {file: c.key}, alg: RS256}"), "issuers[0]", "private_key")
}

func TestBuildRefusesAnUnwritableLog(t *testing.T) {
	t.Parallel()
	as := newServer(t)
	path, text := site(t, as)
	put(t, path, text+"decision_log: {to: "+filepath.Join(filepath.Dir(path), "none", "d.log")+"}\n")
	c, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(c, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "decision_log.to") {
		t.Error(err)
	}
}

// Nothing is kept that no policy could use, and everything is kept as long as one could.
func TestKeepIsTheLongestLife(t *testing.T) {
	t.Parallel()
	keep := func(top string, want time.Duration) {
		t.Helper()
		if got := accepted(t, base+"freshness: {"+top+"}\n").keep(); got != want {
			t.Errorf("%s: kept for %v, want %v", top, got, want)
		}
	}
	keep("max_staleness: 10s", 10*time.Second)
	keep("max_staleness: 10s, stale_if_error: 1m", 70*time.Second)
	keep("max_staleness: 0", -1)
	keep("max_staleness: 0, stale_if_error: 1m", time.Minute)
}

// Every client_auth of the file arrives at the server as its RFC says.
func TestClientAuthMethods(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serverCert, serverKey := certificate(t, dir, "server")
	certificate(t, dir, "rs")
	write(t, dir, "secret", "s%cret\n")
	var got *http.Request
	as := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got = r
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"active":true}`)
	}))
	pair, err := tls.LoadX509KeyPair(serverCert, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	as.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	as.StartTLS()
	t.Cleanup(as.Close)
	asks := func(auth string) *http.Request {
		t.Helper()
		c, err := Parse(write(t, dir, "w.yaml", change(t, base, "https://as.example/introspect", as.URL+"/introspect\n    timeout: 30s\n    tls: {ca: server.crt}\n    issuer: https://as.example",
			"{method: none}", auth, "{env: ORDERS_SECRET}", "{file: secret}")))
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		verdicts, err := Check(t.Context(), c, Question{Token: "live-token", Policy: "all"}, io.Discard)
		if err != nil || got == nil {
			t.Fatal(auth, err, verdicts)
		}
		return got
	}
	if id, secret, _ := asks("{method: client_secret_basic, client_id: r:s, client_secret: {file: secret}}").BasicAuth(); id != "r%3As" || secret != "s%25cret" {
		t.Errorf("client_secret_basic: %s %s", id, secret)
	}
	if f := asks("{method: client_secret_post, client_id: rs, client_secret: {file: secret}}").PostForm; f.Get("client_id") != "rs" || f.Get("client_secret") != "s%cret" {
		t.Errorf("client_secret_post: %v", f)
	}
	write(t, dir, "token", "our-own")
	if h := asks("{method: bearer, token: {file: token}}").Header.Get("Authorization"); h != "Bearer our-own" {
		t.Errorf("bearer: %s", h)
	}
	if r := asks("{method: none}"); r.Header.Get("Authorization") != "" || len(r.PostForm) != 2 {
		t.Errorf("none: %v %v", r.Header, r.PostForm)
	}
	if r := asks("{method: tls_client_auth, client_id: rs, cert: rs.crt, key: rs.key}"); r.PostFormValue("client_id") != "rs" || len(r.TLS.PeerCertificates) != 1 || r.TLS.PeerCertificates[0].Subject.CommonName != "rs" {
		t.Errorf("tls_client_auth: %v %v", r.PostForm, r.TLS.PeerCertificates)
	}
	assertion := func(auth, header, claims string) {
		t.Helper()
		f := asks(auth).PostForm
		parts := strings.Split(f.Get("client_assertion"), ".")
		if len(parts) != 3 {
			t.Fatalf("%s: %v", auth, f)
		}
		for i, want := range []string{header, claims} {
			body, err := base64.RawURLEncoding.DecodeString(parts[i])
			if err != nil || !strings.Contains(string(body), want) {
				t.Errorf("%s: %s lacks %s", auth, body, want)
			}
		}
	}
	assertion("{method: private_key_jwt, client_id: rs, private_key: {file: rs.key}, alg: ES256, kid: k1}", `"kid":"k1"`, `"aud":"https://as.example"`)
	assertion("{method: private_key_jwt, client_id: rs, private_key: {file: rs.key}, alg: ES256, audience: elsewhere}", `"alg":"ES256"`, `"aud":"elsewhere"`)
}
