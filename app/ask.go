package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/door"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/observe"
)

// Question is about one token. With a Method, Host or Path the first policy that matches answers; else Policy, which
// also may be a caller of the introspection door; else every policy, or every caller where there are no policies.
type Question struct {
	Token              watchword.Token
	Policy             string
	Method, Host, Path string // Path as in a request line, percent-encoded, without query
}

// Verdict is what one policy says.
type Verdict struct {
	Policy   string // empty: none matches
	Decision watchword.Decision
	Findings []watchword.Finding // clause by clause; nil: there was no answer to judge
	Held     *Held               // the revocation that stands against the answer; nil: none
}

// Check asks the authorization servers of c, as `serve` would with nothing remembered, and explains. What goes wrong on
// the way is logged to stderr. The error is for a question that cannot be asked; that nobody knows is a verdict.
func Check(ctx context.Context, c *Config, q Question, stderr io.Writer) ([]Verdict, error) {
	logger, err := observe.NewLogger(stderr, observe.LoggerConfig{Level: c.Log.Level, Format: c.Log.Format})
	if err != nil {
		return nil, err
	}
	routes, err := c.asked(&q)
	if err != nil {
		return nil, err
	}
	source, shapes, err := c.sources(ctx, logger)
	if err != nil {
		return nil, err
	}
	memory, err := cache.New(cache.Config{FlightTimeout: maxTimeout + time.Second}) // several policies, one question
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	ledger, err := c.held(logger)
	if err != nil {
		return nil, err
	}
	var v watchword.Verifier // one, so that a token's Key stays the same
	var verdicts []Verdict
	for _, rs := range routes {
		judge := watchword.Config{Source: memory.Over(source, 0), Issuers: shapes, Routes: rs}
		if ledger != nil {
			judge.Ledger = ledger
		}
		if err := v.Reconfigure(judge); err != nil {
			return nil, err
		}
		r := watchword.Request{Door: "check", Token: q.Token, Method: q.Method, Host: q.Host, Path: q.Path}
		verdict := Verdict{Decision: v.Verify(ctx, r)}
		if p := verdict.Decision.Policy; p != nil {
			verdict.Policy = p.Name
			if a := verdict.Decision.Answer; a != nil {
				verdict.Findings = watchword.Explain(p, a, time.Now())
			}
		}
		verdict.Held = against(ledger, q.Token, &verdict.Decision)
		verdicts = append(verdicts, verdict)
	}
	return verdicts, nil
}

// asked lists what answers q: each element is a set of routes that gives one verdict.
func (c *Config) asked(q *Question) ([][]watchword.Route, error) {
	request := q.Method != "" || q.Host != "" || q.Path != ""
	if request && q.Policy != "" {
		return nil, errors.New("a policy and a request are two questions: ask one")
	}
	if q.Path != "" {
		path, ok := door.Path(q.Path)
		if !ok {
			return nil, fmt.Errorf("path %q is ambiguous: every door refuses it", q.Path)
		}
		q.Path = path
	}
	if request {
		return [][]watchword.Route{c.Policies}, nil
	}
	var all []watchword.Policy
	for i := range c.Policies {
		all = append(all, c.Policies[i].Policy)
	}
	if q.Policy != "" || len(all) == 0 {
		all = append(all, c.callers()...)
	}
	if len(all) == 0 {
		return nil, errors.New("there is nothing to judge by: the configuration has no policies, and no callers of the introspection door")
	}
	var names []string
	var routes [][]watchword.Route
	for _, p := range all {
		if q.Policy == "" || q.Policy == p.Name {
			routes = append(routes, []watchword.Route{{Policy: p}})
		}
		names = append(names, p.Name)
	}
	if len(routes) == 0 {
		return nil, fmt.Errorf("no policy is named %q; there are: %s", q.Policy, strings.Join(names, ", "))
	}
	return routes, nil
}

// sources makes a client for every issuer, discovered where it must be.
func (c *Config) sources(ctx context.Context, logger *slog.Logger) (issuer.Router, []watchword.Issuer, error) {
	router, shapes := issuer.Router{}, []watchword.Issuer{}
	for i := range c.Issuers {
		one, keys, err := c.Issuers[i].connect(c.Issuers[i].config(logger), nil, logger)
		if err != nil {
			return nil, nil, err
		}
		source, err := c.Issuers[i].chain(one, keys, nil)
		if err != nil {
			return nil, nil, err
		}
		if err := one.Discover(ctx); err != nil {
			logger.Warn("an issuer is not discovered", "issuer", c.Issuers[i].Name, "error", err)
		}
		if keys != nil && c.Issuers[i].verifies() {
			_ = keys.Refresh(ctx) // the log hears of it; then the question says what that means
		}
		router[c.Issuers[i].Name] = source
		shapes = append(shapes, c.Issuers[i].shape(one))
	}
	return router, shapes, nil
}
