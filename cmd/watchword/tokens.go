package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"
)

type tokensCmd struct {
	Find  findTokensCmd  `cmd:"" help:"List what an instance remembers of tokens."`
	Purge purgeTokensCmd `cmd:"" help:"Let nothing that anybody remembers of tokens count any more: the authorization server is asked again, by the whole fleet."`
}

type findTokensCmd struct {
	Admin string `required:"" placeholder:"URL" help:"The admin listener of an instance, such as http://127.0.0.1:9090. It tells of its own memory only."`
	whose
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Run lists what an instance remembers.
func (c *findTokensCmd) Run(e *env) error {
	one, err := c.members(e.stdin)
	if err != nil {
		return err
	}
	_, text, err := e.operate(c.Admin, "/v1/tokens/find", one)
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := e.stdout.Write(text)
		return err
	}
	var found struct {
		Remembered []struct {
			ID, Client, Scope string
			Active            bool
			Asked             time.Time
			EndsIn            *int64 `json:"ends_in_seconds"`
		}
		More bool
	}
	if err := json.Unmarshal(text, &found); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	if len(found.Remembered) == 0 {
		_, err := fmt.Fprintln(e.stdout, "nothing is remembered of such tokens here")
		return err
	}
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ENTRY\tACTIVE\tASKED\tENDS\tCLIENT\tSCOPE")
	for _, one := range found.Remembered {
		ends := "not known"
		if one.EndsIn != nil {
			ends = "in " + (time.Duration(*one.EndsIn) * time.Second).String()
		}
		fmt.Fprintf(table, "%s\t%v\t%s ago\t%s\t%q\t%q\n", one.ID, one.Active, time.Since(one.Asked).Round(time.Second), ends, one.Client, one.Scope)
	}
	if found.More {
		fmt.Fprintln(table, "… and more: say more precisely whose")
	}
	return table.Flush()
}

type purgeTokensCmd struct {
	Admin string `required:"" placeholder:"URL" help:"The admin listener of an instance, such as http://127.0.0.1:9090."`
	whose
	Why  string `required:"" placeholder:"W" help:"For the audit log."`
	JSON bool   `name:"json" help:"Print one JSON object."`
}

// Run purges, and says what came of it.
func (c *purgeTokensCmd) Run(e *env) error {
	one, err := c.members(e.stdin)
	if err != nil {
		return err
	}
	one["why"] = c.Why
	_, text, err := e.operate(c.Admin, "/v1/tokens/purge", one)
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := e.stdout.Write(text)
		return err
	}
	var done struct {
		ID        string
		Forgotten int
	}
	if err := json.Unmarshal(text, &done); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	_, err = fmt.Fprintf(e.stdout, "purged: %s; this instance forgot %d\n", done.ID, done.Forgotten)
	return err
}
