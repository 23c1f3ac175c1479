package revocation

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

func testSealer(t testing.TB, key string) *sealer {
	t.Helper()
	s, err := newSealer([]byte("0123456789abcdef"), []byte(key), func(name string) (string, bool) { return "as", name != "alien" })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func records() []*record {
	at := time.Unix(1_800_000_000, 5)
	full := Event{ID: "id", Issuer: "main", Selector: Selector{Subject: "s", Client: "c", Session: "x", Tenant: "t", Other: map[string]string{"job": "7", "a": "b"}},
		Effect: Revalidate, Operator: true, At: at, Heard: at.Add(time.Second), Expires: time.Unix(253402300799, 0), Way: "admin", Who: "ops", Why: "why"}
	return []*record{
		{kind: kindEvents, events: []Event{full, {Issuer: "main", Token: TokenID{1}}, {Issuer: "main", JTI: "j"}, {Issuer: "main", WholeIssuer: true}}},
		{kind: kindProof, issuer: "main", through: at},
		{kind: kindLapse, issuer: "main", why: "paused"}, {kind: kindLapse, why: "all"},
		{kind: kindHello}, {kind: kindBye},
	}
}

// Covers: SIG-21
func TestRecords(t *testing.T) {
	t.Parallel()
	s := testSealer(t, "key")
	for _, r := range records() {
		r.from, r.sequence, r.sent = publisher{1, 2}, 7, time.Unix(1_800_000_000, 9)
		body := s.seal(r)
		got, err := s.open(body)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%d: %+v, %v; want %+v", r.kind, got, err, r)
		}
		for i := range body {
			if _, err := s.open(body[:i]); err != errStranger {
				t.Fatalf("%d, cut at %d: %v", r.kind, i, err)
			}
			forged := bytes.Clone(body)
			forged[i] ^= 0x80
			if _, err := s.open(forged); err != errStranger {
				t.Fatalf("%d, forged at %d: %v", r.kind, i, err)
			}
		}
		if _, err := testSealer(t, "other").open(body); err != errForeign {
			t.Errorf("%d, under another ledger key: %v", r.kind, err)
		}
	}
	// An authenticated message that is of no kind, or goes on after its end.
	later := s.seal(&record{kind: 99})
	longer := s.seal(&record{kind: kindHello})
	longer = append(longer[:len(longer)-macSize], 0)
	longer = append(longer, s.sum(longer)...)
	for _, body := range [][]byte{later, longer} {
		if _, err := s.open(body); err != errRecord {
			t.Errorf("an authenticated message that cannot be read: %v", err)
		}
	}
	r, err := s.open(s.seal(&record{kind: kindEvents, events: []Event{{Issuer: "alien", WholeIssuer: true}, {Issuer: "main", WholeIssuer: true}}}))
	if err != nil || len(r.events) != 1 || len(r.aliens) != 1 {
		t.Errorf("an issuer that is not ours: %+v, %v", r, err)
	}
}

// The largest event fits the bound that batches are cut by.
func TestLargestEvent(t *testing.T) {
	t.Parallel()
	text := string(bytes.Repeat([]byte("x"), MaxText))
	e := Event{ID: text[:MaxIDBytes], Issuer: text, Selector: Selector{Subject: text, Client: text, Session: text, Tenant: text, Other: map[string]string{}}, Way: text, Who: text, Why: text}
	for i := range MaxSelectors {
		e.Selector.Other[text[:MaxText-1]+string(rune('a'+i))] = text
	}
	if n := len(AppendEvent(nil, &e)); n > MaxEventBytes || n+batchBytes+headSize+macSize > MaxRecordBytes {
		t.Errorf("%d bytes", n)
	}
}

func FuzzOpen(f *testing.F) {
	s := testSealer(f, "key")
	for _, r := range records() {
		b := s.seal(r)
		f.Add(b[:len(b)-macSize])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := s.open(text); err == nil {
			t.Fatal("read without a mac")
		}
		body := append(bytes.Clone(text), s.sum(text)...)
		r, err := s.open(body)
		if err == nil && len(r.aliens) == 0 && len(body) != len(s.seal(r)) {
			t.Fatalf("another spelling of %+v", r)
		}
	})
}

func FuzzParseEvent(f *testing.F) {
	for _, r := range records() {
		for i := range r.events {
			f.Add(AppendEvent(nil, &r.events[i]))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvent(b)
		if err == nil && (e.Validate() != nil || !bytes.Equal(AppendEvent(nil, &e), b)) {
			t.Fatalf("%+v is spelled in two ways", e)
		}
	})
}
