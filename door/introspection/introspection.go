// Package introspection is a drop-in RFC 7662 endpoint: who introspected at an authorization server introspects here,
// with nothing changed but the URL.
package introspection

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
)

// Config of the door. Verifier and Paths are required, and either Callers or Forward.
type Config struct {
	Verifier door.Verifier
	Paths    []string // compared exactly; any other is 404
	Callers  []Caller // who may ask; empty: those whom the authorization server lets
	Sign     Sign     // makes signed answers (RFC 9701) for callers that ask for them; nil: nobody gets one, whatever it asks for
	Forward  string   // a policy of one issuer, by its name in watchword.Config.Callers, under which each caller's own credential goes to that issuer; empty: Callers
}

// Caller may ask, and sees what its policy and Claims let it see.
type Caller struct {
	Name     string                   // of its policy in watchword.Config.Callers, which should have Relay set
	ClientID string                   // it uses HTTP Basic, or client_id and client_secret in the body (RFC 6749 §2.3.1); empty: it sends a secret as bearer token (RFC 6750)
	Secrets  func() ([]string, error) // one, or two during a rotation; New calls it once and keeps digests only
	Claims   []string                 // the members shown besides active, where exp stands for expires_in too; empty: all
	Encrypt  Encrypt                  // to its key: it gets signed and encrypted answers, and no others; nil: it gets what it asks for
}

// Sign makes a JWT of an introspection response, for the caller that audience names: its ClientID, or its Name where it
// has none. (*jose.ResponseSigner).Sign is one.
type Sign func(audience string, response []byte) (jwt string, err error)

// Encrypt makes a nested JWT of a signed one (RFC 9701 §5). (*jose.ResponseEncrypter).Encrypt is one.
type Encrypt func(jwt string) (nested string, err error)

// Door is the http.Handler. Immutable and safe for concurrent use: to let in other callers or secrets, make a new one.
//
// It reads 64 KiB of a body at most; how long that may take is the http.Server's ReadTimeout.
type Door struct {
	verifier door.Verifier
	paths    []string
	callers  *credentials
	forward  *caller // nil: callers decides
	sign     Sign    // nil: never
}

// New makes a Door, or reports every mistake of c at once.
func New(c Config) (*Door, error) {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf("introspection: "+format, args...)) }
	if c.Verifier == nil {
		mistake("Config.Verifier is missing: nobody could decide")
	}
	if len(c.Paths) == 0 {
		mistake("Config.Paths is empty: nothing would be answered; /introspect is usual")
	}
	for _, p := range c.Paths {
		if !strings.HasPrefix(p, "/") {
			mistake("path %q does not begin with /", p)
		}
	}
	switch {
	case len(c.Callers) == 0 && c.Forward == "":
		mistake("nobody may ask: name Callers, or a policy in Forward (RFC 7662 §2.1: the endpoint must be protected)")
	case len(c.Callers) > 0 && c.Forward != "":
		mistake("Callers and Forward exclude each other: keep one")
	case c.Sign != nil && c.Forward != "":
		mistake("Sign does not go with Forward: a signed answer names its audience, and who asks is not known here")
	}
	for _, one := range c.Callers {
		if one.Encrypt != nil && c.Sign == nil {
			mistake("caller %q: Encrypt needs Config.Sign: what is encrypted must be signed first", one.Name)
		}
	}
	d := &Door{verifier: c.Verifier, paths: slices.Clone(c.Paths), sign: c.Sign}
	if c.Forward != "" {
		d.forward = &caller{policy: c.Forward}
	}
	var err error
	if d.callers, err = admit(c.Callers); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return d, nil
}

// Shared header values: nobody may write to them.
var (
	typeJSON = []string{"application/json"}
	typeJWT  = []string{"application/token-introspection+jwt"} // RFC 9701 §5
	noStore  = []string{"no-store"}
	allow    = []string{http.MethodPost}
)

// stranger is the policy of whom we do not know: no caller has that name, so it is nobody's.
const stranger = "\x00"

