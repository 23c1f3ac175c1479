package jose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
)

const asID = "https://as.example"

// token signs claims of RFC 9068, changed by pairs of name and value; a nil value takes the claim away.
func token(name, alg string, header map[string]any, pairs ...any) watchword.Token {
	now := time.Now().Unix()
	c := map[string]any{"iss": asID, "sub": "ann", "aud": "api", "client_id": "app", "jti": "1", "iat": now, "exp": now + 3600}
	for i := 0; i+1 < len(pairs); i += 2 {
		if c[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
			delete(c, pairs[i].(string))
		}
	}
	h := map[string]any{"typ": "at+jwt", "kid": name}
	maps.Copy(h, header)
	return watchword.Token(signed(name, alg, h, string(must(json.Marshal(c)))))
}

// asked is a server that calls every token active, or fails with err; it counts.
type asked struct {
	n   atomic.Int64
	err error
	no  bool
}

func (s *asked) Introspect(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
	s.n.Add(1)
	if s.err != nil {
		return nil, s.err
	}
	return watchword.ParseAnswer(fmt.Appendf(nil, `{"active":%v,"sub":"from the server"}`, !s.no), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
}

func newSource(t testing.TB, next watchword.Source, edit ...func(*SourceConfig)) *Source {
	t.Helper()
	p := &published{body: jwks(jwk("rsa", "rsa"), jwk("p256", "p256"), jwk("ed25519", "ed25519"))}
	c := SourceConfig{Name: "main", ID: asID, Keys: newKeys(t, p, 0), Next: next, Skew: time.Second}
	if err := c.Keys.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, e := range edit {
		e(&c)
	}
	return must(NewSource(c))
}

func query(t watchword.Token, f watchword.Freshness) watchword.Query {
	return watchword.Query{Token: t, Issuer: "main", At: time.Now(), Freshness: f}
}

var (
	half  = watchword.Freshness{MaxStaleness: 30 * time.Second}
	until = watchword.Freshness{MaxStaleness: watchword.UntilExpiry}
)

func inactive(a *watchword.Answer, err error) bool { return err == nil && !a.Active() }

func TestJWT01TypesThatAreVouchedFor(t *testing.T) {
	t.Parallel()
	alone := newSource(t, nil)
	for typ, want := range map[any]bool{"at+jwt": true, "application/at+jwt": true, "AT+JWT": true, "JWT": false, "": false, "jwt": false,
		"secevent+jwt": false, "logout+jwt": false, "token-introspection+jwt": false, "dpop+jwt": false, "id+jwt": false, "text/at+jwt": false, 7: false} {
		a, err := alone.Introspect(t.Context(), query(token("p256", "ES256", map[string]any{"typ": typ}), half))
		if err != nil || a.Active() != want || a.Vouched() != want {
			t.Errorf("typ %v: active %v, %v", typ, a.Active(), err)
		}
	}
}

// Covers: JWT-02 JWT-03 JWT-06 JWT-07 JWT-08
func TestJWT07WhatIsNotVouchedFor(t *testing.T) {
	t.Parallel()
	now := time.Now().Unix()
	refused := map[string]watchword.Token{
		"opaque": "ory_at_7", "alg PS256, not configured": token("rsa", "PS256", nil), "alg RS512, not configured": token("rsa", "RS512", nil),
		"unknown kid": token("p256", "ES256", map[string]any{"kid": "../../keys"}), "another key's kid": token("p256", "ES256", map[string]any{"kid": "rsa"}),
		"crit":       token("p256", "ES256", map[string]any{"crit": []string{"exp"}}),
		"iss prefix": token("p256", "ES256", nil, "iss", asID+".evil.example"), "iss suffix": token("p256", "ES256", nil, "iss", asID+"/"),
		"iss case": token("p256", "ES256", nil, "iss", "https://AS.example"), "iss list": token("p256", "ES256", nil, "iss", []string{asID}),
		"another issuer": token("p256", "ES256", nil, "iss", "https://other.example"),
		"id_token":       token("p256", "ES256", map[string]any{"typ": "JWT"}, "nonce", "n", "aud", "app"),
		"aud empty":      token("p256", "ES256", nil, "aud", ""), "aud no elements": token("p256", "ES256", nil, "aud", []string{}), "aud a number": token("p256", "ES256", nil, "aud", 7),
		"sub a number": token("p256", "ES256", nil, "sub", 7), "sub empty": token("p256", "ES256", nil, "sub", ""), "exp a string": token("p256", "ES256", nil, "exp", fmt.Sprint(now+60)),
		"exp in milliseconds": token("p256", "ES256", nil, "exp", now*1000),
	}
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} {
		refused["without "+name] = token("p256", "ES256", nil, name, nil)
	}
	good := token("p256", "ES256", nil)
	refused["signature of another"] = good[:len(good)-86] + token("p256", "ES256", nil, "jti", "2")[len(good)-86:]
	alone := newSource(t, nil)
	for what, tok := range refused {
		if a, err := alone.Introspect(t.Context(), query(tok, until)); !inactive(a, err) {
			t.Errorf("%s, with nobody to ask: %v", what, err)
		}
		server := new(asked)
		a, err := newSource(t, server).Introspect(t.Context(), query(tok, until))
		if err != nil || a.Vouched() || server.n.Load() != 1 {
			t.Errorf("%s: %v, asked %d times", what, err, server.n.Load())
		}
	}
	for what, tok := range map[string]watchword.Token{"RS256": token("rsa", "RS256", nil), "ES256": good, "EdDSA": token("ed25519", "EdDSA", nil), "aud list": token("p256", "ES256", nil, "aud", []string{"a", "b"})} {
		server := new(asked)
		a, err := newSource(t, server).Introspect(t.Context(), query(tok, half))
		if err != nil || !a.Vouched() || a.Subject() != "ann" || a.ClientID() != "app" || a.Issuer() != "main" || server.n.Load() != 0 {
			t.Errorf("%s: %v, asked %d times", what, err, server.n.Load())
		}
	}
}

