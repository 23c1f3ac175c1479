package forwardauth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
)

// heard is what the Verifier is told about r: "METHOD host path" or the problem's word.
func heard(t *testing.T, c Config, r *http.Request) (string, watchword.Request) {
	t.Helper()
	v := allow()
	c.Verifier = v
	w := httptest.NewRecorder()
	open(t, c).ServeHTTP(w, r)
	asked := v.Asked()
	if len(asked) != 1 {
		t.Fatalf("asked %d times: a decision that nobody counts", len(asked))
	}
	if asked[0].Problem == watchword.InvalidRequest {
		return "invalid_request", asked[0]
	}
	return asked[0].Method + " " + asked[0].Host + " " + asked[0].Path, asked[0]
}

func original1(t *testing.T, want string, lines ...string) {
	t.Helper()
	if got, _ := heard(t, Config{}, ask("POST", "http://auth.internal/check?x=1", lines...)); got != want {
		t.Errorf("%q: %s, want %s", lines, got, want)
	}
}

// Covers: FWD-02
func TestFWD02ForwardedFamily(t *testing.T) {
	t.Parallel()
	const method, uri = "X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders/1?page=2"
	original1(t, "GET api.example /orders/1", method, uri, "X-Forwarded-Host: api.example")
	original1(t, "GET api.example:8443 /orders/1", method, uri, "X-Forwarded-Host: api.example:8443", "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1")
	original1(t, "GET  /orders/1", method, uri) // the Host of this request is ours, not the original's
	original1(t, "get  /a b", "X-Forwarded-Method: get", "X-Forwarded-Uri: /a%20b")
	original1(t, "PROPFIND  /", "X-Forwarded-Method: PROPFIND", "X-Forwarded-Uri: /?")
	for _, bad := range [][]string{
		{}, {method}, {uri}, {"X-Forwarded-Host: api.example"}, {"X-Forwarded-Host: api.example", "X-Forwarded-Proto: https"},
		{method, method, uri}, {method, uri, uri}, {method, uri, "X-Forwarded-Host: a", "X-Forwarded-Host: a"},
		{"X-Forwarded-Method: ", uri}, {method, "X-Forwarded-Uri: "}, {"X-Forwarded-Method: GET, POST", uri}, {"X-Forwarded-Method: GET POST", uri}, {"X-Forwarded-Method: G\x80T", uri},
		{method, uri, "X-Forwarded-Host: a, b"}, {method, uri, "X-Forwarded-Host: user@api.example"}, {method, uri, "X-Forwarded-Host: api.example/x"}, {method, uri, "X-Forwarded-Host: ap\u0131.example"},
		{method, "X-Forwarded-Uri: /a, /b//c"}, {method, "X-Forwarded-Uri: http://api.example/orders/1"}, {method, "X-Forwarded-Uri: *"}, {method, "X-Forwarded-Uri: orders"},
	} {
		original1(t, "invalid_request", bad...)
	}
}

