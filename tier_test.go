package watchword_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// An answer chooses its tier, and a tier only lowers bounds.
//
// Covers: T2 CAC-13
func TestT2TiersOnlyTighten(t *testing.T) {
	t.Parallel()
	policy := func(tiers ...watchword.Tier) watchword.Policy {
		return watchword.Policy{Name: "p", Tiers: tiers, Freshness: watchword.Freshness{MaxStaleness: 10 * time.Second, StaleIfError: time.Hour}}
	}
	strict := watchword.Freshness{MaxStaleness: 2 * time.Second, StaleIfError: time.Second}
	f := func(name, body string, when watchword.When, fits bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			questions := 0
			var down error
			memory, err := cache.New(cache.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer memory.Close()
			src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
				if questions++; down != nil {
					return nil, down
				}
				return answerOf(t, body, watchword.Evidence{Issuer: "main", Asked: time.Now()}), nil
			})
			v := verifier(t, watchword.Config{Source: memory.Over(src, time.Hour), Issuers: []watchword.Issuer{{Name: "main", Tenant: "org"}},
				Routes: []watchword.Route{{Policy: policy(watchword.Tier{When: when, Freshness: strict})}}})
			ask := func(want watchword.Reason, word watchword.Degradation, n int) {
				t.Helper()
				if d := v.Verify(t.Context(), watchword.Request{Token: "t"}); d.Reason != want || d.Degraded != word || questions != n {
					t.Errorf("%s: %v %q after %d questions, want %v %q after %d", name, d.Reason, d.Degraded, questions, want, word, n)
				}
			}
			more := map[bool]int{true: 1}[fits]
			ask(watchword.OK, watchword.Whole, 1)
			time.Sleep(2 * time.Second)
			ask(watchword.OK, watchword.Whole, 1)
			time.Sleep(1)
			ask(watchword.OK, watchword.Whole, 1+more)
			down = &watchword.Error{Failure: watchword.Unavailable}
			time.Sleep(3 * time.Second)
			if fits {
				ask(watchword.OK, watchword.ServedStale, 3)
				time.Sleep(1)
				ask(watchword.CannotKnow, watchword.Whole, 4)
			} else {
				ask(watchword.OK, watchword.Whole, 1)
			}
		})
	}
	const user = `{"active":true,"sub":"ann","client_id":"web","scope":"read write","aud":["api","b"],"org":"acme"}`
	f("client", user, watchword.When{Clients: []string{"batch", "web"}}, true)
	f("another client", user, watchword.When{Clients: []string{"we"}}, false)
	f("no client", `{"active":true}`, watchword.When{Clients: []string{"web"}}, false)
	f("scope", user, watchword.When{Scopes: []string{"admin", "write"}}, true)
	f("another scope", user, watchword.When{Scopes: []string{"writ"}}, false)
	f("audience", user, watchword.When{Audiences: []string{"b"}}, true)
	f("another audience", user, watchword.When{Audiences: []string{"c"}}, false)
	f("tenant", user, watchword.When{Tenants: []string{"acme"}}, true)
	f("another tenant", user, watchword.When{Tenants: []string{"beta"}}, false)
	f("a tenant that is no text", `{"active":true,"org":["acme"]}`, watchword.When{Tenants: []string{"acme"}}, false)
	f("user", user, watchword.When{Subject: watchword.UserSubject}, true)
	f("a client is no user", `{"active":true,"sub":"web","client_id":"web"}`, watchword.When{Subject: watchword.UserSubject}, false)
	f("client on its own", `{"active":true,"sub":"web","client_id":"web"}`, watchword.When{Subject: watchword.ClientSubject}, true)
	f("client without sub", `{"active":true,"client_id":"web"}`, watchword.When{Subject: watchword.ClientSubject}, true)
	f("all of them", user, watchword.When{Clients: []string{"web"}, Scopes: []string{"read"}, Subject: watchword.UserSubject}, true)
	f("all but one", user, watchword.When{Clients: []string{"web"}, Scopes: []string{"read"}, Subject: watchword.ClientSubject}, false)

	bad := func(p watchword.Policy, want string) {
		t.Helper()
		if _, err := watchword.New(watchword.Config{Source: says("{}"), Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: p}}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	when := watchword.When{Clients: []string{"web"}}
	bad(policy(watchword.Tier{When: when, Freshness: watchword.Freshness{MaxStaleness: 11 * time.Second}}), "tier 1: max_staleness 11s is above the policy's 10s: a tier can only tighten")
	bad(policy(watchword.Tier{When: when, Freshness: watchword.Freshness{MaxAge: time.Hour}}), "tier 1: max_age 1h0m0s is above")
	bad(policy(watchword.Tier{When: when, Freshness: strict}, watchword.Tier{When: when, Freshness: watchword.Freshness{StaleIfError: 2 * time.Hour}}), "tier 2: stale_if_error 2h0m0s is above")
	bad(policy(watchword.Tier{Freshness: strict}), "it selects every token")
	bad(policy(watchword.Tier{When: watchword.When{Scopes: []string{""}}}), "an empty value")
	bad(policy(watchword.Tier{When: watchword.When{Subject: 3}}), "subject class 3")
	bad(policy(watchword.Tier{When: when, Freshness: watchword.Freshness{MaxStaleness: -1}}), "cannot be negative")
	bad(watchword.Policy{Recheck: watchword.Recheck{Probability: 1.5}}, "probability 1.5")
	bad(watchword.Policy{Recheck: watchword.Recheck{Probability: -0.1}}, "probability -0.1")
}

