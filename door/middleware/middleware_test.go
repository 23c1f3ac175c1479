package middleware_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
	"github.com/watchword-dev/watchword/door/doortest"
	"github.com/watchword-dev/watchword/door/middleware"
)

// api is what is protected: nobody gets here without a Decision.
var api = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	d, ok := middleware.FromContext(r.Context())
	if nobody := ok && d.Answer == nil && d.Degraded == watchword.ServedUnknown; !nobody && (!ok || !d.Allowed() || d.Answer.Subject() != "ann") {
		w.WriteHeader(http.StatusTeapot)
	}
})

func ask(method, target string, authorization ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Header["Authorization"] = authorization
	return r
}

func allow() *doortest.Verifier { return &doortest.Verifier{Decision: doortest.Cases()[0].Decision} }

// Covers: CHA-01 CHA-03 CHA-04 CHA-06 MW-01
func TestMW01_CHA01_CHA03_CHA04_CHA06Decisions(t *testing.T) {
	t.Parallel()
	doortest.Run(t, func(v door.Verifier) http.Handler { return middleware.Protect(v, api) }, func(token string) *http.Request {
		return ask("GET", "/orders/1", "Bearer "+token)
	}, func(c doortest.Case) doortest.Answer {
		c.Answer.Degraded = "" // next knows, and says what it wants to its clients
		return c.Answer
	})
}

// Covers: CHA-07
func TestCHA07Realm(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	middleware.Config{Realm: `a"b`}.Protect(allow(), api).ServeHTTP(w, ask("GET", "/"))
	if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || got != `Bearer realm="a\"b"` {
		t.Errorf("%d %q", w.Code, got)
	}
}

// heard is the status, and what the Verifier was told about r.
func heard(t *testing.T, r *http.Request) (int, watchword.Request) {
	t.Helper()
	v, w := allow(), httptest.NewRecorder()
	middleware.Protect(v, api).ServeHTTP(w, r)
	asked := v.Asked()
	if len(asked) != 1 {
		t.Fatalf("asked %d times", len(asked))
	}
	return w.Code, asked[0]
}

// Covers: MW-01 CHA-02 T16
func TestMW01_CHA02_T16Credentials(t *testing.T) {
	t.Parallel()
	f := func(want int, problem watchword.Reason, target string, authorization ...string) {
		t.Helper()
		status, got := heard(t, ask("GET", target, authorization...))
		if status != want || got.Problem != problem {
			t.Errorf("%s %q: %d, problem %v; want %d, %v", target, authorization, status, got.Problem, want, problem)
		}
	}
	f(200, watchword.OK, "/", "Bearer abc")
	f(200, watchword.OK, "/?x=1", "bEaReR  abc==")
	f(401, watchword.NoToken, "/")
	f(401, watchword.NoToken, "/?access_token=abc")
	f(401, watchword.NoToken, "/", "Basic YTpi")
	f(401, watchword.MalformedToken, "/", "Bearer\tabc")
	f(401, watchword.MalformedToken, "/", "Bearer abc junk")
	f(401, watchword.MalformedToken, "/", "Bearer abc\t")
	f(400, watchword.InvalidRequest, "/", "Bearer abc", "Bearer abc")
	f(400, watchword.InvalidRequest, "/", "Bearer abc, Bearer def")
	f(400, watchword.InvalidRequest, "/?access_token=abc", "Bearer abc")
}

// Covers: T23 MW-01
func TestT23PathThatIsServed(t *testing.T) {
	t.Parallel()
	f := func(want, target string) {
		t.Helper()
		status, got := heard(t, ask("GET", target, "Bearer abc")) // parsed as a server does it
		if want == "" && (status != 400 || got.Problem != watchword.InvalidRequest) || want != "" && (status != 200 || got.Path != want) {
			t.Errorf("%s: %d, path %q, want %q", target, status, got.Path, want)
		}
	}
	f("/", "/")
	f("/orders/1", "/orders/1?x=/../y")
	f("/a b/é", "/a%20b/%C3%A9")
	f("/a|b", "/a|b")
	f("/a:b", "/a%3Ab")
	for _, bad := range []string{"/admin%2f..%2fpublic", "/public/..;/admin", "//admin", "/./admin", "/%2e%2e/admin", "/%61dmin", "/a%252fb", "/a\\b", "/a;b", "/a%00", "/a%3fb", "/a%23b", "/a.", "/a%20", "/é", "/a%2Fb", "/a%C0%AE"} {
		f("", bad)
	}
	rewritten := ask("GET", "/public", "Bearer abc")
	rewritten.URL.Path, rewritten.URL.RawPath = "/admin", "/public" // what another middleware left behind
	if status, _ := heard(t, rewritten); status != 400 {
		t.Errorf("judged by one path, served by another: %d", status)
	}
	star := ask("OPTIONS", "/", "Bearer abc")
	star.URL.Path, star.RequestURI = "*", "*"
	if status, _ := heard(t, star); status != 400 {
		t.Errorf("OPTIONS *: %d", status)
	}
}

