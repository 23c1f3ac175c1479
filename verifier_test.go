package watchword_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
)

// ledger is a Ledger made of two functions.
type ledger struct {
	coverage func(issuer string) watchword.Coverage
	voids    func(watchword.Query, *watchword.Answer) watchword.Void
}

func (l ledger) Coverage(issuer string) watchword.Coverage { return l.coverage(issuer) }

func (l ledger) Voids(q watchword.Query, a *watchword.Answer) watchword.Void { return l.voids(q, a) }

func nothingHeard(string) watchword.Coverage                               { return watchword.Coverage{} }
func nothingHeld(watchword.Query, *watchword.Answer) (none watchword.Void) { return }
func questions(at time.Time) func(watchword.Query, *watchword.Answer) watchword.Void {
	return func(watchword.Query, *watchword.Answer) watchword.Void { return watchword.Void{Questioned: at} }
}

// asked is an active answer that was asked then.
func asked(then time.Time) *watchword.Answer {
	a, err := watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann"}`), watchword.Evidence{Issuer: "main", Asked: then})
	if err != nil {
		panic(err)
	}
	return a
}

// one is a Verifier with one issuer, main, and one policy for every request.
func one(t *testing.T, src watchword.Source, l watchword.Ledger, f watchword.Freshness) *watchword.Verifier {
	t.Helper()
	return verifier(t, watchword.Config{Source: src, Ledger: l, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: watchword.Policy{Name: "p", Freshness: f}}}})
}

func decided(t *testing.T, d watchword.Decision, want watchword.Reason) {
	t.Helper()
	if d.Reason != want {
		t.Errorf("%v (%v), want %v", d.Reason, d.Err, want)
	}
}

// The query carries the whole question, and bounds that a request can only tighten.
//
// Covers: CAC-13
func TestQueryCarriesTheQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := says(`{"active":true}`)
		cover := watchword.Coverage{Since: time.Now().Add(-time.Hour), Through: time.Now(), Settle: time.Second}
		l := ledger{func(issuer string) watchword.Coverage {
			if issuer != "main" {
				t.Errorf("coverage of %q", issuer)
			}
			return cover
		}, nothingHeld}
		own := watchword.Freshness{MaxStaleness: time.Minute, MaxAge: time.Hour, StaleIfError: time.Minute}
		v := one(t, src, l, own)
		credential := &watchword.Credential{Hint: "h"}
		d := v.Verify(t.Context(), watchword.Request{Token: "t", Peer: "10.0.0.1", Credential: credential})
		q := src.asked[0]
		if q.Token != "t" || q.Key != d.Key || q.Issuer != "main" || q.Credential != credential || q.Peer != "10.0.0.1" || !q.At.Equal(time.Now()) || !q.AskedSince.IsZero() || q.Freshness != own || q.Coverage.Since != cover.Since || q.Coverage.Through != cover.Through {
			t.Errorf("%+v", q)
		}
		tighten := func(f watchword.Freshness, want watchword.Freshness) {
			t.Helper()
			v.Verify(t.Context(), watchword.Request{Token: "t", Tighten: &f})
			if got := src.asked[len(src.asked)-1].Freshness; got != want {
				t.Errorf("tightened by %+v: %+v, want %+v", f, got, want)
			}
		}
		tighten(watchword.Freshness{MaxStaleness: time.Second, MaxAge: time.Minute, StaleIfError: time.Second}, watchword.Freshness{MaxStaleness: time.Second, MaxAge: time.Minute, StaleIfError: time.Second})
		tighten(watchword.Freshness{MaxStaleness: time.Hour, MaxAge: 2 * time.Hour, StaleIfError: time.Hour}, own)
		tighten(watchword.Freshness{MaxStaleness: 2 * time.Hour, StaleIfError: time.Hour}, own)
		tighten(watchword.Freshness{}, watchword.Freshness{MaxAge: watchword.DefaultMaxAge}) // zero is the strictest
		tighten(watchword.Freshness{MaxStaleness: time.Second, MaxAge: 2 * time.Hour, StaleIfError: time.Hour}, watchword.Freshness{MaxStaleness: time.Second, MaxAge: time.Hour, StaleIfError: time.Minute})
	})
}

// OUT-01: a negative bound, which no configuration accepts but a request might carry, is met by nothing.
func TestTighteningBelowZeroFailsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := one(t, says(`{"active":true}`), nil, watchword.Freshness{MaxStaleness: time.Hour})
		decided(t, v.Verify(t.Context(), watchword.Request{Token: "t", Tighten: &watchword.Freshness{MaxStaleness: -time.Second}}), watchword.CannotKnow)
		decided(t, v.Verify(t.Context(), watchword.Request{Token: "t", Tighten: &watchword.Freshness{MaxAge: -time.Second}}), watchword.CannotKnow)
	})
}

