package introspection_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/door/doortest"
	"github.com/watchword-dev/watchword/door/introspection"
)

// remembers asks once, ever.
func remembers(body string) watchword.SourceFunc {
	var a *watchword.Answer
	return func(ctx context.Context, q watchword.Query) (got *watchword.Answer, err error) {
		if a == nil {
			a, err = says(body)(ctx, q)
		}
		return a, err
	}
}

var anHour = watchword.Policy{Name: "rs", Freshness: watchword.Freshness{MaxStaleness: time.Hour}}

// Covers: PXY-06 T7 T8
func TestExpiresInIsToldAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the bubble begins at 946684800
		both := open(t, introspection.Config{Verifier: judge(t, remembers(`{"active":true,"exp":946684900,"expires_in":40}`), anHour)})
		date := open(t, introspection.Config{Verifier: judge(t, remembers(`{"exp":946684900,"active":true,"sub":"ann"}`), anHour)})
		relative := open(t, introspection.Config{Verifier: judge(t, remembers(`{"expires_in":40.9,"active":true}`), anHour)})
		short := open(t, introspection.Config{Verifier: judge(t, remembers(`{"active":true,"exi":30,"expires_in":3600}`), anHour)})
		none := open(t, introspection.Config{Verifier: judge(t, remembers(`{"active":true}`), anHour)})
		at := func(h http.Handler, want string) {
			t.Helper()
			expect(t, h, post("token=x"), 200, want)
		}
		at(both, `{"active":true,"exp":946684900,"expires_in":40}`)
		at(date, `{"active":true,"exp":946684900,"sub":"ann","expires_in":100}`)
		at(relative, `{"active":true,"expires_in":40}`)
		at(short, `{"active":true,"expires_in":30}`)
		at(none, `{"active":true}`)
		time.Sleep(1)
		at(both, `{"active":true,"exp":946684900,"expires_in":39}`)
		at(date, `{"active":true,"exp":946684900,"sub":"ann","expires_in":99}`)
		time.Sleep(30*time.Second - 2)
		at(short, `{"active":true,"expires_in":0}`)
		time.Sleep(1)
		at(short, dead)
		time.Sleep(10*time.Second - 1)
		at(both, `{"active":true,"exp":946684900,"expires_in":0}`)
		time.Sleep(1)
		at(both, dead)
		at(relative, dead)
		time.Sleep(60*time.Second - 1)
		at(date, `{"active":true,"exp":946684900,"sub":"ann","expires_in":0}`)
		time.Sleep(1)
		at(date, dead)
		at(none, `{"active":true}`)
	})
}

// The leeway that lengthens life elsewhere does not here: the caller adds its own.
func TestCAC01NeverActivePastItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
			return watchword.ParseAnswer([]byte(`{"active":true,"exp":946684801}`), watchword.Evidence{Asked: time.Now(), Leeway: time.Minute})
		})
		h := open(t, introspection.Config{Verifier: judge(t, source)})
		time.Sleep(time.Second - 1)
		expect(t, h, post("token=x"), 200, `{"active":true,"exp":946684801,"expires_in":0}`)
		time.Sleep(1)
		expect(t, h, post("token=x"), 200, dead)
		// and not where it ended between the judgement and the writing, nor where a Verifier was mistaken
		a, err := source(t.Context(), watchword.Query{})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, open(t, introspection.Config{Verifier: &doortest.Verifier{Decision: watchword.Decision{Answer: a}}}), post("token=x"), 200, dead)
		expect(t, open(t, introspection.Config{Verifier: &doortest.Verifier{}}), post("token=x"), 503, notNow)
		if a, err = watchword.ParseAnswer([]byte(dead), watchword.Evidence{}); err != nil {
			t.Fatal(err)
		}
		limited := []introspection.Caller{{Name: "rs", ClientID: "rs", Secrets: one(secret), Claims: []string{"sub"}}}
		expect(t, open(t, introspection.Config{Verifier: &doortest.Verifier{Decision: watchword.Decision{Answer: a}}, Callers: limited}), post("token=x"), 200, dead)
	})
}

// Covers: INT-09 INT-08 INT-13
func TestLossless(t *testing.T) {
	t.Parallel()
	const answer = `{ "exp" : 4102444800.0, "big":9007199254740993,"e":1.7E+9 ,"nested":{"a":[1,{"b":null}]},"text":"\u00e4\"\\\/<","` + "ä" + `":"` + "€" + `","active":true,"cnf":{"jkt":"x"},"aud":["a"],"token_type":"Refresh"}`
	const want = `{"active":true,"exp":4102444800.0,"big":9007199254740993,"e":1.7E+9,"nested":{"a":[1,{"b":null}]},"text":"\u00e4\"\\\/<","` + "ä" + `":"` + "€" + `","cnf":{"jkt":"x"},"aud":["a"],"token_type":"Refresh"`
	w := serve(open(t, introspection.Config{Verifier: judge(t, says(answer))}), post("token=x"))
	rest, ok := strings.CutPrefix(w.Body.String(), want)
	if !ok || !strings.HasPrefix(rest, `,"expires_in":`) || strings.ContainsAny(rest[14:], ".e\"") || !json.Valid(w.Body.Bytes()) {
		t.Errorf("%s", w.Body)
	}
	quirk := func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		return watchword.ParseAnswer([]byte(`{"active":"true","scope":["a","b"]}`), watchword.Evidence{Asked: time.Now(), Quirks: watchword.Quirks{StringBooleans: true, ScopeArray: true}})
	}
	expect(t, open(t, introspection.Config{Verifier: judge(t, quirk)}), post("token=x"), 200, `{"active":true,"scope":"a b"}`)
	expect(t, open(t, introspection.Config{Verifier: judge(t, says(`{"active":false,"sub":"ann","exp":4102444800,"why":"logout"}`))}), post("token=x"), 200, dead)
}

