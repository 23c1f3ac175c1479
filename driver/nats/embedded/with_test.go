//go:build embedded_nats

package embedded

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := New(Config{MaxBytes: -1, Listen: "here", Nodes: []string{"nats://a"}})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"no folder", "MaxBytes", "listens on is no host:port", "a node is no host:port", "a name for each node", "needs a secret"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported: %v", want, err)
		}
	}
	s, err := New(Config{Folder: t.TempDir(), Name: "a", Listen: "127.0.0.1:6222", Secrets: []string{"hunter2hunter2hunter2"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.InProcessConn(); err == nil {
		t.Error("a connection to what was not started")
	}
	s.Close() // nor does that wait for anything
}

// Two processes over one folder would write over each other.
func TestFolderIsOfOneProcess(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	start := func() (Server, error) {
		s, err := New(Config{Folder: folder})
		if err != nil {
			t.Fatal(err)
		}
		return s, s.Start()
	}
	first, err := start()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := start(); err == nil || !strings.Contains(err.Error(), folder) || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("a second one: %v", err)
		second.Close()
	}
	first.Close()
	third, err := start()
	if err != nil {
		t.Errorf("after the first one: %v", err)
	}
	third.Close()
}

// Who connects to its port for clients, which it must have, is not let in; who is in this process is.
func TestInsiders(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	_ = l.Close()
	s, err := New(Config{Folder: t.TempDir(), Name: "a", Listen: at, Nodes: []string{at, "127.0.0.1:1"}, Secrets: []string{"k"}})
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	greet := func(c net.Conn, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		lines := bufio.NewScanner(c)
		if lines.Scan(); !strings.HasPrefix(lines.Text(), "INFO ") {
			t.Fatal(lines.Text())
		}
		if _, err := c.Write([]byte("CONNECT {\"verbose\":false}\r\nPING\r\n")); err != nil {
			t.Fatal(err)
		}
		lines.Scan()
		return lines.Text()
	}
	if got := greet(net.Dial("tcp", s.(*node).Addr().String())); !strings.Contains(got, "Authorization Violation") {
		t.Errorf("a stranger hears %s", got)
	}
	if got := greet(s.InProcessConn()); got != "PONG" {
		t.Errorf("an insider hears %s", got)
	}
	if host := s.(*node).Addr().(*net.TCPAddr).IP; !host.IsLoopback() {
		t.Error("it listens for clients on", host)
	}
}

// Nodes know each other by any of the deployment's secrets; who knows none is refused by both sides, and so is who shows
// nothing.
func TestAcquaintance(t *testing.T) {
	t.Parallel()
	meet := func(server, client *tls.Config) error {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		met := make(chan error, 1)
		go func() {
			_, err := tls.Server(a, server).Write([]byte("x"))
			_ = a.Close()
			met <- err
		}()
		_, err := tls.Client(b, client).Read(make([]byte, 1)) // a client of TLS 1.3 learns of its refusal when it reads
		_ = b.Close()
		return errors.Join(err, <-met)
	}
	know := func(secrets ...string) *tls.Config {
		c, err := acquaintance(secrets)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, pair := range [][2]*tls.Config{
		{know("old"), know("old")},
		{know("old", "new"), know("new", "old")}, // a rotation, half done
		{know("new", "old"), know("new")},
	} {
		if err := meet(pair[0], pair[1]); err != nil {
			t.Error(err)
		}
	}
	nothing := &tls.Config{InsecureSkipVerify: true}
	for _, pair := range [][2]*tls.Config{{know("old"), know("new")}, {know("old"), nothing}, {know("old"), know("new", "old")}} {
		if err := meet(pair[0], pair[1]); err == nil {
			t.Error("strangers met")
		}
	}
}
