// Package revocation holds what is known against tokens: events say what was revoked, the Ledger asks them of every
// answer, and feeds bring them. An event is a filter on answers and never a delete, so it wins every race with an
// answer that is on its way.
package revocation

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Limits of an Event.
const (
	MaxText      = 1024 // bytes of a selector's value, of Who, of Why
	MaxIDBytes   = 256
	MaxSelectors = 8 // names in one Selector, declared ones included
)

// Effect is what an Event does to the answers that it selects.
type Effect uint8

// The effects. Whichever is stricter wins, in any order of arrival.
const (
	Deny       Effect = iota // an answer about a token issued before the event is void
	Revalidate               // only an answer asked for after the event counts
)

// String returns the word of e, which is also its metric label.
func (e Effect) String() string {
	if e == Revalidate {
		return "revalidate"
	}
	return "deny"
}

// TokenID is the ledger's identity of one token: a keyed digest, the same on every node of a deployment, under a key
// that no rotation of another secret touches. Ledger.TokenID makes it.
type TokenID [sha256.Size]byte

// Selector names whose tokens are meant: those that hold every named value (AND) within the issuer. Empty values name
// nothing.
type Selector struct {
	Subject string            // sub
	Client  string            // client_id
	Session string            // sid
	Tenant  string            // the claim that the issuer's selector_claims.tenant names
	Other   map[string]string // declared selectors, by their declared name; nil: none
}

// Empty reports a selector that names nobody.
func (s *Selector) Empty() bool {
	return s.Subject == "" && s.Client == "" && s.Session == "" && s.Tenant == "" && len(s.Other) == 0
}

// Event is one revocation. It says which tokens of one issuer are meant (one token by Token or JTI, or a Selector, or
// WholeIssuer in words), when that happened, and to what effect. An Event about one token is final for that token's
// life. Plain data; treat it as immutable once it was applied.
type Event struct {
	ID          string  // two events of one ID are one; empty: a digest of the rest is its ID
	Issuer      string  // our name for the authorization server
	Token       TokenID // one token; zero: not by token
	JTI         string  // one token, by the jti of its issuer; empty: not by jti
	Selector    Selector
	WholeIssuer bool
	Effect      Effect    // of an event about one token only Deny, which is then final, and Revalidate count
	Operator    bool      // an operator said so, and the authorization server may not know: no zone of doubt
	At          time.Time // when it happened, by the clock of the authorization server; zero: not known
	Heard       time.Time // when we heard of it; set by who hears first, and kept on its way through a fleet
	Expires     time.Time // when the last token that it names ends, if known; zero: the issuer's max_token_life after At
	Way         string    // how it came: metric label and audit word (ssf, back_channel_logout, revoke, webhook, admin, …)
	Who, Why    string    // for the audit log; may be empty
}

// Select names whom e means by one thing more: sub, client, session, tenant, jti, or a selector that the issuer declares.
func (e *Event) Select(name, value string) {
	switch name {
	case "sub":
		e.Selector.Subject = value
	case "client":
		e.Selector.Client = value
	case "session":
		e.Selector.Session = value
	case "tenant":
		e.Selector.Tenant = value
	case "jti":
		e.JTI = value
	default:
		if e.Selector.Other == nil {
			e.Selector.Other = map[string]string{}
		}
		e.Selector.Other[name] = value
	}
}

// Validate reports every mistake of e at once, without repeating a value.
func (e *Event) Validate() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("event: "+format, args...))
		}
	}
	kinds := 0
	for _, named := range []bool{e.Token != TokenID{}, e.JTI != "", !e.Selector.Empty(), e.WholeIssuer} {
		if named {
			kinds++
		}
	}
	wrong(e.Issuer == "", "names no issuer")
	wrong(kinds == 0, "selects nobody: an empty selector would mean everybody; say whole_issuer in words")
	wrong(kinds > 1, "selects in more than one way: one token, or a selector, or the whole issuer")
	wrong(e.Effect > Revalidate, "has an unknown effect")
	wrong(len(e.ID) > MaxIDBytes, "id is longer than %d bytes", MaxIDBytes)
	long := func(what, value string) {
		if len(value) > MaxText {
			wrong(true, "%s is longer than %d bytes", what, MaxText)
		}
	}
	long("client", e.Selector.Client)
	long("jti", e.JTI)
	long("session", e.Selector.Session)
	long("sub", e.Selector.Subject)
	long("tenant", e.Selector.Tenant)
	long("way", e.Way)
	long("who", e.Who)
	long("why", e.Why)
	wrong(len(e.Selector.Other) > MaxSelectors, "names more than %d declared selectors", MaxSelectors)
	for _, name := range slices.Sorted(maps.Keys(e.Selector.Other)) {
		value := e.Selector.Other[name]
		wrong(name == "" || value == "", "a declared selector has no name or no value")
		long(name, value)
	}
	return errors.Join(errs...)
}
