package nats

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/watchword-dev/watchword/revocation"
)

// forgetful is the way to a server that can lose a consumer without a word, as a cluster does when the node that has it
// dies: the connection stays, questions are answered, and nothing comes any more for the subscriptions that there were.
type forgetful struct {
	*server.Server
	mu   sync.Mutex
	seen map[string]bool // subscriptions for which something came; true: it is lost
	mute int             // so many answers about new consumers are lost
}

// InProcessConn implements nats.InProcessConnProvider.
func (f *forgetful) InProcessConn() (net.Conn, error) {
	far, err := f.Server.InProcessConn()
	if err != nil {
		return nil, err
	}
	near, ours := net.Pipe()
	go func() {
		_, _ = io.Copy(far, ours)
		_ = far.Close()
	}()
	go func() {
		defer ours.Close()
		for r := bufio.NewReader(far); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			body := 0
			word := strings.Fields(line)
			message := word[0] == "MSG" || word[0] == "HMSG" // subject, subscription, …, bytes
			if message {
				body, _ = strconv.Atoi(word[len(word)-1])
				body += len("\r\n")
			}
			frame := append([]byte(line), make([]byte, body)...)
			if _, err := io.ReadFull(r, frame[len(line):]); err != nil {
				return
			}
			if message && (f.loses(word[2]) || f.mutes(frame)) {
				continue
			}
			if _, err := ours.Write(frame); err != nil {
				return
			}
		}
	}()
	return near, nil
}

// loses reports whether what comes for a subscription is lost. The first one is for answers to questions.
func (f *forgetful) loses(subscription string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	lost, known := f.seen[subscription]
	if !known {
		f.seen[subscription] = false
	}
	return lost && subscription != "1"
}

func (f *forgetful) mutes(frame []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mute == 0 || !bytes.Contains(frame, []byte("consumer_create_response")) {
		return false
	}
	f.mute--
	return true
}

func (f *forgetful) lose() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for subscription := range f.seen {
		f.seen[subscription] = true
	}
}

// A consumer that is lost without a word is missed, and reading goes on where it stood; also when the answer about the
// next one is lost as well, as on a way that swallows everything for a while. That costs what a question may take.
//
// Covers: SIG-21
func TestLostConsumer(t *testing.T) {
	t.Parallel()
	e := &embedded{dir: t.TempDir(), port: -1}
	e.start(t)
	t.Cleanup(e.stop)
	f := &forgetful{Server: e.Server, seen: map[string]bool{}}
	l, err := NewLog(LogConfig{Config: Config{Server: f}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	read := make(chan string, 10)
	go func() {
		_ = l.Read(t.Context(), "", func(entry revocation.Entry) error {
			read <- string(entry.Body)
			return nil
		}, func(why string) { t.Error(why) }, func(error) {})
	}()
	for _, body := range []string{"before", "after", "again", "without an answer"} {
		if err := l.Append(t.Context(), []byte(body)); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-read:
			if got != body {
				t.Fatalf("%s was read, want %s", got, body)
			}
		case <-time.After(3 * askTimeout):
			t.Fatalf("%s is never read", body)
		}
		f.lose()
		if body == "again" {
			f.mu.Lock()
			f.mute = 1
			f.mu.Unlock()
		}
	}
}
