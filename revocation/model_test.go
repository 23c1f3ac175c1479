package revocation_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

const (
	modelSettle   = 5 * time.Second
	modelSkew     = 2 * time.Second
	modelSigma    = time.Second + modelSkew
	modelRemember = 20 * time.Second
)

// spec is what a ledger should say, written down as slowly and plainly as can be: every event is kept in a list, and
// the whole list is read for every answer.
type spec struct {
	held      []spoken  // in force
	ever      []spoken  // in force, or given up since by what may give it up
	forgotten time.Time // zero: nothing was
	doubt     time.Time // when the newest inactive answer about the token was asked for; zero: none
	waits     int       // long ones since
	full      bool      // whatever comes next makes older events give way
	coarse    bool      // it did: more may be in question than the list says
}

// spoken is an event, when it came, and what it may question.
type spoken struct {
	revocation.Event
	applied time.Time
	until   time.Time // what was asked for until then it may question
}

// claimed is what an answer says. Empty: it does not say.
type claimed struct {
	sub, client, sid, jti string
	iat                   int64
	dated                 bool
}

// about is whether an event names an answer: not at all, perhaps, or surely.
func (e *spoken) about(c *claimed) (perhaps, surely bool) {
	switch {
	case e.Token != revocation.TokenID{}: // there is one token only
		return true, true
	case e.JTI != "":
		return e.JTI == c.jti, e.JTI == c.jti
	case e.WholeIssuer:
		return true, true
	}
	same, missing, named := 0, 0, 0
	for _, pair := range [][2]string{{e.Selector.Subject, c.sub}, {e.Selector.Client, c.client}, {e.Selector.Session, c.sid}} {
		switch {
		case pair[0] == "":
			continue
		case pair[1] == "":
			missing++
		case pair[0] != pair[1]:
			return false, false
		default:
			same++
		}
		named++
	}
	if named > 0 && same == 0 {
		return false, false
	}
	return true, missing == 0 && e.Selector.Tenant == "" // the tenant's claim is declared nowhere
}

// says is what one event alone says of an answer.
func (e *spoken) says(c *claimed) (revoked, questioned bool) {
	perhaps, surely := e.about(c)
	switch {
	case !perhaps:
		return false, false
	case !surely, e.Effect == revocation.Revalidate:
		return false, true
	case e.Token != revocation.TokenID{} || e.JTI != "":
		return true, false
	}
	happened := e.At
	if happened.IsZero() {
		happened = e.applied.Add(modelSkew)
	}
	iat := time.Unix(c.iat, 0)
	switch {
	case e.Operator && (!c.dated || !iat.After(happened.Add(modelSigma))):
		return true, false
	case !e.Operator && c.dated && iat.Before(happened.Add(-modelSigma)):
		return true, false
	case !e.Operator && (!c.dated || !iat.After(happened.Add(modelSigma))):
		return false, true
	}
	return false, e.Selector.Session != ""
}

// note is what tells the places of events apart: of those with the same one the ledger keeps one note, with the instant
// of the last one, until all of them are over.
func (e *spoken) note() string {
	s := e.Selector
	s.Tenant = "" // it cannot be looked for
	return fmt.Sprint(e.Token, e.JTI, s, e.WholeIssuer)
}

// noted are the events of which the ledger has a note, each questioning for as long as the last of that note does.
func (s *spec) noted() (all []spoken) {
	last := map[string]time.Time{}
	for _, e := range s.held {
		last[e.note()] = time.Time{}
	}
	for _, e := range s.ever {
		if t, is := last[e.note()]; is && e.applied.After(t) {
			last[e.note()] = e.applied
		}
	}
	for _, e := range s.ever {
		if t, is := last[e.note()]; is {
			late := e
			late.until = t
			all = append(all, late)
		}
	}
	return all
}

// verdict is what a list says of an answer.
func (s *spec) verdict(list []spoken, c *claimed, asked time.Time) (v watchword.Void) {
	question := func(t time.Time) {
		if t.After(v.Questioned) {
			v.Questioned = t
		}
	}
	for i := range list {
		revoked, questioned := list[i].says(c)
		if revoked {
			return watchword.Void{Revoked: true}
		}
		if questioned {
			question(list[i].until)
		}
	}
	for _, t := range []time.Time{s.forgotten, s.doubt} {
		if !asked.After(t) {
			question(t)
		}
	}
	return v
}

