package interop

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// farAway is a max_staleness that no test lives to see: what is refused sooner was refused by an event.
const farAway = "10m"

// watched makes a client whose tokens rs may introspect, with more attributes.
func (k *keycloak) watched(t *testing.T, client string, attributes map[string]string) {
	t.Helper()
	k.admin(t, http.MethodPost, "/ww/clients", map[string]any{
		"clientId": client, "secret": client + "-secret", "publicClient": false, "standardFlowEnabled": false,
		"directAccessGrantsEnabled": true, "attributes": attributes,
		"protocolMappers": []any{map[string]any{"name": "aud-rs", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
			"config": map[string]string{"included.client.audience": "rs", "access.token.claim": "true", "introspection.token.claim": "true"}}},
	}, http.StatusCreated)
}

// user is the path of ann in the admin API.
func (k *keycloak) user(t *testing.T) string {
	t.Helper()
	var users []struct{ ID string }
	if err := json.Unmarshal(k.admin(t, http.MethodGet, "/ww/users?username=ann&exact=true", nil, http.StatusOK), &users); err != nil || len(users) != 1 {
		t.Fatalf("ann is %v: %v", users, err)
	}
	return "/ww/users/" + users[0].ID
}

// ends waits until both doors refuse a token, and says how long after since that was.
func (f *front) ends(t *testing.T, what, token string, since time.Time) {
	t.Helper()
	await(t, what, patience, func() error {
		status, _, body := f.asks(t, token)
		if status != http.StatusOK || strings.TrimSpace(string(body)) != inactive {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	t.Logf("%s: refused %v after it was answered", what, max(0, time.Since(since)).Round(time.Millisecond))
	f.dead(t, what, token)
}

// asked is how many questions the issuer was asked so far.
func (f *front) asked(t *testing.T) (n int) {
	t.Helper()
	for _, line := range strings.Split(f.metrics(t), "\n") {
		if strings.HasPrefix(line, "watchword_issuer_requests_total{") {
			_, value, _ := strings.Cut(line, "} ")
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(line)
			}
			n += int(v)
		}
	}
	return n
}

func (f *front) metrics(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+f.admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	status, _, body := roundTrip(t, req)
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d", status)
	}
	return string(body)
}

// Keycloak tells us of every session that ends, within the user's own logout. It says nothing of /revoke and of
// disabled users: those are seen by asking.
// Covers: SIG-22 T28
func keycloakLogouts(t *testing.T, k *keycloak) {
	address := freePort(t)
	k.watched(t, "watched", map[string]string{"backchannel.logout.url": "http://" + address + "/logout/main", "backchannel.logout.session.required": "true"})
	f := hall{bound: farAway, issuer: []string{"issuer: " + k.issuer(), secretAuth(t, "client_secret_basic", "rs", "rs-secret")}, callers: ordersCalls,
		address: address, events: []string{"back_channel_logout: [{issuer: main, path: /logout/main, audience: watched}]"}}.open(t)
	login := func(t *testing.T) tokenAnswer {
		t.Helper()
		ann := k.login(t, "watched")
		f.lives(t, "a new token", ann.Access)
		return ann
	}

	t.Run("one session of two", func(t *testing.T) {
		one, two := login(t), login(t)
		k.logout(t, "watched", one.Refresh)
		f.ends(t, "the session that was logged out", one.Access, time.Now())
		before := f.asked(t)
		f.lives(t, "the session that was not", two.Access)
		if after := f.asked(t); after != before {
			t.Errorf("Keycloak was asked %d times about the session that goes on", after-before)
		}
	})
	t.Run("an admin logs the user out", func(t *testing.T) {
		one, two := login(t), login(t)
		k.admin(t, http.MethodPost, k.user(t)+"/logout", nil, http.StatusNoContent)
		answered := time.Now()
		f.ends(t, "the first session", one.Access, answered)
		f.ends(t, "the second session", two.Access, answered)
		f.lives(t, "a session of afterwards", login(t).Access)
	})
	t.Run("an admin ends one session", func(t *testing.T) {
		one, two := login(t), login(t)
		k.admin(t, http.MethodDelete, "/ww/sessions/"+sid(t, one.Access), nil, http.StatusNoContent)
		f.ends(t, "the session that was ended", one.Access, time.Now())
		f.lives(t, "the session that was not", two.Access)
	})
}

// A disabled user is announced by nobody: only the bound ends the token.
// Covers: T28
func keycloakDisables(t *testing.T, k *keycloak) {
	const bound = 3 * time.Second
	address := freePort(t)
	k.watched(t, "silent", map[string]string{"backchannel.logout.url": "http://" + address + "/logout/main", "backchannel.logout.session.required": "true"})
	f := hall{bound: bound.String(), issuer: []string{"issuer: " + k.issuer(), secretAuth(t, "client_secret_basic", "rs", "rs-secret")}, callers: ordersCalls,
		address: address, events: []string{"back_channel_logout: [{issuer: main, path: /logout/main, audience: silent}]"}}.open(t)
	token := k.login(t, "silent").Access
	f.lives(t, "a new token", token)
	k.enable(t, map[string]any{"enabled": false})
	answered := time.Now()
	defer k.enable(t, map[string]any{"enabled": true})
	f.dies(t, "the account's end", token, answered.Add(bound))
	t.Logf("a disabled user: refused by both doors %v after it was answered; max_staleness is %v", time.Since(answered).Round(time.Millisecond), bound)
}

// sid is the session that an access token names.
func sid(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("no JWT")
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Sid string }
	if err := json.Unmarshal(body, &all); err != nil || all.Sid == "" {
		t.Fatalf("no sid: %v", err)
	}
	return all.Sid
}

