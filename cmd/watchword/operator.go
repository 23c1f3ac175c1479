package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/watchword-dev/watchword"
)

const (
	operatorTimeout = 15 * time.Second
	maxOperatorText = 4 << 20 // of an answer: a thousand remembered tokens
)

// operate sends one request of an operator to an admin listener and returns the answer's status and its text. A status
// other than 200 is also an error, which says what to do about it.
func (e *env) operate(admin, path string, request any) (status int, text []byte, err error) {
	at, err := adminURL(admin, path)
	if err != nil {
		return 0, nil, err
	}
	secret, ok := e.getenv("WATCHWORD_OPERATOR")
	if !ok || secret == "" {
		return 0, nil, usage("the operator's secret is not in the environment variable WATCHWORD_OPERATOR")
	}
	body, err := json.Marshal(request)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(e.ctx, operatorTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return 0, nil, usage("--admin is no URL")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+secret)
	answer, err := operatorsClient(r.URL.Scheme == "http").Do(r)
	if err != nil {
		if u, is := errors.AsType[*url.Error](err); is {
			err = u.Err
		}
		return 0, nil, fmt.Errorf("the admin listener at %s cannot be reached: %w", admin, err)
	}
	defer answer.Body.Close()
	if text, err = io.ReadAll(io.LimitReader(answer.Body, maxOperatorText)); err != nil {
		return 0, nil, errors.New("the answer broke off: whether it took effect is not known; send it again")
	}
	return answer.StatusCode, text, refusal(admin, answer.StatusCode, member(text, "error"))
}

// refusal is what a status means to an operator; nil: all is well.
func refusal(admin string, status int, why string) error {
	switch status {
	case http.StatusOK:
		return nil
	case http.StatusBadRequest:
		return usage("refused: %s", why)
	case http.StatusUnauthorized:
		return refusedError{errors.New("the secret in WATCHWORD_OPERATOR is no operator's there")}
	case http.StatusForbidden:
		return refusedError{fmt.Errorf("refused: %s", why)}
	case http.StatusNotFound:
		return usage("there is no such thing at %s: does its configuration name admin.operators?", admin)
	}
	return fmt.Errorf("status %d: %s", status, why)
}

// member is a string of an answer's object; empty: it is not there.
func member(text []byte, name string) string {
	claims, err := watchword.ParseClaims(text)
	if err != nil {
		return ""
	}
	value, _ := claims.Text(name)
	return value
}

// adminURL is where an operator's request goes. The secret goes there too, so it is https, or http on loopback.
func adminURL(text, path string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", usage("--admin is no URL such as http://127.0.0.1:9090")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return "", usage("--admin is http to another host, where the operator's secret could be read on the way: use https, or a tunnel to loopback")
	}
	return strings.TrimSuffix(u.String(), "/") + path, nil
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.Unmap().IsLoopback()
}

// operatorsClient follows no redirect, uses no proxy, and where plain speaks to loopback only, whatever DNS says.
func operatorsClient(plain bool) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if plain {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().Unmap().IsLoopback() {
				return errors.New("http goes to loopback only")
			}
			return nil
		}
	}
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
}

// refusedError is what the server does not let us do.
type refusedError struct{ error }

// whose says whose tokens are meant, on the command line.
type whose struct {
	Issuer      string            `required:"" placeholder:"I" help:"Our name for the authorization server."`
	TokenStdin  bool              `help:"One token, on standard input."`
	JTI         string            `name:"jti" placeholder:"J" help:"One token, by its jti."`
	Sub         string            `placeholder:"S" help:"The tokens of a subject. Several of --sub, --client, --session, --tenant and --select mean those that fit all."`
	Client      string            `placeholder:"C" help:"The tokens of a client."`
	Session     string            `placeholder:"S" help:"The tokens of a session (sid)."`
	Tenant      string            `placeholder:"T" help:"The tokens of a tenant."`
	Select      map[string]string `placeholder:"NAME=VALUE" help:"The tokens that a selector of the issuer's selector_claims tells."`
	WholeIssuer bool              `help:"Every token of the issuer."`
}

// members are those of a request that say whose tokens are meant.
func (w *whose) members(stdin io.Reader) (map[string]any, error) {
	one := map[string]any{}
	for name, value := range w.Select {
		if value == "" {
			return nil, usage("--select %s has no value", name)
		}
		one[name] = value
	}
	for name, value := range map[string]string{"sub": w.Sub, "client": w.Client, "session": w.Session, "tenant": w.Tenant} {
		if value != "" {
			one[name] = value
		}
	}
	alone := 0
	for _, way := range []bool{w.TokenStdin, w.WholeIssuer, w.JTI != "", len(one) > 0} {
		if way {
			alone++
		}
	}
	switch {
	case alone == 0:
		return nil, usage("whose tokens? --token-stdin, --jti, --sub, --client, --session, --tenant, --select or --whole-issuer")
	case alone > 1:
		return nil, usage("--token-stdin, --jti and --whole-issuer each stand alone")
	case w.JTI != "":
		one["jti"] = w.JTI
	case w.WholeIssuer:
		one["whole_issuer"] = true
	case w.TokenStdin:
		b, err := io.ReadAll(io.LimitReader(stdin, watchword.MaxTokenBytes+3))
		if err != nil {
			return nil, err
		}
		token, err := tokenOf(string(b), "standard input")
		if err != nil {
			return nil, err
		}
		one["token"] = string(token)
	}
	one["issuer"] = w.Issuer
	return one, nil
}
