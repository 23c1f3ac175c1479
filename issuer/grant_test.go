package issuer

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/internal/memnet"
)

// A token is used until half its life is over, to its end where no other can be had, and never after it was refused.
func TestGrantRenewsItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &nest{dead: map[string]bool{}} // its tokens live for an hour
		var network memnet.Network
		network.Serve(t, "localhost:80", n)
		cl := client(t, "http://localhost/introspect", func(c *Config) { c.Timeout = time.Second })
		cl.transport.Load().DialContext = network.Dial
		defer func() { cl.transport.Load().CloseIdleConnections() }()
		g, err := NewGrant(cl, "http://localhost/token", "ssf.manage")
		if err != nil {
			t.Fatal(err)
		}
		is := func(number, when string) {
			t.Helper()
			if got, err := g.Token(t.Context()); got != watchword.Token(canary+number) || err != nil {
				t.Errorf("%s: token %s, %v; want %s", when, strings.TrimPrefix(string(got), canary), err, number)
			}
		}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { is("1", "ten at once") })
		}
		all.Wait()
		time.Sleep(29 * time.Minute)
		is("1", "before half its life")
		n.set(func() { n.refuses = true })
		time.Sleep(2 * time.Minute)
		is("1", "after it, and no other can be had")
		n.set(func() { n.refuses = false })
		is("2", "after it")
		g.Drop(watchword.Token(canary + "1"))
		is("2", "another was refused")
		g.Drop(watchword.Token(canary + "2"))
		is("3", "it was refused")
		n.set(func() { n.refuses = true })
		time.Sleep(61 * time.Minute)
		if tok, err := g.Token(t.Context()); tok != "" || err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("it has ended, and no other can be had: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.Token(ended); err == nil {
			t.Error("nobody waits any more, and no error")
		}
		if _, err := NewGrant(cl, "http://as.example/token", ""); err == nil || !strings.Contains(err.Error(), "token_endpoint") {
			t.Errorf("http elsewhere: %v", err)
		}
		if _, err := NewGrant(nil, "http://localhost/token", ""); err == nil {
			t.Error("nobody can ask")
		}
	})
}
