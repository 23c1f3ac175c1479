package revocation

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"
)

// The kinds of record in a log.
const (
	kindEvent     = 'e'
	kindForgotten = 'f'
	kindKey       = 'k'
)

const maxRecord = 64 << 10

var errRecord = errors.New("not a record of this version")

// writer and reader of the little format that records are made of: numbers are varints, texts have their length before
// them.
type writer []byte

func (w *writer) number(n int64) { *w = binary.AppendVarint(*w, n) }
func (w *writer) text(s string)  { *w = append(binary.AppendUvarint(*w, uint64(len(s))), s...) }
func (w *writer) instant(t time.Time) {
	if t.IsZero() {
		w.number(0)
	} else {
		w.number(nanos(t))
	}
}

type scan struct {
	rest []byte
	bad  bool
}

func (s *scan) number() int64 {
	v, n := binary.Varint(s.rest)
	if s.bad = s.bad || n <= 0; s.bad {
		return 0
	}
	s.rest = s.rest[n:]
	return v
}

func (s *scan) text() string {
	length, n := binary.Uvarint(s.rest)
	if s.bad = s.bad || n <= 0 || length > uint64(len(s.rest)-n); s.bad {
		return ""
	}
	text := string(s.rest[n : n+int(length)])
	s.rest = s.rest[n+int(length):]
	return text
}

func (s *scan) instant() (t time.Time) {
	if n := s.number(); n > 0 && n <= far {
		t = instant(n)
	} else if n != 0 {
		s.bad = true
	}
	return t
}

const (
	isWhole = 1 << iota
	isOperator
	isRevalidate
)

// encodeEvent writes e and when it was applied here.
func encodeEvent(e *Event, applied int64) []byte {
	w := writer{kindEvent}
	flags := int64(0)
	for is, yes := range map[int64]bool{isWhole: e.WholeIssuer, isOperator: e.Operator, isRevalidate: e.Effect == Revalidate} {
		if yes {
			flags |= is
		}
	}
	w.number(flags)
	w.number(applied)
	w.instant(e.At)
	w.instant(e.Heard)
	w.instant(e.Expires)
	token := ""
	if e.Token != (TokenID{}) {
		token = string(e.Token[:])
	}
	for _, s := range []string{e.ID, e.Issuer, token, e.JTI, e.Selector.Subject, e.Selector.Client, e.Selector.Session, e.Selector.Tenant, e.Way, e.Who, e.Why} {
		w.text(s)
	}
	w.number(int64(len(e.Selector.Other)))
	for _, name := range slices.Sorted(maps.Keys(e.Selector.Other)) {
		w.text(name)
		w.text(e.Selector.Other[name])
	}
	return w
}

// decodeEvent reads what encodeEvent wrote, and nothing else.
func decodeEvent(body []byte) (e Event, applied int64, err error) {
	if len(body) == 0 || len(body) > maxRecord || body[0] != kindEvent {
		return e, 0, errRecord
	}
	s := scan{rest: body[1:]}
	flags := s.number()
	s.bad = s.bad || flags < 0 || flags >= isRevalidate<<1
	e.WholeIssuer, e.Operator = flags&isWhole != 0, flags&isOperator != 0
	if flags&isRevalidate != 0 {
		e.Effect = Revalidate
	}
	applied = s.number()
	s.bad = s.bad || applied <= 0 || applied > far
	e.At, e.Heard, e.Expires = s.instant(), s.instant(), s.instant()
	token := ""
	for _, to := range []*string{&e.ID, &e.Issuer, &token, &e.JTI, &e.Selector.Subject, &e.Selector.Client, &e.Selector.Session, &e.Selector.Tenant, &e.Way, &e.Who, &e.Why} {
		*to = s.text()
	}
	s.bad = s.bad || token != "" && len(token) != len(e.Token)
	copy(e.Token[:], token)
	count, last := s.number(), ""
	s.bad = s.bad || count < 0 || count > MaxSelectors
	for i := range count {
		name, value := s.text(), s.text()
		if s.bad = s.bad || i > 0 && name <= last; s.bad {
			break
		}
		if e.Selector.Other == nil {
			e.Selector.Other = map[string]string{}
		}
		e.Selector.Other[name], last = value, name
	}
	if s.bad || len(s.rest) > 0 || e.Validate() != nil {
		return Event{}, 0, errRecord
	}
	return e, applied, nil
}

// identity is what makes two events one: a sender's ID and what the event says, wherever and whenever it is heard
// again. Without an ID the hearing counts too, so that whoever says the same again later says something new.
func identity(e *Event) (id [16]byte) {
	same := *e
	same.Way, same.Who, same.Why, same.Expires = "", "", "", time.Time{}
	if same.ID != "" {
		same.Heard = time.Time{}
	}
	sum := sha256.Sum256(encodeEvent(&same, 1))
	copy(id[:], sum[:])
	return id
}

func forgottenRecord(issuer string, until time.Time) []byte {
	w := writer{kindForgotten}
	w.text(issuer)
	w.instant(until)
	return w
}

func decodeForgotten(body []byte) (issuer string, until time.Time, err error) {
	if len(body) == 0 || len(body) > maxRecord || body[0] != kindForgotten {
		return "", until, errRecord
	}
	s := scan{rest: body[1:]}
	if issuer, until = s.text(), s.instant(); s.bad || len(s.rest) > 0 || issuer == "" {
		return "", until, errRecord
	}
	return issuer, until, nil
}
