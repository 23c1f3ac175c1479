package revocation_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

func ledger(t *testing.T, c revocation.Config) *revocation.Ledger {
	t.Helper()
	if c.Issuers == nil {
		c.Issuers = []revocation.Issuer{{Name: "main", Settle: 5 * time.Second, Skew: 2 * time.Second, Selectors: map[string]string{"tenant": "org_id", "job": "pipeline_id"}}}
	}
	l, err := revocation.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func answer(t testing.TB, asked time.Time, members string) *watchword.Answer {
	t.Helper()
	a, err := watchword.ParseAnswer([]byte(`{"active":true`+members+`}`), watchword.Evidence{Issuer: "main", Asked: asked})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func apply(t testing.TB, l *revocation.Ledger, events ...revocation.Event) {
	t.Helper()
	for i := range events {
		events[i].Issuer = "main"
	}
	if err := l.Apply(context.Background(), events...); err != nil {
		t.Fatal(err)
	}
}

// verdict is one word for a Void: revoked, asked (the answer is too old), late (young enough, but no feed extends it
// from before the event), stands.
func verdict(l *revocation.Ledger, token string, a *watchword.Answer) string {
	v := l.Voids(watchword.Query{Issuer: "main", Token: watchword.Token(token)}, a)
	switch {
	case v.Revoked:
		return "revoked"
	case v.Questioned.IsZero():
		return "stands"
	case a == nil || watchword.Age(v.Questioned, a.AsOf()) >= 0:
		return "asked"
	}
	return "late"
}

// The zones of a deny, at T = 100 s, with σ = 3 s: before it an answer is void, around it nobody knows, after it the
// token is a new one; an operator's deny knows no doubt.
//
// Covers: SIG-16
func TestSIG16Zones(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
		time.Sleep(100 * time.Second)
		asked := time.Now()
		time.Sleep(time.Second)
		for _, c := range []struct {
			event    revocation.Event
			verdicts string // iat at 96, 97, 103, 104; none
		}{
			{revocation.Event{At: at(100), Selector: revocation.Selector{Subject: "ann"}}, "revoked asked asked stands asked"},
			{revocation.Event{At: at(100), Selector: revocation.Selector{Session: "s"}}, "revoked asked asked asked asked"},
			{revocation.Event{At: at(100), Selector: revocation.Selector{Subject: "ann"}, Operator: true}, "revoked revoked revoked stands revoked"},
			{revocation.Event{At: at(100), WholeIssuer: true}, "revoked asked asked stands asked"},
			{revocation.Event{Heard: at(98), Selector: revocation.Selector{Subject: "ann"}}, "revoked asked asked stands asked"},
			{revocation.Event{At: at(100), Selector: revocation.Selector{Subject: "ann"}, Effect: revocation.Revalidate}, "asked asked asked asked asked"},
			{revocation.Event{At: at(100), Selector: revocation.Selector{Subject: "bob"}}, "stands stands stands stands stands"},
		} {
			l := ledger(t, revocation.Config{Issuers: []revocation.Issuer{{Name: "main", Skew: 2 * time.Second, Exempt: true}}})
			apply(t, l, c.event)
			got := ""
			for _, iat := range []int{96, 97, 103, 104} {
				got += verdict(l, "t", answer(t, asked, fmt.Sprintf(`,"sub":"ann","sid":"s","iat":%d`, at(iat).Unix()))) + " "
			}
			if got += verdict(l, "t", answer(t, asked, `,"sub":"ann","sid":"s"`)); got != c.verdicts {
				t.Errorf("%+v: %s\nwant %s", c.event, got, c.verdicts)
			}
		}
	})
}

