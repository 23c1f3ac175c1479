package drill

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/watchword-dev/watchword/authority"
)

const (
	perSecond    = 100
	warmTokens   = 50
	herdSize     = 1000
	recoverySoon = 5 * time.Second
	savedRetries = 3 // that quiet times may have saved up: docs/outages.md
)

// over cycles through tokens, and through the doors for each.
func (s *stage) over(tokens []string) func(i int) question {
	doors := s.target.Doors
	return func(i int) question {
		return question{door: &doors[i%len(doors)], token: tokens[i/len(doors)%len(tokens)]}
	}
}

// bound is how long evidence serves at most while the authorization server cannot answer.
func (s *stage) bound() time.Duration {
	return time.Duration(s.target.MaxStaleness) + time.Duration(s.target.StaleIfError)
}

// others says what became of those that were not accepted.
func others(all []sample) string {
	var b strings.Builder
	for o := accepted + 1; o < outcomes; o++ {
		if n := count(all, o); n > 0 {
			fmt.Fprintf(&b, ", %d %s", n, outcomeNames[o])
		}
	}
	return b.String()
}

// neverWrong is the promise of every outage: ignorance is no refusal.
func (s *stage) neverWrong(all []sample) {
	n := count(all, refused, forbidden)
	s.promise(n == 0, "no good token is called bad", "%d of %d decisions", n, len(all))
	n = count(all, failed)
	s.promise(n == 0, "every question has an answer", "%d of %d had none", n, len(all))
}

// saysWhen is the promise that who is told "not now" is told when.
func (s *stage) saysWhen(all []sample) {
	silent := 0
	for i := range all {
		if o := all[i].outcome; (o == unknown || o == throttled) && !all[i].retryAfter {
			silent++
		}
	}
	s.promise(silent == 0, "503 and 429 carry Retry-After", "%d did not, of %d", silent, count(all, unknown, throttled))
}

// recovers watches until everything is accepted again, and promises that it takes less than five seconds.
func (s *stage) recovers(ctx context.Context, tokens []string) []sample {
	s.phase("it is back")
	healed := time.Now()
	all := s.load(ctx, recoverySoon+s.Slack+2*time.Second, perSecond, s.over(tokens))
	last := healed
	for i := range all {
		if all[i].outcome != accepted && all[i].at.After(last) {
			last = all[i].at
		}
	}
	took := last.Sub(healed)
	s.promise(took < recoverySoon+s.Slack, "full recovery in less than 5s", "%.1f s", took.Seconds())
	return all
}

func herd(ctx context.Context, s *stage) error {
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	before := s.proxy.calls.Load()
	s.phase(fmt.Sprintf("%d requests for one cold token", herdSize))
	qs := make([]question, herdSize)
	for i := range qs {
		qs[i] = question{door: &s.target.Doors[0], token: token}
	}
	var all []sample
	slow := min(time.Duration(s.target.Timeout)/4, 125*time.Millisecond) // far from the timeout; who comes later finds the answer
	if err := s.broken(authority.Fault{Mode: authority.Delay, Delay: slow}, func() { all = s.atOnce(ctx, qs) }); err != nil {
		return err
	}
	calls := s.proxy.calls.Load() - before
	s.promise(calls == 1, "one cold token costs one call", "%d calls", calls)
	s.promise(count(all, accepted) == len(all), "every request is answered, and right", "%d of %d", count(all, accepted), len(all))
	return nil
}

