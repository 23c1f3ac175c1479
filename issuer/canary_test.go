package issuer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/internal/memnet"
)

// nest is an authorization server with a token, an introspection and a revocation endpoint, in memory.
type nest struct {
	mu      sync.Mutex
	issued  int
	dead    map[string]bool
	lying   bool
	down    bool
	refuses bool // gives no token
	asked   int
	lag     time.Duration // of introspection behind a revocation
	learns  time.Duration // of introspection behind the issue of a token
	known   map[string]bool
}

func (n *nest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	n.mu.Lock()
	defer n.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	switch {
	case id != "rs" || secret != hush:
		status(401)(w, r)
	case r.URL.Path == "/token" && n.refuses:
		status(400)(w, r)
	case r.URL.Path == "/token":
		n.issued++
		if n.learns > 0 {
			fresh := canary + fmt.Sprint(n.issued)
			time.AfterFunc(n.learns, func() { n.set(func() { n.known[fresh] = true }) })
		}
		writeJSON(w, 200, fmt.Sprintf(`{"access_token":"%s%d","token_type":"Bearer","expires_in":3600,"scope":%q}`, canary, n.issued, r.PostForm.Get("scope")))
	case r.URL.Path == "/revoke":
		gone := r.PostForm.Get("token")
		if n.lag == 0 {
			n.dead[gone] = true
		} else {
			time.AfterFunc(n.lag, func() { n.set(func() { n.dead[gone] = true }) })
		}
		_, _ = io.WriteString(w, "")
	case n.down:
		status(503)(w, r)
	default:
		n.asked++
		writeJSON(w, 200, fmt.Sprintf(`{"active":%v}`, !n.lying && !n.dead[r.PostForm.Get("token")] && (n.learns == 0 || n.known[r.PostForm.Get("token")])))
	}
}

func (n *nest) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// hatch runs a canary in front of n for as long as f takes.
func hatch(t *testing.T, n *nest, edit func(*CanaryConfig), f func(c *Canary)) {
	t.Helper()
	n.dead, n.known = map[string]bool{}, map[string]bool{}
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		network.Serve(t, "localhost:80", n)
		cl := client(t, "http://localhost/introspect", func(c *Config) { c.Timeout = time.Second })
		cl.transport.Load().DialContext = network.Dial
		config := CanaryConfig{Issuer: "main", Ask: cl, Client: cl, TokenEndpoint: "http://localhost/token", Scope: "canary"}
		if edit != nil {
			edit(&config)
		}
		c, err := NewCanary(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx); close(done) }()
		synctest.Wait()
		f(c)
		stop()
		<-done
		cl.transport.Load().CloseIdleConnections()
	})
}

func state(c *Canary) string {
	known, alive := c.State()
	return fmt.Sprint(known, alive)
}

// Covers: OUT-04 T13
func TestOUT04CanaryTellsALiarFromARevocation(t *testing.T) {
	t.Parallel()
	n := new(nest)
	hatch(t, n, nil, func(c *Canary) {
		is := func(want, when string) {
			t.Helper()
			if got := state(c); got != want {
				t.Errorf("%s: %s, want %s", when, got, want)
			}
		}
		lately := "false false"
		later := func(what func()) { // and somebody wants to know
			n.set(what)
			time.Sleep(3 * time.Second)
			is(lately, "nobody looked lately")
			time.Sleep(leastPause)
			synctest.Wait()
		}
		is("true true", "at first")
		later(func() { n.dead[canary+"1"] = true })
		is("true true", "its token was really revoked, and a fresh one is good")
		later(func() { n.lying = true })
		is("true false", "a fresh token is called inactive too")
		lately = "true false" // nothing was heard to the contrary
		later(func() { n.down = true })
		is("true false", "it cannot be asked")
		time.Sleep(9 * time.Second)
		is("false false", "it could not be asked for longer than every")
		lately = "false false"
		later(func() { n.lying = false })
		is("false false", "it cannot be asked")
		later(func() { n.down = false })
		is("true true", "it is back")
		later(func() { n.refuses, n.dead[canary+fmt.Sprint(n.issued)] = true, true })
		is("false false", "no fresh token can be had, so nobody can tell")
	})
}

