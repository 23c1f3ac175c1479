package watchword

import (
	"slices"
	"strings"
	"time"
)

// clause is one condition of acceptance.
type clause struct {
	name      string
	otherwise Reason
	holds     func(*Policy, *Answer, time.Time) bool
	explain   func(*Policy, *Answer, time.Time) string
}

// clauses are asked in order, and the first that does not hold names the Reason. What makes the token good for nobody
// comes before anything that would tell a stranger what is required here (RFC 9470 §9).
var clauses = [...]clause{
	{"active", Inactive, func(p *Policy, a *Answer, _ time.Time) bool {
		return a.active && (p.Relay || !a.refresh)
	}, func(p *Policy, a *Answer, _ time.Time) string {
		if a.active && a.refresh && !p.Relay {
			return "it is a refresh token, which no resource accepts"
		}
		return map[bool]string{true: "the authorization server says active", false: "the authorization server says inactive"}[a.active]
	}},
	{"not expired", Expired, func(p *Policy, a *Answer, now time.Time) bool {
		return !a.expired(now, !p.Relay) // a caller of the introspection door adds its own leeway
	}, func(_ *Policy, a *Answer, now time.Time) string {
		if left, known := a.Remaining(now); known {
			return "lives for " + left.Truncate(time.Second).String()
		}
		return "the authorization server gives no end"
	}},
	{"valid already", NotYetValid, func(_ *Policy, a *Answer, now time.Time) bool {
		return !a.early(now)
	}, func(_ *Policy, a *Answer, _ time.Time) string {
		if a.has&hasNbf == 0 {
			return "no nbf"
		}
		return "nbf " + time.Unix(a.nbf, 0).UTC().Format(time.RFC3339)
	}},
	{"audience", WrongAudience, func(p *Policy, a *Answer, _ time.Time) bool {
		return len(p.Audience) == 0 || a.HasAudience(p.Audience)
	}, func(p *Policy, _ *Answer, _ time.Time) string {
		return required("one of", p.Audience)
	}},
	// RFC 9449 §7.2, RFC 8705 §3: a bound token without proof is refused. No proof is understood yet, so all are.
	{"binding", NotBound, func(p *Policy, a *Answer, _ time.Time) bool {
		return p.Relay || !a.Bound()
	}, func(p *Policy, a *Answer, _ time.Time) string {
		switch {
		case !a.Bound():
			return "a bearer token, bound to no key"
		case p.Relay:
			return "bound to a key (cnf); the caller checks the proof"
		}
		return "bound to a key (cnf), and no proof of possession is understood in this version"
	}},
	// Before scope: no further scope would help. Who acted earlier is no ground for a decision (RFC 8693 §4.1).
	{"delegation", PolicyDenied, func(p *Policy, a *Answer, _ time.Time) bool {
		return !p.NoDelegation || !a.Delegated()
	}, func(p *Policy, a *Answer, _ time.Time) string {
		switch {
		case !a.Delegated():
			return "nobody acts for the subject"
		case p.NoDelegation:
			return "somebody acts for the subject (act), which is forbidden here"
		}
		return "somebody acts for the subject (act)"
	}},
	{"scope", InsufficientScope, func(p *Policy, a *Answer, _ time.Time) bool {
		for _, s := range p.Scopes {
			if !a.HasScope(s) {
				return false
			}
		}
		return true
	}, func(p *Policy, a *Answer, _ time.Time) string {
		missing := slices.DeleteFunc(slices.Clone(p.Scopes), a.HasScope)
		if len(missing) > 0 {
			return required("all of", p.Scopes) + "; missing " + strings.Join(missing, " ")
		}
		return required("all of", p.Scopes)
	}},
}

func required(how string, list []string) string {
	if len(list) == 0 {
		return "none required"
	}
	return how + " " + strings.Join(list, " ") + " required"
}

// Judge decides whether p accepts a at now: the first clause that does not hold names the Reason. Pure; it runs on
// every answer, remembered or not, so a remembered answer cannot skip a check.
func Judge(p *Policy, a *Answer, now time.Time) Reason {
	for i := range clauses {
		if !clauses[i].holds(p, a, now) {
			return clauses[i].otherwise
		}
	}
	return OK
}

// Finding is one clause of a judgement, for people.
type Finding struct {
	Clause    string `json:"clause"`
	Holds     bool   `json:"holds"`
	Otherwise string `json:"otherwise"` // the Reason's word if it does not hold
	Detail    string `json:"detail"`
}

// Explain runs every clause of Judge and says what each found. An answer that is not active has no other claims to
// look at.
func Explain(p *Policy, a *Answer, now time.Time) []Finding {
	var found []Finding
	for _, c := range clauses {
		found = append(found, Finding{c.name, c.holds(p, a, now), c.otherwise.String(), c.explain(p, a, now)})
		if !a.active {
			break
		}
	}
	return found
}
