package revocation

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/watchword-dev/watchword"
)

// held is one event that is in force: as it is written in the log, and where it stands among the others.
type held struct {
	body       string
	id         [16]byte
	issuer     string
	end        int64 // when it may be dropped
	next, prev *held
	place      int // in the heap of ends
	cost       int64
	operator   bool // an operator's deny: never forgotten to make room
}

func (r *held) event() (e Event, applied int64) {
	e, applied, err := parseEventLine([]byte(r.body))
	if err != nil {
		panic(err) // we wrote it
	}
	return e, applied
}

// heldBytes is what an event takes besides its body, and placeBytes each place in the index (measured:
// TestBytesPerEvent).
const (
	heldBytes  = 230
	placeBytes = 90
)

// store is every event: by identity, in the order in which they came, and by their ends.
type store struct {
	byID           map[[16]byte]*held
	oldest, newest *held
	ends           ends
	bytes          int64
	live           int64 // of bytes, what the log needs
	operator       int64 // of bytes, what operators deny
}

func newStore() store { return store{byID: map[[16]byte]*held{}} }

func (s *store) add(r *held) {
	s.byID[r.id] = r
	if r.prev = s.newest; r.prev != nil {
		r.prev.next = r
	} else {
		s.oldest = r
	}
	s.newest = r
	heap.Push(&s.ends, r)
	s.bytes, s.live = s.bytes+r.cost, s.live+int64(len(r.body))
	if r.operator {
		s.operator += r.cost
	}
}

func (s *store) remove(r *held) {
	delete(s.byID, r.id)
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		s.oldest = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		s.newest = r.prev
	}
	heap.Remove(&s.ends, r.place)
	s.bytes, s.live = s.bytes-r.cost, s.live-int64(len(r.body))
	if r.operator {
		s.operator -= r.cost
	}
}

// ends is a heap of records, the first to end first.
type ends []*held

func (h ends) Len() int           { return len(h) }
func (h ends) Less(i, j int) bool { return h[i].end < h[j].end }
func (h ends) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].place, h[j].place = i, j }

// Push implements heap.Interface.
func (h *ends) Push(r any) { r.(*held).place = len(*h); *h = append(*h, r.(*held)) }

// Pop implements heap.Interface.
func (h *ends) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last], *h = nil, (*h)[:last]
	return r
}

// Apply implements Sink and, for one machine, Publisher's promise: events are in force when it returns, and nil says
// that they are in the log too. What is refused is named in the error, and the rest is in force; errors are ErrRefused,
// ErrFull, or why the log could not be written.
func (l *Ledger) Apply(ctx context.Context, events ...Event) error {
	if l.config.ReadOnly {
		return ErrReadOnly
	}
	var errs []error
	l.mu.Lock()
	for i := range events {
		e := events[i]
		outcome, err := l.apply(&e)
		if err != nil {
			errs = append(errs, err)
		}
		if l.config.Observe != nil {
			l.config.Observe(&e, outcome)
		}
	}
	l.mu.Unlock()
	return errors.Join(append(errs, l.commit())...)
}