// The order of DESIGN §3: coverage before asking, voids after, so that no event falls between.
//
// Covers: CAC-09 T32
func TestCAC09CoverageBeforeVoidsAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var order []string
		revoked := false
		src := &fake{answer: func(n int, q watchword.Query) (*watchword.Answer, error) {
			order = append(order, "ask")
			revoked = true // the event lands while the question is in flight
			return asked(q.At), nil
		}}
		l := ledger{func(string) watchword.Coverage { order = append(order, "coverage"); return watchword.Coverage{} },
			func(q watchword.Query, a *watchword.Answer) watchword.Void {
				order = append(order, "voids")
				if q.Token != "t" || !a.Active() {
					t.Errorf("voids of %q, %v", string(q.Token), a.Active())
				}
				return watchword.Void{Revoked: revoked}
			}}
		d := one(t, src, l, watchword.Freshness{MaxStaleness: time.Hour}).Verify(t.Context(), watchword.Request{Token: "t"})
		decided(t, d, watchword.Revoked)
		if want := []string{"coverage", "ask", "voids"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
		if d.Answer == nil || d.Allowed() {
			t.Error("a revoked token's answer is there for logs, and allows nothing")
		}
	})
}

// A revocation wins over every other finding, and over how fresh the answer is.
func TestCAC08RevokedWins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		time.Sleep(time.Hour)
		l := ledger{nothingHeard, func(watchword.Query, *watchword.Answer) watchword.Void { return watchword.Void{Revoked: true} }}
		for _, then := range []time.Time{began, time.Now()} {
			src := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) { return asked(then), nil }}
			decided(t, one(t, src, l, watchword.Freshness{}).Verify(t.Context(), watchword.Request{Token: "t"}), watchword.Revoked)
			if len(src.asked) != 1 {
				t.Errorf("asked %d times", len(src.asked))
			}
		}
	})
}

// A remembered answer that something heard questions is asked again, once; nothing younger to be had is unavailable,
// whatever the grace.
//
// Covers: CAC-09 CAC-13 SIG-17
func TestCAC09QuestionedIsAskedOnceMore(t *testing.T) {
	t.Parallel()
	bounds := watchword.Freshness{MaxStaleness: time.Hour, StaleIfError: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		old := time.Now()
		time.Sleep(time.Minute)
		heard := time.Now()
		time.Sleep(time.Minute)
		src := &fake{answer: func(n int, q watchword.Query) (*watchword.Answer, error) {
			if n == 1 {
				return asked(old), nil // from memory
			}
			if want := heard.Add(1); !q.AskedSince.Equal(want) {
				t.Errorf("asked since %v, want %v", q.AskedSince, want)
			}
			if a := asked(old); q.Weigh(a) != watchword.Unusable {
				t.Error("a cache may not answer this from memory again")
			}
			return asked(time.Now()), nil
		}}
		d := one(t, src, ledger{nothingHeard, questions(heard)}, bounds).Verify(t.Context(), watchword.Request{Token: "t"})
		decided(t, d, watchword.OK)
		if len(src.asked) != 2 || d.Age != 0 || d.Source() != "issuer" || !src.asked[1].At.Equal(src.asked[0].At) {
			t.Errorf("asked %d times, %+v", len(src.asked), d)
		}
	})
	for name, then := range map[string]time.Duration{"before": -time.Nanosecond, "at": 0} { // relative to what was heard
		synctest.Test(t, func(t *testing.T) {
			heard := time.Now()
			time.Sleep(time.Minute)
			src := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) { return asked(heard.Add(then)), nil }}
			d := one(t, src, ledger{nothingHeard, questions(heard)}, bounds).Verify(t.Context(), watchword.Request{Token: "t"})
			decided(t, d, watchword.CannotKnow)
			if len(src.asked) != 2 || d.Answer != nil || !errors.Is(d.Err, watchword.Unavailable) {
				t.Errorf("asked %s: %d questions, %+v", name, len(src.asked), d)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // an event at each answer: thrice is never asked
		src := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) {
			time.Sleep(time.Second)
			return asked(time.Now()), nil
		}}
		l := ledger{nothingHeard, func(watchword.Query, *watchword.Answer) watchword.Void {
			time.Sleep(time.Second)
			return watchword.Void{Questioned: time.Now()}
		}}
		decided(t, one(t, src, l, bounds).Verify(t.Context(), watchword.Request{Token: "t"}), watchword.CannotKnow)
		if len(src.asked) != 2 {
			t.Errorf("asked %d times", len(src.asked))
		}
	})
	synctest.Test(t, func(t *testing.T) { // the second asking fails: the questioned answer does not come back
		old := time.Now()
		time.Sleep(time.Minute)
		src := &fake{answer: func(n int, _ watchword.Query) (*watchword.Answer, error) {
			if n == 1 {
				return asked(old), nil
			}
			return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", RetryAfter: time.Second}
		}}
		d := one(t, src, ledger{nothingHeard, questions(time.Now())}, bounds).Verify(t.Context(), watchword.Request{Token: "t"})
		decided(t, d, watchword.CannotKnow)
		if d.RetryAfter != time.Second || d.Answer != nil {
			t.Errorf("%+v", d)
		}
	})
}

