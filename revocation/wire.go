package revocation

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"time"
)

// A record is what a body of a Log holds: a head, a payload, and an HMAC-SHA256 over both under a key that only this
// deployment can derive. It holds no token, only TokenIDs.
//
//	magic 4 | kind 1 | publisher 16 | sequence 8 | sent 8 | fingerprint 16 | payload | mac 32
const (
	magic    = "WWb1"
	headSize = 4 + 1 + 16 + 8 + 8 + 16
	macSize  = sha256.Size

	// MaxRecordBytes bounds a body of a Log; every engine takes that much by default.
	MaxRecordBytes = 256 << 10
)

// kind of a record.
type kind uint8

const (
	kindEvents kind = 1 + iota
	kindProof
	kindLapse
	kindHello // the publisher lives, and its sequence stands here
	kindBye   // the publisher has stopped in good order
)

// publisher is one run of one node: a restarted node is another publisher, so a sequence never begins anew.
type publisher [16]byte

// record is one message, read or to be written. Which of the last fields count depends on kind.
type record struct {
	kind     kind
	from     publisher
	sequence uint64 // dense, from 1; 0: not in the sequence (what is kept beside the log)
	sent     time.Time
	events   []Event
	issuer   string // proof, lapse; empty in a lapse: every issuer
	through  time.Time
	why      string
	aliens   []string // issuers named in it that are not ours, or others than ours of that name; their events are left out
}

var (
	errStranger = errors.New("not a message of this deployment")
	errForeign  = errors.New("made under another ledger key: give every node the same one")
	errRecord   = errors.New("an authenticated message that cannot be read: is a node of another version?")
)

// sealer seals and opens records. It is immutable.
type sealer struct {
	mac, names  []byte
	fingerprint [16]byte
	issuer      func(name string) (identity string, known bool)
	previous    []*sealer // they open, and seal nothing
}

// newSealer derives its keys from the deployment's secret. fingerprint tells ledger keys apart, and what issuer returns
// authorization servers of one name.
func newSealer(secret, fingerprint []byte, issuer func(name string) (identity string, known bool)) (*sealer, error) {
	s := &sealer{issuer: issuer}
	var err, err2 error
	s.mac, err = hkdf.Key(sha256.New, secret, nil, "watchword bus records 1", 32)
	s.names, err2 = hkdf.Key(sha256.New, secret, nil, "watchword bus names 1", 32)
	copy(s.fingerprint[:], s.digest("ledger", string(fingerprint)))
	return s, errors.Join(err, err2)
}

// digest is a keyed digest of texts under a purpose.
func (s *sealer) digest(purpose string, texts ...string) []byte {
	h := hmac.New(sha256.New, s.names)
	b := appendText(nil, purpose)
	for _, t := range texts {
		b = appendText(b, t)
	}
	_, _ = h.Write(b)
	return h.Sum(nil)
}

const markSize = 8

// mark tells the authorization server of that name; one that is not ours has a mark that no other node's equals.
func (s *sealer) mark(name string) []byte {
	identity, known := s.issuer(name)
	if !known {
		return make([]byte, markSize)
	}
	return s.digest("issuer", name, identity)[:markSize]
}

// admit reads a mark, and reports whether the issuer of that name is the one that the writer meant.
func (s *sealer) admit(r *record, name string, mark []byte) bool {
	if _, known := s.issuer(name); known && bytes.Equal(mark, s.mark(name)) {
		return true
	}
	r.aliens = append(r.aliens, name)
	return false
}

// keptUnder is the key under which an event is kept beside the log. Two senders may choose one ID: what they say tells
// them apart.
func (s *sealer) keptUnder(e *Event) string {
	id := identity(e)
	return hex.EncodeToString(s.digest("kept", string(id[:]))[:16])
}

// seal writes r.
func (s *sealer) seal(r *record) []byte {
	b := make([]byte, 0, 512)
	b = append(b, magic...)
	b = append(b, byte(r.kind))
	b = append(b, r.from[:]...)
	b = binary.BigEndian.AppendUint64(b, r.sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(r.sent.UnixNano()))
	b = append(b, s.fingerprint[:]...)
	switch r.kind {
	case kindEvents:
		b = binary.AppendUvarint(b, uint64(len(r.events)))
		for i := range r.events {
			b = appendText(b, string(AppendEvent(nil, &r.events[i])))
			b = append(b, s.mark(r.events[i].Issuer)...)
		}
	case kindProof:
		b = append(appendTime(appendText(b, r.issuer), r.through), s.mark(r.issuer)...)
	case kindLapse:
		b = appendText(appendText(b, r.issuer), r.why)
	}
	return append(b, s.sum(b)...)
}

func (s *sealer) sum(b []byte) []byte {
	h := hmac.New(sha256.New, s.mac)
	_, _ = h.Write(b)
	return h.Sum(nil)
}

