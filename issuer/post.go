package issuer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/watchword-dev/watchword"
)

// Post sends a form to one of the server's endpoints (its token or revocation endpoint), authenticated by Config.Auth
// as a question is, within Config.Timeout. It returns the status and the body, at most watchword.MaxClaimsBytes of a 200
// and 4 KiB of anything else. Redirects are not followed. After a 401 it tries once more with what is live then, and
// before a Retry-After that came with an earlier answer is over it sends nothing. Errors are
// *watchword.Error and hold nothing of the form or of the answer.
func (c *Client) Post(ctx context.Context, where string, form url.Values) (status int, body []byte, err error) {
	at, err := endpoint(where)
	if err != nil {
		return 0, nil, c.fail(watchword.ConfigError, err)
	}
	if left := c.Held(); left > 0 {
		return 0, nil, c.tooSoon(left)
	}
	within, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	t := newTarget(at)
	cred := c.keys.first()
	r, err := c.post(within, t, form, cred)
	if err == nil && r.status == http.StatusUnauthorized {
		if next := c.keys.refused(cred); next != nil {
			cred = next
			if r, err = c.post(within, t, form, cred); err == nil && r.status == http.StatusUnauthorized {
				c.keys.refusedAgain(cred)
			}
		}
	}
	if err != nil {
		return 0, nil, c.broken(ctx, t, err)
	}
	if r.status == http.StatusOK {
		c.keys.accepted(cred)
	}
	if r.status == http.StatusTooManyRequests || r.status >= 500 {
		c.heed(r)
	}
	if r.large {
		return 0, nil, c.fail(watchword.ProtocolError, fmt.Errorf("%s: the answer is longer than %d bytes", t.name, watchword.MaxClaimsBytes))
	}
	return r.status, r.body, nil
}

func (c *Client) post(ctx context.Context, t *target, form url.Values, cred *credential) (reply, error) {
	body := form.Encode() + cred.form
	if cred.mint != nil {
		minted, err := cred.mint(ctx)
		if err != nil {
			return reply{}, unsent{err}
		}
		body += minted
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.request.URL.String(), strings.NewReader(body))
	if err != nil {
		return reply{}, unsent{errors.New("the request cannot be made")}
	}
	req.Header = http.Header{"Accept": acceptJSON, "Accept-Encoding": identity, "Content-Type": formType, "User-Agent": agent}
	if cred.authorization != nil {
		req.Header["Authorization"] = cred.authorization
	}
	resp, err := c.reach(t.request.URL).RoundTrip(req) // no http.Client: it follows redirects
	if err != nil {
		return reply{}, err
	}
	return readReply(resp, new(bytes.Buffer))
}