// Covers: FWD-02
func TestFWD02OriginalFamily(t *testing.T) {
	t.Parallel()
	const method = "X-Original-Method: GET"
	original1(t, "GET auth.internal /orders/1", method, "X-Original-URI: /orders/1?page=2")
	original1(t, "GET auth.internal /orders/1", method, "X-Original-URL: /orders/1?page=2")
	original1(t, "GET api.example /orders/1", method, "X-Original-URL: https://api.example/orders/1?u=http://x/")
	original1(t, "GET api.example:8443 /", method, "X-Original-URL: HTTP://api.example:8443")
	original1(t, "GET api.example /", method, "X-Original-URL: https://api.example?u=/x")
	original1(t, "GET [::1]:8443 /x", method, "X-Original-URL: https://[::1]:8443/x")
	original1(t, "GET auth.internal /x", method, "X-Original-URI: /x", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Forwarded-Host: evil2", "X-Forwarded-For: 192.0.2.1")
	for _, bad := range [][]string{
		{method}, {"X-Original-URI: /x"}, {"X-Original-URL: /x"}, {method, method, "X-Original-URI: /x"}, {method, "X-Original-URI: /x", "X-Original-URI: /x"},
		{method, "X-Original-URI: /x", "X-Original-URL: /x"}, {method, "X-Original-URL: /x", "X-Original-URL: /x"},
		{method, "X-Original-URI: https://api.example/x"}, {method, "X-Original-URL: ftp://api.example/x"}, {method, "X-Original-URL: //api.example/x"}, {method, "X-Original-URL: https:///x"},
		{method, "X-Original-URL: https://user@api.example/x"}, {method, "X-Original-URL: https://api.example#/x"}, {method, "X-Original-URL: https://api.example\\@evil/x"}, {method, "X-Original-URL: api.example/x"}, {method, "X-Original-URL: "},
		{method, "X-Original-URL: https://api.example/a/../b"},
	} {
		original1(t, "invalid_request", bad...)
	}
}

// Covers: FWD-02 T20 T22
func TestFWD02_T20_T22BothFamiliesAndAliases(t *testing.T) {
	t.Parallel()
	forwarded := []string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders/1"}
	for _, other := range []string{"X-Original-Method: DELETE", "X-Original-URI: /admin", "X-Original-URL: /admin", "X-Original-URL: "} {
		original1(t, "invalid_request", append(forwarded, other)...)
	}
	for _, other := range []string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /x"} {
		original1(t, "invalid_request", "X-Original-Method: GET", "X-Original-URI: /orders/1", other)
	}
	for _, alias := range []string{"X_Forwarded_Uri: /admin", "X.Forwarded.Uri: /admin", "X-Forwarded_Uri: /admin", "X-Original.Uri: /admin", "X-Forwarded-Path: /admin", "X-Rewrite-Url: /admin", "Forwarded: for=1;host=evil",
		"X-Forwarded-Server: evil", "X-Forwarded-Prefix: /admin", "X-Forwarded-Port: 1", "X-Envoy-Original-Path: /admin", "X-Envoy-Original-Method: DELETE", "X-Http-Method-Override: DELETE", "X-Http-Method: DELETE", "X-Method-Override: DELETE",
		"Client-Cert: x", "X-Forwarded-Client-Cert: x", "User-Agent: kube-probe/1.30", "User-Agent: GoogleHC/1.0"} {
		original1(t, "GET  /orders/1", append(forwarded, alias)...)
	}
	original1(t, "GET  /orders/1", "x-forwarded-METHOD: GET", "X-FORWARDED-uri: /orders/1")
	original1(t, "GET  /orders/1", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders/1?_method=DELETE")
}

// Covers: FWD-02 T22
func TestFWD02_T22UntrustedPeer(t *testing.T) {
	t.Parallel()
	good := []string{"X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders/1", "X-Forwarded-For: 10.0.0.1", "X-Real-Ip: 10.0.0.1", "Authorization: Bearer abc"}
	for _, p := range []Profile{Standard, Nginx, Envoy} {
		for _, peer := range []string{"192.0.2.1:80", "127.0.0.1:80", "[::1]:80", "@", "", "pipe"} {
			for _, lines := range [][]string{nil, good, {"Authorization: Basic YTpi"}} {
				v := allow()
				r, w := ask("GET", "/orders/1", lines...), httptest.NewRecorder()
				r.RemoteAddr = peer
				open(t, Config{Verifier: v, Profile: p}).ServeHTTP(w, r)
				if a := v.Asked(); len(a) != 1 || a[0].Problem != watchword.InvalidRequest || a[0].Token != "" || a[0].Path != "" {
					t.Errorf("profile %s, peer %q: problem %v, path %q", p, peer, a[0].Problem, a[0].Path)
				}
				if want := map[bool]int{false: 400, true: 403}[p == Nginx]; w.Code != want {
					t.Errorf("profile %s, peer %q: status %d", p, peer, w.Code)
				}
			}
		}
	}
}

// Covers: ENV-06 T23
func TestENV06_T23EnvoyRequestLine(t *testing.T) {
	t.Parallel()
	f := func(prefix, method, target, want string) {
		t.Helper()
		r := ask("GET", "/", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /public", "X-Original-URI: /public", "X-Forwarded-Host: evil", "X-Envoy-Original-Path: /public")
		r.Method, r.RequestURI, r.Host = method, target, "api.example"
		if got, _ := heard(t, Config{Profile: Envoy, PathPrefix: prefix}, r); got != want {
			t.Errorf("prefix %q, %s %s: %s, want %s", prefix, method, target, got, want)
		}
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "CONNECT", "POST", "TRACE", "PATCH", "get"} {
		f("/authz", method, "/authz/orders/1?x=/authz", method+" api.example /orders/1")
		f("", method, "/orders/1", method+" api.example /orders/1")
	}
	f("/authz", "POST", "/authz/pkg.Service/Method", "POST api.example /pkg.Service/Method")
	f("/authz", "GET", "/authz/authz/x", "GET api.example /authz/x")
	f("", "GET", "/authz/x", "GET api.example /authz/x")
	for _, bad := range []string{"/orders/1", "/authz", "/authzorders", "/authz?x", "/authz//orders", "/authz/../admin", "/authz/%2e%2e/admin", "//authz/x", "/AUTHZ/x", "/%61uthz/x", "*", "", "http://evil/authz/x", "/authz*", "/authz/a;b"} {
		f("/authz", "GET", bad, "invalid_request")
	}
	f("", "OPTIONS", "*", "invalid_request")
	f("", "CONNECT", "api.example:443", "invalid_request")
}

// Covers: T23
func TestT23AmbiguousOriginalPath(t *testing.T) {
	t.Parallel()
	for _, path := range strings.Fields(`/admin%2f..%2fpublic /public/..;/admin //admin /./admin /%2e%2e/admin /a%252fb /a\b /a;jsessionid=1 /a%00 /a%3fb /a%23b /a./b /a%20/b /a%E2%80%A4 /%c0%ae/x http://api.example/admin /a#b /a%`) {
		original1(t, "invalid_request", "X-Forwarded-Method: GET", "X-Forwarded-Uri: "+path)
		original1(t, "invalid_request", "X-Original-Method: GET", "X-Original-URI: "+path)
	}
	// What is matched is what is served: case and escapes stay what they mean.
	original1(t, "GET  /Admin", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /Admin")
	original1(t, "GET  /a b", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /a%20b?x=/../admin#y")
}

// Covers: CHA-02 T16
func TestCHA02_T16Credentials(t *testing.T) {
	t.Parallel()
	f := func(want watchword.Reason, token, uri string, lines ...string) {
		t.Helper()
		_, got := heard(t, Config{}, ask("GET", "/check", append(lines, "X-Forwarded-Method: GET", "X-Forwarded-Uri: "+uri)...))
		if got.Problem != want || string(got.Token) != token {
			t.Errorf("%q, %s: problem %v, want %v", lines, uri, got.Problem, want)
		}
	}
	f(watchword.OK, "abc", "/", "Authorization: bEaReR abc")
	f(watchword.NoToken, "", "/")
	f(watchword.NoToken, "", "/?access_token=abc")
	f(watchword.NoToken, "", "/", "Proxy-Authorization: Bearer abc", "Cookie: access_token=abc", "X-Access-Token: abc")
	f(watchword.InvalidRequest, "", "/?access_token=abc", "Authorization: Bearer abc")
	f(watchword.InvalidRequest, "", "/?a=b&access%5Ftoken=abc", "Authorization: Bearer abc")
	f(watchword.InvalidRequest, "", "/", "Authorization: Bearer abc", "Authorization: Bearer abc")
	f(watchword.InvalidRequest, "", "/", "Authorization: Bearer a, DPoP b")
	f(watchword.MalformedToken, "", "/", "Authorization: Bearer a%0d%0ab")
	f(watchword.MalformedToken, "", "/", "Authorization: Bearer")
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	family := []string{"X-Original-Method: GET", "X-Original-URI: /", "X-Forwarded-For: 6.6.6.6, 192.0.2.7"}
	if _, got := heard(t, Config{}, ask("GET", "/", append(family, "X-Forwarded-For: 10.9.9.9")...)); got.Peer != "192.0.2.7" {
		t.Errorf("behind two gateways: %q", got.Peer)
	}
	r := ask("GET", "/", family...)
	r.RemoteAddr = "@"
	if _, got := heard(t, Config{TrustAll: true}, r); got.Peer != "192.0.2.7" || got.Path != "/" {
		t.Errorf("over a unix socket: %q, path %q", got.Peer, got.Path)
	}
	if _, got := heard(t, Config{}, ask("GET", "/", family[:2]...)); got.Peer != "10.0.0.1" {
		t.Errorf("the gateway alone: %q", got.Peer)
	}
}