// What a signature is worth is the formula's to say; what is not worth enough is asked of the server.
//
// Covers: JWT-10
func TestJWT10OnlyFreshSignaturesAnswer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	old := token("p256", "ES256", nil, "iat", now.Unix()-300)
	recheck := query(token("p256", "ES256", nil), half)
	recheck.AskedSince = recheck.At
	covered := query(old, half)
	covered.Coverage = watchword.Coverage{Since: now.Add(-time.Hour), Through: now}
	for what, x := range map[string]struct {
		q     watchword.Query
		local bool
	}{
		"just signed": {query(token("p256", "ES256", nil), half), true}, "max_staleness 0": {query(token("p256", "ES256", nil), watchword.Freshness{}), false},
		"old": {query(old, half), false}, "old, until expiry": {query(old, until), true}, "old, covered": {covered, true},
		"a recheck was drawn": {recheck, false}, "expired": {query(token("p256", "ES256", nil, "exp", now.Unix()-1), watchword.Freshness{}), true},
	} {
		server := &asked{no: true}
		a, err := newSource(t, server).Introspect(t.Context(), x.q)
		if err != nil || a.Vouched() != x.local || server.n.Load() != map[bool]int64{true: 0, false: 1}[x.local] {
			t.Errorf("%s: vouched %v, asked %d times, %v", what, a.Vouched(), server.n.Load(), err)
		}
		if !x.local && a.Active() {
			t.Errorf("%s: the server said inactive", what)
		}
	}
	// the leeway of exp belongs to the server's clock: within it nothing is over
	server := new(asked)
	s := newSource(t, server, func(c *SourceConfig) { c.Leeway = time.Minute })
	if a, err := s.Introspect(t.Context(), query(token("p256", "ES256", nil, "exp", now.Unix()-1), watchword.Freshness{})); err != nil || a.Vouched() {
		t.Error("over within its leeway", err)
	}
}

// Covers: JWT-10
func TestJWT10InactiveAnswersAboutSignedTokensAreTold(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for what, x := range map[string]struct {
		q    watchword.Query
		no   bool
		told int
	}{
		"signed": {query(token("p256", "ES256", nil), half), true, 1}, "signed, too old": {query(token("p256", "ES256", nil, "iat", now.Unix()-300), half), true, 1},
		"over":   {query(token("p256", "ES256", nil, "exp", now.Unix()-1), half), true, 0},
		"forged": {query(token("p256", "ES256", map[string]any{"kid": "rsa"}), half), true, 0}, "opaque": {query("opaque", half), true, 0},
		"active": {query(token("p256", "ES256", nil), half), false, 0},
	} {
		told := 0
		s := newSource(t, &asked{no: x.no}, func(c *SourceConfig) {
			c.Mode = IntrospectFirst
			c.Inactive = func(q watchword.Query, a *watchword.Answer) {
				if told++; q.Token != x.q.Token || a.Active() {
					t.Errorf("%s: told of something else", what)
				}
			}
		})
		if _, err := s.Introspect(t.Context(), x.q); err != nil || told != x.told {
			t.Errorf("%s: told %d times, %v", what, told, err)
		}
	}
}