// Keycloak's security events (experimental there: --features=ssf), pushed to us on a stream that we set up ourselves.
// Covers: SIG-09 SIG-13 SIG-15 T28
func keycloakEvents(t *testing.T, k *keycloak) {
	address := freePort(t)
	endpoint := "http://" + address + "/ssf/main"
	k.receives(t, "rs", endpoint)
	k.watched(t, "spoken-of", nil)
	f := hall{bound: farAway, issuer: []string{"issuer: " + k.issuer(), secretAuth(t, "client_secret_basic", "rs", "rs-secret")}, callers: ordersCalls,
		address: address, env: []string{"SSF_BEARER=ssf-bearer-of-the-test"}, events: []string{fmt.Sprintf(
			"ssf: [{name: keycloak, issuer: main, transmitter: %q, path: /ssf/main, audience: %q, bearer: {env: SSF_BEARER}, %s, token_endpoint: %q, scope: ssf.read ssf.manage, endpoint: %q, verify_every: 2s}]",
			k.issuer(), "https://watchword.example", secretAuth(t, "client_secret_basic", "rs", "rs-secret"), k.endpoint()+"/token", endpoint)}}.open(t)
	login := func(t *testing.T) tokenAnswer {
		t.Helper()
		ann := k.login(t, "spoken-of")
		f.lives(t, "a new token", ann.Access)
		return ann
	}

	t.Run("verification", func(t *testing.T) { // of a stream that we made: nothing else is heard yet
		await(t, "a verification event", patience, f.heard("none", "ignored", 2))
		if err := f.heard("none", "refused", 1)(); err == nil {
			t.Errorf("an event is refused:\n%s", f.tail(2000))
		}
	})
	t.Run("a session of two", func(t *testing.T) {
		one, two := login(t), login(t)
		k.logout(t, "spoken-of", one.Refresh)
		f.ends(t, "the session that was logged out", one.Access, time.Now())
		f.lives(t, "the session that was not", two.Access)
	})
	t.Run("every session of a user", func(t *testing.T) { // session.id is the literal ALL
		one, two := login(t), login(t)
		k.admin(t, http.MethodPost, k.user(t)+"/logout", nil, http.StatusNoContent)
		answered := time.Now()
		f.ends(t, "the first session", one.Access, answered)
		f.ends(t, "the second session", two.Access, answered)
		f.lives(t, "a session of afterwards", login(t).Access)
	})
	t.Run("a new password", func(t *testing.T) { // leaves tokens active: we ask, and Keycloak decides
		ann := login(t)
		before := f.asked(t)
		k.admin(t, http.MethodPut, k.user(t)+"/reset-password", map[string]any{"type": "password", "value": "ann-password", "temporary": false}, http.StatusNoContent)
		await(t, "credential-change", patience, f.heard("revalidate", "applied", 1))
		f.lives(t, "a token of before", ann.Access)
		if f.asked(t) == before {
			t.Error("Keycloak was not asked again")
		}
	})
	t.Run("a revocation is announced by nobody", func(t *testing.T) { // so the stream cannot be a covering one
		revoked, later := login(t), login(t)
		k.revoke(t, "spoken-of", revoked.Access)
		k.logout(t, "spoken-of", later.Refresh)
		f.ends(t, "what was logged out after it", later.Access, time.Now())
		f.lives(t, "what was revoked", revoked.Access)
	})
}

