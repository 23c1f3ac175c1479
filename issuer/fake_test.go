package issuer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

const (
	canary = "tok-CANARY-7f3a" // a token that no error, log or URL may show
	hush   = "sec-CANARY-91bc" // a secret likewise
	leak   = "CANARY-as-text"  // what the server wrote likewise
)

// server is an authorization server whose answers a test writes.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	asked []question
}

// question is one request as it arrived.
type question struct {
	method, uri, body, proto string
	header                   http.Header
	form                     url.Values
	at                       time.Time
}

func (s *server) questions() []question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]question(nil), s.asked...)
}

func (s *server) last(t *testing.T) question {
	t.Helper()
	all := s.questions()
	if len(all) == 0 {
		t.Fatal("the server was not asked")
	}
	return all[len(all)-1]
}

// serve starts a server that remembers every request and answers with h.
func serve(t testing.TB, h func(w http.ResponseWriter, r *http.Request)) *server {
	return serveWith(t, h, (*httptest.Server).Start)
}

func serveWith(t testing.TB, h func(w http.ResponseWriter, r *http.Request), start func(*httptest.Server)) *server {
	s := new(server)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := time.Now()
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		_ = r.ParseForm()
		q := question{r.Method, r.RequestURI, string(body), r.Proto, r.Header.Clone(), r.PostForm, at}
		s.mu.Lock()
		s.asked = append(s.asked, q)
		s.mu.Unlock()
		h(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(s.Server)
	t.Cleanup(s.Close)
	return s
}

// says answers with one body as application/json.
func says(body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, body) }
}

func writeJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// status answers with a status and headers, name after value, and a body that nobody may see.
func status(code int, headers ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Add(headers[i], headers[i+1])
		}
		writeJSON(w, code, `{"error":"`+leak+`"}`)
	}
}

// fixed is a secret that never changes.
func fixed(values ...string) Secret { return func() ([]string, error) { return values, nil } }

// client makes a Client of endpoint as changed by edits.
func client(t testing.TB, endpoint string, edits ...func(*Config)) *Client {
	t.Helper()
	c := Config{Name: "main", IntrospectionEndpoint: endpoint, Auth: ClientSecretBasic("rs", fixed(hush)), Timeout: 10 * time.Second}
	for _, edit := range edits {
		edit(&c)
	}
	cl, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.transport.Load().CloseIdleConnections() })
	return cl
}

func soon(c *Config) { c.Timeout = 200 * time.Millisecond }

func query() watchword.Query {
	return watchword.Query{Token: canary, Issuer: "main", At: time.Now()}
}

// answer asks and wants an answer.
func answer(t *testing.T, c *Client) *watchword.Answer {
	t.Helper()
	a, err := c.Introspect(t.Context(), query())
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return a
}

// failure asks and wants an error of kind want that gives nothing away.
func failure(t *testing.T, c *Client, want watchword.Failure) *watchword.Error {
	t.Helper()
	return failureOf(t, c, query(), want)
}

func failureOf(t *testing.T, c *Client, q watchword.Query, want watchword.Failure) *watchword.Error {
	t.Helper()
	a, err := c.Introspect(t.Context(), q)
	return wanted(t, a, err, want)
}

func wanted(t *testing.T, a *watchword.Answer, err error, want watchword.Failure) *watchword.Error {
	t.Helper()
	e, ok := errors.AsType[*watchword.Error](err)
	if !ok || e.Failure != want || a != nil {
		t.Fatalf("got answer %v, error %v; want %v", a != nil, err, want)
	}
	discreet(t, fmt.Sprintf("%v %+v %#v %q", err, err, e.Cause, e.Cause))
	if e.Issuer != "main" {
		t.Errorf("the error names issuer %q", e.Issuer)
	}
	return e
}

func discreet(t *testing.T, text string) {
	t.Helper()
	for _, c := range []string{canary, hush, leak} {
		if strings.Contains(text, c) {
			t.Errorf("%q gives %q away", text, c)
		}
	}
}

// raw starts a server of bare connections: each is given to h with its number, from 1, and closed after it.
func raw(t *testing.T, h func(n int, c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	group.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				h(n, c)
			})
		}
	})
	t.Cleanup(func() { cancel(); _ = l.Close(); group.Wait() })
	return "http://" + l.Addr().String() + "/introspect"
}

// readRequest reads one request from r; false: there is none.
func readRequest(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err == nil
}

const goodAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"active\":true}"

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM of cert
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := new(authority)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	a.key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key))
	a.cert = must(x509.ParseCertificate(der))
	a.file = filepath.Join(t.TempDir(), "ca.pem")
	write(t, a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

// issue makes a certificate for name, an IP address or a host, as PEM.
func (a *authority) issue(t *testing.T, name string, until time.Time) (cert, key []byte) {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{name}
	}
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(k))})
}

// startTLS starts a server with a certificate for name.
func (a *authority) startTLS(t *testing.T, name string, until time.Time, edit func(*tls.Config)) func(*httptest.Server) {
	return func(s *httptest.Server) {
		cert, key := a.issue(t, name, until)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{must(tls.X509KeyPair(cert, key))}}
		s.EnableHTTP2 = true
		if edit != nil {
			edit(s.TLS)
		}
		s.StartTLS()
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
