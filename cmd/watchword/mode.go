package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/watchword-dev/watchword"
)

type modeCmd struct {
	Admin         string `required:"" placeholder:"URL" help:"The admin listener of an instance, such as http://127.0.0.1:9090. It holds there only."`
	Policy        string `required:"" placeholder:"P" help:"Which policy."`
	OnUnavailable string `required:"" enum:"deny,dangerously_allow,dangerously_allow_unknown" placeholder:"W" help:"deny, dangerously_allow or dangerously_allow_unknown."`
	Until         string `required:"" placeholder:"T" help:"When it ends: RFC 3339, or a duration from now such as 30m. At most 24h."`
	Why           string `required:"" placeholder:"W" help:"For the audit log."`
}

// Run says it, and prints until when it stands.
func (c *modeCmd) Run(e *env) error {
	at, err := adminURL(c.Admin, "/v1/mode")
	if err != nil {
		return err
	}
	secret, ok := e.getenv("WATCHWORD_OPERATOR")
	if !ok || secret == "" {
		return usage("the operator's secret is not in the environment variable WATCHWORD_OPERATOR")
	}
	until := c.Until
	if d, err := time.ParseDuration(until); err == nil {
		until = time.Now().Add(d).UTC().Format(time.RFC3339)
	} else if _, err := time.Parse(time.RFC3339, until); err != nil {
		return usage("--until is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 30m")
	}
	body, err := json.Marshal(map[string]string{"policy": c.Policy, "on_unavailable": c.OnUnavailable, "until": until, "why": c.Why})
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
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return errors.New("the answer broke off: whether it stands is not known; say it again")
	}
	why := ""
	if claims, err := watchword.ParseClaims(text); err == nil {
		why, _ = claims.Text("error")
	}
	switch answer.StatusCode {
	case http.StatusOK:
		_, err = fmt.Fprintf(e.stdout, "policy %s: %s until %s\n", c.Policy, c.OnUnavailable, until)
		return err
	case http.StatusBadRequest:
		return usage("refused: %s", why)
	case http.StatusUnauthorized:
		return refusedError{errors.New("the secret in WATCHWORD_OPERATOR is no operator's there")}
	case http.StatusForbidden:
		return refusedError{fmt.Errorf("refused: %s", why)}
	case http.StatusNotFound:
		return usage("there is no such thing at %s: does its configuration name admin.operators?", c.Admin)
	}
	return fmt.Errorf("status %d: %s", answer.StatusCode, why)
}
