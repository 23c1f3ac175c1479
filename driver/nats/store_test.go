package nats_test

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/cache/storetest"
	"github.com/watchword-dev/watchword/driver/nats"
)

// broker is a real server in this process, on loopback.
func broker(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	return s.ClientURL()
}

func TestStoreIsAStore(t *testing.T) {
	t.Parallel()
	url := broker(t)
	conn, err := client.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, storetest.Config{
		Open: func(t *testing.T) cache.Store { return open(t, url) },
		Smudge: func(t *testing.T, key cache.Digest, body []byte) {
			kv, err := js.KeyValue(t.Context(), "watchword-answers")
			if err == nil {
				_, err = kv.Put(t.Context(), "answer."+hex.EncodeToString(key[:]), body[:min(len(body), cache.MaxEncodedItemBytes)])
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	})
}

// open connects a Store; it connects in the background, so the first question waits for it.
func open(t *testing.T, url string) *nats.Store {
	t.Helper()
	s, err := nats.NewStore(nats.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, err := s.Clock(t.Context())
		if err == nil {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A server that is not there is an error, soon, and no reason not to be made.
func TestStoreWithoutAServer(t *testing.T) {
	t.Parallel()
	s, err := nats.NewStore(nats.Config{URL: "nats://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Get(ctx, cache.Digest{}); err == nil || strings.Contains(err.Error(), "nil") {
		t.Errorf("%v", err)
	}
}