// A server whose introspection lags behind what it issues is no liar for longer than until the next look.
func TestCanaryOutlivesALagOfIntrospection(t *testing.T) {
	t.Parallel()
	n := &nest{learns: 200 * time.Millisecond}
	hatch(t, n, nil, func(c *Canary) {
		c.State()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		n.set(func() {
			if got := state(c); got != "true true" || n.issued > 2 {
				t.Errorf("%s after %d tokens; want it alive at the second look", got, n.issued)
			}
		})
	})
}

func TestCanaryIsAskedSeldom(t *testing.T) {
	t.Parallel()
	n := new(nest)
	hatch(t, n, nil, func(c *Canary) {
		for range 10_000 { // a hundred seconds of a storm that wants to know
			c.State()
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		n.set(func() {
			if n.asked < 20 || n.asked > 60 || n.issued != 1 {
				t.Errorf("%d questions, %d tokens", n.asked, n.issued)
			}
		})
	})
}

func TestCanaryMeasuresUntilTheFirstRefusal(t *testing.T) {
	t.Parallel()
	n := new(nest)
	var mu sync.Mutex
	var took []time.Duration
	overdue := 0
	bound := 2 * time.Second
	seen := map[watchword.Token]time.Time{}
	edit := func(c *CanaryConfig) {
		ask := c.Ask
		c.RevocationEndpoint = func(context.Context) (string, error) { return "http://localhost/revoke", nil }
		c.RevokeEvery, c.Patience = time.Minute, 10*time.Second
		c.Verify = func(ctx context.Context, tok watchword.Token) watchword.Decision { // a cache of two seconds
			mu.Lock()
			asked, known := seen[tok]
			mu.Unlock()
			if known && time.Since(asked) <= bound {
				return watchword.Decision{}
			}
			a, err := ask.Introspect(ctx, watchword.Query{Token: tok, Issuer: "main", At: time.Now()})
			if err != nil {
				return watchword.Decision{Reason: watchword.CannotKnow}
			}
			if a.Active() {
				mu.Lock()
				seen[tok] = time.Now()
				mu.Unlock()
				return watchword.Decision{}
			}
			return watchword.Decision{Reason: watchword.Inactive}
		}
		c.Refused = func(d time.Duration, late bool) {
			mu.Lock()
			defer mu.Unlock()
			if took = append(took, d); late {
				overdue++
			}
		}
	}
	hatch(t, n, edit, func(*Canary) {
		time.Sleep(3 * time.Second)
		synctest.Wait()
		mu.Lock()
		if len(took) != 1 || took[0] <= bound-pollSlowly || took[0] > bound+pollSlowly || overdue != 0 {
			t.Errorf("took %v, %d overdue", took, overdue)
		}
		bound = time.Hour // a cache that forgets nothing
		mu.Unlock()
		time.Sleep(72 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(took) != 2 || overdue != 1 {
			t.Errorf("took %v, %d overdue", took, overdue)
		}
	})
}

func TestCanaryMistakes(t *testing.T) {
	t.Parallel()
	_, err := NewCanary(CanaryConfig{Issuer: "main", TokenEndpoint: "http://as.example/token", Every: -1,
		RevocationEndpoint: func(context.Context) (string, error) { return "", nil }})
	if err == nil {
		t.Fatal("no mistake is found")
	}
	for _, word := range []string{"nobody can ask", "token_endpoint is http", "nobody decides", "negative"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("lacks %q: %v", word, err)
		}
	}
}

// Covers: CAU-03 T18
func TestCAU03PostTriesTheOtherSecretOnceAndShowsNothing(t *testing.T) {
	t.Parallel()
	n := &nest{dead: map[string]bool{}}
	s := serve(t, n.ServeHTTP)
	c := client(t, s.URL, func(c *Config) { c.Auth = ClientSecretBasic("rs", fixed("old", hush)) })
	code, body, err := c.Post(t.Context(), s.URL+"/token", url.Values{"grant_type": {"client_credentials"}})
	if err != nil || code != 200 || !strings.Contains(string(body), "access_token") || len(s.questions()) != 2 {
		t.Errorf("%d %s %v after %d attempts", code, body, err, len(s.questions()))
	}
	if q := s.last(t); q.uri != "/token" || q.form.Get("grant_type") != "client_credentials" || strings.Contains(q.uri, hush) {
		t.Errorf("%+v", q.form)
	}
	for name, where := range map[string]string{"redirect": "/r", "no URL": "::", "http elsewhere": "http://as.example/"} {
		if strings.HasPrefix(where, "/") {
			where = serve(t, status(302, "Location", "http://127.0.0.1:1/")).URL + where
		}
		code, _, err := c.Post(t.Context(), where, url.Values{"token": {canary}})
		if err == nil && code != 302 || err != nil && strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %d %v", name, code, err)
		}
	}
	c = client(t, "http://127.0.0.1:1", soon)
	if _, _, err := c.Post(t.Context(), "http://127.0.0.1:1/token", url.Values{"token": {canary}}); err == nil || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("%v", err)
	}
}

