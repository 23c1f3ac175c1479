package door

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/watchword-dev/watchword"
)

// Identity tells a backend who was let in, by headers. Make it with NewIdentity; nil has no headers. Immutable, so safe
// for concurrent use.
type Identity struct {
	headers      []identityHeader
	scans        bool // one of the claims has no accessor
	unheaderable func(header string)
}

type identityHeader struct {
	name  string // canonical
	claim string
	get   func(*watchword.Answer) string // nil: the claims are read
}

// accessors are the claims that an Answer has decoded already.
var accessors = map[string]func(*watchword.Answer) string{
	"sub":       (*watchword.Answer).Subject,
	"client_id": (*watchword.Answer).ClientID,
	"scope":     (*watchword.Answer).Scope,
	"sid":       (*watchword.Answer).Session,
}

// ours are headers that a door answers with, or that steer the connection to the gateway.
var ours = []string{"Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Date", "Keep-Alive",
	"Location", "Proxy-Authenticate", "Proxy-Connection", "Retry-After", "Set-Cookie", "Te", "Trailer", "Traceparent",
	"Transfer-Encoding", "Upgrade", "Www-Authenticate", "X-Request-Id"}

// NewIdentity compiles a map of header name to claim name, or reports every mistake at once. Whenever a configured
// claim cannot be written as a header, unheaderable is called with the header's name; nil: nobody is told.
func NewIdentity(headers map[string]string, unheaderable func(header string)) (*Identity, error) {
	id := &Identity{unheaderable: unheaderable}
	if unheaderable == nil {
		id.unheaderable = func(string) {}
	}
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for name, claim := range headers {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !plainName(name):
			mistake("identity header %q: use letters, digits and hyphens only; many backends take other characters for a hyphen", name)
		case slices.Contains(ours, canonical), strings.HasPrefix(canonical, "X-Watchword-"):
			mistake("identity header %q: the door itself answers with it; choose another name", name)
		case slices.ContainsFunc(id.headers, func(h identityHeader) bool { return h.name == canonical }):
			mistake("identity header %q is given twice: case does not tell headers apart", canonical)
		case claim == "":
			mistake("identity header %q: the claim is missing", name)
		case claim == "expires_in", claim == "exi":
			mistake("identity header %q: %s counts from the asking and means nothing later; use exp", name, claim)
		}
		get := accessors[claim]
		id.headers = append(id.headers, identityHeader{canonical, claim, get})
		id.scans = id.scans || get == nil
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(id.headers, func(a, b identityHeader) int { return strings.Compare(a.name, b.name) })
	return id, nil
}

// Set sets every configured header, so that no copy which a client sent can survive: a string as it is, a list of
// strings joined by spaces, a number or boolean as it was written. A claim that a lacks is empty; so is what else it
// may be, and what holds a byte outside 0x20–0x7E. A nil Answer is nobody: every header is empty. It allocates once,
// and once more for each list or escaped string.
func (id *Identity) Set(h http.Header, a *watchword.Answer) {
	if id == nil || len(id.headers) == 0 {
		return
	}
	values := make([]string, len(id.headers))
	for i := range id.headers {
		one := &id.headers[i]
		if a != nil && one.get != nil {
			values[i] = id.safe(one, one.get(a), true)
		}
		h[one.name] = values[i : i+1 : i+1]
	}
	if a == nil || !id.scans {
		return
	}
	for claim, value := range a.Claims().All() {
		for i := range id.headers {
			if one := &id.headers[i]; one.get == nil && one.claim == claim {
				text, ok := plainText(value)
				values[i] = id.safe(one, text, ok)
			}
		}
	}
}

func (id *Identity) safe(one *identityHeader, text string, ok bool) string {
	if ok && printable(text) {
		return text
	}
	id.unheaderable(one.name)
	return ""
}

// plainText is a JSON value as a header says it.
func plainText(value string) (text string, ok bool) {
	switch c := value[0]; {
	case c == '"' && strings.IndexByte(value, '\\') < 0:
		return value[1 : len(value)-1], true
	case c == '"':
		return unquote(value)
	case c == '[':
		list, isList := watchword.Strings(value)
		return strings.Join(list, " "), isList
	}
	return value, value[0] != '{' && value != "null"
}

// unquote is a function of its own because what it decodes into moves to the heap.
func unquote(quoted string) (text string, ok bool) {
	err := json.Unmarshal([]byte(quoted), &text)
	return text, err == nil
}

func plainName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c != '-' && (!unreserved[c] || c == '.' || c == '_' || c == '~') {
			return false
		}
	}
	return name != ""
}
