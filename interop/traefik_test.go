package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Covers: FWD-04 T19 T22 T23
func TestTraefik(t *testing.T) {
	t.Parallel()
	s := newTraefikSite(t)
	ann, reader := s.as.token(t, "ann", forAPI), s.as.token(t, "ann", forAPI, "orders:read")
	service, other := s.as.token(t, "service", forAPI), s.as.token(t, "ann", forOther)

	// What the forward-auth door answers to a recorded request with this token.
	for _, kind := range []string{"shipped", "plain"} {
		judge := func(name, token string, want int, headers ...string) {
			t.Helper()
			r := replay(t, s.door, kind, name, token)
			if r.status != want {
				t.Errorf("%s/%s: status %d, want %d", kind, name, r.status, want)
			}
			for i := 0; i < len(headers); i += 2 {
				if got := r.header.Values(headers[i]); len(got) != 1 || got[0] != headers[i+1] {
					t.Errorf("%s/%s: %s is %q, want %q", kind, name, headers[i], got, headers[i+1])
				}
			}
			if r.body != "" {
				t.Errorf("%s/%s: body %q", kind, name, r.body)
			}
		}
		for _, name := range []string{"get", "head", "post", "post-chunked", "forged-identity", "named-in-connection", "absolute-form"} {
			judge(name, ann, 200, "X-Auth-Subject", "ann", "X-Auth-Scopes", "orders:read orders:write")
			judge(name, service, 200, "X-Auth-Subject", "", "X-Auth-Scopes", "orders:read orders:write")
			judge(name, other, 401, "WWW-Authenticate", `Bearer error="invalid_token"`)
		}
		judge("no-token", "", 401, "WWW-Authenticate", "Bearer", "Cache-Control", "no-store")
		judge("post", reader, 403, "WWW-Authenticate", `Bearer error="insufficient_scope", scope="orders:write"`)
		judge("two-credentials", ann, 400)
		judge("double-slash", ann, 200) // Traefik has made it plain, for us and for the API
		judge("dot-segment", ann, 403)  // as above: it asks for /admin
		judge("escaped-dots", ann, 403)
		judge("escaped-slash", ann, 400)
		judge("semicolon", ann, 400)
	}
	// The client's X-Original-* stays at Traefik with our configuration, and makes the question ambiguous with its
	// default: either way the client only harms itself.
	if r := replay(t, s.door, "shipped", "forged-request", ann); r.status != 403 {
		t.Errorf("shipped/forged-request: status %d, want 403", r.status)
	}
	if r := replay(t, s.door, "plain", "forged-request", ann); r.status != 400 {
		t.Errorf("plain/forged-request: status %d, want 400", r.status)
	}

	cold := s.as.token(t, "ann", forAPI)
	s.as.stop()
	r := replay(t, s.door, "shipped", "get", cold)
	if r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("the AS dead: status %d, Retry-After %q", r.status, r.header.Get("Retry-After"))
	}
}

// newTraefikSite runs Watchword as deploy/traefik/watchword.yaml has it: Traefik reaches it over TCP only.
func newTraefikSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{as: startOIDCProvider(t), door: freePort(t)}
	admin := freePort(t)
	serve(t, deployed(t, "traefik/watchword.yaml",
		"https://as.example/introspect", s.as.introspection(),
		"/etc/watchword/secret", write(t, dir, "secret", "rs-secret\n"),
		"127.0.0.1:8082", s.door,
		"127.0.0.1:9090", admin,
	), admin)
	deployed(t, "traefik/dynamic.yaml", "http://127.0.0.1:8082/", s.door) // both files mean the same door
	return s
}

// replay sends what Traefik sent, with this token for the word TOKEN.
func replay(t *testing.T, door, kind, name, token string) reply {
	t.Helper()
	path := filepath.Join("testdata", "traefik", kind, name+".http")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "TOKEN"); token != "" && n != 1 {
		t.Fatal(fmt.Errorf("%s holds the word TOKEN %d times", path, n))
	}
	return exchange(t, door, "GET", strings.ReplaceAll(string(text), "TOKEN", token))
}
