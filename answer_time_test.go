package watchword_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// Covers: INT-09 INT-11 T8
func TestINT09_T8ExpEdges(t *testing.T) {
	t.Parallel()
	now := start.Unix()
	f := func(v, want string) { // at start
		t.Helper()
		body := `{"active":true,"exp":` + v + `}`
		if _, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Asked: both(0)}); err != nil {
			if want != "protocol error" {
				t.Errorf("exp %s: %v, want %s", v, err, want)
			}
		} else if got := judged(t, body, 0); got != want {
			t.Errorf("exp %s: %s, want %s", v, got, want)
		}
	}
	for _, v := range []string{"0", "-0", "-1", "1.5", "0.9999", "-1e400", "1e-400", "-9223372036854775808", "-9223372036854775809", "1e9", "1.7e9"} {
		f(v, "expired")
	}
	for _, v := range []string{`"123"`, `"1.7e9"`, `""`, `null`, `[]`, `{}`, `true`, `[1]`, "1e19", "1e400", "253402300800", "9223372036854775807", "18446744073709551616", "1893456000000", "253402300799.5"} {
		f(v, "protocol error")
	}
	f(fmt.Sprint(now-1), "expired")
	f(fmt.Sprint(now), "expired") // RFC 7519 §4.1.4: on or after
	f(fmt.Sprint(now)+".999", "expired")
	f(fmt.Sprint(now+1), "ok")
	f(fmt.Sprint(now+1)+".0", "ok")
	f("253402300799", "ok")
	f("2.5340230079e11", "ok")

	last := `{"active":true,"exp":` + fmt.Sprint(now+10) + `}`
	if s := judged(t, last, 10*time.Second-1); s != "ok" {
		t.Error("just before exp:", s)
	}
	if s := judged(t, last, 10*time.Second); s != "expired" {
		t.Error("at exp:", s)
	}
	if s := judged(t, `{"active":true,"exp":1893456010.999}`, 10*time.Second); s != "expired" {
		t.Error("a fraction never lengthens life:", s)
	}
}

func TestINT12_T8ExpiresInEdges(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"expires_in", "exi"} {
		f := func(v, want string) {
			t.Helper()
			body := `{"active":true,"` + name + `":` + v + `}`
			if _, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Asked: both(0)}); err != nil {
				if want != "protocol error" {
					t.Errorf("%s %s: %v, want %s", name, v, err, want)
				}
			} else if got := judged(t, body, 0); got != want {
				t.Errorf("%s %s: %s, want %s", name, v, got, want)
			}
		}
		for _, v := range []string{"0", "-0", "-1", "0.9", "-1e400", "-253402300799", "1e-400"} {
			f(v, "expired")
		}
		for _, v := range []string{`"123"`, `null`, `[]`, `{}`, `false`, "1e19", "1e400", "253402300800"} {
			f(v, "protocol error")
		}
		for _, v := range []string{"1", "1.5", "1e3", "253402300799"} {
			f(v, "ok")
		}
		body := `{"active":true,"` + name + `":5}`
		if s := judged(t, body, 5*time.Second-1); s != "ok" {
			t.Error("before the end:", s)
		}
		if s := judged(t, body, 5*time.Second); s != "expired" {
			t.Error("at the end:", s)
		}
	}
}

// INT-12: whichever end comes first, and Remaining says the same.
func TestINT12EarliestEndWins(t *testing.T) {
	t.Parallel()
	exp := func(d time.Duration) string { return fmt.Sprintf(`,"exp":%d`, start.Add(d).Unix()) }
	f := func(members string, want time.Duration) {
		t.Helper()
		a := answer(t, `{"active":true`+members+`}`)
		if left, known := a.Remaining(both(0)); left != want || !known {
			t.Errorf("%s: %v are left (%v), want %v", members, left, known, want)
		}
		for _, d := range []time.Duration{0, 1, want - 1, want, want + 1, time.Hour, 290 * 365 * 24 * time.Hour} {
			left, _ := a.Remaining(both(d))
			if over := watchword.Judge(anyone, a, both(d)) == watchword.Expired; d >= 0 && over != (left == 0) || left < 0 || left > want {
				t.Errorf("%s after %v: %v are left, expired: %v", members, d, left, over)
			}
		}
	}
	f(exp(10*time.Second), 10*time.Second)
	f(`,"expires_in":10`, 10*time.Second)
	f(`,"exi":10`, 10*time.Second)
	f(exp(20*time.Second)+`,"expires_in":10`, 10*time.Second)
	f(`,"expires_in":20`+exp(10*time.Second), 10*time.Second)
	f(`,"expires_in":20,"exi":10`, 10*time.Second)
	f(`,"exi":20,"expires_in":10`, 10*time.Second)
	f(`,"exi":20,"expires_in":30`+exp(10*time.Second), 10*time.Second)
	f(`,"expires_in":-5`+exp(10*time.Second), 0)
	f(`,"expires_in":5`+exp(-10*time.Second), 0)
	f(`,"expires_in":-253402300799`, 0)
	f(`,"exp":-253402300799`, 0)
	a := answer(t, `{"active":true,"exp":253402300799,"expires_in":253402300799}`)
	for _, d := range []time.Duration{-time.Hour, 0, time.Hour, 100 * 365 * 24 * time.Hour} {
		if left, known := a.Remaining(both(d)); left < 40*365*24*time.Hour || !known {
			t.Errorf("a token for ever after %v: %v", d, left)
		}
	}
}

