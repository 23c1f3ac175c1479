package issuer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
)

const (
	maxRefusal    = 4 << 10 // of the body of every status but 200
	maxRetryAfter = time.Minute
)

// reply is one HTTP answer, whole and bounded. body is good until the buffer that holds it is used again.
type reply struct {
	status int
	header http.Header
	body   []byte
	large  bool // the body was longer than it may be, and is not whole
	asked  time.Time
}

// readReply reads resp into buf. What cannot be read of a refusal is left out: its status says enough.
func readReply(resp *http.Response, buf *bytes.Buffer) (reply, error) {
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, header: resp.Header}
	limit := int64(watchword.MaxClaimsBytes)
	if r.status != http.StatusOK {
		limit = maxRefusal
	}
	buf.Reset()
	_, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1)) // one more, to meet the end and keep the connection
	r.body = buf.Bytes()
	if int64(len(r.body)) > limit {
		r.body, r.large = r.body[:limit], true
	}
	if r.status != http.StatusOK {
		return r, nil
	}
	return r, err
}

// read is the table of statuses.
func (c *Client) read(ctx context.Context, t *target, q *watchword.Query, r reply) (*watchword.Answer, error) {
	failure, cause := watchword.ProtocolError, error(nil)
	switch s := r.status; {
	case s == http.StatusOK:
		return c.answer(ctx, t, r)
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		if q.Credential != nil {
			err := c.fail(watchword.ClientRejected, fmt.Errorf("%s: status %d to a caller's own credential", t.name, s))
			err.Rejection = rejection(r)
			return nil, err
		}
		failure, cause = watchword.ClientRejected, fmt.Errorf("refuses our credential (%s): check client_auth, and what the server knows of this client", c.config.Auth.method)
	case s >= 300 && s < 400:
		failure, cause = watchword.ConfigError, errors.New("redirects are not followed, for a token is in the request: configure the final URL")
	case s == http.StatusNotFound || s == http.StatusMethodNotAllowed || s == http.StatusNotImplemented:
		failure, cause = watchword.ConfigError, errors.New("nobody introspects there: check introspection_endpoint")
	case s == http.StatusBadRequest:
		failure, cause = badRequest(r)
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500:
		return nil, c.unavailable(t, q, r)
	default:
		cause = errors.New("no status of an introspection endpoint (RFC 7662 §2)")
	}
	return nil, c.fail(failure, fmt.Errorf("%s: status %d: %w", t.name, r.status, cause))
}

// unavailable reads Retry-After (RFC 9110 §10.2.3) and keeps it, so that nobody asks before. Where a stranger's own
// credential was asked too often with, the others go on.
func (c *Client) unavailable(t *target, q *watchword.Query, r reply) error {
	err := c.fail(watchword.Unavailable, fmt.Errorf("%s: status %d", t.name, r.status))
	if q.Credential != nil && r.status == http.StatusTooManyRequests {
		err.RetryAfter = retryAfter(r.header, time.Now())
		return err
	}
	err.RetryAfter = c.heed(r)
	return err
}

// heed keeps what a refusal says of when to come back, and returns it; zero: nothing.
func (c *Client) heed(r reply) time.Duration {
	now := time.Now()
	wait := retryAfter(r.header, now)
	if wait > 0 {
		c.holdUntil(now.Add(wait))
	}
	return wait
}

func (c *Client) holdUntil(until time.Time) {
	for {
		old := c.hold.Load()
		if old != nil && !until.After(*old) || c.hold.CompareAndSwap(old, &until) {
			return
		}
	}
}

// Held is how long the server still wants to be left alone, by its Retry-After.
func (c *Client) Held() time.Duration {
	if until := c.hold.Load(); until != nil {
		return min(max(0, time.Until(*until)), maxRetryAfter)
	}
	return 0
}

// retryAfter is zero where the server said nothing that can be read. A date is one of its own clock, which Date tells.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if n, ok := deltaSeconds(v); ok {
		return min(n, maxRetryAfter)
	}
	if at, err := http.ParseTime(v); err == nil {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}

