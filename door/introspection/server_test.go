package introspection_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door/introspection"
)

// start serves h on loopback until the test ends.
func start(t testing.TB, h http.Handler, configure func(*httptest.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	configure(s)
	t.Cleanup(s.Close)
	return s
}

func plain(s *httptest.Server) {
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
}

func encrypted(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.Config.Protocols.SetHTTP2(true)
	s.StartTLS()
}

func TestEveryProtocol(t *testing.T) {
	t.Parallel()
	long := `{"active":true,"x":"` + strings.Repeat("y", 9000) + `"}`
	h := open(t, introspection.Config{Verifier: judge(t, func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
		return says(map[string]string{"short": `{"active":true}`, "long": long, "dead": dead}[string(q.Token)])(ctx, q)
	})})
	only := func(set func(*http.Protocols)) *http.Client {
		p := new(http.Protocols)
		set(p)
		transport := &http.Transport{Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // loopback, a made-up certificate
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	h1, h2 := func(p *http.Protocols) { p.SetHTTP1(true) }, func(p *http.Protocols) { p.SetHTTP2(true) }
	h2c := func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }
	clear, secure := start(t, h, plain).URL, start(t, h, encrypted).URL
	for _, c := range []struct {
		url   string
		major int
		set   func(*http.Protocols)
	}{{clear, 1, h1}, {clear, 2, h2c}, {secure, 1, h1}, {secure, 2, h2}} {
		client := only(c.set)
		for token, want := range map[string]string{"short": `{"active":true}`, "long": long, "dead": dead, "mal%0aformed": dead} {
			for _, accept := range []string{"", "*/*", "application/json", "application/jwt", "application/token-introspection+jwt", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"} {
				r, err := http.NewRequest("POST", c.url+"/introspect", io.MultiReader(strings.NewReader("token="+token))) // chunked on HTTP/1.1
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				r.SetBasicAuth("rs", secret)
				if accept != "" {
					r.Header.Set("Accept", accept)
				}
				answer, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if err != nil || string(body) != want || answer.StatusCode != 200 || answer.ProtoMajor != c.major || answer.ContentLength != int64(len(want)) {
					t.Errorf("%s over %s to Accept %q: %d, %d of %d bytes, %v", token, answer.Proto, accept, answer.StatusCode, len(body), answer.ContentLength, err)
				}
				if v := answer.Header["Content-Type"]; len(v) != 1 || v[0] != "application/json" {
					t.Errorf("Content-Type %q", v)
				}
			}
		}
	}
}

// dial writes a request as it is and returns the answer.
func dial(t testing.TB, s *httptest.Server, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

const credential = "Basic cnM6Y2FuYXJ5LXNlY3JldC01YjFkNzc=" // rs:secret

func TestPlainSocket(t *testing.T) {
	t.Parallel()
	s := start(t, open(t, introspection.Config{Verifier: judge(t, says(`{"active":true}`))}), plain)
	asks := func(status int, connection, request string) {
		t.Helper()
		answer := dial(t, s, request)
		if answer.StatusCode != status || connection != "" && answer.Header.Get("Connection") != connection {
			t.Errorf("%d, %v, want %d", answer.StatusCode, answer.Header, status)
		}
	}
	const form = "Content-Type: application/x-www-form-urlencoded\r\nAuthorization: " + credential + "\r\n"
	asks(200, "", "POST /introspect HTTP/1.1\r\nHost: x\r\n"+form+"Content-Length: 7\r\n\r\ntoken=x")
	asks(200, "", "POST /introspect HTTP/1.0\r\n"+form+"Content-Length: 7\r\n\r\ntoken=x")
	asks(200, "keep-alive", "POST /introspect HTTP/1.0\r\nConnection: keep-alive\r\n"+form+"Content-Length: 7\r\n\r\ntoken=x")
	asks(400, "", "POST /introspect HTTP/1.1\r\nHost: x\r\n"+form+"Authorization: "+credential+"\r\nContent-Length: 7\r\n\r\ntoken=x")
	asks(413, "", "POST /introspect HTTP/1.1\r\nHost: x\r\n"+form+"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
	asks(405, "", "GET /introspect?token=x HTTP/1.1\r\nHost: x\r\n\r\n")
	// a stranger is answered before its body is asked for
	asks(401, "", "POST /introspect HTTP/1.1\r\nHost: x\r\nAuthorization: Basic eDp5\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n")
}

// hit is a request whose answer is remembered: 552 bytes of it.
var hitAnswer = `{"active":true,"sub":"8f14e45f-ceea-467f-a0e6-1c2e5d3b9a77","client_id":"web","username":"ann","scope":"openid profile orders:read orders:write","aud":["https://api.example"],"iss":"https://as.example","jti":"b6d0f2a1","iat":1700000000,"exp":4102444800,"token_type":"Bearer","realm_access":{"roles":["` + strings.Repeat("r", 240) + `"]}}`

func hitDoor(t testing.TB, claims ...string) *introspection.Door {
	return open(t, introspection.Config{Verifier: judge(t, remembers(hitAnswer), anHour), Callers: []introspection.Caller{{Name: "rs", ClientID: "rs", Secrets: one(secret), Claims: claims}}})
}

// hello is what every ratio is against: three small headers and a short body.
var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h["Content-Type"], h["Cache-Control"], h["Age"] = helloJSON, helloStore, helloAge
	_, _ = io.WriteString(w, `{"active":false}`)
})

var helloJSON, helloStore, helloAge = []string{"application/json"}, []string{"no-store"}, []string{"0"}

const hitBody = "token=0123456789012345678901234567890123456789abc&token_type_hint=access_token"

// keepAlive asks s over one connection again and again, without an allocation of its own.
type keepAlive struct {
	conn    net.Conn
	request []byte
	answer  []byte
}

func newKeepAlive(t testing.TB, s *httptest.Server, header string) *keepAlive {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	k := &keepAlive{conn: conn, answer: make([]byte, 4096)}
	k.request = fmt.Appendf(nil, "POST /introspect HTTP/1.1\r\nHost: watchword\r\nAuthorization: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n%sContent-Length: %d\r\n\r\n%s", credential, header, len(hitBody), hitBody)
	return k
}

// ask sends one request; the answer is short enough to come in one piece over loopback.
func (k *keepAlive) ask() error {
	if _, err := k.conn.Write(k.request); err != nil {
		return err
	}
	n, err := k.conn.Read(k.answer)
	if err != nil {
		return err
	}
	if got := k.answer[:n]; string(got[:15]) != "HTTP/1.1 200 OK" || got[n-1] != '}' {
		return fmt.Errorf("answered %q", got)
	}
	return nil
}

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header               { return s.header }
func (s *sink) WriteHeader(status int)            { s.status = status }
func (s *sink) Write(b []byte) (int, error)       { s.bytes += len(b); return len(b), nil }
func (s *sink) WriteString(b string) (int, error) { s.bytes += len(b); return len(b), nil }

// direct returns a hit without a network.
func direct(h http.Handler, header ...string) (ask func(), w *sink) {
	body := strings.NewReader(hitBody)
	r := httptest.NewRequest("POST", "/introspect", nil)
	r.Body, r.ContentLength = io.NopCloser(body), int64(len(hitBody))
	r.Header = http.Header{"Authorization": {credential}, "Content-Type": {"application/x-www-form-urlencoded"}}
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = []string{header[i+1]}
	}
	w = &sink{header: http.Header{}}
	return func() {
		body.Reset(hitBody)
		clear(w.header)
		w.bytes = 0
		h.ServeHTTP(w, r)
	}, w
}

func BenchmarkHandler(b *testing.B) {
	for name, h := range map[string]http.Handler{"hello": hello, "hit": hitDoor(b), "hit-claims": hitDoor(b, "sub", "scope", "exp")} {
		b.Run(name, func(b *testing.B) {
			ask, _ := direct(h)
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
}

func BenchmarkKeepAlive(b *testing.B) {
	for name, h := range map[string]http.Handler{"hello": hello, "hit": hitDoor(b), "hit-claims": hitDoor(b, "sub", "scope", "exp")} {
		b.Run(name, func(b *testing.B) {
			k := newKeepAlive(b, start(b, h, plain), "")
			b.ReportAllocs()
			for b.Loop() {
				if err := k.ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