func outage(ctx context.Context, s *stage) error {
	tokens, err := s.warm(ctx, warmTokens)
	if err != nil {
		return err
	}
	s.phase("all is well")
	all := s.load(ctx, s.Unit, perSecond, s.over(tokens))
	s.phase("the authorization server is gone")
	gone, before, missed := time.Now(), s.proxy.calls.Load(), s.missed(ctx)
	var during []sample
	err = s.broken(authority.Fault{Mode: authority.Drop}, func() {
		during = s.load(ctx, s.bound()+s.Slack+s.Unit, perSecond, s.over(tokens))
	})
	if err != nil {
		return err
	}
	calls := s.proxy.calls.Load() - before
	if missed >= 0 {
		missed = s.missed(ctx) - missed
		s.promise(float64(calls) <= 1.1*missed+savedRetries, "the server is asked at most 1.1 times for a question that memory cannot answer", "%d calls for %.0f such questions", calls, missed)
	}
	stale := time.Duration(s.target.StaleIfError)
	early, late := 0, 0
	for i := range during {
		began := during[i].at.Sub(gone)
		ok := during[i].outcome == accepted || during[i].outcome == degraded
		if began < stale && !ok {
			early++
		}
		if began > s.bound()+s.Slack && ok {
			late++
		}
	}
	s.promise(early == 0, "known tokens serve for stale_if_error", "%d were not accepted in the first %v", early, stale)
	s.promise(late == 0, "nothing is accepted past max_staleness + stale_if_error", "%d accepted after %v", late, s.bound())
	s.promise(int(calls) <= len(during), "an outage is not answered with a storm of retries", "%d calls for %d questions", calls, len(during))
	s.saysWhen(during)
	all = append(append(all, during...), s.recovers(ctx, tokens)...)
	s.neverWrong(all)
	return nil
}

func latency(ctx context.Context, s *stage) error {
	timeout := time.Duration(s.target.Timeout)
	cold := func(n int) ([]question, error) {
		tokens, err := s.tokens(ctx, n)
		qs := make([]question, len(tokens))
		for i := range qs {
			qs[i] = question{door: &s.target.Doors[0], token: tokens[i]}
		}
		return qs, err
	}
	slow, err := cold(20)
	if err != nil {
		return err
	}
	tooSlow, err := cold(20)
	if err != nil {
		return err
	}
	warm, err := s.warm(ctx, warmTokens)
	if err != nil {
		return err
	}
	var first, second, hits []sample
	s.phase("it answers within the timeout")
	if err := s.broken(authority.Fault{Mode: authority.Delay, Delay: timeout / 3}, func() { first = s.atOnce(ctx, slow) }); err != nil {
		return err
	}
	s.phase("it answers too late")
	err = s.broken(authority.Fault{Mode: authority.Delay, Delay: 3 * timeout}, func() {
		done := make(chan struct{})
		go func() { second = s.atOnce(ctx, tooSlow); close(done) }()
		hits = s.load(ctx, time.Duration(s.target.StaleIfError), perSecond, s.over(warm))
		<-done
	})
	if err != nil {
		return err
	}
	s.promise(count(first, accepted) == len(first), "a slow answer is an answer", "%d of %d accepted", count(first, accepted), len(first))
	slowest := time.Duration(0)
	for i := range second {
		slowest = max(slowest, second[i].took)
	}
	s.promise(count(second, unknown) == len(second), "no answer is 503", "%d of %d", count(second, unknown), len(second))
	s.promise(slowest <= timeout+100*time.Millisecond+s.Slack, "503 comes within the timeout", "the last after %d ms, the timeout is %v", slowest.Milliseconds(), timeout)
	s.promise(count(hits, accepted, degraded) == len(hits), "known tokens do not notice", "%d of %d accepted", count(hits, accepted, degraded), len(hits))
	s.saysWhen(second)
	s.neverWrong(slices.Concat(first, second, hits))
	return nil
}

func rateLimit(ctx context.Context, s *stage) error {
	tokens, err := s.warm(ctx, warmTokens)
	if err != nil {
		return err
	}
	pause := (s.bound() + 2*time.Second).Truncate(time.Second)
	s.phase(fmt.Sprintf("it answers 429, Retry-After: %.0f", pause.Seconds()))
	var during []sample
	var calls int64
	err = s.broken(authority.Fault{Mode: authority.Status, Status: http.StatusTooManyRequests, RetryAfter: pause}, func() {
		before := s.proxy.calls.Load()
		for s.proxy.calls.Load() == before && ctx.Err() == nil { // until it is asked once
			during = append(during, s.load(ctx, 100*time.Millisecond, perSecond, s.over(tokens))...)
		}
		heard := s.proxy.calls.Load()
		during = append(during, s.load(ctx, pause-time.Second, perSecond, s.over(tokens))...)
		calls = s.proxy.calls.Load() - heard
	})
	if err != nil {
		return err
	}
	s.promise(calls == 0, "nobody asks before Retry-After", "%d calls meanwhile, for %d questions", calls, len(during))
	s.saysWhen(during)
	s.neverWrong(append(during, s.recovers(ctx, tokens)...))
	return nil
}

