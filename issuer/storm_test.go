package issuer_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/issuer"
)

// sky is an authorization server whose database can fail, as fosite's does: everything is inactive then. So it is with
// authentik and a wrong client secret.
type sky struct {
	t      *testing.T
	storm  *issuer.Storm
	failed bool
	dead   map[string]bool
}

func (s *sky) Introspect(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
	body := fmt.Sprintf(`{"active":true,"exp":%d}`, time.Now().Add(time.Hour).Unix())
	if s.failed || s.dead[string(q.Token)] {
		body = `{"active":false}`
	}
	return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
}

// ask says what came: active, inactive, doubted.
func (s *sky) ask(token string) string {
	q := watchword.Query{Token: watchword.Token(token), Issuer: "main", At: time.Now(), Key: sha256.Sum256([]byte(token))}
	a, err := s.storm.Introspect(s.t.Context(), q)
	e, _ := errors.AsType[*watchword.Error](err)
	switch {
	case e != nil && e.Doubted && e.Failure == watchword.Unavailable && e.RetryAfter > 0:
		return "doubted"
	case err != nil:
		return err.Error()
	case a.Active():
		return "active"
	}
	return "inactive"
}

// round asks about n tokens from the first on, over a second, and counts the answers.
func (s *sky) round(first, n int) map[string]int {
	got := map[string]int{}
	for i := range n {
		got[s.ask(fmt.Sprintf("t%d", first+i))]++
		time.Sleep(time.Second / time.Duration(n))
	}
	return got
}

func (s *sky) want(what string, got map[string]int, word string, low, high int) {
	s.t.Helper()
	if n := got[word]; n < low || n > high {
		s.t.Errorf("%s: %v; want %d to %d %s", what, got, low, high, word)
	}
}

func under(t *testing.T, c issuer.StormConfig, f func(s *sky)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &sky{t: t, dead: map[string]bool{}}
		var err error
		if s.storm, err = issuer.NewStorm(s, c); err != nil {
			t.Fatal(err)
		}
		f(s)
	})
}

// Everything the server knew turns inactive; after it was mended everything is as before, and nobody was logged out
// beyond the first few.
//
// Covers: OUT-04 T13
func TestStormOfAFailedDatabase(t *testing.T) {
	under(t, issuer.StormConfig{}, func(s *sky) {
		s.want("before", s.round(0, 500), "active", 500, 500)
		time.Sleep(10 * time.Second)
		s.failed = true
		got := s.round(0, 500)
		s.want("known tokens", got, "inactive", 19, 19)
		s.want("known tokens", got, "doubted", 481, 481)
		s.want("tokens never seen", s.round(10_000, 50), "doubted", 50, 50)
		for range 60 { // a minute; those that ask again are still known
			s.want("later", s.round(0, 500), "doubted", 500, 500)
		}
		s.failed = false
		got = s.round(0, 500)
		s.want("mended", got, "active", 500, 500)
		for range 10 {
			s.round(0, 500)
		}
		if st := s.storm.Stats(); st.Raging || st.Storms != 1 {
			t.Errorf("%+v; want one storm, and it is over", st)
		}
		s.dead["t7"] = true
		if w := s.ask("t7"); w != "inactive" {
			t.Errorf("a denial after the storm: %s", w)
		}
	})
}

// A canary that lives shows a real mass revocation: it is honoured, all of it.
//
// Covers: OUT-04
func TestMassRevocationWithALivingCanaryIsHonoured(t *testing.T) {
	under(t, issuer.StormConfig{Canary: func() (bool, bool) { return true, true }}, func(s *sky) {
		s.round(0, 500)
		s.failed = true
		s.want("revoked", s.round(0, 500), "inactive", 500, 500)
		if st := s.storm.Stats(); st.Doubted != 0 || st.Honoured != 1 {
			t.Errorf("%+v; want it honoured once, and nothing doubted", st)
		}
	})
}

// Covers: OUT-04
func TestMassRevocationThatWasHeardOfIsHonoured(t *testing.T) {
	under(t, issuer.StormConfig{Canary: func() (bool, bool) { return false, false }, Explained: func() bool { return true }}, func(s *sky) {
		s.round(0, 500)
		s.failed = true
		s.want("revoked", s.round(0, 500), "inactive", 500, 500)
	})
}

// The canary is asked first: a dead one is not outweighed by an event.
func TestDeadCanaryOutweighsEvents(t *testing.T) {
	under(t, issuer.StormConfig{Canary: func() (bool, bool) { return true, false }, Explained: func() bool { return true }}, func(s *sky) {
		s.round(0, 500)
		time.Sleep(10 * time.Second)
		s.failed = true
		s.want("lied", s.round(0, 500), "doubted", 500, 500)
		for range 1200 {
			s.round(0, 100)
		}
		if !s.storm.Stats().Raging {
			t.Error("the storm ended though the canary says that the server lies")
		}
	})
}

