package watchword

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// SubjectClass says for whom a token stands.
type SubjectClass uint8

// The classes.
const (
	AnySubject    SubjectClass = iota // no difference is made
	UserSubject                       // a sub that is not the client itself
	ClientSubject                     // a client on its own account: no sub, or one that equals client_id (RFC 9068 §2.2)
)

// Tier lowers the bounds of a Policy for some tokens, chosen by what their answers say. Every tier that fits counts; a
// bound can only become lower.
type Tier struct {
	When      When
	Freshness Freshness // none may be above the policy's; MaxAge zero: the policy's
}

// When selects answers: each list that is not empty must hold a value of the answer.
type When struct {
	Clients   []string // client_id
	Scopes    []string // one of scope
	Audiences []string // one of aud
	Tenants   []string // the claim that Issuer.Tenant names
	Subject   SubjectClass
}

// Recheck asks again about tokens whose answer is still fresh. If that cannot be done the answer serves on: it is as
// fresh as promised. The zero value rechecks nothing.
type Recheck struct {
	Probability float64 // of every hit, 0 to 1
	OnChange    Changes // when a token is not where it was last accepted from
}

// Changes are what tells one client from another. The zero value: nothing does.
type Changes struct {
	ClientIP  bool // Request.Peer
	UserAgent bool // Request.UserAgent
}

func (w *When) empty() bool {
	return len(w.Clients)+len(w.Scopes)+len(w.Audiences)+len(w.Tenants) == 0 && w.Subject == AnySubject
}

// selects reports whether w means the token of a; tenant is the claim that names tenants.
func (w *When) selects(a *Answer, tenant string) bool {
	return a.active &&
		(len(w.Clients) == 0 || a.client != "" && slices.Contains(w.Clients, a.client)) &&
		(len(w.Scopes) == 0 || slices.ContainsFunc(w.Scopes, a.HasScope)) &&
		(len(w.Audiences) == 0 || a.HasAudience(w.Audiences)) &&
		(w.Subject == AnySubject || (w.Subject == ClientSubject) == (a.sub == "" || a.sub == a.client)) &&
		(len(w.Tenants) == 0 || w.holdsTenant(a, tenant))
}

func (w *When) holdsTenant(a *Answer, claim string) bool {
	v, ok := a.claims.Text(claim)
	return ok && slices.Contains(w.Tenants, v)
}

// tiered is written with every bound that a tier of p has lower for a.
func (p *Policy) tiered(written Freshness, a *Answer, tenant string) Freshness {
	for i := range p.Tiers {
		if t := &p.Tiers[i]; t.When.selects(a, tenant) {
			written = written.tighten(&t.Freshness)
		}
	}
	return written
}

func (p *Policy) validateTiers() error {
	var errs []error
	for i := range p.Tiers {
		t := &p.Tiers[i]
		mistake := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("tier %d: %w", i+1, fmt.Errorf(format, args...)))
		}
		if err := t.Freshness.Validate(); err != nil {
			mistake("%w", err)
		}
		if t.When.empty() {
			mistake("it selects every token: lower the policy's own bounds instead")
		}
		if t.When.Subject > ClientSubject {
			mistake("subject class %d is neither user nor client", t.When.Subject)
		}
		for _, list := range [][]string{t.When.Clients, t.When.Scopes, t.When.Audiences, t.When.Tenants} {
			if slices.Contains(list, "") {
				mistake("an empty value selects nothing")
			}
		}
		for _, b := range []struct {
			name      string
			tier, own time.Duration
		}{
			{"max_staleness", t.Freshness.MaxStaleness, p.Freshness.MaxStaleness},
			{"max_age", t.Freshness.MaxAge, p.Freshness.maxAge()}, // zero is the policy's
			{"stale_if_error", t.Freshness.StaleIfError, p.Freshness.StaleIfError},
		} {
			if b.tier > b.own {
				mistake("%s %v is above the policy's %v: a tier can only tighten", b.name, b.tier, b.own)
			}
		}
	}
	if r := p.Recheck; !(r.Probability >= 0 && r.Probability <= 1) {
		errs = append(errs, fmt.Errorf("recheck probability %v is not between 0 and 1", r.Probability))
	}
	return errors.Join(errs...)
}

func (p *Policy) cloneTiers() []Tier {
	tiers := slices.Clone(p.Tiers)
	for i := range tiers {
		t := &tiers[i]
		if t.Freshness.MaxAge == 0 {
			t.Freshness.MaxAge = p.Freshness.maxAge()
		}
		w := &t.When
		w.Clients, w.Scopes, w.Audiences, w.Tenants = slices.Clone(w.Clients), slices.Clone(w.Scopes), slices.Clone(w.Audiences), slices.Clone(w.Tenants)
	}
	return tiers
}
