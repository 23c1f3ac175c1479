package admin

import (
	"context"
	"encoding/hex"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// Memory is what this instance remembers of tokens. It holds no token: one is found by its keyed digest, or by what its
// answer says.
type Memory struct {
	All    func() iter.Seq2[watchword.Key, *watchword.Answer]
	Keys   func(watchword.Token) map[string]watchword.Key // of a token, by issuer
	Forget func(...watchword.Key) int
	Claims map[string]map[string]string // issuer by our name → declared selector → the claim that tells it
}

// remembered is one answer as an operator sees it. ID names it while this process lives, and means nothing elsewhere.
type remembered struct {
	ID      string    `json:"id"`
	Issuer  string    `json:"issuer"`
	Active  bool      `json:"active"`
	Client  string    `json:"client,omitempty"`
	Scope   string    `json:"scope,omitempty"`
	Asked   time.Time `json:"asked"`
	EndsIn  *int64    `json:"ends_in_seconds,omitempty"`
	Expired bool      `json:"expired,omitempty"`
}

// find is POST /v1/tokens/find, which names tokens as POST /v1/revocations does: what this instance remembers of them.
func (d *Door) find(w http.ResponseWriter, r *http.Request, by Operator) {
	e, token, ok := d.wanted(w, r, &by, "issuer", "token", "jti", "sub", "client", "session", "tenant", "whole_issuer")
	if !ok {
		return
	}
	now, more, out := time.Now(), false, []remembered{}
	for key, a := range d.matching(e, token) {
		if more = len(out) == maxListed; more {
			break
		}
		one := remembered{ID: hex.EncodeToString(key[:8]), Issuer: a.Issuer(), Active: a.Active(), Client: a.ClientID(), Scope: a.Scope(), Asked: a.Asked()}
		if left, known := a.Remaining(now); known {
			seconds := int64(left / time.Second)
			one.EndsIn, one.Expired = &seconds, left == 0
		}
		out = append(out, one)
	}
	d.audit(r.Context(), "an operator looked for tokens", &by, e)
	write(w, http.StatusOK, map[string]any{"remembered": out, "more": more})
}

// purge is POST /v1/tokens/purge: what anybody remembers of these tokens counts no more. That is a revalidate event,
// durable and fleet-wide, so that no answer on its way and no shared store can bring it back; what this instance
// remembers is dropped as well.
func (d *Door) purge(w http.ResponseWriter, r *http.Request, by Operator) {
	e, token, ok := d.wanted(w, r, &by, slices.DeleteFunc(slices.Clone(members), func(name string) bool { return name == "before" || name == "effect" })...)
	if !ok {
		return
	}
	if err := d.evaluable(e); err != nil {
		say(w, http.StatusBadRequest, err.Error())
		return
	}
	e.Effect, e.Operator = revocation.Revalidate, false // nothing is denied: the authorization server decides
	var keys []watchword.Key
	for key := range d.matching(e, token) {
		keys = append(keys, key)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), publishTimeout)
	defer cancel()
	if !d.publish(ctx, w, &by, e, "an operator purged tokens") {
		return
	}
	write(w, http.StatusOK, map[string]any{"id": e.ID, "applied": true, "forgotten": d.config.Memory.Forget(keys...)})
}

// wanted reads which tokens are meant, and refuses what by may not look at.
func (d *Door) wanted(w http.ResponseWriter, r *http.Request, by *Operator, allowed ...string) (*revocation.Event, watchword.Token, bool) {
	e, token, err := d.event(r, allowed)
	if err != nil {
		say(w, http.StatusBadRequest, err.Error())
		return nil, "", false
	}
	e.Who = by.Name
	if !d.may(by, e.Issuer) || !by.within(e) {
		d.audit(r.Context(), "an operator may not look at that", by, e)
		say(w, http.StatusForbidden, "it is beyond what operator "+strconv.Quote(by.Name)+" may look at: issuers "+scope(by.Issuers)+", tenants "+scope(by.Tenants))
		return nil, "", false
	}
	return e, token, true
}

// matching yields what is remembered of the tokens that e selects.
func (d *Door) matching(e *revocation.Event, token watchword.Token) iter.Seq2[watchword.Key, *watchword.Answer] {
	m := d.config.Memory
	var key watchword.Key
	if token != "" {
		key = m.Keys(token)[e.Issuer]
	}
	wanted := names(e)
	delete(wanted, "whole_issuer")
	delete(wanted, "one")
	return func(yield func(watchword.Key, *watchword.Answer) bool) {
		for k, a := range m.All() {
			if a.Issuer() == e.Issuer && (token == "" || k == key) && m.says(e.Issuer, a, wanted) && !yield(k, a) {
				return
			}
		}
	}
}

// says reports whether a holds every wanted value.
func (m *Memory) says(issuer string, a *watchword.Answer, wanted map[string]string) bool {
	for name, value := range wanted {
		has := ""
		switch name {
		case "sub":
			has = a.Subject()
		case "client":
			has = a.ClientID()
		case "session":
			has = a.Session()
		case "jti":
			has, _ = a.Claims().Text("jti")
		default: // as the ledger reads it: a number or boolean as it is written
			claim := m.Claims[issuer][name]
			if text, is := a.Claims().Text(claim); is {
				has = text
			} else if raw, _ := a.Claims().Get(claim); raw != "null" {
				has = raw
			}
		}
		if has != value {
			return false
		}
	}
	return true
}
