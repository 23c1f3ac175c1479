package watchword_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// world is a random authorization server, at two issuers' names: what it says of a token depends on the token, the
// issuer and the time, and on nothing else.
type world struct {
	r      *rand.Rand
	start  time.Time
	tokens map[string]*fate // by issuer and token
	down   func(time.Time) bool
	slow   time.Duration
	mu     sync.Mutex // refreshes ask beside the test; guards what is below
	asked  int
}

// fate is what becomes of one token.
type fate struct {
	members string
	ends    time.Time     // by expires_in; zero: it does not say
	revoked time.Time     // from here on inactive; zero: never
	age     time.Duration // of every answer
}

func (w *world) fate(issuer string, token watchword.Token) *fate {
	key := issuer + " " + string(token)
	if f := w.tokens[key]; f != nil {
		return f
	}
	at := func(most int) time.Time { return w.start.Add(sec(w.r.IntN(most))) }
	sometimes := func(n int) bool { return w.r.IntN(n) == 0 }
	f := new(fate)
	pick := func(name string, of ...string) {
		if !sometimes(4) {
			f.members += fmt.Sprintf(`,%q:%s`, name, of[w.r.IntN(len(of))])
		}
	}
	pick("sub", `"ann"`, `"bob"`)
	pick("scope", `"read"`, `"read write"`, `"write"`, `""`)
	pick("aud", `"api"`, `["api","b"]`, `["b"]`, `[]`)
	if sometimes(3) {
		f.members += fmt.Sprintf(`,"exp":%d`, at(400).Unix())
	}
	if sometimes(4) {
		f.members += fmt.Sprintf(`,"nbf":%d`, at(60).Unix())
	}
	if sometimes(6) {
		f.members += `,"cnf":{"jkt":"x"}`
	}
	if sometimes(8) {
		f.members += `,"token_type":"refresh_token"`
	}
	if sometimes(3) {
		f.ends = at(400)
	}
	if sometimes(4) {
		f.age = sec(w.r.IntN(5))
	}
	if sometimes(6) {
		f.revoked = w.start
	}
	w.tokens[key] = f
	return f
}

// questions is how many there were.
func (w *world) questions() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

// Introspect implements watchword.Source.
func (w *world) Introspect(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
	w.mu.Lock()
	w.asked++
	f := w.fate(q.Issuer, q.Token)
	w.mu.Unlock()
	now := time.Now()
	if w.down != nil && w.down(now) {
		return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer}
	}
	body := `{"active":false}`
	if f.revoked.IsZero() || now.Before(f.revoked) {
		body = `{"active":true` + f.members
		if !f.ends.IsZero() {
			body += fmt.Sprintf(`,"expires_in":%d`, int(f.ends.Sub(now)/time.Second))
		}
		body += "}"
	}
	time.Sleep(w.slow)
	return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: now, Age: f.age, Leeway: sec(2)})
}

func (w *world) policies() (all []watchword.Policy) {
	some := func(of ...string) (list []string) {
		for _, s := range of {
			if w.r.IntN(3) == 0 {
				list = append(list, s)
			}
		}
		return list
	}
	for i := range 8 {
		all = append(all, watchword.Policy{Name: fmt.Sprint("p", i), Issuers: []string{[]string{"a", "b"}[w.r.IntN(2)]}, Scopes: some("read", "write"), Audience: some("api", "b"), Relay: w.r.IntN(4) == 0,
			Freshness: watchword.Freshness{MaxStaleness: sec(w.r.IntN(30) * min(1, w.r.IntN(4))), MaxAge: sec((30 + w.r.IntN(30)) * w.r.IntN(2)), StaleIfError: sec(w.r.IntN(20) * w.r.IntN(2))}})
		if p := &all[i]; !p.Relay {
			p.OnUnavailable = watchword.OnUnavailable(max(0, w.r.IntN(5)-2))
		}
	}
	return all
}

// inWorld runs f in a bubble with a random world, a Verifier with memory and one without.
func inWorld(t *testing.T, seed uint64, prepare func(*world), f func(t *testing.T, w *world, policies []watchword.Policy, warm, cold *watchword.Verifier)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{r: rand.New(rand.NewPCG(seed, 1)), start: time.Now(), tokens: map[string]*fate{}}
		prepare(w)
		memory, err := cache.New(cache.Config{Inactive: cache.Inactive{TTL: sec(w.r.IntN(10))}, RefreshAhead: cache.RefreshAhead{MinHits: 1}})
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Close()
		policies := w.policies()
		make := func(src watchword.Source) *watchword.Verifier {
			return verifier(t, watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "a"}, {Name: "b"}}, Callers: policies})
		}
		f(t, w, policies, make(memory.Over(w, 10*time.Minute)), make(w))
	})
}

