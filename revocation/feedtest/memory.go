package feedtest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// Fault is what happens to a call of a Memory.
type Fault uint8

// The faults. Each call takes the next one of its operation's list.
const (
	Fine     Fault = iota
	Nothing        // it fails, without effect
	Unknown        // it fails, after it took effect
	Stranded       // it waits until its context ends, without effect
)

// ErrFault is what a call that should fail returns.
var ErrFault = errors.New("a fault that the test asked for")

// Memory is a Log in memory, whose every call can be made to fail and whose content can be tampered with. Safe for
// concurrent use. Make it with NewMemory; Close is for one connection and does nothing.
type Memory struct {
	mu      sync.Mutex
	bodies  [][]byte
	cut     int // of the oldest that is left
	epoch   int // another log each time it changes
	kept    map[string]keptBody
	faults  map[string][]Fault
	changed chan struct{} // closed at every change
	lag     time.Duration
	stalled bool
}

type keptBody struct {
	body  []byte
	until time.Time
}

// NewMemory makes an empty Memory.
func NewMemory() *Memory {
	return &Memory{kept: map[string]keptBody{}, faults: map[string][]Fault{}, changed: make(chan struct{})}
}

// Fail gives the next calls of an operation (append, keep, kept) these faults.
func (m *Memory) Fail(operation string, faults ...Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults[operation] = append(m.faults[operation], faults...)
}

// Lag makes every reader read what is older than lag only, as a mirror does.
func (m *Memory) Lag(lag time.Duration) { m.change(func() { m.lag = lag }) }

// Stall stops, or lets go on, every Append and Read.
func (m *Memory) Stall(stalled bool) { m.change(func() { m.stalled = stalled }) }

// Lose takes the last n messages out and becomes another log: a failover to a replica that missed them.
func (m *Memory) Lose(n int) {
	m.change(func() {
		m.bodies = m.bodies[:max(m.cut, len(m.bodies)-n)]
		m.epoch++
	})
}

// Cut forgets the oldest n messages that are left.
func (m *Memory) Cut(n int) { m.change(func() { m.cut = min(len(m.bodies), m.cut+n) }) }

// Edit replaces the messages that nobody has read.
func (m *Memory) Edit(f func(bodies [][]byte) [][]byte) {
	m.change(func() { m.bodies = append(m.bodies[:m.cut:m.cut], f(slices.Clone(m.bodies[m.cut:]))...) })
}

// Bodies are the messages that are left.
func (m *Memory) Bodies() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.bodies[m.cut:])
}

func (m *Memory) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

// fault takes the next fault of an operation and plays it.
func (m *Memory) fault(ctx context.Context, operation string, effect func()) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.mu.Lock()
	for m.stalled && operation == "append" {
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		m.mu.Lock()
	}
	f := Fine
	if list := m.faults[operation]; len(list) > 0 {
		f, m.faults[operation] = list[0], list[1:]
	}
	m.mu.Unlock()
	if f == Stranded {
		<-ctx.Done()
		return ctx.Err()
	}
	if f != Nothing {
		effect()
	}
	if f != Fine {
		return ErrFault
	}
	return nil
}

// Append implements revocation.Log.
func (m *Memory) Append(ctx context.Context, body []byte) error {
	return m.fault(ctx, "append", func() { m.change(func() { m.bodies = append(m.bodies, slices.Clone(body)) }) })
}

// Read implements revocation.Log.
func (m *Memory) Read(ctx context.Context, from string, each func(revocation.Entry) error, gap func(why string), _ func(err error)) error {
	next, epoch := 0, -1
	if from != "" {
		var err error
		if next, err = strconv.Atoi(from); err != nil {
			return err
		}
	}
	first := from == ""
	for {
		m.mu.Lock()
		if epoch >= 0 && epoch != m.epoch {
			gap("another log")
			next = min(next, len(m.bodies))
		}
		if epoch = m.epoch; next < m.cut {
			if next = m.cut; !first {
				gap("cut")
			}
		}
		first = false
		var body []byte
		if next < len(m.bodies) && !m.stalled {
			body = m.bodies[next]
		}
		changed, lag := m.changed, m.lag
		m.mu.Unlock()
		if body == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if lag > 0 {
			time.Sleep(lag)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		next++
		if err := each(revocation.Entry{Position: strconv.Itoa(next), Body: slices.Clone(body)}); err != nil {
			return err
		}
	}
}

// Keep implements revocation.Log.
func (m *Memory) Keep(ctx context.Context, key string, body []byte, until time.Time) error {
	return m.fault(ctx, "keep", func() { m.change(func() { m.kept[key] = keptBody{slices.Clone(body), until} }) })
}

// Kept implements revocation.Log.
func (m *Memory) Kept(ctx context.Context, each func(key string, body []byte) error) error {
	var all map[string]keptBody
	err := m.fault(ctx, "kept", func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		all = maps.Clone(m.kept)
	})
	for key, k := range all {
		if time.Now().After(k.until) {
			continue
		}
		if err := each(key, k.body); err != nil {
			return err
		}
	}
	return err
}

// Close implements revocation.Log.
func (m *Memory) Close() error { return nil }

// Sink writes down what it is told. Safe for concurrent use; the zero value is ready.
type Sink struct {
	mu     sync.Mutex
	events map[string]revocation.Event
	story  []string
	cover  map[string]time.Time
	refuse error
}

// Refuse makes Apply fail from now on; nil: no more.
func (s *Sink) Refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

// Apply implements revocation.Sink.
func (s *Sink) Apply(_ context.Context, events ...revocation.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events == nil {
		s.events = map[string]revocation.Event{}
	}
	for _, e := range events {
		if _, known := s.events[e.ID]; !known {
			s.story = append(s.story, "event "+e.ID)
		}
		s.events[e.ID] = e
	}
	return s.refuse
}

// Cover implements revocation.Sink.
func (s *Sink) Cover(issuer string, through time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cover == nil {
		s.cover = map[string]time.Time{}
	}
	s.cover[issuer] = through
	s.story = append(s.story, "cover "+issuer)
}

// Gap implements revocation.Sink.
func (s *Sink) Gap(issuer, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.story = append(s.story, "gap "+issuer+": "+why)
}

// Has reports that an event of that ID is in force.
func (s *Sink) Has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.events[id]
	return has
}

// Through is how far coverage of issuer was proven.
func (s *Sink) Through(issuer string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cover[issuer]
}

// Story is what happened, in order: "event ID", "cover ISSUER", "gap ISSUER: WHY". An event is told once.
func (s *Sink) Story() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.story)
}

// Gaps counts the gaps so far.
func (s *Sink) Gaps() (n int) {
	for _, line := range s.Story() {
		if line[:3] == "gap" {
			n++
		}
	}
	return n
}
