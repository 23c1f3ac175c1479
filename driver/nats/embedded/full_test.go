//go:build embedded_nats

package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/driver/nats"
	"github.com/watchword-dev/watchword/driver/nats/embedded"
	"github.com/watchword-dev/watchword/revocation"
)

// A cluster that has filled its share of the disk takes nothing more, says so, and goes on to hand out what it took.
func TestFull(t *testing.T) {
	t.Parallel()
	const most = 8 << 20
	var at []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, l.Addr().String())
		_ = l.Close()
	}
	var logs []*nats.Log
	for i := range at {
		s, err := embedded.New(embedded.Config{Folder: t.TempDir(), MaxBytes: most, Name: fmt.Sprint("n", i), Listen: at[i], Nodes: at, Secrets: []string{"k"}, Warn: func(what string) { t.Log(what) }})
		if err == nil {
			err = s.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		l, err := nats.NewLog(nats.LogConfig{Config: nats.Config{Server: s, Replicas: 3}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		logs = append(logs, l)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	body := bytes.Repeat([]byte("x"), 200<<10)
	for logs[0].Append(ctx, []byte("first")) != nil { // until they have found each other
		if ctx.Err() != nil {
			t.Fatal("there is no cluster")
		}
	}
	taken, refused := 0, 0
	for refused < 3 { // one may be a leader that changes
		if err := logs[taken%3].Append(ctx, body); err != nil {
			t.Log(err)
			refused++
		} else {
			taken, refused = taken+1, 0
		}
		if taken*len(body) > 2*most {
			t.Fatal("it takes more than its share")
		}
	}
	if taken*len(body) < most/4 {
		t.Errorf("it is full after %d bytes of %d", taken*len(body), most)
	}
	for i, l := range logs {
		read := 0
		err := l.Read(ctx, "", func(revocation.Entry) error {
			if read++; read == taken+1 {
				return context.Canceled
			}
			return nil
		}, func(why string) { t.Error(why) }, func(error) {})
		if read != taken+1 {
			t.Errorf("node %d hands out %d of %d: %v", i, read, taken+1, err)
		}
	}
}
