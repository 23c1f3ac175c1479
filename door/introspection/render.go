package introspection

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
)

const (
	inactive          = `{"active":false}`                    // RFC 7662 §2.2: and nothing that says why
	notNow            = `{"error":"temporarily_unavailable"}` // RFC 6749 §4.1.2.1
	ourFault          = `{"error":"server_error"}`            // RFC 6749 §4.1.2.1
	maxRejectionBytes = 4 << 10
	buffered          = 2 << 10 // net/http counts an answer up to here by itself, and cheaper
)

// answer writes what d means to a caller that was let in. Ignorance is never an inactive token.
func (x *exchange) answer(w http.ResponseWriter, who *caller, d *watchword.Decision) {
	switch d.Reason.Row().HTTP {
	case http.StatusOK:
		if d.Answer == nil { // let pass as nobody: no caller can be told who that is, and no policy of a caller says so
			door.Challenge{}.Header(w.Header(), watchword.Decision{Reason: watchword.CannotKnow})
			writeError(w, http.StatusServiceUnavailable, notNow)
			return
		}
		left, known := d.Answer.Remaining(time.Now())
		if !d.Answer.Active() || known && left <= 0 { // it may have ended since it was judged
			x.inactive(w, who)
			return
		}
		x.active(who, d.Answer, left, known)
		h := w.Header()
		h["Age"] = age(d.Age)
		door.Degraded(h, d.Degraded)
		x.write(w, who)
	case http.StatusUnauthorized, http.StatusForbidden:
		x.inactive(w, who)
	case http.StatusBadRequest:
		badRequest.write(w)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		door.Challenge{}.Header(w.Header(), *d) // Retry-After
		writeError(w, d.Reason.Row().HTTP, notNow)
	default: // a fault of ours, or the caller left and reads nothing
		writeError(w, http.StatusInternalServerError, ourFault)
	}
}

// active assembles the answer: every member as the authorization server wrote it, or those that who may see. The life
// that is left is told anew each time; without one that is known, nothing is made up.
func (x *exchange) active(who *caller, a *watchword.Answer, left time.Duration, known bool) {
	out := x.out[:0]
	if who.shown == nil {
		json := a.Claims().JSON()
		out = append(out, json[:len(json)-1]...)
	} else {
		out = append(out, `{"active":true`...)
		for name, value := range a.Claims().All() {
			for i := range who.shown {
				if who.shown[i].name == name {
					out = append(append(out, who.shown[i].prefix...), value...)
					break
				}
			}
		}
	}
	if known && !who.noEnd {
		out = strconv.AppendInt(append(out, `,"expires_in":`...), int64(left/time.Second), 10)
	}
	x.out = append(out, '}')
}

func (x *exchange) write(w http.ResponseWriter, who *caller) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	if x.sign != nil {
		jwt, err := x.sign(who.audience, x.out)
		if err == nil && who.encrypt != nil {
			jwt, err = who.encrypt(jwt)
		}
		if err != nil {
			h["Age"] = nil
			writeError(w, http.StatusInternalServerError, ourFault)
			return
		}
		h["Content-Type"] = typeJWT
		x.out = append(x.out[:0], jwt...)
	}
	if len(x.out) > buffered { // else it would go out in chunks
		h["Content-Length"] = []string{strconv.Itoa(len(x.out))}
	}
	_, _ = w.Write(x.out) // a caller that is gone reads nothing
}

// inactive is writeInactive, signed where that was asked for.
func (x *exchange) inactive(w http.ResponseWriter, who *caller) {
	if x.sign == nil {
		writeInactive(w)
		return
	}
	w.Header()["Age"] = age(0)
	x.out = append(x.out[:0], inactive...)
	x.write(w, who)
}

// writeInactive is the one answer about a token that is nothing to the caller, whatever the reason. Its Age never
// differs either: what is remembered and not shown must look like what nobody has ever heard of.
func writeInactive(w http.ResponseWriter) {
	h := w.Header()
	h["Age"] = age(0)
	h["Content-Type"] = typeJSON
	_, _ = io.WriteString(w, inactive)
}

func writeError(w http.ResponseWriter, status int, body string) {
	w.Header()["Content-Type"] = typeJSON
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (no *refusal) write(w http.ResponseWriter) {
	if no.challenge != nil {
		w.Header()["Www-Authenticate"] = no.challenge
	}
	writeError(w, no.status, no.body)
}

// rejection is the authorization server's refusal of a credential that is the caller's own; nil: there is none.
func rejection(err error) *watchword.Rejection {
	e, ok := errors.AsType[*watchword.Error](err)
	if !ok || e.Rejection == nil || e.Rejection.Status != http.StatusUnauthorized && e.Rejection.Status != http.StatusForbidden {
		return nil
	}
	return e.Rejection
}

// relay hands it back as it came.
func relay(w http.ResponseWriter, no *watchword.Rejection) {
	h := w.Header()
	h["Content-Type"] = nil // net/http shall not guess one
	if no.ContentType != "" {
		h["Content-Type"] = []string{no.ContentType}
	}
	if no.Challenge != "" {
		h["Www-Authenticate"] = []string{no.Challenge}
	}
	w.WriteHeader(no.Status)
	_, _ = w.Write(no.Body[:min(len(no.Body), maxRejectionBytes)])
}

// ages are the usual Age headers, made once.
var ages = func() (t [601][]string) {
	for i := range t {
		t[i] = []string{strconv.Itoa(i)}
	}
	return t
}()

// age is an Age header (RFC 9111 §5.1): whole seconds, rounded up, so that no caller takes evidence for younger than
// it is.
func age(d time.Duration) []string {
	n := int64(max(0, d) / time.Second)
	if d > time.Duration(n)*time.Second {
		n++
	}
	if n < int64(len(ages)) {
		return ages[n]
	}
	return []string{strconv.FormatInt(n, 10)}
}
