package watchword

import (
	"encoding/binary"
	"errors"
	"time"
)

// A record is an Answer as bytes, for a store that outlives or leaves this process. It is lossless for every decision:
// claims as they were written, and the evidence beside them. All but the first byte and the texts are big endian:
//
//	schema 1 | asked, unix ns | age, ns | max-age, ns, or 0 | leeway, ns | relative end after asked, ns, or −1 | issuer's length, 2 bytes | issuer | claims
//
// Whoever stores it seals it: a record says of itself who vouched for it.
const (
	recordSchema = 1
	recordHead   = 1 + 5*8 + 2
)

// MaxRecordBytes is the largest record that is read.
const MaxRecordBytes = MaxClaimsBytes + 1<<16 + recordHead

// Record returns a as bytes for ParseRecord.
func (a *Answer) Record() []byte {
	b := make([]byte, 0, recordHead+len(a.issuer)+len(a.claims.json))
	b = append(b, recordSchema)
	for _, n := range [...]int64{a.asked.UnixNano(), int64(a.age), int64(a.bound), int64(a.leeway), int64(a.relative())} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.issuer)))
	return append(append(b, a.issuer...), a.claims.json...)
}

// relative is the end of a that its claims do not tell: expires_in and exi, which are taken out of them. Negative:
// there is none, or it changes nothing.
func (a *Answer) relative() time.Duration {
	if a.has&hasEnd == 0 {
		return -1
	}
	if exp, ok := a.claims.Get("exp"); ok {
		told := Answer{asked: a.asked, leeway: a.leeway}
		if told.instant("exp", exp) == nil && a.late >= told.late {
			return -1
		}
	}
	return a.late
}

// ParseRecord reads what Record wrote, maybe on another host whose clock may be ahead of ours by skew: the answer
// counts as asked that much earlier, exp excepted, which is a date. One that was asked later than now even so is
// refused. It is as strict as ParseAnswer, and refuses what Record would have written otherwise. The answer ages by
// both clocks from now on, as one that was asked here. Errors name a place, never a value.
func ParseRecord(record []byte, now time.Time, skew time.Duration) (*Answer, error) {
	if len(record) < recordHead || len(record) > MaxRecordBytes {
		return nil, errors.New("record: no record by its length")
	}
	if record[0] != recordSchema {
		return nil, errors.New("record: another schema")
	}
	field := func(i int) int64 { return int64(binary.BigEndian.Uint64(record[1+8*i:])) }
	age, bound, leeway, relative := time.Duration(field(1)), time.Duration(field(2)), time.Duration(field(3)), time.Duration(field(4))
	if age < 0 || age > longest || bound < 0 || bound > longest || leeway < 0 || leeway > longest || relative < -1 || relative > longest || skew < 0 {
		return nil, errors.New("record: a duration out of range")
	}
	rest := record[recordHead:]
	n := int(binary.BigEndian.Uint16(record[recordHead-2:]))
	if len(rest) < n {
		return nil, errors.New("record: shorter than it says")
	}
	since := Age(now, time.Unix(0, field(0)).Add(-skew)) // by the wall alone: the other host had another monotonic clock
	if since < 0 || since > longest {
		return nil, errors.New("record: asked in the future, or never")
	}
	issuer, claims := string(rest[:n]), string(rest[n:])
	a, err := parseAnswer([]byte(claims), Evidence{Issuer: issuer, Asked: now.Add(-since), Age: age, MaxAge: bound, Leeway: leeway}, false)
	if err != nil {
		return nil, err
	}
	if a.claims.json != claims || !a.active && (leeway != 0 || bound != 0 || relative >= 0) {
		return nil, errors.New("record: not as it would be written")
	}
	if relative >= 0 {
		a.ends(relative, 0)
	}
	return a, nil
}
