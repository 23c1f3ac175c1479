package watchword

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Match selects requests. An absent list selects all.
type Match struct {
	Hosts   []string // compared without case, port and final dot
	Paths   []string // exact, or ending in "*", which matches any rest, also an empty one
	Methods []string // compared exactly (RFC 9110 §9.1: case-sensitive)
}

// Route gives the requests that match to a policy.
type Route struct {
	Match  Match
	Policy Policy
}

// Issuer is how one authorization server's tokens are told from others'.
type Issuer struct {
	Name     string   // ours, in metrics and logs
	ID       string   // its issuer identifier, matched against the unverified iss of a JWT; empty: unknown
	Prefixes []string // how its tokens begin; empty: it takes what no other issuer claims
	Tenant   string   // the claim that names the tenant, for When.Tenants; empty: none does
	Asking   string   // all else that may change its answers: endpoint, client, parameters. Part of every Key
}

// route is a compiled Route or caller.
type route struct {
	match  Match
	policy *Policy
	asked  []*issuer // accepted, in configured order
	mode   Mode      // an operator's word; zero: none
}

type issuer struct {
	Issuer
	block asking
}

func (m *Match) selects(r *Request) bool {
	return (len(m.Methods) == 0 || slices.Contains(m.Methods, r.Method)) &&
		(len(m.Hosts) == 0 || slices.Contains(m.Hosts, r.Host) || slices.Contains(m.Hosts, normalHost(r.Host))) &&
		(len(m.Paths) == 0 || slices.ContainsFunc(m.Paths, func(p string) bool { return pathMatches(p, r.Path) }))
}

func pathMatches(pattern, path string) bool {
	if prefix, open := strings.CutSuffix(pattern, "*"); open {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == path
}

// normalHost drops port, final dot and case. An IPv6 literal keeps its brackets; what is no host stays as it is.
func normalHost(host string) string {
	tail := host[strings.LastIndexByte(host, ']')+1:]
	if strings.Count(tail, ":") == 1 {
		host = host[:len(host)-len(tail)+strings.IndexByte(tail, ':')]
	}
	for i := range len(host) {
		if host[i] >= utf8.RuneSelf {
			return host // Unicode would fold the Kelvin sign to k
		}
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")) // no allocation where nothing changes
}

func (m *Match) validate() error {
	var errs []error
	for _, p := range m.Paths {
		if !strings.HasPrefix(p, "/") {
			errs = append(errs, fmt.Errorf("path %q does not begin with /", p))
		}
		if i := strings.IndexByte(p, '*'); i >= 0 && i != len(p)-1 {
			errs = append(errs, fmt.Errorf("path %q: * may only be the last character", p))
		}
	}
	for _, h := range m.Hosts {
		if h != "" && normalHost(h) == "" {
			errs = append(errs, fmt.Errorf("host %q has no name", h))
		}
	}
	if slices.Contains(m.Hosts, "") || slices.Contains(m.Methods, "") {
		errs = append(errs, errors.New("an empty host or method matches nothing"))
	}
	return errors.Join(errs...)
}

func (m *Match) compile() Match {
	c := Match{Paths: slices.Clone(m.Paths), Methods: slices.Clone(m.Methods)}
	for _, h := range m.Hosts {
		c.Hosts = append(c.Hosts, normalHost(h))
	}
	return c
}

// accepted finds the issuers of p, and the mistakes that would make whom to ask a matter of chance.
func accepted(p *Policy, all []*issuer) (asked []*issuer, err error) {
	var errs []error
	for _, name := range p.Issuers {
		if !slices.ContainsFunc(all, func(i *issuer) bool { return i.Name == name }) {
			errs = append(errs, fmt.Errorf("policy %q: no issuer is named %q", p.Name, name))
		}
	}
	owner := map[string]string{}
	for _, i := range all {
		if len(p.Issuers) > 0 && !slices.Contains(p.Issuers, i.Name) {
			continue
		}
		asked = append(asked, i)
		prefixes := i.Prefixes
		if len(prefixes) == 0 {
			prefixes = []string{""}
		}
		for _, prefix := range prefixes {
			if other, taken := owner[prefix]; taken {
				errs = append(errs, fmt.Errorf("policy %q: issuers %q and %q both take tokens that begin with %q: give each a prefix of its own, or accept only one", p.Name, other, i.Name, prefix))
			}
			owner[prefix] = i.Name
		}
	}
	return asked, errors.Join(errs...)
}

// whom returns the one issuer that may be shown t: the longest matching prefix, else the issuer that a JWT names, else
// the one without prefixes; nil: none. A JWT that names another configured issuer is shown to nobody else: a token is
// a secret between its issuer and its audience.
func (rt *route) whom(t Token, all []*issuer) *issuer {
	var best, open *issuer
	longest := 0
	for _, i := range rt.asked {
		if len(i.Prefixes) == 0 {
			open = i
		}
		for _, p := range i.Prefixes {
			if len(p) > longest && strings.HasPrefix(string(t), p) {
				best, longest = i, len(p)
			}
		}
	}
	chosen := cmp.Or(best, open)
	if len(all) == 1 && chosen != nil {
		return chosen // there is no other to take it for; a JWT need not be read
	}
	iss, sure := jwtIssuer(t)
	switch {
	case !sure:
		return nil
	case iss == "":
		return chosen
	}
	named := func(i *issuer) bool { return i.ID == iss }
	if best == nil {
		if i := slices.IndexFunc(rt.asked, named); i >= 0 {
			return rt.asked[i]
		}
	}
	if slices.ContainsFunc(all, named) && (chosen == nil || chosen.ID != iss) {
		return nil
	}
	return chosen
}

// jwtIssuer reads iss of what looks like a signed JWT, unverified: good for choosing whom to ask, for nothing else.
// Empty: it names nobody. Not sure: it is a JWT that two readers may read in two ways.
func jwtIssuer(t Token) (iss string, sure bool) {
	head, rest, signed := strings.Cut(string(t), ".")
	payload, signature, signed2 := strings.Cut(rest, ".")
	if !signed || !signed2 || head == "" || payload == "" || strings.Contains(signature, ".") {
		return "", true
	}
	body, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || !json.Valid(body) || !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		return "", true
	}
	c, err := ParseClaims(body)
	iss, _ = c.Text("iss")
	return iss, err == nil
}
