package jose

import (
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-dev/watchword"
)

// published is a key set that a test changes, and a count of how often it was fetched.
type published struct {
	mu      sync.Mutex
	body    []byte
	err     error
	old     time.Duration // its Age
	slow    time.Duration
	fetches int
}

func (p *published) fetch(ctx context.Context) ([]byte, time.Time, error) {
	asked := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetches++
	if p.slow > 0 {
		p.mu.Unlock()
		time.Sleep(p.slow)
		p.mu.Lock()
	}
	return p.body, asked.Add(-p.old), p.err
}

func (p *published) set(body []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.body, p.err = body, err
}

func (p *published) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

// jwk is the public key of that name, as kid.
func jwk(name, kid string, more ...any) map[string]any {
	b := must(json.Marshal(jose.JSONWebKey{Key: keys()[name].Public(), KeyID: kid}))
	m := map[string]any{}
	_ = json.Unmarshal(b, &m)
	for i := 0; i+1 < len(more); i += 2 {
		m[more[i].(string)] = more[i+1]
	}
	return m
}

func jwks(keys ...map[string]any) []byte {
	return must(json.Marshal(map[string]any{"keys": keys}))
}

// signed makes a compact JWS with the key of that name.
func signed(name, alg string, header map[string]any, payload string) string {
	h := map[string]any{"alg": alg}
	for k, v := range header {
		h[k] = v
	}
	o := new(jose.SignerOptions)
	for k, v := range h {
		if k != "alg" {
			o = o.WithHeader(jose.HeaderKey(k), v)
		}
	}
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: keys()[name]}, o))
	return must(must(s.Sign([]byte(payload))).CompactSerialize())
}

func newKeys(t testing.TB, p *published, maxAge time.Duration) *Keys {
	t.Helper()
	return must(NewKeys(KeysConfig{Fetch: p.fetch, MaxAge: maxAge}))
}

func wantFault(t *testing.T, err error, want Fault) *Error {
	t.Helper()
	e, is := errors.AsType[*Error](err)
	if !is || e.Fault != want || !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
	return e
}

const aSET = `{"iss":"https://as.example","iat":1800000000,"jti":"1","events":{}}`

func set(name, alg, kid string) string {
	return signed(name, alg, map[string]any{"typ": "secevent+jwt", "kid": kid}, aSET)
}

func TestKeysVerifyEveryAlgorithm(t *testing.T) {
	t.Parallel()
	var all []map[string]any
	for _, name := range []string{"rsa", "p256", "p384", "p521", "ed25519"} {
		all = append(all, jwk(name, name))
	}
	k := newKeys(t, &published{body: jwks(all...)}, 0)
	for alg, name := range keyFor {
		c, err := k.VerifySET(t.Context(), set(name, alg, name))
		if err != nil || c.JSON() != aSET {
			t.Errorf("%s: %v, %s", alg, err, c.JSON())
		}
		for other := range keys() {
			if other != name {
				if _, err := k.VerifySET(t.Context(), signed(name, alg, map[string]any{"typ": "secevent+jwt", "kid": other}, aSET)); err == nil {
					t.Errorf("%s with the key %s", alg, other)
				}
			}
		}
	}
}

// Covers: JWT-03 SIG-07
func TestJWT03OneFetchForAKeyThatIsNotThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &published{body: jwks(jwk("p256", "a"))}
		k := newKeys(t, p, 10*time.Minute)
		if _, err := k.VerifySET(t.Context(), set("p256", "ES256", "a")); err != nil {
			t.Fatal(err)
		}
		for i := range 1000 { // strangers, while the set is young
			_, err := k.VerifySET(t.Context(), set("p256", "ES256", fmt.Sprint("../x' OR 1=1", i)))
			wantFault(t, err, UnknownKey)
		}
		if p.count() != 1 {
			t.Errorf("fetched %d times", p.count())
		}
		time.Sleep(refetchAfter)
		for range 50 { // one kid, then another: one fetch in all
			for _, kid := range []string{"gone", "../etc", strings.Repeat("k", 300)} {
				_, err := k.VerifySET(t.Context(), set("p256", "ES256", kid))
				wantFault(t, err, UnknownKey)
			}
		}
		if p.count() != 2 {
			t.Errorf("fetched %d times", p.count())
		}
		time.Sleep(refetchAfter) // "gone" was absent a moment ago: nothing new to look for
		_, err := k.VerifySET(t.Context(), set("p256", "ES256", "gone"))
		if wantFault(t, err, UnknownKey); p.count() != 2 {
			t.Errorf("fetched %d times", p.count())
		}
		p.set(jwks(jwk("p256", "a"), jwk("p256", "new")), nil)
		if _, err := k.VerifySET(t.Context(), set("p256", "ES256", "new")); err != nil || p.count() != 3 {
			t.Errorf("a key that was just published: %v, fetched %d times", err, p.count())
		}
	})
}