func skew(ctx context.Context, s *stage) error {
	for _, off := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		s.proxy.off.Store(int64(off))
		s.phase(fmt.Sprintf("its clock is off by %v", off))
		token, err := s.token(ctx)
		if err != nil {
			return err
		}
		issued := time.Now()
		life := time.Hour
		if s.embedded != nil {
			life = s.embedded.config.AccessTokenLifetime
		}
		watch := min(life, 10*s.Unit) + time.Duration(s.target.MaxStaleness) + s.Slack + s.Unit
		all := s.load(ctx, watch, perSecond/2, s.over([]string{token}))
		late := 0
		for i := range all {
			if all[i].at.Sub(issued) > life+time.Duration(s.target.MaxStaleness)+s.Slack && count(all[i:i+1], accepted, degraded) == 1 {
				late++
			}
		}
		s.promise(late == 0, fmt.Sprintf("off by %v: no token outlives its end", off), "%d accepted after %v", late, life)
		if shown := s.metric(ctx, "watchword_issuer_clock_offset_seconds", ""); s.embedded != nil {
			wrong := time.Duration(shown*float64(time.Second)) - off
			s.promise(wrong.Abs() <= 2*time.Second, fmt.Sprintf("off by %v: the metrics show it", off), "watchword_issuer_clock_offset_seconds is %.1f", shown)
		}
		s.promise(count(all, failed) == 0, fmt.Sprintf("off by %v: every question has an answer", off), "%d of %d had none", count(all, failed), len(all))
	}
	s.proxy.off.Store(0)
	return nil
}

func spray(ctx context.Context, s *stage) error {
	const random, good = 5000, 100
	fresh, err := s.tokens(ctx, good)
	if err != nil {
		return err
	}
	known, err := s.warm(ctx, warmTokens)
	if err != nil {
		return err
	}
	s.phase(fmt.Sprintf("%d random tokens from one client, %d good new ones from others", random, good))
	began, before := time.Now(), s.proxy.calls.Load()
	prefix := ""
	if s.embedded != nil {
		prefix = authority.TokenPrefix
	}
	length := time.Duration(random) * time.Second / (10 * perSecond)
	var flood []sample
	done := make(chan struct{})
	go func() {
		defer close(done)
		flood = s.load(ctx, length, 10*perSecond, func(int) question {
			return question{door: s.gateway, token: prefix + rand.Text(), peer: "198.51.100.66"}
		})
	}()
	arrive := s.load(ctx, length, int(float64(good)/length.Seconds()), func(i int) question {
		return question{door: s.gateway, token: fresh[i%len(fresh)], peer: fmt.Sprintf("203.0.113.%d", i%200)}
	})
	<-done
	hits := s.load(ctx, s.Unit, perSecond, s.over(known))
	calls, budget := s.proxy.calls.Load()-before, 1000+100*int64(time.Since(began).Seconds()+1)+int64(good+len(hits))
	s.promise(count(arrive, accepted) == len(arrive), "good new tokens are accepted meanwhile", "%d of %d%s", count(arrive, accepted), len(arrive), others(arrive))
	s.promise(count(flood, accepted, degraded) == 0, "no random token is accepted", "of %d", len(flood))
	s.promise(count(hits, accepted) == len(hits), "known tokens do not notice", "%d of %d accepted", count(hits, accepted), len(hits))
	s.promise(calls <= budget, "the authorization server is asked within the budget", "%d calls, %d are allowed", calls, budget)
	s.saysWhen(flood)
	s.promise(count(flood, failed) == 0, "every question has an answer", "%d of %d had none", count(flood, failed), len(flood))
	return nil
}

func storm(ctx context.Context, s *stage) error {
	tokens, err := s.warm(ctx, 2*warmTokens)
	if err != nil {
		return err
	}
	s.phase("it calls every token inactive")
	var during []sample
	err = s.broken(authority.Fault{Mode: authority.LieInactive}, func() {
		during = s.load(ctx, time.Duration(s.target.MaxStaleness)+s.Unit, perSecond, s.over(tokens))
	})
	if err != nil {
		return err
	}
	wrong := map[string]bool{}
	for i := range during {
		if during[i].outcome == refused {
			wrong[during[i].token] = true
		}
	}
	most := 2 * s.target.StormAtLeast
	s.promise(len(wrong) <= most, "a storm of lies is noticed", "%d of %d good tokens were called bad before it was; at most %d may be", len(wrong), len(tokens), most)
	s.promise(count(during, unknown) > 0, "then the answer is 503, not 401", "%d of %d decisions", count(during, unknown), len(during))
	s.saysWhen(during)
	s.recovers(ctx, tokens)
	return nil
}

