package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/watchword-dev/watchword/app"
	"github.com/watchword-dev/watchword/drill"
)

type drillCmd struct {
	Name   string        `arg:"" help:"Which: ${drills}, or all."`
	Target string        `placeholder:"FILE" help:"A JSON file that describes a staging set-up (docs/drills.md). Absent: an authority, a Watchword and a fault proxy on loopback, for this drill only."`
	Unit   time.Duration `default:"3s" help:"How long one phase takes at least."`
	Slack  time.Duration `default:"250ms" help:"What a deadline may be missed by, for a slow machine."`
	Report string        `placeholder:"FILE" help:"Write verdicts and a timeline of every decision as one HTML page."`
	JSON   bool          `name:"json" help:"Print one JSON object, for CI."`
}

// Run plays drills one after the other.
func (c *drillCmd) Run(e *env) error {
	names := drills()
	if c.Name != "all" && !slices.Contains(names, c.Name) {
		return usage("no drill is named %q; there are: %s, all", c.Name, strings.Join(names, ", "))
	}
	if c.Unit < time.Second || c.Unit > 10*time.Minute || c.Slack < 0 {
		return usage("--unit is from 1s to 10m, and --slack is not negative")
	}
	config := drill.Config{Start: startForDrill(e.stderr), Unit: c.Unit, Slack: c.Slack, Progress: e.stderr}
	if c.Target != "" {
		var err error
		if config.Target, err = drill.ReadTarget(c.Target); err != nil {
			return usageError{err}
		}
	}
	if c.Name != "all" {
		names = []string{c.Name}
	}
	var page *os.File
	if c.Report != "" { // before anything is played; what it held stays until there is something new
		var err error
		if page, err = os.OpenFile(c.Report, os.O_WRONLY|os.O_CREATE, 0o644); err != nil {
			return usage("--report: %w", err)
		}
		defer page.Close()
	}
	held, reports := true, []*drill.Report{}
	for _, name := range names {
		if c.Name == "all" && config.Target != nil {
			if lacks := config.Target.Lacks(name); lacks != "" {
				fmt.Fprintf(e.stderr, "drill %s: left out: %s\n", name, lacks)
				continue
			}
		}
		fmt.Fprintf(e.stderr, "drill %s\n", name)
		r, err := drill.Run(e.ctx, name, config)
		if err != nil {
			return err
		}
		if reports = append(reports, r); !c.JSON {
			r.Print(e.stdout)
		}
		held = held && r.Held
	}
	if c.JSON {
		if err := json.NewEncoder(e.stdout).Encode(map[string]any{"held": held, "drills": reports}); err != nil {
			return err
		}
	}
	if page != nil {
		// What is no regular file (a pipe, /dev/stdout) has nothing to cut off.
		if info, err := page.Stat(); err == nil && info.Mode().IsRegular() {
			if err := page.Truncate(0); err != nil {
				return err
			}
		}
		if err := errors.Join(drill.WriteHTML(page, reports), page.Close()); err != nil {
			return err
		}
	}
	if !held {
		return exit(exitBroken)
	}
	return nil
}

func drills() (names []string) {
	for _, s := range drill.Scenarios() {
		names = append(names, s.Name)
	}
	return names
}

// startForDrill runs a Watchword as `serve` does.
func startForDrill(stderr io.Writer) drill.Start {
	return func(ctx context.Context, file string) (*drill.Instance, error) {
		cfg, err := app.Parse(file)
		if err != nil {
			return nil, err
		}
		a, err := app.Build(cfg, io.Discard, stderr)
		if err != nil {
			return nil, err
		}
		if err := a.Listen(); err != nil {
			return nil, err
		}
		go func() {
			if err := a.Run(ctx); err != nil {
				fmt.Fprintln(stderr, "watchword:", err)
			}
		}()
		events := ""
		if at := a.Addr("events"); at != nil {
			events = at.String()
		}
		return &drill.Instance{Events: events, Introspection: a.Addr("introspection").String(), ForwardAuth: a.Addr("forward_auth").String(), Admin: a.Addr("admin").String()}, nil
	}
}
