package revocation

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
)

// Code says why a signal is refused, in the words of RFC 8935 §2.4 and SSF 1.0.
type Code string

// The codes that are given.
const (
	InvalidRequest       Code = "invalid_request"
	InvalidKey           Code = "invalid_key"
	InvalidIssuer        Code = "invalid_issuer"
	InvalidAudience      Code = "invalid_audience"
	AuthenticationFailed Code = "authentication_failed"
	InvalidState         Code = "invalid_state" // SSF 1.0 §8.1.4
)

// Refusal is why a signal cannot be what it claims to be. It never repeats a value of it.
type Refusal struct {
	Code Code
	Text string // for the sender's log: what is wrong, in a few words
}

// Error is the code and the text.
func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Text }

func refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

// Signals reads what is said about the tokens of one authorization server, in envelopes whose signature, typ and key
// were verified before. It is pure and safe for concurrent use.
type Signals struct {
	Issuer   string        // our name for the authorization server, of every Event
	Names    []string      // its issuer identifiers: a subject of another iss is not ours
	Sender   string        // iss of its envelopes, exactly; empty: not compared
	Audience []string      // one of these must be in aud; empty: not compared
	Skew     time.Duration // how far its clock may be ahead of ours
	Declared []string      // the names that its selector_claims declare, tenant among them
	Critical []string      // members of a complex subject that may not be overlooked (SSF 1.0 §3.6)
}

// Reading is what a signal comes down to. At most one of Events, Ignored and Verifies says anything.
type Reading struct {
	ID       string  // the same for the same signal, whoever delivers it
	Events   []Event // to be published, each in force by itself
	Type     string  // what kind of event it was, a word of ours; empty: unknown here
	Ignored  string  // why it changes nothing: for counters and logs; empty: it does something
	Gap      string  // why the feed that brought it no longer covers what was asked before; empty: it does
	Verifies bool    // a verification event (SSF 1.0 §8.1.4) …
	State    string  // … and its state; empty: we did not ask for it
	At       time.Time
}

// effect is what an event of some type does about its subject.
type effect uint8

const (
	nothing  effect = iota // heard, and no answer changes by it
	question               // Revalidate
	deny                   // Deny
	lapse                  // coverage ends
	verification
	updated // stream-updated
)

const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
	ssf  = "https://schemas.openid.net/secevent/ssf/event-type/"
	sse  = "https://schemas.openid.net/secevent/sse/event-type/" // before SSF had its name
	goog = "https://schemas.openid.net/secevent/oauth/event-type/"

	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
)

// types says what every event type does. Where member has one of the values in less, it does nothing; any other value
// counts, also one that we do not understand.
var types = map[string]struct {
	does   effect
	member string
	less   []string
}{
	caep + "session-revoked":                    {does: deny},
	caep + "token-claims-change":                {does: question},
	caep + "credential-change":                  {question, "change_type", []string{"create"}},
	caep + "assurance-level-change":             {question, "change_direction", []string{"increase"}},
	caep + "device-compliance-change":           {question, "current_status", []string{"compliant"}},
	caep + "risk-level-change":                  {question, "current_level", []string{"LOW", "MEDIUM"}},
	caep + "session-established":                {},
	caep + "session-presented":                  {},
	risc + "account-purged":                     {does: deny},
	risc + "account-disabled":                   {does: question}, // the next answer decides: un-suspending needs no event
	risc + "account-enabled":                    {},               // never un-revokes
	risc + "sessions-revoked":                   {does: deny},
	risc + "credential-compromise":              {does: question},
	risc + "account-credential-change-required": {does: question},
	risc + "identifier-changed":                 {does: question},
	risc + "identifier-recycled":                {does: question},
	risc + "opt-in":                             {},
	risc + "opt-out-initiated":                  {},
	risc + "opt-out-cancelled":                  {},
	risc + "opt-out-effective":                  {does: lapse}, // that subject is no longer spoken of, and nobody lists them
	risc + "recovery-activated":                 {},
	risc + "recovery-information-changed":       {},
	risc + "verification":                       {does: verification},
	goog + "tokens-revoked":                     {does: deny},
	ssf + "verification":                        {does: verification},
	sse + "verification":                        {does: verification},
	ssf + "stream-updated":                      {does: updated},
	sse + "stream-updated":                      {does: updated},
}

