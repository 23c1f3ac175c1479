package issuer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

// Introspect asks the server about q.Token, within Config.Timeout and until ctx ends. It asks once more only where a
// kept connection turned out to be closed, or where our credential was answered 401 and there is another. Errors are
// *watchword.Error and name no token, no secret and nothing that the server wrote.
func (c *Client) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	t, err := c.may(&q)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	a, err := c.ask(ctx, t, &q)
	if c.config.Observe != nil {
		c.config.Observe(outcome(a, err), time.Since(began))
	}
	c.tell(ctx, err, time.Now())
	return a, err
}

// may finds whether and where the server may be asked about q now.
func (c *Client) may(q *watchword.Query) (*target, error) {
	t := c.target.Load()
	switch left := c.Held(); {
	case q.Issuer != c.config.Name:
		return nil, c.fail(watchword.ConfigError, errors.New("a question for another issuer"))
	case t == nil && c.config.IntrospectionEndpoint == NoIntrospection:
		return nil, c.fail(watchword.ConfigError, errors.New("it does not introspect"))
	case t == nil:
		return nil, c.fail(watchword.ConfigError, errors.New("not discovered yet: where it introspects is not known"))
	case q.Credential != nil && c.config.Auth.method == "tls_client_auth":
		return nil, c.fail(watchword.ConfigError, errors.New("a caller's own credential cannot go where our certificate vouches: use another client_auth method"))
	case left > 0:
		return nil, c.tooSoon(left)
	}
	return t, nil
}

func (c *Client) tooSoon(left time.Duration) *watchword.Error {
	err := c.fail(watchword.Unavailable, errors.New("it asked not to be asked before Retry-After"))
	err.RetryAfter = left
	return err
}

func outcome(a *watchword.Answer, err error) string {
	e, failed := errors.AsType[*watchword.Error](err)
	switch {
	case failed && e.Rejection != nil:
		return "caller_rejected"
	case failed:
		return e.Failure.Error()
	case a.Active():
		return "ok"
	}
	return "inactive"
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const keptBuffer = 64 << 10 // a larger one is left to the garbage collector

// ask makes one to three attempts and says what the last one means.
func (c *Client) ask(ctx context.Context, t *target, q *watchword.Query) (*watchword.Answer, error) {
	within, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	buf := buffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= keptBuffer {
			buffers.Put(buf)
		}
	}()
	cred, err := c.credential(q)
	if err != nil {
		return nil, c.fail(watchword.ProtocolError, err)
	}
	r, err := c.exchange(within, t, q, cred, buf)
	if err == nil && r.status == http.StatusUnauthorized && q.Credential == nil {
		if next := c.keys.refused(cred); next != nil {
			cred = next
			if r, err = c.exchange(within, t, q, cred, buf); err == nil && r.status == http.StatusUnauthorized {
				c.keys.refusedAgain(cred)
			}
		}
	}
	if err != nil {
		return nil, c.broken(ctx, t, err)
	}
	if r.status == http.StatusOK && q.Credential == nil {
		c.keys.accepted(cred)
	}
	c.compareClocks(ctx, r, time.Now())
	return c.read(within, t, q, r)
}

// credential is whose asks: ours, or the caller's own exactly as it came.
func (c *Client) credential(q *watchword.Query) (*credential, error) {
	if q.Credential == nil {
		return c.keys.first(), nil
	}
	cred := new(credential)
	if q.Credential.Authorization != "" {
		cred.authorization = []string{q.Credential.Authorization}
	}
	var form strings.Builder
	for _, p := range q.Credential.Parameters {
		if p[0] == "token" || p[0] == "token_type_hint" {
			return nil, errors.New("a caller's credential names a second " + p[0])
		}
		form.WriteString("&" + url.QueryEscape(p[0]) + "=" + url.QueryEscape(p[1]))
	}
	cred.form = form.String()
	return cred, nil
}

// exchange makes one attempt, and another one if the first met a connection that the server had closed meanwhile.
// Asking twice is harmless: introspection changes nothing (RFC 7662 §2).
func (c *Client) exchange(ctx context.Context, t *target, q *watchword.Query, cred *credential, buf *bytes.Buffer) (reply, error) {
	a := new(attempt)
	r, err := c.attempt(ctx, t, q, cred, buf, a)
	if err != nil && a.stale(err) && ctx.Err() == nil {
		c.transport.Load().CloseIdleConnections() // the others are as old; this makes the next one fresh
		return c.attempt(ctx, t, q, cred, buf, new(attempt))
	}
	return r, err
}

