package watchword_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
)

// A Verifier over a Source that knew something once and now fails, and what comes of it by the words of the policy.
//
// Covers: OUT-01 OUT-02
func TestOUT02EveryWord(t *testing.T) {
	t.Parallel()
	const (
		bound = 10 * time.Second
		grace = 20 * time.Second
	)
	down := &watchword.Error{Failure: watchword.Unavailable}
	doubted := &watchword.Error{Failure: watchword.Unavailable, Doubted: true}
	f := func(name string, p watchword.Policy, age time.Duration, err error, want watchword.Reason, word watchword.Degradation) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			var known *watchword.Answer
			if age >= 0 {
				known = asked(time.Now())
				time.Sleep(age)
			}
			src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { return known, err })
			p.Name, p.Freshness = "p", watchword.Freshness{MaxStaleness: bound, StaleIfError: grace}
			v := verifier(t, watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: p}}})
			d := v.Verify(t.Context(), watchword.Request{Token: "t"})
			if d.Reason != want || d.Degraded != word || want == watchword.OK && (d.Answer != known || !errors.Is(d.Err, err)) {
				t.Errorf("%s: %v %q (%v), want %v %q", name, d.Reason, d.Degraded, d.Err, want, word)
			}
			if d.Degraded != watchword.Whole && d.Source() == "cache" {
				t.Errorf("%s: source %s", name, d.Source())
			}
		})
	}
	deny := watchword.Policy{}
	allow := watchword.Policy{OnUnavailable: watchword.DangerouslyAllow}
	unknown := watchword.Policy{OnUnavailable: watchword.DangerouslyAllowUnknown}
	hold := watchword.Policy{DangerouslyHold: true}
	never := time.Duration(-1)
	f("within the bound", deny, bound, down, watchword.OK, watchword.Whole)
	f("stale", deny, bound+1, down, watchword.OK, watchword.ServedStale)
	f("stale to the end", deny, bound+grace, down, watchword.OK, watchword.ServedStale)
	f("beyond", deny, bound+grace+1, down, watchword.CannotKnow, watchword.Whole)
	f("deny, never seen", deny, never, down, watchword.CannotKnow, watchword.Whole)
	f("allow names the milder word", allow, bound+grace, down, watchword.OK, watchword.ServedStale)
	f("allow", allow, bound+grace+1, down, watchword.OK, watchword.ServedAnyAge)
	f("allow, an age ago", allow, 1000*time.Hour, down, watchword.OK, watchword.ServedAnyAge)
	f("allow, never seen", allow, never, down, watchword.CannotKnow, watchword.Whole)
	f("unknown, known", unknown, bound+grace+1, down, watchword.OK, watchword.ServedAnyAge)
	f("unknown", unknown, never, down, watchword.OK, watchword.ServedUnknown)
	f("unknown, and we are refused", unknown, never, &watchword.Error{Failure: watchword.ClientRejected}, watchword.OK, watchword.ServedUnknown)
	for _, mine := range []watchword.Failure{watchword.Throttled, watchword.Canceled} { // a peer cannot talk its way to it
		reason := map[watchword.Failure]watchword.Reason{watchword.Throttled: watchword.TooManyUnknown, watchword.Canceled: watchword.CallerLeft}[mine]
		for _, age := range []time.Duration{never, bound + 1, bound + grace + 1} {
			f(fmt.Sprint(mine, age), unknown, age, &watchword.Error{Failure: mine}, reason, watchword.Whole)
		}
	}
	for _, p := range []watchword.Policy{deny, allow, unknown} { // somebody says inactive, believed or not
		for _, age := range []time.Duration{never, bound, bound + 1, bound + grace + 1} {
			f(fmt.Sprint("doubted ", p.OnUnavailable, age), p, age, doubted, watchword.CannotKnow, watchword.Whole)
		}
	}
	f("hold", hold, bound+grace, doubted, watchword.OK, watchword.ServedOnHold)
	f("hold is bounded", hold, bound+grace+1, doubted, watchword.CannotKnow, watchword.Whole)
	f("hold, never seen", hold, never, doubted, watchword.CannotKnow, watchword.Whole)
	f("hold is for doubt only", hold, bound+1, down, watchword.OK, watchword.ServedStale)
	hold.OnUnavailable = watchword.DangerouslyAllowUnknown
	f("hold is bounded whatever else is allowed", hold, bound+grace+1, doubted, watchword.CannotKnow, watchword.Whole)
	refused := &watchword.Error{Failure: watchword.ClientRejected, Rejection: &watchword.Rejection{Status: 401}}
	f("the caller's own credential is refused", unknown, bound+1, refused, watchword.Misconfigured, watchword.Whole)
	f("a fault of our own", unknown, bound+grace+1, errors.New("x"), watchword.OK, watchword.ServedAnyAge)
}

