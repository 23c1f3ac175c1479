package revocation_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

var _ watchword.Notifier = (*revocation.Ledger)(nil)

// A watched stream ends as its revocation is heard, and not by somebody else's.
//
// Covers: GW-02
func TestGW02AStreamEndsAsItsRevocationIsHeard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := ledger(t, revocation.Config{})
		time.Sleep(time.Minute) // what was asked before the ledger began is questioned
		asked := time.Now()
		src := watchword.SourceFunc(func(context.Context, watchword.Query) (*watchword.Answer, error) {
			return watchword.ParseAnswer([]byte(`{"active":true,"sub":"ann","iat":946684800}`), watchword.Evidence{Issuer: "main", Asked: asked})
		})
		v, err := watchword.New(watchword.Config{Source: src, Ledger: l, Issuers: []watchword.Issuer{{Name: "main"}}, Routes: []watchword.Route{{Policy: watchword.Policy{Name: "p", Freshness: watchword.Freshness{MaxStaleness: time.Hour}}}}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan watchword.Decision, 1)
		go func() { done <- v.Watch(t.Context(), watchword.Request{Token: "t"}) }()
		synctest.Wait()
		for _, sub := range []string{"bob", "ann"} {
			if len(done) > 0 {
				t.Fatal((<-done).Reason)
			}
			time.Sleep(time.Minute)
			if err := l.Apply(t.Context(), revocation.Event{Issuer: "main", Selector: revocation.Selector{Subject: sub}, At: time.Now(), Heard: time.Now()}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		began := time.Now()
		if d := <-done; d.Reason != watchword.Revoked || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%v after %v", d.Reason, time.Since(began))
		}
		if l.Changed("nobody") != nil {
			t.Error("an issuer that is not known changes")
		}
	})
}
