package revocation

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
)

// Mapping says how to read an event out of JSON whose shape somebody else chose. A path is member names with dots
// between them (user.id); a member whose name holds a dot, and elements of lists, have no path.
type Mapping struct {
	When   map[string][]string // path → values, one of which must be there; else the message is ignored. nil: every message counts
	Select map[string]string   // sub, client, session, tenant, jti or a declared selector → path; all of them must be there
	ID     string              // path of the message's own identity; empty: each message is another one
	At     string              // path of when it happened: seconds, or RFC 3339; empty: when it was heard
	Effect Effect
}

// Validate reports every mistake of m at once. declared are the selectors that the issuer's answers can tell.
func (m *Mapping) Validate(declared []string) error {
	var errs []error
	if len(m.Select) == 0 {
		errs = append(errs, errors.New("maps no selector: every message would mean everybody; write sub, client, session, tenant or jti"))
	}
	for _, name := range slices.Sorted(maps.Keys(m.Select)) {
		switch {
		case slices.Contains([]string{"sub", "client", "session", "jti"}, name), slices.Contains(declared, name):
		case name == "tenant":
			errs = append(errs, errors.New("maps tenant, and the issuer's selector_claims declare none"))
		default:
			errs = append(errs, fmt.Errorf("maps %q, which is neither sub, client, session, tenant, jti nor one of the issuer's selector_claims", name))
		}
	}
	if _, one := m.Select["jti"]; one && len(m.Select) > 1 {
		errs = append(errs, errors.New("maps jti, which names one token, and more besides"))
	}
	for _, path := range append(slices.Collect(maps.Values(m.Select)), append(slices.Collect(maps.Keys(m.When)), m.ID, m.At)...) {
		if path != "" && (strings.HasPrefix(path, ".") || strings.HasSuffix(path, ".") || strings.Contains(path, "..")) {
			errs = append(errs, fmt.Errorf("path %q has an empty step", path))
		}
	}
	return errors.Join(errs...)
}

// Webhook reads a message by m. An error is a *Refusal.
func (s *Signals) Webhook(m *Mapping, c watchword.Claims, heard time.Time) (*Reading, error) {
	r := &Reading{Type: "webhook"}
	for path, values := range m.When {
		if v, err := valueAt(c, path); err != nil || !slices.Contains(values, v) {
			r.Ignored = "no_match"
			return r, nil
		}
	}
	e := Event{Issuer: s.Issuer, Way: "webhook", Effect: m.Effect}
	if m.ID != "" {
		id, err := valueAt(c, m.ID)
		if err != nil {
			return nil, err
		}
		r.ID = signalID(s.Issuer, "webhook", id)
		e.ID = r.ID
	}
	if m.At != "" {
		v, err := valueAt(c, m.At)
		if err != nil {
			return nil, err
		}
		t, ok := time.Time{}, false
		if v != "" {
			t, ok = numericDate(v)
		}
		if !ok {
			t, err = time.Parse(time.RFC3339, v)
		}
		switch {
		case err != nil:
			return nil, refuse(InvalidRequest, "%s is neither a number of seconds nor an RFC 3339 date", m.At)
		case t.After(heard.Add(s.Skew)):
			return nil, refuse(InvalidRequest, "%s is in the future: do the clocks agree?", m.At)
		}
		e.At, r.At = t, t
	}
	for name, path := range m.Select {
		v, err := valueAt(c, path)
		if err != nil {
			return nil, err
		}
		e.Select(name, v)
	}
	if err := e.Validate(); err != nil {
		return nil, refuse(InvalidRequest, "%v", err)
	}
	r.Events = []Event{e}
	return r, nil
}

// valueAt is the string, or the number as it is written, at path.
func valueAt(c watchword.Claims, path string) (string, error) {
	steps := strings.Split(path, ".")
	for i, step := range steps {
		value, there := c.Get(step)
		if !there {
			break
		}
		if i < len(steps)-1 {
			inner, err := watchword.ParseClaims([]byte(value))
			if err != nil {
				break
			}
			c = inner
			continue
		}
		if text, ok := c.Text(step); ok && text != "" {
			return text, nil
		}
		if value[0] == '-' || value[0] >= '0' && value[0] <= '9' {
			return value, nil
		}
	}
	return "", refuse(InvalidRequest, "there is no string or number at %s", path)
}
