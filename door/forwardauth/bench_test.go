package forwardauth

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// hello is what everything is compared with: a handler that answers with three small headers.
var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h["X-A"], h["X-B"], h["X-C"] = helloA, helloA, helloA
	w.WriteHeader(http.StatusOK)
})

var helloA = []string{"abcdefgh"}

// hitDoor is the door over a real Verifier and a Source that always has the answer.
func hitDoor(t testing.TB) *Door {
	t.Helper()
	a, err := watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann","client_id":"web","aud":"api","scope":"read write","exp":4102444800}`), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { return a, nil })
	v := verifier(t, src, watchword.Route{
		Match:  watchword.Match{Hosts: []string{"api.example"}, Paths: []string{"/orders/*"}, Methods: []string{"GET"}},
		Policy: watchword.Policy{Name: "p", Scopes: []string{"read"}, Audience: []string{"api"}, Freshness: watchword.Freshness{MaxStaleness: time.Hour}}})
	return open(t, Config{Verifier: v, Headers: map[string]string{"X-Auth-Subject": "sub", "X-Auth-Scopes": "scope", "X-Auth-Client": "client_id"}})
}

const hit = "GET /check HTTP/1.1\r\nHost: auth\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /orders/1?page=2\r\nX-Forwarded-Host: api.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n" +
	"Authorization: Bearer 0123456789012345678901234567890123456789abc\r\n\r\n"

type writer struct {
	h      http.Header
	status int
}

func (w *writer) Header() http.Header         { return w.h }
func (w *writer) Write(b []byte) (int, error) { return len(b), nil }
func (w *writer) WriteHeader(status int)      { w.status = status }

func hitRequest(lines ...string) *http.Request {
	return ask("GET", "/check", append(lines, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /orders/1?page=2", "X-Forwarded-Host: api.example", "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.7",
		"Authorization: Bearer 0123456789012345678901234567890123456789abc")...)
}

// A hit may allocate three times more than a bare handler: identity headers once, a new request id twice.
func TestHitAllocatesThreeTimesAtMost(t *testing.T) {
	door := hitDoor(t)
	allocs := func(h http.Handler, r *http.Request) float64 {
		w := &writer{h: http.Header{}}
		n := testing.AllocsPerRun(200, func() { clear(w.h); h.ServeHTTP(w, r) })
		if w.status != http.StatusOK {
			t.Fatalf("status %d", w.status)
		}
		return n
	}
	bare := allocs(hello, hitRequest())
	if n := allocs(door, hitRequest()) - bare; n > 3 {
		t.Errorf("%v allocations more than a bare handler", n)
	}
	if n := allocs(door, hitRequest("X-Request-Id: abc")) - bare; n > 1 {
		t.Errorf("with a request id: %v allocations more than a bare handler", n)
	}
}

func benchmarkHandler(b *testing.B, h http.Handler) {
	w, r := &writer{h: http.Header{}}, hitRequest()
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		h.ServeHTTP(w, r)
	}
	if w.status != http.StatusOK {
		b.Fatal(w.status)
	}
}

func BenchmarkHandlerHello(b *testing.B) { benchmarkHandler(b, hello) }
func BenchmarkHandlerHit(b *testing.B)   { benchmarkHandler(b, hitDoor(b)) }

// benchmarkServer sends the same bytes over one kept connection; the client, in the same process, allocates nothing.
func benchmarkServer(b *testing.B, h http.Handler) {
	conn, err := net.Dial("tcp", serveHandler(b, h))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answer := make([]byte, 4096)
	once := func() {
		if _, err := io.WriteString(conn, hit); err != nil {
			b.Fatal(err)
		}
		n, err := conn.Read(answer)
		if err != nil || n < 12 || string(answer[9:12]) != "200" {
			b.Fatalf("%q, %v", answer[:n], err)
		}
	}
	once()
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

func BenchmarkServerHello(b *testing.B) { benchmarkServer(b, hello) }
func BenchmarkServerHit(b *testing.B)   { benchmarkServer(b, localDoor(b)) }

// localDoor is hitDoor for peers on loopback.
func localDoor(b *testing.B) *Door {
	c := hitDoor(b).config
	c.Trusted = nil
	c.TrustAll = true
	return open(b, c)
}
