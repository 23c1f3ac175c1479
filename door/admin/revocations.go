package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

const (
	maxBody        = 64 << 10
	publishTimeout = 10 * time.Second
	defaultListed  = 100
	maxListed      = 1000
)

// revoke is POST /v1/revocations: 200 when it is durable where the fleet reads it.
func (d *Door) revoke(w http.ResponseWriter, r *http.Request, by Operator) {
	e, _, err := d.event(r, members)
	if err != nil {
		say(w, http.StatusBadRequest, err.Error())
		return
	}
	e.Who = by.Name
	if !d.may(&by, e.Issuer) || !by.within(e) {
		d.audit(r.Context(), "an operator may not revoke that", &by, e)
		d.config.Heard(e.Issuer, "admin", e.Effect.String(), "refused")
		say(w, http.StatusForbidden, "it is beyond what operator "+strconv.Quote(by.Name)+" may revoke: issuers "+scope(by.Issuers)+", tenants "+scope(by.Tenants))
		return
	}
	if err := d.evaluable(e); err != nil {
		say(w, http.StatusBadRequest, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), publishTimeout)
	defer cancel()
	if d.publish(ctx, w, &by, e, "an operator revoked") {
		write(w, http.StatusOK, map[string]any{"id": e.ID, "applied": true})
	}
}

// publish makes e durable, and says so in the audit log; otherwise it answers why not.
func (d *Door) publish(ctx context.Context, w http.ResponseWriter, by *Operator, e *revocation.Event, said string) bool {
	err := d.config.Publisher.Publish(ctx, *e)
	if err != nil {
		d.config.Heard(e.Issuer, "admin", e.Effect.String(), "failed")
	}
	switch {
	case errors.Is(err, revocation.ErrFull):
		d.audit(ctx, "an operator's revocation is refused: no room", by, e)
		say(w, http.StatusInsufficientStorage, "what operators may hold is full: see the runbook, revocation.max_bytes")
	case err != nil:
		d.audit(ctx, "an operator's revocation is not durable", by, e)
		w.Header().Set("Retry-After", "1")
		say(w, http.StatusServiceUnavailable, "it is in force on this instance, and not durable: send it again")
	default:
		d.audit(ctx, said, by, e)
		return true
	}
	return false
}

func scope(list []string) string {
	if len(list) == 0 {
		return "all"
	}
	return strings.Join(list, " ")
}

// members of a request, besides declared selectors.
var members = []string{"issuer", "token", "jti", "sub", "client", "session", "tenant", "whole_issuer", "before", "effect", "why"}

// object reads the JSON object that a request holds. Errors name no value.
func object(r *http.Request) (c watchword.Claims, err error) {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/json") {
		return c, errors.New("Content-Type is not application/json")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	defer clear(body) // it may hold a token
	switch {
	case err != nil:
		return c, errors.New("the body broke off")
	case len(body) > maxBody:
		return c, fmt.Errorf("the body is longer than %d bytes", maxBody)
	}
	if c, err = watchword.ParseClaims(body); err != nil {
		return c, fmt.Errorf("the body: %w", err)
	}
	return c, nil
}

// event reads a request, of which only the allowed members and declared selectors are known, and the token that it
// names, if any. Errors name members, never values.
func (d *Door) event(r *http.Request, allowed []string) (*revocation.Event, watchword.Token, error) {
	c, err := object(r)
	if err != nil {
		return nil, "", err
	}
	e := &revocation.Event{Operator: true, Way: "admin", Heard: time.Now()}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	e.ID = hex.EncodeToString(random[:])
	if e.Issuer, _ = c.Text("issuer"); e.Issuer == "" {
		return nil, "", errors.New("issuer is missing: write our name for the authorization server, as in the configuration")
	}
	declared, known := d.config.Selectors[e.Issuer]
	if !known {
		return nil, "", errors.New("issuer is none that is configured")
	}
	for name, value := range c.All() {
		if !slices.Contains(allowed, name) && !slices.Contains(declared, name) {
			return nil, "", fmt.Errorf("a member is not known: known are %s", strings.Join(slices.Concat(allowed, declared), ", "))
		}
		if err := d.take(e, c, name, value); err != nil {
			return nil, "", err
		}
	}
	if e.At.IsZero() {
		e.At = e.Heard
	}
	if err := e.Validate(); err != nil {
		return nil, "", err
	}
	token, _ := c.Text("token")
	return e, watchword.Token(token), nil
}

