package forwardauth

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
	"github.com/watchword-dev/watchword/door/doortest"
)

// serve opens c on loopback and returns its address.
func serve(t testing.TB, c Config) string {
	t.Helper()
	c.Trusted = door.Peers{netip.MustParsePrefix("127.0.0.0/8")}
	return serveHandler(t, open(t, c))
}

func serveHandler(t testing.TB, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, DisableGeneralOptionsHandler: true}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// send writes raw bytes and returns the responses, as many as wanted or until the server says that it closes.
func send(t *testing.T, address, raw string, responses int) []*http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // only a hang gets here
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(raw, " ")
	var got []*http.Response
	for b := bufio.NewReader(conn); len(got) < responses; {
		r, err := http.ReadResponse(b, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("response %d: %v", len(got)+1, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) > 0 {
			t.Fatalf("response %d has a body of %d bytes, %v", len(got)+1, len(body), err)
		}
		if got = append(got, r); r.Close {
			_ = conn.(*net.TCPConn).CloseWrite()
			if rest, err := io.ReadAll(b); err != nil || len(rest) > 0 {
				t.Fatalf("after the last response: %q, %v", rest, err)
			}
			break
		}
	}
	return got
}

const family = "X-Forwarded-Method: POST\r\nX-Forwarded-Uri: /orders/1\r\nAuthorization: Bearer " + doortest.Token + "\r\n"

// Covers: FWD-03
func TestFWD03AnnouncedBodyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for _, verdict := range doortest.Cases() {
		address := serve(t, Config{Verifier: &doortest.Verifier{Decision: verdict.Decision}})
		for _, announced := range []string{"Content-Length: 10\r\n", "Content-Length: 9999999999\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 10\r\nExpect: 100-continue\r\n"} {
			got := send(t, address, "POST /check HTTP/1.1\r\nHost: a\r\n"+family+announced+"\r\n", 1) // and no body, as nginx does
			if got[0].StatusCode != verdict.Answer.Status || !got[0].Close {
				t.Errorf("%s, %q: status %d, close %v", verdict.Name, announced, got[0].StatusCode, got[0].Close)
			}
		}
	}
}

// A body that does come is no second request.
func TestFWD03BodyIsNoRequest(t *testing.T) {
	t.Parallel()
	v := allow()
	inner := "GET /check HTTP/1.1\r\nHost: a\r\n" + family + "\r\n"
	got := send(t, serve(t, Config{Verifier: v}), "POST /check HTTP/1.1\r\nHost: a\r\n"+family+"Content-Length: "+strconv.Itoa(len(inner))+"\r\n\r\n"+inner, 2)
	if len(got) != 1 || len(v.Asked()) != 1 {
		t.Errorf("%d responses, %d decisions", len(got), len(v.Asked()))
	}
}

func TestConnectionIsKeptWithoutBody(t *testing.T) {
	t.Parallel()
	one := "GET /check HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" + family + "\r\n"
	for i, r := range send(t, serve(t, Config{Verifier: allow()}), one+one+one, 3) {
		if r.StatusCode != 200 || r.Close {
			t.Errorf("response %d: status %d, close %v", i, r.StatusCode, r.Close)
		}
	}
}

// Covers: FWD-03
func TestFWD03HeadDecidesLikeGet(t *testing.T) {
	t.Parallel()
	for _, c := range doortest.Cases() {
		address := serve(t, Config{Verifier: &doortest.Verifier{Decision: c.Decision}, Headers: map[string]string{"X-Auth-Subject": "sub"}})
		get := send(t, address, "GET /check HTTP/1.1\r\nHost: a\r\nX-Request-ID: x\r\n"+family+"\r\n", 1)[0]
		head := send(t, address, "HEAD /check HTTP/1.1\r\nHost: a\r\nX-Request-ID: x\r\n"+family+"\r\n", 1)[0]
		delete(get.Header, "Date")
		delete(head.Header, "Date")
		delete(get.Header, "Content-Length")
		delete(head.Header, "Content-Length")
		var g, h strings.Builder
		_, _ = get.Header.Write(&g), head.Header.Write(&h)
		if get.StatusCode != head.StatusCode || g.String() != h.String() {
			t.Errorf("%s: GET %d %q, HEAD %d %q", c.Name, get.StatusCode, &g, head.StatusCode, &h)
		}
	}
}