func (l *Ledger) apply(e *Event) (Outcome, error) {
	now := time.Now()
	if e.Heard.IsZero() {
		e.Heard = now
	}
	b := (*l.books.Load())[e.Issuer]
	if err := e.Validate(); err != nil {
		return Refused, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if b == nil || !b.known {
		return Refused, fmt.Errorf("%w: it names an issuer that is not configured", ErrRefused)
	}
	if !e.At.IsZero() && watchword.Age(now, e.At) < -b.issuer.sigma() {
		return Refused, fmt.Errorf("%w: it happens in the future, by more than the issuer's skew: mind the clocks, or raise issuers[].skew", ErrRefused)
	}
	id := identity(e)
	if l.store.byID[id] != nil {
		return Duplicate, nil
	}
	r := newHeld(b, id, e, nanos(now))
	if r.end <= nanos(now) {
		return Over, nil
	}
	if r.operator && l.store.operator+r.cost > l.config.MaxBytes/4 {
		return Full, ErrFull
	}
	l.hold(b, r, e, nanos(now))
	l.keep([]byte(r.body))
	l.makeRoom()
	return Applied, nil
}

// newHeld says how long e is held and what it takes.
func newHeld(b *book, id [16]byte, e *Event, applied int64) *held {
	r := &held{body: string(eventLine(e, applied)), id: id, issuer: b.issuer.Name, operator: e.Operator && e.Effect == Deny, end: b.end(e, applied)}
	places := 1
	if e.Token == (TokenID{}) && e.JTI == "" {
		_, shape, _ := b.view.Load().claims.named(&e.Selector)
		places = shape.parts()
	}
	r.cost = int64(len(r.body) + heldBytes + places*placeBytes)
	return r
}

// end is when nobody accepts a token any more that e names, nor uses evidence that it questions.
func (b *book) end(e *Event, applied int64) int64 {
	over := b.issuer.sigma() + b.issuer.Leeway
	switch {
	case e.Effect == Revalidate:
		return applied + int64(b.issuer.Remember+b.issuer.Settle)
	case !e.Expires.IsZero():
		return nanos(e.Expires.Add(over))
	}
	return min(far, b.happened(e)) + int64(b.issuer.MaxTokenLife+over)
}

// reissue replaces what is known of the issuer of b. Where that changes what an event means, the index is made anew.
func (l *Ledger) reissue(b *book, is Issuer) {
	old := b.issuer
	b.issuer = is
	if old.MaxTokenLife < is.MaxTokenLife || old.Leeway < is.Leeway || old.Skew < is.Skew {
		l.prolong(b)
	}
	if maps.Equal(old.Selectors, is.Selectors) && old.Skew == is.Skew && old.ID == is.ID {
		next := *b.view.Load()
		next.issuer = &is
		b.view.Store(&next)
		return
	}
	next := &view{issuer: &is, claims: newClaimsOf(is.Selectors), sigma: int64(is.sigma()), index: newIndex(), forgotten: b.view.Load().forgotten}
	b.shapes, b.tokens = [1 << maxNames]int{}, 0
	for r := l.store.oldest; r != nil; r = r.next {
		if r.issuer == is.Name {
			e, applied := r.event()
			l.enter(b, next, &e, applied)
		}
	}
	b.view.Store(next)
}

// prolong holds what is held of b for as long as its tokens may now live. The caller holds mu.
func (l *Ledger) prolong(b *book) {
	for r := l.store.oldest; r != nil; r = r.next {
		if r.issuer == b.issuer.Name {
			e, applied := r.event()
			r.end = max(r.end, b.end(&e, applied))
		}
	}
	heap.Init(&l.store.ends)
}

// happened is when e happened by the clock of its issuer.
func (b *book) happened(e *Event) int64 {
	if e.At.IsZero() {
		return nanos(e.Heard.Add(b.issuer.Skew))
	}
	return nanos(e.At)
}

// hold puts e in force.
func (l *Ledger) hold(b *book, r *held, e *Event, applied int64) {
	next := *b.view.Load()
	l.enter(b, &next, e, applied)
	b.view.Store(&next)
	b.bell.ring()
	l.store.add(r)
}

// enter joins e to the marks of w.
func (l *Ledger) enter(b *book, w *view, e *Event, applied int64) {
	m := mark{doubted: applied}
	switch {
	case e.Effect == Revalidate:
		m = mark{asked: applied}
	case e.Operator:
		m.operator = b.happened(e)
	default:
		m.denied = b.happened(e)
	}
	if id, one := l.token(b, e); one {
		if m.final = e.Effect == Deny; m.final {
			m = mark{final: true}
		}
		w.index.add(ofToken(&id), m)
		b.tokens++
		w.tokens = true
		return
	}
	v, shape, whole := w.claims.named(&e.Selector)
	if !whole { // it names a claim that is not declared: everything of the rest is asked about again
		m = m.part()
	}
	if shape == 0 {
		w.everybody.join(m)
		w.everybody.events++
		return
	}
	w.index.places(shape, &v, func(p place, all bool) {
		if all {
			w.index.add(p, m)
		} else {
			w.index.add(p, m.part())
		}
	})
	if b.shapes[shape]++; b.shapes[shape] == 1 {
		w.reshape(b)
	}
}

// leave takes e from the marks of w again.
func (l *Ledger) leave(b *book, w *view, e *Event) {
	if id, one := l.token(b, e); one {
		w.index.remove(ofToken(&id))
		b.tokens--
		w.tokens = b.tokens > 0
		return
	}
	v, shape, _ := w.claims.named(&e.Selector)
	if shape == 0 {
		if w.everybody.events--; w.everybody.events == 0 {
			w.everybody = mark{}
		}
		return
	}
	w.index.places(shape, &v, func(p place, _ bool) { w.index.remove(p) })
	if b.shapes[shape]--; b.shapes[shape] == 0 {
		w.reshape(b)
	}
}

// token is the one token that e names.
func (l *Ledger) token(b *book, e *Event) (id TokenID, one bool) {
	if e.JTI != "" {
		return l.keys[0].byJTI(b.issuer.Name, b.issuer.ID, b.issuer.ID, e.JTI), true
	}
	return e.Token, e.Token != TokenID{}
}

func (w *view) reshape(b *book) {
	w.shapes, w.want = nil, 0
	for shape, n := range b.shapes {
		if n > 0 {
			w.shapes, w.want = append(w.shapes, names(shape)), w.want|names(shape)
		}
	}
}

// makeRoom forgets the oldest events of authorization servers: what was asked before them counts no more, so nothing
// that they voided comes back.
func (l *Ledger) makeRoom() {
	forgotten, last := map[string]int{}, map[string]time.Time{}
	for r := l.store.oldest; r != nil && l.store.bytes > l.config.MaxBytes*3/4; {
		next := r.next
		if !r.operator {
			forgotten[r.issuer]++
			last[r.issuer] = instant(l.release(r))
		}
		r = next
	}
	for issuer, n := range forgotten {
		l.config.Logger.Warn("the ledger is full: its oldest events are forgotten, and every answer from before them is asked for again", "issuer", issuer, "events", n)
		if l.config.OnForget != nil {
			l.config.OnForget(issuer, n, last[issuer])
		}
	}
}

// release drops an event, which was applied then, and raises Forgotten.
func (l *Ledger) release(r *held) (applied int64) {
	e, applied := r.event()
	b := (*l.books.Load())[r.issuer]
	l.drop(b, applied) // first: nothing that it voided may slip through
	next := *b.view.Load()
	l.leave(b, &next, &e)
	b.view.Store(&next)
	b.bell.ring() // what is forgotten questions
	l.store.remove(r)
	return applied
}

// sweep drops what is over, by the earlier of two clocks: nothing comes back because one of them jumped.
func (l *Ledger) sweep(now int64) {
	for len(l.store.ends) > 0 && l.store.ends[0].end <= now {
		l.release(l.store.ends[0])
	}
	longest := time.Duration(0)
	for _, b := range *l.books.Load() {
		longest = max(longest, b.issuer.Remember+b.issuer.Settle)
	}
	l.letGo(l.doubts.sweep(time.Now(), longest))
}

// Stats is a look at a Ledger.
type Stats struct {
	Events        int   // held
	Bytes         int64 // of memory, bounded by Config.MaxBytes
	OperatorBytes int64 // of Bytes, what operators deny; bounded by a quarter
	MaxBytes      int64 // Config.MaxBytes
	LogBytes      int64 // on disk
	Doubts        int
}

// Stats looks at l.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.doubts.count()
	return Stats{Events: len(l.store.byID), Bytes: l.store.bytes + int64(n)*doubtBytes, OperatorBytes: l.store.operator, MaxBytes: l.config.MaxBytes, LogBytes: l.journal.size(), Doubts: n}
}
