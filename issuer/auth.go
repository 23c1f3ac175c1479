package issuer

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Secret reads what is live now of one secret: one value, or two during a rotation, which are tried in order. It is
// called by New and again after the server answered 401, under a lock. Safe for concurrent use.
type Secret func() ([]string, error)

// Sign makes a client assertion (RFC 7523 §2.2) of client id for audience, another one at every call.
// (*jose.Signer).Assert is one.
type Sign func(ctx context.Context, id, audience string) (assertion string, err error)

// ClientAuth is how a server knows us. It prints REDACTED. The zero value is a mistake: None says that there is no
// authentication.
type ClientAuth struct {
	method, id, audience string
	secret               Secret
	key                  func() (Sign, error)
}

// Format prints REDACTED for every verb.
func (ClientAuth) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "REDACTED") }

// ClientSecretBasic sends id and secret, both form-encoded, as HTTP Basic (RFC 6749 §2.3.1).
func ClientSecretBasic(id string, secret Secret) ClientAuth {
	return ClientAuth{method: "client_secret_basic", id: id, secret: secret}
}

// ClientSecretPost sends id and secret in the form (RFC 6749 §2.3.1).
func ClientSecretPost(id string, secret Secret) ClientAuth {
	return ClientAuth{method: "client_secret_post", id: id, secret: secret}
}

// PrivateKeyJWT sends an assertion signed anew for every attempt (RFC 7523 §2.2). key reads the key that is live now,
// by New and again after a 401. An empty audience is Config.Issuer.
func PrivateKeyJWT(id, audience string, key func() (Sign, error)) ClientAuth {
	return ClientAuth{method: "private_key_jwt", id: id, audience: audience, key: key}
}

// TLSClientAuth sends id in the form and our certificate, Config.TLS, in the handshake (RFC 8705 §2).
func TLSClientAuth(id string) ClientAuth { return ClientAuth{method: "tls_client_auth", id: id} }

// Bearer sends a token of our own as Authorization: Bearer (RFC 7662 §2.1).
func Bearer(token Secret) ClientAuth { return ClientAuth{method: "bearer", secret: token} }

// None sends no credential: for servers that are reachable by nobody else.
func None() ClientAuth { return ClientAuth{method: "none"} }

func (a *ClientAuth) mistakes(c *Config) (errs []error) {
	switch a.method {
	case "":
		return []error{errors.New("is missing: choose a method, or none where the server asks for nothing")}
	case "none":
		return nil
	case "bearer":
	default:
		if a.id == "" {
			errs = append(errs, errors.New("client_id is missing"))
		}
	}
	switch a.method {
	case "private_key_jwt":
		if a.key == nil {
			errs = append(errs, errors.New("private_key is missing"))
		}
		if cmp.Or(a.audience, c.Issuer) == "" {
			errs = append(errs, errors.New("audience is missing: set it, or issuer, which it is by default"))
		}
	case "tls_client_auth":
		if c.TLS.CertFile == "" {
			errs = append(errs, errors.New("a certificate and its key are missing"))
		}
	default:
		if a.secret == nil {
			errs = append(errs, errors.New("the secret is missing"))
		}
	}
	return errs
}

// credential proves once who we are.
type credential struct {
	mark          string                                    // equal marks are one credential; empty: never equal
	authorization []string                                  // the header; nil: none
	form          string                                    // goes behind the token, begins with &; empty: nothing
	mint          func(ctx context.Context) (string, error) // more of the form, made for every attempt; nil: nothing
}

// loader returns what reads every credential anew; nil: a is a mistake.
func (a *ClientAuth) loader(c *Client) func() ([]credential, error) {
	switch {
	case a.method == "none":
		return func() ([]credential, error) { return []credential{{mark: "none"}}, nil }
	case a.method == "tls_client_auth" && c.cert != nil:
		return func() ([]credential, error) {
			mark, err := c.recertify()
			return []credential{{mark: mark, form: "&client_id=" + url.QueryEscape(a.id)}}, err
		}
	case a.method == "private_key_jwt" && a.key != nil:
		return func() ([]credential, error) {
			sign, err := a.key()
			if err != nil {
				return nil, fmt.Errorf("client_auth: private_key: %w", err)
			}
			return []credential{{mint: a.assertion(sign, cmp.Or(a.audience, c.config.Issuer))}}, nil
		}
	case a.secret != nil:
		return a.secrets
	}
	return nil
}

