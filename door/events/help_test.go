package events

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// fleet is a Publisher that writes down what it is told, in order. It can fail after taking effect here, as a bus does
// that is cut off.
type fleet struct {
	mu   sync.Mutex
	said []string
	at   []time.Time // of proofs
	down bool
	full bool
}

func (f *fleet) note(text string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, text)
	switch {
	case f.full:
		return fmt.Errorf("wrapped: %w", revocation.ErrFull)
	case f.down:
		return errors.New("the bus is down")
	}
	return nil
}

func (f *fleet) Publish(_ context.Context, events ...revocation.Event) error {
	var all []string
	for _, e := range events {
		if err := e.Validate(); err != nil {
			return err
		}
		if e.Heard.IsZero() {
			return errors.New("nobody heard it")
		}
		who := strings.Join([]string{e.Selector.Subject, e.Selector.Client, e.Selector.Session, e.Selector.Tenant, e.JTI}, ",")
		if e.Token != (revocation.TokenID{}) {
			who = "token " + string(e.Token[:1])
		}
		if e.Operator {
			who += " operator"
		}
		all = append(all, e.Issuer+" "+e.Way+" "+e.Effect.String()+" "+who)
	}
	return f.note(strings.Join(all, " + "))
}

func (f *fleet) Prove(_ context.Context, issuer string, through time.Time) error {
	f.mu.Lock()
	f.at = append(f.at, through)
	f.mu.Unlock()
	return f.note("proof " + issuer)
}

func (f *fleet) Lapse(_ context.Context, issuer, why string) error {
	return f.note("gap " + issuer + " " + why)
}

// told is everything since the last time.
func (f *fleet) told() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.said, "\n")
	f.said = nil
	return s
}

func (f *fleet) set(down, full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down, f.full = down, full
}

func one(secret string) Secrets { return func() ([]string, error) { return []string{secret}, nil } }

const (
	secret = "canary-secret-5b1d77"
	issuer = "https://as.example"
)

func signals() *revocation.Signals {
	return &revocation.Signals{Issuer: "main", Names: []string{issuer}, Sender: issuer, Audience: []string{"rs"}, Skew: 2 * time.Second, Declared: []string{"tenant"}}
}

// opened is what a test's envelopes are: claims in the clear, where jose would verify a signature. "forged" is one whose
// signature is wrong, "keys" one whose key cannot be had.
func opened(_ context.Context, envelope string) (watchword.Claims, error) {
	switch envelope {
	case "forged":
		return watchword.Claims{}, &revocation.Refusal{Code: revocation.AuthenticationFailed, Text: "the signature is wrong"}
	case "keys":
		return watchword.Claims{}, errors.New("no keys now")
	}
	c, err := watchword.ParseClaims([]byte(envelope))
	if err != nil {
		return c, &revocation.Refusal{Code: revocation.InvalidRequest, Text: "no JSON"}
	}
	return c, nil
}

// set is a SET of our transmitter.
func set(jti, kind, subject, more string) string {
	return fmt.Sprintf(`{"iss":%q,"aud":"rs","iat":%d,"jti":%q,"sub_id":%s,"events":{"https://schemas.openid.net/secevent/%s":{%s}}}`,
		issuer, time.Now().Unix(), jti, subject, kind, more)
}

const (
	ann     = `{"format":"iss_sub","iss":"https://as.example","sub":"ann"}`
	revoked = "caep/event-type/session-revoked"
	verify  = "ssf/event-type/verification"
)

func open(t testing.TB, c Config) *Door {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// send posts body and returns the answer.
func send(t testing.TB, h http.Handler, path, contentType, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if v := w.Header().Get("Cache-Control"); v != "no-store" {
		t.Errorf("%s: Cache-Control %q", path, v)
	}
	if text := w.Body.String(); strings.Contains(text, "canary") {
		t.Errorf("%s says a secret: %s", path, text)
	}
	return w
}

func check(t testing.TB, what string, w *httptest.ResponseRecorder, status int, f *fleet, told string) {
	t.Helper()
	if w.Code != status {
		t.Errorf("%s: %d %s, want %d", what, w.Code, w.Body, status)
	}
	if got := f.told(); got != told {
		t.Errorf("%s: the fleet was told %q, want %q", what, got, told)
	}
}

const formType = "application/x-www-form-urlencoded"