// Covers: MW-01
func TestMW01RequestAsItIs(t *testing.T) {
	t.Parallel()
	r := ask("DELETE", "http://api.example:8443/orders/1", "Bearer abc")
	for _, spoof := range []string{"X-Forwarded-Host", "X-Forwarded-Method", "X-Forwarded-Uri", "X-Original-Url", "X-Http-Method-Override", "X-Forwarded-For"} {
		r.Header.Set(spoof, "GET")
	}
	r.Header.Set("X-Request-ID", "id-1")
	_, got := heard(t, r)
	if got.Door != "middleware" || got.Method != "DELETE" || got.Host != "api.example:8443" || got.Path != "/orders/1" || got.Peer != "192.0.2.1" || got.ID != "id-1" || got.Caller != "" {
		t.Errorf("door %s: %s %s %s, peer %s, id %s", got.Door, got.Method, got.Host, got.Path, got.Peer, got.ID)
	}
	v := allow()
	r.Header.Set("X-Forwarded-For", "198.51.100.7, 10.0.0.1")
	c := middleware.Config{Trusted: door.Peers{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("10.0.0.0/8")}}
	c.Protect(v, api).ServeHTTP(httptest.NewRecorder(), r)
	if got := v.Asked()[0].Peer; got != "198.51.100.7" {
		t.Errorf("behind proxies: peer %s", got)
	}
	r.RemoteAddr = "@" // a unix socket: nobody said that who connects there is a proxy
	if _, got := heard(t, r); got.Peer != "@" {
		t.Errorf("on a unix socket: peer %s", got.Peer)
	}
}

// Covers: POP-14 POP-20 T1
func TestPOP14_POP20_T1RealVerifier(t *testing.T) {
	t.Parallel()
	f := func(want int, body, path string) {
		t.Helper()
		src := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
			return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: q.At})
		})
		v, err := watchword.New(watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{
			{Match: watchword.Match{Paths: []string{"/a"}}, Policy: watchword.Policy{Name: "a", Scopes: []string{"read"}}},
			{Match: watchword.Match{Paths: []string{"/b"}}, Policy: watchword.Policy{Name: "b", Scopes: []string{"write"}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		middleware.Protect(v, api).ServeHTTP(w, ask("GET", path, "Bearer abc"))
		if w.Code != want {
			t.Errorf("%s, %s: %d, want %d", body, path, w.Code, want)
		}
	}
	const ann = `{"active":true,"sub":"ann","scope":"read"`
	f(200, ann+`}`, "/a")
	f(403, ann+`}`, "/b")
	f(403, ann+`}`, "/c")
	f(401, ann+`,"cnf":{"jkt":"0ZcOCORZNYy"}}`, "/a")
	f(401, ann+`,"cnf":{"new":1}}`, "/a")
	f(401, `{"active":false}`, "/a")
}

func TestFromContextWithoutProtect(t *testing.T) {
	t.Parallel()
	if d, ok := middleware.FromContext(context.Background()); ok || d.Answer != nil {
		t.Error("a Decision out of nowhere")
	}
}

func TestProtectNeedsBoth(t *testing.T) {
	t.Parallel()
	f := func(v door.Verifier, next http.Handler) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Error("something is missing, and nothing happened")
			}
		}()
		middleware.Protect(v, next)
	}
	f(nil, api)
	f(allow(), nil)
}

// The handler's own headers and body are its own, over a real connection.
func TestProtectedHandlerAnswers(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(middleware.Protect(allow(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, _ := middleware.FromContext(r.Context())
		_, _ = fmt.Fprint(w, "hello ", d.Answer.Subject())
	})))
	defer s.Close()
	r, err := http.NewRequest("GET", s.URL+"/orders/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer abc")
	client := &http.Client{Timeout: 20 * time.Second}
	got, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	body, err := io.ReadAll(got.Body)
	if err != nil || got.StatusCode != 200 || string(body) != "hello ann" || got.Header.Get("X-Request-ID") == "" {
		t.Errorf("%d %q, %v, %v", got.StatusCode, body, got.Header, err)
	}
}
