package revocation_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// The event that is named is the one that counts: of those that revoke the newest, else the newest question.
func TestWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := ledger(t, revocation.Config{})
		why := func(token string, a *watchword.Answer) string {
			c, found := l.Why(watchword.Query{Issuer: "main", Token: watchword.Token(token)}, a)
			if !found {
				return "nothing"
			}
			return fmt.Sprint(c.Event.Why, " ", c.Revokes)
		}
		time.Sleep(time.Hour)
		asked := time.Now()
		ann := answer(t, asked, fmt.Sprintf(`,"sub":"ann","client_id":"app","org_id":"acme","iat":%d`, asked.Add(-time.Minute).Unix()))
		bob := answer(t, asked, `,"sub":"bob"`)
		want := func(token string, a *watchword.Answer, is string) {
			t.Helper()
			if got := why(token, a); got != is {
				t.Errorf("%s: %s, want %s", token, got, is)
			}
		}
		want("t", ann, "nothing")
		sub := func(s, why string, effect revocation.Effect) revocation.Event {
			time.Sleep(time.Second)
			return revocation.Event{ID: why, Selector: revocation.Selector{Subject: s}, Effect: effect, Why: why}
		}
		apply(t, l, sub("ann", "first question", revocation.Revalidate))
		apply(t, l, sub("ann", "second question", revocation.Revalidate), sub("carl", "other", revocation.Deny))
		want("t", ann, "second question false")
		want("t", bob, "nothing")
		apply(t, l, sub("bob", "doubt", revocation.Deny)) // his answer has no iat
		want("t", bob, "doubt false")
		apply(t, l, sub("ann", "denied", revocation.Deny))
		apply(t, l, sub("ann", "third question", revocation.Revalidate))
		want("t", ann, "denied true")
		apply(t, l, revocation.Event{Token: l.TokenID("main", "lost"), Why: "this token"})
		want("lost", bob, "this token true")
		want("lost", nil, "this token true") // nobody has answered
		want("found", nil, "nothing")
		apply(t, l, revocation.Event{WholeIssuer: true, Operator: true, Why: "everybody"})
		want("t", bob, "everybody true")
		if _, found := l.Why(watchword.Query{Issuer: "other", Token: "lost"}, bob); found {
			t.Error("another issuer's token")
		}
	})
}

// Whatever is held: an event is named that revokes exactly where one does, and that questions where one does.
func TestWhyAgreesWithVoids(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 60 {
			l := ledger(t, revocation.Config{})
			time.Sleep(time.Minute)
			some := func(of ...string) string { return of[rand.N(len(of))] }
			for range rand.N(8) {
				time.Sleep(time.Second)
				e := revocation.Event{Effect: revocation.Effect(rand.N(2)), Operator: rand.N(4) == 0}
				if rand.N(3) > 0 {
					e.At = time.Now().Add(-time.Duration(rand.N(20)) * time.Second)
				}
				switch rand.N(5) {
				case 0:
					e.Token = l.TokenID("main", watchword.Token(some("t", "u")))
				case 1:
					e.WholeIssuer = true
				default:
					e.Selector = revocation.Selector{Subject: some("ann", "bob"), Client: some("", "app"), Tenant: some("", "", "acme")}
				}
				apply(t, l, e)
			}
			for range 20 {
				members := some("", `,"sub":"ann"`, `,"sub":"bob"`) + some("", `,"client_id":"app"`) + some("", `,"org_id":"acme"`)
				if rand.N(2) == 0 {
					members += fmt.Sprintf(`,"iat":%d`, time.Now().Add(-time.Duration(rand.N(30))*time.Second).Unix())
				}
				q, a := watchword.Query{Issuer: "main", Token: watchword.Token(some("t", "u", "v"))}, answer(t, time.Now(), members)
				v := l.Voids(q, a)
				c, found := l.Why(q, a)
				if v.Revoked != (found && c.Revokes) || !v.Revoked && found == v.Questioned.IsZero() {
					t.Fatalf("%s %s: %+v, and named is %v %+v", q.Token, members, v, found, c)
				}
			}
		}
	})
}
