package issuer

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/internal/memnet"
)

// discovered makes a Client that has to discover.
func discovered(t testing.TB, id string, edits ...func(*Config)) *Client {
	return client(t, "", append([]func(*Config){func(c *Config) { c.Issuer = id }}, edits...)...)
}

// Covers: DSC-02
func TestDSC02OrderOfDocuments(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		"":      {"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"},
		"/":     {"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"},
		"/a/b":  {"/.well-known/oauth-authorization-server/a/b", "/.well-known/openid-configuration/a/b", "/a/b/.well-known/openid-configuration"},
		"/a/b/": {"/.well-known/oauth-authorization-server/a/b", "/.well-known/openid-configuration/a/b", "/a/b/.well-known/openid-configuration"},
		"/a%2F": {"/.well-known/oauth-authorization-server/a%2F", "/.well-known/openid-configuration/a%2F", "/a%2F/.well-known/openid-configuration"},
	} {
		var paths []string
		found := -1
		var s *server
		s = serve(t, func(w http.ResponseWriter, r *http.Request) {
			paths = append(paths, r.RequestURI)
			if found != slices.Index(want, r.RequestURI) {
				status(404)(w, r)
				return
			}
			writeJSON(w, 200, fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":%q}`, s.URL+path, s.URL+"/introspect"))
		})
		for found = range want {
			paths = nil
			c := discovered(t, s.URL+path)
			if err := c.Discover(t.Context()); err != nil || !slices.Equal(paths, want[:found+1]) {
				t.Errorf("issuer path %q: looked at %q: %v", path, paths, err)
			}
		}
		paths, found = nil, len(want)
		if err := discovered(t, s.URL+path).Discover(t.Context()); err == nil || !slices.Equal(paths, want) {
			t.Errorf("issuer path %q, nothing there: looked at %q: %v", path, paths, err)
		}
	}
}

func TestDSC02WhatFailsIsNotPassedOver(t *testing.T) {
	t.Parallel()
	for _, code := range []int{500, 503, 429} {
		s := serve(t, status(code, "Retry-After", "7"))
		err := discovered(t, s.URL).Discover(t.Context())
		if e := wanted(t, nil, err, watchword.Unavailable); e.RetryAfter != 7*time.Second || len(s.questions()) != 1 {
			t.Errorf("status %d: %v, asked %d times", code, e.RetryAfter, len(s.questions()))
		}
	}
}

func TestDSC01MetadataOfAnotherIssuerIsRejectedAndTheLastGoodKept(t *testing.T) {
	t.Parallel()
	var id, where, document string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "POST":
			says(`{"active":true}`)(w, r)
		case document != "":
			writeJSON(w, 200, document)
		default:
			writeJSON(w, 200, fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":%q}`, id, where))
		}
	})
	c := discovered(t, s.URL)
	if e := failure(t, c, watchword.ConfigError); !strings.Contains(e.Error(), "not discovered yet") {
		t.Error(e)
	}
	id, where = s.URL, s.URL+"/good"
	if err := c.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	answer(t, c)
	good := func(why string) {
		t.Helper()
		wanted(t, nil, c.Discover(t.Context()), watchword.ConfigError)
		answer(t, c)
		if got := s.last(t).uri; got != "/good" {
			t.Errorf("%s: the token went to %s", why, got)
		}
	}
	where = s.URL + "/bad"
	port := s.URL[strings.LastIndexByte(s.URL, ':'):]
	for _, id = range []string{"", s.URL + "/", s.URL + "//", strings.ToUpper(s.URL), "http://localhost" + port, "http://127.0.0.1", "https" + strings.TrimPrefix(s.URL, "http"), leak} {
		good(id)
	}
	for _, document = range []string{`{}`, `[]`, `<html>`, `{"issuer":` + fmt.Sprintf("%q", s.URL) + `}`, fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":7}`, s.URL),
		fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":%q,"introspection_endpoint":%q}`, s.URL, where, where),
		fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":%q}`, s.URL, where) + strings.Repeat(" ", 1<<20)} {
		good(document[:min(len(document), 40)])
	}
}

