package watchword_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

func restored(t testing.TB, a *watchword.Answer, now time.Time, skew time.Duration) *watchword.Answer {
	t.Helper()
	b, err := watchword.ParseRecord(a.Record(), now, skew)
	if err != nil {
		t.Fatalf("%s: %v", a.Claims().JSON(), err)
	}
	return b
}

// randomBody is an answer with every member that a decision may depend on.
func randomBody(r *rand.Rand) string {
	body := `{"active":true`
	add := func(n int, member string, args ...any) {
		if r.IntN(n) > 0 {
			body += "," + fmt.Sprintf(member, args...)
		}
	}
	add(2, `"exp":%d`, start.Unix()+int64(r.IntN(200))-50)
	add(2, `"expires_in":%d.5`, r.IntN(200)-20)
	add(2, `"exi":%d`, r.IntN(150))
	add(2, `"nbf":"%d"`, start.Unix()+int64(r.IntN(60)))
	add(2, `"iat":%d`, start.Unix()-int64(r.IntN(60)))
	add(2, `"scope":["a","b"]`)
	add(2, `"aud":["api","ü\n"]`)
	add(4, `"token_type":"Refresh"`)
	add(4, `"cnf":{}`)
	add(2, `"x":{"big":123456789012345678901234567890.10}`)
	return body + "}"
}

// What was written and read decides as what was asked, for every policy and at every instant.
func TestRestoredAnswerDecidesAsTheOriginal(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4, 4))
	quirks := watchword.Quirks{StringNumbers: true, ScopeArray: true}
	reasons := map[watchword.Reason]int{}
	for range 2000 {
		a, err := watchword.ParseAnswer([]byte(randomBody(r)), watchword.Evidence{Issuer: "main", Asked: both(0),
			Age: time.Duration(r.IntN(3)) * time.Second, MaxAge: time.Duration(r.IntN(3)) * 4 * time.Second, Leeway: time.Duration(r.IntN(2)) * 7 * time.Second, Quirks: quirks})
		if err != nil {
			t.Fatal(err)
		}
		b := restored(t, a, both(time.Duration(r.IntN(20))*time.Second), 0)
		if b.Claims() != a.Claims() || b.Issuer() != a.Issuer() || !b.Asked().Equal(a.Asked()) || !b.AsOf().Equal(a.AsOf()) || b.Leeway() != a.Leeway() || b.Size() != a.Size() {
			t.Fatalf("%s\nbecame %s", a.Claims().JSON(), b.Claims().JSON())
		}
		if !bytes.Equal(b.Record(), a.Record()) {
			t.Fatalf("%s is recorded in two ways", a.Claims().JSON())
		}
		p := &watchword.Policy{Relay: r.IntN(2) == 0}
		if r.IntN(2) == 0 {
			p.Scopes, p.Audience = []string{"a"}, []string{"api"}
		}
		for range 30 {
			at := both(time.Duration(r.IntN(220*4)) * time.Second / 4)
			was, is := watchword.Judge(p, a, at), watchword.Judge(p, b, at)
			if reasons[was]++; was != is {
				t.Fatalf("%s, after %v: %v was %v", a.Claims().JSON(), at.Sub(both(0)), is, was)
			}
			q := watchword.Query{At: at, Freshness: watchword.Freshness{MaxStaleness: time.Duration(r.IntN(100)) * time.Second, StaleIfError: time.Minute}}
			if q.Weigh(a) != q.Weigh(b) {
				t.Fatalf("%s, after %v: weighs another", a.Claims().JSON(), at.Sub(both(0)))
			}
			wasLeft, wasKnown := a.Remaining(at)
			if left, known := b.Remaining(at); left != wasLeft || known != wasKnown {
				t.Fatalf("%s, after %v: %v left, was %v", a.Claims().JSON(), at.Sub(both(0)), left, wasLeft)
			}
		}
	}
	if len(reasons) < 5 {
		t.Errorf("only %v were decided: the answers are too much alike", reasons)
	}
}