// T1, T2: whatever was asked before, under whatever policy, a decision from memory is the decision that asking would
// have given. Here the server never changes its mind, so nothing but the clock makes a difference.
//
// Covers: PXY-05 POL-07
func TestT1_T2_T3HitIsMiss(t *testing.T) {
	t.Parallel()
	hits, reasons := 0, map[watchword.Reason]int{}
	for seed := range uint64(60) {
		inWorld(t, seed, func(w *world) {}, func(t *testing.T, w *world, policies []watchword.Policy, warm, cold *watchword.Verifier) {
			for range 120 {
				time.Sleep(sec(w.r.IntN(3)) + 1)
				time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // whole seconds: expires_in has no others
				r := watchword.Request{Token: watchword.Token(fmt.Sprint("t", w.r.IntN(6))), Caller: policies[w.r.IntN(8)].Name}
				if w.r.IntN(5) == 0 {
					r.Credential = &watchword.Credential{Authorization: fmt.Sprint("caller", w.r.IntN(2))}
				}
				before := w.questions()
				hot := warm.Verify(t.Context(), r)
				if w.questions() == before && hot.Answer != nil {
					hits++
				}
				want := cold.Verify(t.Context(), r)
				if hot.Reason != want.Reason || hot.Issuer != want.Issuer || (hot.Answer == nil) != (want.Answer == nil) || hot.Answer != nil && hot.Answer.Claims() != want.Answer.Claims() {
					t.Fatalf("seed %d, %s by %s at %v: from memory %v %v (age %v), asked %v %v", seed, string(r.Token), r.Caller, time.Since(w.start), hot.Reason, hot.Answer, hot.Age, want.Reason, want.Answer)
				}
				reasons[hot.Reason]++
			}
		})
	}
	if hits < 500 || len(reasons) < 7 {
		t.Errorf("%d hits, %v: the test shows little", hits, reasons)
	}
}

// The promise of DESIGN §2: a check that begins max_staleness after the server stopped calling a token active never
// accepts it, however often the token is used, whoever asked about it before, slow as the server may be; stale_if_error
// later while the server cannot answer. Every token is revoked at some time and the server is down now and then.
//
// Covers: CAC-13 T6 T14 OUT-01 OUT-02
func TestCAC13ThePromise(t *testing.T) {
	t.Parallel()
	accepted, words, late := 0, map[watchword.Degradation]int{}, time.Duration(0)
	for seed := range uint64(60) {
		prepare := func(w *world) {
			w.slow = []time.Duration{0, 100 * time.Millisecond, 3 * time.Second}[seed%3]
			if from := 20 + w.r.IntN(60); seed%2 == 0 {
				w.down = func(now time.Time) bool { since := now.Sub(w.start); return since >= sec(from) && since < sec(from+20) }
			}
			for _, issuer := range []string{"a", "b"} {
				for i := range 6 {
					w.tokens[fmt.Sprint(issuer, " t", i)] = &fate{members: `,"scope":"read write","aud":["api","b"]`, revoked: w.start.Add(sec(w.r.IntN(120)))}
				}
			}
		}
		inWorld(t, seed, prepare, func(t *testing.T, w *world, policies []watchword.Policy, warm, _ *watchword.Verifier) {
			for range 150 {
				time.Sleep(time.Duration(w.r.Int64N(int64(2 * time.Second))))
				p := policies[w.r.IntN(8)]
				began := time.Now()
				token := watchword.Token(fmt.Sprint("t", w.r.IntN(6)))
				d := warm.Verify(t.Context(), watchword.Request{Token: token, Caller: p.Name})
				after := began.Sub(w.fate(p.Issuers[0], token).revoked)
				bound := p.Freshness.MaxStaleness
				words[d.Degraded]++
				switch d.Degraded { // a degradation is where it is written, and only while the server is down
				case watchword.ServedStale:
					bound += p.Freshness.StaleIfError
				case watchword.ServedAnyAge, watchword.ServedUnknown:
					if p.OnUnavailable == watchword.Deny || (d.Answer == nil) != (d.Degraded == watchword.ServedUnknown) || d.Answer == nil && p.OnUnavailable != watchword.DangerouslyAllowUnknown {
						t.Fatalf("seed %d: %v by %v, with %v", seed, d.Degraded, p.OnUnavailable, d.Answer)
					}
					bound = time.Hour
				}
				if d.Degraded != watchword.Whole && (w.down == nil || !w.down(began) && !w.down(time.Now())) {
					t.Fatalf("seed %d: %v while the server was well", seed, d.Degraded)
				}
				switch {
				case d.Reason != watchword.OK:
					if d.Reason != watchword.Inactive && d.Reason != watchword.CannotKnow || d.Reason == watchword.CannotKnow && w.down == nil || d.Reason == watchword.Inactive && after < -w.slow {
						t.Fatalf("seed %d: %v (%v), %v after the revocation", seed, d.Reason, d.Err, after)
					}
				case after > bound:
					t.Fatalf("seed %d: accepted %v after the revocation, with a bound of %v (age %v)", seed, after, bound, d.Age)
				case d.Degraded != watchword.ServedAnyAge && d.Degraded != watchword.ServedUnknown:
					accepted++
					late = max(late, after)
				}
			}
		})
	}
	if accepted < 1000 || words[watchword.ServedStale] < 20 || words[watchword.ServedAnyAge] < 20 || words[watchword.ServedUnknown] < 10 || late < 10*time.Second {
		t.Errorf("%d accepted, %v, at most %v late: the test shows little", accepted, words, late)
	}
}

