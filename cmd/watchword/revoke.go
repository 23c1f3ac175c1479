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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/watchword-dev/watchword"
)

type revokeCmd struct {
	Admin       string            `required:"" placeholder:"URL" help:"The admin listener of an instance, such as http://127.0.0.1:9090."`
	Issuer      string            `required:"" placeholder:"I" help:"Our name for the authorization server."`
	TokenStdin  bool              `help:"One token, on standard input."`
	JTI         string            `name:"jti" placeholder:"J" help:"One token, by its jti."`
	Sub         string            `placeholder:"S" help:"The tokens of a subject. Several of --sub, --client, --session, --tenant and --select mean those that fit all."`
	Client      string            `placeholder:"C" help:"The tokens of a client."`
	Session     string            `placeholder:"S" help:"The tokens of a session (sid)."`
	Tenant      string            `placeholder:"T" help:"The tokens of a tenant."`
	Select      map[string]string `placeholder:"NAME=VALUE" help:"The tokens that a selector of the issuer's selector_claims tells."`
	WholeIssuer bool              `help:"Every token of the issuer."`
	Before      string            `placeholder:"T" help:"Those issued until then: seconds since 1970, or RFC 3339. Default: now."`
	Effect      string            `enum:"deny,revalidate" default:"deny" help:"deny: refused until they expire. revalidate: the authorization server is asked again."`
	Why         string            `required:"" placeholder:"W" help:"For the audit log."`
	JSON        bool              `name:"json" help:"Print one JSON object."`
}

const revokeTimeout = 15 * time.Second

// Run sends one revocation to an instance, and says whether the fleet holds it.
func (c *revokeCmd) Run(e *env) error {
	at, err := adminURL(c.Admin, "/v1/revocations")
	if err != nil {
		return err
	}
	secret, ok := e.getenv("WATCHWORD_OPERATOR")
	if !ok || secret == "" {
		return usage("the operator's secret is not in the environment variable WATCHWORD_OPERATOR")
	}
	body, err := c.request(e.stdin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, revokeTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return usage("--admin is no URL")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+secret)
	answer, err := operatorsClient(r.URL.Scheme == "http").Do(r)
	if err != nil {
		if u, is := errors.AsType[*url.Error](err); is {
			err = u.Err
		}
		return fmt.Errorf("the admin listener at %s cannot be reached: %w", c.Admin, err)
	}
	defer answer.Body.Close()
	return c.report(e, answer)
}

// report says what became of it.
func (c *revokeCmd) report(e *env, answer *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return errors.New("the answer broke off: whether it was applied is not known; send it again")
	}
	var said struct{ ID, Error string }
	if claims, err := watchword.ParseClaims(text); err == nil {
		said.ID, _ = claims.Text("id")
		said.Error, _ = claims.Text("error")
	}
	if c.JSON {
		out := map[string]any{"status": answer.StatusCode, "applied": answer.StatusCode == http.StatusOK, "id": said.ID, "error": said.Error}
		if err := json.NewEncoder(e.stdout).Encode(out); err != nil {
			return err
		}
	}
	switch answer.StatusCode {
	case http.StatusOK:
		if !c.JSON {
			fmt.Fprintf(e.stdout, "revoked: %s\n", said.ID)
		}
		return nil
	case http.StatusBadRequest:
		err = usage("refused: %s", said.Error)
	case http.StatusUnauthorized:
		err = refusedError{errors.New("the secret in WATCHWORD_OPERATOR is no operator's there")}
	case http.StatusForbidden:
		err = refusedError{fmt.Errorf("refused: %s", said.Error)}
	case http.StatusNotFound:
		err = usage("there is no such thing at %s: does its configuration name admin.operators?", c.Admin)
	default:
		err = fmt.Errorf("status %d: %s", answer.StatusCode, said.Error)
	}
	if c.JSON {
		return exit(statusOf(err))
	}
	return err
}

// request is the body of POST /v1/revocations.
func (c *revokeCmd) request(stdin io.Reader) ([]byte, error) {
	one := map[string]any{"issuer": c.Issuer, "effect": c.Effect, "why": c.Why}
	for name, value := range c.Select {
		if value == "" {
			return nil, usage("--select %s has no value", name)
		}
		one[name] = value
	}
	for name, value := range map[string]string{"jti": c.JTI, "sub": c.Sub, "client": c.Client, "session": c.Session, "tenant": c.Tenant} {
		if value != "" {
			one[name] = value
		}
	}
	selected := len(one) > 3
	alone := 0
	for _, way := range []bool{c.TokenStdin, c.WholeIssuer, c.JTI != "", selected && c.JTI == "" || len(one) > 4 && c.JTI != ""} {
		if way {
			alone++
		}
	}
	switch {
	case alone == 0:
		return nil, usage("whose tokens? --token-stdin, --jti, --sub, --client, --session, --tenant, --select or --whole-issuer")
	case alone > 1:
		return nil, usage("--token-stdin, --jti and --whole-issuer each stand alone")
	case c.WholeIssuer:
		one["whole_issuer"] = true
	case c.TokenStdin:
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
	if c.Before != "" {
		seconds, err := strconv.ParseInt(c.Before, 10, 64)
		if err != nil {
			t, bad := time.Parse(time.RFC3339, c.Before)
			if bad != nil {
				return nil, usage("--before is neither seconds since 1970 nor an RFC 3339 date such as 2026-01-02T15:04:05Z")
			}
			seconds = t.Unix()
		}
		one["before"] = seconds
	}
	return json.Marshal(one)
}

// adminURL is where revocations are posted. The secret goes there, so it is https, or http on loopback.
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
