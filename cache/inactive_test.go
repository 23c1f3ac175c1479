package cache_test

import (
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// Whoever remembers a token elsewhere is told when it is inactive now; of strangers nobody is told.
//
// Covers: T32
func TestT32OnInactive(t *testing.T) {
	var told []watchword.Token
	c := cache.Config{OnInactive: func(q watchword.Query, a *watchword.Answer) {
		if a.Active() {
			t.Error("told of an active answer")
		}
		told = append(told, q.Token)
	}}
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
		ask("friend") // forgotten meanwhile: a stranger again
		if len(told) != 1 || told[0] != "friend" {
			t.Errorf("told of %d tokens", len(told))
		}
	})
}
