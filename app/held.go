package app

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// Held is a revocation that stands against an answer, as it was recorded. It holds nothing of a token.
type Held struct {
	Tokens  string    `json:"tokens"`  // whose: "this token", `sub "ann" and client "app"`, "the whole issuer"
	Effect  string    `json:"effect"`  // deny or revalidate
	Revokes bool      `json:"revokes"` // false: it questions what was asked for before Applied
	At      time.Time `json:"at,omitzero"`
	Applied time.Time `json:"applied"`
	Way     string    `json:"way,omitempty"`
	Who     string    `json:"who,omitempty"`
	Why     string    `json:"why,omitempty"`
}

// String is one line.
func (h *Held) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s, %s since %s", h.Effect, h.Tokens, map[bool]string{true: "revoked", false: "questioned"}[h.Revokes], h.Applied.UTC().Format(time.RFC3339))
	if !h.At.IsZero() {
		fmt.Fprintf(&b, " (of %s)", h.At.UTC().Format(time.RFC3339))
	}
	if h.Way != "" {
		fmt.Fprintf(&b, ", by %s", h.Way)
	}
	if h.Who != "" {
		fmt.Fprintf(&b, ", who %q", h.Who)
	}
	if h.Why != "" {
		fmt.Fprintf(&b, ", why %q", h.Why)
	}
	return b.String()
}

// held is what the log of the running process holds against tokens; nil: there is no log. It locks and writes nothing.
func (c *Config) held(logger *slog.Logger) (*revocation.Ledger, error) {
	if c.Revocation.Log == "" {
		if c.Revocation.Bus != nil {
			logger.Warn("what the fleet holds against tokens is not looked at: revocation.log is absent, where it would be read")
		}
		return nil, nil
	}
	key, previous, err := c.ledgerKeys()
	if err != nil {
		return nil, err
	}
	return revocation.New(revocation.Config{Issuers: c.ledgerIssuers(), Logger: logger, Folder: c.Revocation.Log, MaxBytes: c.Revocation.MaxBytes, ReadOnly: true,
		Key: key, Previous: previous})
}

// against is what ledger holds against the answer of d, which is about token; nil: nothing, or there is no ledger.
func against(ledger *revocation.Ledger, token watchword.Token, d *watchword.Decision) *Held {
	if ledger == nil {
		return nil
	}
	cause, found := ledger.Why(watchword.Query{Token: token, Key: d.Key, Issuer: d.Issuer}, d.Answer)
	if !found || !cause.Revokes && (d.Answer == nil || watchword.Age(cause.Applied, d.Answer.AsOf()) < 0) {
		return nil
	}
	e := &cause.Event
	return &Held{Tokens: tokensOf(e), Effect: e.Effect.String(), Revokes: cause.Revokes, At: e.At, Applied: cause.Applied, Way: e.Way, Who: e.Who, Why: e.Why}
}

// tokensOf says whose tokens e means.
func tokensOf(e *revocation.Event) string {
	switch {
	case e.Token != (revocation.TokenID{}):
		return "this token"
	case e.JTI != "":
		return "this token, by its jti"
	case e.WholeIssuer:
		return "the whole issuer"
	}
	var names []string
	name := func(what, value string) {
		if value != "" {
			names = append(names, what+" "+strconv.Quote(value))
		}
	}
	s := &e.Selector
	name("sub", s.Subject)
	name("client", s.Client)
	name("session", s.Session)
	name("tenant", s.Tenant)
	for _, other := range slices.Sorted(maps.Keys(s.Other)) {
		name(other, s.Other[other])
	}
	return strings.Join(names, " and ")
}