// assertion makes the form members of RFC 7523 §2.2. client_id is optional there (RFC 7521 §4.2) and helps servers
// that look up the client before they read the assertion.
func (a *ClientAuth) assertion(sign Sign, audience string) func(context.Context) (string, error) {
	fixed := "&client_id=" + url.QueryEscape(a.id) + "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion="
	return func(ctx context.Context) (string, error) {
		jwt, err := sign(ctx, a.id, audience)
		if err != nil {
			return "", fmt.Errorf("the client assertion cannot be signed: %w", err)
		}
		return fixed + url.QueryEscape(jwt), nil
	}
}

func (a *ClientAuth) secrets() ([]credential, error) {
	values, err := a.secret()
	if err != nil {
		return nil, fmt.Errorf("client_auth: the secret cannot be read: %w", err)
	}
	if len(values) == 0 || slices.Contains(values, "") {
		return nil, errors.New("client_auth: the secret is empty")
	}
	var live []credential
	for _, v := range values {
		c := credential{mark: v}
		switch a.method {
		case "client_secret_basic":
			pair := url.QueryEscape(a.id) + ":" + url.QueryEscape(v)
			c.authorization = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(pair))}
		case "client_secret_post":
			c.form = "&client_id=" + url.QueryEscape(a.id) + "&client_secret=" + url.QueryEscape(v)
		case "bearer":
			if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
				return nil, errors.New("client_auth: the token holds a space, a control or a non-ASCII character")
			}
			c.authorization = []string{"Bearer " + v}
		}
		live = append(live, c)
	}
	return live, nil
}

// keyring knows which credentials are live and which of them works. While one works, an asking costs one attempt.
// After a 401 it costs two, once; while none works it costs one again, with what is live at that moment, in turn: the
// server sees a wrong credential as often as it is asked, never more often (no storm), and a new one is used at once.
type keyring struct {
	load    func() ([]credential, error)
	mu      sync.Mutex
	live    []credential
	at      int
	failing bool // the last asking ended in a 401
}

// first is what an asking begins with.
func (k *keyring) first() *credential {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failing {
		k.reload()
	}
	return &k.live[k.at]
}

// refused is told of a 401 to c, and says with what to try once more; nil: with nothing.
func (k *keyring) refused(c *credential) *credential {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := &k.live[k.at]; now != c && !k.failing {
		return now // another asking has been here
	}
	if !k.failing && (k.reload() || len(k.live) > 1 && k.turn()) {
		return &k.live[k.at]
	}
	k.failing = true
	k.turn()
	return nil
}

// refusedAgain is told of a 401 to c, which refused had proposed.
func (k *keyring) refusedAgain(c *credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if &k.live[k.at] == c {
		k.failing = true
		k.turn()
	}
}

// accepted is told that c works.
func (k *keyring) accepted(c *credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.failing {
		return
	}
	k.failing = false
	for i := range k.live {
		if &k.live[i] == c {
			k.at = i
		}
	}
}

func (k *keyring) turn() bool {
	k.at = (k.at + 1) % len(k.live)
	return true
}

// reload reads what is live now and moves to the first that was not live before, if there is one. What cannot be read
// changes nothing.
func (k *keyring) reload() (moved bool) {
	next, err := k.load()
	if err != nil || len(next) == 0 {
		return false
	}
	old := k.live
	for i := range next {
		known := slices.ContainsFunc(old, func(o credential) bool { return o.mark == next[i].mark && o.mark != "" })
		if !known {
			k.live, k.at = next, i
			return true
		}
	}
	if len(next) != len(old) { // one was taken away: go on with what is left
		gone := !slices.ContainsFunc(next, func(n credential) bool { return n.mark == old[k.at].mark })
		k.live, k.at = next, 0
		return gone
	}
	return false
}
