package main

import (
	"github.com/watchword-dev/watchword/app"
)

type serveCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The configuration file."`
}

// Run serves until the context ends, and drains.
func (c *serveCmd) Run(e *env) error {
	cfg, err := app.Parse(c.Config)
	if err != nil {
		return wrongFile(err)
	}
	a, err := app.Build(cfg, e.stdout, e.stderr)
	if err != nil {
		return err
	}
	return a.Run(e.ctx)
}

// wrongFile is a file that cannot be used, whatever is wrong with it.
func wrongFile(err error) error { return usageError{err} }