// A selector is an AND. A name that the answer lacks leaves a question where another one is equal; what cannot be
// evaluated matches everything, as a question.
//
// Covers: SIG-15
func TestSIG15PartsOfASelector(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := func(s revocation.Selector, members, want string) {
			t.Helper()
			l := ledger(t, revocation.Config{})
			time.Sleep(time.Second)
			old := answer(t, time.Now(), `,"iat":1`+members)
			time.Sleep(time.Second)
			apply(t, l, revocation.Event{Selector: s})
			if got := verdict(l, "t", old); got != want {
				t.Errorf("%+v on %s: %s, want %s", s, members, got, want)
			}
		}
		annAtAcme := revocation.Selector{Subject: "ann", Tenant: "acme"}
		f(annAtAcme, `,"sub":"ann","org_id":"acme"`, "revoked")
		f(annAtAcme, `,"sub":"ann","org_id":"other"`, "stands")
		f(annAtAcme, `,"sub":"bob","org_id":"acme"`, "stands")
		f(annAtAcme, `,"sub":"ann"`, "asked")
		f(annAtAcme, `,"sub":"bob"`, "stands")
		f(annAtAcme, `,"org_id":"acme"`, "asked")
		f(annAtAcme, `,"client_id":"ann"`, "stands")
		f(annAtAcme, ``, "stands")
		f(annAtAcme, `,"sub":"ann","org_id":["acme"]`, "asked") // no plain value: may be
		f(annAtAcme, `,"sub":"ann","org_id":null`, "asked")
		f(revocation.Selector{Tenant: "acme"}, `,"org_id":{"id":"acme"}`, "asked")
		f(revocation.Selector{Tenant: "42"}, `,"org_id":42`, "revoked")
		f(revocation.Selector{Tenant: "acme"}, `,"org_id":"acme"`, "revoked") // tenant only: the whole tenant
		f(revocation.Selector{Tenant: "acme"}, `,"sub":"ann"`, "stands")
		f(revocation.Selector{Other: map[string]string{"job": "7"}}, `,"pipeline_id":"7"`, "revoked")
		f(revocation.Selector{Other: map[string]string{"job": "7"}}, `,"pipeline_id":"8"`, "stands")
		f(revocation.Selector{Other: map[string]string{"unheard": "7"}}, `,"sub":"ann"`, "asked")
		f(revocation.Selector{Subject: "ann", Other: map[string]string{"unheard": "7"}}, `,"sub":"ann"`, "asked")
		f(revocation.Selector{Subject: "ann", Other: map[string]string{"unheard": "7"}}, `,"sub":"bob"`, "stands")
		f(revocation.Selector{Subject: "ann", Session: "s", Client: "c"}, `,"sub":"ann","client_id":"c"`, "asked")
		f(revocation.Selector{Subject: "ann", Session: "s", Client: "c"}, `,"sub":"ann","client_id":"d"`, "stands")
	})
}

// An event about one token is final, also for a token never seen, however its JWT is encoded, by its jti too.
//
// Covers: SIG-17 CAC-08 JWT-09
func TestSIG17OneToken(t *testing.T) {
	t.Parallel()
	l := ledger(t, revocation.Config{Issuers: []revocation.Issuer{{Name: "main", ID: "https://as"}, {Name: "other"}}})
	b64 := base64.RawURLEncoding.EncodeToString
	jwt := func(header, payload, signature string) string {
		return b64([]byte(header)) + "." + b64([]byte(payload)) + "." + signature
	}
	plain := jwt(`{"alg":"ES256"}`, `{"sub":"ann","iat":10}`, "c2ln")
	apply(t, l, revocation.Event{Token: l.TokenID("main", "opaque")}, revocation.Event{Token: l.TokenID("main", watchword.Token(plain))}, revocation.Event{JTI: "j1"},
		revocation.Event{Token: l.TokenID("main", "asked.about.again"), Effect: revocation.Revalidate})
	f := func(token, members, want string) {
		t.Helper()
		if got := verdict(l, token, answer(t, time.Now().Add(time.Second), members)); got != want {
			t.Errorf("%s %s: %s, want %s", token, members, got, want)
		}
	}
	f("opaque", "", "revoked")
	f("opaque2", "", "stands")
	f("opaque2", `,"jti":"j1"`, "revoked")
	f("opaque2", `,"jti":"j1","iss":"https://as"`, "revoked")
	f("opaque2", `,"jti":"j1","iss":"https://elsewhere"`, "stands")
	f(plain, "", "revoked")
	f(jwt(`{"typ":"at+jwt","alg":"ES256"}`, `{"sub":"ann","iat":10}`, "b3RoZXI"), "", "revoked")
	f(plain+"==", "", "revoked")
	f(jwt(`{}`, `{"sub":"bob","iat":10}`, "c2ln"), "", "stands")
	f(jwt(`{}`, `{"jti":"j1","iss":"https://as"}`, "c2ln"), "", "revoked")
	f(jwt(`{}`, `{"jti":"j1","iss":"https://elsewhere"}`, "c2ln"), "", "stands")
	f("asked.about.again", "", "late")
	for token, want := range map[string]string{"opaque": "revoked", "never-seen": "stands", plain: "revoked"} {
		if got := verdict(l, token, nil); got != want {
			t.Errorf("%s, without an answer: %s, want %s", token, got, want)
		}
	}
	if v := l.Voids(watchword.Query{Issuer: "other", Token: "opaque"}, nil); v.Revoked {
		t.Error("a token of one issuer is revoked at another")
	}
}

