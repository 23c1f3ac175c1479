package issuer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
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

func TestIdleConnectionThatTheServerClosedCostsOneRetryOnAFreshOne(t *testing.T) {
	t.Parallel()
	var conns, requests atomic.Int32
	var second atomic.Pointer[time.Time]
	url := raw(t, func(n int, c net.Conn) {
		conns.Add(1)
		r := bufio.NewReader(c)
		for i := 0; readRequest(r); i++ {
			requests.Add(1)
			if n == 1 && i == 1 {
				now := time.Now()
				second.Store(&now)
				return // as a server whose idle timeout ends just now
			}
			_, _ = io.WriteString(c, goodAnswer)
		}
	})
	c := client(t, url)
	answer(t, c)
	a := answer(t, c)
	if conns.Load() != 2 || requests.Load() != 3 {
		t.Errorf("%d connections, %d requests", conns.Load(), requests.Load())
	}
	if a.Asked().Before(*second.Load()) {
		t.Error("the evidence dates from the attempt that nobody answered")
	}
}

func TestOnlyAStaleConnectionIsRetried(t *testing.T) {
	t.Parallel()
	hangUp := func(first int) (url string, requests *atomic.Int32) {
		requests = new(atomic.Int32)
		return raw(t, func(n int, c net.Conn) {
			r := bufio.NewReader(c)
			for i := 0; readRequest(r); i++ {
				requests.Add(1)
				if n > first || i > 0 {
					return
				}
				_, _ = io.WriteString(c, goodAnswer)
			}
		}), requests
	}
	url, requests := hangUp(0)
	failure(t, client(t, url), watchword.Unavailable)
	if n := requests.Load(); n != 1 {
		t.Errorf("a fresh connection was retried: %d requests", n)
	}
	url, requests = hangUp(1)
	c := client(t, url)
	answer(t, c)
	failure(t, c, watchword.Unavailable)
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests, want the answered one, the stale one and one retry", n)
	}
}

func TestManyStaleConnectionsCostOneRetry(t *testing.T) {
	t.Parallel()
	const kept = 5
	var together sync.WaitGroup
	together.Add(kept)
	var late atomic.Int32
	url := raw(t, func(n int, c net.Conn) {
		r := bufio.NewReader(c)
		for i := 0; readRequest(r); i++ {
			if n <= kept && i == 0 {
				together.Done()
				together.Wait()
			} else if late.Add(1); n <= kept {
				return
			}
			_, _ = io.WriteString(c, goodAnswer)
		}
	})
	c := client(t, url)
	var group sync.WaitGroup
	for range kept {
		group.Go(func() { answer(t, c) })
	}
	group.Wait()
	answer(t, c)
	if n := late.Load(); n != 2 {
		t.Errorf("%d requests after the servers went quiet, want 2", n)
	}
}

func TestHalfAnAnswerIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	for _, half := range []string{"H", "HTTP/1.1 200 OK\r\nContent-Type: appl", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"active\":true",
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"act", "SSH-2.0-" + leak + "\r\n", "HTTP/1.1 999999 " + leak + "\r\n\r\n"} {
		var requests atomic.Int32
		url := raw(t, func(_ int, c net.Conn) {
			r := bufio.NewReader(c)
			for i := 0; readRequest(r); i++ {
				requests.Add(1)
				if i > 0 {
					_, _ = io.WriteString(c, half)
					return
				}
				_, _ = io.WriteString(c, goodAnswer)
			}
		})
		c := client(t, url)
		answer(t, c)
		failure(t, c, watchword.Unavailable)
		if n := requests.Load(); n != 2 {
			t.Errorf("%.20q: %d requests", half, n)
		}
	}
}

func TestNobodyListensHangsOrSpeaksIsUnavailable(t *testing.T) {
	t.Parallel()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	closed := "http://" + l.Addr().String()
	_ = l.Close()
	if e := failure(t, client(t, closed), watchword.Unavailable); !strings.Contains(e.Error(), "refused") {
		t.Errorf("%v does not say why", e)
	}
	hangs := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if e := failure(t, client(t, hangs.URL, soon), watchword.Unavailable); !strings.Contains(e.Error(), "200ms") {
		t.Errorf("%v does not say why", e)
	}
	huge := raw(t, func(_ int, c net.Conn) {
		if readRequest(bufio.NewReader(c)) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 1000)+"\r\n")
		}
	})
	failure(t, client(t, huge), watchword.Unavailable)
}

