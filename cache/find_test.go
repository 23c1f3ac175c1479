package cache

import (
	"context"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

func TestWhatIsRememberedCanBeFoundAndForgotten(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Inactive: Inactive{TTL: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	asked := 0
	source := m.Over(watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		asked++
		body := `{"active":true,"sub":"ann"}`
		if q.Token == "dead" {
			body = `{"active":false}`
		}
		return watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: "main", Asked: time.Now()})
	}), time.Hour)
	ask := func(token watchword.Token, key byte) {
		t.Helper()
		q := watchword.Query{Token: token, Key: watchword.Key{key}, Issuer: "main", At: time.Now(), Freshness: watchword.Freshness{MaxStaleness: time.Hour}}
		if _, err := source.Introspect(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	ask("one", 1)
	ask("two", 2)
	ask("dead", 3)
	found := map[watchword.Key]bool{}
	for key, a := range m.All() {
		found[key] = a.Active()
	}
	if len(found) != 3 || !found[watchword.Key{1}] || found[watchword.Key{3}] {
		t.Errorf("found %v", found)
	}
	for range m.All() {
		break // a reader may stop early
	}
	if n := m.Forget(watchword.Key{1}, watchword.Key{3}, watchword.Key{9}); n != 2 {
		t.Errorf("forgot %d", n)
	}
	ask("one", 1)
	ask("two", 2)
	if asked != 4 {
		t.Errorf("asked %d times; want 4: only what was forgotten is asked again", asked)
	}
}