// T2: an entry that was filled by a policy with a long bound does not serve one with a short bound.
func TestT2ShortBoundAfterLongBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory, err := cache.New(cache.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Close()
		src := says(`{"active":true,"scope":"read"}`)
		v := verifier(t, watchword.Config{Source: memory.Over(src, time.Hour), Issuers: []watchword.Issuer{{Name: "main"}}, Callers: []watchword.Policy{
			{Name: "long", Freshness: watchword.Freshness{MaxStaleness: 10 * time.Minute}}, {Name: "short", Freshness: watchword.Freshness{MaxStaleness: 10 * time.Second}}, {Name: "scope", Scopes: []string{"write"}, Freshness: watchword.Freshness{MaxStaleness: 10 * time.Minute}}}})
		f := func(caller string, want watchword.Reason, questions int) {
			t.Helper()
			decided(t, v.Verify(t.Context(), watchword.Request{Token: "t", Caller: caller}), want)
			if len(src.asked) != questions {
				t.Errorf("%s: %d questions, want %d", caller, len(src.asked), questions)
			}
		}
		f("long", watchword.OK, 1)
		f("scope", watchword.InsufficientScope, 1) // T1: one route's yes is not another's
		time.Sleep(11 * time.Second)
		f("long", watchword.OK, 1)
		f("short", watchword.OK, 2)
		time.Sleep(10 * time.Second)
		f("short", watchword.OK, 2)
		f("scope", watchword.InsufficientScope, 2)
	})
}

// T6: a hit does not make evidence younger: asked for twice a bound, a token still costs one question per bound.
func TestT6HitsDoNotSlideTheBound(t *testing.T) {
	t.Parallel()
	const bound = 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		memory, err := cache.New(cache.Config{RefreshAhead: cache.RefreshAhead{MinHits: 1000}})
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Close()
		src := says(`{"active":true}`)
		v := one(t, memory.Over(src, time.Hour), nil, watchword.Freshness{MaxStaleness: bound})
		for range 10 { // five bounds
			if d := v.Verify(t.Context(), watchword.Request{Token: "t"}); d.Reason != watchword.OK || d.Age > bound {
				t.Fatal(d.Reason, d.Age)
			}
			time.Sleep(bound/2 + 1)
		}
		for i, q := range src.asked {
			if want := time.Duration(i) * 2 * (bound/2 + 1); q.At.Sub(src.asked[0].At) != want {
				t.Errorf("question %d after %v, want %v", i, q.At.Sub(src.asked[0].At), want)
			}
		}
		if len(src.asked) != 5 {
			t.Errorf("asked %d times in five bounds", len(src.asked))
		}
	})
}

// Age counts from the question, not from the answer: a slow server's word is as old as its question.
func TestCAC13SlowServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory, err := cache.New(cache.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer memory.Close()
		questions := 0
		src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
			questions++
			at := time.Now()
			time.Sleep(4 * time.Second)
			return asked(at), nil
		})
		v := one(t, memory.Over(src, time.Hour), nil, watchword.Freshness{MaxStaleness: 10 * time.Second})
		f := func(age time.Duration, want int) {
			t.Helper()
			if d := v.Verify(t.Context(), watchword.Request{Token: "t"}); d.Reason != watchword.OK || d.Age != age || questions != want {
				t.Errorf("%v, age %v, %d questions; want age %v, %d", d.Reason, d.Age, questions, age, want)
			}
		}
		f(0, 1)
		f(4*time.Second, 1)
		time.Sleep(6 * time.Second)
		f(10*time.Second, 1)
		time.Sleep(1)
		f(0, 2)
	})
}

// T7: an entry that nobody evicts is as dead as its token. The memory here never forgets.
func TestT7EvictionIsNotSafety(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{"active":true,"expires_in":5}`, `{"active":true,"exp":946684805}`} {
		synctest.Test(t, func(t *testing.T) {
			first, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: "main", Asked: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			frozen := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { return first, nil })
			memory, err := cache.New(cache.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer memory.Close()
			var verifiers []*watchword.Verifier
			for _, src := range []watchword.Source{frozen, memory.Over(frozen, 24*time.Hour)} {
				v := one(t, src, nil, watchword.Freshness{MaxStaleness: 24 * time.Hour, StaleIfError: 24 * time.Hour})
				decided(t, v.Verify(t.Context(), watchword.Request{Token: "t"}), watchword.OK)
				verifiers = append(verifiers, v)
			}
			time.Sleep(5*time.Second - 1)
			for _, want := range []watchword.Reason{watchword.OK, watchword.Expired, watchword.Expired} {
				for _, v := range verifiers {
					decided(t, v.Verify(t.Context(), watchword.Request{Token: "t"}), want)
				}
				time.Sleep(1)
			}
		})
	}
}
