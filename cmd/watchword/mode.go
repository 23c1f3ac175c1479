package main

import (
	"fmt"
	"time"
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
	until := c.Until
	if d, err := time.ParseDuration(until); err == nil {
		until = time.Now().Add(d).UTC().Format(time.RFC3339)
	} else if _, err := time.Parse(time.RFC3339, until); err != nil {
		return usage("--until is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 30m")
	}
	_, _, err := e.operate(c.Admin, "/v1/mode", map[string]string{"policy": c.Policy, "on_unavailable": c.OnUnavailable, "until": until, "why": c.Why})
	if err == nil {
		_, err = fmt.Fprintf(e.stdout, "policy %s: %s until %s\n", c.Policy, c.OnUnavailable, until)
	}
	return err
}
