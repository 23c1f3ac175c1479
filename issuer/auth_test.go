package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// vault is a secret that a test changes; reads counts how often it was read.
type vault struct {
	mu     sync.Mutex
	values []string
	err    error
	reads  int
}

func (v *vault) set(values ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.values, v.err = values, nil
}
func (v *vault) lose()      { v.mu.Lock(); defer v.mu.Unlock(); v.err = errors.New("gone") }
func (v *vault) count() int { v.mu.Lock(); defer v.mu.Unlock(); return v.reads }
func (v *vault) read() ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads++
	return slices.Clone(v.values), v.err
}

// guarded accepts bearer tokens that are in good, and counts what it refuses.
type guarded struct {
	good    atomic.Pointer[[]string]
	refused atomic.Int32
	*server
}

func guard(t *testing.T, good ...string) *guarded {
	g := new(guarded)
	g.accept(good...)
	g.server = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(*g.good.Load(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
			says(`{"active":true}`)(w, r)
			return
		}
		g.refused.Add(1)
		status(401)(w, r)
	})
	return g
}

func (g *guarded) accept(good ...string) { g.good.Store(&good) }

func bearer(v *vault) func(*Config) { return func(c *Config) { c.Auth = Bearer(v.read) } }

func TestCAU03RotatedSecretIsUsedWithinOneAsking(t *testing.T) {
	t.Parallel()
	g, v := guard(t, "one"), new(vault)
	v.set("one")
	c := client(t, g.URL, bearer(v))
	answer(t, c)
	v.set("two")
	g.accept("two")
	answer(t, c)
	answer(t, c)
	if g.refused.Load() != 1 || v.count() != 2 {
		t.Errorf("%d refused, %d reads", g.refused.Load(), v.count())
	}
}

func TestCAU03BothLiveSecretsServe(t *testing.T) {
	t.Parallel()
	g, v := guard(t, "old"), new(vault)
	v.set("new", "old") // already configured, not yet at the server
	c := client(t, g.URL, bearer(v))
	answer(t, c)
	for range 3 {
		answer(t, c)
	}
	if g.refused.Load() != 1 {
		t.Errorf("what works is not remembered: %d refused", g.refused.Load())
	}
	g.accept("new")
	answer(t, c)
	answer(t, c)
	v.set("new")
	answer(t, c)
	if g.refused.Load() != 2 {
		t.Errorf("%d refused", g.refused.Load())
	}
}

func TestCAU03WrongSecretMakesNoStorm(t *testing.T) {
	t.Parallel()
	g, v := guard(t), new(vault)
	v.set("wrong")
	c := client(t, g.URL, bearer(v))
	for range 5 {
		failure(t, c, watchword.ClientRejected)
	}
	if n := g.refused.Load(); n != 5 {
		t.Errorf("one wrong secret: %d refused for 5 askings", n)
	}
	v.set("bad", "worse")
	for range 5 {
		failure(t, c, watchword.ClientRejected)
	}
	if n := g.refused.Load(); n > 5+5+1 {
		t.Errorf("two wrong secrets: %d refused for 5 askings", n-5)
	}
	v.set("right") // a changed one is used in the very next asking
	g.accept("right")
	before := g.refused.Load()
	answer(t, c)
	if n := g.refused.Load() - before; n > 1 {
		t.Errorf("%d refused before the new secret was used", n)
	}
}

func TestCAU03BothRefusedForAWhileComesBack(t *testing.T) {
	t.Parallel()
	g, v := guard(t, "b"), new(vault)
	v.set("a", "b")
	c := client(t, g.URL, bearer(v))
	answer(t, c)
	for trouble := range 4 { // however long it lasts, at most one more asking is lost after it
		g.accept()
		for range trouble + 1 {
			failure(t, c, watchword.ClientRejected)
		}
		g.accept("b")
		if _, err := c.Introspect(t.Context(), query()); err != nil {
			answer(t, c)
		}
		answer(t, c)
		reads := v.count()
		answer(t, c)
		if v.count() != reads {
			t.Error("the secret is read although all is well")
		}
		g.accept("a")
		answer(t, c) // the other one again within one asking
		g.accept("b")
		answer(t, c)
	}
}