// ServeHTTP answers one question. A question that is refused before any token was looked at goes to the Verifier as
// well, as a problem: it is counted and logged like any other.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Cache-Control"] = noStore // RFC 7662 §4 lets callers cache by their own rules; nothing in between may
	switch {
	case !slices.Contains(d.paths, r.URL.Path):
		w.WriteHeader(http.StatusNotFound)
		return
	case r.Method != http.MethodPost: // RFC 7662 §2.1
		h["Allow"] = allow
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	x := exchanges.Get().(*exchange)
	defer x.release()
	ask := watchword.Request{Door: "introspection", Caller: stranger, Peer: door.Peers(nil).Client(r.RemoteAddr, nil)}
	ask.ID, ask.Trace = door.Trace(w, r)
	x.sign = nil
	if d.sign != nil && wantsJWT(r.Header["Accept"]) {
		x.sign = d.sign
	}
	who, no := d.read(r, x)
	if who != nil {
		ask.Caller = who.policy
	}
	if x.sign != nil && who == nil && no != nil && len(r.Header["Authorization"]) == 0 && !x.form.secret() {
		no = badRequest // RFC 9701 §5: without a credential there is no audience, and no way down to plain JSON
	}
	if no == nil && who.encrypt != nil && x.sign == nil {
		no = badRequest // whoever takes that Accept away shall not read the answer
	}
	if no != nil {
		ask.Problem = no.reason
		d.verifier.Verify(r.Context(), ask)
		no.write(w)
		return
	}
	ask.Token = watchword.Token(x.form.token)
	ask.Tighten = bound(r.Header["Cache-Control"])
	if d.forward != nil {
		ask.Credential = x.form.credential(r.Header["Authorization"])
	}
	decision := d.verifier.Verify(r.Context(), ask)
	if no := rejection(decision.Err); no != nil && d.forward != nil {
		relay(w, no)
		return
	}
	x.answer(w, who, &decision)
}

// read finds out who asks, then what. The caller comes first: a stranger learns nothing else.
func (d *Door) read(r *http.Request, x *exchange) (*caller, *refusal) {
	header, several := authorization(r.Header)
	if several {
		return nil, badRequest
	}
	var who *caller
	switch {
	case d.forward != nil:
		who = d.forward
	case header != "":
		if who = d.callers.header(header); who == nil {
			return nil, unauthenticated(header)
		}
	}
	no := x.read(r)
	if header == "" && no != nil {
		return nil, unauthenticated("") // a form that cannot be read authenticates nobody
	}
	if no != nil {
		return who, no
	}
	f := &x.form
	switch {
	case f.doubled, header != "" && f.secret(), len(f.clientSecret) > 0 && len(f.assertion) > 0:
		return who, badRequest // RFC 6749 §2.3: never more than one method
	case header != "" && string(f.clientID) != who.clientID && !names(header, f.clientID):
		return who, badRequest
	case header == "" && d.forward != nil && !f.secret():
		return who, unauthenticated("")
	case header == "" && d.forward == nil:
		if who = d.callers.body(f); who == nil {
			return nil, unauthenticated("")
		}
	}
	if f.tokens != 1 || len(f.token) == 0 || d.forward != nil && f.hints > 1 || inURL(r.URL.RawQuery) {
		return who, badRequest
	}
	return who, nil
}

// authorization is the one Authorization header; an empty one is none.
func authorization(h http.Header) (value string, several bool) {
	switch v := h["Authorization"]; len(v) {
	case 0:
		return "", false
	case 1:
		return v[0], false
	}
	return "", true // nobody can say which counts (RFC 9110 §5.3)
}

// bound reads max-age of a request (RFC 9111 §5.2.1.1): how old an answer the caller accepts, by its Age, and nothing
// stale beyond that. Several mean the smallest; what is no number of seconds means nothing. No other directive counts:
// generic clients send no-cache without meaning it.
func bound(cacheControl []string) *watchword.Freshness {
	seconds, said := int64(0), false
	for _, line := range cacheControl {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.Trim(directive, " \t"), "=")
			if !strings.EqualFold(name, "max-age") {
				continue
			}
			if n, ok := deltaSeconds(value); ok && (!said || n < seconds) {
				seconds, said = n, true
			}
		}
	}
	if !said {
		return nil
	}
	// MaxAge too: a feed may vouch for an old answer, but its Age would still be more than the caller accepts.
	age := time.Duration(seconds) * time.Second
	return &watchword.Freshness{MaxStaleness: age, MaxAge: max(age, 1)} // 0 would be the default
}

// deltaSeconds is RFC 9111 §1.2.2; §5.2 lets it come quoted.
func deltaSeconds(s string) (int64, bool) {
	if len(s) > 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if errors.Is(err, strconv.ErrRange) {
		return 1 << 31, true
	}
	return n, err == nil
}

// members are what a caller may see of an answer, with their names as JSON.
func members(names []string) (shown []member) {
	for _, name := range names {
		quoted, _ := json.Marshal(name) // a string always marshals
		shown = append(shown, member{name, "," + string(quoted) + ":"})
	}
	return shown
}