// A question takes back what a feed had extended, until the server was asked after its margin.
func TestCAC09QuestionEndsCoverage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		since := time.Now()
		time.Sleep(time.Minute)
		heard := time.Now()
		time.Sleep(time.Second)
		inMargin := time.Now() // after the question, but introspection may lag it by settle
		time.Sleep(time.Minute)
		src := &fake{answer: func(n int, _ watchword.Query) (*watchword.Answer, error) {
			if n == 1 {
				return asked(inMargin), nil
			}
			return asked(time.Now()), nil
		}}
		cover := func(string) watchword.Coverage {
			return watchword.Coverage{Since: since, Through: time.Now(), Settle: 5 * time.Second}
		}
		f := watchword.Freshness{MaxStaleness: 10 * time.Second}
		decided(t, one(t, src, ledger{cover, questions(heard)}, f).Verify(t.Context(), watchword.Request{Token: "t"}), watchword.OK)
		if len(src.asked) != 2 {
			t.Errorf("asked %d times", len(src.asked))
		}
		src.asked = nil
		decided(t, one(t, src, ledger{cover, nothingHeld}, f).Verify(t.Context(), watchword.Request{Token: "t"}), watchword.OK)
		if len(src.asked) != 1 {
			t.Errorf("unquestioned, asked %d times", len(src.asked))
		}
	})
}

// The Verifier weighs what a Source returns: a Source that is content with too little changes nothing.
//
// Covers: T2 CAC-13 OUT-01
func TestT2TheSourceIsNotBelieved(t *testing.T) {
	t.Parallel()
	f := func(name string, bounds watchword.Freshness, age time.Duration, want watchword.Reason, questions int, word watchword.Degradation) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			old := time.Now()
			time.Sleep(age)
			src := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) { return asked(old), nil }}
			d := one(t, src, nil, bounds).Verify(t.Context(), watchword.Request{Token: "t"})
			decided(t, d, want)
			if len(src.asked) != questions || want == watchword.OK && (d.Age != age || d.Degraded != word) {
				t.Errorf("%s: asked %d times, age %v, %v", name, len(src.asked), d.Age, d.Degraded)
			}
		})
	}
	minute := watchword.Freshness{MaxStaleness: time.Minute}
	f("at the bound", minute, time.Minute, watchword.OK, 1, watchword.Whole)
	f("beyond it", minute, time.Minute+1, watchword.CannotKnow, 2, 0)
	f("zero asks every time", watchword.Freshness{}, 1, watchword.CannotKnow, 2, 0)
	grace := watchword.Freshness{MaxStaleness: time.Minute, StaleIfError: time.Minute}
	f("degraded", grace, 2*time.Minute, watchword.OK, 1, watchword.ServedStale)
	f("beyond the grace", grace, 2*time.Minute+1, watchword.CannotKnow, 2, 0)
}

func TestMaxStalenessZeroAsksEveryTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) {
			time.Sleep(10 * time.Millisecond) // a slow server; its answer was asked when it was asked
			return asked(time.Now().Add(-10 * time.Millisecond)), nil
		}}
		v := one(t, src, nil, watchword.Freshness{})
		for n := range 5 {
			d := v.Verify(t.Context(), watchword.Request{Token: "t"})
			decided(t, d, watchword.OK)
			if len(src.asked) != n+1 || d.Age != 0 || d.Source() != "issuer" {
				t.Errorf("asked %d times, age %v", len(src.asked), d.Age)
			}
			time.Sleep(time.Nanosecond)
		}
	})
}