// heard is a check for await: at least so many signals came that have this effect and outcome.
func (f *front) heard(effect, outcome string, atLeast int) func() error {
	return func() error {
		resp, err := http.Get("http://" + f.admin + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		for _, line := range strings.Split(string(body), "\n") {
			labels, value, _ := strings.Cut(line, "} ")
			if strings.HasPrefix(labels, "watchword_revocation_events_total{") && strings.Contains(labels, `effect="`+effect+`"`) && strings.Contains(labels, `outcome="`+outcome+`"`) {
				if n, err := strconv.ParseFloat(value, 64); err == nil && int(n) >= atLeast {
					return nil
				}
			}
		}
		return fmt.Errorf("fewer than %d signals are %s, %s", atLeast, effect, outcome)
	}
}

// receives lets a client have a stream of security events that is pushed to endpoint.
func (k *keycloak) receives(t *testing.T, client, endpoint string) {
	t.Helper()
	k.admin(t, http.MethodPut, "/ww", map[string]any{"attributes": map[string]string{"ssf.transmitterEnabled": "true"}}, http.StatusNoContent)
	var clients []map[string]any
	if err := json.Unmarshal(k.admin(t, http.MethodGet, "/ww/clients?clientId="+client, nil, http.StatusOK), &clients); err != nil || len(clients) != 1 {
		t.Fatalf("%s is %v: %v", client, clients, err)
	}
	id := clients[0]["id"].(string)
	const caep, risc = "https://schemas.openid.net/secevent/caep/event-type/", "https://schemas.openid.net/secevent/risc/event-type/"
	clients[0]["serviceAccountsEnabled"] = true
	clients[0]["attributes"] = map[string]string{"ssf.enabled": "true", "ssf.streamAudience": "https://watchword.example", "ssf.minVerificationInterval": "2", "ssf.validPushUrls": endpoint, "ssf.defaultSubjects": "ALL",
		"ssf.supportedEvents": strings.Join([]string{caep + "session-revoked", caep + "credential-change", risc + "account-disabled", risc + "account-purged"}, ",")}
	k.admin(t, http.MethodPut, "/ww/clients/"+id, clients[0], http.StatusNoContent)
	var scopes []struct{ ID, Name string }
	if err := json.Unmarshal(k.admin(t, http.MethodGet, "/ww/client-scopes", nil, http.StatusOK), &scopes); err != nil {
		t.Fatal(err)
	}
	given := 0
	for _, s := range scopes {
		if s.Name == "ssf.read" || s.Name == "ssf.manage" {
			k.admin(t, http.MethodPut, "/ww/clients/"+id+"/optional-client-scopes/"+s.ID, nil, http.StatusNoContent)
			given++
		}
	}
	if given != 2 {
		t.Fatalf("Keycloak has no scopes ssf.read and ssf.manage: %v", scopes)
	}
}
