package events

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door"
	"github.com/watchword-dev/watchword/revocation"
)

const (
	maxRelayed     = 4 << 10
	upstreamWithin = 10 * time.Second
	maxOwed        = 1 << 10
	maxStrange     = 20 // a second
)

// Revoke passes revocations (RFC 7009) on to the authorization server, with the client's own credential, and applies
// them here before the client hears that they are done.
type Revoke struct {
	Path     string
	Signals  *revocation.Signals
	Client   *http.Client
	Endpoint func() string // the server's revocation endpoint; empty: not known yet

	// Ask introspects a token that peer presents, with the caller's own credential where one is given. It learns whose the
	// token is, before nobody can tell any more.
	Ask     func(ctx context.Context, peer string, token watchword.Token, as *watchword.Credential) (*watchword.Answer, error)
	TokenID func(issuer string, token watchword.Token) revocation.TokenID
}

type revoke struct {
	way
	config Revoke

	mu      sync.Mutex
	owed    map[revocation.TokenID][]revocation.Event // what the server did and the fleet was not told; at most maxOwed
	second  int64                                     // in which strange were counted
	strange int
}

func (d *Door) revoke(c Revoke) (*revoke, error) {
	if c.Signals == nil || c.Client == nil || c.Endpoint == nil || c.Ask == nil || c.TokenID == nil {
		return nil, errors.New("Signals, Client, Endpoint, Ask and TokenID are required")
	}
	return &revoke{way: d.way("revoke", c.Signals), config: c, owed: map[revocation.TokenID][]revocation.Event{}}, nil
}

// revocationRequest is a request as we understood it, and as it goes on: both of us read the same.
type revocationRequest struct {
	form          url.Values
	authorization string
	peer          string
	token         watchword.Token
	hint          string
	clients       []string // by which names the caller may go: those that the server looks at; nil: none that we can read
}

// ServeHTTP revokes one token (RFC 7009 §2.1).
func (v *revoke) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, no := v.read(r)
	if no != nil {
		v.refused(r.Context(), no)
		refuse(w, http.StatusBadRequest, no.Text)
		return
	}
	at := v.config.Endpoint()
	if at == "" {
		later(w)
		return
	}
	whose, told := v.ask(r.Context(), q)
	status, header, body, err := v.forward(r.Context(), at, q)
	switch {
	case err != nil:
		v.refused(r.Context(), err)
		later(w)
		return
	case status != http.StatusOK:
		relay(w, status, header, body)
		return
	}
	// The server has done it, and the client does not hear so before the fleet has.
	id := v.config.TokenID(v.signals.Issuer, q.token)
	switch events := v.events(q, id, whose, told); {
	case len(events) == 0:
		v.count("none", "ignored")
	default:
		err := v.publish(r.Context(), events...)
		v.owe(id, events, err)
		if err != nil {
			later(w)
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}

// owe remembers what could not be told, for when the client comes again: then nobody can say any more whose the token
// was. What there is no room for is told as of a stranger.
func (v *revoke) owe(id revocation.TokenID, events []revocation.Event, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		delete(v.owed, id)
	} else if len(v.owed) < maxOwed {
		v.owed[id] = events
	}
}

// another reports whether one more question about a token that is over may be caused in this second.
func (v *revoke) another(second int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.second != second {
		v.second, v.strange = second, 0
	}
	v.strange++
	return v.strange <= maxStrange
}

func (v *revoke) read(r *http.Request) (*revocationRequest, *revocation.Refusal) {
	bad := func(text string) (*revocationRequest, *revocation.Refusal) {
		return nil, &revocation.Refusal{Code: revocation.InvalidRequest, Text: text}
	}
	body, no := read(r, "application/x-www-form-urlencoded")
	if no != nil {
		return nil, no
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return bad("the form is broken")
	}
	for name, values := range form {
		if len(values) != 1 { // RFC 6749 §3.2: two readers could each choose another one
			return bad("a member of the form is given twice")
		}
		if values[0] == "" {
			delete(form, name) // RFC 6749 §3.2: as if it were not there
		}
	}
	header := r.Header["Authorization"]
	q := &revocationRequest{form: form, peer: door.Peers(nil).Client(r.RemoteAddr, nil), token: watchword.Token(form.Get("token")), hint: form.Get("token_type_hint")}
	switch {
	case q.token == "":
		return bad("token is missing")
	case r.URL.RawQuery != "":
		return bad("a query, where a token would end up in logs")
	case len(header) > 1:
		return bad("two Authorization headers")
	case len(header) == 1 && (form.Has("client_secret") || form.Has("client_assertion")):
		return bad("two ways to authenticate")
	}
	id := form.Get("client_id")
	switch {
	case len(header) == 1:
		q.authorization = header[0]
		q.clients = basicNames(header[0])
	case form.Has("client_assertion"):
		q.clients = assertionNames(form.Get("client_assertion"))
	case id != "":
		q.clients = []string{id}
	}
	if id != "" && len(q.clients) > 0 && !slices.Contains(q.clients, id) {
		return bad("two clients are named")
	}
	return q, nil
}