func rotate(ctx context.Context, s *stage) error {
	tokens, err := s.warm(ctx, warmTokens)
	if err != nil {
		return err
	}
	s.phase("the old secret is good")
	all := s.load(ctx, s.Unit, perSecond, s.over(tokens))
	if err := s.embedded.rotate(); err != nil {
		return err
	}
	s.phase("only the new secret is good")
	all = append(all, s.load(ctx, time.Duration(s.target.MaxStaleness)+s.Unit, perSecond, s.over(tokens))...)
	s.promise(count(all, accepted) == len(all), "a rotation goes unnoticed", "%d of %d accepted", count(all, accepted), len(all))
	s.neverWrong(all)
	return nil
}

func revoke(ctx context.Context, s *stage) error {
	bound := time.Duration(cmp.Or(s.target.RevocationBound, s.target.MaxStaleness))
	if err := s.revokes(ctx, "at revocation_endpoint", s.target.RevocationEndpoint, bound, bound+s.Slack); err != nil || s.target.PassThrough == "" {
		return err
	}
	bound = time.Duration(s.target.PassThroughBound)
	limit := bound
	if bound > 0 { // else the first question after the answer is refused, however slow the machine
		limit += s.Slack
	}
	return s.revokes(ctx, "through Watchword", s.target.PassThrough, bound, limit)
}

// refusal is how long after a revocation a door accepted the token, and how often it did past a limit.
type refusal struct {
	after time.Duration
	late  int
	err   error
}

// refuses asks a door about a revoked token until it refuses it.
func (s *stage) refuses(ctx context.Context, d *Door, token string, revoked time.Time, limit time.Duration) (r refusal) {
	for {
		got := s.ask(ctx, question{door: d, token: token})
		if r.err = ctx.Err(); r.err != nil {
			return r
		}
		r.after = max(0, got.at.Sub(revoked))
		switch {
		case got.outcome == refused:
			return r
		case r.after > limit && (got.outcome == accepted || got.outcome == degraded):
			r.late++
		}
		if r.after > limit+10*time.Second {
			r.err = fmt.Errorf("%s does not refuse a revoked token for %v", d.name(), r.after)
			return r
		}
		time.Sleep(5 * time.Millisecond) // so that a drill is no flood
	}
}

// revokes revokes tokens at an endpoint and watches how long each door accepts them; none may past limit.
func (s *stage) revokes(ctx context.Context, way, at string, bound, limit time.Duration) error {
	const samples = 10
	took := make([][]time.Duration, len(s.target.Doors))
	late := 0
	for n := range samples {
		if n%5 == 0 {
			s.phase(fmt.Sprintf("token %d of %d is revoked %s", n+1, samples, way))
		}
		tokens, err := s.warm(ctx, 1)
		if err != nil {
			return err
		}
		if err := s.revoke(ctx, at, tokens[0]); err != nil {
			return err
		}
		revoked := time.Now()
		refusals := make([]refusal, len(took))
		var wait sync.WaitGroup
		for i := range took { // at once: none is asked later because another takes long
			wait.Go(func() { refusals[i] = s.refuses(ctx, &s.target.Doors[i], tokens[0], revoked, limit) })
		}
		wait.Wait()
		for i, r := range refusals {
			if r.err != nil {
				return r.err
			}
			took[i], late = append(took[i], r.after), late+r.late
		}
	}
	for i, all := range took {
		slices.Sort(all)
		ms := func(share float64) float64 {
			return float64(all[min(len(all)-1, int(share*float64(len(all))))].Microseconds()) / 1000
		}
		s.nodes = append(s.nodes, Node{s.target.Doors[i].name(), way, len(all), ms(.5), ms(.99), ms(1)})
	}
	s.promise(late == 0, "no token that was revoked "+way+" is accepted past the bound", "%d accepted later than %v after the revocation", late, bound)
	return nil
}
