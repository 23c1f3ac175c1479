package revocation

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// The kinds of line in the log of a Ledger.
const (
	lineEvent     = 'e'
	lineForgotten = 'f'
	lineKey       = 'k'
)

var errLine = errors.New("not a line of this version")

// eventLine writes e and when it was applied here.
func eventLine(e *Event, applied int64) []byte {
	return AppendEvent(binary.AppendVarint([]byte{lineEvent}, applied), e)
}

// parseEventLine reads what eventLine wrote, and nothing else.
func parseEventLine(line []byte) (e Event, applied int64, err error) {
	if len(line) == 0 || line[0] != lineEvent {
		return e, 0, errLine
	}
	applied, n := binary.Varint(line[1:])
	if n <= 0 || applied <= 0 || applied > far {
		return e, 0, errLine
	}
	e, err = ParseEvent(line[1+n:])
	return e, applied, err
}

// forgottenLine writes that evidence about issuer up to until is questioned; 0: nothing was forgotten yet.
func forgottenLine(issuer string, until time.Time) []byte {
	return appendTime(appendText([]byte{lineForgotten}, issuer), until)
}

func parseForgottenLine(line []byte) (issuer string, until time.Time, err error) {
	if len(line) == 0 || line[0] != lineForgotten {
		return "", until, errLine
	}
	p := &parser{b: line[1:]}
	if issuer, until = p.text(MaxText), p.time(); p.bad || len(p.b) > 0 || issuer == "" {
		return "", until, errLine
	}
	return issuer, until, nil
}

// keyLine says under which key the token ids of this log are made.
func keyLine(k *Key) []byte {
	p := k.print()
	return append([]byte{lineKey}, p[:]...)
}

// identity is what makes two events one: a sender's ID and what the event says, wherever and whenever it is heard
// again. Without an ID the hearing counts too, so that whoever says the same again later says something new.
func identity(e *Event) (id [16]byte) {
	same := *e
	same.Way, same.Who, same.Why, same.Expires = "", "", "", time.Time{}
	if same.ID != "" {
		same.Heard = time.Time{}
	}
	sum := sha256.Sum256(AppendEvent(nil, &same))
	copy(id[:], sum[:])
	return id
}