// Covers: DSC-03 T33
func TestDSC03_T33MetadataMayNotSendTokensAnywhere(t *testing.T) {
	t.Parallel()
	public := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 443}
	inside := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 443}
	understand := func(id, where string, peer net.Addr) (*metadata, error) {
		c := discovered(t, id)
		claims := must(watchword.ParseClaims([]byte(fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":%q}`, id, where))))
		return c.understand(claims, peer)
	}
	const id = "https://as.example"
	for _, where := range []string{"http://as.example/i", "http://127.0.0.1/i", "http://localhost/i", "ftp://as.example/i", "/i", "https://u:" + leak + "@as.example/i", "https://as.example/i#f", ""} {
		if m, err := understand(id, where, public); err == nil {
			t.Errorf("%q from an https issuer: accepted as %s", where, m.target.name)
		} else {
			discreet(t, err.Error())
		}
	}
	if _, err := understand("http://127.0.0.1:9", "http://as.example/i", public); err == nil {
		t.Error("an issuer on loopback sends tokens out in the clear")
	}
	if m, err := understand("http://127.0.0.1:9", "http://127.0.0.1:10/i", inside); err != nil || m.target.foreign != "" {
		t.Errorf("another port on loopback: %v", err)
	}
	for _, x := range []struct {
		where   string
		peer    net.Addr
		foreign string
	}{
		{"https://as.example/i", public, ""},                                  // the configured host may be anywhere
		{"https://AS.example:8443/i", public, ""},                             //
		{"https://mtls.as.example/i", inside, ""},                             // a private server may name its neighbours
		{"https://mtls.as.example/i", public, "mtls.as.example:443"},          // a public one may name public ones:
		{"https://10.1.2.3:8443/i", public, "10.1.2.3:8443"},                  // this is refused when dialling
		{"https://[fd00::1]/i", public, "[fd00::1]:443"},                      //
		{"https://mtls.as.example/i", &net.UnixAddr{}, "mtls.as.example:443"}, // unknown counts as public
	} {
		if m, err := understand(id, x.where, x.peer); err != nil || m.target.foreign != x.foreign {
			t.Errorf("%s from %v: %v, %v", x.where, x.peer, m, err)
		}
	}
	m := must(understand(id, "https://127.0.0.1:1/i", public))
	c := discovered(t, id)
	c.target.Store(m.target)
	if e := failure(t, c, watchword.Unavailable); !strings.Contains(e.Error(), "may not name a private one") {
		t.Errorf("a public server's metadata reached loopback: %v", e)
	}
}

// Covers: DSC-03 T33
func TestDSC03_T33DiscoveryFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, says(`{}`))
	s := serve(t, status(302, "Location", elsewhere.URL))
	wanted(t, nil, discovered(t, s.URL).Discover(t.Context()), watchword.ConfigError)
	if len(elsewhere.questions()) != 0 {
		t.Error("followed")
	}
	for _, q := range s.questions() {
		if q.header.Get("Authorization") != "" || q.body != "" {
			t.Error("a credential went to a public document")
		}
	}
}

// Covers: CAU-05
func TestCAU05MethodThatTheServerDoesNotNameIsWarnedOf(t *testing.T) {
	t.Parallel()
	warned := func(auth ClientAuth, members string) int {
		var log bytes.Buffer
		c := discovered(t, "https://as.example", func(c *Config) {
			c.Auth = auth
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		claims := must(watchword.ParseClaims([]byte(`{"issuer":"https://as.example","introspection_endpoint":"https://as.example/i"` + members + `}`)))
		for range 2 {
			c.warn(t.Context(), must(c.understand(claims, nil)).methods)
		}
		discreet(t, log.String())
		return strings.Count(log.String(), "level=WARN")
	}
	const at, token = `,"introspection_endpoint_auth_methods_supported":`, `,"token_endpoint_auth_methods_supported":`
	basic := ClientSecretBasic("rs", fixed(hush))
	for members, want := range map[string]int{
		"":                                0, // says nothing
		at + `["client_secret_basic"]`:    0,
		at + `["client_secret_post"]`:     1, // once, not every hour
		at + `[]`:                         1,
		token + `["client_secret_post"]`:  1, // the fallback, for the warning only
		token + `["client_secret_basic"]`: 0,
		at + `["client_secret_basic"]` + token + `["private_key_jwt"]`: 0,
	} {
		if got := warned(basic, members); got != want {
			t.Errorf("%s: %d warnings, want %d", members, got, want)
		}
	}
	if got := warned(Bearer(fixed(hush)), at+`["client_secret_basic"]`); got != 0 {
		t.Error("a bearer token has no name in metadata")
	}
}

func TestCAU05ConfiguredMethodIsUsedWhateverMetadataSays(t *testing.T) {
	t.Parallel()
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			says(`{"active":true}`)(w, r)
			return
		}
		writeJSON(w, 200, fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":%q,"introspection_endpoint_auth_methods_supported":["private_key_jwt"]}`, s.URL, s.URL+"/i"))
	})
	c := discovered(t, s.URL)
	if err := c.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	answer(t, c)
	if got := s.last(t).header.Get("Authorization"); !strings.HasPrefix(got, "Basic ") {
		t.Errorf("sent %q", got)
	}
}