// INT-11, T7: whether the token lives is judged when the decision is made, freshness when the check began.
func TestINT11_T7AliveAtTheDecision(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) {
			at := time.Now()
			time.Sleep(2 * time.Second)
			return watchword.ParseAnswer([]byte(`{"active":true,"expires_in":1}`), watchword.Evidence{Issuer: "main", Asked: at})
		}}
		decided(t, one(t, src, nil, watchword.Freshness{MaxStaleness: time.Hour}).Verify(t.Context(), watchword.Request{Token: "t"}), watchword.Expired)
		if len(src.asked) != 1 {
			t.Errorf("over is over: asked %d times", len(src.asked))
		}
	})
	synctest.Test(t, func(t *testing.T) { // an old active answer that is past its end is expired, not unknown
		a, err := watchword.ParseAnswer([]byte(`{"active":true,"expires_in":60}`), watchword.Evidence{Issuer: "main", Asked: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		src := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) { return a, nil }}
		decided(t, one(t, src, nil, watchword.Freshness{MaxStaleness: 2 * time.Hour, StaleIfError: time.Hour}).Verify(t.Context(), watchword.Request{Token: "t"}), watchword.Expired)
	})
}

// CHA-06, INT-18, INT-19, INT-20: what cannot be known is never a 401, and each kind has its Reason.
func TestCHA06_OUT01IgnoranceIsNoDenial(t *testing.T) {
	t.Parallel()
	want := map[watchword.Failure]watchword.Reason{watchword.Unavailable: watchword.CannotKnow, watchword.ProtocolError: watchword.CannotKnow, watchword.ClientRejected: watchword.Misconfigured,
		watchword.ConfigError: watchword.Misconfigured, watchword.Throttled: watchword.TooManyUnknown, watchword.Canceled: watchword.CallerLeft}
	f := func(err error, reason watchword.Reason) {
		t.Helper()
		src := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) { return nil, err }}
		d := one(t, src, nil, watchword.Freshness{}).Verify(t.Context(), watchword.Request{Token: "t"})
		decided(t, d, reason)
		if row := d.Reason.Row(); row.HTTP == 401 || row.HTTP < 400 || row.OAuth == "invalid_token" {
			t.Errorf("%v is %+v", err, row)
		}
		if d.Answer != nil || d.Source() != "none" || !errors.Is(d.Err, err) || len(src.asked) != 1 {
			t.Errorf("%v: %+v after %d questions", err, d, len(src.asked))
		}
		var e *watchword.Error
		if errors.As(err, &e) && d.RetryAfter != e.RetryAfter {
			t.Errorf("retry after %v", d.RetryAfter)
		}
	}
	for _, failure := range watchword.Failures() {
		f(&watchword.Error{Failure: failure, Issuer: "main", RetryAfter: 7 * time.Second}, want[failure])
		f(fmt.Errorf("wrapped: %w", &watchword.Error{Failure: failure}), want[failure])
	}
	f(&watchword.Error{}, watchword.Internal)
	f(&watchword.Error{Failure: 99}, watchword.Internal)
	f(errors.New("a source that does not keep its contract"), watchword.Internal)
}

// T18, T29: a panic anywhere becomes internal and says nothing of what it held; an observer's changes nothing.
func TestT18PanicsBecomeInternal(t *testing.T) {
	t.Parallel()
	boom := func(q watchword.Query) { panic("token " + string(q.Token) + " broke it") }
	ok := says(`{"active":true}`)
	explode := &fake{answer: func(_ int, q watchword.Query) (*watchword.Answer, error) { boom(q); return nil, nil }}
	nothing := &fake{answer: func(int, watchword.Query) (*watchword.Answer, error) { return nil, nil }}
	var runtime []int
	outOfRange := &fake{answer: func(n int, _ watchword.Query) (*watchword.Answer, error) { _ = runtime[n]; return nil, nil }}
	f := func(name string, src watchword.Source, l watchword.Ledger) {
		t.Helper()
		var seen []watchword.Decision
		v := verifier(t, watchword.Config{Source: src, Ledger: l, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: watchword.Policy{Name: "p"}}},
			Observers: []watchword.Observer{observer(func(r watchword.Request, _ watchword.Decision) { panic(string(r.Token)) }), nil, observer(func(_ watchword.Request, d watchword.Decision) { seen = append(seen, d) })}})
		want := watchword.Internal
		if name == "none" {
			want = watchword.OK
		}
		d := v.Verify(t.Context(), watchword.Request{Token: canary})
		decided(t, d, want)
		if want == watchword.Internal {
			if d.Answer != nil || d.Policy == nil || d.Policy.Name != "p" || d.Issuer != "main" || d.Allowed() {
				t.Errorf("%s: %+v", name, d)
			}
			clean(t, name, fmt.Sprintf("%v %+v", d.Err, d))
		}
		if len(seen) != 1 || seen[0].Reason != want {
			t.Errorf("%s: the last observer saw %v", name, seen)
		}
	}
	f("none", ok, nil)
	f("a source", explode, nil)
	f("a source without an answer", nothing, nil)
	f("a source's mistake", outOfRange, nil)
	f("coverage", ok, ledger{func(string) watchword.Coverage { panic(canary) }, nothingHeld})
	f("voids", ok, ledger{nothingHeard, func(q watchword.Query, _ *watchword.Answer) watchword.Void { boom(q); return watchword.Void{} }})
}

