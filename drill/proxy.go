package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword/authority"
)

// proxy stands in front of an introspection endpoint: it counts what comes by, and breaks it on demand.
type proxy struct {
	url    string
	faults *authority.Faults
	server *http.Server
	calls  atomic.Int64
	off    atomic.Int64    // nanoseconds by which the server's clock seems to be ahead
	when   func(time.Time) // told of every call
}

// newProxy serves http://address/introspect, tells when of every call and passes it on to upstream, an introspection
// endpoint.
func newProxy(address string, upstream *url.URL, when func(time.Time)) (*proxy, error) {
	socket, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	if ip, ok := socket.Addr().(*net.TCPAddr); !ok || !ip.IP.IsLoopback() {
		_ = socket.Close()
		return nil, fmt.Errorf("the proxy would listen on %s: what makes failures listens on loopback only", socket.Addr())
	}
	p := &proxy{url: "http://" + socket.Addr().String() + "/introspect", when: when}
	p.faults = authority.NewFaults(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL, r.Out.Host = upstream, "" // Keycloak answers by the Host that it knows itself by
		},
		ModifyResponse: p.skew,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	})
	p.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.calls.Add(1)
		p.when(time.Now())
		p.faults.ServeHTTP(w, r)
	})}
	go func() { _ = p.server.Serve(socket) }()
	return p, nil
}

// skew lets an answer look as if the server's clock were wrong: its Date, and every instant in it.
func (p *proxy) skew(resp *http.Response) error {
	off := time.Duration(p.off.Load())
	if off == 0 || resp.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	var answer map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return err
	}
	for _, name := range []string{"exp", "iat", "nbf"} {
		if n, ok := answer[name].(json.Number); ok {
			if seconds, err := n.Int64(); err == nil {
				answer[name] = seconds + int64(off/time.Second)
			}
		}
	}
	if body, err = json.Marshal(answer); err != nil {
		return err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	resp.Header.Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
	return nil
}

const maxAnswer = 1 << 20

func (p *proxy) close() {
	p.faults.Clear()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if p.server.Shutdown(ctx) != nil {
		_ = p.server.Close()
	}
}
