package watchword_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

func sec(n int) time.Duration { return time.Duration(n) * time.Second }

var standings = map[watchword.Standing]string{watchword.Unusable: "unusable", watchword.Stale: "stale", watchword.Fresh: "fresh"}

// The formula of DESIGN §2 row by row. Every query is of second 100.
//
// Covers: CAC-13
func TestFormula(t *testing.T) {
	t.Parallel()
	type query = watchword.Query
	base := func(change func(*query)) query {
		q := query{At: both(sec(100)), Freshness: watchword.Freshness{MaxStaleness: sec(30), MaxAge: sec(60)}}
		if change != nil {
			change(&q)
		}
		return q
	}
	covered := func(since, through int) func(*query) {
		return func(q *query) {
			q.Coverage = watchword.Coverage{Since: both(sec(since)), Through: both(sec(through)), Settle: sec(5)}
		}
	}
	and := func(fs ...func(*query)) func(*query) {
		return func(q *query) {
			for _, f := range fs {
				f(q)
			}
		}
	}
	grace := func(q *query) { q.Freshness.StaleIfError = sec(20) }
	live := func(q *query) { q.Freshness = watchword.Freshness{} }
	since := func(n int) func(*query) { return func(q *query) { q.AskedSince = both(sec(n)) } }
	question := func(n int) func(*query) { return func(q *query) { q.Question(both(sec(n))) } }
	row := func(name, want string, asked int, change func(*query), more string) {
		t.Helper()
		a := answerOf(t, `{"active":true`+more+`}`, watchword.Evidence{Asked: both(sec(asked))})
		q := base(change)
		if got := standings[q.Weigh(a)]; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	row("asked for this check", "fresh", 100, nil, "")
	row("asked after this check began", "fresh", 101, nil, "")
	row("at max_staleness", "fresh", 70, nil, "")
	row("beyond max_staleness", "unusable", 69, nil, "")
	row("0 asks every time: older", "unusable", 99, live, "")
	row("0 asks every time: asked for this check", "fresh", 100, live, "")
	row("0 asks every time: asked while this check waits", "fresh", 101, live, "")

	row("at max_staleness and the grace", "stale", 50, grace, "")
	row("beyond the grace", "unusable", 49, grace, "")
	row("within the bound the grace marks nothing", "fresh", 70, and(grace), "")
	row("0 with a grace", "stale", 80, and(live, grace), "")

	row("covered, feed live", "fresh", 50, covered(10, 100), "")
	row("covered, feed silent for max_staleness", "fresh", 50, covered(10, 70), "")
	row("covered, feed silent for longer", "unusable", 50, covered(10, 69), "")
	row("covered, but the answer itself is beyond max_age", "unusable", 39, covered(10, 100), "")
	row("covered, at max_age", "fresh", 40, covered(10, 100), "")
	row("covered and 0: through is this check", "fresh", 50, and(covered(10, 100), func(q *query) { q.Freshness.MaxStaleness = 0 }), "")
	row("covered and 0: through is a moment ago", "unusable", 50, and(covered(10, 99), func(q *query) { q.Freshness.MaxStaleness = 0 }), "")
	row("asked in the settle margin of since", "unusable", 55, covered(50, 100), "")
	row("asked just after the settle margin", "fresh", 56, covered(50, 100), "")
	row("asked before since", "unusable", 45, covered(50, 100), "")
	row("a gap does not hurt what is young enough by itself", "fresh", 70, covered(99, 100), "")
	row("through without since proves nothing", "unusable", 50, func(q *query) { q.Coverage.Through = both(sec(100)) }, "")
	row("through older than the answer lowers nothing", "fresh", 75, covered(10, 20), "")
	row("covered, beyond max_age, within the grace", "stale", 30, and(covered(10, 100), grace), "")
	row("covered, silent beyond max_staleness, within the grace", "stale", 50, and(covered(10, 60), grace), "")

	row("asked at the instant that a recheck demands", "fresh", 80, since(80), "")
	row("asked before a recheck", "unusable", 79, since(80), "")
	row("asked before a recheck, grace or not", "unusable", 79, and(since(80), grace), "")
	row("asked at the questioned instant", "unusable", 80, question(80), "")
	row("asked after the questioned instant", "fresh", 81, question(80), "")
	row("questioned, grace or not", "unusable", 80, and(question(80), grace), "")
	row("questioned, covered or not", "unusable", 80, and(covered(10, 100), question(80)), "")
	row("a question restarts the settle margin", "unusable", 65, and(covered(10, 100), question(60)), "")
	row("a question, asked after its margin: extended", "fresh", 66, and(covered(10, 100), question(60)), "")
	row("an older question lowers nothing", "unusable", 80, and(question(80), question(20)), "")
	row("a question before since leaves since", "fresh", 56, and(covered(50, 100), question(20)), "")

	row("over by exp", "unusable", 90, nil, `,"expires_in":10`)
	row("over by exp, asked for this check", "unusable", 100, nil, `,"exp":1893456100`)
	row("not over", "fresh", 90, nil, `,"expires_in":11`)
	row("over, grace or not", "unusable", 90, grace, `,"expires_in":10`)
	row("over, covered or not", "unusable", 90, covered(10, 100), `,"expires_in":10`)

	never := answerOf(t, `{"active":false}`, watchword.Evidence{Asked: both(sec(50))})
	for name, change := range map[string]func(*query){"a feed extends nothing inactive": covered(10, 100), "an inactive answer is never served for want of a better one": grace} {
		q := base(change)
		if got := q.Weigh(never); got != watchword.Unusable {
			t.Errorf("%s: %v", name, standings[got])
		}
	}
	aged := answerOf(t, `{"active":true}`, watchword.Evidence{Asked: both(sec(100)), Age: sec(31)})
	q := base(nil)
	if got := q.Weigh(aged); got != watchword.Unusable {
		t.Errorf("asked just now, but old when it was given (RFC 9111 §5.1): %v", standings[got])
	}
	if q.Freshness.MaxStaleness = sec(31); q.Weigh(aged) != watchword.Fresh {
		t.Error("its Age is within the bound")
	}
}

// model is the formula of DESIGN §2 word for word, over whole seconds. None is an instant that was never.
type model struct {
	at, asOf, since, through, settle, questioned, askedSince, staleness, age, grace int
	active                                                                          bool
}

const none = -1

func (m model) standing(grace int) bool {
	usable := m.asOf > m.questioned && m.asOf >= m.askedSince
	asOf := m.asOf
	if m.active && m.since != none && max(m.since, m.questioned)+m.settle < m.asOf {
		asOf = max(m.asOf, m.through)
	}
	return usable && m.at-asOf <= m.staleness+grace && m.at-m.asOf <= m.age+grace
}

func (m model) weigh() watchword.Standing {
	switch {
	case m.standing(0):
		return watchword.Fresh
	case m.active && m.grace > 0 && m.standing(m.grace):
		return watchword.Stale
	}
	return watchword.Unusable
}

func (m model) query(when func(int) time.Time) watchword.Query {
	at := func(n int) (t time.Time) {
		if n != none {
			t = when(n)
		}
		return t
	}
	q := watchword.Query{At: at(m.at), AskedSince: at(m.askedSince),
		Coverage:  watchword.Coverage{Since: at(m.since), Through: at(m.through), Settle: sec(m.settle)},
		Freshness: watchword.Freshness{MaxStaleness: sec(m.staleness), MaxAge: sec(m.age), StaleIfError: sec(m.grace)}}
	q.Question(at(m.questioned))
	return q
}

// each calls f with every value of every field, answers of every age among them.
func each(f func(model)) {
	for _, active := range []bool{true, false} {
		for asOf := range 8 {
			for since := none; since < 6; since++ {
				for through := none; through < 8; through += 2 {
					for _, settle := range []int{0, 2} {
						for _, questioned := range []int{none, 0, 3, 6} {
							for _, askedSince := range []int{none, 2, 6} {
								for staleness := range 4 {
									for _, age := range []int{max(1, staleness), 5} {
										for grace := range 3 {
											f(model{6, asOf, since, through, settle, questioned, askedSince, staleness, age, grace, active})
										}
									}
								}
							}
						}
					}
				}
			}
		}
	}
}

// Every query and answer over a few seconds: Weigh and Joins say what the formula says, and no demand that is raised
// makes an answer better.
//
// Covers: CAC-13
func TestFormulaExhaustively(t *testing.T) {
	t.Parallel()
	answers := map[bool][]*watchword.Answer{}
	for _, active := range []bool{true, false} {
		for asOf := range 8 {
			body := map[bool]string{true: `{"active":true}`, false: `{"active":false}`}[active]
			answers[active] = append(answers[active], answerOf(t, body, watchword.Evidence{Asked: both(sec(asOf))}))
		}
	}
	moments := make([]time.Time, 10)
	for i := range moments {
		moments[i] = both(sec(i))
	}
	when := func(n int) time.Time { return moments[n] }
	count := map[watchword.Standing]int{}
	each(func(m model) {
		q, want := m.query(when), m.weigh()
		a := answers[m.active][m.asOf]
		if got := q.Weigh(a); got != want {
			t.Fatalf("%+v: %s, want %s", m, standings[got], standings[want])
		}
		count[want]++
		if joins, would := q.Joins(when(m.asOf)), q.Weigh(answers[false][m.asOf]) == watchword.Fresh; joins != would {
			t.Fatalf("%+v: joins a flight: %v, but its answer would be fresh whatever it says: %v", m, joins, would)
		}
		if _, due := q.WeighAhead(a, 1); due {
			t.Fatalf("%+v: due at the whole of its bounds", m)
		}
		if s, due := q.WeighAhead(a, 0.5); s != want || due != (want == watchword.Fresh && !halved(m)) {
			t.Fatalf("%+v: %s, due at half of its bounds: %v", m, standings[s], due)
		}
		raised(m, func(name string, harder model) {
			if got := harder.query(when); got.Weigh(a) > want {
				t.Fatalf("%+v is %s, but with %s it is %s", m, standings[want], name, standings[got.Weigh(a)])
			}
		})
	})
	for s, name := range standings {
		if count[s] < 1000 {
			t.Errorf("only %d queries are %s: the model shows little", count[s], name)
		}
	}
}

// halved reports whether m would be fresh by half of its bounds.
func halved(m model) bool {
	m.at, m.asOf, m.since, m.through, m.settle, m.questioned, m.askedSince = 2*m.at, 2*m.asOf, 2*m.since, 2*m.through, 2*m.settle, 2*m.questioned, 2*m.askedSince
	if m.since < 0 {
		m.since = none
	}
	return m.standing(0)
}

// raised calls f with every way to demand a little more than m.
func raised(m model, f func(string, model)) {
	more := func(name string, change func(*model)) {
		harder := m
		change(&harder)
		f(name, harder)
	}
	more("a later check", func(m *model) { m.at++ })
	more("a later question", func(m *model) { m.questioned++ })
	more("a later recheck", func(m *model) { m.askedSince++ })
	more("a longer settle", func(m *model) { m.settle++ })
	if m.since != none {
		more("a later since", func(m *model) { m.since++ })
		more("no coverage", func(m *model) { m.since = none })
	}
	if m.through != none {
		more("an earlier through", func(m *model) { m.through-- })
	}
	if m.staleness > 0 {
		more("a lower max_staleness", func(m *model) { m.staleness-- })
	}
	if m.age > 1 { // zero is the default
		more("a lower max_age", func(m *model) { m.age-- })
	}
	if m.grace > 0 {
		more("a lower stale_if_error", func(m *model) { m.grace-- })
	}
}

// CAC-11, CAC-13: clocks that disagree (a host that slept, a wall that was set) only ever make evidence worse: an
// answer that is fresh is fresh by either clock alone.
func TestCAC11ClocksThatDisagree(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 11))
	fresh := 0
	for range 100_000 {
		wall := model{at: 6 + r.IntN(4), asOf: r.IntN(10), since: r.IntN(6), through: r.IntN(10), settle: r.IntN(3), questioned: none, askedSince: r.IntN(4), staleness: r.IntN(5), age: 5 + r.IntN(5), grace: r.IntN(3), active: r.IntN(4) > 0}
		mono := wall
		for _, moved := range []*int{&mono.at, &mono.asOf, &mono.since, &mono.through, &mono.askedSince} {
			*moved = max(0, *moved+r.IntN(3)-1)
		}
		q := wall.query(func(n int) time.Time { return both(sec(n)) })
		q.At, q.Coverage.Since, q.Coverage.Through = instant(sec(wall.at), sec(mono.at)), instant(sec(wall.since), sec(mono.since)), instant(sec(wall.through), sec(mono.through))
		q.AskedSince = instant(sec(wall.askedSince), sec(mono.askedSince))
		body := map[bool]string{true: `{"active":true}`, false: `{"active":false}`}[wall.active]
		a := answerOf(t, body, watchword.Evidence{Asked: instant(sec(wall.asOf), sec(mono.asOf))})
		got := q.Weigh(a)
		if got > wall.weigh() || got > mono.weigh() {
			t.Fatalf("%s, but %s by the wall %+v and %s by the monotonic clock %+v", standings[got], standings[wall.weigh()], wall, standings[mono.weigh()], mono)
		}
		if got == watchword.Fresh {
			fresh++
		}
	}
	if fresh < 5_000 {
		t.Errorf("only %d were fresh: the test shows little", fresh)
	}
}

