package lane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/internal/memnet"
)

const (
	headerTimeout = 5 * time.Second
	readTimeout   = 70 * time.Second
	writeTimeout  = 80 * time.Second
	idleTimeout   = 2 * time.Minute
	bodies        = 8 << 10
)

// site is an address that a handler answers, with a lane or without.
type site struct {
	network memnet.Network
	server  *http.Server
	lane    *Lane // nil: there is none
	left    atomic.Int32
}

func open(t testing.TB, laned bool, h http.HandlerFunc) *site {
	t.Helper()
	s := &site{}
	l, err := s.network.Listen("door:80")
	if err != nil {
		t.Fatal(err)
	}
	s.server = &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		Protocols: new(http.Protocols), DisableGeneralOptionsHandler: true}
	s.server.Protocols.SetHTTP1(true)
	s.server.Protocols.SetUnencryptedHTTP2(true)
	s.server.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.left.Add(1)
		}
	}
	if laned {
		s.lane = New(l, s.server, bodies)
		l = s.lane
	}
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(l) }()
	t.Cleanup(func() {
		if s.lane != nil {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = s.lane.Shutdown(ctx)
		}
		_ = s.server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func (s *site) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := s.network.Dial(context.Background(), "", "door:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// echo tells what a handler can see of a request, and answers as the path says.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	h := w.Header()
	switch r.URL.Path {
	case "/headers":
		h["X-Split"] = []string{"a\r\nSet-Cookie: b", "two"}
		h["X Bad"] = []string{"name"}
		h["X-None"] = nil
		h["Content-Type"] = nil
	case "/close":
		h.Set("Connection", "close")
	case "/late":
		w.WriteHeader(http.StatusAccepted)
		h.Set("X-Late", "yes")
		w.WriteHeader(http.StatusOK)
	case "/informs":
		w.WriteHeader(http.StatusNoContent)
		return
	case "/empty":
		w.WriteHeader(http.StatusForbidden)
		return
	case "/length":
		h.Set("Content-Length", "17")
		if r.Method == http.MethodHead {
			return
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 17))
		return
	case "/panic":
		panic(http.ErrAbortHandler)
	}
	h.Add("X-Seen", fmt.Sprintf("%s %s %s %d %v", r.Method, r.RequestURI, r.Proto, r.ContentLength, r.Close))
	fmt.Fprintf(w, "%q %q %q %v %v %q %v %v\n", r.Host, r.RemoteAddr[:9], body, err, *r.URL, r.UserAgent(), r.TransferEncoding, r.Form)
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range r.Header {
			if !yield(name) {
				return
			}
		}
	}) {
		fmt.Fprintf(w, "%s: %.500q\n", name, r.Header[name])
	}
}

// talk sends what a client says, piece by piece, and tells what comes back until the connection ends.
func talk(t testing.TB, s *site, pieces ...string) string {
	c := s.dial(t)
	var saying sync.WaitGroup
	defer saying.Wait()
	saying.Go(func() {
		for _, p := range pieces {
			_, _ = io.WriteString(c, p)
			time.Sleep(10 * time.Millisecond)
		}
	})
	var said strings.Builder
	in := bufio.NewReader(c)
	for methods := strings.Join(pieces, ""); ; {
		method, _, _ := strings.Cut(methods, " ")
		if _, after, ok := strings.Cut(methods, "\r\n\r\n"); ok {
			methods = after
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			fmt.Fprintf(&said, "end after %v\n", errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF))
			return said.String()
		}
		body, err := io.ReadAll(resp.Body)
		dated := resp.Header.Get("Date") != ""
		resp.Header.Del("Date")
		fmt.Fprintf(&said, "%s %v %v %d %v %q %v\n", resp.Status, dated, resp.Header, resp.ContentLength, resp.Close, body, err)
	}
}

const last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