// A process that begins while the server lies knows no token that could turn. A dead canary tells it, and nobody is
// logged out. But where the server calls other tokens active, a canary of which it knows nothing proves little.
//
// Covers: OUT-04 T13
func TestADeadCanaryTellsWhoJustBegan(t *testing.T) {
	dead := true
	under(t, issuer.StormConfig{Canary: func() (bool, bool) { return true, !dead }}, func(s *sky) {
		s.failed = true
		s.want("from the first on", s.round(0, 50), "doubted", 50, 50)
		s.failed, dead = false, false
		s.want("mended", s.round(0, 50), "active", 50, 50)
		s.dead["t7"] = true
		if w := s.ask("t7"); w != "inactive" {
			t.Errorf("a denial after the storm: %s", w)
		}
		dead = true
		if w := s.ask("t7"); w != "inactive" {
			t.Errorf("a denial while other tokens are active: %s", w)
		}
		time.Sleep(11 * time.Second)
		if w := s.ask("t7"); w != "doubted" {
			t.Errorf("nothing but inactive tokens and a dead canary: %s", w)
		}
	})
}

// Fewer than at_least, or less than share, are denials one by one.
//
// Covers: OUT-04
func TestIndividualDenialsAreHonoured(t *testing.T) {
	under(t, issuer.StormConfig{}, func(s *sky) {
		s.round(0, 1000)
		for i := range 19 {
			s.dead[fmt.Sprintf("t%d", i)] = true
		}
		for range 5 { // however often they are asked about
			s.want("nineteen", s.round(0, 19), "inactive", 19, 19)
		}
		time.Sleep(time.Minute)
		for i := range 250 {
			s.dead[fmt.Sprintf("t%d", i*4)] = true
		}
		got := s.round(0, 1000)
		s.want("a quarter", got, "doubted", 0, 0)
	})
}

// A flood of tokens that nobody knows is no storm.
//
// Covers: T14
func TestSprayIsNoStorm(t *testing.T) {
	under(t, issuer.StormConfig{}, func(s *sky) {
		s.round(0, 10)
		s.failed = true
		s.want("spray", s.round(50_000, 5000), "inactive", 5000, 5000)
	})
}

// Another configuration of the same server knows what this one knew: what an operator changes in the middle of a storm
// logs nobody out.
//
// Covers: OUT-04 T13
func TestStormOutlivesAReload(t *testing.T) {
	under(t, issuer.StormConfig{}, func(s *sky) {
		reload := func(c issuer.StormConfig) {
			next, err := issuer.NewStorm(s, c)
			if err != nil {
				t.Fatal(err)
			}
			next.Inherit(s.storm)
			s.storm = next
		}
		s.want("before", s.round(0, 500), "active", 500, 500)
		time.Sleep(10 * time.Second)
		reload(issuer.StormConfig{AtLeast: 10})
		s.failed = true
		got := s.round(0, 250)
		s.want("known before the reload", got, "inactive", 9, 9)
		reload(issuer.StormConfig{AtLeast: 400, Within: 20 * time.Second})
		s.want("in the middle of it", s.round(0, 500), "doubted", 500, 500)
		s.want("tokens never seen", s.round(10_000, 50), "doubted", 50, 50)
		if st := s.storm.Stats(); !st.Raging || st.Storms != 1 || st.Doubted != 250-9+550 {
			t.Errorf("%+v; want one storm that goes on", st)
		}
		for range 580 {
			s.round(0, 10)
		}
		if !s.storm.Stats().Raging {
			t.Error("over before ten minutes")
		}
		for range 30 {
			s.round(0, 10)
		}
		s.want("ten minutes after it began", s.round(100, 100), "inactive", 100, 100)
	})
}

// Without a canary a server that says so long enough is believed.
func TestStormEndsWithoutACanary(t *testing.T) {
	under(t, issuer.StormConfig{}, func(s *sky) {
		s.round(0, 100)
		s.failed = true
		for range 590 {
			s.round(0, 100)
		}
		if !s.storm.Stats().Raging {
			t.Error("over before ten minutes")
		}
		for range 20 {
			s.round(0, 100)
		}
		s.want("at last", s.round(0, 100), "inactive", 100, 100)
	})
}

// A token that ended is not known: its inactive answer is what was to be expected.
func TestExpiredTokensAreNoStorm(t *testing.T) {
	under(t, issuer.StormConfig{}, func(s *sky) {
		s.round(0, 500)
		time.Sleep(time.Hour)
		s.failed = true
		s.want("expired", s.round(0, 500), "inactive", 500, 500)
	})
}
