package redis

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/cache"
)

// liar is a server that says hello as a node of a cluster, and to everything else says.
func liar(t *testing.T, says string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	answers := map[string]string{
		"HELLO":   "%2\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n",
		"CLIENT":  "+OK\r\n",
		"CLUSTER": "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:" + port + "\r\n",
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					words, err := command(r)
					if err != nil {
						return
					}
					answer, known := answers[strings.ToUpper(words[0])]
					if !known {
						answer = says + "\r\n"
					}
					if _, err := io.WriteString(c, answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// command reads an array of bulk strings.
func command(r *bufio.Reader) (words []string, err error) {
	number := func(mark string) (int, error) {
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, mark) {
			return 0, fmt.Errorf("%q: %v", line, err)
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number("*")
	for range n {
		size, err := number("$")
		if err != nil {
			return nil, err
		}
		word := make([]byte, size+2)
		if _, err := io.ReadFull(r, word); err != nil {
			return nil, err
		}
		words = append(words, string(word[:size]))
	}
	return words, err
}

// The client reads where a node points without looking whether it points anywhere: what it then does ends one question.
func TestANodeThatPointsNowhere(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"-MOVED", "-MOVED 1", "-ASK", "-ASK 1", "-MOVED 1 :", "-ERR"} {
		s, err := NewStore(Config{Address: liar(t, says), Cluster: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := s.Get(ctx, cache.Digest{}); err == nil {
			t.Errorf("%s: Get succeeds", says)
		}
		if err := s.Put(ctx, cache.Digest{}, cache.Item{Sealed: []byte("x"), AsOf: time.Now()}, time.Minute); err == nil {
			t.Errorf("%s: Put succeeds", says)
		}
		if _, err := s.Lease(ctx, cache.Digest{}, time.Minute); err == nil {
			t.Errorf("%s: Lease succeeds", says)
		}
		if _, err := s.Clock(ctx); err == nil {
			t.Errorf("%s: Clock succeeds", says)
		}
		l, err := NewLog(LogConfig{Config: Config{Address: liar(t, says), Cluster: true}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if err := l.Append(ctx, []byte("x")); err == nil {
			t.Errorf("%s: Append succeeds", says)
		}
		if err := s.Notice(ctx, func() {}, func(cache.Digest) {}); err == nil {
			t.Errorf("%s: Notice succeeds", says)
		}
	}
}