// No word of a policy reaches a token that is revoked, questioned or over, nor what is no token.
//
// Covers: OUT-02
func TestOUT02WhatNoWordAllows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		known := asked(start)
		void, of := watchword.Void{}, 0
		l := ledger{nothingHeard, func(q watchword.Query, a *watchword.Answer) watchword.Void {
			if a == nil {
				of++
			}
			return void
		}}
		down := &watchword.Error{Failure: watchword.Unavailable}
		src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) { return known, down })
		p := watchword.Policy{Name: "p", Issuers: []string{"main"}, OnUnavailable: watchword.DangerouslyAllowUnknown, DangerouslyHold: true, Freshness: watchword.Freshness{StaleIfError: time.Hour}}
		v := verifier(t, watchword.Config{Source: src, Ledger: l, Issuers: []watchword.Issuer{{Name: "main", Prefixes: []string{"t"}}, {Name: "other"}}, Routes: []watchword.Route{{Policy: p}}})
		f := func(name string, r watchword.Request, want watchword.Reason) {
			t.Helper()
			if d := v.Verify(t.Context(), r); d.Reason != want || d.Degraded != watchword.Whole && want != watchword.OK {
				t.Errorf("%s: %v %q, want %v", name, d.Reason, d.Degraded, want)
			}
		}
		time.Sleep(time.Minute)
		token := watchword.Request{Token: "t"}
		f("known", token, watchword.OK)
		void = watchword.Void{Questioned: start.Add(time.Second)}
		f("questioned", token, watchword.CannotKnow)
		void = watchword.Void{Revoked: true}
		f("revoked", token, watchword.Revoked)
		known = nil
		f("revoked, and nothing else is known", token, watchword.Revoked)
		void = watchword.Void{Questioned: start}
		f("questioned, and nothing else is known", token, watchword.CannotKnow)
		void = watchword.Void{}
		f("nothing is known", token, watchword.OK)
		if of != 3 {
			t.Errorf("the ledger was asked %d times about strangers, want 3", of)
		}
		known = answerOf(t, fmt.Sprintf(`{"active":true,"exp":%d}`, time.Now().Unix()), watchword.Evidence{Issuer: "main", Asked: start})
		f("over", token, watchword.Expired)
		f("no token", watchword.Request{}, watchword.NoToken)
		f("malformed", watchword.Request{Token: "t t"}, watchword.MalformedToken)
		f("nobody's", watchword.Request{Token: "x"}, watchword.UnknownIssuer)
		f("no request", watchword.Request{Token: "t", Problem: watchword.InvalidRequest}, watchword.InvalidRequest)
		known = asked(start)
		f("who asks sets the limit", watchword.Request{Token: "t", Tighten: &watchword.Freshness{StaleIfError: 59 * time.Second}}, watchword.CannotKnow)
		f("who asks sets the limit", watchword.Request{Token: "t", Tighten: &watchword.Freshness{StaleIfError: time.Minute}}, watchword.OK)
	})
}

// A question that is heard while the server is down is no way to become a stranger.
func TestOUT02AQuestionedTokenIsNoStranger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := &fake{answer: func(n int, q watchword.Query) (*watchword.Answer, error) {
			if n == 1 {
				return asked(q.At.Add(-time.Second)), nil
			}
			return nil, &watchword.Error{Failure: watchword.Unavailable} // it was evicted meanwhile
		}}
		l := ledger{nothingHeard, func(q watchword.Query, a *watchword.Answer) watchword.Void {
			if a == nil {
				return watchword.Void{}
			}
			return watchword.Void{Questioned: q.At}
		}}
		v := verifier(t, watchword.Config{Source: src, Ledger: l, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: watchword.Policy{
			OnUnavailable: watchword.DangerouslyAllowUnknown, Freshness: watchword.Freshness{MaxStaleness: time.Minute}}}}})
		decided(t, v.Verify(t.Context(), watchword.Request{Token: "t"}), watchword.CannotKnow)
		if len(src.asked) != 2 {
			t.Errorf("asked %d times", len(src.asked))
		}
	})
}

// A mode stands instead of the policy's word, loosens or tightens, and ends by itself.
func TestModeEndsByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		known := asked(time.Now())
		src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
			return known, &watchword.Error{Failure: watchword.Unavailable}
		})
		time.Sleep(time.Minute)
		until := time.Now().Add(time.Minute)
		v := verifier(t, watchword.Config{Source: src, Issuers: []watchword.Issuer{{Name: "main"}},
			Routes: []watchword.Route{
				{Match: watchword.Match{Hosts: []string{"strict"}}, Policy: watchword.Policy{Name: "strict"}},
				{Match: watchword.Match{Hosts: []string{"lax"}}, Policy: watchword.Policy{Name: "lax", OnUnavailable: watchword.DangerouslyAllow}},
				{Policy: watchword.Policy{Name: "rest"}}},
			Modes: map[string]watchword.Mode{"strict": {OnUnavailable: watchword.DangerouslyAllow, Until: until}, "lax": {Until: until}}})
		f := func(host string, want watchword.Reason) {
			t.Helper()
			decided(t, v.Verify(t.Context(), watchword.Request{Token: "t", Host: host}), want)
		}
		time.Sleep(time.Minute - 1)
		f("strict", watchword.OK)
		f("lax", watchword.CannotKnow)
		f("rest", watchword.CannotKnow)
		time.Sleep(1)
		f("strict", watchword.CannotKnow)
		f("lax", watchword.OK)
	})
}

func TestOnUnavailableIsChecked(t *testing.T) {
	t.Parallel()
	f := func(p watchword.Policy, mode watchword.OnUnavailable, want string) {
		t.Helper()
		p.Name = "p"
		c := watchword.Config{Source: says("{}"), Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: p}}, Modes: map[string]watchword.Mode{"p": {OnUnavailable: mode}}}
		if _, err := watchword.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	f(watchword.Policy{OnUnavailable: 3}, 0, "OnUnavailable 3")
	f(watchword.Policy{Relay: true, OnUnavailable: watchword.DangerouslyAllowUnknown}, 0, "does not go with Relay")
	f(watchword.Policy{Relay: true}, watchword.DangerouslyAllowUnknown, "does not go with Relay")
	for o := range watchword.OnUnavailable(4) {
		if back, ok := watchword.ParseOnUnavailable(o.String()); o < 3 && (!ok || back != o) || o == 3 && back != watchword.Deny {
			t.Errorf("%d is %q, which is %d", o, o, back)
		}
	}
	if _, ok := watchword.ParseOnUnavailable("allow"); ok {
		t.Error("allow without its adverb")
	}
}