// less reports that v is laxer than w.
func less(v, w watchword.Void) bool {
	return !v.Revoked && (w.Revoked || v.Questioned.Before(w.Questioned))
}

// weaker says where a ledger lets pass what it once was told of: an operator's deny is never given up, and of whatever
// else is, no evidence from before it counts. Nobody is revoked whom nobody named.
func (s *spec) weaker(v watchword.Void, c *claimed, asked time.Time) string {
	named := false
	for i := range s.ever {
		e := &s.ever[i]
		revoked, questioned := e.says(c)
		named = named || revoked
		switch {
		case revoked && e.Operator && !v.Revoked:
			return "an operator's deny is lost"
		case (revoked || questioned) && !asked.After(e.applied) && !v.Revoked && v.Questioned.Before(asked):
			return "evidence from before an event counts again"
		}
	}
	if v.Revoked && !named {
		return "revoked, and nobody said so"
	}
	return ""
}

// small is a world: a ledger, and beside it what it should say.
type small struct {
	t      *testing.T
	spec   spec
	ledger *revocation.Ledger
	end    func()
	folder string
}

// step is one thing that may happen in a small world.
type step struct {
	name string
	do   func(w *small)
}

// modelStart is when every bubble begins.
var modelStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *small) open() {
	l, err := revocation.New(revocation.Config{Folder: w.folder, Key: revocation.Key{1}, MaxBytes: 1 << 16,
		Issuers: []revocation.Issuer{{Name: "main", Settle: modelSettle, Skew: modelSkew, Remember: modelRemember}}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	w.ledger, w.end = l, func() { cancel(); <-done; _ = l.Close() }
}

func happens(name string, e revocation.Event, token bool) step {
	return step{name, func(w *small) {
		e := e
		if e.ID = fmt.Sprint(name, len(w.spec.ever)); token {
			e.Token = w.ledger.TokenID("main", "t")
		}
		w.spec.coarse = w.spec.full
		apply(w.t, w.ledger, e)
		w.spec.held = append(w.spec.held, spoken{e, time.Now(), time.Now()})
		w.spec.ever = append(w.spec.ever, spoken{e, time.Now(), time.Now()})
	}}
}

// only keeps the events of a list for which keep holds.
func only(all []spoken, keep func(*spoken) bool) (kept []spoken) {
	for i := range all {
		if keep(&all[i]) {
			kept = append(kept, all[i])
		}
	}
	return kept
}

// give drops the held events for which over holds, and forgets until settle after the last of them.
func (s *spec) give(over func(*spoken) bool) {
	for _, e := range s.held {
		if until := e.applied.Add(modelSettle); over(&e) && until.After(s.forgotten) {
			s.forgotten = until
		}
	}
	s.held = only(s.held, func(e *spoken) bool { return !over(e) })
}

// steps are the events of a small world, and what else may befall a ledger.
func steps() (events, fates []step, restart step) {
	at := modelStart.Add(-10 * time.Second)
	ann := revocation.Selector{Subject: "ann"}
	events = []step{
		happens("token deny", revocation.Event{}, true),
		happens("token revalidate", revocation.Event{Effect: revocation.Revalidate}, true),
		happens("jti deny", revocation.Event{JTI: "j"}, false),
		happens("sub deny", revocation.Event{Selector: ann, At: at}, false),
		happens("sub deny, undated", revocation.Event{Selector: ann}, false),
		happens("sub revalidate", revocation.Event{Selector: ann, Effect: revocation.Revalidate}, false),
		happens("sub operator deny", revocation.Event{Selector: ann, Operator: true, At: at}, false),
		happens("sid deny", revocation.Event{Selector: revocation.Selector{Session: "s"}, At: at}, false),
		happens("sub client deny", revocation.Event{Selector: revocation.Selector{Subject: "ann", Client: "web"}, At: at}, false),
		happens("whole revalidate", revocation.Event{WholeIssuer: true, Effect: revocation.Revalidate}, false),
		happens("sub tenant deny", revocation.Event{Selector: revocation.Selector{Subject: "ann", Tenant: "acme"}, At: at}, false),
		{"inactive answer", func(w *small) {
			asked := time.Now().Add(-time.Second)
			w.ledger.Doubt(watchword.Query{Issuer: "main", Token: "t", Key: watchword.Key{1}}, modelAnswer(w.t, asked, &claimed{}))
			w.spec.doubt, w.spec.waits = asked, 0
		}},
	}
	fates = []step{
		{"nothing", func(*small) {}},
		{"begin with nothing", func(w *small) {
			w.end()
			w.open()
			w.spec = spec{forgotten: time.Now(), ever: only(w.spec.ever, func(e *spoken) bool { return !e.Operator })}
		}},
		{"wait", func(w *small) {
			time.Sleep(modelRemember + modelSettle + 5*time.Second)
			w.spec.give(func(e *spoken) bool { return e.Effect == revocation.Revalidate })
			if w.spec.waits++; w.spec.waits == 2 && !w.spec.doubt.IsZero() {
				if w.spec.doubt.After(w.spec.forgotten) {
					w.spec.forgotten = w.spec.doubt
				}
				w.spec.doubt = time.Time{}
			}
		}},
		{"flood", func(w *small) {
			flood := make([]revocation.Event, 200)
			for i := range flood {
				flood[i] = revocation.Event{ID: fmt.Sprint(i, time.Now()), Selector: revocation.Selector{Subject: fmt.Sprint("x", i)}}
			}
			apply(w.t, w.ledger, flood...)
			w.spec.held = only(w.spec.held, func(e *spoken) bool { return e.Operator })
			w.spec.forgotten, w.spec.full = time.Now(), true // of the flood's own
		}},
	}
	return events, fates, step{"restart", func(w *small) {
		w.end()
		w.open()
		w.spec.doubt = time.Time{} // it is of the process, as the cache is
		w.spec.coarse = w.spec.full
	}}
}

// pairs are events in many words: each effect, each selector, at each of three instants.
func pairs() (all []step) {
	for _, s := range []revocation.Selector{{Subject: "ann"}, {Subject: "ann", Client: "web"}, {Session: "s"}, {}} {
		for at := -26; at <= -10; at += 8 {
			for _, operator := range []bool{false, true} {
				for _, effect := range []revocation.Effect{revocation.Deny, revocation.Revalidate} {
					e := revocation.Event{Selector: s, WholeIssuer: s.Empty(), At: modelStart.Add(time.Duration(at) * time.Second), Operator: operator, Effect: effect}
					all = append(all, happens(fmt.Sprintf("%+v operator=%v %v at %d", s, operator, effect, at), e, false))
				}
			}
		}
	}
	return all
}

// population is everything that answers may say in a small world: with every iat, and with none.
func population(iats ...int64) (all []*claimed) {
	for _, who := range []claimed{{sub: "ann", client: "web", sid: "s", jti: "j"}, {sub: "ann"}, {sid: "s"}, {sub: "bob", client: "web"}, {}} {
		for _, iat := range iats {
			one := who
			one.iat, one.dated = modelStart.Unix()+iat, true
			all = append(all, &one)
		}
		all = append(all, &who)
	}
	return all
}

func modelAnswer(t *testing.T, asked time.Time, c *claimed) *watchword.Answer {
	members := ""
	for name, value := range map[string]string{"sub": c.sub, "client_id": c.client, "sid": c.sid, "jti": c.jti} {
		if value != "" {
			members += fmt.Sprintf(`,%q:%q`, name, value)
		}
	}
	if c.dated {
		members += fmt.Sprintf(`,"iat":%d`, c.iat)
	}
	return answer(t, asked.Round(0), members)
}

// model plays sequences of steps, and remembers the answers of every instant: every bubble begins at the same one.
type model struct {
	people  []*claimed
	answers map[time.Time][]*watchword.Answer
	judged  map[string]int
}

func (m *model) asked(t *testing.T, at time.Time) []*watchword.Answer {
	all := m.answers[at]
	if all == nil {
		for _, c := range m.people {
			all = append(all, modelAnswer(t, at, c))
		}
		m.answers[at] = all
	}
	return all
}

// play lets one sequence happen, two seconds apart, and compares what ledger and list say at its end of every answer
// asked at, and between, all its instants.
func (m *model) play(t *testing.T, folder string, sequence ...step) {
	synctest.Test(t, func(t *testing.T) {
		w := &small{t: t, folder: folder, spec: spec{forgotten: modelStart}}
		w.open()
		defer func() { w.end() }()
		story, instants := "", []time.Time{modelStart.Add(-time.Second), modelStart, modelStart.Add(time.Second)}
		for _, s := range sequence {
			time.Sleep(2 * time.Second)
			story += s.name + "; "
			s.do(w)
			instants = append(instants, time.Now().Round(0), time.Now().Round(0).Add(time.Second))
		}
		time.Sleep(2 * time.Second)
		q, noted := watchword.Query{Issuer: "main", Token: "t", Key: watchword.Key{1}}, w.spec.noted()
		for _, at := range instants {
			for i, a := range m.asked(t, at) {
				c := m.people[i]
				got := w.ledger.Voids(q, a)
				least, most := w.spec.verdict(w.spec.held, c, at), w.spec.verdict(noted, c, at)
				weak := w.spec.weaker(got, c, at)
				if !w.spec.coarse && (less(got, least) || less(most, got)) || weak != "" {
					t.Fatalf("%son %+v, asked at %v: the ledger says %+v, the list %+v to %+v; %s", story, *c, at.Sub(modelStart), got, least, most, weak)
				}
				if least == most {
					m.judged["exactly"]++
				}
				switch {
				case got.Revoked:
					m.judged["revoked"]++
				case got.Questioned.IsZero():
					m.judged["stands"]++
				default:
					m.judged["asked"]++
				}
			}
		}
	})
}

func newModel(iats ...int64) *model {
	return &model{people: population(iats...), answers: map[time.Time][]*watchword.Answer{}, judged: map[string]int{}}
}

// around is on either side of every bound of an event at -10, and in its future.
var around = []int64{-14, -13, -7, -6, 1}

// Every sequence of three of twelve events and four fates (nothing, a beginning with nothing, a wait until events are
// over, a flood that makes others give way), against a list that is read from end to end: the ledger says the same of
// every answer, whenever it was asked for, and never lets pass what it once was told of.
//
// Covers: T10 SIG-16 SIG-17 SIG-18
func TestT10_SIG18EveryOrderOfASmallWorld(t *testing.T) {
	t.Parallel()
	events, fates, _ := steps()
	all, m, n := append(events, fates...), newModel(around...), 0
	for _, a := range all {
		for _, b := range all {
			for _, c := range all {
				if n++; n%7 == 0 || !testing.Short() {
					m.play(t, "", a, b, c)
				}
			}
		}
	}
	m.shows(t, n)
}

// Every pair of events in many words, in both orders.
//
// Covers: T10 SIG-16 SIG-18
func TestT10EveryPairInBothOrders(t *testing.T) {
	t.Parallel()
	all, m := pairs(), newModel(-30, -27, -24, -21, -18, -15, -12, -9, -6)
	for _, a := range all {
		for _, b := range all {
			m.play(t, "", a, b)
		}
	}
	m.shows(t, len(all)*len(all))
}

// A ledger that is closed and reads its log again between any two events or fates, and after them, says what it said.
//
// Covers: T10 SIG-20
func TestT10_SIG20RestartsInASmallWorld(t *testing.T) {
	t.Parallel()
	events, fates, restart := steps()
	all, m, n := append(events, fates[2:]...), newModel(around...), 0 // a beginning with nothing has no log
	for i, a := range all {
		for j, b := range all {
			if (i+j)%5 > 0 && testing.Short() { // a log is synced: the disk has other things to do
				continue
			}
			n++
			m.play(t, t.TempDir(), a, restart, b, restart)
		}
	}
	m.shows(t, n)
}

// shows fails where the test shows little.
func (m *model) shows(t *testing.T, sequences int) {
	t.Helper()
	t.Logf("%d sequences, %v", sequences, m.judged)
	if n := sequences; !testing.Short() && (m.judged["revoked"] < 10*n || m.judged["asked"] < 10*n || m.judged["stands"] < 10*n || m.judged["exactly"] < 100*n) {
		t.Errorf("%v: the test shows little", m.judged)
	}
}