// Covers: INT-15 T30
func TestINT15_T30AskingEndsExactlyAtTheTimeout(t *testing.T) {
	t.Parallel()
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	slowRefusal := func(w http.ResponseWriter, r *http.Request) { time.Sleep(1500 * time.Millisecond); status(401)(w, r) }
	for name, h := range map[string]http.HandlerFunc{"drip": drip, "hang": hang, "slow refusal": slowRefusal} {
		synctest.Test(t, func(t *testing.T) {
			var net memnet.Network
			net.Serve(t, "localhost:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // only then does a server notice that the client left
				h(w, r)
			}))
			c := client(t, "http://localhost", func(c *Config) { c.Timeout, c.Auth = 0, Bearer(fixed("one", "two")) })
			c.transport.Load().DialContext = net.Dial
			began := time.Now()
			failure(t, c, watchword.Unavailable)
			if took := time.Since(began); took != DefaultTimeout {
				t.Errorf("%s: %v", name, took)
			}
			time.Sleep(2 * time.Second) // until the server noticed
		})
	}
}

// The timeout is for all attempts together.
func TestTimeoutBoundsRetriesToo(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			status(401)(w, r)
			return
		}
		<-r.Context().Done()
	})
	c := client(t, s.URL, soon, func(c *Config) { c.Auth = Bearer(fixed("one", "two")) })
	failure(t, c, watchword.Unavailable)
	if requests.Load() != 2 {
		t.Errorf("%d requests", requests.Load())
	}
}

func TestCallerThatLeavesIsCanceled(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { arrived <- struct{}{}; <-r.Context().Done() })
	var outcomes []string
	c := client(t, s.URL, func(c *Config) { c.Observe = func(o string, _ time.Duration) { outcomes = append(outcomes, o) } })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	a, err := c.Introspect(ctx, query())
	wanted(t, a, err, watchword.Canceled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is no context.Canceled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	a, err = c.Introspect(ctx, query())
	wanted(t, a, err, watchword.Unavailable) // a deadline of the flight: nobody left
	if got := fmt.Sprint(outcomes); got != "[canceled unavailable]" {
		t.Errorf("outcomes %s", got)
	}
}

// Covers: INT-17
func TestINT17WrongCertificateGetsNoToken(t *testing.T) {
	t.Parallel()
	a, b := newAuthority(t), newAuthority(t)
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	try := func(signer *authority, name string, until time.Time, edit func(*tls.Config)) (*server, *Client) {
		s := serveWith(t, says(`{"active":true}`), signer.startTLS(t, name, until, edit))
		return s, client(t, s.URL, func(c *Config) { c.TLS.CAFile = a.file })
	}
	s, c := try(a, "127.0.0.1", later, nil)
	answer(t, c)
	if n := len(s.questions()); n != 1 {
		t.Fatalf("the right certificate: asked %d times", n)
	}
	for name, x := range map[string]struct {
		signer *authority
		host   string
		until  time.Time
		edit   func(*tls.Config)
		why    string
	}{
		"wrong host": {a, "as.example", later, nil, "another host"},
		"expired":    {a, "127.0.0.1", past, nil, "expired"},
		"untrusted":  {b, "127.0.0.1", later, nil, "unknown authority"},
		"TLS 1.1":    {a, "127.0.0.1", later, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, "tls"},
	} {
		s, c := try(x.signer, x.host, x.until, x.edit)
		if e := failure(t, c, watchword.Unavailable); !strings.Contains(e.Error(), x.why) {
			t.Errorf("%s: %v", name, e)
		}
		if n := len(s.questions()); n != 0 {
			t.Errorf("%s: the token was sent", name)
		}
	}
	plain := serve(t, says(`{"active":true}`))
	failure(t, client(t, "https"+strings.TrimPrefix(plain.URL, "http"), func(c *Config) { c.TLS.CAFile = a.file }), watchword.Unavailable)
	if len(plain.questions()) != 0 {
		t.Error("the token was sent without TLS")
	}
}

