package cache_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// Whoever remembers a token elsewhere is told when it is inactive now, and again when it still is, although it is
// forgotten here by then: an older answer from elsewhere may come between. Of strangers nobody is told.
//
// Covers: T32
func TestT32OnInactive(t *testing.T) {
	var told []watchword.Token
	c := cache.Config{OnInactive: func(q watchword.Query, a *watchword.Answer) {
		if a.Active() {
			t.Error("told of an active answer")
		}
		told = append(told, q.Token)
	}, WasActive: func(q watchword.Query) bool { return slices.Contains(told, q.Token) }}
	in(t, c, func(w *world) {
		w.set(func() { w.body = `{"active":true}` })
		ask := func(token watchword.Token) {
			t.Helper()
			q := watchword.Query{Token: token, Key: watchword.Key{token[0]}, Issuer: "main", At: time.Now()}
			if _, err := w.src.Introspect(w.t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		w.kill("stranger")
		ask("stranger")
		ask("friend")
		w.kill("friend")
		time.Sleep(1)
		ask("friend")
		ask("friend") // forgotten meanwhile
		if !slices.Equal(told, []watchword.Token{"friend", "friend"}) {
			t.Errorf("told of %d answers", len(told))
		}
	})
}

// below answers as a source that remembers for itself: with what it knew, and why it knows no better.
type below func() (*watchword.Answer, error)

func (f below) Introspect(context.Context, watchword.Query) (*watchword.Answer, error) { return f() }

// A token that is known only from below, because the server could not be asked, is no stranger: when it is inactive
// later, also by what is known below, whoever remembers it is told. What was known never replaces a younger inactive answer.
//
// Covers: T32
func TestT32KnownFromBelow(t *testing.T) {
	var told []watchword.Token
	c := cache.Config{Inactive: cache.Inactive{TTL: time.Minute}, OnInactive: func(q watchword.Query, _ *watchword.Answer) { told = append(told, q.Token) }}
	in(t, c, func(w *world) {
		old := time.Now()
		time.Sleep(10 * time.Second)
		parsed := func(body string, asked time.Time) *watchword.Answer {
			a, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: "main", Asked: asked})
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		down := &watchword.Error{Failure: watchword.Unavailable, Issuer: "main"}
		says, failed := parsed(`{"active":true}`, old), error(down)
		src := w.cache.Over(below(func() (*watchword.Answer, error) { return says, failed }), time.Minute)
		ask := func(want bool) {
			t.Helper()
			a, _ := src.Introspect(w.t.Context(), w.query("t", bound(time.Second)))
			if a == nil || a.Active() != want {
				t.Errorf("%v; want active %v", a, want)
			}
		}
		ask(true)
		time.Sleep(time.Second)
		says, failed = parsed(`{"active":false}`, time.Now()), &watchword.Error{Failure: watchword.Unavailable, Issuer: "main", Doubted: true}
		ask(false)
		if len(told) > 0 {
			t.Error("told of an answer that is doubted")
		}
		failed = down // another host was told so
		ask(false)
		if !slices.Equal(told, []watchword.Token{"t"}) {
			t.Errorf("told of %d answers", len(told))
		}
		time.Sleep(5 * time.Second)
		says, failed = parsed(`{"active":true}`, old), down
		ask(true) // it is for the Verifier to refuse
		for _, a := range w.cache.All() {
			if a.Active() {
				t.Error("an older answer took the place of an inactive one")
			}
		}
	})
}