// Covers: INT-20
func TestINT20PostKeepsRetryAfter(t *testing.T) {
	t.Parallel()
	for _, code := range []int{429, 503} {
		s := serve(t, status(code, "Retry-After", "30"))
		c := client(t, s.URL)
		if got, _, err := c.Post(t.Context(), s.URL+"/token", url.Values{"grant_type": {"client_credentials"}}); err != nil || got != code {
			t.Errorf("%d, %v; want %d", got, err, code)
		}
		for range 3 {
			_, _, err := c.Post(t.Context(), s.URL+"/token", url.Values{"grant_type": {"client_credentials"}})
			if e := wanted(t, nil, err, watchword.Unavailable); e.RetryAfter <= 0 || e.RetryAfter > 30*time.Second {
				t.Errorf("status %d, while kept: %v", code, e.RetryAfter)
			}
		}
		if n := len(s.questions()); n != 1 {
			t.Errorf("status %d: asked %d times although it asked to wait", code, n)
		}
	}
}

// What a canary shows to be untrue: introspection that lags longer than settle (A1), and a token that is accepted
// beyond both bounds though the server knows better (A4, A5).
func TestCanaryTellsWhatIsUntrue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lag, extended time.Duration // of introspection; how long a feed keeps an answer
		degraded      watchword.Degradation
		want          string
	}{
		"all is true":                {time.Second, 2 * time.Second, watchword.Whole, ""},
		"introspection lags":         {6 * time.Second, 0, watchword.Whole, "unsettled"},
		"a feed extends what is not": {0, 20 * time.Second, watchword.Whole, "late"},
		"both":                       {20 * time.Second, 0, watchword.Whole, "unsettled late"},
		"the server is down":         {0, 20 * time.Second, watchword.ServedStale, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &nest{lag: test.lag}
			var mu sync.Mutex
			var got []string
			edit := func(c *CanaryConfig) {
				ask, began := c.Ask, time.Time{}
				c.RevocationEndpoint = func(context.Context) (string, error) { return "http://localhost/revoke", nil }
				c.RevokeEvery, c.Patience, c.Settle, c.MaxStaleness = time.Hour, time.Minute, 5*time.Second, 3*time.Second
				c.Verify = func(ctx context.Context, tok watchword.Token) watchword.Decision {
					if began.IsZero() {
						began = time.Now()
					}
					a, err := ask.Introspect(ctx, watchword.Query{Token: tok, Issuer: "main", At: time.Now()})
					if err == nil && (a.Active() || time.Since(began) < test.extended) {
						return watchword.Decision{Answer: a, Degraded: test.degraded}
					}
					return watchword.Decision{Reason: watchword.Inactive}
				}
				c.Broken = func(what string) { mu.Lock(); got = append(got, what); mu.Unlock() }
			}
			hatch(t, n, edit, func(*Canary) {
				time.Sleep(30 * time.Second)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if words := strings.Join(got, " "); words != test.want {
					t.Errorf("%q, want %q", words, test.want)
				}
			})
		})
	}
}
