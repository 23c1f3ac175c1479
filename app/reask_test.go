package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What revocations make Watchword ask, seen from the authorization server: a whole App, its doors and sockets, in real
// time. How exact the rate is shows in fake time, in package cache; here every check holds on a machine of any speed,
// as a slow one only asks later.

// ledgerOfQuestions is what the authorization server was asked, in order of arrival.
type ledgerOfQuestions struct {
	mu   sync.Mutex
	all  []questioned
	last map[string]time.Time
}

type questioned struct {
	token string
	at    time.Time
}

func (l *ledgerOfQuestions) told(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]time.Time{}
	}
	now := time.Now()
	l.all, l.last[token] = append(l.all, questioned{token, now}), now
}

// since are the questions from number n on.
func (l *ledgerOfQuestions) since(n int) []questioned {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all[n:])
}

func (l *ledgerOfQuestions) lastOf(token string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[token]
}

// questionedHome is a home that notes every question, and a folder with the secret of the caller "orders".
func questionedHome(t *testing.T) (as *home, asked *ledgerOfQuestions, dir string) {
	t.Helper()
	as, asked, dir = newHome(t), new(ledgerOfQuestions), t.TempDir()
	as.told = asked.told
	write(t, dir, "caller", "door")
	return as, asked, dir
}

// discovered waits until the server can be asked.
func (r *running) discovered() {
	r.t.Helper()
	until(r.t, func() bool { status, _ := r.introspect("door", "live-unused"); return status == 200 })
}

// within checks that no more was asked from an instant on than a rate allows: question k cannot have been sent before
// the bucket had k, and arrives later still.
func within(t *testing.T, all []questioned, from time.Time, perSecond, burst int) {
	t.Helper()
	for k, q := range all {
		if soonest := from.Add(time.Duration(k+1-burst) * time.Second / time.Duration(perSecond)); q.at.Before(soonest.Add(-time.Millisecond)) {
			t.Fatalf("question %d came %v after the first possible instant, at %d a second", k+1, q.at.Sub(from), perSecond)
		}
	}
}

// asks is what the introspection door says now: 200 and active, or 503 and when to come again; anything else fails.
func (r *running) asks(token string) (known bool) {
	r.t.Helper()
	resp, err := http.DefaultClient.Do(r.question("door", token))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var said struct{ Active bool }
	_ = json.NewDecoder(resp.Body).Decode(&said)
	switch {
	case resp.StatusCode == http.StatusOK && said.Active:
		return true
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return false
	}
	r.t.Fatalf("%s: %s, active %v", token, resp.Status, said.Active)
	return false
}

// A covering feed keeps tokens alive without a question. When it falls silent, they are asked about before their answers
// are too old, the hottest first, at the configured rate and never above; and no answer outlives the bound. Where the
// machine is too slow for a bound and its rate, all is tried again at half the pace.
func TestASilentFeedIsMetByAskingAtTheRate(t *testing.T) {
	t.Parallel()
	for bound := 4 * time.Second; !fallsSilent(t, bound); bound *= 2 {
		if bound > time.Minute {
			t.Fatal("nothing could be put to the test at any pace: early questions do not come, or this machine needs half a minute for an event")
		}
	}
}