// checked is a Verifier with memory over a server that is asked, and tells how often.
func checked(t *testing.T, by watchword.Recheck, chance func() float64, server func(n int) (*watchword.Answer, error)) (verify func(peer, agent string) watchword.Decision, questions *int) {
	memory, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(memory.Close)
	n := new(int)
	src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { *n++; return server(*n) })
	v := verifier(t, watchword.Config{Source: memory.Over(src, time.Hour), Chance: chance, Issuers: []watchword.Issuer{{Name: "main"}},
		Routes: []watchword.Route{{Policy: watchword.Policy{Name: "p", Recheck: by, Freshness: watchword.Freshness{MaxStaleness: time.Minute}}}}})
	return func(peer, agent string) watchword.Decision {
		time.Sleep(time.Second)
		return v.Verify(t.Context(), watchword.Request{Token: "t", Peer: peer, UserAgent: agent})
	}, n
}

// A share of hits is asked about all the same; an inactive answer wins at once, and a server that is down costs
// nothing that was promised.
//
// Covers: JWT-10 CAC-13
func TestJWT10Rechecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u, down, dead, doubted := 0.5, false, false, false
		verify, questions := checked(t, watchword.Recheck{Probability: 0.25}, func() float64 { return u }, func(int) (*watchword.Answer, error) {
			switch {
			case down:
				return nil, &watchword.Error{Failure: watchword.Unavailable, Doubted: doubted}
			case dead:
				return answerOf(t, `{"active":false}`, watchword.Evidence{Asked: time.Now()}), nil
			}
			return asked(time.Now()), nil
		})
		f := func(name string, want watchword.Reason, age time.Duration, n int) {
			t.Helper()
			if d := verify("", ""); d.Reason != want || d.Age != age || d.Degraded != watchword.Whole || *questions != n {
				t.Errorf("%s: %v, age %v, %q, %d questions; want %v, %v, %d", name, d.Reason, d.Age, d.Degraded, *questions, want, age, n)
			}
		}
		f("a miss", watchword.OK, 0, 1)
		f("spared", watchword.OK, time.Second, 1)
		u = 0.25
		f("spared, at the edge", watchword.OK, 2*time.Second, 1)
		u = 0.2499
		f("rechecked", watchword.OK, 0, 2)
		down = true
		f("nobody there", watchword.OK, time.Second, 3)
		doubted = true
		f("an inactive answer that is doubted is no consent", watchword.CannotKnow, 0, 4)
		down, dead = false, true
		f("inactive", watchword.Inactive, 0, 5)
		u, dead = 0.9, false
		f("known to be nothing", watchword.OK, 0, 6)
	})
}

// A token that changes hands is asked about; who is seen again is not.
func TestRecheckOnChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := false
		verify, questions := checked(t, watchword.Recheck{OnChange: watchword.Changes{ClientIP: true, UserAgent: true}}, nil, func(int) (*watchword.Answer, error) {
			if down {
				return nil, &watchword.Error{Failure: watchword.Unavailable}
			}
			return asked(time.Now()), nil
		})
		f := func(peer, agent string, n int) {
			t.Helper()
			if d := verify(peer, agent); d.Reason != watchword.OK || *questions != n {
				t.Errorf("%s %s: %v after %d questions, want %d", peer, agent, d.Reason, *questions, n)
			}
		}
		f("10.0.0.1", "a", 1)
		f("10.0.0.1", "a", 1)
		f("10.0.0.2", "a", 2)
		f("10.0.0.2", "a", 2)
		f("10.0.0.2", "b", 3)
		f("10.0.0.2", "b", 3)
		down = true
		f("10.0.0.3", "b", 4)
		f("10.0.0.3", "b", 5) // not seen until somebody vouched for it
		down = false
		f("10.0.0.3", "b", 6)
		f("10.0.0.3", "b", 6)
	})
}

func TestRecheckAllocatesNothing(t *testing.T) {
	a := asked(time.Now())
	src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { return a, nil })
	v := verifier(t, watchword.Config{Source: src, Chance: func() float64 { return 0.5 }, Issuers: []watchword.Issuer{{Name: "main", Tenant: "org"}}, Routes: []watchword.Route{{Policy: watchword.Policy{
		Freshness: watchword.Freshness{MaxStaleness: time.Hour}, Recheck: watchword.Recheck{Probability: 0.01, OnChange: watchword.Changes{ClientIP: true, UserAgent: true}},
		Tiers: []watchword.Tier{{When: watchword.When{Clients: []string{"batch"}}}, {When: watchword.When{Tenants: []string{"acme"}}}, {When: watchword.When{Subject: watchword.ClientSubject}}}}}}})
	r := watchword.Request{Token: "t", Peer: "10.0.0.1", UserAgent: "a long one, as they are"}
	if n := testing.AllocsPerRun(100, func() {
		if d := v.Verify(context.Background(), r); d.Reason != watchword.OK {
			t.Fatal(d.Reason, d.Err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