// Covers: INT-22
func TestINT22EveryFirstSightReachesTheServer(t *testing.T) {
	t.Parallel()
	first := func(c *SourceConfig) { c.Mode = IntrospectFirst }
	server := new(asked)
	s := newSource(t, server, first)
	for i := range 3 {
		if a, err := s.Introspect(t.Context(), query(token("p256", "ES256", nil, "jti", fmt.Sprint(i)), until)); err != nil || a.Vouched() {
			t.Error("answered without the server", err)
		}
	}
	if server.n.Load() != 3 {
		t.Errorf("asked %d times", server.n.Load())
	}
	fresh, old := token("p256", "ES256", nil), token("p256", "ES256", nil, "iat", time.Now().Unix()-40)
	degraded := watchword.Freshness{MaxStaleness: 30 * time.Second, StaleIfError: time.Minute}
	for what, x := range map[string]struct {
		err     error
		q       watchword.Query
		vouched bool
	}{
		"down":                     {&watchword.Error{Failure: watchword.Unavailable}, query(fresh, half), true},
		"does not introspect JWTs": {&watchword.Error{Failure: watchword.ConfigError}, query(fresh, half), true},
		"down, too old":            {&watchword.Error{Failure: watchword.Unavailable}, query(old, half), false},
		"down, stale_if_error":     {&watchword.Error{Failure: watchword.Unavailable}, query(old, degraded), true},
		"down, forged":             {&watchword.Error{Failure: watchword.Unavailable}, query(token("p256", "ES256", map[string]any{"kid": "rsa"}), half), false},
		"this peer asked too much": {&watchword.Error{Failure: watchword.Throttled}, query(fresh, half), false},
		"the caller left":          {&watchword.Error{Failure: watchword.Canceled}, query(fresh, half), false},
		"inactive, in a storm":     {&watchword.Error{Failure: watchword.Unavailable, Doubted: true}, query(fresh, half), false},
	} {
		for mode, edit := range map[string]func(*SourceConfig){"introspect_first": first, "local_first": func(*SourceConfig) {}} {
			if mode == "local_first" && x.q.Token == fresh {
				continue // the server is not asked
			}
			a, err := newSource(t, &asked{err: x.err}, edit).Introspect(t.Context(), x.q)
			if (a != nil && a.Vouched()) != x.vouched || !x.vouched && !errors.Is(err, x.err) {
				t.Errorf("%s, %s: %v, %v", mode, what, a, err)
			}
		}
	}
}

func TestCallersOwnCredentialIsNeverAnsweredHere(t *testing.T) {
	t.Parallel()
	server := new(asked)
	q := query(token("p256", "ES256", nil), until)
	q.Credential = new(watchword.Credential)
	if a, err := newSource(t, server).Introspect(t.Context(), q); err != nil || a.Vouched() || server.n.Load() != 1 {
		t.Error(err, server.n.Load())
	}
}

func TestNobodyToAskAndNoKeysIsUnavailable(t *testing.T) {
	t.Parallel()
	s := must(NewSource(SourceConfig{Name: "main", ID: asID, Keys: newKeys(t, &published{err: errors.New("down")}, 0)}))
	_, err := s.Introspect(t.Context(), query(token("p256", "ES256", nil), until))
	e, is := errors.AsType[*watchword.Error](err)
	if !is || e.Failure != watchword.Unavailable || e.RetryAfter <= 0 || e.Issuer != "main" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s = must(NewSource(SourceConfig{Name: "main", ID: asID, Keys: must(NewKeys(KeysConfig{Fetch: func(ctx context.Context) ([]byte, time.Time, error) {
		return nil, time.Time{}, errors.New("down")
	}}))}))
	if _, err := s.Introspect(ctx, query(token("p256", "ES256", nil), until)); err == nil {
		t.Error("an answer to nobody")
	}
}

// Keys that are slow to come delay nobody who can be asked about otherwise.
func TestNobodyWaitsForKeysWhileTheServerCanBeAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &published{body: jwks(jwk("p256", "p256")), slow: 5 * time.Second}
		server := new(asked)
		s := must(NewSource(SourceConfig{Name: "main", ID: asID, Keys: newKeys(t, p, 0), Next: server}))
		began := time.Now()
		if a, err := s.Introspect(t.Context(), query(token("p256", "ES256", nil), half)); err != nil || a.Vouched() || time.Since(began) > 0 {
			t.Error(err, time.Since(began))
		}
		time.Sleep(6 * time.Second)
		if a, err := s.Introspect(t.Context(), query(token("p256", "ES256", nil), half)); err != nil || !a.Vouched() {
			t.Error("the keys were not fetched for the next one:", err)
		}
	})
}

func TestSourceConfigMistakes(t *testing.T) {
	t.Parallel()
	good := SourceConfig{Name: "main", ID: asID, Keys: newKeys(t, new(published), 0)}
	must(NewSource(good))
	for what, edit := range map[string]func(*SourceConfig){
		"name": func(c *SourceConfig) { c.Name = "" }, "id": func(c *SourceConfig) { c.ID = "" }, "keys": func(c *SourceConfig) { c.Keys = nil },
		"none": func(c *SourceConfig) { c.Algorithms = []string{"none"} }, "HS256": func(c *SourceConfig) { c.Algorithms = []string{"RS256", "HS256"} },
		"no algorithms": func(c *SourceConfig) { c.Algorithms = []string{} }, "nobody to ask": func(c *SourceConfig) { c.Mode = IntrospectFirst },
		"mode": func(c *SourceConfig) { c.Mode = 7 }, "skew": func(c *SourceConfig) { c.Skew = -1 },
	} {
		c := good
		if edit(&c); must2(NewSource(c)) == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func must2[V any](_ V, err error) error { return err }

func FuzzAccessToken(f *testing.F) {
	s := newSource(f, nil)
	good := string(token("ed25519", "EdDSA", nil))
	f.Add(good)
	f.Add("ory_at_7")
	f.Add("a.b.c.d.e")
	f.Fuzz(func(t *testing.T, tok string) {
		a, err := s.Introspect(context.Background(), query(watchword.Token(tok), until))
		if err != nil || a.Active() && tok != good {
			t.Fatalf("%q: %v", tok, err)
		}
	})
}