// Covers: PXY-05 T11
func TestCallerSeesItsClaimsOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const answer = `{"active":true,"scope":"read","s\u0075b":"ann","email":"ann@example","exp":946684900,"a<b":1,"username":"ann","sub2":"x"}`
		sees := func(want string, claims ...string) {
			t.Helper()
			h := open(t, introspection.Config{Verifier: judge(t, says(answer)), Callers: []introspection.Caller{{Name: "rs", ClientID: "rs", Secrets: one(secret), Claims: claims}}})
			w := expect(t, h, post("token=x"), 200, want)
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("no JSON: %s", w.Body)
			}
		}
		sees(`{"active":true,"scope":"read","s\u0075b":"ann","email":"ann@example","exp":946684900,"a<b":1,"username":"ann","sub2":"x","expires_in":100}`)
		sees(`{"active":true,"scope":"read","sub":"ann","exp":946684900,"expires_in":100}`, "sub", "scope", "exp")
		sees(`{"active":true,"sub":"ann"}`, "sub")
		sees(`{"active":true}`, "nothing")
		sees(`{"active":true}`, "Sub", "EXP", "scop", "su")
		sees(`{"active":true,"expires_in":100}`, "expires_in")
		sees(`{"active":true,"a\u003cb":1}`, "a<b")
	})
}

// A caller's audience and issuers are its policy's: what is meant for another is nothing to it.
func TestPXY05CallersAreLimited(t *testing.T) {
	t.Parallel()
	v := judge(t, says(`{"active":true,"aud":"api"}`), watchword.Policy{Name: "api", Audience: []string{"api"}}, watchword.Policy{Name: "other", Audience: []string{"other", "API"}}, watchword.Policy{Name: "any"})
	h := open(t, introspection.Config{Verifier: v, Callers: []introspection.Caller{{Name: "api", ClientID: "1", Secrets: one("s")}, {Name: "other", ClientID: "2", Secrets: one("s")}, {Name: "any", Secrets: one("s")}}})
	expect(t, h, post("token=x", basic("1:s")), 200, `{"active":true,"aud":"api"}`)
	expect(t, h, post("token=x", basic("2:s")), 200, dead)
	expect(t, h, post("token=x", header("Authorization", "Bearer s")), 200, `{"active":true,"aud":"api"}`)
}

func TestPXY06AgeAndMaxAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var remembered *watchword.Answer // a cache of one, by the formula
		var last watchword.Freshness
		h := open(t, introspection.Config{Verifier: judge(t, func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
			last = q.Freshness
			if remembered == nil || q.Weigh(remembered) != watchword.Fresh {
				remembered, _ = says(`{"active":true}`)(ctx, q)
			}
			return remembered, nil
		})})
		ask := func(age string, cacheControl ...string) {
			t.Helper()
			headerIs(t, expect(t, h, post("token=x", header("Cache-Control", cacheControl...)), 200, `{"active":true}`), "Age", age)
		}
		ask("0")
		ask("0")
		time.Sleep(time.Nanosecond)
		ask("1")
		time.Sleep(10*time.Second - time.Nanosecond)
		ask("10", "max-age=10") // not older than that
		time.Sleep(time.Nanosecond)
		for _, nonsense := range []string{"max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=x", "max-age= 1", "max-age=+1", "x-max-age=1", "no-cache", `max-age="`, `max-age=""`, "max-age=0x1"} {
			ask("11", nonsense)
		}
		ask("11", "max-age=99999999999999999999999")
		ask("0", "no-transform , MAX-AGE=10")
		if want := (watchword.Freshness{MaxStaleness: 10 * time.Second, MaxAge: 10 * time.Second}); last != want {
			t.Errorf("asked with %+v, want %+v", last, want)
		}
		time.Sleep(7 * time.Second)
		ask("7", "max-age=9", "max-age=7")
		ask("0", "max-age=9", `max-age="6",max-age=8`)
		time.Sleep(time.Second)
		ask("0", "max-age=0")
		time.Sleep(25 * time.Second)
		ask("25", "max-age=3600") // a request can only tighten
		time.Sleep(5*time.Second + 1)
		ask("0", "max-age=3600")
	})
}

// A caller that names a bound gets nothing older, however lenient its policy is while the server is down.
func TestMaxAgeGivesUpStale(t *testing.T) {
	t.Parallel()
	old := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		a, err := watchword.ParseAnswer([]byte(`{"active":true}`), watchword.Evidence{Issuer: "main", Asked: q.At.Add(-time.Minute)})
		if err == nil && q.Weigh(a) == watchword.Unusable {
			return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: "main"}
		}
		return a, err
	})
	h := open(t, introspection.Config{Verifier: judge(t, old, watchword.Policy{Name: "rs", Freshness: watchword.Freshness{MaxStaleness: 30 * time.Second, StaleIfError: time.Hour}})})
	w := expect(t, h, post("token=x"), 200, `{"active":true}`)
	headerIs(t, w, "Age", "60")
	headerIs(t, w, "X-Watchword-Degraded", "stale")
	expect(t, h, post("token=x", header("Cache-Control", "max-age=30")), 503, notNow)
}
