// Command watchword answers one question for gateways, sidecars and resource servers: is this access token valid right
// now, and what can it do?
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/watchword-dev/watchword/app"
)

// Exit codes, as `watchword --help` prints them.
const (
	exitDone    = 0 // done, or drained after SIGTERM or SIGINT; check: accepted
	exitFailed  = 1 // a failure at run time
	exitUsage   = 2 // a wrong flag or configuration
	exitRefused = 3 // check: refused; revoke, tokens, mode: the operator may not
	exitUnknown = 4 // check: nobody knows
	exitBroken  = 5 // drill: a promise broke
)

const description = `Is this access token valid right now, and what can it do?

Exit status: 0 done or drained, 1 failure at run time, 2 wrong flag or configuration; check: 0 accepted, 3 refused,
4 nobody knows; drill: 0 every promise held, 5 one broke; revoke, tokens, mode: 3 the operator may not.`

// cli is the whole command line. Every flag of a command stands with that command.
type cli struct {
	Serve      serveCmd      `cmd:"" help:"Run the doors of a configuration file until SIGTERM or SIGINT. SIGHUP, or a changed file, reloads."`
	Demo       demoCmd       `cmd:"" help:"Run an authorization server, all doors and a sample API on loopback, and print lines to try."`
	Check      checkCmd      `cmd:"" help:"Decide about one token and explain the decision line by line."`
	Drill      drillCmd      `cmd:"" help:"Play a failure against a running Watchword, or one of the drill's own, and say which promises held."`
	Mode       modeCmd       `cmd:"" help:"Say for a while what a policy of a running instance does in an outage. The operator's secret is in WATCHWORD_OPERATOR."`
	Tokens     tokensCmd     `cmd:"" help:"Find and purge what a running instance remembers of tokens. The operator's secret is in WATCHWORD_OPERATOR."`
	Revoke     revokeCmd     `cmd:"" help:"Revoke tokens at a running instance and its fleet. The operator's secret is in WATCHWORD_OPERATOR."`
	Config     configCmd     `cmd:"" help:"Check, describe or begin a configuration file."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
}

// env is the world as a command sees it, so that tests can run commands without a process.
type env struct {
	ctx    context.Context
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) (string, bool)
	model  *kong.Application
}

// exit is an error that is only a status: what had to be said was said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(&env{ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.LookupEnv}, os.Args[1:]))
}

// run parses and runs one command line and returns its exit status.
func run(e *env, args []string) int {
	var c cli
	status := -1
	parser, err := kong.New(&c, kong.Name("watchword"), kong.Description(description), kong.Writers(e.stdout, e.stderr),
		kong.Exit(func(code int) { status = code }), kong.Bind(e), kong.Vars{"drills": strings.Join(drills(), ", ")}, kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}))
	if err != nil {
		fmt.Fprintln(e.stderr, "watchword:", err)
		return exitFailed
	}
	e.model = parser.Model
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if status >= 0 { // --help was asked for and printed
		return status
	}
	if err != nil {
		fmt.Fprintf(e.stderr, "watchword: %v\nTry: watchword %s--help\n", err, wanted(args, e.model.Children))
		return exitUsage
	}
	return report(e, command.Run())
}

// wanted is the command that args begin with, for a hint.
func wanted(args []string, commands []*kong.Node) string {
	if slices.ContainsFunc(commands, func(n *kong.Node) bool { return n.Name == args[0] }) {
		return args[0] + " "
	}
	return ""
}

// report says what went wrong and returns the status for it.
func report(e *env, err error) int {
	var code exit
	var mistakes app.Mistakes
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &mistakes):
		fmt.Fprintf(e.stderr, "watchword: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(e.stderr, "watchword: %v\n", err)
	return statusOf(err)
}

// statusOf is the exit status of an error.
func statusOf(err error) int {
	var bad usageError
	var no refusedError
	switch {
	case errors.As(err, &bad):
		return exitUsage
	case errors.As(err, &no):
		return exitRefused
	}
	return exitFailed
}

// usageError is a mistake of whoever typed the command.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }
