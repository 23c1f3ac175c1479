package revocation

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/watchword-dev/watchword"
)

const (
	maxAliases      = 32 // identifiers of one subject
	maxAlternatives = 64 // Events that one subject becomes
)

// named is one way in which a subject is named.
type named struct {
	Selector
	jti string
	// something in it cannot be told from an answer, so it may mean fewer tokens than it matches: they are only asked
	// about again.
	wide bool
}

// unfit is why a subject names nobody whom we can tell, as a word of a closed list.
type unfit string

// Error is the word.
func (u unfit) Error() string { return string(u) }

const (
	unknownFormat unfit = "unknown_format"  // RFC 9493 and SSF have no such format
	foreign       unfit = "foreign_subject" // it is a subject of another issuer
	untold        unfit = "untold_subject"  // no answer of this issuer tells these identifiers: selector_claims could
	critical      unfit = "critical_member" // a member that may not be overlooked, and that we do not understand
	tooMany       unfit = "too_many_identifiers"
)

// about puts the events about subject into r. A subject that we cannot tell is no fault of its sender: nothing is
// applied, and whatever covered this issuer has a gap.
func (s *Signals) about(r *Reading, subject watchword.Claims, deny bool, way string) error {
	ways, err := s.subject(subject)
	if u, is := err.(unfit); is {
		r.Ignored, r.Gap = string(u), string(u)
		return nil
	}
	if err != nil {
		return err
	}
	for i, n := range ways {
		e := Event{Issuer: s.Issuer, JTI: n.jti, Selector: n.Selector, At: r.At, Way: way}
		if !deny || n.wide {
			e.Effect = Revalidate
		}
		if e.ID = r.ID; i > 0 && r.ID != "" {
			e.ID = signalID(r.ID, string(rune('0'+i)))
		}
		if err := e.Validate(); err != nil {
			return refuse(InvalidRequest, "%v", err)
		}
		r.Events = append(r.Events, e)
	}
	return nil
}

// subject is every way in which c names somebody; any of them is meant. An error is an unfit or a *Refusal.
func (s *Signals) subject(c watchword.Claims) ([]named, error) {
	format, complex, err := formatOf(c)
	if err != nil {
		return nil, err
	}
	if complex {
		return s.complex(c)
	}
	ways, err := s.simple(format, c, "user")
	if err != nil {
		return nil, err
	}
	return ways, nil
}

// formatOf reads format, or the subject_type of before RFC 9493, whose words had hyphens.
func formatOf(c watchword.Claims) (format string, complex bool, err error) {
	value, there := c.Get("format")
	name := "format"
	if !there {
		name = "subject_type"
		value, there = c.Get(name)
	}
	if !there { // drafts of CAEP had complex subjects without a format
		for role := range c.All() {
			if slices.Contains(roles, role) {
				return "complex", true, nil
			}
		}
		return "", false, refuse(InvalidRequest, "the subject has no format; one that names nobody would mean everybody")
	}
	format, ok := c.Text(name)
	if !ok || value == `""` {
		return "", false, refuse(InvalidRequest, "the format of the subject is no string, or empty")
	}
	format = strings.ReplaceAll(format, "-", "_")
	return format, format == "complex", nil
}

// roles are the members of a complex subject (SSF 1.0 §3.5).
var roles = []string{"user", "session", "tenant", "device", "application", "org_unit", "group"}

// complex reads a subject of several members: those tokens are meant that fit all of them.
func (s *Signals) complex(c watchword.Claims) ([]named, error) {
	ways := []named{{}}
	members := 0
	for role, value := range c.All() {
		if role == "format" || role == "subject_type" {
			continue
		}
		members++
		part, err := s.member(role, value)
		if u, is := err.(unfit); is {
			if slices.Contains(s.Critical, role) {
				return nil, critical
			}
			if u == foreign {
				return nil, u // AND: no token of ours can be meant
			}
			part = []named{{wide: true}} // leave it out: more tokens match, and are only asked about
		} else if err != nil {
			return nil, err
		}
		if len(ways)*len(part) > maxAlternatives {
			return nil, tooMany
		}
		var both []named
		for _, a := range ways {
			for _, b := range part {
				both = append(both, join(a, b))
			}
		}
		ways = both
	}
	if members == 0 {
		return nil, refuse(InvalidRequest, "the complex subject is empty: it would mean everybody")
	}
	ways = slices.DeleteFunc(ways, func(n named) bool { return n.jti == "" && n.Empty() })
	if len(ways) == 0 {
		return nil, untold
	}
	return ways, nil
}

// join is both. A jti with something else cannot be told at once, so the jti is left out.
func join(a, b named) named {
	out := named{wide: a.wide || b.wide}
	for _, n := range []named{a, b} {
		out.jti = n.jti + out.jti
		for _, v := range []struct {
			into *string
			from string
		}{{&out.Subject, n.Subject}, {&out.Client, n.Client}, {&out.Session, n.Session}, {&out.Tenant, n.Tenant}} {
			if v.from != "" {
				*v.into = v.from
			}
		}
		if len(n.Other) > 0 {
			if out.Other == nil {
				out.Other = map[string]string{}
			}
			maps.Copy(out.Other, n.Other)
		}
	}
	if out.jti != "" && !out.Empty() {
		out.jti, out.wide = "", true
	}
	return out
}