// Observers see every decision, those without a question too, in order.
func TestObserversSeeEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		watch := func(name string) watchword.Observer {
			return timed(func(r watchword.Request, d watchword.Decision, took time.Duration) {
				seen = append(seen, fmt.Sprint(name, " ", r.Door, " ", d.Reason, " ", took))
			})
		}
		src := &fake{answer: func(_ int, q watchword.Query) (*watchword.Answer, error) {
			time.Sleep(time.Second)
			return asked(q.At), nil
		}}
		v := verifier(t, watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main", Prefixes: []string{"t"}}}, Observers: []watchword.Observer{watch("1"), watch("2")},
			Routes: []watchword.Route{{Match: watchword.Match{Paths: []string{"/p"}}, Policy: watchword.Policy{Name: "p"}}}})
		for _, r := range []watchword.Request{{Token: "t", Path: "/p"}, {Path: "/p"}, {Token: "t"}, {Token: "x", Path: "/p"}} {
			r.Door = "d"
			v.Verify(t.Context(), r)
		}
		want := []string{"1 d ok 1s", "2 d ok 1s", "1 d no_token 0s", "2 d no_token 0s", "1 d policy 0s", "2 d policy 0s", "1 d unknown_issuer 0s", "2 d unknown_issuer 0s"}
		if !slices.Equal(seen, want) {
			t.Errorf("%q", seen)
		}
	})
}

type timed func(watchword.Request, watchword.Decision, time.Duration)

func (f timed) Observe(r watchword.Request, d watchword.Decision, took time.Duration) { f(r, d, took) }

func TestDecisionSource(t *testing.T) {
	t.Parallel()
	a := answer(t, `{"active":true}`)
	for want, d := range map[string]watchword.Decision{"none": {}, "issuer": {Answer: a}, "cache": {Answer: a, Age: 1}, "stale": {Answer: a, Degraded: watchword.ServedStale, Age: 1}} {
		if got := d.Source(); got != want {
			t.Errorf("%+v: %s", d, got)
		}
	}
}

// The caller's context reaches the Source.
func TestContextIsPassedOn(t *testing.T) {
	t.Parallel()
	type mark struct{}
	var got any
	src := watchword.SourceFunc(func(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
		got = ctx.Value(mark{})
		return asked(q.At), nil
	})
	one(t, src, nil, watchword.Freshness{}).Verify(context.WithValue(t.Context(), mark{}, 1), watchword.Request{Token: "t"})
	if got != 1 {
		t.Error(got)
	}
}

// A decision allocates nothing: every hit comes by here. (Not parallel: it counts allocations.)
func TestVerifyAllocatesNothing(t *testing.T) {
	a, err := watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann","aud":["x","api"],"scope":"read write","exp":4102444800,"expires_in":3600}`), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { return a, nil })
	cover := watchword.Coverage{Since: time.Now().Add(-time.Hour), Through: time.Now()}
	v := verifier(t, watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main", Prefixes: []string{"t_"}}, {Name: "other"}},
		Ledger:    ledger{func(string) watchword.Coverage { return cover }, nothingHeld},
		Observers: []watchword.Observer{timed(func(watchword.Request, watchword.Decision, time.Duration) {})},
		Routes: []watchword.Route{{Match: watchword.Match{Hosts: []string{"api.example"}, Paths: []string{"/orders/*"}, Methods: []string{"GET"}},
			Policy: watchword.Policy{Name: "p", Scopes: []string{"read"}, Audience: []string{"api"}, Freshness: watchword.Freshness{MaxStaleness: time.Hour, StaleIfError: time.Minute}}}}})
	r := watchword.Request{Door: "x", Token: "t_0123456789012345678901234567890123456789abc", Method: "GET", Host: "api.example:443", Path: "/orders/1", Tighten: &watchword.Freshness{MaxStaleness: time.Minute}}
	if d := v.Verify(t.Context(), r); d.Reason != watchword.OK {
		t.Fatal(d.Reason, d.Err)
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(200, func() { v.Verify(ctx, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
