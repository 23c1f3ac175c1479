package revocation_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// What was voided stays voided while its event, or the inactive answer, is forgotten to make room: whoever looks then sees
// one or the other.
//
// Covers: T32 SIG-12
func TestT32NothingSlipsThroughWhileRoomIsMade(t *testing.T) {
	t.Parallel()
	l, err := revocation.New(revocation.Config{MaxBytes: 1 << 16, Issuers: []revocation.Issuer{{Name: "as"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type voided struct {
		q watchword.Query
		a *watchword.Answer
	}
	var now [2]atomic.Pointer[voided] // by an event, by an inactive answer
	var readers sync.WaitGroup
	ended := make(chan struct{})
	var looks atomic.Int64
	var slips [2]atomic.Int64
	for i := range 4 {
		readers.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				if v := now[i%2].Load(); v != nil {
					looks.Add(1)
					if l.Voids(v.q, v.a) == (watchword.Void{}) {
						slips[i%2].Add(1)
					}
				}
			}
		})
	}
	answer := func(active bool, sub string) *watchword.Answer {
		a, err := watchword.ParseAnswer(fmt.Appendf(nil, `{"active":%v,"sub":%q}`, active, sub), watchword.Evidence{Issuer: "as", Asked: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for n := range 40 {
		sub := fmt.Sprint("s", n)
		q := watchword.Query{Issuer: "as", Key: watchword.Key{byte(n), byte(n >> 8), 1}, Token: watchword.Token(sub)}
		before := answer(true, sub)
		time.Sleep(1)
		if n%2 == 0 {
			if err := l.Apply(context.Background(), revocation.Event{ID: sub, Issuer: "as", Selector: revocation.Selector{Subject: sub}, Effect: revocation.Revalidate}); err != nil {
				t.Fatal(err)
			}
		} else {
			l.Doubt(q, answer(false, sub))
		}
		now[n%2].Store(&voided{q, before})
		for i := range 300 {
			if n%2 == 0 {
				_ = l.Apply(context.Background(), revocation.Event{ID: fmt.Sprint(sub, i), Issuer: "as", Selector: revocation.Selector{Subject: "x" + sub + fmt.Sprint(i)}, Effect: revocation.Revalidate})
			} else {
				l.Doubt(watchword.Query{Issuer: "as", Key: watchword.Key{byte(n), byte(n >> 8), 2, byte(i), byte(i >> 8)}}, before)
			}
		}
	}
	close(ended)
	readers.Wait()
	if a, b := slips[0].Load(), slips[1].Load(); a+b > 0 {
		t.Errorf("%d looks: %d found nothing of an event, %d nothing of an inactive answer", looks.Load(), a, b)
	}
}