// EventTypes lists the types that a stream should be asked for: those that change something here.
func EventTypes() (all []string) {
	for name, t := range types {
		if t.does != nothing && !strings.HasPrefix(name, sse) && !strings.HasPrefix(name, goog) && name != risc+"verification" {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// SET reads a security event token (RFC 8417, SSF 1.0 §4, CAEP, RISC). An error is a *Refusal.
func (s *Signals) SET(c watchword.Claims, heard time.Time) (*Reading, error) {
	id, issued, err := s.envelope(c, heard)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"sub", "exp"} { // SSF 1.0 §4.1.1, §4.1.2
		if _, there := c.Get(name); there {
			return nil, refuse(InvalidRequest, "%s may not be in a security event token", name)
		}
	}
	name, event, err := theEvent(c)
	if err != nil {
		return nil, err
	}
	t, known := types[name]
	r := &Reading{ID: id}
	if !known {
		r.Ignored = "unknown_event" // RFC 8935 §2: its bearer did nothing wrong
		return r, nil
	}
	r.Type = name[strings.LastIndexByte(name, '/')+1:]
	if r.At, err = s.when(c, event, issued, heard); err != nil {
		return nil, err
	}
	subject, spoken, err := subjectOf(c, event)
	if err != nil {
		return nil, err
	}
	if !spoken && t.does != verification { // RISC's first transmitters verify without one
		return nil, refuse(InvalidRequest, "there is no sub_id")
	}
	if value, _ := event.Text(t.member); t.member != "" && slices.Contains(t.less, value) {
		t.does = nothing
	}
	switch t.does {
	case nothing:
		r.Ignored = "no_effect"
	case lapse:
		r.Gap = r.Type
	case verification:
		r.Verifies = true
		r.State, _ = event.Text("state")
	case updated:
		if status, _ := event.Text("status"); status != "enabled" {
			r.Gap = "stream_" + closed(status, "paused", "disabled")
		} else {
			r.Gap = "stream_enabled" // what happened while it was not may be lost
		}
	case deny, question:
		return r, s.about(r, subject, t.does == deny, "ssf")
	}
	return r, nil
}

// closed is word if it is one of words, so that nothing of a sender's gets into a label.
func closed(word string, words ...string) string {
	if slices.Contains(words, word) {
		return word
	}
	return "unknown"
}

// Logout reads a logout token (OpenID Connect Back-Channel Logout 1.0 §2.4, §2.6). An error is a *Refusal.
func (s *Signals) Logout(c watchword.Claims, heard time.Time) (*Reading, error) {
	id, issued, err := s.envelope(c, heard)
	if err != nil {
		return nil, err
	}
	if _, there := c.Get("nonce"); there { // §2.4: else it could pass for an ID token
		return nil, refuse(InvalidRequest, "nonce may not be in a logout token")
	}
	value, there := c.Get("exp")
	end, ok := numericDate(value)
	switch {
	case !there || !ok:
		return nil, refuse(InvalidRequest, "exp is missing, or no number of seconds")
	case !heard.Before(end.Add(s.Skew)):
		return nil, refuse(InvalidRequest, "it is expired")
	}
	events, there := c.Get("events")
	if !there {
		return nil, refuse(InvalidRequest, "events is missing")
	}
	inside, err := watchword.ParseClaims([]byte(events))
	if err != nil {
		return nil, refuse(InvalidRequest, "events is no object")
	}
	// The member's value should be an object, and other members may be anything: Keycloak adds a bare boolean.
	if v, there := inside.Get(logoutEvent); !there || v[0] != '{' && v != "true" {
		return nil, refuse(InvalidRequest, "events says no back-channel logout")
	}
	e := Event{Issuer: s.Issuer, At: issued, Way: "back_channel_logout", ID: id}
	for name, into := range map[string]*string{"sub": &e.Selector.Subject, "sid": &e.Selector.Session} {
		if v, there := c.Get(name); there {
			var ok bool
			if *into, ok = c.Text(name); !ok || *into == "" || len(v) > MaxText {
				return nil, refuse(InvalidRequest, "%s is no string, empty, or too long", name)
			}
		}
	}
	if e.Selector.Empty() {
		return nil, refuse(InvalidRequest, "neither sub nor sid is there")
	}
	return &Reading{ID: id, Type: "logout", At: issued, Events: []Event{e}}, nil
}

// GlobalRevocation reads the body of a request for global token revocation (draft-parecki-oauth-global-token-revocation
// §2): all tokens of one subject, now. An error is a *Refusal; a Reading without Events names nobody that we can tell.
func (s *Signals) GlobalRevocation(c watchword.Claims) (*Reading, error) {
	text, there := c.Get("sub_id")
	if !there {
		return nil, refuse(InvalidRequest, "sub_id is missing")
	}
	subject, err := watchword.ParseClaims([]byte(text))
	if err != nil {
		return nil, refuse(InvalidRequest, "sub_id is no object")
	}
	r := &Reading{Type: "global_token_revocation"}
	return r, s.about(r, subject, true, "global_token_revocation")
}

// envelope checks what every signed signal must say of itself, and gives it an identity.
func (s *Signals) envelope(c watchword.Claims, heard time.Time) (id string, issued time.Time, err error) {
	iss, ok := c.Text("iss")
	switch {
	case !ok:
		return "", issued, refuse(InvalidRequest, "iss is missing, or no string")
	case s.Sender != "" && iss != s.Sender:
		return "", issued, refuse(InvalidIssuer, "iss is not the one that this endpoint listens to")
	case len(s.Audience) > 0 && !holds(c, s.Audience):
		return "", issued, refuse(InvalidAudience, "aud does not name this receiver")
	}
	jti, ok := c.Text("jti")
	if !ok || jti == "" || len(jti) > MaxText {
		return "", issued, refuse(InvalidRequest, "jti is missing, no string, or too long")
	}
	value, _ := c.Get("iat")
	if issued, ok = numericDate(value); !ok {
		return "", issued, refuse(InvalidRequest, "iat is missing, or no number of seconds")
	}
	if issued.After(heard.Add(s.Skew)) {
		return "", issued, refuse(InvalidRequest, "iat is in the future: do the clocks agree?")
	}
	return signalID(s.Issuer, iss, jti), issued, nil
}

// signalID is a name for what parts name, whatever they hold.
func signalID(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = io.WriteString(h, strconv.Itoa(len(p))+":"+p) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:20])
}

