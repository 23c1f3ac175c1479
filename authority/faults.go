package authority

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Mode is a way for an authorization server to be wrong.
type Mode string

// The ways. Lies are told about introspection only, and only to callers whose credential is right.
const (
	Delay       Mode = "delay"        // serve, but Fault.Delay late
	Hang        Mode = "hang"         // never answer: until the client goes or the fault is cleared, then drop
	Status      Mode = "status"       // answer Fault.Status with an OAuth error, and Retry-After if set
	LieInactive Mode = "lie_inactive" // say active:false whatever is true
	LieActive   Mode = "lie_active"   // repeat the last active answer for that token (a replica that lags); never seen: nobody's
	HTML        Mode = "html"         // 200 with a web page
	Garbage     Mode = "garbage"      // 200 application/json that is no JSON
	Drop        Mode = "drop"         // close the connection without a byte
	Drip        Mode = "drip"         // the true answer, one byte every Fault.Delay
)

// remembered bounds what LieActive can repeat.
const remembered = 1024

// Fault is one fault. The zero value is not one: Mode is required.
type Fault struct {
	Mode        Mode
	Path        string        // only requests to this path, such as /introspect; empty: all
	Delay       time.Duration // of Delay and Drip, where it is required
	Status      int           // of Status, where it is required: 200 to 599
	RetryAfter  time.Duration // of Status; rounded up to whole seconds; 0: no such header
	AfterEffect bool          // Hang, Status, HTML, Garbage, Drop: serve first and lose the answer, so that it took effect
}

// Faults is a middleware that makes the server behind it slow, failing or lying, one fault at a time. Until Set is
// called it passes everything through. It is safe for concurrent use.
type Faults struct {
	next  http.Handler
	mu    sync.Mutex
	armed *armed
	seen  map[[sha256.Size]byte][]byte // the last active answer, by digest of the token
}

// armed is a fault that is on; gone closes when it is not any more.
type armed struct {
	Fault
	gone chan struct{}
}

// NewFaults puts fault switches in front of next. It is the only way to have any: no configuration, environment
// variable or request turns them on.
func NewFaults(next http.Handler) *Faults {
	return &Faults{next: next, seen: map[[sha256.Size]byte][]byte{}}
}

// Set replaces the fault that is on. Requests that hang or wait under the old one are released.
func (f *Faults) Set(fault Fault) error {
	if err := fault.check(); err != nil {
		return fmt.Errorf("authority: fault: %w", err)
	}
	f.swap(&armed{fault, make(chan struct{})})
	return nil
}

// Clear turns faults off and releases requests that hang or wait. Call it before a server's Shutdown.
func (f *Faults) Clear() { f.swap(nil) }

func (f *Faults) swap(next *armed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.armed != nil {
		close(f.armed.gone)
	}
	f.armed = next
}

func (f *Faults) current() *armed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.armed
}

func (f Fault) check() error {
	delays := f.Mode == Delay || f.Mode == Drip
	switch f.Mode {
	case Delay, Drip, LieInactive, LieActive:
		if f.AfterEffect {
			return fmt.Errorf("AfterEffect means nothing to %s: leave it out", f.Mode)
		}
	case Hang, Status, HTML, Garbage, Drop:
	default:
		return fmt.Errorf("no mode %q: use one of the Mode constants", f.Mode)
	}
	switch {
	case delays != (f.Delay > 0) || f.Delay < 0:
		return fmt.Errorf("Delay %s: delay and drip need a positive one, the others none", f.Delay)
	case f.Mode == Status && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("Status %d: use 200 to 599", f.Status)
	case f.Mode != Status && (f.Status != 0 || f.RetryAfter != 0):
		return fmt.Errorf("Status and RetryAfter mean nothing to %s: leave them out", f.Mode)
	case f.RetryAfter < 0:
		return errors.New("RetryAfter is negative")
	}
	return nil
}

// ServeHTTP serves one request under the fault that is on when it arrives.
func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The body first: net/http notices a client that goes away only once its body is read.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		refuseForm(w, err)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	on := f.current()
	if on == nil || on.Path != "" && on.Path != r.URL.Path {
		on = &armed{} // no mode: the truth
	}
	if on.AfterEffect {
		f.next.ServeHTTP(&recorder{header: http.Header{}}, r)
	}
	switch on.Mode {
	case Delay:
		_ = on.wait(r, on.Delay)
		f.next.ServeHTTP(w, r)
	case Hang:
		_ = on.wait(r, math.MaxInt64)
		panic(http.ErrAbortHandler) // net/http's way to close a connection without an answer
	case Drop:
		panic(http.ErrAbortHandler)
	case Status:
		if on.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.FormatInt(int64((on.RetryAfter+time.Second-1)/time.Second), 10))
		}
		answer(w, on.Status, "application/json", `{"error":"temporarily_unavailable"}`)
	case HTML:
		answer(w, http.StatusOK, "text/html; charset=utf-8", "<!doctype html><title>Log in</title><p>Please log in to the network.</p>")
	case Garbage:
		answer(w, http.StatusOK, "application/json", `{"active":tru`)
	default:
		f.serve(w, r, on, body)
	}
}

// serve asks the true server, then lies or drips, or passes on what it said.
func (f *Faults) serve(w http.ResponseWriter, r *http.Request, on *armed, body []byte) {
	if on.Mode != Drip && r.URL.Path != introspectPath {
		f.next.ServeHTTP(w, r)
		return
	}
	truth := &recorder{header: http.Header{}}
	f.next.ServeHTTP(truth, r)
	if r.URL.Path == introspectPath && truth.status() == http.StatusOK {
		form, _ := url.ParseQuery(string(body)) // the server behind read the same body
		remembered := f.remember(form.Get("token"), truth.body.Bytes())
		switch on.Mode {
		case LieInactive:
			truth.body = *bytes.NewBufferString(`{"active":false}`)
		case LieActive:
			truth.body = *bytes.NewBuffer(remembered)
		}
	}
	for name, values := range truth.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(truth.body.Len()))
	w.WriteHeader(truth.status())
	if on.Mode != Drip {
		_, _ = w.Write(truth.body.Bytes())
		return
	}
	flush := http.NewResponseController(w)
	for _, b := range truth.body.Bytes() {
		_ = flush.Flush() // the header, then each byte: none may wait for the next
		if !on.wait(r, on.Delay) {
			panic(http.ErrAbortHandler)
		}
		if _, err := w.Write([]byte{b}); err != nil {
			return
		}
	}
}

// remember keeps an active answer, and returns the last one there was for that token.
func (f *Faults) remember(token string, answer []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := sha256.Sum256([]byte(token))
	var truth struct{ Active bool }
	if json.Unmarshal(answer, &truth) == nil && truth.Active {
		if len(f.seen) >= remembered {
			clear(f.seen)
		}
		f.seen[key] = bytes.Clone(answer)
	}
	if last := f.seen[key]; last != nil {
		return last
	}
	now := time.Now().Unix()
	return fmt.Appendf(nil, `{"active":true,"sub":"nobody","client_id":"nobody","token_type":"Bearer","iat":%d,"exp":%d}`, now, now+3600)
}

// wait sleeps for d and says whether it could: not once the client has gone or the fault is off.
func (a *armed) wait(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-a.gone:
	}
	return false
}

func answer(w http.ResponseWriter, status int, mediaType, body string) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// recorder keeps an answer instead of sending it.
type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
}
func (r *recorder) status() int { return max(r.code, http.StatusOK) }