// Covers: CAU-04
func TestCAU04AliasForMutualTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert, key := ca.issue(t, "client", time.Now().Add(time.Hour))
	files := TLS{CertFile: t.TempDir() + "/c", KeyFile: t.TempDir() + "/k"}
	write(t, files.CertFile, cert)
	write(t, files.KeyFile, key)
	const doc = `{"issuer":"https://as.example","introspection_endpoint":"https://as.example/i","mtls_endpoint_aliases":%s}`
	name := func(c *Client, aliases string) string {
		m, err := c.understand(must(watchword.ParseClaims([]byte(fmt.Sprintf(doc, aliases)))), nil)
		if err != nil {
			return "refused"
		}
		return m.target.name
	}
	mutual := discovered(t, "https://as.example", func(c *Config) { c.Auth, c.TLS = TLSClientAuth("rs"), files })
	basic := discovered(t, "https://as.example")
	const alias = `{"introspection_endpoint":"https://mtls.as.example/i"}`
	if got := name(mutual, alias); got != "https://mtls.as.example/i" {
		t.Error(got)
	}
	if got := name(mutual, `{"token_endpoint":"https://mtls.as.example/t"}`); got != "https://as.example/i" {
		t.Error(got)
	}
	if got := name(basic, alias); got != "https://as.example/i" {
		t.Error(got)
	}
	for _, bad := range []string{`[]`, `"x"`, `{"introspection_endpoint":"http://mtls.as.example/i"}`} {
		if got := name(mutual, bad); got != "refused" {
			t.Errorf("%s: %s", bad, got)
		}
	}
}

// Covers: DSC-01 DSC-02
func TestDSC01_DSC02RunFindsRefreshesAndKeeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var net memnet.Network
		var phase atomic.Int32
		var mu sync.Mutex
		var times []time.Duration
		start := time.Now()
		looked := func() []time.Duration { // since it was last called
			mu.Lock()
			defer mu.Unlock()
			all := times
			times = nil
			return all
		}
		net.Serve(t, "localhost:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				says(`{"active":true,"sub":"`+r.URL.Path+`"}`)(w, r)
				return
			}
			mu.Lock()
			times = append(times, time.Since(start))
			mu.Unlock()
			switch phase.Load() {
			case 0:
				status(503)(w, r)
			case 1:
				writeJSON(w, 200, `{"issuer":"http://localhost","introspection_endpoint":"http://localhost/one"}`)
			case 2:
				writeJSON(w, 200, `{"issuer":"http://evil","introspection_endpoint":"http://localhost/evil"}`)
			case 3:
				writeJSON(w, 200, `{"issuer":"http://localhost","introspection_endpoint":"http://localhost/two"}`)
			}
		}))
		c := discovered(t, "http://localhost")
		c.transport.Load().DialContext = net.Dial
		done := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		go func() { defer close(done); c.Run(ctx) }()
		at := func(d time.Duration) { time.Sleep(time.Until(start.Add(d))); synctest.Wait() }
		at(30 * time.Second)
		failure(t, c, watchword.ConfigError)
		if at := looked(); len(at) < 5 || len(at) > 8 {
			t.Errorf("attempts in 30 s: %v", at)
		}
		phase.Store(1)
		at(100 * time.Second)
		if got := answer(t, c).Subject(); got != "/one" {
			t.Errorf("asked at %s", got)
		}
		looked()
		phase.Store(2)
		at(59 * time.Minute)
		if at := looked(); len(at) != 0 {
			t.Errorf("looked again at %v", at)
		}
		at(62 * time.Minute)
		if got, at := answer(t, c).Subject(), looked(); got != "/one" || len(at) == 0 {
			t.Errorf("asked at %s after bad documents at %v", got, at)
		}
		phase.Store(3)
		at(64 * time.Minute)
		if got := answer(t, c).Subject(); got != "/two" {
			t.Errorf("asked at %s", got)
		}
		stop()
		<-done
		c.transport.Load().CloseIdleConnections()
	})
}

func TestRunHasNothingToDoForAConfiguredEndpoint(t *testing.T) {
	t.Parallel()
	c := client(t, "https://as.example/i", func(c *Config) { c.Issuer = "https://as.example" })
	c.Run(t.Context())
	if err := c.Discover(t.Context()); err != nil || c.target.Load().name != "https://as.example/i" {
		t.Error(err)
	}
}

func TestPauseGrowsToAMinute(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 1 << 30: time.Minute} {
		if got := pause(n, 0); got != want {
			t.Errorf("%d: %v", n, got)
		}
		if got := pause(n, 0.999999); got < want/2 || got >= want {
			t.Errorf("%d with jitter: %v", n, got)
		}
	}
}

func TestWellKnownKeepsThePort(t *testing.T) {
	t.Parallel()
	if got := wellKnown(must(url.Parse("https://as.example:8443/r")))[2].String(); got != "https://as.example:8443/r/.well-known/openid-configuration" {
		t.Error(got)
	}
}
