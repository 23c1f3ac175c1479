package issuer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	poolSize       = 256             // connections to one server; more askings at once wait for one
	idleTimeout    = 4 * time.Second // below the 5 s after which common servers close theirs
	maxHeaderBytes = 64 << 10
	maxPEMBytes    = 1 << 20
)

// secure reads the files of Config.TLS and makes the first transport.
func (c *Client) secure() error {
	var errs []error
	if f := c.config.TLS.CAFile; f != "" {
		pem, err := readPEM(f)
		c.roots = x509.NewCertPool()
		if err == nil && !c.roots.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("file %s holds no certificate in PEM", f)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tls: ca: %w", err))
		}
	}
	if f := c.config.TLS; f.CertFile != "" && f.KeyFile != "" {
		c.cert = &certificate{certFile: f.CertFile, keyFile: f.KeyFile}
		if _, err := c.cert.read(); err != nil {
			errs = append(errs, fmt.Errorf("tls: %w", err))
		}
	}
	c.transport.Store(c.newTransport(c.plain))
	c.other = sync.OnceValue(func() *http.Transport { return c.newTransport(!c.plain) })
	return errors.Join(errs...)
}

// reach is the transport for u: with TLS or without, whichever way the server is asked.
func (c *Client) reach(u *url.URL) *http.Transport {
	if (u.Scheme == "http") == c.plain {
		return c.transport.Load()
	}
	return c.other()
}

// newTransport makes a pool of connections of its own: no other issuer's, and no other setting of this one's.
func (c *Client) newTransport(plain bool) *http.Transport {
	t := &http.Transport{
		DialContext:            c.dial(plain),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.roots},
		TLSHandshakeTimeout:    c.config.Timeout,
		ForceAttemptHTTP2:      true, // else a TLS config of one's own turns it off
		MaxIdleConnsPerHost:    poolSize,
		MaxConnsPerHost:        poolSize,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true, // a compressed answer is refused: nobody bounds what it grows to
		MaxResponseHeaderBytes: maxHeaderBytes,
		// A dead HTTP/2 connection carries everybody: find out soon.
		HTTP2: &http.HTTP2Config{SendPingTimeout: idleTimeout, PingTimeout: c.config.Timeout},
	}
	if !plain {
		t.Proxy = http.ProxyFromEnvironment // an HTTPS proxy tunnels: it sees neither token nor credential
	}
	if c.cert != nil {
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert.read() }
	}
	return t
}

// foreign marks a context with the host:port that metadata from a public address named for this request.
type foreign struct{}

// dial connects where a token may go.
func (c *Client) dial(plain bool) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: c.config.Timeout}
		switch t := c.target.Load(); {
		case plain:
			d.Control = only(netip.Addr.IsLoopback, "http goes to loopback only")
		case t != nil && t.foreign == address || ctx.Value(foreign{}) == address:
			d.Control = only(public, "metadata from a public address may not name a private one")
		}
		return d.DialContext(ctx, network, address)
	}
}

// only refuses to connect to every address but those that may; DNS cannot get around it.
func only(may func(netip.Addr) bool, why string) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		if to, err := netip.ParseAddrPort(address); err != nil || !may(to.Addr().Unmap()) {
			return errors.New("refused: " + why)
		}
		return nil
	}
}

// public reports an address that means the same machine to everybody.
func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598: behind carriers' and clouds' translators

func loopbackName(host string) bool {
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.Unmap().IsLoopback()
}

// certificate is our own, read anew for every handshake, so that a new one needs no restart and drops no connection.
type certificate struct {
	certFile, keyFile string

	mu   sync.Mutex
	now  *tls.Certificate // the last that could be read
	pool []byte           // the leaf at which the transport began
}

// read returns what the files hold now. While they are unreadable, or do not belong together because somebody is just
// writing them, the last good certificate serves.
func (c *certificate) read() (*tls.Certificate, error) {
	next, err := c.files()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.now = next
	}
	if c.now == nil {
		return nil, err
	}
	if c.pool == nil {
		c.pool = c.now.Certificate[0]
	}
	return c.now, nil
}

func (c *certificate) files() (*tls.Certificate, error) {
	cert, err := readPEM(c.certFile)
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	key, err := readPEM(c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("files %s and %s are no certificate and its key", c.certFile, c.keyFile)
	}
	return &pair, nil
}

// recertify names the certificate that is live now. If it is another than the connections began with, new ones are
// made from here on; those in use end their work.
func (c *Client) recertify() (mark string, err error) {
	now, err := c.cert.read()
	if err != nil {
		return "", err
	}
	c.cert.mu.Lock()
	defer c.cert.mu.Unlock()
	if leaf := now.Certificate[0]; !bytes.Equal(leaf, c.cert.pool) {
		c.cert.pool = leaf
		c.transport.Swap(c.newTransport(c.plain)).CloseIdleConnections()
	}
	return string(now.Certificate[0]), nil
}

// readPEM reads a regular file of bounded size. Errors name the file.
func readPEM(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for a named pipe's writer
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPEMBytes+1))
	if err == nil && len(b) > maxPEMBytes {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxPEMBytes)
	}
	return b, err
}

// describe says in words of ours why no answer came: what net/http says may repeat bytes of the server or a proxy's
// password.
func describe(err error, within time.Duration) error {
	if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", within)
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return certificateProblem(cert)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return errors.New("it does not speak TLS")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok { // addresses and a system error, or a TLS alert
		return errors.New(op.Error())
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.HasSuffix(err.Error(), "server closed idle connection") {
		return errors.New("the connection ended before the answer did")
	}
	if strings.HasPrefix(err.Error(), "tls: ") { // crypto/tls's own words
		return errors.New(err.Error())
	}
	return errors.New("the connection broke, or what came was not HTTP")
}

func certificateProblem(err error) error {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return errors.New("its certificate is expired, or not valid yet")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return errors.New("its certificate is signed by an unknown authority: tls.ca names those to trust")
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return errors.New("its certificate is for another host")
	}
	return errors.New("its certificate is not valid")
}
