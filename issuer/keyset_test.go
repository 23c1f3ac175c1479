package issuer

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

const oneKey = `{"keys":[{"kty":"OKP"}]}`

func TestKeySetFromWhereItIsConfigured(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"], w.Header()["Age"] = []string{"application/jwk-set+json"}, []string{"90"}
		_, _ = w.Write([]byte(oneKey))
	})
	before := time.Now()
	set, asOf, err := client(t, s.URL+"/introspect").KeySet(t.Context(), s.URL+"/jwks", 10*time.Minute)
	if err != nil || string(set) != oneKey {
		t.Fatalf("%s, %v", set, err)
	}
	if old := before.Sub(asOf); old > 90*time.Second || old < 60*time.Second {
		t.Errorf("as of %v before the question", old)
	}
	q := s.last(t)
	if q.method != "GET" || q.uri != "/jwks" || q.header.Get("Authorization") != "" || q.header.Get("Cache-Control") != "max-age=600" {
		t.Errorf("%s %s %v", q.method, q.uri, q.header)
	}
}

// Covers: DSC-01 DSC-03
func TestKeySetFromMetadata(t *testing.T) {
	t.Parallel()
	var s *server
	id, where := "", "/jwks"
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "/jwks" {
			says(oneKey)(w, r)
			return
		}
		writeJSON(w, 200, `{"issuer":"`+id+`","jwks_uri":"`+where+`"}`)
	})
	id, where = s.URL, s.URL+"/jwks"
	c := discovered(t, s.URL)
	if set, _, err := c.KeySet(t.Context(), "", 0); err != nil || string(set) != oneKey {
		t.Fatalf("%s, %v", set, err)
	}
	for _, bad := range []string{"", "http://as.example/jwks", "jwks", s.URL + "/jwks#a"} {
		where = bad
		_, _, err := c.KeySet(t.Context(), "", 0)
		wanted(t, nil, err, watchword.ConfigError)
	}
	id, where = "https://other.example", s.URL+"/jwks"
	_, _, err := c.KeySet(t.Context(), "", 0)
	wanted(t, nil, err, watchword.ConfigError)
	_, _, err = client(t, s.URL).KeySet(t.Context(), "", 0)
	if e := wanted(t, nil, err, watchword.ConfigError); !strings.Contains(e.Error(), "issuer") {
		t.Error(e)
	}
}

// Covers: T33
func TestKeySetIsRefusedWhereItIsNone(t *testing.T) {
	t.Parallel()
	for what, x := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   watchword.Failure
	}{
		"redirect":   {status(302, "Location", "http://127.0.0.1:1/"), watchword.ProtocolError},
		"not found":  {status(404), watchword.ProtocolError},
		"down":       {status(503), watchword.Unavailable},
		"html":       {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }, watchword.ProtocolError},
		"compressed": {status(200, "Content-Encoding", "gzip"), watchword.ProtocolError},
		"large":      {says(`{"` + strings.Repeat("a", watchword.MaxClaimsBytes)), watchword.ProtocolError},
		"age":        {status(200, "Age", "young"), watchword.ProtocolError},
	} {
		s := serve(t, x.answer)
		_, _, err := client(t, s.URL).KeySet(t.Context(), s.URL+"/jwks", 0)
		if e := wanted(t, nil, err, x.want); strings.Contains(e.Error(), leak) || len(s.questions()) != 1 {
			t.Errorf("%s: %v, asked %d times", what, e, len(s.questions()))
		}
	}
}

// A public server's metadata may not send us to a private address for its keys, whatever the name resolves to.
//
// Covers: DSC-03 T33
func TestKeySetOfAPublicServerIsNoPrivateAddress(t *testing.T) {
	t.Parallel()
	c := client(t, "https://as.example/i", func(c *Config) { c.Issuer = "https://as.example" })
	_, far, err := c.named("https://localhost:1/jwks", nil)
	if err != nil || far != "localhost:1" {
		t.Fatal(far, err)
	}
	ctx := t.Context()
	if _, err := c.dial(false)(context.WithValue(ctx, foreign{}, far), "tcp", far); err == nil || !strings.Contains(err.Error(), "private") {
		t.Error(err)
	}
	if _, err := c.dial(false)(ctx, "tcp", far); err == nil || strings.Contains(err.Error(), "private") {
		t.Error("refused what the operator configured:", err)
	}
}