// take reads one member into e.
func (d *Door) take(e *revocation.Event, c watchword.Claims, name, value string) error {
	switch name {
	case "issuer":
		return nil
	case "whole_issuer":
		if value != "true" {
			return errors.New("whole_issuer can only be true: leave it out otherwise")
		}
		e.WholeIssuer = true
		return nil
	case "before":
		n, err := strconv.ParseInt(value, 10, 64)
		switch at := time.Unix(n, 0); {
		case err != nil || n < 0:
			return errors.New("before is no whole number of seconds since 1970")
		case at.After(e.Heard.Add(time.Second)):
			return errors.New("before is in the future: tokens that do not exist yet cannot be revoked; milliseconds?")
		default:
			e.At = at
		}
		return nil
	}
	text, ok := c.Text(name)
	if !ok || text == "" {
		return fmt.Errorf("%s is no string, or empty", name)
	}
	switch name {
	case "token":
		switch {
		case len(text) > watchword.MaxTokenBytes:
			return errors.New("token is longer than any token")
		case strings.ContainsFunc(text, func(r rune) bool { return r < '!' || r > '~' }):
			return errors.New("token holds a space, a line end or another character that no token has: nothing would be meant by it")
		}
		e.Token = d.config.TokenID(e.Issuer, watchword.Token(text))
	case "why":
		e.Why = text
	case "effect":
		switch text {
		case "deny":
		case "revalidate":
			e.Effect = revocation.Revalidate
		default:
			return errors.New("effect is neither deny nor revalidate")
		}
	default:
		e.Select(name, text)
	}
	return nil
}

// evaluable refuses a tenant that no answer tells: it would match every token, and only question it.
func (d *Door) evaluable(e *revocation.Event) error {
	if e.Selector.Tenant != "" && !slices.Contains(d.config.Selectors[e.Issuer], "tenant") {
		return errors.New("tenant: the issuer's selector_claims declare no claim that tells it")
	}
	return nil
}

// listed is an event as an operator sees it. A token is only said to be one.
type listed struct {
	ID       string            `json:"id"`
	Issuer   string            `json:"issuer"`
	Selects  map[string]string `json:"selects"`
	Effect   string            `json:"effect"`
	Operator bool              `json:"operator"`
	Before   *time.Time        `json:"before,omitempty"`
	Heard    time.Time         `json:"heard"`
	Way      string            `json:"way"`
	Who      string            `json:"who,omitempty"`
	Why      string            `json:"why,omitempty"`
}

// names is what e selects, by the names of a request.
func names(e *revocation.Event) map[string]string {
	all := map[string]string{"jti": e.JTI, "sub": e.Selector.Subject, "client": e.Selector.Client, "session": e.Selector.Session, "tenant": e.Selector.Tenant}
	maps.Copy(all, e.Selector.Other)
	maps.DeleteFunc(all, func(_, v string) bool { return v == "" })
	if e.WholeIssuer {
		all["whole_issuer"] = "true"
	}
	if e.Token != (revocation.TokenID{}) {
		all["one"] = "by its digest" // "token" is a word that every log redacts
	}
	return all
}

// list is GET /v1/revocations?issuer=…[&sub=…&client=…&session=…&tenant=…&jti=…&operator=true&limit=100].
func (d *Door) list(w http.ResponseWriter, r *http.Request, by Operator) {
	if d.config.Held == nil {
		say(w, http.StatusNotImplemented, "nothing can be listed here")
		return
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		say(w, http.StatusBadRequest, "the query is broken")
		return
	}
	issuer := q.Get("issuer")
	declared, known := d.config.Selectors[issuer]
	wanted := map[string]string{}
	limit, operators := defaultListed, false
	for name, values := range q {
		switch {
		case len(values) != 1 || values[0] == "":
			err = fmt.Errorf("%s is empty, or given twice", strconv.Quote(name))
		case name == "issuer":
		case name == "limit":
			if limit, err = strconv.Atoi(values[0]); err != nil || limit < 1 || limit > maxListed {
				err = fmt.Errorf("limit is no number from 1 to %d", maxListed)
			}
		case name == "operator":
			if operators = values[0] == "true"; !operators {
				err = errors.New("operator can only be true")
			}
		case slices.Contains([]string{"sub", "client", "session", "tenant", "jti"}, name), slices.Contains(declared, name):
			wanted[name] = values[0]
		case name == "token":
			err = errors.New("a token is never in a URL, where it ends up in logs")
		default:
			err = errors.New("a parameter is not known: issuer, sub, client, session, tenant, jti, declared selectors, operator, limit")
		}
		if err != nil {
			say(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	switch {
	case !known:
		say(w, http.StatusBadRequest, "issuer is missing, or none that is configured")
		return
	case !d.may(&by, issuer):
		say(w, http.StatusForbidden, "it is an issuer that operator "+strconv.Quote(by.Name)+" may not look at")
		return
	}
	held := d.config.Held(issuer, func(e *revocation.Event) bool {
		return by.within(e) && (!operators || e.Operator) && contains(names(e), wanted)
	}, limit+1)
	more := len(held) > limit
	out := []listed{}
	for i := range held[:min(len(held), limit)] {
		e := &held[i]
		one := listed{e.ID, e.Issuer, names(e), e.Effect.String(), e.Operator, nil, e.Heard, e.Way, e.Who, e.Why}
		if !e.At.IsZero() {
			one.Before = &e.At
		}
		out = append(out, one)
	}
	write(w, http.StatusOK, map[string]any{"revocations": out, "more": more})
}

func contains(all, wanted map[string]string) bool {
	for name, value := range wanted {
		if all[name] != value {
			return false
		}
	}
	return true
}