// INT-12, T7: the wall may jump an hour either way after the asking; neither end moves later by it.
func TestINT12_T7_CAC11EndsSurviveClockJumps(t *testing.T) {
	t.Parallel()
	exp := fmt.Sprintf(`{"active":true,"exp":%d}`, start.Add(10*time.Second).Unix())
	for _, body := range []string{exp, `{"active":true,"expires_in":10}`} {
		f := func(wall, mono time.Duration, want watchword.Reason) {
			t.Helper()
			a := answer(t, body)
			if got := watchword.Judge(anyone, a, instant(wall, mono)); got != want {
				t.Errorf("%s, wall %v, monotonic %v: %v, want %v", body, wall, mono, got, want)
			}
			if left, _ := a.Remaining(instant(wall, mono)); (left == 0) != (want == watchword.Expired) {
				t.Errorf("%s, wall %v, monotonic %v: %v are left", body, wall, mono, left)
			}
		}
		f(9*time.Second, 9*time.Second, watchword.OK)
		f(11*time.Second-time.Hour, 11*time.Second, watchword.Expired) // set back
		f(9*time.Second-time.Hour, 9*time.Second, watchword.OK)
		f(time.Hour, 9*time.Second, watchword.Expired)         // set forward
		f(11*time.Second, time.Millisecond, watchword.Expired) // slept: the monotonic clock stood still
		if s := watchword.Judge(anyone, answer(t, body), both(11*time.Second).Round(0)); s != watchword.Expired {
			t.Error("an instant without a monotonic reading:", s)
		}
	}
}

func TestINT12RelativeLifeCountsFromTheAsking(t *testing.T) {
	t.Parallel()
	// Age lowers AsOf, not the instant from which expires_in counts: a door that sends Age recomputes expires_in.
	a := answerOf(t, `{"active":true,"expires_in":10}`, watchword.Evidence{Asked: both(0), Age: 7 * time.Second})
	if left, _ := a.Remaining(both(4 * time.Second)); left != 6*time.Second {
		t.Errorf("%v are left", left)
	}
	if got := a.AsOf(); !got.Equal(both(-7*time.Second)) || !a.Asked().Equal(both(0)) {
		t.Errorf("as of %v, asked %v", got, a.Asked())
	}
	if a := answerOf(t, `{"active":true}`, watchword.Evidence{Asked: both(0), Age: -time.Hour}); !a.AsOf().Equal(both(0)) {
		t.Error("no Age makes an answer younger than its question")
	}
	for _, name := range []string{"expires_in", "exi", `\u0065xi`} {
		a := answer(t, `{"active":true,"a":1,"`+name+`":10,"z":2}`)
		if s := a.Claims().JSON(); s != `{"active":true,"a":1,"z":2}` {
			t.Errorf("a lifetime that would be wrong on the next hit is handed on: %s", s)
		}
	}
}

func TestINT11Leeway(t *testing.T) {
	t.Parallel()
	body := fmt.Sprintf(`{"active":true,"exp":%d,"nbf":%d}`, start.Add(10*time.Second).Unix(), start.Unix())
	a := answerOf(t, body, watchword.Evidence{Asked: both(0), Leeway: 5 * time.Second})
	f := func(d time.Duration, relay bool, want watchword.Reason) {
		t.Helper()
		if got := watchword.Judge(&watchword.Policy{Relay: relay}, a, both(d)); got != want {
			t.Errorf("after %v, relay %v: %v, want %v", d, relay, got, want)
		}
	}
	f(-5*time.Second-1, false, watchword.NotYetValid)
	f(-5*time.Second, false, watchword.OK)
	f(15*time.Second-1, false, watchword.OK)
	f(15*time.Second, false, watchword.Expired)
	f(10*time.Second-1, true, watchword.OK) // a caller adds its own leeway
	f(10*time.Second, true, watchword.Expired)
	if left, _ := a.Remaining(both(0)); left != 10*time.Second {
		t.Errorf("Remaining has no leeway: %v", left)
	}
	a = answerOf(t, `{"active":true,"expires_in":10}`, watchword.Evidence{Asked: both(0), Leeway: 5 * time.Second})
	f(10*time.Second, false, watchword.Expired) // one clock measures it: no leeway
}

func TestINT11NotBefore(t *testing.T) {
	t.Parallel()
	nbf := func(v string, d time.Duration) string {
		return judged(t, `{"active":true,"nbf":`+v+`}`, d)
	}
	now := start.Unix()
	for _, c := range [][2]string{{fmt.Sprint(now), "ok"}, {fmt.Sprint(now - 1), "ok"}, {fmt.Sprint(now + 1), "not_yet_valid"}, {fmt.Sprint(now) + ".5", "not_yet_valid"}, {"0", "ok"}, {"-1", "ok"}, {"253402300799", "not_yet_valid"}, {"-1e400", "ok"}} {
		if got := nbf(c[0], 0); got != c[1] {
			t.Errorf("nbf %s: %s, want %s", c[0], got, c[1])
		}
	}
	if s := nbf(fmt.Sprint(now)+".5", time.Second); s != "ok" {
		t.Error("a second later:", s)
	}
	for _, name := range []string{"nbf", "iat", "auth_time"} {
		for _, v := range []string{`"1"`, `null`, `[]`, `{}`, `true`} {
			nonsense(t, `{"active":true,"`+name+`":`+v+`}`, watchword.Quirks{})
		}
	}
	for _, name := range []string{"nbf", "iat"} {
		for _, v := range []string{"253402300800", "1e19", "1e400"} {
			nonsense(t, `{"active":true,"`+name+`":`+v+`}`, watchword.Quirks{})
		}
	}
	if at, ok := answer(t, `{"active":true,"iat":1700000000.9}`).IssuedAt(); !ok || at.Unix() != 1700000000 {
		t.Error(at, ok)
	}
	if _, ok := answer(t, `{"active":true}`).IssuedAt(); ok {
		t.Error("no iat was given")
	}
}