// assertionNames is whom an assertion is about (RFC 7523 §3), whose signature the server looks at. A client_id beside it
// proves nothing.
func assertionNames(assertion string) []string {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	claims, err := watchword.ParseClaims(b)
	if err != nil {
		return nil
	}
	if sub, ok := claims.Text("sub"); ok && sub != "" {
		return []string{sub}
	}
	return nil
}

// basicNames are the names that HTTP Basic may mean: as it is written, and form-decoded (RFC 6749 §2.3.1).
func basicNames(header string) []string {
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.Trim(text, " "))
	if err != nil {
		return nil
	}
	name, _, ok := strings.Cut(string(b), ":")
	if !ok || name == "" {
		return nil
	}
	names := []string{name}
	if decoded, err := url.QueryUnescape(name); err == nil && decoded != name {
		names = append(names, decoded)
	}
	return names
}

// ask learns whose the token is: with our own credential, and where that tells nothing with the client's own, since
// some servers tell a client about its refresh tokens only. Not told: nobody could say. A nil answer that was told is
// of a token that is not active.
func (v *revoke) ask(ctx context.Context, q *revocationRequest) (whose *watchword.Answer, told bool) {
	a, err := v.config.Ask(ctx, q.peer, q.token, nil)
	if err == nil && a.Active() {
		return a, true
	}
	told = err == nil
	if q.form.Has("client_assertion") || q.authorization == "" && !q.form.Has("client_secret") {
		return nil, told // an assertion is good for one use, and who only names itself may not ask
	}
	as := &watchword.Credential{Authorization: q.authorization, Hint: q.hint}
	for _, name := range []string{"client_id", "client_secret"} {
		if q.form.Has(name) {
			as.Parameters = append(as.Parameters, [2]string{name, q.form.Get(name)})
		}
	}
	if a, err := v.config.Ask(ctx, q.peer, q.token, as); err == nil && a.Active() {
		return a, true
	}
	return nil, told
}

// forward sends the request on and returns what matters of the answer.
func (v *revoke) forward(ctx context.Context, at string, q *revocationRequest) (int, http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), upstreamWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(q.form.Encode()))
	if err != nil {
		return 0, nil, nil, errors.New("the revocation endpoint is no URL")
	}
	r.Header["Content-Type"] = []string{"application/x-www-form-urlencoded"}
	r.Header["Accept"] = typeJSON
	if q.authorization != "" {
		r.Header["Authorization"] = []string{q.authorization}
	}
	answer, err := v.config.Client.Do(r)
	if err != nil {
		return 0, nil, nil, errors.New("the authorization server's revocation endpoint could not be reached")
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxRelayed+1))
	if err != nil || len(body) > maxRelayed {
		body = nil
	}
	return answer.StatusCode, answer.Header, body, nil
}

// relay hands the server's refusal back. What is not one of RFC 7009's, RFC 6749's or 503 means that nothing is known.
func relay(w http.ResponseWriter, status int, header http.Header, body []byte) {
	switch status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable:
	default:
		later(w)
		return
	}
	h := w.Header()
	for _, name := range []string{"Www-Authenticate", "Retry-After", "Content-Type"} {
		if v := header[name]; len(v) > 0 {
			h[name] = v
		}
	}
	if status == http.StatusServiceUnavailable && len(header["Retry-After"]) == 0 {
		h["Retry-After"] = soon
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// events is what is known now. It is final only where the token was that client's own: a server may answer 200 to
// anybody, and do nothing for a stranger (RFC 7009 §2.2). Otherwise the next answer decides: also about what was over
// before, as another node may have revoked it and been unable to tell; but whoever sprays strings fills no ledger.
func (v *revoke) events(q *revocationRequest, id revocation.TokenID, whose *watchword.Answer, told bool) []revocation.Event {
	one := revocation.Event{Issuer: v.signals.Issuer, Way: "revoke", Token: id, Effect: revocation.Revalidate}
	if whose == nil {
		v.mu.Lock()
		owed := slices.Clone(v.owed[id])
		v.mu.Unlock()
		switch {
		case owed != nil:
			return owed
		case told && !v.another(time.Now().Unix()):
			return nil
		}
		return []revocation.Event{one}
	}
	one.Who = whose.ClientID()
	if left, known := whose.Remaining(time.Now()); known {
		one.Expires = time.Now().Add(left)
	}
	if slices.Contains(q.clients, whose.ClientID()) {
		one.Effect = revocation.Deny
	}
	if !whose.Refresh() && q.hint != "refresh_token" {
		return []revocation.Event{one}
	}
	// RFC 7009 §2.1: the access tokens of the same grant should die with it, and only the server knows which.
	kin := revocation.Event{Issuer: v.signals.Issuer, Way: "revoke", Effect: revocation.Revalidate,
		Selector: revocation.Selector{Subject: whose.Subject(), Client: whose.ClientID()}}
	if kin.Selector.Empty() {
		return []revocation.Event{one}
	}
	return []revocation.Event{one, kin}
}

// refuse is an error of RFC 6749 §5.2.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header()["Content-Type"] = typeJSON
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"error":"invalid_request","error_description":"`+text+`"}`)
}
