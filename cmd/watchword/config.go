package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/watchword-dev/watchword/app"
)

type configCmd struct {
	Check     configCheckCmd     `cmd:"" help:"Read a file, the secrets and certificates it names, and report every mistake. Touches no network."`
	Schema    configSchemaCmd    `cmd:"" help:"Print the JSON Schema of the file, for editors."`
	Init      configInitCmd      `cmd:"" help:"Print a commented file to begin with."`
	Reference configReferenceCmd `cmd:"" help:"Print the reference of every key, as Markdown."`
}

type configCheckCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration file."`
	Tokens int64  `placeholder:"N" help:"How many tokens of an issuer are in use at once, to reckon what its authorization server must bear if its covering feed falls silent. Default: as many as cache.max_bytes holds, at 1 KiB each."`
	JSON   bool   `name:"json" help:"Print what is found as one JSON object."`
}

// Run checks a file as `serve` would read it, and says what it promises, takes for granted and asks of the server.
func (c *configCheckCmd) Run(e *env) error {
	if c.Tokens < 0 {
		return usageError{errors.New("--tokens cannot be negative")}
	}
	file, err := app.Parse(c.Config)
	var mistakes app.Mistakes
	if err != nil && !errors.As(err, &mistakes) {
		return usageError{err}
	}
	found := struct {
		OK          bool             `json:"ok"`
		Mistakes    app.Mistakes     `json:"mistakes"`
		Warnings    []string         `json:"warnings"`
		Promises    []string         `json:"promises"`
		Assumptions []app.Assumption `json:"assumptions"` // docs/assumptions.md
		Demands     []app.Demand     `json:"demands"`
	}{err == nil, append(app.Mistakes{}, mistakes...), []string{}, []string{}, []app.Assumption{}, []app.Demand{}}
	if file != nil {
		found.Warnings = append(found.Warnings, file.Warnings()...)
		found.Promises = append(found.Promises, file.Promises()...)
		found.Assumptions = append(found.Assumptions, file.Assumptions()...)
		found.Demands = append(found.Demands, file.Demands(c.Tokens)...)
	}
	if c.JSON {
		if err := json.NewEncoder(e.stdout).Encode(found); err != nil {
			return err
		}
		if found.OK {
			return nil
		}
		return exit(exitUsage)
	}
	if err != nil {
		return err
	}
	for _, w := range found.Warnings {
		fmt.Fprintln(e.stdout, "warning:", w)
	}
	for _, p := range found.Promises {
		fmt.Fprintln(e.stdout, "promises", p)
	}
	for _, a := range found.Assumptions {
		fmt.Fprintf(e.stdout, "assumes %s: %s\n", a.ID, a.Why)
	}
	for _, d := range found.Demands {
		fmt.Fprint(e.stdout, d)
	}
	fmt.Fprintf(e.stdout, "%s is correct\n", c.Config)
	return nil
}

type configSchemaCmd struct{}

// Run prints the schema.
func (configSchemaCmd) Run(e *env) error { _, err := e.stdout.Write(app.Schema()); return err }

type configInitCmd struct{}

// Run prints the example.
func (configInitCmd) Run(e *env) error { _, err := e.stdout.Write(app.Example()); return err }

type configReferenceCmd struct{}

// Run prints docs/config.md.
func (configReferenceCmd) Run(e *env) error { _, err := e.stdout.Write(app.Reference()); return err }