// fallsSilent lets a feed fall silent. Whatever the machine, no answer outlives the bound and the rate is kept; but only a
// feed that kept the bound while it spoke, and a machine that asked early at the rate, say something of the rest: else it
// returns false.
func fallsSilent(t *testing.T, bound time.Duration) bool {
	const (
		tokens = 120
		hot    = 20 // of them, the last ones
	)
	perSecond := int(80 * time.Second / bound) // 40 in half the bound
	burst := max(1, perSecond/10)
	as, asked, dir := questionedHome(t)
	write(t, dir, "ssf", "ssf-secret-of-the-test")
	r := start(t, write(t, dir, "watchword.yaml", fmt.Sprintf(`
issuers: [{name: main, issuer: %[1]s, client_auth: {method: none}, timeout: 20s, covering: feed, skew: 0s, settle: 0s}]
freshness: {max_staleness: %[2]s}
revocation: {reask_per_second: %[3]d}
cache: {refresh_ahead: {min_hits: 1000000}} # what is merely old is refreshed at a rate of its own
doors:
  introspection: {listen: "127.0.0.1:0", callers: [{client_id: orders, client_secret: {file: caller}}]}
  events:
    listen: 127.0.0.1:0
    ssf: [{name: feed, issuer: main, transmitter: %[1]s, audience: watchword, path: /ssf, bearer: {file: ssf}, covers: [logout, token, user, client], keys: [sub], lag: 0s}]
admin: {listen: "127.0.0.1:0"}
`, as.URL, bound, perSecond)))
	r.discovered()

	// The transmitter says that it is alive, again and again.
	var through time.Time // of its last word
	var slowest time.Duration
	silence, silent := make(chan struct{}), make(chan struct{})
	spoken := make(chan struct{})
	hush := sync.OnceFunc(func() { close(silence) })
	defer hush()
	go func() {
		defer close(silent)
		for n := 0; ; n++ {
			now := time.Now()
			set := as.sign(t, "secevent+jwt", map[string]any{"iss": as.URL, "aud": "watchword", "iat": json.Number(fmt.Sprintf("%d.%06d", now.Unix(), now.Nanosecond()/1000)), "jti": fmt.Sprint("v", n),
				"sub_id": map[string]any{"format": "iss_sub", "iss": as.URL, "sub": "ann"}, "events": map[string]any{"https://schemas.openid.net/secevent/ssf/event-type/verification": map[string]any{}}})
			status, text := r.post("events", "/ssf", "application/secevent+jwt", set, "Authorization", "Bearer ssf-secret-of-the-test")
			if status != http.StatusAccepted {
				t.Errorf("a verification event: %d %s", status, text)
				return
			}
			if n == 0 {
				close(spoken)
			} else {
				slowest = max(slowest, time.Since(through))
			}
			through = now
			select {
			case <-time.After(200 * time.Millisecond):
			case <-silence:
				return
			}
		}
	}()
	select {
	case <-spoken:
	case <-silent:
		t.FailNow()
	}
	name := func(i int) string { return fmt.Sprintf("live-%03d", i) }
	before := len(asked.since(0))
	for i := range tokens {
		r.asks(name(i))
	}
	remembered := time.Now()
	round := func(each func(token string)) {
		for i := range tokens {
			times := 1
			if i >= tokens-hot {
				times = 16
			}
			for range times {
				each(name(i))
			}
		}
	}
	for time.Since(remembered) < bound+bound/4 {
		round(func(token string) { r.asks(token) })
	}
	n := len(asked.since(before))
	hush()
	<-silent
	if slowest = max(slowest, time.Since(through)); slowest > bound/2 {
		t.Logf("an event took %v to be delivered: nothing can be said of a feed that keeps a bound of %v", slowest, bound)
		return false
	}
	if n != tokens {
		t.Errorf("%d questions about %d tokens while the feed spoke", n, tokens)
	}

	// Silence. A hit is right only if its answer, or the feed's proof, is no older than the bound.
	early := through.Add(bound / 2)
	start := len(asked.since(0))
	known, unknown := 0, 0
	counted := -1 // questions until every token had a hit since it was due: until then the hottest are not known
	for time.Since(through) < bound+bound/2 {
		due := time.Now().After(early)
		round(func(token string) {
			began := time.Now()
			if !r.asks(token) {
				unknown++
				return
			}
			known++
			evidence := asked.lastOf(token)
			if evidence.Before(through) {
				evidence = through
			}
			if age := began.Sub(evidence); age > bound {
				t.Errorf("%s was accepted on evidence %v old", token, age)
			}
		})
		if due && counted < 0 {
			counted = len(asked.since(start))
		}
	}
	all := asked.since(start)
	within(t, all, early, perSecond, burst)
	soon := 0
	for _, q := range all {
		if q.at.Before(through.Add(bound)) {
			soon++
		}
	}
	if soon < hot || unknown == 0 || counted < 0 {
		t.Logf("at %d a second, %d questions before a bound of %v, %d decisions that nobody could make: too slow", perSecond, soon, bound, unknown)
		return false
	}
	// From then on hot ones come first, but for a few: tokens that share a place in the table of hits lose theirs. One
	// question may have been under way.
	left := hot
	for _, q := range all[:counted] {
		if q.token >= name(tokens-hot) {
			left--
		}
	}
	cold := 0
	for _, q := range all[min(counted+1, soon):soon] {
		switch {
		case q.token >= name(tokens-hot):
			left--
		case left > hot/4:
			cold++
		}
	}
	if cold > 2 {
		t.Errorf("%d cold tokens were asked about before three quarters of the hot ones", cold)
	}
	t.Logf("%d questions at %d a second in %v after the proof was half the bound old, %d of them before any answer was too old; %d cold ones before three quarters of %d hot; %d decisions known, %d not",
		len(all), perSecond, all[len(all)-1].at.Sub(early).Round(time.Millisecond), soon, cold, hot, known, unknown)
	return true
}

// An event that questions every remembered token: whoever comes is told to come again until its turn, and the server
// sees the rate and no more.
func TestARevalidationIsAskedAboutAtTheRate(t *testing.T) {
	t.Parallel()
	const perSecond, burst, tokens = 40, 4, 120
	as, asked, dir := questionedHome(t)
	write(t, dir, "ops", "ops-secret-of-the-test")
	r := start(t, write(t, dir, "watchword.yaml", fmt.Sprintf(`
issuers: [{name: main, issuer: %s, client_auth: {method: none}, timeout: 20s}]
freshness: {max_staleness: 1h}
revocation: {reask_per_second: %d}
doors: {introspection: {listen: "127.0.0.1:0", callers: [{client_id: orders, client_secret: {file: caller}}]}}
admin: {listen: "127.0.0.1:0", operators: [{name: ops, bearer: {file: ops}}]}
`, as.URL, perSecond)))
	r.discovered()
	for i := range tokens {
		r.asks(fmt.Sprint("live-", i))
	}
	start, began := len(asked.since(0)), time.Now()
	if status, text := r.post("admin", "/v1/revocations", "application/json", `{"issuer":"main","whole_issuer":true,"effect":"revalidate","why":"a backup was restored"}`, "Authorization", "Bearer ops-secret-of-the-test"); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	told := time.Now()
	unknown := 0
	for fresh := 0; fresh < tokens; {
		fresh = 0
		for i := range tokens {
			token := fmt.Sprint("live-", i)
			if !r.asks(token) {
				unknown++
				continue
			}
			if fresh++; asked.lastOf(token).Before(began) {
				t.Fatalf("%s was accepted by what was known before", token)
			}
		}
	}
	all := asked.since(start)
	within(t, all, began, perSecond, burst)
	if len(all) != tokens || unknown == 0 {
		t.Errorf("%d questions about %d tokens; %d decisions that nobody could make", len(all), tokens, unknown)
	}
	if _, page := r.get("admin", "/metrics"); !strings.Contains(page, `watchword_lookups_total{result="paced"} `+fmt.Sprint(unknown)) {
		t.Errorf("the metrics do not count them: %s", grep(page, "watchword_lookups_total"))
	}
	t.Logf("%d tokens were asked about in %v at %d a second; %d decisions that nobody could make meanwhile", len(all), all[len(all)-1].at.Sub(told).Round(time.Millisecond), perSecond, unknown)
}