// Covers: T24 FWD-02
func TestT24_FWD02EveryPathAndMethodIsDecided(t *testing.T) {
	t.Parallel()
	v := &doortest.Verifier{Decision: watchword.Decision{Reason: watchword.Inactive}}
	address := serve(t, Config{Verifier: v})
	n := 0
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW", "get"} {
		for _, path := range []string{"/", "/check", "/healthz", "/readyz", "/ping", "/metrics", "/debug/pprof/", "//x/../y", "/%2e%2e", "*"} {
			if path == "*" && method != "OPTIONS" {
				continue
			}
			got := send(t, address, method+" "+path+" HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.30\r\n"+family+"\r\n", 1)
			if n++; got[0].StatusCode != 401 {
				t.Errorf("%s %s: status %d", method, path, got[0].StatusCode)
			}
		}
	}
	if len(v.Asked()) != n {
		t.Errorf("%d decisions for %d requests", len(v.Asked()), n)
	}
}

// Covers: T20 T21
func TestT20_T21SpoofedHeadersOverHTTP(t *testing.T) {
	t.Parallel()
	address := serve(t, Config{Verifier: allow(), Headers: map[string]string{"X-Auth-Subject": "sub", "X-Auth-Groups": "groups"}})
	f := func(want int, lines string) {
		t.Helper()
		got := send(t, address, "GET /check HTTP/1.1\r\nHost: a\r\n"+lines+"\r\n", 1)[0]
		if got.StatusCode != want {
			t.Errorf("%q: status %d, want %d", lines, got.StatusCode, want)
		}
		if want != 200 {
			return
		}
		subject, groups := got.Header["X-Auth-Subject"], got.Header["X-Auth-Groups"]
		if len(subject) != 1 || subject[0] != "ann" || len(groups) != 1 || groups[0] != "" {
			t.Errorf("%q: subject %q, groups %q", lines, subject, groups)
		}
		if c := got.Header["Connection"]; c != nil {
			t.Errorf("%q: Connection %q would strip headers", lines, c)
		}
		for name := range got.Header {
			if strings.ContainsAny(name, "_.") {
				t.Errorf("%q: header %s comes back", lines, name)
			}
		}
	}
	for _, spoofed := range []string{"X-Auth-Subject: mallory", "x-auth-subject: mallory\r\nX-AUTH-SUBJECT: eve", "X_Auth_Subject: mallory", "X.Auth.Subject: mallory", "X-Auth-Groups: admin ", "X-Auth_Groups: admin",
		"Connection: X-Auth-Subject, X-Auth-Groups", "Connection: keep-alive, X-Forwarded-Uri, Authorization", "Keep-Alive: X-Auth-Subject", "Te: trailers\r\nTrailer: X-Auth-Subject",
		"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings", "X-HTTP-Method-Override: DELETE"} {
		f(200, family+spoofed+"\r\n")
	}
	f(400, family+"x-forwarded-uri: /public\r\n")
	f(400, family+"X-FORWARDED-METHOD: GET\r\n")
	f(400, family+"x-original-uri: /public\r\n")
	f(400, family+"authorization: Bearer other\r\n")
}

// realDoor is the door over a real Verifier whose authorization server answers every token with body.
func realDoor(t testing.TB, body string, policies ...watchword.Route) *Door {
	t.Helper()
	src := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: q.At})
	})
	return open(t, Config{Verifier: verifier(t, src, policies...), Headers: map[string]string{"X-Auth-Subject": "sub", "X-Auth-Scopes": "scope"}})
}

func verifier(t testing.TB, src watchword.Source, policies ...watchword.Route) *watchword.Verifier {
	t.Helper()
	if policies == nil {
		policies = []watchword.Route{{Policy: watchword.Policy{Name: "all"}}}
	}
	v, err := watchword.New(watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: policies})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
