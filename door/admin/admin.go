// Package admin is what operators may do to a running Watchword: revoke, and see what is revoked.
package admin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// Config of the door. Publisher, TokenID and Operators are required.
type Config struct {
	Operators []Operator
	Selectors map[string][]string // issuer by our name → the selectors that it declares, tenant among them; every issuer is in it
	Publisher revocation.Publisher
	TokenID   func(issuer string, token watchword.Token) revocation.TokenID
	// Held lists what is held against the tokens of an issuer and fits match, newest first, at most most. nil: nothing can
	// be listed.
	Held   func(issuer string, match func(e *revocation.Event) bool, most int) []revocation.Event
	Heard  func(issuer, way, effect, outcome string) // counts what was not applied: outcome is refused or failed; nil: nobody counts
	Audit  *slog.Logger                              // who did what, and why; never holds a token. nil: nobody keeps it
	Memory *Memory                                   // nil: no tokens can be looked for
	More   []Endpoint
}

// Operator may call the door, within some issuers and tenants.
type Operator struct {
	Name    string
	Secrets func() ([]string, error) // sent as a bearer token; one, or two during a rotation. New calls it once
	Issuers []string                 // empty: all
	Tenants []string                 // empty: all; otherwise nothing beyond one of these can be revoked or seen
}

// Endpoint is another thing that operators may do. It is served after the operator is known, and bounds its own body.
type Endpoint struct {
	Path   string
	Method string
	Serve  func(w http.ResponseWriter, r *http.Request, by Operator)
}

// Door is the http.Handler of everything below /v1/. Safe for concurrent use.
type Door struct {
	config    Config
	endpoints []Endpoint
	key       [32]byte
	who       []known
}

type known struct {
	digest   [sha256.Size]byte
	operator *Operator
}

// New makes a Door, or reports every mistake of c at once.
func New(c Config) (*Door, error) {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf("admin: "+format, args...)) }
	if c.Publisher == nil || c.TokenID == nil {
		mistake("Publisher and TokenID are required")
	}
	if len(c.Operators) == 0 {
		mistake("nobody may call: name Operators")
	}
	if c.Heard == nil {
		c.Heard = func(string, string, string, string) {}
	}
	if c.Audit == nil {
		c.Audit = slog.New(slog.DiscardHandler)
	}
	c.Operators = slices.Clone(c.Operators)
	d := &Door{config: c}
	d.endpoints = append([]Endpoint{{"/v1/revocations", http.MethodPost, d.revoke}, {"/v1/revocations", http.MethodGet, d.list}}, c.More...)
	if c.Memory != nil {
		d.endpoints = append(d.endpoints, Endpoint{"/v1/tokens/find", http.MethodPost, d.find}, Endpoint{"/v1/tokens/purge", http.MethodPost, d.purge})
	}
	_, _ = rand.Read(d.key[:]) // never fails (crypto/rand)
	names := map[string]bool{}
	for i := range d.config.Operators {
		o := &d.config.Operators[i]
		if o.Name == "" || names[o.Name] {
			mistake("an operator's name is empty or given twice")
		}
		names[o.Name] = true
		for _, name := range o.Issuers {
			if _, is := c.Selectors[name]; !is {
				mistake("operator %q: %q is the name of no issuer", o.Name, name)
			}
		}
		if o.Secrets == nil {
			mistake("operator %q has no Secrets", o.Name)
			continue
		}
		secrets, err := o.Secrets()
		if err != nil {
			mistake("operator %q: %w", o.Name, err)
			continue
		}
		if len(secrets) == 0 || len(secrets) > 2 {
			mistake("operator %q has %d secrets: give one, or two during a rotation", o.Name, len(secrets))
		}
		for _, s := range secrets {
			digest := d.digest(s)
			if slices.ContainsFunc(d.who, func(k known) bool { return k.digest == digest && k.operator != o }) {
				mistake("operator %q has another operator's secret: who did it could not be told", o.Name)
			}
			d.who = append(d.who, known{digest, o})
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return d, nil
}

func (d *Door) digest(secret string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, d.key[:])
	_, _ = h.Write([]byte(secret)) // a hash never fails
	h.Sum(sum[:0])
	return sum
}

// operator is whose bearer token r carries (RFC 6750 §2.1); nil: nobody's. It takes the same time for everybody.
func (d *Door) operator(r *http.Request) (by *Operator) {
	v := r.Header["Authorization"]
	if len(v) != 1 {
		return nil
	}
	scheme, secret, _ := strings.Cut(v[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	got := d.digest(strings.Trim(secret, " "))
	for _, k := range d.who {
		if subtle.ConstantTimeCompare(got[:], k.digest[:]) == 1 {
			by = k.operator
		}
	}
	return by
}

// ServeHTTP answers one operator.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	by := d.operator(r)
	if by == nil {
		h.Set("WWW-Authenticate", `Bearer realm="watchword"`)
		say(w, http.StatusUnauthorized, "send an operator's secret: Authorization: Bearer …")
		return
	}
	var methods []string
	for _, e := range d.endpoints {
		switch {
		case e.Path == r.URL.Path && e.Method == r.Method:
			e.Serve(w, r, *by)
			return
		case e.Path == r.URL.Path:
			methods = append(methods, e.Method)
		}
	}
	if methods == nil {
		say(w, http.StatusNotFound, "no such thing is here")
		return
	}
	h.Set("Allow", strings.Join(methods, ", "))
	say(w, http.StatusMethodNotAllowed, "use "+strings.Join(methods, " or "))
}

// may reports whether by may act on the issuer.
func (d *Door) may(by *Operator, issuer string) bool {
	_, is := d.config.Selectors[issuer]
	return is && (len(by.Issuers) == 0 || slices.Contains(by.Issuers, issuer))
}

// within reports whether e concerns nobody beyond the tenants of by. One token, or a whole issuer, is in no tenant
// that we could tell.
func (by *Operator) within(e *revocation.Event) bool {
	return len(by.Tenants) == 0 || e.Selector.Tenant != "" && slices.Contains(by.Tenants, e.Selector.Tenant)
}

// say answers with a reason.
func say(w http.ResponseWriter, status int, text string) {
	write(w, status, map[string]string{"error": text})
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// audit writes who did what, and why.
func (d *Door) audit(ctx context.Context, said string, by *Operator, e *revocation.Event) {
	what := []slog.Attr{slog.String("operator", by.Name), slog.String("issuer", e.Issuer), slog.String("id", e.ID), slog.String("effect", e.Effect.String())}
	for name, value := range names(e) {
		what = append(what, slog.String(name, value))
	}
	what = append(what, slog.Time("before", e.At), slog.String("why", e.Why))
	d.config.Audit.LogAttrs(ctx, slog.LevelInfo, said, what...)
}
