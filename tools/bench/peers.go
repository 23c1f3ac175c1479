package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// authority is an authorization server whose every answer is the same work: 552 bytes about any token.
type authority struct {
	calls  atomic.Int64
	mode   atomic.Int32
	diary  atomic.Pointer[diary] // nil: nobody reads it
	addr   string
	answer []byte
	digit  int // where the subject's number stands
	client int // and its client
	server *http.Server
}

// What the authority does about a question.
const (
	answers = iota
	takes20ms
	hangs
	fails
	limits
	refuses
	closes
)

// nobody is the first number whose token is none.
const nobody = 50_000_000

// diary is the questions of a time.
type diary struct {
	mu  sync.Mutex
	all []question
}

type question struct {
	at time.Time
	id int
}

// count says how many questions there were that fit.
func (d *diary) count(fits func(q question) bool) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.all {
		if fits(q) {
			n++
		}
	}
	return n
}

// fullest is how many questions came in the fullest second after from.
func (d *diary) fullest(from time.Time) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	begin := 0
	for end, q := range d.all {
		for begin < end && (q.at.Sub(d.all[begin].at) >= time.Second || d.all[begin].at.Before(from)) {
			begin++
		}
		if !q.at.Before(from) {
			n = max(n, end+1-begin)
		}
	}
	return n
}

func newAuthority() (*authority, error) {
	now := time.Now().Unix()
	text := fmt.Sprintf(`{"active":true,"sub":"user-00000000-4f0c-9d1e-7a6b5c4d3e2f","client_id":"orders-frontend","scope":"openid profile orders:read orders:write","aud":"https://api.example","iss":"https://as.example","exp":%d,"iat":%d,"nbf":%d,"jti":"0d3a4d52-00000000-8e9f","token_type":"Bearer","username":"ann.example@example.com","sid":"c7a1b2c3-d4e5-f607","tenant":"acme-corporation","roles":["reader","writer","auditor"],"department":{"id":4711,"name":"logistics"},"locale":"en-GB"`,
		now+7200, now-60, now-60)
	text += fmt.Sprintf(`,"pad":"%0*d"}`, 552-len(text)-len(`,"pad":""}`), 0)
	a := &authority{answer: []byte(text), digit: strings.Index(text, "user-") + len("user-"), client: strings.Index(text, "orders-frontend")}
	return a, a.start()
}

// start listens, on the port that it had before if there was one.
func (a *authority) start() error {
	l, err := net.Listen("tcp", first(a.addr, "127.0.0.1:0"))
	if err != nil {
		return err
	}
	a.addr = l.Addr().String()
	a.server = &http.Server{Handler: a}
	go func(s *http.Server) { _ = s.Serve(l) }(a.server)
	return nil
}

// die closes the port and every connection.
func (a *authority) die() { _ = a.server.Close() }

// freeze makes it a process that is stuck: the kernel takes connections and requests for it, and nothing of it runs. Its
// own connections are gone. The returned function lets it go on.
func (a *authority) freeze() (thaw func() error, err error) {
	a.die()
	l, err := net.Listen("tcp", a.addr)
	if err != nil {
		return nil, err
	}
	return func() error { return cmp.Or(l.Close(), a.start()) }, nil
}

// ServeHTTP introspects (RFC 7662 §2.2), or vouches for a bearer with an empty answer.
func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.calls.Add(1)
	if r.URL.Path == "/vouch" {
		w.Header().Set("X-Auth-Subject", "user-"+r.Header.Get("Authorization")[len("Bearer ")+len(tokenStem):])
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	at := bytes.Index(body, []byte(tokenStem))
	if err != nil || at < 0 || len(body) < at+len(tokenStem)+8 {
		http.Error(w, "no token of ours", http.StatusBadRequest)
		return
	}
	number := body[at+len(tokenStem):][:8]
	id, _ := strconv.Atoi(string(number))
	if d := a.diary.Load(); d != nil {
		d.mu.Lock()
		d.all = append(d.all, question{time.Now(), id})
		d.mu.Unlock()
	}
	switch a.mode.Load() {
	case takes20ms:
		time.Sleep(20 * time.Millisecond)
	case hangs:
		<-r.Context().Done()
		return
	case closes:
		w.Header().Set("Connection", "close")
	case refuses:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case fails:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case limits:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	answer := bytes.Clone(a.answer)
	copy(answer[a.digit:], number)
	switch {
	case id >= nobody:
		answer = []byte(`{"active":false}`)
	case id >= batchTokens:
		copy(answer[a.client:], "batch-")
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
}

// hello is the process that everything is compared with: a bare handler that answers 200 with three small headers, and
// one that makes a bare call to the authorization server first.
func hello(address, calling, as string) error {
	bare := func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Cache-Control"], h["X-Auth-Subject"], h["X-Auth-Scopes"] = helloA, helloB, helloC
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}
	call := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/mallocs" {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Fprintf(w, "\ngo_memstats_mallocs_total %d\n", m.Mallocs)
			return
		}
		form := "token=" + r.Header.Get("Authorization")[len("Bearer "):] + "&token_type_hint=access_token"
		ask, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+as+"/introspect", bytes.NewReader([]byte(form)))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		ask.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		ask.SetBasicAuth("rs", "secret")
		answer, err := client.Do(ask)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		bare(w, r)
	}
	failed := make(chan error)
	go func() { failed <- http.ListenAndServe(calling, http.HandlerFunc(call)) }()
	go func() { failed <- http.ListenAndServe(address, http.HandlerFunc(bare)) }()
	go func() { // whoever started us holds the other end
		_, _ = io.Copy(io.Discard, os.Stdin)
		failed <- nil
	}()
	return <-failed
}

var helloA, helloB, helloC = []string{"no-store"}, []string{"user-00000000"}, []string{"openid"}

// metric reads one number of a process from where it shows its metrics.
func metric(ctx context.Context, url, name string) (float64, error) {
	page, err := page(ctx, url)
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(page, []byte("\n"+name+" "))
	if !found {
		return 0, errors.New("no " + name + " at " + url)
	}
	number, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.ParseFloat(string(number), 64)
}

func page(ctx context.Context, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// free is a loopback address that nobody listens on.
func free() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0" // whoever listens there will say so
	}
	defer l.Close()
	return l.Addr().String()
}
