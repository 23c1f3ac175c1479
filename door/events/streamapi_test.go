package events

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/internal/memnet"
	"github.com/watchword-dev/watchword/revocation"
)

// transmitter is an SSF transmitter of one receiver, with one stream at most.
type transmitter struct {
	URL     string
	network memnet.Network
	mu      sync.Mutex
	secret  string
	stream  string            // its configuration; empty: there is none
	page    int               // SETs in one answer to a poll; 0: all
	hidden  bool              // GET does not show it once: somebody else is just making it
	queue   map[string]string // SETs to be polled
	refused []int             // statuses of the next verification requests
	asked   []string          // what was asked for, in order
	acked   []string
	bad     map[string]setError
	states  chan string
	idle    chan struct{} // closed when an empty poll came
}

// newTransmitter serves in memory: everything that uses it runs in a bubble of time.
func newTransmitter(t *testing.T) *transmitter {
	t.Helper()
	x := &transmitter{URL: "http://transmitter.example:80", secret: secret, queue: map[string]string{}, bad: map[string]setError{}, states: make(chan string, 100), idle: make(chan struct{}, 100)}
	x.network.Serve(t, "transmitter.example:80", x)
	return x
}

func (x *transmitter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked = append(x.asked, r.Method+" "+r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/.well-known/ssf-configuration" {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%[1]q,"configuration_endpoint":"%[1]s/stream","verification_endpoint":"%[1]s/verify","critical_subject_members":["group"]}`, x.URL)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+x.secret {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var body struct {
		Delivery map[string]string
		State    string
		Ack      []string
		SetErrs  map[string]setError
	}
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	}
	switch r.Method + r.URL.Path {
	case "GET/stream":
		if x.stream == "" || x.hidden {
			x.hidden = false
			fmt.Fprint(w, "[]")
			return
		}
		fmt.Fprint(w, "["+x.stream+"]")
	case "POST/stream":
		if x.stream != "" {
			w.WriteHeader(http.StatusConflict)
			return
		}
		if body.Delivery["method"] == byPoll {
			body.Delivery["endpoint_url"] = x.URL + "/poll"
		}
		delivery, _ := json.Marshal(body.Delivery)
		x.stream = fmt.Sprintf(`{"stream_id":"s1","iss":%q,"aud":"rs","delivery":%s}`, x.URL, delivery)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, x.stream)
	case "POST/verify":
		if len(x.refused) > 0 {
			status := x.refused[0]
			x.refused = x.refused[1:]
			if status == http.StatusNotFound {
				x.stream = ""
			}
			w.WriteHeader(status)
			return
		}
		tell(x.states, body.State)
		w.WriteHeader(http.StatusNoContent)
	case "POST/poll":
		x.acked = append(x.acked, body.Ack...)
		for _, jti := range body.Ack {
			delete(x.queue, jti)
		}
		for jti, e := range body.SetErrs {
			x.bad[jti] = e
			delete(x.queue, jti)
		}
		sets := map[string]string{}
		for jti, one := range x.queue {
			if x.page == 0 || len(sets) < x.page {
				sets[jti] = one
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"sets": sets, "moreAvailable": len(sets) < len(x.queue)})
		if len(x.queue) == 0 {
			tell(x.idle, struct{}{})
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (x *transmitter) with(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f()
}

// managed runs a stream with a stream API until the test ends.
func managed(t *testing.T, x *transmitter, f *fleet, path string, tokens func() ([]string, error), edits ...func(*Stream)) *Door {
	t.Helper()
	s := signals()
	s.Sender, s.Names = x.URL, []string{x.URL}
	c := Stream{Name: "ssf-main", Signals: s, Verify: opened, Path: path, Covering: true, Lag: time.Second, Client: x.network.Client(t), Transmitter: x.URL, Token: func(context.Context) ([]string, error) { return tokens() }, Every: 10 * time.Millisecond}
	for _, edit := range edits {
		edit(&c)
	}
	if path != "" {
		c.Bearer, c.Endpoint = one(secret), "https://watchword.example"+path
	}
	d := open(t, Config{Publisher: f, Streams: []Stream{c}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return d
}

// tell does not wait for anybody to listen.
func tell[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("never: " + what)
	}
	return v
}

// Covers: SIG-10 SIG-13
func TestSIG13StreamSetUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, f := newTransmitter(t), new(fleet)
		x.refused = []int{http.StatusTooManyRequests, http.StatusInternalServerError}
		d := managed(t, x, f, "/ssf", func() ([]string, error) { return []string{"rotated away", secret}, nil })
		state := within(t, "a verification request", x.states)
		if _, ours := d.streams[0].askedAt(state); !ours {
			t.Error("its state is not ours")
		}
		if got := f.told(); got != "gap main ssf-main: new_stream" {
			t.Errorf("a new stream covers what was before it: %q", got)
		}
		x.with(func() {
			if !strings.Contains(x.stream, `"endpoint_url":"https://watchword.example/ssf"`) || !strings.Contains(x.stream, byPush) {
				t.Errorf("the stream is %s", x.stream)
			}
			if n := slices.Index(x.asked, "POST /verify"); n < 0 || len(x.asked) < 3 {
				t.Errorf("asked %v", x.asked)
			}
			x.refused = []int{http.StatusNotFound} // the stream is gone: it is made again, with a gap
		})
		until(t, "a new stream", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.Equal(f.said, []string{"gap main ssf-main: stream_gone", "gap main ssf-main: new_stream"})
		})
		// another node, or a restart: the stream that is there is taken over, and nothing is lost
		g := new(fleet)
		x.with(func() { x.hidden = true }) // and also where POST says 409
		managed(t, x, g, "/ssf", one(secret))
		until(t, "both verify", func() (both bool) {
			x.with(func() {
				n := 0
				for _, a := range x.asked {
					if a == "GET /.well-known/ssf-configuration" {
						n++
					}
				}
				both = n >= 3 && x.asked[len(x.asked)-1] == "POST /verify"
			})
			return both
		})
		if got := g.told(); got != "" {
			t.Errorf("a stream that is taken over has a gap: %q", got)
		}
	})
}