// member reads one member of a complex subject.
func (s *Signals) member(role, value string) ([]named, error) {
	c, bad := watchword.ParseClaims([]byte(value))
	if bad != nil {
		return nil, unknownFormat // an extension: members may be anything (SSF 1.0 §3.5)
	}
	format, complex, err := formatOf(c)
	if err != nil {
		return nil, err
	}
	if complex {
		return nil, refuse(InvalidRequest, "a complex subject is within another")
	}
	return s.simple(format, c, role)
}

// simple reads a subject in one format (RFC 9493 §3.2, SSF 1.0 §3.4) that stands for role.
func (s *Signals) simple(format string, c watchword.Claims, role string) ([]named, error) {
	get := func(name string) (string, error) {
		v, ok := c.Text(name)
		if !ok || v == "" || len(v) > MaxText {
			return "", refuse(InvalidRequest, "the subject's %s is missing, no string, empty or too long", name)
		}
		return v, nil
	}
	ours := func() error {
		iss, err := get("iss")
		if err == nil && !slices.Contains(s.Names, iss) {
			return foreign
		}
		return err
	}
	switch format {
	case "iss_sub":
		if err := ours(); err != nil {
			return nil, err
		}
		sub, err := get("sub")
		if err != nil {
			return nil, err
		}
		return s.identified(role, sub)
	case "opaque":
		id, err := get("id")
		if err != nil {
			return nil, err
		}
		return s.identified(role, id)
	case "jwt_id":
		if err := ours(); err != nil {
			return nil, err
		}
		jti, err := get("jti")
		return []named{{jti: jti}}, err
	case "email", "phone_number", "did", "uri", "account":
		member := map[string]string{"did": "url", "account": "uri"}[format]
		if member == "" {
			member = format
		}
		id, err := get(member)
		if err != nil {
			return nil, err
		}
		return s.contact(format, id, role)
	case "aliases":
		return s.aliases(c, role)
	case "saml_assertion_id", "ip_addresses":
		return nil, untold
	}
	return nil, unknownFormat
}

// identified names whoever has id in a role.
func (s *Signals) identified(role, id string) ([]named, error) {
	switch {
	case role == "user":
		return []named{{Selector: Selector{Subject: id}}}, nil
	case role == "session" && id == "ALL": // Keycloak: the user's every session
		return []named{{}}, nil
	case role == "session":
		return []named{{Selector: Selector{Session: id}}}, nil
	case role == "tenant" && slices.Contains(s.Declared, role):
		return []named{{Selector: Selector{Tenant: id}}}, nil
	case slices.Contains(s.Declared, role):
		return []named{{Selector: Selector{Other: map[string]string{role: id}}}}, nil
	}
	return nil, untold
}

// contact names whoever has an address, where selector_claims declares a claim that tells it. Addresses are written
// in many ways and get new owners, so they never deny: those who have it are asked about again. An e-mail address is
// looked for as it is written and in lower case.
func (s *Signals) contact(format, id, role string) ([]named, error) {
	if role != "user" || !slices.Contains(s.Declared, format) {
		return nil, untold
	}
	ways := []named{{Selector: Selector{Other: map[string]string{format: id}}, wide: true}}
	if lower := strings.ToLower(id); format == "email" && lower != id {
		ways = append(ways, named{Selector: Selector{Other: map[string]string{format: lower}}, wide: true})
	}
	return ways, nil
}

// aliases are several names of one subject: any of them (RFC 9493 §3.2.8).
func (s *Signals) aliases(c watchword.Claims, role string) ([]named, error) {
	text, _ := c.Get("identifiers")
	list, ok := objects(text)
	if !ok || len(list) == 0 {
		return nil, refuse(InvalidRequest, "identifiers is no list of subjects")
	}
	if len(list) > maxAliases {
		return nil, tooMany
	}
	var ways []named
	why := untold
	for _, one := range list {
		format, complex, err := formatOf(one)
		if err == nil && (complex || format == "aliases") {
			return nil, refuse(InvalidRequest, "identifiers holds what is no simple subject")
		}
		var more []named
		if err == nil {
			more, err = s.simple(format, one, role)
		}
		if u, is := err.(unfit); is {
			why = u
			continue
		}
		if err != nil {
			return nil, err
		}
		ways = append(ways, more...)
	}
	if len(ways) == 0 {
		return nil, why
	}
	return ways, nil
}

// objects reads a list of objects.
func objects(value string) (list []watchword.Claims, ok bool) {
	var raw []json.RawMessage
	if json.Unmarshal([]byte(value), &raw) != nil {
		return nil, false
	}
	for _, one := range raw {
		c, err := watchword.ParseClaims(one)
		if err != nil {
			return nil, false
		}
		list = append(list, c)
	}
	return list, true
}