// attempt is one request on one connection.
type attempt struct {
	trace httptrace.ClientTrace
	body  bytes.Reader

	mu       sync.Mutex
	asked    time.Time // the connection was ours; nothing was written yet
	reused   bool
	answered bool // the first byte of an answer came
}

func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked, a.reused, a.answered = time.Now(), info.Reused, false
}

func (a *attempt) gotByte() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answered = true
}

// stale reports a kept connection that ended before one byte of an answer. A stream that an HTTP/2 server reset was
// answered by it.
func (a *attempt) stale(err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reused && !a.answered && !errors.As(err, new(streamError))
}

// streamError has the shape of golang.org/x/net/http2.StreamError, which net/http's own converts itself to.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (streamError) Error() string { return "stream error" }

// attempt posts the question (RFC 7662 §2.1): the token and our credential are in the body and the Authorization
// header, nothing is in the URL.
func (c *Client) attempt(ctx context.Context, t *target, q *watchword.Query, cred *credential, buf *bytes.Buffer, a *attempt) (reply, error) {
	hint := c.hint
	if q.Credential != nil {
		hint = ""
		if q.Credential.Hint != "" {
			hint = "&token_type_hint=" + url.QueryEscape(q.Credential.Hint)
		}
	}
	minted := ""
	if cred.mint != nil {
		var err error
		if minted, err = cred.mint(ctx); err != nil {
			return reply{}, unsent{err}
		}
	}
	token := url.QueryEscape(string(q.Token))
	form := make([]byte, 0, len("token=")+len(token)+len(hint)+len(cred.form)+len(minted))
	form = append(append(append(append(append(form, "token="...), token...), hint...), cred.form...), minted...)
	a.body.Reset(form)
	a.trace.GotConn, a.trace.GotFirstResponseByte = a.gotConn, a.gotByte
	req := t.request.WithContext(httptrace.WithClientTrace(ctx, &a.trace))
	// A reader of a type that net/http knows to be memory: header and body leave in one write.
	req.Header, req.Body, req.ContentLength = c.headers(q, cred), io.NopCloser(&a.body), int64(len(form))
	resp, err := c.transport.Load().RoundTrip(req) // no http.Client: it follows redirects and puts URLs into errors
	if err != nil {
		return reply{}, err
	}
	r, err := readReply(resp, buf)
	a.mu.Lock()
	r.asked = a.asked
	a.mu.Unlock()
	return r, err
}

var (
	acceptJSON = []string{"application/json"}
	acceptJWT  = []string{"application/token-introspection+jwt"} // and nothing else: a choice would be a way down (RFC 9701 §4)
	identity   = []string{"identity"}
	formType   = []string{"application/x-www-form-urlencoded"}
	agent      = []string{"watchword"}
)

// accept is the one media type of an answer.
func (c *Client) accept() []string {
	if c.config.Signed != nil {
		return acceptJWT
	}
	return acceptJSON
}

func (c *Client) headers(q *watchword.Query, cred *credential) http.Header {
	h := make(http.Header, 6)
	h["Accept"], h["Accept-Encoding"], h["Content-Type"], h["User-Agent"] = c.accept(), identity, formType, agent
	h["Cache-Control"] = []string{"max-age=" + strconv.FormatInt(bound(q), 10)}
	if cred.authorization != nil {
		h["Authorization"] = cred.authorization
	}
	return h
}

// bound is how old an answer may be when it is given, in whole seconds: whoever caches between us and the server keeps
// to it (RFC 9111 §5.2.1.1).
func bound(q *watchword.Query) int64 {
	old := q.Freshness.MaxStaleness
	if !q.AskedSince.IsZero() {
		old = min(old, -watchword.Age(q.AskedSince, q.At))
	}
	return int64(max(0, old) / time.Second)
}

// unsent is an error of ours before anything was sent.
type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }

// broken says why there was no answer: the caller left, we could not ask, or the server did not answer.
func (c *Client) broken(ctx context.Context, t *target, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return c.fail(watchword.Canceled, context.Canceled)
	}
	if ours, ok := errors.AsType[unsent](err); ok && !errors.Is(err, context.DeadlineExceeded) {
		return c.fail(watchword.ConfigError, ours.error)
	}
	return c.fail(watchword.Unavailable, fmt.Errorf("%s: %w", t.name, describe(err, c.config.Timeout)))
}

func (c *Client) fail(f watchword.Failure, cause error) *watchword.Error {
	return &watchword.Error{Failure: f, Issuer: c.config.Name, Cause: cause}
}
