package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

type revokeCmd struct {
	Admin string `required:"" placeholder:"URL" help:"The admin listener of an instance, such as http://127.0.0.1:9090."`
	whose
	Before string `placeholder:"T" help:"Those issued until then: seconds since 1970, or RFC 3339. Default: now."`
	Effect string `enum:"deny,revalidate" default:"deny" help:"deny: refused until they expire. revalidate: the authorization server is asked again."`
	Why    string `required:"" placeholder:"W" help:"For the audit log."`
	JSON   bool   `name:"json" help:"Print one JSON object."`
}

// Run sends one revocation to an instance, and says whether the fleet holds it.
func (c *revokeCmd) Run(e *env) error {
	one, err := c.members(e.stdin)
	if err != nil {
		return err
	}
	one["effect"], one["why"] = c.Effect, c.Why
	if c.Before != "" {
		if one["before"], err = seconds(c.Before); err != nil {
			return err
		}
	}
	status, text, err := e.operate(c.Admin, "/v1/revocations", one)
	if c.JSON && status != 0 {
		out := map[string]any{"status": status, "applied": status == http.StatusOK, "id": member(text, "id"), "error": member(text, "error")}
		if err := json.NewEncoder(e.stdout).Encode(out); err != nil {
			return err
		}
		if err != nil {
			return exit(statusOf(err))
		}
		return nil
	}
	if err == nil {
		_, err = fmt.Fprintf(e.stdout, "revoked: %s\n", member(text, "id"))
	}
	return err
}

// seconds reads an instant, as seconds since 1970.
func seconds(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		return n, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, usage("--before is neither seconds since 1970 nor an RFC 3339 date such as 2026-01-02T15:04:05Z")
	}
	return t.Unix(), nil
}