// Covers: JWT-11
func TestJWT11AWithdrawnKeyEndsWithinTheBound(t *testing.T) {
	t.Parallel()
	for what, next := range map[string]struct {
		body []byte
		err  error
	}{
		"rotated": {body: jwks(jwk("ed25519", "b"))}, "emptied": {body: jwks()}, "unreachable": {err: errors.New("down")},
		"nonsense": {body: []byte("[]")}, "of no use": {body: jwks(jwk("p256", "a", "use", "enc"))},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &published{body: jwks(jwk("p256", "a"))}
			k := newKeys(t, p, 10*time.Minute)
			ctx, stop := context.WithCancel(t.Context())
			go k.Run(ctx)
			synctest.Wait()
			p.set(next.body, next.err)
			began := time.Now()
			message := set("p256", "ES256", "a")
			for ; time.Since(began) < 20*time.Minute; time.Sleep(5 * time.Second) {
				_, err := k.VerifySET(t.Context(), message)
				if age := time.Since(began); err == nil && age > 10*time.Minute {
					t.Fatalf("%s: still verifies after %v", what, age)
				} else if err != nil && next.err != nil && age < 10*time.Minute {
					t.Fatalf("%s: the last good set was given up after %v: %v", what, age, err)
				}
			}
			if what != "rotated" {
				if n := p.count(); n > 2+20*60/10 { // at most once in refetchAfter
					t.Errorf("%s: fetched %d times in 20 minutes", what, n)
				}
				_, err := k.VerifySET(t.Context(), message)
				if e := wantFault(t, err, KeysUnavailable); e.RetryAfter > refetchAfter {
					t.Errorf("%s: Retry-After %v", what, e.RetryAfter)
				}
			}
			p.set(jwks(jwk("p256", "a")), nil)
			time.Sleep(6 * time.Minute)
			if _, err := k.VerifySET(t.Context(), message); err != nil {
				t.Errorf("%s: after the keys came back: %v", what, err)
			}
			stop()
		})
	}
}

// A server that says when to come back is not asked for its keys before, whatever strangers send, for at most a minute.
//
// Covers: INT-20
func TestINT20RetryAfterHoldsFetches(t *testing.T) {
	t.Parallel()
	for said, kept := range map[time.Duration]time.Duration{30 * time.Second: 30 * time.Second, time.Hour: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			p := &published{err: &watchword.Error{Failure: watchword.Unavailable, RetryAfter: said}}
			k := newKeys(t, p, 10*time.Minute)
			for range kept / time.Second {
				_, err := k.VerifySET(t.Context(), set("p256", "ES256", fmt.Sprint(time.Now())))
				wantFault(t, err, KeysUnavailable)
				time.Sleep(time.Second)
			}
			if p.count() != 1 {
				t.Errorf("fetched %d times within the %v that it asked for", p.count(), said)
			}
			p.set(jwks(jwk("p256", "a")), nil)
			if _, err := k.VerifySET(t.Context(), set("p256", "ES256", "a")); err != nil {
				t.Errorf("when it is over: %v", err)
			}
		})
	}
}