func TestCAU03ManyAtOnceRereadOnce(t *testing.T) {
	t.Parallel()
	const many = 50
	v := new(vault)
	v.set("one")
	var arrived sync.WaitGroup
	arrived.Add(many)
	var refused atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer one": // all are on the way with the old secret
			refused.Add(1)
			arrived.Done()
			arrived.Wait()
			status(401)(w, r)
		case "Bearer two":
			says(`{"active":true}`)(w, r)
		}
	})
	c := client(t, s.URL, bearer(v))
	v.set("two")
	var group sync.WaitGroup
	for range many {
		group.Go(func() {
			if _, err := c.Introspect(t.Context(), query()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if refused.Load() != many || v.count() != 2 {
		t.Errorf("%d refused, %d reads", refused.Load(), v.count())
	}
}

func TestCAU03UnreadableSecretKeepsTheOldOne(t *testing.T) {
	t.Parallel()
	g, v := guard(t, "one"), new(vault)
	v.set("one")
	c := client(t, g.URL, bearer(v))
	v.lose()
	g.accept()
	failure(t, c, watchword.ClientRejected)
	g.accept("one")
	answer(t, c)
}

func TestCAU03ForbiddenIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, status(403))
	failure(t, client(t, s.URL, func(c *Config) { c.Auth = Bearer(fixed("a", "b")) }), watchword.ClientRejected)
	if n := len(s.questions()); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// signer counts what it signs: an assertion is its number and what it is about.
type signer struct{ n atomic.Int32 }

func (s *signer) sign(_ context.Context, id, audience string) (string, error) {
	return fmt.Sprintf("%d.%s.%s", s.n.Add(1), id, audience), nil
}

func TestCAU02EveryAttemptHasItsOwnAssertion(t *testing.T) {
	t.Parallel()
	old, now := new(signer), new(signer)
	current := old
	ok := true
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if ok {
			says(`{"active":true}`)(w, r)
			return
		}
		status(401)(w, r)
	})
	c := client(t, s.URL, func(c *Config) {
		c.Issuer = "https://as.example"
		c.Auth = PrivateKeyJWT("r&s", "", func() (Sign, error) { return current.sign, nil })
	})
	answer(t, c)
	answer(t, c)
	got := s.questions()
	want := "token=" + canary + "&token_type_hint=access_token&client_id=r%26s&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=1.r%26s.https%3A%2F%2Fas.example"
	if got[0].body != want || got[0].header["Authorization"] != nil {
		t.Errorf("%v\n%s\n%s", got[0].header, got[0].body, want)
	}
	if a := got[1].form.Get("client_assertion"); a != "2.r&s.https://as.example" {
		t.Errorf("the second asking: %s", a)
	}
	ok, current = false, now
	failure(t, c, watchword.ClientRejected)
	if old.n.Load() != 3 || now.n.Load() != 1 {
		t.Errorf("the retry after 401 signed with the old key: %d, %d", old.n.Load(), now.n.Load())
	}
	failure(t, c, watchword.ClientRejected)
	if now.n.Load() != 2 {
		t.Errorf("a key that does not work is tried %d times", now.n.Load())
	}
	ok = true
	answer(t, c)
	explicit := client(t, s.URL, func(c *Config) {
		c.Auth = PrivateKeyJWT("rs", "https://as.example/token", func() (Sign, error) { return new(signer).sign, nil })
	})
	answer(t, explicit)
	if a := s.last(t).form.Get("client_assertion"); a != "1.rs.https://as.example/token" {
		t.Errorf("a configured audience: %s", a)
	}
}

func TestCAU02AssertionThatCannotBeSigned(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":true}`))
	c := client(t, s.URL, func(c *Config) {
		c.Auth = PrivateKeyJWT("rs", "aud", func() (Sign, error) {
			return func(context.Context, string, string) (string, error) { return "", errors.New("the key is on holiday") }, nil
		})
	})
	if e := failure(t, c, watchword.ConfigError); !strings.Contains(e.Error(), "holiday") {
		t.Error(e)
	}
	if len(s.questions()) != 0 {
		t.Error("asked without a credential")
	}
}

// Covers: CAU-04
func TestCAU04CertificateReloadDropsNoConnection(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	dir := t.TempDir()
	files := TLS{CAFile: ca.file, CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "k.pem")}
	install := func(name string) {
		cert, key := ca.issue(t, name, time.Now().Add(time.Hour))
		write(t, files.CertFile, cert)
		write(t, files.KeyFile, key)
	}
	good := "client-1"
	slow, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		ok := r.TLS.PeerCertificates[0].Subject.CommonName == good && r.PostForm.Get("client_id") == "rs" && r.Header.Get("Authorization") == ""
		mu.Unlock()
		if !ok {
			status(401)(w, r)
			return
		}
		if r.PostForm.Get("token") == "slow" {
			close(slow)
			<-release
		}
		says(`{"active":true}`)(w, r)
	}, ca.startTLS(t, "127.0.0.1", time.Now().Add(time.Hour), func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(ca.cert)
	}))
	install("client-1")
	c := client(t, s.URL, func(c *Config) { c.Auth, c.TLS = TLSClientAuth("rs"), files })
	answer(t, c)
	var inFlight sync.WaitGroup
	inFlight.Go(func() {
		q := query()
		q.Token = "slow"
		if _, err := c.Introspect(t.Context(), q); err != nil {
			t.Errorf("what was on its way was dropped: %v", err)
		}
	})
	<-slow
	write(t, files.CertFile, []byte("half written")) // the last good one serves on
	answer(t, c)
	install("client-2")
	mu.Lock()
	good = "client-2"
	mu.Unlock()
	answer(t, c) // refused with the old one, once, then on a new connection with the new one
	answer(t, c)
	if n := len(s.questions()); n != 6 {
		t.Errorf("%d attempts, want 6", n)
	}
	close(release)
	inFlight.Wait()
	q := query()
	q.Credential = &watchword.Credential{Authorization: "Basic eDp5"}
	failureOf(t, c, q, watchword.ConfigError) // our certificate would vouch for a stranger
	write(t, files.KeyFile, []byte("broken"))
	if _, err := New(c.config); err == nil || !strings.Contains(err.Error(), "k.pem") {
		t.Errorf("a key that does not fit: %v", err)
	}
}