func TestCAC11AgeByBothClocks(t *testing.T) {
	t.Parallel()
	f := func(name string, now, then time.Time, want time.Duration) {
		t.Helper()
		if got := watchword.Age(now, then); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	f("agree", both(sec(10)), both(sec(3)), sec(7))
	f("the wall was set back an hour", instant(sec(10)-time.Hour, sec(10)), both(0), sec(10))
	f("the wall was set forward an hour", instant(sec(10)+time.Hour, sec(10)), both(0), time.Hour+sec(10))
	f("the host slept an hour", instant(sec(10)+time.Hour, sec(10)), both(0), time.Hour+sec(10))
	f("then is later by both", both(sec(3)), both(sec(10)), -sec(7))
	f("then is later by the wall alone", instant(sec(3), sec(10)), instant(sec(10), sec(3)), sec(7))
	f("no monotonic reading in then", instant(sec(10), sec(99)), both(sec(3)).Round(0), sec(7))
	f("no monotonic reading in now", both(sec(10)).Round(0), instant(sec(3), sec(9)), sec(7))
	f("nanoseconds", both(sec(10)+1), both(sec(9)+999_999_999), 2)
	f("nanoseconds, before", both(sec(9)+999_999_999), both(sec(10)+1), -2)
	f("never asked", both(0), time.Time{}, math.MaxInt64)
	f("asked when nobody lives", time.Time{}, both(0), math.MinInt64)
	f("three hundred years", start.AddDate(300, 0, 0), start, math.MaxInt64)
	f("minus three hundred years", start, start.AddDate(300, 0, 0), math.MinInt64)
	f("two hundred years", start.AddDate(200, 0, 0), start, start.AddDate(200, 0, 0).Sub(start))
	r := rand.New(rand.NewPCG(2, 11))
	for range 100_000 {
		span := func() time.Duration { return time.Duration(r.Int64N(int64(400*24*time.Hour))) - 200*24*time.Hour }
		now, then := instant(span(), span().Abs()), instant(span(), span().Abs())
		f("what package time says", now, then, max(now.Sub(then), now.Round(0).Sub(then.Round(0))))
	}
}

func TestCAC05FreshnessMistakes(t *testing.T) {
	t.Parallel()
	f := func(f watchword.Freshness, mistakes ...string) {
		t.Helper()
		err := f.Validate()
		if len(mistakes) == 0 {
			if err != nil {
				t.Errorf("%+v: %v", f, err)
			}
			return
		}
		for _, m := range mistakes {
			if err == nil || !strings.Contains(err.Error(), m) {
				t.Errorf("%+v: %v, want %q", f, err, m)
			}
		}
	}
	f(watchword.Freshness{})
	f(watchword.Freshness{MaxStaleness: time.Hour})
	f(watchword.Freshness{MaxStaleness: time.Hour, MaxAge: time.Hour, StaleIfError: time.Hour})
	f(watchword.Freshness{MaxStaleness: -1, MaxAge: -1, StaleIfError: -1}, "max_staleness", "max_age", "stale_if_error", "negative")
	f(watchword.Freshness{MaxStaleness: time.Hour, MaxAge: time.Minute}, "max_age 1m0s is below max_staleness 1h0m0s")
	f(watchword.Freshness{MaxStaleness: math.MaxInt64, StaleIfError: math.MaxInt64}, "max_staleness", "stale_if_error", "146 years") // their sum would be negative

	if d := (watchword.Freshness{MaxStaleness: time.Hour}).Covered(); d != time.Hour {
		t.Error("max_age is max_staleness if that is longer:", d)
	}
	if d := (watchword.Freshness{MaxStaleness: time.Minute, StaleIfError: time.Second}).Covered(); d != watchword.DefaultMaxAge+time.Second {
		t.Error("max_age is its default:", d)
	}
	if d := (watchword.Freshness{MaxStaleness: time.Minute, MaxAge: time.Hour, StaleIfError: time.Second}).Life(); d != time.Minute+time.Second {
		t.Error(d)
	}
}

// A server's own max-age lowers MaxAge for its answer and raises nothing; a feed does not extend past it, and
// StaleIfError does.
//
// Covers: CAC-13
func TestCAC13MaxAgeOfTheServer(t *testing.T) {
	t.Parallel()
	start := both(0)
	a := answerOf(t, `{"active":true}`, watchword.Evidence{Asked: start, Age: time.Second, MaxAge: 10 * time.Second})
	f := func(age time.Duration, bounds watchword.Freshness, covered bool, want watchword.Standing) {
		t.Helper()
		q := watchword.Query{At: start.Add(age - time.Second), Freshness: bounds}
		if covered {
			q.Coverage = watchword.Coverage{Since: start.Add(-time.Hour), Through: q.At}
		}
		if got := q.Weigh(a); got != want {
			t.Errorf("age %v, %+v, covered %v: %v, want %v", age, bounds, covered, got, want)
		}
	}
	minute := watchword.Freshness{MaxStaleness: time.Minute}
	f(10*time.Second, minute, false, watchword.Fresh)
	f(10*time.Second+1, minute, false, watchword.Unusable)
	f(10*time.Second+1, minute, true, watchword.Unusable)
	f(6*time.Second, watchword.Freshness{MaxStaleness: 5 * time.Second}, false, watchword.Unusable)
	minute.StaleIfError = time.Second
	f(11*time.Second, minute, false, watchword.Stale)
	f(11*time.Second+1, minute, false, watchword.Unusable)
}