// Another host's clock may be ahead by skew: its answer counts as older, and lives no longer than there.
//
// Covers: CAC-11
func TestRestoredAnswerIsOlderBySkew(t *testing.T) {
	t.Parallel()
	a := answer(t, fmt.Sprintf(`{"active":true,"exp":%d,"expires_in":60}`, start.Unix()+100))
	b := restored(t, a, both(5*time.Second), time.Second)
	if got := a.AsOf().Sub(b.AsOf().Round(0)); got != time.Second {
		t.Errorf("AsOf is lowered by %v", got)
	}
	if left, _ := b.Remaining(both(5 * time.Second)); left != 54*time.Second {
		t.Errorf("%v are left of expires_in", left)
	}
	dated := restored(t, answer(t, fmt.Sprintf(`{"active":true,"exp":%d}`, start.Unix()+100)), both(0), time.Second)
	if left, _ := dated.Remaining(both(0)); left != 100*time.Second {
		t.Errorf("%v are left until exp, which is a date", left)
	}
	if _, err := watchword.ParseRecord(a.Record(), both(-time.Second), time.Second); err != nil {
		t.Errorf("a clock that is ahead by skew: %v", err)
	}
	if _, err := watchword.ParseRecord(a.Record(), both(-time.Second-1), time.Second); err == nil {
		t.Error("an answer from the future is read")
	}
	// The wall is set back after reading: the monotonic clock goes on.
	q := watchword.Query{At: instant(-time.Hour, 40*time.Second), Freshness: watchword.Freshness{MaxStaleness: 30 * time.Second}}
	if s := q.Weigh(restored(t, a, both(0), 0)); s == watchword.Fresh {
		t.Error("the wall stepped back, and an old answer is fresh")
	}
}

// Covers: CAC-07
func TestCAC07RecordsAreStrict(t *testing.T) {
	t.Parallel()
	good := answer(t, `{"active":true,"sub":"ann","expires_in":5}`).Record()
	bad := func(why string, record []byte) {
		t.Helper()
		if a, err := watchword.ParseRecord(record, both(0), 0); err == nil || a != nil || strings.Contains(err.Error(), "ann") {
			t.Errorf("%s: %v, %v", why, a, err)
		}
	}
	for i := range good {
		bad(fmt.Sprintf("cut at %d", i), good[:i])
	}
	put := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	bad("schema", put(0, 2))
	bad("asked in the far future", put(1, 0x7f, 0xff))
	bad("asked in the far past", put(1, 0x80))
	for _, field := range []int{9, 17, 25, 33} {
		bad("negative", put(field, 0x80))
		bad("beyond reckoning", put(field, 0x7f, 0xff, 0xff))
	}
	bad("issuer longer than the record", put(41, 0xff, 0xff))
	inactive := answer(t, `{"active":false}`).Record()
	if b := restored(t, answer(t, `{"active":false,"sub":"ann"}`), both(0), 0); b.Active() {
		t.Error("inactive became active")
	}
	inactive[24] = 1
	bad("an inactive answer has no leeway", inactive)
	for _, claims := range []string{`{"active":true,"expires_in":5}`, `{"sub":"ann","active":true}`, ` {"active":true}`, `{"active":false,"sub":"ann"}`, `{"active":true,"active":true}`, `{"active":1}`, `[]`, ``} {
		bad(claims, append(bytes.Clone(good[:35+len("main")]), claims...))
	}
}

// FuzzRecord: what is read is written the same way again, and nothing panics.
func FuzzRecord(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 20 {
		if a, err := watchword.ParseAnswer([]byte(randomBody(r)), watchword.Evidence{Issuer: "main", Asked: both(0), Quirks: watchword.Quirks{StringNumbers: true, ScopeArray: true}}); err == nil {
			f.Add(a.Record())
		}
	}
	f.Add(answer(f, `{"active":false}`).Record())
	f.Fuzz(func(t *testing.T, record []byte) {
		a, err := watchword.ParseRecord(record, both(time.Hour), 0)
		if err != nil {
			return
		}
		b, err := watchword.ParseRecord(a.Record(), both(time.Hour), 0)
		if err != nil || b.Claims() != a.Claims() || !b.Asked().Equal(a.Asked()) || b.Active() != a.Active() {
			t.Fatalf("%v after a second reading", err)
		}
	})
}