func holds(c watchword.Claims, audience []string) bool {
	if one, ok := c.Text("aud"); ok {
		return slices.Contains(audience, one)
	}
	value, there := c.Get("aud")
	if !there {
		return false
	}
	list, ok := watchword.Strings(value)
	return ok && slices.ContainsFunc(list, func(a string) bool { return slices.Contains(audience, a) })
}

// theEvent is the one event of a SET. Two would be two subjects' worth of trouble, and no profile allows them (CAEP
// interoperability profile §2.3.4).
func theEvent(c watchword.Claims) (name string, event watchword.Claims, err error) {
	text, there := c.Get("events")
	if !there {
		return "", event, refuse(InvalidRequest, "events is missing")
	}
	events, bad := watchword.ParseClaims([]byte(text))
	if bad != nil {
		return "", event, refuse(InvalidRequest, "events is no object")
	}
	n, value := 0, ""
	for name, value = range events.All() {
		n++
	}
	if n != 1 {
		return "", event, refuse(InvalidRequest, "events holds %d events: exactly one is understood", n)
	}
	if event, bad = watchword.ParseClaims([]byte(value)); bad != nil {
		return "", event, refuse(InvalidRequest, "the event is no object")
	}
	return name, event, nil
}

// subjectOf finds the subject: sub_id, or that of the event, as before SSF 1.0.
func subjectOf(c, event watchword.Claims) (subject watchword.Claims, there bool, err error) {
	text, there := c.Get("sub_id")
	if !there {
		text, there = event.Get("subject")
	}
	if !there {
		return subject, false, nil
	}
	subject, bad := watchword.ParseClaims([]byte(text))
	if bad != nil {
		return subject, true, refuse(InvalidRequest, "the subject is no object")
	}
	return subject, true, nil
}

// when is the instant at which it happened: event_timestamp (CAEP §2), toe (RFC 8417 §2.2), else when it was said.
func (s *Signals) when(c, event watchword.Claims, issued, heard time.Time) (time.Time, error) {
	at := issued
	for _, from := range []struct {
		c    watchword.Claims
		name string
	}{{event, "event_timestamp"}, {c, "toe"}} {
		if value, there := from.c.Get(from.name); there {
			var ok bool
			if at, ok = numericDate(value); !ok {
				return at, refuse(InvalidRequest, "%s is no number of seconds", from.name)
			}
			break
		}
	}
	if at.After(heard.Add(s.Skew)) {
		return at, refuse(InvalidRequest, "it speaks of the future: do the clocks agree?")
	}
	return at, nil
}

// numericDate reads a NumericDate. What is beyond the year 9999 is nonsense, often milliseconds.
func numericDate(value string) (time.Time, bool) {
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || value[0] != '-' && (value[0] < '0' || value[0] > '9') || f < 0 || f > 253402300799 {
		return time.Time{}, false
	}
	whole, part := math.Modf(f)
	return time.Unix(int64(whole), int64(part*1e9)), true
}