// A set outlives a change of the configuration, and grows no younger by it.
//
// Covers: JWT-11
func TestKeySetOutlivesAReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &published{body: jwks(jwk("p256", "a"))}
		old := newKeys(t, p, 10*time.Minute)
		message := set("p256", "ES256", "a")
		if _, err := old.VerifySET(t.Context(), message); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Minute)
		p.set(nil, errors.New("down"))
		k := newKeys(t, p, 5*time.Minute)
		k.Inherit(old)
		if _, err := k.VerifySET(t.Context(), message); err != nil {
			t.Errorf("while the set is young: %v", err)
		}
		time.Sleep(time.Minute + time.Second)
		_, err := k.VerifySET(t.Context(), message)
		wantFault(t, err, KeysUnavailable)
	})
}

// Somebody in between who keeps the set makes it as old as it is; a fetch cannot make it younger.
func TestKeySetOutOfACacheIsAsOldAsItSays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &published{body: jwks(jwk("p256", "a")), old: 9 * time.Minute}
		k := newKeys(t, p, 10*time.Minute)
		if _, err := k.VerifySET(t.Context(), set("p256", "ES256", "a")); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			_, err := k.VerifySET(t.Context(), set("p256", "ES256", fmt.Sprint(time.Now())))
			wantFault(t, err, UnknownKey)
		}
		if p.count() != 1 {
			t.Errorf("fetched %d times for unknown keys", p.count())
		}
		p.old = time.Hour
		time.Sleep(61 * time.Second)
		_, err := k.VerifySET(t.Context(), set("p256", "ES256", "a"))
		wantFault(t, err, KeysUnavailable)
	})
}

// Covers: T4 JWT-06
func TestT4KeysBelongToOneIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// two issuers, one kid, concurrent first use
		a, b := &published{body: jwks(jwk("p256", "1")), slow: time.Second}, &published{body: jwks(jwk("ed25519", "1")), slow: time.Second}
		ka, kb := newKeys(t, a, 0), newKeys(t, b, 0)
		ofA, ofB := set("p256", "ES256", "1"), set("ed25519", "EdDSA", "1")
		var wait sync.WaitGroup
		for range 20 {
			for _, x := range []struct {
				k    *Keys
				m    string
				good bool
			}{{ka, ofA, true}, {kb, ofB, true}, {ka, ofB, false}, {kb, ofA, false}} {
				wait.Go(func() {
					if _, err := x.k.VerifySET(t.Context(), x.m); (err == nil) != x.good {
						t.Error(x.good, err)
					}
				})
			}
		}
		wait.Wait()
		if a.count() != 1 || b.count() != 1 {
			t.Errorf("fetched %d and %d times", a.count(), b.count())
		}
	})
}

func TestWaiterLeavesAloneAndAFaultIsContained(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &published{body: jwks(jwk("p256", "a")), slow: 2 * time.Second}
		k := newKeys(t, p, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := k.VerifySET(ctx, set("p256", "ES256", "a"))
		wantFault(t, err, KeysUnavailable)
		if _, err := k.VerifySET(t.Context(), set("p256", "ES256", "a")); err != nil || p.count() != 1 {
			t.Errorf("%v, fetched %d times", err, p.count())
		}
		var outcomes []string
		k = must(NewKeys(KeysConfig{Fetch: func(context.Context) ([]byte, time.Time, error) { panic("SECRET") },
			Observe: func(outcome string, n int) { outcomes = append(outcomes, fmt.Sprint(outcome, n)) }}))
		err = k.Refresh(t.Context())
		if wantFault(t, err, KeysUnavailable); strings.Contains(err.Error(), "SECRET") {
			t.Error(err)
		}
		synctest.Wait()
		if fmt.Sprint(outcomes) != "[unavailable0]" {
			t.Error(outcomes)
		}
	})
}

