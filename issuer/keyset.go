package issuer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/watchword-dev/watchword"
)

// acceptKeys are the media types of a key set: RFC 7517 §8.5.2, and what most servers send.
var acceptKeys = []string{"application/jwk-set+json", "application/json"}

// KeySet gets the server's public keys (a JWK set, RFC 7517 §5), from where, or, if that is empty, from the jwks_uri of
// its metadata (RFC 8414 §2), which needs Config.Issuer. It follows no redirect and reads at most
// watchword.MaxClaimsBytes; a set that somebody in between kept should be younger than fresh. asOf is the instant just
// before the question left us, less the answer's Age. Errors are *watchword.Error.
func (c *Client) KeySet(ctx context.Context, where string, fresh time.Duration) (set []byte, asOf time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	at, err := endpoint(where)
	if where == "" {
		at, ctx, err = c.keysNamed(ctx)
	}
	if err != nil {
		if e, is := errors.AsType[*watchword.Error](err); is {
			return nil, time.Time{}, e
		}
		return nil, time.Time{}, c.fail(watchword.ConfigError, fmt.Errorf("jwks_uri %w", err))
	}
	r, _, err := c.get(ctx, at, acceptKeys, fresh)
	if err == nil {
		var old time.Duration
		if old, err = age(r.header); err == nil {
			return r.body, r.asked.Add(-old), nil
		}
	}
	if e, is := errors.AsType[*watchword.Error](err); is {
		e.Cause = fmt.Errorf("%s: %w", newTarget(at).name, e.Cause)
		return nil, time.Time{}, e
	}
	return nil, time.Time{}, c.fail(watchword.ProtocolError, fmt.Errorf("%s: %w", newTarget(at).name, err))
}

// keysNamed finds jwks_uri in metadata.
func (c *Client) keysNamed(ctx context.Context) (at *url.URL, within context.Context, err error) {
	if c.config.Issuer == "" {
		return nil, ctx, errors.New("is not configured, and without issuer it cannot be discovered")
	}
	within = ctx
	err = c.search(ctx, "where its keys are; set jwks_uri", func(claims watchword.Claims, peer net.Addr) error {
		where, _ := claims.Text("jwks_uri")
		if where == "" {
			return errors.New("it names no jwks_uri")
		}
		u, far, err := c.named(where, peer)
		if err != nil {
			return fmt.Errorf("jwks_uri %w", err)
		}
		if at = u; far != "" {
			within = context.WithValue(ctx, foreign{}, far)
		}
		return nil
	})
	return at, within, err
}
