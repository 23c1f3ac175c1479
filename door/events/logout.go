package events

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// logout answers within the user's own logout: senders wait for it, and do not come again.
type logout struct {
	way
	verify Verify
}

// ServeHTTP takes one logout token (Back-Channel Logout 1.0 §2.5 to §2.8).
func (l *logout) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reading, err := l.read(r)
	if err != nil {
		l.refused(r.Context(), err)
		l.no(w, err)
		return
	}
	if err := l.apply(r.Context(), reading); err != nil {
		l.no(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (l *logout) read(r *http.Request) (*revocation.Reading, error) {
	body, no := read(r, "application/x-www-form-urlencoded")
	if no != nil {
		return nil, no
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["logout_token"]) != 1 {
		return nil, &revocation.Refusal{Code: revocation.InvalidRequest, Text: "the form holds no logout_token, or more than one"}
	}
	claims, err := l.verify(r.Context(), form.Get("logout_token"))
	if err != nil {
		return nil, err
	}
	return l.signals.Logout(claims, time.Now())
}

// no is 400 whatever went wrong (§2.8): an invalid request and a logout that failed look alike.
func (l *logout) no(w http.ResponseWriter, err error) {
	said := struct {
		Error string `json:"error"`
		Text  string `json:"error_description"`
	}{"invalid_request", "the logout could not be done now"}
	if refusal, is := errors.AsType[*revocation.Refusal](err); is {
		said.Text = refusal.Error()
	}
	w.Header()["Content-Type"] = typeJSON
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(said)
}