func TestParseSetTakesWhatCanVerify(t *testing.T) {
	t.Parallel()
	long := rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8192), E: 65537}
	short := rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}
	one := rsa.PublicKey{N: keys()["rsa"].Public().(*rsa.PublicKey).N, E: 1}
	bare := func(k crypto.PublicKey) map[string]any {
		m := map[string]any{}
		_ = json.Unmarshal(must(json.Marshal(jose.JSONWebKey{Key: k})), &m)
		return m
	}
	var secret map[string]any
	_ = json.Unmarshal(must(json.Marshal(jose.JSONWebKey{Key: keys()["p256"]})), &secret)
	good := map[string]map[string]any{"plain": jwk("rsa", "a"), "for signatures": jwk("rsa", "a", "use", "sig", "alg", "PS256"),
		"key_ops": jwk("p256", "a", "key_ops", []string{"verify"}), "a certificate that is none": jwk("ed25519", "", "x5c", []string{"AAAA"}, "x5u", "http://[")}
	for what, key := range good {
		if found, err := parseSet(jwks(key)); err != nil || len(found) != 1 {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, key := range map[string]map[string]any{"for encryption": jwk("rsa", "a", "use", "enc"), "key_ops": jwk("rsa", "a", "key_ops", []string{"encrypt"}),
		"key_ops, nonsense": jwk("rsa", "a", "key_ops", "verify"), "alg of another key": jwk("rsa", "a", "alg", "ES256"), "alg HS256": jwk("rsa", "a", "alg", "HS256"),
		"symmetric": {"kty": "oct", "k": "AAAA"}, "private": secret, "short": bare(&short), "long": bare(&long), "exponent 1": bare(&one), "unknown": {"kty": "XYZ"}, "nothing": {},
		"off the curve": jwk("p256", "a", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")} {
		if found, err := parseSet(jwks(key)); err == nil {
			t.Errorf("%s: %d keys", what, len(found))
		}
		if found, err := parseSet(jwks(key, jwk("rsa", "b"))); err != nil || len(found) != 1 || found[0].kid != "b" {
			t.Errorf("%s spoils its neighbours: %v", what, err)
		}
	}
	many := make([]map[string]any, maxSetKeys+1)
	for i := range many {
		many[i] = jwk("ed25519", fmt.Sprint(i))
	}
	for what, body := range map[string][]byte{"many": jwks(many...), "large": append(jwks(jwk("rsa", "a")), make([]byte, maxSetBytes)...), "no list": []byte(`{"keys":{}}`),
		"null": []byte(`{"keys":null}`), "other case": []byte(`{"Keys":[]}`), "twice": []byte(`{"keys":[],"keys":[]}`), "nothing": nil, "one key": must(json.Marshal(jwk("rsa", "a")))} {
		if _, err := parseSet(body); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func TestMessageWithoutKeyIDNeedsASingleKey(t *testing.T) {
	t.Parallel()
	m := signed("p256", "ES256", map[string]any{"typ": "secevent+jwt"}, aSET)
	k := newKeys(t, &published{body: jwks(jwk("p256", "a"), jwk("rsa", "b"))}, 0)
	if _, err := k.VerifySET(t.Context(), m); err != nil {
		t.Error(err)
	}
	k = newKeys(t, &published{body: jwks(jwk("p256", "a"), jwk("p256", "b"))}, 0)
	_, err := k.VerifySET(t.Context(), m)
	wantFault(t, err, UnknownKey)
}

func TestKeysConfigMistakes(t *testing.T) {
	t.Parallel()
	f := new(published).fetch
	for _, c := range []KeysConfig{{}, {Fetch: f, MaxAge: -1}, {Fetch: f, MaxAge: time.Second}} {
		if _, err := NewKeys(c); err == nil {
			t.Errorf("%+v is accepted", c.MaxAge)
		}
	}
	if _, known := must(NewKeys(KeysConfig{Fetch: f})).Age(time.Now()); known {
		t.Error("keys before the first fetch")
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add(jwks(jwk("rsa", "a"), jwk("p256", "b"), jwk("ed25519", "c")))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"},{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := parseSet(body)
		if (len(found) == 0) == (err == nil) || len(found) > maxSetKeys {
			t.Fatal(len(found), err)
		}
		for _, k := range found {
			fits := 0
			for _, alg := range algorithms {
				if k.fits(alg) {
					fits++
				}
			}
			if fits == 0 {
				t.Error("a key of no use")
			}
		}
	})
}