// What is no event is refused with its reason, and the rest of what came with it is in force.
//
// Covers: T26 SIG-18
func TestT26Refused(t *testing.T) {
	t.Parallel()
	outcomes := map[revocation.Outcome]int{}
	l := ledger(t, revocation.Config{Observe: func(_ *revocation.Event, o revocation.Outcome) { outcomes[o]++ }})
	ann := revocation.Selector{Subject: "ann"}
	err := l.Apply(t.Context(), revocation.Event{Issuer: "main"}, revocation.Event{Issuer: "nobody", Selector: ann},
		revocation.Event{Issuer: "main", Selector: ann, At: time.Now().Add(4 * time.Second)},
		revocation.Event{Issuer: "main", Selector: ann, At: time.Now().Add(-48 * time.Hour)},
		revocation.Event{Issuer: "main", Selector: ann, ID: "1"})
	if !errors.Is(err, revocation.ErrRefused) {
		t.Error(err)
	}
	if got := verdict(l, "t", answer(t, time.Now(), `,"sub":"ann","iat":1`)); got != "revoked" {
		t.Error(got)
	}
	for range 10_000 {
		if err := l.Apply(t.Context(), revocation.Event{Issuer: "main", Selector: ann, ID: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	if want := fmt.Sprint(map[revocation.Outcome]int{revocation.Refused: 3, revocation.Over: 1, revocation.Applied: 1, revocation.Duplicate: 10_000}); fmt.Sprint(outcomes) != want || l.Stats().Events != 1 {
		t.Errorf("%v, %+v", outcomes, l.Stats())
	}
}

// An inactive answer for a token that was active here ends older evidence of it, in any order.
//
// Covers: T32 CAC-09
func TestT32Doubt(t *testing.T) {
	t.Parallel()
	l := ledger(t, revocation.Config{})
	q := watchword.Query{Issuer: "main", Token: "t", Key: watchword.Key{1}}
	at := func(n int) time.Time { return time.Now().Add(time.Duration(n) * time.Second) }
	inactive := func(asked time.Time) *watchword.Answer {
		a, err := watchword.ParseAnswer([]byte(`{"active":false}`), watchword.Evidence{Issuer: "main", Asked: asked})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	l.Doubt(q, inactive(at(20)))
	l.Doubt(q, inactive(at(10)))
	for after, want := range map[int]bool{5: true, 15: true, 25: false} {
		if v := l.Voids(q, answer(t, at(after), "")); !v.Questioned.IsZero() != want || v.Revoked {
			t.Errorf("asked at %d: %+v", after, v)
		}
	}
	q.Key[0]++
	if v := l.Voids(q, answer(t, at(5), "")); v != (watchword.Void{}) {
		t.Errorf("another token: %+v", v)
	}
}

// Coverage begins at a gap and ends at a proof; a proof of the future proves until now, and none goes back.
//
// Covers: SIG-12 SIG-21
func TestSIG21Coverage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := ledger(t, revocation.Config{})
		start := time.Now()
		is := func(want watchword.Coverage) {
			t.Helper()
			if got := l.Coverage("main"); got.Since != want.Since || got.Through != want.Through || got.Settle != want.Settle {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
		is(watchword.Coverage{})
		l.Gap("main", "begins")
		is(watchword.Coverage{})
		time.Sleep(time.Minute)
		l.Cover("main", time.Now().Add(-time.Second))
		is(watchword.Coverage{Since: start, Through: time.Now().Add(-time.Second), Settle: 5 * time.Second})
		l.Cover("main", time.Now().Add(time.Hour))
		is(watchword.Coverage{Since: start, Through: time.Now(), Settle: 5 * time.Second})
		through := time.Now()
		time.Sleep(time.Minute)
		l.Cover("main", start)
		is(watchword.Coverage{Since: start, Through: through, Settle: 5 * time.Second})
		l.Gap("", "a hole")
		is(watchword.Coverage{Since: time.Now(), Through: through, Settle: 5 * time.Second})
		l.Cover("nobody", start)
		is(watchword.Coverage{Since: time.Now(), Through: through, Settle: 5 * time.Second})
	})
}

// An issuer that was away and comes back may have been spoken of meanwhile: no feed extends what introspection, lagging
// that, still said when it came back.
//
// Covers: SIG-21
func TestSIG21AwayIsAGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := ledger(t, revocation.Config{Issuers: theMain})
		l.Cover("main", time.Now())
		time.Sleep(time.Minute)
		for _, with := range [][]revocation.Issuer{nil, theMain} {
			if err := l.Reconfigure(with...); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		l.Cover("main", time.Now())
		if back := time.Now().Add(-time.Minute); !l.Coverage("main").Since.Equal(back) {
			t.Errorf("since %v, want %v", l.Coverage("main").Since, back)
		}
	})
}
