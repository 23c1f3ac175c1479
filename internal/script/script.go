// Package script plays timed scenarios, for tests: an authorization server that is told what to answer, the cache and
// a Verifier, in the fake time of a testing/synctest bubble. One statement a line, # begins a comment:
//
//	policy [NAME] max_staleness=30s max_age=10m stale_if_error=1m scopes=a,b audience=api relay   (before all else)
//	       on_unavailable=dangerously_allow hold recheck=0.1 recheck_on=client_ip,user_agent
//	tier [NAME] client=batch scope=a audience=b tenant=acme subject=client max_staleness=2s max_age=1m stale_if_error=0s
//	                                 tighter bounds for some tokens of a policy before it                (before all else)
//	cache inactive=5s refresh_after=0.75 timeout=2s                                               (before all else)
//	ledger settle=5s skew=2s remember=1m max_token_life=1h keys=sub log                           (before all else)
//	                                 log: a restart replays it
//	at 5s …                          sleeps until five seconds after the start; a statement may follow
//	token t1 sub=ann client=app session=s tenant=acme jti=j scope=a,b aud=api exp=60s nbf=1s iat=-5m expires_in=90s
//	                                 the server knows t1; instants count from the start
//	as down | up | slow 3s | lag 3s | lying | revoke t1 | restore t1
//	                                 lag: what is revoked stays active so long; lying: an inactive answer is doubted, as
//	                                 in a storm of them
//	deny | revalidate | operator deny  sub=ann client=app session=s tenant=acme | token=t1 | jti=j | whole  [at=3s]
//	                                 an event, which happened then; signal session-revoked ann: one as SSF says it
//	cover [-2s] | gap | restart      a proof of the covering feed until now, or then; a hole in it; a new Ledger
//	chance 0.05                      what a draw for recheck gives from here on; until then 0.5
//	check t1 [by NAME] [from IP] [agent UA] -> REASON asked=2 age=5s source=cache degraded=stale
//	                                 one decision; asked counts the questions to the server since the start
//	ask t1 [by NAME] [from IP] [agent UA] … got t1 -> …   one that begins here and ends there
package script

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// Run plays text in a bubble of its own and fails t at the first line that does not come true.
func Run(t *testing.T, text string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if err := Play(text); err != nil {
			t.Error(err)
		}
	})
}

// Play plays text. It must be called in a bubble. The error names the line, what it wanted and what happened.
func Play(text string) error {
	s := &stage{chance: 0.5, start: time.Now(), as: &server{tokens: map[string]*token{}}, waiting: map[string]chan watchword.Decision{}}
	defer s.close()
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if err := s.play(words); err != nil {
			return fmt.Errorf("line %d: %s\n%v after the start: %w", n, strings.Join(words, " "), time.Since(s.start), err)
		}
	}
	if s.checks == 0 {
		return errors.New("the script checks nothing")
	}
	return nil
}

type stage struct {
	start    time.Time
	as       *server
	config   cache.Config
	policies []watchword.Policy
	heard    heard
	memory   *cache.Cache
	source   watchword.Source
	verifier *watchword.Verifier
	waiting  map[string]chan watchword.Decision // by token
	checks   int
	chance   float64 // what a draw gives
}

func (s *stage) close() {
	for _, c := range s.waiting {
		<-c
	}
	s.heard.clean()
	if s.memory != nil {
		synctest.Wait()
		s.memory.Close()
	}
}

func (s *stage) play(words []string) error {
	verb, rest := words[0], words[1:]
	if set := (map[string]func([]string) error{"policy": s.policy, "tier": s.tier, "cache": s.cache, "ledger": s.ledger})[verb]; set != nil {
		if s.verifier != nil {
			return errors.New("comes before all else")
		}
		return set(rest)
	}
	if err := s.build(); err != nil {
		return err
	}
	if slices.Contains([]string{"deny", "revalidate", "operator", "signal", "cover", "gap", "restart"}, verb) {
		return s.hear(words)
	}
	act := map[string]func([]string) error{"at": s.at, "token": s.as.learn(s.start), "as": s.as.obey, "chance": s.draw, "check": s.check, "ask": s.ask, "got": s.got}[verb]
	if act == nil {
		return fmt.Errorf("%q is no statement", verb)
	}
	if len(rest) == 0 {
		return errors.New("says too little")
	}
	return act(rest)
}

