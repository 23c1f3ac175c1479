package watchword

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// What is accepted with a measured offset is accepted without: a clock shortens, never lengthens.
//
// Covers: CAC-11
func TestOffsetOnlyShortensAcceptance(t *testing.T) {
	t.Parallel()
	shorter := 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 2))
		asked := time.Unix(1_800_000_000, r.Int64N(1e9))
		near := func(by int64) int64 { return asked.Unix() + r.Int64N(2*by) - by }
		body := fmt.Appendf(nil, `{"active":true,"exp":%d,"nbf":%d}`, near(200), near(100))
		e := Evidence{Issuer: "main", Asked: asked, Leeway: time.Duration(r.Int64N(int64(time.Minute)))}
		plain, err := ParseAnswer(body, e)
		check(t, err)
		e.Offset = time.Duration(r.Int64N(int64(2*time.Minute))) - time.Minute
		measured, err := ParseAnswer(body, e)
		check(t, err)
		now := asked.Add(time.Duration(r.Int64N(int64(5 * time.Minute))))
		for _, leeway := range []bool{false, true} {
			was, is := !plain.expired(now, leeway) && !plain.early(now), !measured.expired(now, leeway) && !measured.early(now)
			if is && !was {
				t.Fatalf("seed %d: offset %v lengthens %s at %v", seed, e.Offset, body, now)
			}
			if was && !is {
				shorter++
			}
		}
		if left, _ := measured.Remaining(now); left > plain.life {
			t.Fatalf("seed %d: %v remain", seed, left)
		}
	}
	if shorter == 0 {
		t.Error("no acceptance was shortened: the offset does nothing")
	}
}

// A token whose iat is later than our asking was written by a clock that is ahead: its exp is by that clock too. What
// that takes away is never more than the clock is ahead, so a token that its server still calls good serves here; and
// nothing is ever accepted that would not be without it, whatever iat says.
//
// Covers: CAC-11
func TestIatShortensByNoMoreThanTheTruth(t *testing.T) {
	t.Parallel()
	shorter := 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 3))
		asked := time.Unix(1_800_000_000, r.Int64N(1e9))
		truth := time.Duration(r.Int64N(int64(3*time.Minute))) - 90*time.Second // how far the server's clock is ahead
		wrote := asked.Add(-time.Duration(r.Int64N(int64(20 * time.Second)))).Add(truth)
		exp := wrote.Unix() + r.Int64N(300)
		e := Evidence{Issuer: "main", Asked: asked}
		plain, err := ParseAnswer(fmt.Appendf(nil, `{"active":true,"exp":%d}`, exp), e)
		check(t, err)
		body := fmt.Appendf(nil, `{"active":true,"exp":%d,"iat":%d}`, exp, wrote.Unix())
		if r.IntN(2) == 0 { // the order of members means nothing
			body = fmt.Appendf(nil, `{"iat":%d,"active":true,"exp":%d}`, wrote.Unix(), exp)
		}
		told, err := ParseAnswer(body, e)
		check(t, err)
		c, err := ParseClaims(body)
		check(t, err)
		vouched, err := NewVouched(c, e, Signature{KeysMaxAge: time.Hour, Keys: asked, Skew: time.Duration(r.Int64N(int64(5 * time.Second)))})
		check(t, err)
		now := asked.Add(time.Duration(r.Int64N(int64(5 * time.Minute))))
		for name, a := range map[string]*Answer{"asked": told, "verified": vouched} {
			switch good := now.Add(truth).Unix() < exp; {
			case plain.expired(now, true) && !a.expired(now, true):
				t.Fatalf("seed %d, %s: iat lengthens %s at %v", seed, name, body, now)
			case good && a.expired(now, true) && !plain.expired(now, true):
				t.Fatalf("seed %d, %s: %s is refused at %v, by a clock that is ahead by %v, and there it is good", seed, name, body, now, truth)
			case a.expired(now, true) && !plain.expired(now, true):
				shorter++
			}
		}
		// what is shared with another host ends there too, and earlier only by what those hosts' clocks may differ
		again, err := ParseRecord(told.Record(), asked, time.Second)
		check(t, err)
		if told.expired(now, true) && !again.expired(now, true) || again.expired(now, true) && !told.expired(now.Add(time.Second), true) {
			t.Fatalf("seed %d: %s from a store: %v, here %v", seed, body, again.expired(now, true), told.expired(now, true))
		}
	}
	if shorter == 0 {
		t.Error("no acceptance was shortened: iat does nothing")
	}
}

// One token's iat moves nbf nowhere, no other token, and its own end by a minute at most.
func TestIatIsNoAttackOnOthers(t *testing.T) {
	t.Parallel()
	asked := time.Unix(1_800_000_000, 0)
	left := func(body string, e Evidence) time.Duration {
		t.Helper()
		e.Asked = asked
		a, err := ParseAnswer([]byte(body), e)
		check(t, err)
		d, _ := a.Remaining(asked)
		return d
	}
	f := func(got, want time.Duration) {
		t.Helper()
		if got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	f(left(`{"active":true,"exp":1800000300,"iat":1800086400}`, Evidence{}), 4*time.Minute)
	f(left(`{"active":true,"exp":1800000300,"iat":1800000010.9}`, Evidence{}), 290*time.Second)
	f(left(`{"active":true,"exp":1800000300,"iat":1800000010}`, Evidence{Offset: 30 * time.Second}), 270*time.Second)
	f(left(`{"active":true,"exp":1800000300,"iat":"1800000010"}`, Evidence{Quirks: Quirks{StringNumbers: true}}), 290*time.Second)
	f(left(`{"active":true,"exp":1800000300,"iat":1799999999}`, Evidence{}), 5*time.Minute)
	f(left(`{"active":true,"expires_in":300,"iat":1800000010}`, Evidence{}), 5*time.Minute) // a duration is by no clock
	a, err := ParseAnswer([]byte(`{"active":true,"nbf":1800000020,"iat":1800000030}`), Evidence{Asked: asked, Offset: -10 * time.Second})
	check(t, err)
	if at := asked.Add(29 * time.Second); !a.early(at) {
		t.Error("iat began a token sooner than a clock that is behind allows")
	}
}
