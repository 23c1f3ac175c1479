package app

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/internal/memnet"
)

// served returns a connection to a server with the limits of every door, and what it is called with.
func served(t *testing.T, h http.HandlerFunc) net.Conn {
	var network memnet.Network
	inner, err := network.Listen("door:80")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout}
	done := make(chan error, 1)
	go func() {
		done <- s.Serve(&bounded{Listener: inner, room: make(chan struct{}, 1), closed: make(chan struct{})})
	}()
	c, err := network.Dial(t.Context(), "", "door:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = s.Close(); <-done })
	return c
}

// requests are some before the one that matters, spread over time, so that what the runtime knows is out of date.
func requests(t *testing.T, c net.Conn) {
	answers := bufio.NewReader(c)
	for range 9 {
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

// A stranger who is slow, in whatever way, is cut off at the instant that the limit says, however many deadlines were
// moved before.
func TestSlowStrangersAreCutOff(t *testing.T) {
	t.Parallel()
	ended := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, one := range []struct {
		name string
		want time.Duration
		do   func(c net.Conn)
	}{
		{"idle", idleTimeout - 1300*time.Millisecond, ended}, // the last pause counts
		{"slow header", headerTimeout, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHo")
			ended(c)
		}},
		{"dripping header", headerTimeout, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ")
			for {
				if _, err := io.WriteString(c, "d"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"slow body", readTimeout, func(c net.Conn) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: door\r\nContent-Length: 9\r\n\r\nfive!")
			ended(c)
		}},
		{"slow reader", writeTimeout, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET /much HTTP/1.1\r\nHost: door\r\n\r\n")
			for d := time.Duration(0); d < writeTimeout; d += time.Second { // reads, but never fast enough
				_, _ = io.CopyN(io.Discard, c, 100)
				time.Sleep(time.Second)
			}
			ended(c)
		}},
	} {
		for _, before := range []string{"at once", "after others"} {
			t.Run(one.name+" "+before, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := served(t, func(w http.ResponseWriter, r *http.Request) {
						_, _ = io.Copy(io.Discard, r.Body)
						for range 1000 * strings.Count(r.URL.Path, "much") {
							if _, err := w.Write(make([]byte, 4<<10)); err != nil {
								return
							}
						}
					})
					want := one.want
					if before == "after others" {
						requests(t, c)
					} else if one.name == "idle" {
						want = headerTimeout // the first request may not be awaited longer
					}
					began := time.Now()
					one.do(c)
					if took := time.Since(began); took < want || took > want+2*time.Second {
						t.Errorf("cut off after %v, want %v", took, want)
					}
				})
			})
		}
	}
}

// A lazy connection is told from a plain one by nothing but its price: both get the same random deadlines, bytes and
// pauses, and do the same at the same instants.
func TestLazyDeadlinesAreExact(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			var logs [2]string
			for i := range logs {
				logs[i] = story(t, i == 1, seed)
			}
			if logs[0] != logs[1] {
				t.Errorf("seed %d: plain\n%slazy\n%s", seed, logs[0], logs[1])
			}
		})
	}
}

// story tells what a reader and a writer see while somebody else moves their deadlines.
func story(t *testing.T, lazy bool, seed uint64) string {
	var network memnet.Network
	l, err := network.Listen("a:1")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := network.Dial(t.Context(), "", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if lazy {
		near = lazily(near)
	}
	began := time.Now()
	var read, wrote strings.Builder
	done := make(chan bool, 2)
	tell := func(to *strings.Builder, n int, err error) (again bool) {
		late := errors.Is(err, os.ErrDeadlineExceeded)
		to.WriteString(time.Since(began).String() + map[bool]string{true: " late\n", false: " went on\n"}[late])
		if late {
			time.Sleep(7*time.Millisecond + 1234) // never at the instant of another event
		}
		return late || err == nil
	}
	go func() {
		for again := true; again; {
			n, err := near.Read(make([]byte, 3))
			again = tell(&read, n, err)
		}
		done <- true
	}()
	go func() {
		for again := true; again; {
			n, err := near.Write(make([]byte, 100<<10))
			again = tell(&wrote, n, err)
		}
		done <- true
	}()
	r := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		at := time.Now().Add(time.Duration(r.IntN(60)-10)*10*time.Millisecond + time.Millisecond)
		switch r.IntN(3) {
		case 0:
			at = time.Time{}
		case 1:
			at = time.Unix(1, 0)
		}
		switch r.IntN(5) {
		case 0:
			_ = near.SetReadDeadline(at)
		case 1:
			_ = near.SetWriteDeadline(at)
		case 2:
			_ = near.SetDeadline(at)
		case 3:
			_, _ = far.Write([]byte("abc"))
		case 4:
			_ = far.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, _ = io.CopyN(io.Discard, far, int64(r.IntN(20<<10)))
		}
		time.Sleep(time.Duration(1+r.IntN(20)) * 10 * time.Millisecond)
	}
	_ = near.SetDeadline(time.Time{})
	time.Sleep(time.Second)
	_ = far.Close()
	<-done
	<-done
	return read.String() + wrote.String()
}
