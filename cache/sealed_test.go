package cache_test

import (
	"context"
	"crypto/rand"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// What was changed, cut, moved or written by somebody else is a miss, and counted.
//
// Covers: CAC-07
func TestCAC07TamperedValuesAreMisses(t *testing.T) {
	for name, change := range map[string]func(i *cache.Item){
		"last bit":        func(i *cache.Item) { i.Sealed[len(i.Sealed)-1] ^= 1 },
		"nonce":           func(i *cache.Item) { i.Sealed[10] ^= 1 },
		"schema":          func(i *cache.Item) { i.Sealed[0]++ },
		"pepper id":       func(i *cache.Item) { i.Sealed[1] ^= 1 },
		"cut":             func(i *cache.Item) { i.Sealed = i.Sealed[:len(i.Sealed)-1] },
		"cut to the head": func(i *cache.Item) { i.Sealed = i.Sealed[:21] },
		"empty":           func(i *cache.Item) { i.Sealed = nil },
		"JSON":            func(i *cache.Item) { i.Sealed = []byte(`{"active":true,"sub":"ann"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			fleet(t, 2, func(s *open, hosts []*host) {
				hosts[0].check("t", minute, "active", 1)
				synctest.Wait()
				s.each(change)
				hosts[1].check("t", minute, "active", 2)
				if hosts[1].counted(cache.SharedRefused) == 0 || hosts[1].counted(cache.SharedHit) != 0 {
					t.Errorf("%+v", hosts[1].shared.Stats())
				}
			})
		})
	}
}

// A value that is moved under another name, where it would vouch for another token, does not open.
//
// Covers: CAC-07 T3 T11
func TestCAC07MovedValueIsAMiss(t *testing.T) {
	fleet(t, 2, func(s *open, hosts []*host) {
		hosts[0].check("good", minute, "active", 1)
		synctest.Wait()
		var good cache.Item
		s.each(func(i *cache.Item) { good = *i })
		hosts[0].kill("bad")
		hosts[0].check("bad", minute, "inactive", 2)
		synctest.Wait()
		s.each(func(i *cache.Item) { *i = good })
		hosts[1].check("bad", minute, "inactive", 3)
	})
}

// Everything that may change an answer is part of its name: two issuers, two ways to ask one, two callers' credentials
// never meet in the store, and neither do two deployments.
//
// Covers: T3 T11
func TestT03_T11AskingsNeverMeetInTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &open{items: map[cache.Digest]cache.Item{}}
		as := &server{body: `{"active":true,"sub":"ann"}`}
		one := cache.Asking{Secrets: [][]byte{secretA}, Issuers: map[string]string{"main": "x", "other": "x"}, Keep: time.Hour}
		basic := func(user, hint string) *watchword.Credential {
			return &watchword.Credential{Authorization: user, Hint: hint}
		}
		form := func(p ...[2]string) *watchword.Credential { return &watchword.Credential{Parameters: p} }
		for i, c := range []struct {
			issuer, asking string
			secret         []byte
			credential     *watchword.Credential
			token          watchword.Token
		}{
			{"main", "x", secretA, nil, "t"}, {"main", "x", secretA, nil, "u"}, {"other", "x", secretA, nil, "t"}, {"main", "y", secretA, nil, "t"}, {"main", "x", secretB, nil, "t"},
			{"mai", "nx", secretA, nil, "t"}, {"main", "", secretA, nil, "xt"},
			{"main", "x", secretA, basic("Basic a", ""), "t"}, {"main", "x", secretA, basic("Basic b", ""), "t"}, {"main", "x", secretA, basic("Basic a", "h"), "t"}, {"main", "x", secretA, basic("", ""), "t"},
			{"main", "x", secretA, form([2]string{"client_id", "a"}), "t"}, {"main", "x", secretA, form([2]string{"client_id", "a"}, [2]string{"client_secret", "b"}), "t"},
			{"main", "x", secretA, form([2]string{"client_i", "da"}), "t"},
		} {
			a := one
			a.Secrets, a.Issuers = [][]byte{c.secret}, map[string]string{c.issuer: c.asking}
			shared, _ := cache.NewShared(cache.SharedConfig{Store: struct{ cache.Store }{s}})
			src, err := shared.Over(as, a)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				q := watchword.Query{Token: c.token, Issuer: c.issuer, Credential: c.credential, At: time.Now(), Freshness: minute}
				if _, err := src.Introspect(t.Context(), q); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			if n := int(as.calls.Load()); n != i+1 || len(s.items) != i+1 {
				t.Errorf("case %d: %d questions and %d entries; want %d", i, n, len(s.items), i+1)
			}
		}
	})
}

// No token, claim or name can be read out of what is stored.
//
// Covers: CAC-06 T17 T18
func TestCAC06NothingIsReadableInTheStore(t *testing.T) {
	fleet(t, 1, func(s *open, hosts []*host) {
		hosts[0].set(func() { hosts[0].body = `{"active":true,"sub":"canary-subject"}` })
		hosts[0].check("canary-token", minute, "active", 1)
		synctest.Wait()
		if len(s.items) != 1 {
			t.Fatal(len(s.items))
		}
		for k, i := range s.items {
			if all := string(k[:]) + string(i.Encode()); strings.Contains(all, "canary") || strings.Contains(all, "main") {
				t.Errorf("%q", all)
			}
		}
	})
}

// A new secret is no cold start: the old one's values are read while both are given, and not afterwards.
func TestPepperRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &open{items: map[cache.Digest]cache.Item{}}
		as := &server{body: `{"active":true,"sub":"ann"}`}
		with := func(secrets ...[]byte) *host {
			return newHost(t, struct{ cache.Store }{s}, as, cache.Asking{Secrets: secrets, Issuers: map[string]string{"main": "x"}, Keep: time.Hour})
		}
		with(secretA).check("t", minute, "active", 1)
		synctest.Wait()
		with(secretB, secretA).check("t", minute, "active", 1)
		with(secretB).check("t", minute, "active", 2)
		synctest.Wait()
		with(secretB, secretA).check("t", minute, "active", 2)
		with(secretA, secretB).check("u", minute, "active", 3)
		synctest.Wait()
		with(secretB, secretA).check("u", minute, "active", 3)
	})
}

func TestShortSecretIsRefused(t *testing.T) {
	t.Parallel()
	shared, _ := cache.NewShared(cache.SharedConfig{Store: new(cache.Memory)})
	for _, secrets := range [][][]byte{nil, {[]byte("short")}, {secretA, nil}} {
		if _, err := shared.Over(nil, cache.Asking{Secrets: secrets}); err == nil {
			t.Errorf("%d secrets are accepted", len(secrets))
		}
	}
	if _, err := cache.NewShared(cache.SharedConfig{Skew: -1}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Error(err)
	}
}

// FuzzSharedValue: whatever the store hands back, what is decided is what the server says.
//
// Covers: CAC-07
func FuzzSharedValue(f *testing.F) {
	s := &open{items: map[cache.Digest]cache.Item{}}
	secret := []byte(rand.Text()) // of this process: what another one sealed is foreign here
	as := watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		return watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann"}`), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
	})
	shared, _ := cache.NewShared(cache.SharedConfig{Store: struct{ cache.Store }{s}})
	src, err := shared.Over(as, cache.Asking{Secrets: [][]byte{secret}})
	if err != nil {
		f.Fatal(err)
	}
	ask := func(next watchword.Source) (*watchword.Answer, error) {
		return next.Introspect(context.Background(), watchword.Query{Token: "t", Issuer: "main", At: time.Now(), Freshness: watchword.Freshness{MaxStaleness: time.Hour}})
	}
	if _, err := ask(src); err != nil {
		f.Fatal(err)
	}
	shared.Close()
	var key cache.Digest
	for k, i := range s.items {
		key = k
		f.Add(i.Sealed)
		f.Add(i.Sealed[:30])
	}
	genuine := s.items[key].Sealed
	down, _ := shared.Over(watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
		return nil, &watchword.Error{Failure: watchword.Unavailable}
	}), cache.Asking{Secrets: [][]byte{secret}})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		s.mu.Lock()
		s.items[key] = cache.Item{Sealed: sealed}
		s.mu.Unlock()
		if a, err := ask(down); err == nil && !reflect.DeepEqual(sealed, genuine) {
			t.Errorf("%q vouches for %s", sealed, a.Claims().JSON())
		}
	})
}