// deltaSeconds reads RFC 9111 §1.2.2: digits only; more than can be counted is as much as can be.
func deltaSeconds(v string) (time.Duration, bool) {
	const most = 1 << 31
	if v == "" || strings.Trim(v, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n > most {
		n = most
	}
	return time.Duration(n) * time.Second, true
}

// age is how old the answer was when it was given (RFC 9111 §5.1): the greatest of what was said. What cannot be read
// is an error, not zero: somebody in between keeps answers, and we cannot tell for how long.
func age(h http.Header) (oldest time.Duration, err error) {
	for _, line := range h["Age"] {
		for member := range strings.SplitSeq(line, ",") {
			d, ok := deltaSeconds(strings.TrimSpace(member))
			if !ok {
				return 0, errors.New("the header Age is not a number of seconds")
			}
			oldest = max(oldest, d)
		}
	}
	return oldest, nil
}

// maxAge is how old the server lets its answer become (RFC 9111 §5.2.2.1), at least a nanosecond; zero: it says nothing.
// It is a hint to ask sooner, so what cannot be read hints nothing, and nothing else counts: no-store is what careful
// servers send with every answer.
func maxAge(h http.Header) (least time.Duration) {
	for _, line := range h["Cache-Control"] {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.Trim(directive, " \t"), "=")
			if !strings.EqualFold(name, "max-age") {
				continue
			}
			if d, ok := deltaSeconds(strings.Trim(value, `"`)); ok && (least == 0 || d < least) {
				least = max(d, 1)
			}
		}
	}
	return least
}

// answer reads a 200 (RFC 7662 §2.2).
func (c *Client) answer(ctx context.Context, t *target, r reply) (*watchword.Answer, error) {
	a, err := c.parse(ctx, r)
	if e, is := errors.AsType[*watchword.Error](err); is {
		e.Cause = fmt.Errorf("%s: %w", t.name, e.Cause)
		return nil, e
	}
	if err != nil {
		return nil, c.fail(watchword.ProtocolError, fmt.Errorf("%s: %w", t.name, err))
	}
	return a, nil
}

func (c *Client) parse(ctx context.Context, r reply) (*watchword.Answer, error) {
	if err := r.is(c.accept()...); err != nil {
		return nil, err
	}
	old, err := age(r.header)
	if err != nil {
		return nil, err
	}
	if c.config.Signed != nil {
		if r.body, err = c.config.Signed(ctx, r.body, r.asked.Add(-old)); err != nil {
			return nil, err
		}
	}
	e := watchword.Evidence{Issuer: c.config.Name, Asked: r.asked, Age: old, Leeway: c.config.Leeway, Offset: c.shortens(), Quirks: c.config.Quirks}
	if c.config.MaxAgeHint {
		e.MaxAge = maxAge(r.header)
	}
	a, err := watchword.ParseAnswer(r.body, e)
	if err != nil {
		return nil, err
	}
	if want := c.config.Issuer; want != "" && a.Active() {
		if iss, is := a.Claims().Text("iss"); is && iss != want {
			return nil, errors.New("iss in the answer is not the configured issuer")
		}
	}
	return a, nil
}

// is refuses what is of none of these media types, is compressed, or too large.
func (r *reply) is(kinds ...string) error {
	kind, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
	kind = strings.Trim(kind, " \t")
	switch {
	case len(r.header["Content-Type"]) != 1 || !slices.ContainsFunc(kinds, func(k string) bool { return strings.EqualFold(k, kind) }):
		return fmt.Errorf("the answer is not %s", strings.Join(kinds, " or "))
	case compressed(r.header):
		return errors.New("the answer is compressed, which was not asked for")
	case r.large:
		return fmt.Errorf("the answer is larger than %d bytes", watchword.MaxClaimsBytes)
	}
	return nil
}

func compressed(h http.Header) bool {
	return slices.ContainsFunc(h["Content-Encoding"], func(v string) bool { return v != "" && !strings.EqualFold(v, "identity") })
}

// oauthErrors may be named in our own errors (RFC 6749 §5.2, RFC 7009 §2.2.1): whatever else a server writes may not.
var oauthErrors = []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client",
	"unsupported_grant_type", "invalid_scope", "invalid_token", "access_denied", "unsupported_token_type"}

func badRequest(r reply) (watchword.Failure, error) {
	var code string
	if c, err := watchword.ParseClaims(r.body); err == nil && r.is(acceptJSON...) == nil {
		code, _ = c.Text("error")
	}
	switch {
	case code == "unsupported_token_type":
		return watchword.ConfigError, errors.New("unsupported_token_type: it does not introspect tokens of this kind (often JWTs): " +
			"let it issue opaque tokens, or give these tokens an issuer of their own that has no introspection endpoint, and verify them by jwt; token_type_hint: none may help too")
	case slices.Contains(oauthErrors, code):
		return watchword.ProtocolError, errors.New(code)
	}
	return watchword.ProtocolError, errors.New("it does not understand the question")
}

// rejection is what a caller gets to see of the refusal of its own credential.
func rejection(r reply) *watchword.Rejection {
	out := &watchword.Rejection{Status: r.status, Challenge: strings.Join(r.header["Www-Authenticate"], ", ")}
	if !compressed(r.header) {
		out.ContentType, out.Body = r.header.Get("Content-Type"), bytes.Clone(r.body)
	}
	return out
}
