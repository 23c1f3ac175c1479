package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// A server that is kept by its disk answers what lies before it, and the next question when the disk is done. So who
// answers is asked together with what is new: here nothing is answered before both questions have come. What another
// server says does not count, and the log is then read anew.
//
// Covers: SIG-21
func TestWhoAnswersIsAskedWithTheQuestion(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	text := func(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }
	news := func(id, body string) string {
		return "%1\r\n" + text("{watchword}:log") + "*1\r\n*2\r\n" + text(id) + "*2\r\n" + text("b") + text(body)
	}
	who := func(id string) string { return text("role:master\r\nmaster_replid:" + id + "\r\n") }
	answers := make(chan string, 4)
	answers <- news("1-0", "a") + who("one")
	answers <- "_\r\n" + who("one")
	answers <- news("2-0", "of another") + who("two")
	answers <- news("1-0", "b") + who("two")
	serve := func(c net.Conn) {
		defer c.Close()
		for r := bufio.NewReader(c); ; {
			words, err := command(r)
			if err != nil {
				return
			}
			answer := "+OK\r\n"
			switch words[0] {
			case "HELLO":
				answer = "%2\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n"
			case "INFO":
				answer = who("one")
			case "XREAD":
				if words, err = command(r); err != nil || words[0] != "INFO" {
					return
				}
				answer = <-answers
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	log, err := NewLog(LogConfig{Config: Config{Address: l.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var seen []string
	enough := errors.New("enough")
	err = log.Read(ctx, "", func(e revocation.Entry) error {
		if seen = append(seen, e.Position+" "+string(e.Body)); len(seen) == 3 {
			return enough
		}
		return nil
	}, func(string) { seen = append(seen, "gap") }, func(error) {})
	if want := []string{"one/1-0 a", "gap", "two/1-0 b"}; !errors.Is(err, enough) || !slices.Equal(seen, want) {
		t.Errorf("%q, %v; want %q", strings.Join(seen, ", "), err, want)
	}
}
