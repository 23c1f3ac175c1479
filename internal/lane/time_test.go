package lane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A stranger who is slow, in whatever way, is cut off at the instant that the limit says, as with net/http.
func TestSlowStrangersAreCutOff(t *testing.T) {
	t.Parallel()
	ended := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, one := range []struct {
		name        string
		first, next time.Duration // as the first on its connection, or after others
		do          func(c net.Conn)
	}{
		{"idle", headerTimeout, idleTimeout - 1300*time.Millisecond, ended}, // the last pause counts
		{"slow header", headerTimeout, headerTimeout, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHo")
			ended(c)
		}},
		{"dripping header", headerTimeout, headerTimeout, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ")
			for {
				if _, err := io.WriteString(c, "d"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"slow body", readTimeout, readTimeout, func(c net.Conn) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: door\r\nContent-Length: 9\r\n\r\nfive!")
			ended(c)
		}},
		{"slow reader", writeTimeout, writeTimeout, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET /much HTTP/1.1\r\nHost: door\r\n\r\n")
			for d := time.Duration(0); d < writeTimeout; d += time.Second { // reads, but never fast enough
				_, _ = io.CopyN(io.Discard, c, 100)
				time.Sleep(time.Second)
			}
			ended(c)
		}},
	} {
		for _, before := range []int{0, 9} {
			t.Run(fmt.Sprintf("%s after %d", one.name, before), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := open(t, true, func(w http.ResponseWriter, r *http.Request) {
						_, _ = w.Write(make([]byte, strings.Count(r.URL.Path, "much")*4<<20))
					})
					c, want := s.dial(t), one.first
					if before > 0 {
						want = one.next
						ask(t, c, before)
					}
					began := time.Now()
					one.do(c)
					if took := time.Since(began); took < want || took > want+2*time.Second {
						t.Errorf("cut off after %v, want %v", took, want)
					}
					if s.left.Load() > 0 {
						t.Error("it left the lane")
					}
				})
			})
		}
	}
}

// ask asks n times, with pauses, so that what the runtime knows of deadlines is out of date.
func ask(t *testing.T, c net.Conn, n int) {
	t.Helper()
	answers := bufio.NewReader(c)
	for range n {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: door\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		time.Sleep(1300 * time.Millisecond)
	}
}

// Deadlines that were moved never end a connection that is used, however long.
func TestUsedConnectionsLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := open(t, true, echo).dial(t)
		ask(t, c, 500)
	})
}

// A client that goes away ends the context of who waits; one that sends the next request early does not, and is
// answered.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int32
		s := open(t, true, func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				ended.Add(1)
			case <-time.After(time.Minute):
			}
		})
		c := s.dial(t)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(time.Second)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(58 * time.Second)
		if ended.Load() > 0 {
			t.Fatal("a second request ended the first")
		}
		time.Sleep(30 * time.Second)
		_ = c.Close()
		time.Sleep(lookAfter)
		synctest.Wait()
		if ended.Load() != 1 {
			t.Error("the second does not notice that its client left")
		}
		in := bufio.NewReader(c)
		if resp, err := http.ReadResponse(in, nil); err == nil {
			t.Errorf("read %v after closing", resp)
		}
	})
}

// What comes early, one byte of it being read ahead, is neither lost nor out of order, and leaves whole.
func TestReadAheadIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slow := func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				t.Error("ended")
			case <-time.After(time.Second):
			}
			echo(w, r)
		}
		for _, then := range []string{"GET /then HTTP/1.1\r\nHost: a\r\n\r\n", "GET /odd HTTP/1.1\r\nHost: a\r\nX: é\r\n\r\n"} {
			pieces := []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + then[:5], "", "", "", "", "", "", "", "", "", "", "", then[5:], last}
			want, got := talk(t, open(t, false, slow), pieces...), talk(t, open(t, true, slow), pieces...)
			if got != want {
				t.Errorf("net/http:\n%s\nhere:\n%s", want, got)
			}
		}
	})
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, true, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				time.Sleep(10 * time.Second)
			}
			echo(w, r)
		})
		idle, busy, began, late := s.dial(t), s.dial(t), s.dial(t), s.dial(t)
		for _, c := range []net.Conn{idle, busy, began} {
			ask(t, c, 1)
		}
		_, _ = io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		_, _ = io.WriteString(began, "GET / HTTP/1.1\r\nHo")
		synctest.Wait()
		at, done := time.Now(), make(chan error)
		go func() { done <- s.lane.Shutdown(context.Background()) }()
		if _, err := io.ReadAll(idle); err != nil || time.Since(at) > 0 {
			t.Errorf("the idle one ended after %v: %v", time.Since(at), err)
		}
		if _, err := s.network.Dial(context.Background(), "", "door:80"); err == nil {
			t.Error("somebody listens")
		}
		_, _ = io.WriteString(began, "st: a\r\n\r\n")
		_, _ = io.WriteString(late, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		for _, c := range []net.Conn{began, late, busy} {
			if all, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200") || !strings.Contains(string(all), "\r\nConnection: close\r\n") {
				t.Errorf("%q, %v", all, err)
			}
		}
		if err := <-done; err != nil || time.Since(at) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(at), err)
		}
		if err := s.server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// Whoever leaves the lane while it shuts down is answered by the server.
func TestShutdownAndLeaving(t *testing.T) {
	t.Parallel()
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, true, echo)
			var all []net.Conn
			for range 20 {
				all = append(all, s.dial(t))
			}
			synctest.Wait()
			for _, c := range all {
				go func() { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX-A: é\r\n\r\n") }()
			}
			if err := s.lane.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			for _, c := range all {
				if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
					t.Fatal(resp, err)
				}
			}
		})
	}
}

func TestShutdownCutsOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		s := open(t, true, func(http.ResponseWriter, *http.Request) { <-let })
		c := s.dial(t)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.lane.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if all, _ := io.ReadAll(c); len(all) > 0 {
			t.Errorf("%q", all)
		}
		close(let)
	})
}
