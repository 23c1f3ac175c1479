package door

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
)

// Challenge writes refusals (RFC 6750 §3). The zero value names no realm.
type Challenge struct {
	Realm string // protection space (RFC 9110 §11.5); one that holds controls or non-ASCII is left out
}

// Shared header values: nobody may write to them.
var (
	noStore    = []string{"no-store"}
	retryAfter = func() (t [61][]string) { // a server's Retry-After is kept to a minute
		for i := range t {
			t[i] = []string{strconv.Itoa(max(1, i))}
		}
		return t
	}()
	degraded = func() [][]string {
		t := [][]string{watchword.Whole: nil}
		for _, d := range watchword.Degradations() {
			t = append(t, []string{d.String()})
		}
		return t
	}()
	challenges = func() [][]string {
		all := watchword.Reasons()
		t := make([][]string, len(all))
		for _, r := range all {
			if v := (Challenge{}).value(&watchword.Decision{Reason: r}); v != "" {
				t[r] = []string{v}
			}
		}
		return t
	}()
)

// Refuse answers with the status of d.Reason, the headers of Header, and no body. A Decision that allows is a fault of
// the caller and becomes 500.
func (c Challenge) Refuse(w http.ResponseWriter, d watchword.Decision) {
	if d.Allowed() {
		d = watchword.Decision{Reason: watchword.Internal}
	}
	c.Header(w.Header(), d)
	w.WriteHeader(d.Reason.Row().HTTP)
}

// Header sets what tells a client why it was refused: WWW-Authenticate where there is something to do about it (RFC
// 6750 §3.1; never a word about the token where nobody knows), Retry-After where it may try again, Cache-Control:
// no-store.
func (c Challenge) Header(h http.Header, d watchword.Decision) {
	h["Cache-Control"] = noStore
	if status := d.Reason.Row().HTTP; status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		h["Retry-After"] = wait(d.RetryAfter)
	}
	if c.Realm == "" && d.Reason != watchword.InsufficientScope {
		if int(d.Reason) < len(challenges) && challenges[d.Reason] != nil {
			h["Www-Authenticate"] = challenges[d.Reason]
		}
		return
	}
	if v := c.value(&d); v != "" {
		h["Www-Authenticate"] = []string{v}
	}
}

// Degraded marks an answer to a gateway or caller that rests on less than was promised: X-Watchword-Degraded says by
// which word of the policy. For Whole there is no header.
func Degraded(h http.Header, d watchword.Degradation) {
	if d != watchword.Whole && int(d) < len(degraded) {
		h["X-Watchword-Degraded"] = degraded[d]
	}
}

// value is the WWW-Authenticate header for d; empty: none.
func (c Challenge) value(d *watchword.Decision) string {
	row := d.Reason.Row()
	if row.OAuth == "" && d.Reason != watchword.NoToken {
		return ""
	}
	params := make([]string, 0, 3)
	if c.Realm != "" && printable(c.Realm) {
		params = append(params, "realm="+quoted(c.Realm))
	}
	if row.OAuth != "" { // RFC 6750 §3.1: a request without credentials is told no error
		params = append(params, "error="+quoted(row.OAuth))
	}
	if d.Reason == watchword.InsufficientScope && d.Policy != nil {
		if scope := strings.Join(d.Policy.Scopes, " "); scope != "" && scopeChars(scope) {
			params = append(params, "scope="+quoted(scope))
		}
	}
	if len(params) == 0 {
		return "Bearer"
	}
	return "Bearer " + strings.Join(params, ", ")
}

// quoted is a quoted-string (RFC 9110 §5.6.4) of printable ASCII.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// scopeChars is RFC 6750 §3: what the scope attribute may hold. Anything else is left out.
func scopeChars(s string) bool { return printable(s) && !strings.ContainsAny(s, `"\`) }

// wait is delay-seconds (RFC 9110 §10.2.3), rounded up, at least 1.
func wait(d time.Duration) []string {
	n := int64(max(0, d) / time.Second)
	if d > time.Duration(n)*time.Second {
		n++
	}
	if n < int64(len(retryAfter)) {
		return retryAfter[n]
	}
	return []string{strconv.FormatInt(n, 10)}
}
