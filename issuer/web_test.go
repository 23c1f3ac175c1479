package issuer

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWebGoesNowhereElse(t *testing.T) {
	t.Parallel()
	web, err := NewWeb(WebConfig{Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(web.CloseIdleConnections)
	followed := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/there" {
			followed = true
		}
		http.Redirect(w, r, "/there", http.StatusFound)
	}))
	defer s.Close()
	answer, err := web.Get(s.URL)
	if err != nil || answer.StatusCode != http.StatusFound || followed {
		t.Errorf("a redirect: %v, followed %v", err, followed)
	} else {
		answer.Body.Close()
	}
	for _, at := range []string{"http://192.0.2.1/", "https://10.0.0.1/", "https://169.254.169.254/", "https://[::1]:1/", "ftp://127.0.0.1/"} {
		if answer, err := web.Get(at); err == nil {
			answer.Body.Close()
			t.Errorf("%s was reached", at)
		} else if !strings.Contains(err.Error(), "loopback only") && !strings.Contains(err.Error(), "private address") && !strings.Contains(err.Error(), "neither") {
			t.Errorf("%s: %v", at, err)
		}
	}
	if _, err := NewWeb(WebConfig{CAFile: "nowhere.pem"}); err == nil {
		t.Error("a missing file is taken")
	}
}

func TestRevocationEndpoint(t *testing.T) {
	t.Parallel()
	var named string
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"introspection_endpoint":%q,"revocation_endpoint":%q}`, s.URL, s.URL+"/i", named)
	}))
	defer s.Close()
	c, err := New(Config{Name: "main", Issuer: s.URL, Auth: None()})
	if err != nil {
		t.Fatal(err)
	}
	named = s.URL + "/revoke"
	if got, err := c.RevocationEndpoint(t.Context()); err != nil || got != named {
		t.Errorf("%q %v", got, err)
	}
	for _, bad := range []string{"", "http://as.example/revoke", "http://localhost:1/revoke", "ftp://127.0.0.1/x"} {
		if named = bad; named == s.URL {
			continue
		}
		if got, err := c.RevocationEndpoint(t.Context()); err == nil {
			t.Errorf("%q is taken: %q", bad, got)
		}
	}
}
