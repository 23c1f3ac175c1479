package events

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// Global receives requests for global token revocation (draft-parecki-oauth-global-token-revocation).
type Global struct {
	Path    string
	Signals *revocation.Signals
	Secrets Secrets // the caller sends one as a bearer token
	Tenant  string  // only subjects of this tenant, where selector_claims declare one; empty: all
}

type global struct {
	way
	callers *bearers
	tenant  string
}

func (d *Door) global(c Global) (*global, error) {
	if c.Signals == nil {
		return nil, errors.New("Signals is required")
	}
	if c.Tenant != "" && !slices.Contains(c.Signals.Declared, "tenant") {
		return nil, errors.New("it names a tenant, and the issuer's selector_claims declare none")
	}
	callers, err := admit(c.Secrets)
	if err != nil {
		return nil, err
	}
	return &global{d.way("global_token_revocation", c.Signals), callers, c.Tenant}, nil
}

// ServeHTTP revokes all tokens that one subject has now. The caller speaks for the user's home, and the authorization
// server may not have heard of it, so the event is as final as an operator's.
func (g *global) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.callers.lets(r) {
		g.refused(r.Context(), errors.New("the caller is not known"))
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body, no := read(r, "application/json")
	var err error
	if no != nil {
		err = no
	}
	var reading *revocation.Reading
	if err == nil {
		var claims watchword.Claims
		if claims, err = watchword.ParseClaims(body); err == nil {
			reading, err = g.signals.GlobalRevocation(claims)
		}
	}
	status := http.StatusNoContent
	switch {
	case err != nil:
		status = http.StatusBadRequest
	case reading.Ignored == "foreign_subject":
		status, err = http.StatusNotFound, errors.New("no such subject is here")
	case reading.Ignored == "unknown_format":
		status, err = http.StatusBadRequest, errors.New("the format of sub_id is not known here")
	case reading.Ignored != "":
		status, err = http.StatusUnprocessableEntity, errors.New("no token tells such a subject: selector_claims could declare the claim that does")
	case !slices.ContainsFunc(reading.Events, func(e revocation.Event) bool { return e.Effect == revocation.Deny }):
		// Addresses never deny, nor what can be told in part only: 204 would say that tokens are dead which are asked about.
		status, err = http.StatusUnprocessableEntity, errors.New("it names nobody for certain, so no token would end: name the user by iss_sub or opaque")
	case !g.within(reading):
		status, err = http.StatusForbidden, errors.New("it is a subject of another tenant")
	}
	if err != nil {
		g.refused(r.Context(), err)
		w.Header()["Content-Type"] = typeJSON
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_request", "error_description": err.Error()})
		return
	}
	for i := range reading.Events {
		reading.Events[i].Operator = reading.Events[i].Effect == revocation.Deny
		reading.Events[i].At = time.Now()
	}
	switch err := g.publish(r.Context(), reading.Events...); {
	case errors.Is(err, revocation.ErrFull):
		w.WriteHeader(http.StatusInsufficientStorage)
	case err != nil:
		later(w)
	default:
		w.WriteHeader(status)
	}
}

// within holds every event to the caller's tenant, and reports whether it was not about another one.
func (g *global) within(r *revocation.Reading) bool {
	if g.tenant == "" {
		return true
	}
	for i := range r.Events {
		s := &r.Events[i].Selector
		if s.Tenant != "" && s.Tenant != g.tenant || r.Events[i].JTI != "" {
			return false
		}
		s.Tenant = g.tenant
	}
	return true
}