// Covers: SIG-08 T12
func TestSIG08Poll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, f := newTransmitter(t), new(fleet)
		mine := func(text string) string { return strings.ReplaceAll(text, issuer, x.URL) }
		x.queue["j1"] = mine(set("j1", revoked, ann, ""))
		x.queue["j2"] = "forged"
		x.queue["j3"] = mine(set("j3", "made-up", ann, ""))
		managed(t, x, f, "", one(secret))
		within(t, "everything dealt with", x.idle)
		x.with(func() {
			slices.Sort(x.acked)
			if !slices.Equal(x.acked, []string{"j1", "j3"}) || len(x.bad) != 1 || x.bad["j2"].Err != string(revocation.AuthenticationFailed) {
				t.Errorf("acknowledged %v, bad %v", x.acked, x.bad)
			}
		})
		if got := f.told(); !strings.Contains(got, "main ssf deny ann,,,,") || !strings.Contains(got, "gap main ssf-main: authentication_failed") {
			t.Errorf("the fleet was told %q", got)
		}
		// what is not durable is not acknowledged, and comes again
		f.set(true, false)
		x.with(func() { x.queue["j4"] = mine(set("j4", revoked, ann, "")) })
		until(t, "j4", func() bool { return strings.Contains(f.told(), "main ssf deny ann,,,,") })
		x.with(func() {
			if slices.Contains(x.acked, "j4") {
				t.Error("acknowledged before it was durable")
			}
		})
		f.set(false, false)
		until(t, "j4 is acknowledged", func() (acked bool) {
			x.with(func() { acked = slices.Contains(x.acked, "j4") })
			return acked
		})
	})
}

// The SETs of one answer have no order, and more may wait behind it: what is proven comes after all of them.
//
// Covers: SIG-08 SIG-09
func TestSIG08AProofOvertakesNothingThatIsPolled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, f := newTransmitter(t), new(fleet)
		mine := func(text string) string { return strings.ReplaceAll(text, issuer, x.URL) }
		x.page = 6
		for n := range 8 {
			x.queue[fmt.Sprint("v", n)] = mine(set(fmt.Sprint("v", n), verify, `{"format":"opaque","id":"s1"}`, ""))
		}
		for n := range 20 {
			jti := fmt.Sprint("j", n)
			x.queue[jti] = mine(set(jti, revoked, strings.Replace(ann, "ann", jti, 1), ""))
		}
		managed(t, x, f, "", one(secret))
		within(t, "everything dealt with", x.idle)
		told := strings.Split(f.told(), "\n")
		events := 0
		for i, line := range told {
			if strings.HasPrefix(line, "main ssf deny") {
				events++
			}
			if line == "proof main" && events < 20 {
				t.Fatalf("a proof after %d events of 20: %q", events, told[:i+1])
			}
		}
		if !slices.Contains(told, "proof main") || events != 20 {
			t.Errorf("%d events: %q", events, told)
		}
	})
}

func FuzzPolled(f *testing.F) {
	f.Add([]byte(`{"sets":{"j1":"a.b.c"},"moreAvailable":true}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if sets, _, err := polled(body); err == nil && len(sets) > 4*maxSets {
			t.Fatal("unbounded")
		}
	})
}

func TestPause(t *testing.T) {
	t.Parallel()
	for n := range 100 {
		if d := pause(n, 0); d < time.Second || d > time.Minute || pause(n, 0.999) < d/2 {
			t.Errorf("%d: %v", n, d)
		}
	}
	for v, want := range map[string]time.Duration{"": time.Second, "0": time.Second, "7": 7 * time.Second, "9999": time.Minute, "Wed, 21 Oct 2026 07:28:00 GMT": time.Minute, "-1": time.Second} {
		if got := retryAfter(v); got != want {
			t.Errorf("Retry-After %q: %v", v, got)
		}
	}
}

// A token of a client's own that is refused is replaced at once, and one that cannot be is no reason to ask forever.
func TestStreamReplacesARefusedToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, f := newTransmitter(t), new(fleet)
		var mu sync.Mutex
		n, dropped := 0, 0
		x.with(func() { x.secret = "token-of-our-own-0" })
		managed(t, x, f, "", nil, func(s *Stream) {
			s.Token = func(context.Context) ([]string, error) {
				mu.Lock()
				defer mu.Unlock()
				return []string{fmt.Sprintf("token-of-our-own-%d", n)}, nil
			}
			s.Refused = func(token string) {
				mu.Lock()
				defer mu.Unlock()
				dropped++
				if token == fmt.Sprintf("token-of-our-own-%d", n) {
					n++
				}
			}
		})
		<-x.states
		x.with(func() { x.secret = "token-of-our-own-1" }) // the first has ended
		for range 3 {
			for len(x.states) > 0 {
				<-x.states
			}
			<-x.states
		}
		mu.Lock()
		defer mu.Unlock()
		if n != 1 || dropped == 0 {
			t.Errorf("%d tokens more, %d refused", n, dropped)
		}
	})
}
