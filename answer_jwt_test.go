package watchword

import (
	"fmt"
	"testing"
	"time"
)

func vouch(t *testing.T, claims string, asked time.Time, skew time.Duration) *Answer {
	t.Helper()
	c, err := ParseClaims([]byte(claims))
	check(t, err)
	a, err := NewVouched(c, Evidence{Issuer: "main", Asked: asked}, Signature{Skew: skew, Keys: asked, KeysMaxAge: time.Hour})
	check(t, err)
	return a
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A signature speaks of the instant at which it was made, and a stolen key that signs iat in the future gains nothing: it
// even ends a minute sooner.
func TestSignatureIsAsOldAsItsIat(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, x := range []struct {
		iat  int64
		want time.Duration // how long before now, to the second
	}{{now.Unix(), 2 * time.Second}, {now.Unix() - 60, 62 * time.Second}, {now.Unix() + 3600, 2 * time.Second}, {0, time.Duration(now.Unix()+2) * time.Second}} {
		a := vouch(t, fmt.Sprintf(`{"iat":%d,"exp":%d,"sub":"ann","active":false}`, x.iat, now.Unix()+600), now, 2*time.Second)
		if got := Age(now, a.AsOf()); got < x.want || got > x.want+time.Second {
			t.Errorf("iat %d: %v old, want %v", x.iat, got, x.want)
		}
		life := 600 * time.Second
		if x.iat > now.Unix() {
			life -= mostAhead
		}
		if left, known := a.Remaining(now); !known || left < life-time.Second || left > life {
			t.Errorf("iat %d: lives for %v", x.iat, left)
		}
		if !a.Active() || !a.Vouched() || a.Subject() != "ann" {
			t.Errorf("%+v", a)
		}
		if v, _ := a.Claims().Get("active"); v != "true" {
			t.Errorf("a claim of the token says active is %s", v)
		}
	}
	a := vouch(t, `{"iat":-9999999999999}`, now, time.Hour)
	if Age(now, a.AsOf()) < longest/2 {
		t.Error("an iat before all times made young evidence")
	}
	for _, bad := range []string{`{}`, `{"iat":"1"}`, `{"iat":null}`, `{"iat":253402300800}`, `{"iat":1,"sub":2}`, `{"iat":1,"aud":3}`, `{"iat":1,"exp":"1"}`} {
		c, err := ParseClaims([]byte(bad))
		check(t, err)
		if _, err := NewVouched(c, Evidence{Asked: now}, Signature{}); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// Covers: JWT-11
func TestSignatureKeepsTheBounds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := vouch(t, fmt.Sprintf(`{"iat":%d,"exp":%d}`, now.Unix()-60, now.Unix()+600), now, 0)
	q := Query{At: now, Freshness: Freshness{MaxStaleness: 30 * time.Second}}
	if s := q.Weigh(a); s != Unusable {
		t.Errorf("a minute old under 30 s: %v", s)
	}
	q.Coverage = Coverage{Since: now.Add(-time.Hour), Through: now.Add(-time.Second)}
	if s := q.Weigh(a); s != Fresh {
		t.Errorf("with a covering feed: %v", s)
	}
	q.Freshness.MaxAge, q.Freshness.MaxStaleness = 50*time.Second, 50*time.Second
	if s := q.Weigh(a); s != Unusable {
		t.Errorf("beyond max_age: %v", s)
	}
	q = Query{At: now, Freshness: Freshness{MaxStaleness: UntilExpiry}}
	if err := q.Freshness.Validate(); err != nil || q.Weigh(a) != Fresh {
		t.Errorf("until expiry: %v, %v", err, q.Weigh(a))
	}
	if late := (Query{At: now.Add(61 * time.Minute), Freshness: q.Freshness}); late.Weigh(vouch(t, `{"iat":1}`, now, 0)) != Unusable {
		t.Error("verified by keys that may be withdrawn since")
	} else if late.At = now.Add(59 * time.Minute); late.Weigh(vouch(t, `{"iat":1}`, now, 0)) != Fresh {
		t.Error("keys are believed for too short")
	}
	q.AskedSince = now // a recheck, or doubt
	if s := q.Weigh(a); s != Unusable {
		t.Errorf("questioned: %v", s)
	}
	q = Query{At: now.Add(601 * time.Second), Freshness: Freshness{MaxStaleness: UntilExpiry}}
	if s := q.Weigh(a); s != Unusable {
		t.Errorf("expired: %v", s)
	}
}

// Covers: POL-04
func TestPOL04OnlyTheOutermostActorIsAFact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"active":true,"act":{"sub":"svc","iss":"a","act":{"sub":"earlier"}}}`: `{"sub":"svc","iss":"a"}`,
		`{"active":true,"act":{"act":{"sub":"earlier"}}}`:                       `{}`,
		`{"active":true,"act":{}}`:                                              `{}`,
		`{"active":true,"act":{"a\"b":[1,{"act":2}],"act":3}}`:                  `{"a\"b":[1,{"act":2}]}`,
	} {
		a, err := ParseAnswer([]byte(in), Evidence{})
		check(t, err)
		actor, ok := a.Actor()
		if !ok || actor.JSON() != want {
			t.Errorf("%s: %s", in, actor.JSON())
		}
		if _, err := ParseClaims([]byte(actor.JSON())); err != nil {
			t.Error(err)
		}
	}
	a, err := ParseAnswer([]byte(`{"active":true,"may_act":{"sub":"x"}}`), Evidence{})
	check(t, err)
	if _, ok := a.Actor(); ok {
		t.Error("an actor out of nowhere")
	}
}

func TestDecisionNamesASignatureAsItsSource(t *testing.T) {
	t.Parallel()
	a := vouch(t, `{"iat":1}`, time.Now(), 0)
	if d := (&Decision{Answer: a, Age: time.Minute}); d.Source() != "jwt" {
		t.Error(d.Source())
	}
	if d := (&Decision{Answer: a, Degraded: ServedStale}); d.Source() != "stale" {
		t.Error(d.Source())
	}
}
