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
	JSON   bool   `name:"json" help:"Print mistakes and warnings as one JSON object."`
}

// Run checks a file as `serve` would read it.
func (c *configCheckCmd) Run(e *env) error {
	file, err := app.Parse(c.Config)
	var mistakes app.Mistakes
	if err != nil && !errors.As(err, &mistakes) {
		return usageError{err}
	}
	var warnings []string
	if file != nil {
		warnings = file.Warnings()
	}
	if c.JSON {
		out := struct {
			OK       bool         `json:"ok"`
			Mistakes app.Mistakes `json:"mistakes"`
			Warnings []string     `json:"warnings"`
		}{err == nil, append(app.Mistakes{}, mistakes...), append([]string{}, warnings...)}
		if err := json.NewEncoder(e.stdout).Encode(out); err != nil {
			return err
		}
		if out.OK {
			return nil
		}
		return exit(exitUsage)
	}
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(e.stdout, "warning:", w)
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