func (s *stage) at(words []string) error {
	d, err := time.ParseDuration(words[0])
	if err != nil {
		return err
	}
	if d < time.Since(s.start) {
		return errors.New("that is over")
	}
	if time.Sleep(time.Until(s.start.Add(d))); len(words) == 1 {
		return nil
	}
	return s.play(words[1:])
}

// settings reads key=value words with the readers of what is known; a word without = has an empty value.
func settings(words []string, known map[string]func(string) error) error {
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		read := known[key]
		if read == nil {
			return fmt.Errorf("%q is not known", w)
		}
		if err := read(value); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	return nil
}

func duration(d *time.Duration) func(string) error {
	return func(v string) (err error) { *d, err = time.ParseDuration(v); return err }
}

func list(l *[]string) func(string) error {
	return func(v string) error { *l = strings.Split(v, ","); return nil }
}

func (s *stage) policy(words []string) error {
	p := watchword.Policy{Name: "default"}
	if len(words) > 0 && !strings.Contains(words[0], "=") && words[0] != "relay" {
		p.Name, words = words[0], words[1:]
	}
	probability, onChange := rechecks(&p.Recheck)
	err := settings(words, map[string]func(string) error{
		"recheck": probability, "recheck_on": onChange,
		"max_staleness": duration(&p.Freshness.MaxStaleness), "max_age": duration(&p.Freshness.MaxAge), "stale_if_error": duration(&p.Freshness.StaleIfError),
		"on_unavailable": func(v string) error {
			on, ok := watchword.ParseOnUnavailable(v)
			if p.OnUnavailable = on; !ok {
				return errors.New("no such word")
			}
			return nil
		},
		"hold":   func(string) error { p.DangerouslyHold = true; return nil },
		"scopes": list(&p.Scopes), "audience": list(&p.Audience), "relay": func(string) error { p.Relay = true; return nil },
	})
	s.policies = append(s.policies, p)
	return err
}

func (s *stage) cache(words []string) error {
	return settings(words, map[string]func(string) error{
		"inactive": duration(&s.config.Inactive.TTL), "timeout": duration(&s.config.FlightTimeout),
		"refresh_after": func(v string) (err error) { s.config.RefreshAhead.After, err = strconv.ParseFloat(v, 64); return err },
		"refresh_hits":  func(v string) (err error) { s.config.RefreshAhead.MinHits, err = strconv.Atoi(v); return err },
	})
}

func (s *stage) build() (err error) {
	if s.verifier != nil {
		return nil
	}
	keep := time.Duration(0)
	for _, p := range s.policies {
		if keep = max(keep, p.Life()); s.heard.on {
			keep = max(keep, p.Freshness.Covered())
		}
	}
	if s.heard.on {
		if err := s.heard.open(); err != nil {
			return err
		}
		s.config.OnInactive = func(q watchword.Query, a *watchword.Answer) { s.heard.ledger.Doubt(q, a) }
		s.config.WasActive = func(q watchword.Query) bool { return s.heard.ledger.WasActive(q) }
	}
	if s.memory, err = cache.New(s.config); err != nil {
		return err
	}
	s.source = s.memory.Over(s.as, keep)
	s.verifier, err = watchword.New(s.verifies())
	return err
}

func (s *stage) verifies() watchword.Config {
	c := watchword.Config{Source: s.source, Issuers: []watchword.Issuer{{Name: "as", Tenant: "org_id"}}, Callers: s.policies, Chance: func() float64 { return s.chance }}
	if s.heard.on {
		c.Ledger = s.heard.ledger
	}
	return c
}

func (s *stage) check(words []string) error {
	arrow := slices.Index(words, "->")
	if arrow < 1 || arrow == len(words)-1 {
		return errors.New("a check is TOKEN [by POLICY] [from IP] [agent UA] -> REASON")
	}
	r, err := request(words[:arrow])
	if err != nil {
		return err
	}
	return s.became(s.verifier.Verify(context.Background(), r), words[arrow+1:])
}

func request(words []string) (watchword.Request, error) {
	r := watchword.Request{Door: "script", Token: watchword.Token(words[0]), Caller: "default"}
	for who := words[1:]; len(who) > 0; who = who[2:] {
		into := map[string]*string{"by": &r.Caller, "from": &r.Peer, "agent": &r.UserAgent}[who[0]]
		if into == nil || len(who) == 1 {
			return r, fmt.Errorf("%q is not known", who)
		}
		*into = who[1]
	}
	return r, nil
}

