// Package drill plays failures against a running Watchword, watches every decision meanwhile, and says which promises
// held. The Watchword, the doors and the authorization server are real; only the failures are made, by a proxy in front
// of the introspection endpoint.
package drill

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Config of a drill. Start is required unless Target names a Watchword that runs already.
type Config struct {
	Target   *Target       // a staging set-up; nil: an authority, a Watchword and a proxy on loopback, for this drill only
	Start    Start         // runs the Watchword of a drill without Target
	Unit     time.Duration // how long one phase of a scenario takes at least; zero: 3s
	Slack    time.Duration // what a deadline may be missed by, since this machine may be slow; zero: 250ms
	Progress io.Writer     // hears a line for every phase; nil: nobody
}

// Start runs a Watchword on a configuration file until ctx ends, and says where its doors are.
type Start func(ctx context.Context, file string) (*Instance, error)

// Instance is a Watchword that runs: addresses, host:port, of its listeners.
type Instance struct{ Introspection, ForwardAuth, Admin, Events string }

// Scenario is one drill.
type Scenario struct {
	Name, Doc string
	needs     string // what it needs of a Target
	run       func(ctx context.Context, s *stage) error
}

// Scenarios lists every drill, in the order in which "all" plays them.
func Scenarios() []Scenario {
	return []Scenario{
		{"herd", "A thousand requests at once for one token that nobody has seen.", "proxy", herd},
		{"outage", "The authorization server is gone, and comes back.", "proxy", outage},
		{"latency", "It is slow, then slower than the timeout.", "proxy", latency},
		{"ratelimit", "It answers 429 with Retry-After.", "proxy", rateLimit},
		{"skew", "Its clock is wrong, both ways.", "proxy", skew},
		{"spray", "One client sends thousands of random tokens through the gateway.", "proxy, forward_auth", spray},
		{"storm", "It calls every token inactive, although none was revoked.", "proxy", storm},
		{"rotate", "Our credential at the authorization server is rotated.", "embedded", rotate},
		{"revoke", "Tokens are revoked; how long until every node refuses them?", "revocation", revoke},
	}
}

// Promise is one thing that Watchword promises, and whether it held.
type Promise struct {
	Text   string `json:"promise"`
	Held   bool   `json:"held"`
	Detail string `json:"detail"`
}

// Report is what a drill found.
type Report struct {
	Scenario string    `json:"scenario"`
	Doc      string    `json:"doc"`
	Held     bool      `json:"held"` // every promise
	Promises []Promise `json:"promises"`
	Nodes    []Node    `json:"nodes,omitempty"` // of revoke
	Seconds  float64   `json:"seconds"`

	timeline *timeline
}

// Node is how soon one node refused revoked tokens, in milliseconds after the revocation was answered.
type Node struct {
	Door    string  `json:"door"`
	Way     string  `json:"way"` // how the tokens were revoked
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

// Run plays one scenario. The error says why it could not be played; a promise that broke is in the Report.
func Run(ctx context.Context, name string, c Config) (*Report, error) {
	all := Scenarios()
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("no drill is named %q; there are: %s", name, strings.Join(names(), ", "))
	}
	if c.Unit == 0 {
		c.Unit = 3 * time.Second
	}
	if c.Slack == 0 {
		c.Slack = 250 * time.Millisecond
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s, err := c.stage(ctx, all[i])
	if err != nil {
		return nil, fmt.Errorf("drill %s: %w", name, err)
	}
	defer s.close()
	began := time.Now()
	if err := all[i].run(ctx, s); err != nil {
		return nil, fmt.Errorf("drill %s: %w", name, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &Report{Scenario: name, Doc: all[i].Doc, Held: true, Promises: s.promises, Nodes: s.nodes, Seconds: time.Since(began).Seconds(), timeline: s.timeline}
	for _, p := range r.Promises {
		r.Held = r.Held && p.Held
	}
	return r, nil
}

// Lacks says why a scenario cannot be played against t; empty: it can.
func (t *Target) Lacks(name string) string {
	for _, s := range Scenarios() {
		if s.Name == name {
			return t.lacks(s.needs)
		}
	}
	return "there is no such drill"
}

func (t *Target) lacks(needs string) string {
	gateway := func(d Door) bool { return d.ForwardAuth != "" }
	switch {
	case needs == "embedded":
		return "it changes credentials at the authorization server, so it plays without a target only"
	case strings.Contains(needs, "proxy") && t.Proxy == "":
		return "the target names no proxy: give it one, and let the introspection_endpoint under drill name it"
	case needs == "revocation" && t.RevocationEndpoint == "":
		return "the target names no revocation_endpoint"
	case strings.Contains(needs, "forward_auth") && !slices.ContainsFunc(t.Doors, gateway):
		return "the target names no forward_auth door, which is what attests who the client is"
	}
	return ""
}

func names() (all []string) {
	for _, s := range Scenarios() {
		all = append(all, s.Name)
	}
	return all
}

// Print writes the verdicts for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", r.Scenario, r.Doc)
	for _, p := range r.Promises {
		fmt.Fprintf(w, "  %-4s %s: %s\n", map[bool]string{true: "held", false: "BROKE"}[p.Held], p.Text, p.Detail)
	}
	if len(r.Nodes) > 0 {
		fmt.Fprintf(w, "  %-40s %-28s %8s %10s %10s %10s\n", "node", "revoked", "samples", "p50", "p99", "max")
		for _, n := range r.Nodes {
			fmt.Fprintf(w, "  %-40s %-28s %8d %7.0f ms %7.0f ms %7.0f ms\n", n.Door, n.Way, n.Samples, n.P50, n.P99, n.Max)
		}
	}
	fmt.Fprintf(w, "  %s in %.0f s\n", map[bool]string{true: "every promise held", false: "a promise broke"}[r.Held], r.Seconds)
}
