package memnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/internal/memnet"
)

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// An hour passes in a bubble while a handler sleeps, with real net/http on both ends and one connection reused.
func TestHTTPInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		var mu sync.Mutex
		peers := map[string]bool{}
		n.Serve(t, "as.example:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			peers[r.RemoteAddr] = true
			mu.Unlock()
			time.Sleep(time.Hour)
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %d", r.Host, len(body))
		}))
		c := n.Client(t)
		start := time.Now()
		for range 3 {
			if code, body := get(t, c, "http://as.example/"); code != 200 || body != "as.example 0" {
				t.Fatal(code, body)
			}
		}
		if took := time.Since(start); took != 3*time.Hour {
			t.Errorf("took %v", took)
		}
		if len(peers) != 1 {
			t.Errorf("%d connections, want one kept alive", len(peers))
		}
	})
}

// More than the buffers hold passes both ways at once.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		n.Serve(t, "a:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			_, _ = io.Copy(w, r.Body)
		}))
		body := strings.Repeat("0123456789abcdef", 100_000)
		res, err := n.Client(t).Post("http://a/", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != body {
			t.Fatalf("%d bytes back, %v", len(got), err)
		}
	})
}

// h2c works, so the doors' HTTP/2 does.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		l, err := n.Listen("a:80")
		if err != nil {
			t.Fatal(err)
		}
		var p http.Protocols
		p.SetUnencryptedHTTP2(true)
		s := &http.Server{Protocols: &p, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })}
		go func() { _ = s.Serve(l) }()
		tr := &http.Transport{DialContext: n.Dial, Protocols: &p}
		if _, body := get(t, &http.Client{Transport: tr}, "http://a/"); body != "HTTP/2.0" {
			t.Error(body)
		}
		tr.CloseIdleConnections()
		_ = s.Close()
	})
}

func TestRefusedUsedAndClosed(t *testing.T) {
	t.Parallel()
	var n memnet.Network
	if _, err := n.Dial(t.Context(), "tcp", "nobody:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	l, err := n.Listen("a:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen(l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
	waiting, err := n.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_ = l.Close()
	if _, err := waiting.Read(make([]byte, 1)); err != io.EOF {
		t.Error("never accepted, then closed:", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if again, err := n.Listen(l.Addr().String()); err != nil {
		t.Error("a closed address is free:", err)
	} else {
		_ = again.Close()
	}
}

// Who dials while a listener closes is refused or reset, and never left waiting.
func TestDialWhileItCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 2000 {
			var n memnet.Network
			l, err := n.Listen("a:80")
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if c, err := n.Dial(t.Context(), "tcp", "a:80"); err == nil {
						if _, err := c.Read(make([]byte, 1)); err != io.EOF {
							t.Error(err)
						}
					}
				})
			}
			_ = l.Close()
			wg.Wait()
		}
	})
}

func ends(t *testing.T) (near, far net.Conn) {
	t.Helper()
	var n memnet.Network
	l, err := n.Listen("a:80")
	if err != nil {
		t.Fatal(err)
	}
	if near, err = n.Dial(context.Background(), "tcp", "a:80"); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestCloseKeepsWhatWasWritten(t *testing.T) {
	t.Parallel()
	near, far := ends(t)
	if _, err := near.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	_ = near.Close()
	if b, err := io.ReadAll(far); string(b) != "bye" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := ends(t)
		start := time.Now()
		_ = near.SetReadDeadline(start.Add(time.Minute))
		var timeout net.Error
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Error(err)
		}
		_ = near.SetWriteDeadline(start.Add(time.Hour))
		if n, err := near.Write(make([]byte, 1<<20)); n == 0 || n == 1<<20 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a peer that does not read holds a writer back:", n, err)
		}
		if took := time.Since(start); took != time.Hour {
			t.Error(took)
		}
		// A deadline set while a Read waits ends it; one taken back lets it wait on.
		_ = near.SetDeadline(time.Time{})
		failed := make(chan error)
		go func() { _, err := near.Read(make([]byte, 1)); failed <- err }()
		synctest.Wait()
		_ = near.SetReadDeadline(time.Unix(1, 0))
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		_ = near.SetReadDeadline(time.Time{})
		go func() { time.Sleep(24 * time.Hour); _, _ = far.Write([]byte("x")) }()
		if _, err := near.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

// The client that leaves is seen by the server's context, as on a socket.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		left := make(chan time.Time, 1)
		n.Serve(t, "a:80", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); left <- time.Now() }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://a/", nil)
		if _, err := n.Client(t).Do(r); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := (<-left).Sub(start); took != time.Second {
			t.Error(took)
		}
	})
}