// open reads a body. errStranger: nobody of this deployment wrote it. errForeign, errRecord: one did, and we do not
// understand it; the head of the record is then returned with the error.
func (s *sealer) open(body []byte) (*record, error) {
	if len(body) < headSize+macSize || len(body) > MaxRecordBytes || string(body[:4]) != magic {
		return nil, errStranger
	}
	text, mac := body[:len(body)-macSize], body[len(body)-macSize:]
	if !hmac.Equal(s.sum(text), mac) {
		for _, old := range s.previous {
			if r, err := old.open(body); err != errStranger {
				return r, err
			}
		}
		return nil, errStranger
	}
	r := &record{kind: kind(text[4]), sequence: binary.BigEndian.Uint64(text[21:]), sent: time.Unix(0, int64(binary.BigEndian.Uint64(text[29:])))}
	copy(r.from[:], text[5:])
	if !bytes.Equal(text[37:headSize], s.fingerprint[:]) {
		return r, errForeign
	}
	p := &parser{b: text[headSize:]}
	switch r.kind {
	case kindEvents:
		n := p.uvarint(MaxRecordBytes / 8)
		for range n {
			e, err := ParseEvent([]byte(p.text(MaxEventBytes)))
			mark := p.take(markSize)
			if err != nil || p.bad {
				return r, errRecord
			}
			if s.admit(r, e.Issuer, mark) {
				r.events = append(r.events, e)
			}
		}
		p.bad = p.bad || n == 0
	case kindProof:
		r.issuer, r.through = p.text(MaxText), p.time()
		mark := p.take(markSize)
		if p.bad = p.bad || r.issuer == "" || r.through.IsZero(); !p.bad {
			s.admit(r, r.issuer, mark)
		}
	case kindLapse:
		r.issuer, r.why = p.text(MaxText), p.text(MaxText)
	case kindHello, kindBye:
	default:
		p.bad = true
	}
	if p.bad || len(p.b) > 0 {
		return r, errRecord
	}
	return r, nil
}

// MaxEventBytes bounds one event as AppendEvent writes it.
const MaxEventBytes = 40 << 10

// Flags of an encoded event.
const (
	hasToken = 1 << iota
	isWholeIssuer
	isRevalidate
	isOperator
	flags = iota
)

var errEvent = errors.New("not an event as AppendEvent writes it")

// AppendEvent appends the one encoding of e: the same event is the same bytes.
func AppendEvent(b []byte, e *Event) []byte {
	var f byte
	for i, is := range []bool{e.Token != TokenID{}, e.WholeIssuer, e.Effect == Revalidate, e.Operator} {
		if is {
			f |= 1 << i
		}
	}
	b = append(b, 1, f) // the version of the encoding
	if f&hasToken != 0 {
		b = append(b, e.Token[:]...)
	}
	for _, t := range []string{e.ID, e.Issuer, e.JTI, e.Selector.Subject, e.Selector.Client, e.Selector.Session, e.Selector.Tenant, e.Way, e.Who, e.Why} {
		b = appendText(b, t)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Selector.Other)))
	for _, name := range slices.Sorted(maps.Keys(e.Selector.Other)) {
		b = appendText(appendText(b, name), e.Selector.Other[name])
	}
	return appendTime(appendTime(appendTime(b, e.At), e.Heard), e.Expires)
}

// ParseEvent reads what AppendEvent wrote, and nothing else: another spelling of the same event is refused, and so is
// an event that Validate refuses.
func ParseEvent(b []byte) (Event, error) {
	if len(b) < 2 || len(b) > MaxEventBytes || b[0] != 1 || b[1]>>flags != 0 {
		return Event{}, errEvent
	}
	f := b[1]
	e := Event{WholeIssuer: f&isWholeIssuer != 0, Operator: f&isOperator != 0}
	if f&isRevalidate != 0 {
		e.Effect = Revalidate
	}
	p := &parser{b: b[2:]}
	if f&hasToken != 0 {
		copy(e.Token[:], p.take(uint64(len(e.Token))))
	}
	for _, t := range []*string{&e.ID, &e.Issuer, &e.JTI, &e.Selector.Subject, &e.Selector.Client, &e.Selector.Session, &e.Selector.Tenant, &e.Way, &e.Who, &e.Why} {
		*t = p.text(MaxText)
	}
	if n := p.uvarint(MaxSelectors); n > 0 {
		e.Selector.Other = make(map[string]string, n)
		for range n {
			name := p.text(MaxText)
			e.Selector.Other[name] = p.text(MaxText)
		}
	}
	e.At, e.Heard, e.Expires = p.time(), p.time(), p.time()
	if p.bad || len(p.b) > 0 || e.Validate() != nil || !bytes.Equal(AppendEvent(nil, &e), b) {
		return Event{}, errEvent
	}
	return e, nil
}

// Identify gives e an ID if it has none: a digest of what it says, and not of who heard it when, so that the same news
// by two ways of one kind is one event. Where it does not say when it happened, the hearing does: the same said again
// later is news.
func (e *Event) Identify() {
	if e.ID == "" {
		same := *e
		if same.Who, same.Why = "", ""; !same.At.IsZero() {
			same.Heard = time.Time{}
		}
		sum := sha256.Sum256(AppendEvent(nil, &same))
		e.ID = hex.EncodeToString(sum[:16])
	}
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTime writes 0 for the zero time, else 1, seconds and nanoseconds.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	b = binary.AppendVarint(append(b, 1), t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

// parser takes a payload apart. Once bad it gives zero values.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) take(n uint64) []byte {
	if p.bad || n > uint64(len(p.b)) {
		p.bad = true
		return nil
	}
	out := p.b[:n]
	p.b = p.b[n:]
	return out
}

func (p *parser) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(p.b)
	if p.bad || n <= 0 || v > most {
		p.bad = true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) text(most uint64) string { return string(p.take(p.uvarint(most))) }

func (p *parser) time() time.Time {
	switch is := p.take(1); {
	case p.bad || is[0] > 1:
		p.bad = true
	case is[0] == 1:
		seconds, n := binary.Varint(p.b)
		if n <= 0 || seconds < -1<<40 || seconds > 1<<40 {
			p.bad = true
			break
		}
		p.b = p.b[n:]
		return time.Unix(seconds, int64(p.uvarint(999_999_999)))
	}
	return time.Time{}
}
