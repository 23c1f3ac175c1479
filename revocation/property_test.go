package revocation_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// small is every event of a small world: each effect, each selector, at each of three instants.
func small(start time.Time) (all []revocation.Event) {
	for _, s := range []revocation.Selector{{Subject: "ann"}, {Subject: "ann", Client: "web"}, {Session: "s"}, {}} {
		for at := 4; at <= 20; at += 8 {
			for _, operator := range []bool{false, true} {
				for _, effect := range []revocation.Effect{revocation.Deny, revocation.Revalidate} {
					all = append(all, revocation.Event{ID: fmt.Sprint(len(all)), Selector: s, WholeIssuer: s.Empty(), At: start.Add(time.Duration(at) * time.Second), Operator: operator, Effect: effect})
				}
			}
		}
	}
	return all
}

// Every pair of events of a small world, in both orders, against every answer: the order makes no difference, two are at
// least as strict as each alone, and together they revoke what one of them revokes and nothing more. No late event
// gives anything back.
//
// Covers: T10 SIG-16 SIG-18
func TestT10EveryPairInBothOrders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		events := small(start)
		time.Sleep(30 * time.Second)
		var answers []*watchword.Answer
		for _, who := range []string{`,"sub":"ann","client_id":"web","sid":"s"`, `,"sub":"ann"`, `,"sub":"bob","client_id":"web"`, `,"sid":"s"`, ``} {
			for iat := 0; iat <= 24; iat += 3 {
				answers = append(answers, answer(t, time.Now(), fmt.Sprintf(`%s,"iat":%d`, who, start.Unix()+int64(iat))))
			}
			answers = append(answers, answer(t, time.Now(), who))
		}
		time.Sleep(time.Second)
		issuers := []revocation.Issuer{{Name: "main", Skew: 2 * time.Second, Exempt: true}}
		look := func(es ...revocation.Event) (all []watchword.Void) {
			l, err := revocation.New(revocation.Config{Issuers: issuers})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range es {
				apply(t, l, e)
			}
			for _, a := range answers {
				all = append(all, l.Voids(watchword.Query{Issuer: "main", Token: "t"}, a))
			}
			return all
		}
		var alone [][]watchword.Void
		for _, e := range events {
			alone = append(alone, look(e))
		}
		revoked, asked := 0, 0
		for i := range events {
			for j := range i {
				ij, ji := look(events[i], events[j]), look(events[j], events[i])
				for k := range answers {
					want := watchword.Void{Revoked: alone[i][k].Revoked || alone[j][k].Revoked}
					if !want.Revoked {
						want.Questioned = alone[i][k].Questioned
						if want.Questioned.IsZero() {
							want.Questioned = alone[j][k].Questioned
						}
					}
					if ij[k] != want || ji[k] != want {
						t.Fatalf("%+v\n%+v\non %s: %+v and %+v, want %+v", events[i], events[j], answers[k].Claims().JSON(), ij[k], ji[k], want)
					}
					if want.Revoked {
						revoked++
					} else if !want.Questioned.IsZero() {
						asked++
					}
				}
			}
		}
		if revoked < 1000 || asked < 1000 {
			t.Errorf("%d revoked, %d asked: the test shows little", revoked, asked)
		}
	})
}

// Many events in random orders, with the ledger restarted in between from its log: the end is the same.
//
// Covers: T10 SIG-20
func TestT10RandomOrders(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	start := time.Now().Add(-30 * time.Second).Truncate(time.Second)
	events := small(start)
	issuers := []revocation.Issuer{{Name: "main", Skew: 2 * time.Second, Exempt: true}}
	for round := range 6 {
		few := make([]revocation.Event, 0, 5)
		for _, i := range r.Perm(len(events))[:5] {
			few = append(few, events[i])
		}
		var first []string
		for order := range 4 {
			folder := t.TempDir()
			for _, i := range r.Perm(len(few)) {
				l := ledger(t, revocation.Config{Issuers: issuers, Folder: folder})
				apply(t, l, few[i])
				_ = l.Close()
			}
			l := ledger(t, revocation.Config{Issuers: issuers, Folder: folder})
			var got []string
			for iat := 0; iat <= 24; iat += 2 {
				for _, who := range []string{`,"sub":"ann","client_id":"web","sid":"s"`, `,"sub":"ann"`, `,"sid":"s"`} {
					got = append(got, verdict(l, "t", answer(t, start, fmt.Sprintf(`%s,"iat":%d`, who, start.Unix()+int64(iat)))))
				}
			}
			if order == 0 {
				first = got
			} else if fmt.Sprint(got) != fmt.Sprint(first) {
				t.Fatalf("round %d: %v\nand %v", round, got, first)
			}
			_ = l.Close()
		}
	}
}

// Whoever reads a proof finds every event that came before it in force: events are published before Through moves.
//
// Covers: SIG-21
func TestSIG21EventsBeforeProofs(t *testing.T) {
	t.Parallel()
	l := ledger(t, revocation.Config{})
	start := time.Now().Add(-time.Hour)
	const n = 2000
	old := make([]*watchword.Answer, n)
	for i := range old {
		old[i] = answer(t, time.Now(), fmt.Sprintf(`,"sub":"s%d","iat":5`, i))
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				if through := l.Coverage("main").Through; !through.IsZero() {
					i := int(through.Sub(start) / time.Second)
					if v := l.Voids(watchword.Query{Issuer: "main"}, old[i]); !v.Revoked {
						t.Errorf("proof %d is seen before its event", i)
						return
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range n {
		apply(t, l, revocation.Event{ID: fmt.Sprint(i), Selector: revocation.Selector{Subject: fmt.Sprint("s", i)}, Operator: true})
		l.Cover("main", start.Add(time.Duration(i)*time.Second))
	}
	close(done)
	wg.Wait()
}

// A look at the ledger costs no memory.
func TestVoidsAllocatesNothing(t *testing.T) {
	l := held(t, "", 100, bySubject)
	apply(t, l, revocation.Event{Token: l.TokenID("main", "another")})
	a := answer(t, time.Now(), `,"sub":"ann","client_id":"web","iat":5,"jti":"x"`)
	q := watchword.Query{Issuer: "main", Token: "an-opaque-token-of-some-length"}
	if n := testing.AllocsPerRun(100, func() { l.Voids(q, a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