func TestHTTP2WhereTheServerOffersIt(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var abort atomic.Bool
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) {
		if abort.Load() {
			panic(http.ErrAbortHandler)
		}
		says(`{"active":true}`)(w, r)
	}, a.startTLS(t, "127.0.0.1", time.Now().Add(time.Hour), nil))
	c := client(t, s.URL, func(c *Config) { c.TLS.CAFile = a.file })
	before := time.Now()
	got := answer(t, c)
	if q := s.last(t); q.proto != "HTTP/2.0" || got.Asked().Before(before) || got.Asked().After(q.at) {
		t.Errorf("%s, asked %v, arrived %v", q.proto, got.Asked(), q.at)
	}
	abort.Store(true)
	failure(t, c, watchword.Unavailable)
	if n := len(s.questions()); n != 2 {
		t.Errorf("a stream that the server reset was asked again: %d", n)
	}
}

// A server that says goodbye (GOAWAY) closes a kept HTTP/2 connection: the next asking finds a fresh one.
func TestHTTP2ConnectionThatTheServerClosed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // GOAWAY after this answer
		says(`{"active":true}`)(w, r)
	}, a.startTLS(t, "127.0.0.1", time.Now().Add(time.Hour), nil))
	c := client(t, s.URL, func(c *Config) { c.TLS.CAFile = a.file })
	for range 20 {
		answer(t, c)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	url := raw(t, func(_ int, c net.Conn) {
		conns.Add(1)
		for r := bufio.NewReader(c); readRequest(r); {
			_, _ = io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found")
		}
	})
	c := client(t, url)
	for range 10 {
		failure(t, c, watchword.ConfigError)
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections for 10 askings in a row", conns.Load())
	}
	tr := c.transport.Load()
	if tr.MaxIdleConnsPerHost != 256 || tr.MaxConnsPerHost != 256 || tr.IdleConnTimeout >= 5*time.Second || tr.Proxy != nil || !tr.DisableCompression {
		t.Errorf("%+v", tr)
	}
	other := client(t, url)
	if other.transport.Load() == tr {
		t.Error("two issuers share connections")
	}
}

// countingConn counts writes, each of which is a system call and mostly a packet.
type countingConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c countingConn) Write(b []byte) (int, error) { c.writes.Add(1); return c.Conn.Write(b) }

func TestQuestionLeavesInOneWrite(t *testing.T) {
	t.Parallel()
	var writes atomic.Int32
	c := client(t, serve(t, says(`{"active":true}`)).URL)
	c.transport.Load().DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := c.dial(c.plain)(ctx, network, address)
		return countingConn{conn, &writes}, err
	}
	for range 3 {
		answer(t, c)
	}
	if n := writes.Load(); n != 3 {
		t.Errorf("%d writes for 3 questions", n)
	}
}

func TestNewReportsEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Timeout: -1, Leeway: 2 * time.Minute, Prefixes: []string{""}, IntrospectionEndpoint: "http://as.example/i",
		TLS: TLS{CAFile: "/does/not/exist", CertFile: "c"}, Auth: ClientSecretBasic("", nil)})
	for _, want := range []string{"name is missing", "timeout", "leeway", "prefix", "introspection_endpoint is http", "ca:", "cert and key", "client_id", "secret"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	base := Config{Name: "main", IntrospectionEndpoint: "https://as.example/i", Auth: None()}
	refused := func(want string, edit func(*Config)) {
		t.Helper()
		c := base
		edit(&c)
		_, err := New(c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		} else {
			discreet(t, err.Error())
		}
	}
	if _, err := New(base); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{"": "missing", "x": "absolute", "/i": "absolute", "https:as": "absolute", "ftp://h/i": "neither", "https://" + leak + ":" + leak + "@h/i": "password",
		"https://h/i#" + leak: "fragment", "https://h/%zz" + leak: "absolute", "http://localhost.example/i": "is http", "http://10.0.0.1/i": "is http", "https://b\u00fccher.example/": "ASCII"} {
		refused(want, func(c *Config) { c.IntrospectionEndpoint = url })
	}
	for _, good := range []string{"http://127.0.0.1:1/i", "http://127.9.9.9/i", "http://[::1]/i", "http://localhost:8/i", "https://h/i?tenant=a"} {
		if _, err := New(Config{Name: "main", IntrospectionEndpoint: good, Auth: None()}); err != nil {
			t.Error(err)
		}
	}
	refused("query", func(c *Config) { c.IntrospectionEndpoint, c.Issuer = "", "https://as.example/?a=b" })
	refused("without TLS", func(c *Config) { c.IntrospectionEndpoint, c.TLS.CAFile = "http://127.0.0.1/i", "ca.pem" })
	refused("method", func(c *Config) { c.Auth = ClientAuth{} })
	refused("certificate", func(c *Config) { c.Auth = TLSClientAuth("rs") })
	refused("private_key", func(c *Config) { c.Auth = PrivateKeyJWT("rs", "aud", nil) })
	refused("audience", func(c *Config) {
		c.Auth = PrivateKeyJWT("rs", "", func() (Sign, error) { return nil, nil })
	})
	refused("empty", func(c *Config) { c.Auth = Bearer(fixed()) })
	refused("empty", func(c *Config) { c.Auth = Bearer(fixed("a", "")) })
	refused("space", func(c *Config) { c.Auth = Bearer(fixed(hush + "\r\nX: y")) })
	refused("gone", func(c *Config) {
		c.Auth = Bearer(func() ([]string, error) { return nil, errors.New("gone") })
	})
}

// Covers: T33
func TestT33PlainHTTPNeverLeavesTheMachine(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{"127.0.0.1:80": true, "127.8.8.8:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true,
		"10.0.0.1:80": false, "0.0.0.0:80": false, "192.0.2.1:80": false, "[fe80::1]:80": false, "nonsense": false} {
		if got := only(netip.Addr.IsLoopback, "")("tcp", addr, nil) == nil; got != want {
			t.Errorf("loopback %s: %v", addr, got)
		}
	}
	for addr, want := range map[string]bool{"8.8.8.8:443": true, "[2001:4860::1]:443": true, "127.0.0.1:443": false, "10.1.2.3:443": false, "172.16.0.1:443": false,
		"192.168.1.1:443": false, "169.254.169.254:443": false, "100.64.0.1:443": false, "[::1]:443": false, "[fd00::1]:443": false, "[fe80::1]:443": false,
		"[::ffff:10.0.0.1]:443": false, "0.0.0.0:443": false, "224.0.0.1:443": false} {
		if got := only(public, "")("tcp", addr, nil) == nil; got != want {
			t.Errorf("public %s: %v", addr, got)
		}
	}
	// a name that is loopback by its spelling and not by DNS: here an address that the dialer itself must refuse
	c := client(t, "http://127.0.0.1:1/i")
	if _, err := c.dial(c.plain)(t.Context(), "tcp", "192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "loopback only") {
		t.Errorf("dialled elsewhere: %v", err)
	}
}

func TestOutcomesAreAllThatObserveHears(t *testing.T) {
	t.Parallel()
	var heard []string
	var took time.Duration
	var h http.HandlerFunc
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { h(w, r) })
	c := client(t, s.URL, func(c *Config) {
		c.Observe = func(o string, d time.Duration) { heard, took = append(heard, o), took+d }
	})
	for _, h = range []http.HandlerFunc{says(`{"active":true}`), says(`{"active":false}`), says(`{}`), status(401), status(404), status(500)} {
		_, _ = c.Introspect(t.Context(), query())
	}
	if got := fmt.Sprint(heard); got != "[ok inactive protocol_error client_rejected config_error unavailable]" || took <= 0 {
		t.Errorf("%s in %v", got, took)
	}
	q := query()
	q.Issuer = "other"
	_, _ = c.Introspect(t.Context(), q)
	for _, o := range heard {
		if !slices.Contains(Outcomes(), o) {
			t.Errorf("%s is not listed", o)
		}
	}
	if len(heard) != 6 || len(Outcomes()) != 8 {
		t.Errorf("%d heard, %v", len(heard), Outcomes())
	}
}
