package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// ask is one request, written byte for byte as it stands here: no client library cleans up its path or its headers.
type ask struct {
	method  string // GET if empty
	target  string // the request target as sent
	token   string // Authorization: Bearer, if not empty
	headers []string
	body    string
}

// reply is what came back. saw is what the backend received, nil if the request never got there.
type reply struct {
	status int
	header http.Header
	body   string
	saw    *sight
}

// sight is a request as the backend saw it.
type sight struct {
	Method string
	URI    string
	Header map[string][]string
	Bytes  int // length of the body
}

const sightHeader = "X-Backend-Saw"

// backend is the API behind a gateway: it says 200 to everything, and what it saw.
func backend(t *testing.T) (address string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		saw, err := json.Marshal(sight{Method: r.Method, URI: r.RequestURI, Header: r.Header, Bytes: int(n)})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set(sightHeader, string(saw))
		_, _ = io.WriteString(w, "reached\n")
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// identity returns the values that some server would read as the header called name: without case, and with `_` and
// `.` taken for `-`, as CGI, WSGI and others do.
func (s *sight) identity(name string) []string {
	same := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(s)) }
	var values []string
	for n, vs := range s.Header {
		if same(n) != same(name) {
			continue
		}
		for _, v := range vs {
			if v != "" {
				values = append(values, v)
			}
		}
	}
	return values
}

// send writes a on a connection of its own and reads the one answer.
func send(t *testing.T, address string, a ask) reply {
	t.Helper()
	method := a.method
	if method == "" {
		method = http.MethodGet
	}
	lines := []string{method + " " + a.target + " HTTP/1.1", "Host: api.example"}
	if a.token != "" {
		lines = append(lines, "Authorization: Bearer "+a.token)
	}
	if a.body != "" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(a.body)), "Content-Type: text/plain")
	}
	lines = append(lines, a.headers...)
	return exchange(t, address, method, strings.Join(lines, "\r\n")+"\r\n\r\n"+a.body)
}

// exchange writes text to address, byte for byte, and reads the answer to a request of that method.
func exchange(t *testing.T, address, method, text string) reply {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{}) // a server may answer before it has read everything
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c, text)
	}()
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: no answer to %.60q…: %v", address, text, err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%s: answer to %.60q… broken off: %v", address, text, err)
	}
	c.Close()
	<-sent
	got := reply{status: r.StatusCode, header: r.Header, body: string(body)}
	if saw := r.Header.Get(sightHeader); saw != "" {
		got.saw = &sight{}
		if err := json.Unmarshal([]byte(saw), got.saw); err != nil {
			t.Fatalf("the backend saw %q: %v", saw, err)
		}
	}
	return got
}

// refused checks that a request ended at the gateway with this status.
func (r reply) refused(t *testing.T, what string, status int) {
	t.Helper()
	if r.saw != nil {
		t.Errorf("%s: reached the backend as %s %s", what, r.saw.Method, r.saw.URI)
	}
	if r.status != status {
		t.Errorf("%s: status %d, want %d (%v)", what, r.status, status, r.header)
	}
}

// accepted checks that a request reached the backend, and returns what it saw there.
func (r reply) accepted(t *testing.T, what string) sight {
	t.Helper()
	if r.saw == nil || r.status != http.StatusOK {
		t.Fatalf("%s: status %d, backend reached: %t (%v)", what, r.status, r.saw != nil, r.header)
	}
	return *r.saw
}