// Whatever a client says, it is answered as net/http alone would, byte for byte but for the order of fields.
func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	t.Parallel()
	get := func(path string, fields ...string) string {
		return "GET " + path + " HTTP/1.1\r\n" + strings.Join(append([]string{"Host: a"}, fields...), "\r\n") + "\r\n\r\n"
	}
	for _, one := range []struct {
		name   string
		leaves bool
		pieces []string
	}{
		{"plain", false, []string{get("/"), get("/b?c=d"), last}},
		{"pipelined", false, []string{get("/") + get("/b?c=d") + last}},
		{"in pieces", false, []string{"G", "ET / HTTP/1.1\r", "\nHost: a\r\n", "\r", "\n", last}},
		{"odd spelling", false, []string{get("/", "x-forwarded-URI: /x", "aUTHORIZATION:   Bearer x", "x-odd-NAME: 1", "X-Empty:", "dpop: a"), last}},
		{"several", false, []string{get("/", "X-A: 1", "X-B: 2", "x-a: 3", "X-A: 4"), last}},
		{"targets", false, []string{get("/a%2Fb%20c"), get("/a!'()*"), get("//b/c"), get("/?"), get("/a?b?c#d"), get("/;,@:+&=$~._-"), last}},
		{"bad target", true, []string{get("/%zz"), last}},
		{"other target", true, []string{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", last}},
		{"absolute target", true, []string{get("http://b/c"), last}},
		{"methods", false, []string{strings.Replace(get("/"), "GET", "DELETE", 1), strings.Replace(get("/"), "GET", "OPTIONS", 1), last}},
		{"unknown method", true, []string{strings.Replace(get("/"), "GET", "BREW", 1), last}},
		{"head", false, []string{strings.Replace(get("/"), "GET", "HEAD", 1), strings.Replace(get("/empty"), "GET", "HEAD", 1), strings.Replace(get("/length"), "GET", "HEAD", 1), last}},
		{"body", false, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde" + get("/c"), last}},
		{"slow body", false, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "ab", "cde", last}},
		{"line after body", true, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde\r\n" + get("/c"), last}},
		{"late line after body", true, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde", "\r\n", get("/c"), last}},
		{"empty body", false, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", last}},
		{"large body", true, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000), last}},
		{"chunks", true, []string{"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", last}},
		{"continue", true, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", "abc", last}},
		{"lengths", true, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", last}},
		{"length and chunks", true, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", last}},
		{"signed length", true, []string{"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", last}},
		{"no host", true, []string{"GET / HTTP/1.1\r\n\r\n"}},
		{"hosts", true, []string{get("/", "Host: b"), last}},
		{"odd host", true, []string{"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", last}},
		{"1.0", true, []string{"GET / HTTP/1.0\r\nHost: a\r\n\r\n"}},
		{"1.0 kept", true, []string{"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", last}},
		{"2.0", true, []string{"GET / HTTP/2.0\r\nHost: a\r\n\r\n"}},
		{"bare line feeds", true, []string{"GET / HTTP/1.1\nHost: a\n\n", last}},
		{"space before colon", true, []string{get("/", "X-A : b"), last}},
		{"folded", true, []string{get("/", "X-A: b\r\n c"), last}},
		{"trailing space", true, []string{get("/", "X-A: b \t"), last}},
		{"tab", true, []string{get("/", "X-A:\tb"), last}},
		{"control", true, []string{get("/", "X-A: a\x01"), last}},
		{"utf-8", true, []string{get("/", "X-A: é"), last}},
		{"pragma", true, []string{get("/", "Pragma: no-cache"), last}},
		{"many", true, []string{get("/", slices.Repeat([]string{"X-A: b"}, 65)...), last}},
		{"as many as there may be", false, []string{get("/", slices.Repeat([]string{"X-A: b"}, 63)...), last}},
		{"larger than the first buffer", false, []string{get("/", "X-A: "+strings.Repeat("a", 6000)), last}},
		{"larger than the lane", true, []string{get("/", "X-A: "+strings.Repeat("a", 20000)), last}},
		{"too large", true, []string{get("/", "X-A: "+strings.Repeat("a", 2<<20))}},
		{"plain, then not", true, []string{get("/"), get("/b") + get("/", "X-A: é") + get("/c"), last}},
		{"garbage", true, []string{"\x16\x03\x01\n\r\n"}},
		{"kept alive", false, []string{get("/", "Connection: keep-alive"), last}},
		{"upgrade", true, []string{get("/", "Connection: Upgrade", "Upgrade: x"), last}},
		{"answers", false, []string{get("/headers"), get("/late"), get("/informs"), get("/empty"), get("/length"), last}},
		{"closing answer", false, []string{get("/close"), get("/")}},
		{"panic", false, []string{get("/panic"), get("/")}},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				laned := open(t, true, echo)
				want, got := talk(t, open(t, false, echo), one.pieces...), talk(t, laned, one.pieces...)
				if got != want {
					t.Errorf("net/http:\n%s\nhere:\n%s", want, got)
				}
				if left := laned.left.Load() > 0; left != one.leaves {
					t.Errorf("it left the lane: %v", left)
				}
			})
		})
	}
}

// What is plain means the same to net/http.
func FuzzPlainMeansTheSame(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST /b?c HTTP/1.1\r\nhost: a:1\r\nContent-Length: 3\r\nX-a: b\r\nx-A: c\r\nConnection: close\r\n\r\nabc",
		"HEAD //a%20b!?d#e HTTP/1.1\r\nHost: [::1]:80\r\nAuthorization: Bearer x\r\nConnection: keep-alive\r\n\r\n", "GET /a?b\x00 HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := &conn{lane: &Lane{body: bodies}, in: in, have: len(in)}
		c.request.header = http.Header{}
		head, plain := c.head()
		if !plain || head == 0 || !c.parse(head) {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(in))))
		if err != nil {
			t.Fatalf("%q is plain, and net/http says %v", in[:head], err)
		}
		got := &c.request.Request
		if host := want.Header["Host"]; host != nil {
			t.Fatalf("host %q", host)
		}
		if got.Method != want.Method || !reflect.DeepEqual(got.URL, want.URL) || got.RequestURI != want.RequestURI || got.Proto != want.Proto || got.ProtoMajor != want.ProtoMajor ||
			got.ProtoMinor != want.ProtoMinor || got.Host != want.Host || got.ContentLength != want.ContentLength || got.Close != want.Close || !reflect.DeepEqual(got.Header, want.Header) ||
			want.TransferEncoding != nil || want.Trailer != nil {
			t.Errorf("%q\nnet/http %+v\nhere     %+v", in[:head], want, got)
		}
	})
}

// A request makes one allocation here: its head, as a string.
func TestAllocations(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["X-A"] = small })}
	lane := New(l, server, 0)
	go func() { _ = server.Serve(lane) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, out := make([]byte, 4096), []byte("GET /a?b HTTP/1.1\r\nHost: a\r\nx-forwarded-URI: /\r\nX-B: c\r\nX-C: d\r\nAuthorization: Bearer x\r\n\r\n")
	n := testing.AllocsPerRun(100, func() {
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		if m, err := c.Read(in); err != nil || string(in[9:12]) != "200" {
			t.Fatal(string(in[:m]), err)
		}
	})
	if n > 1 {
		t.Errorf("%v allocations", n)
	}
	_ = c.Close()
	if err := lane.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	_ = server.Close()
}

var small = []string{"a"}
