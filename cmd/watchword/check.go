package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/app"
)

type checkCmd struct {
	Config   string `required:"" placeholder:"FILE" help:"The configuration file."`
	Policy   string `placeholder:"P" help:"Judge by this policy, or this caller of the introspection door."`
	Method   string `placeholder:"M" help:"Judge by the policy that matches this request."`
	Host     string `placeholder:"H" help:"See --method."`
	Path     string `placeholder:"/P" help:"See --method."`
	TokenEnv string `placeholder:"NAME" help:"The environment variable that holds the token."`
	JSON     bool   `name:"json" help:"Print one JSON object."`
	Stdin    string `arg:"" optional:"" name:"-" help:"A hyphen: the token is on standard input. A token as an argument is refused: the process list shows it."`
}

// Run asks the authorization server itself about one token, and explains what every clause of the policy finds.
func (c *checkCmd) Run(e *env) error {
	token, err := c.token(e)
	if err != nil {
		return err
	}
	cfg, err := app.Parse(c.Config)
	if err != nil {
		return wrongFile(err)
	}
	q := app.Question{Token: token, Policy: c.Policy, Method: c.Method, Host: c.Host, Path: c.Path}
	verdicts, err := app.Check(e.ctx, cfg, q, e.stderr)
	if err != nil {
		return usageError{err}
	}
	if c.JSON {
		all := make([]finding, len(verdicts))
		for i := range verdicts {
			all[i] = describe(&verdicts[i])
		}
		if err := json.NewEncoder(e.stdout).Encode(map[string][]finding{"verdicts": all}); err != nil {
			return err
		}
	} else {
		for i := range verdicts {
			if i > 0 {
				fmt.Fprintln(e.stdout)
			}
			describe(&verdicts[i]).print(e.stdout)
		}
	}
	return exit(status(&verdicts[0].Decision))
}

// token reads the token from where nobody else sees it.
func (c *checkCmd) token(e *env) (watchword.Token, error) {
	switch {
	case c.Stdin == "-" && c.TokenEnv != "":
		return "", usage("the token comes from standard input or from --token-env, not from both")
	case c.Stdin == "-":
		b, err := io.ReadAll(io.LimitReader(e.stdin, watchword.MaxTokenBytes+3))
		if err != nil {
			return "", err
		}
		return tokenOf(string(b), "standard input")
	case c.Stdin != "":
		return "", usage("a token is not given as an argument, where the process list shows it: write - and give it on standard input, or name an environment variable with --token-env")
	case c.TokenEnv != "":
		v, ok := e.getenv(c.TokenEnv)
		if !ok {
			return "", usage("the environment variable of --token-env is not set")
		}
		return tokenOf(v, "the environment variable")
	}
	return "", usage("no token: write - and give it on standard input, or name an environment variable with --token-env")
}

func tokenOf(s, where string) (watchword.Token, error) {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	if s == "" {
		return "", usage("no token on %s", where)
	}
	return watchword.Token(s), nil
}

// finding is a verdict as it is printed.
type finding struct {
	Policy   string              `json:"policy"`
	Reason   string              `json:"reason"`
	HTTP     int                 `json:"http"`
	Issuer   string              `json:"issuer,omitempty"`
	Source   string              `json:"source"`
	AgeMs    int64               `json:"age_ms"`
	Bounds   *bounds             `json:"bounds,omitempty"`
	Subject  string              `json:"subject,omitempty"`
	Client   string              `json:"client,omitempty"`
	Findings []watchword.Finding `json:"findings,omitempty"`
	Held     *app.Held           `json:"held,omitempty"`
	Why      string              `json:"why,omitempty"` // why nobody knew
}

type bounds struct {
	MaxStaleness string `json:"max_staleness"`
	MaxAge       string `json:"max_age"`
	StaleIfError string `json:"stale_if_error"`
}

func describe(v *app.Verdict) finding {
	d := &v.Decision
	f := finding{Policy: v.Policy, Reason: d.Reason.String(), HTTP: d.Reason.Row().HTTP, Issuer: d.Issuer, Source: d.Source(),
		AgeMs: d.Age.Milliseconds(), Findings: v.Findings, Held: v.Held}
	if d.Policy != nil {
		fresh := d.Policy.Freshness
		f.Bounds = &bounds{fresh.MaxStaleness.String(), (fresh.Covered() - fresh.StaleIfError).String(), fresh.StaleIfError.String()}
	}
	if d.Answer != nil {
		f.Subject, f.Client = d.Answer.Subject(), d.Answer.ClientID()
	}
	if d.Err != nil {
		f.Why = d.Err.Error()
	}
	return f
}

func (f finding) print(w io.Writer) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "policy %s\n", cmp.Or(f.Policy, "(none matches)"))
	row("issuer", "%s", cmp.Or(f.Issuer, "none: nobody was asked"))
	row("source", "%s", map[string]string{"issuer": "the authorization server, asked for this check", "cache": "asked for the policy above", "none": "no answer"}[f.Source])
	if f.Bounds != nil {
		row("bounds", "max_staleness %s, max_age %s, stale_if_error %s", f.Bounds.MaxStaleness, f.Bounds.MaxAge, f.Bounds.StaleIfError)
	}
	if f.Source != "none" {
		row("age", "%d ms when the check began", f.AgeMs)
		row("subject", "%q", f.Subject)
		row("client", "%q", f.Client)
	}
	for _, c := range f.Findings {
		row(map[bool]string{true: "  yes", false: "  NO"}[c.Holds], "%s: %s", c.Clause, c.Detail)
	}
	if f.Held != nil {
		row("held", "%s", f.Held)
	}
	if f.Why != "" {
		row("why", "%s", f.Why)
	}
	row("decision", "%s (HTTP %d)", f.Reason, f.HTTP)
}

// status is the exit status for a decision.
func status(d *watchword.Decision) int {
	switch {
	case d.Allowed():
		return exitDone
	case d.Err != nil:
		return exitUnknown
	}
	return exitRefused
}
