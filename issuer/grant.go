package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

// tokenLife is how long a token of our own is used whose end is not known.
const tokenLife = 10 * time.Minute

// Grant gets access tokens for a client of our own: client_credentials (RFC 6749 §4.4). Make it with NewGrant. Safe for
// concurrent use. Its errors hold nothing of an answer.
type Grant struct {
	client          *Client
	endpoint, scope string
	turn            chan struct{} // who holds it asks for a token; the others wait for that one

	mu    sync.Mutex
	token watchword.Token // empty: none
	due   time.Time       // when another is asked for
	ends  time.Time
}

// NewGrant makes a Grant, which asks as client at tokenEndpoint. An empty scope asks for none.
func NewGrant(client *Client, tokenEndpoint, scope string) (*Grant, error) {
	if client == nil {
		return nil, errors.New("issuer: a Grant needs a Client")
	}
	if _, err := endpoint(tokenEndpoint); err != nil {
		return nil, fmt.Errorf("token_endpoint %w", err)
	}
	return &Grant{client: client, endpoint: tokenEndpoint, scope: scope, turn: make(chan struct{}, 1)}, nil
}

// Fresh gets a token that nobody else uses, and how long it lives.
func (g *Grant) Fresh(ctx context.Context) (t watchword.Token, life time.Duration, err error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if g.scope != "" {
		form.Set("scope", g.scope)
	}
	status, body, err := g.client.Post(ctx, g.endpoint, form)
	if err != nil {
		return "", 0, err
	}
	if status != http.StatusOK {
		return "", 0, fmt.Errorf("token_endpoint: status %d", status)
	}
	claims, err := watchword.ParseClaims(body)
	if err != nil {
		return "", 0, fmt.Errorf("token_endpoint: %w", err)
	}
	text, _ := claims.Text("access_token")
	if text == "" || len(text) > watchword.MaxTokenBytes {
		return "", 0, errors.New("token_endpoint: no access_token")
	}
	life = tokenLife
	if v, ok := claims.Get("expires_in"); ok {
		if seconds, ok := deltaSeconds(v); ok && seconds > 0 {
			life = seconds
		}
	}
	return watchword.Token(text), life, nil
}

// Token is one that is shared and good: it is replaced when half its life is over, and used to its end where no other
// can be had.
func (g *Grant) Token(ctx context.Context) (watchword.Token, error) {
	if t, _ := g.kept(); t != "" {
		return t, nil
	}
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	t, old := g.kept() // somebody else may have got one meanwhile
	if t != "" {
		return t, nil
	}
	began := time.Now()
	t, life, err := g.Fresh(ctx)
	switch {
	case err != nil && old != "":
		return old, nil
	case err != nil:
		return "", err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.token, g.due, g.ends = t, began.Add(life/2), began.Add(life)
	return t, nil
}

// kept is the token, and what may serve as long as no other can be had.
func (g *Grant) kept() (good, old watchword.Token) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch now := time.Now(); {
	case g.token == "" || watchword.Age(now, g.ends) >= 0:
		return "", ""
	case watchword.Age(now, g.due) >= 0:
		return "", g.token
	}
	return g.token, g.token
}

// Drop forgets t, which was refused, so that the next Token is another.
func (g *Grant) Drop(t watchword.Token) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.token == t {
		g.token = ""
	}
}