// became compares a decision with what a script wants.
func (s *stage) became(d watchword.Decision, wants []string) error {
	s.checks++
	synctest.Wait() // for an asking ahead that this decision began
	got := map[string]string{"asked": strconv.Itoa(s.as.asked()), "age": d.Age.String(), "source": d.Source(), "degraded": d.Degraded.String()}
	report := fmt.Sprintf("%s asked=%s age=%s source=%s degraded=%s", d.Reason, got["asked"], got["age"], got["source"], got["degraded"])
	if d.Reason.String() != wants[0] {
		return fmt.Errorf("got %s (%v)", report, d.Err)
	}
	for _, w := range wants[1:] {
		key, want, _ := strings.Cut(w, "=")
		if got[key] != want { // an unknown key is never as wanted
			return fmt.Errorf("got %s, want %s", report, w)
		}
	}
	return nil
}

// server is the scripted authorization server, a Source.
type server struct {
	mu     sync.Mutex
	tokens map[string]*token
	down   bool
	lying  bool // what it calls inactive is doubted
	slow   time.Duration
	lag    time.Duration // what is revoked stays active so long
	calls  int
}

type token struct {
	members string
	ends    time.Time // zero: it does not say
	inert   time.Time // inactive from here on; zero: never
}

func (s *server) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *server) learn(start time.Time) func([]string) error {
	return func(words []string) error {
		t := new(token)
		text := func(name string) func(string) error {
			return func(v string) error {
				t.members += fmt.Sprintf(",%q:%q", name, strings.ReplaceAll(v, ",", " "))
				return nil
			}
		}
		instant := func(name string) func(string) error {
			return func(v string) error {
				d, err := time.ParseDuration(v)
				t.members += fmt.Sprintf(",%q:%d", name, start.Add(d).Unix())
				return err
			}
		}
		err := settings(words[1:], map[string]func(string) error{
			"client": text("client_id"), "session": text("sid"), "tenant": text("org_id"), "jti": text("jti"), "iat": instant("iat"),
			"sub": text("sub"), "scope": text("scope"), "aud": text("aud"), "token_type": text("token_type"), "exp": instant("exp"), "nbf": instant("nbf"),
			"expires_in": func(v string) error {
				d, err := time.ParseDuration(v)
				t.ends = start.Add(d)
				return err
			},
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tokens[words[0]] = t
		return err
	}
}

func (s *server) obey(words []string) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var known *token
	if len(words) == 2 {
		known = s.tokens[words[1]]
	}
	switch order := words[0]; {
	case order == "down" && len(words) == 1:
		s.down = true
	case order == "up" && len(words) == 1:
		s.down, s.lying, s.slow, s.lag = false, false, 0, 0
	case order == "lying" && len(words) == 1:
		s.lying = true
	case order == "slow" && len(words) == 2:
		s.slow, err = time.ParseDuration(words[1])
	case order == "lag" && len(words) == 2:
		s.lag, err = time.ParseDuration(words[1])
	case order == "revoke" && known != nil:
		known.inert = time.Now().Add(s.lag)
	case order == "restore" && known != nil:
		known.inert = time.Time{}
	default:
		err = fmt.Errorf("the server cannot %q", strings.Join(words, " "))
	}
	return err
}

// Introspect answers as the server would have when it was asked, however long the answer takes.
func (s *server) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	s.mu.Lock()
	s.calls++
	now, slow, down, lying, body := time.Now(), s.slow, s.down, s.lying, `{"active":false}`
	if t := s.tokens[string(q.Token)]; t != nil && (t.inert.IsZero() || now.Before(t.inert)) {
		body = `{"active":true` + t.members
		if !t.ends.IsZero() {
			body += fmt.Sprintf(`,"expires_in":%d`, int(t.ends.Sub(now)/time.Second))
		}
		body += "}"
	}
	s.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		down = true
	}
	if down {
		return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer, Cause: errors.New("the script took it down")}
	}
	a, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: q.Issuer, Asked: now})
	if err == nil && lying && !a.Active() {
		return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer, Doubted: true}
	}
	return a, err
}
