package watchword

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy says whom to ask, how fresh, and what to require. Plain data; New copies it.
type Policy struct {
	Name            string        // metric label and log word
	Issuers         []string      // whose tokens are accepted, by configured name; empty: every issuer's
	Freshness       Freshness     // the bounds
	Scopes          []string      // all are required (RFC 6749 §3.3)
	Audience        []string      // one of them must be in aud; empty: not checked, which a configuration should warn about
	NoDelegation    bool          // a token with which somebody acts for its subject is refused (act, RFC 8693 §4.1)
	OnUnavailable   OnUnavailable // when nobody knows; zero: Deny
	DangerouslyHold bool          // within Freshness.StaleIfError a token that was good serves on while its server calls so many inactive that it is not believed (Error.Doubted)
	Tiers           []Tier        // lower the bounds for some tokens; nil: for none
	Recheck         Recheck       // asks more often than the bounds; zero: not
	Relay           bool          // the answer goes to a caller that judges by itself: cnf and refresh tokens pass, leeway lengthens nothing
}

// Request is one question about one token, as a door understood it.
type Request struct {
	Door       string      // metric label: which door asks
	Token      Token       // as presented
	Problem    Reason      // what the door found wrong before any token was looked at; OK: nothing
	Method     string      // what the backend will serve; compared exactly
	Host       string      // compared without case, port and final dot
	Path       string      // percent-decoded, without query; doors refuse ambiguous ones (package door)
	Caller     string      // a Config.Callers policy that the door authenticated; empty: Routes decide
	Credential *Credential // the caller's own, to be used instead of the issuer's; nil: the issuer's
	Tighten    *Freshness  // lowers the bounds of the policy for this request; nil: not at all
	Peer       string      // the client's address as a trusted proxy attests it
	UserAgent  string      // the client's User-Agent, for Changes.UserAgent
	ID         string      // the request's id, for logs
	Trace      string      // traceparent as it came, for logs
}

func (p *Policy) validate() error {
	var errs []error
	if err := p.Freshness.Validate(); err != nil {
		errs = append(errs, err)
	}
	for _, s := range p.Scopes { // RFC 6749 §3.3: anything else can never be held, and would break a challenge
		if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }) {
			errs = append(errs, fmt.Errorf("scope %q is not visible ASCII without quote and backslash", s))
		}
	}
	if err := p.OnUnavailable.validate(p.Relay); err != nil {
		errs = append(errs, err)
	}
	if err := p.validateTiers(); err != nil {
		errs = append(errs, err)
	}
	if slices.Contains(p.Audience, "") {
		errs = append(errs, errors.New("an empty audience can never be held"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("policy %q: %w", p.Name, err)
	}
	return nil
}

func (p *Policy) clone() *Policy {
	c := *p
	c.Issuers, c.Scopes, c.Audience = slices.Clone(p.Issuers), slices.Clone(p.Scopes), slices.Clone(p.Audience)
	c.Tiers = p.cloneTiers()
	return &c
}

// Life is how long an answer may be of any use to p while no feed covers its issuer: what a cache should keep it for.
func (p *Policy) Life() time.Duration {
	if p.OnUnavailable != Deny {
		return longest
	}
	return p.Freshness.Life()
}

// demand is how fresh p wants the answer to r: a request can only tighten.
func (p *Policy) demand(r *Request) Freshness {
	if r.Tighten == nil {
		return p.Freshness
	}
	return p.Freshness.tighten(r.Tighten)
}
