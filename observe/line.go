package observe

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/watchword-dev/watchword"
)

const (
	// maxText is how many bytes of a value from outside are written; each may grow to six.
	maxText = 256
	// fingerprintBytes are enough to tell a deployment's tokens apart, and too few to stand for one.
	fingerprintBytes = 8
	// minSecret is how long a token must be to be looked for in what else a client sends.
	minSecret = 8
)

// line is room for one decision, and the keyed hashes to describe it with.
type line struct {
	json           []byte
	token, subject hash.Hash
	message        []byte // what is hashed; holds nothing in between
	sum            [sha256.Size]byte
}

// describe writes the JSON line about d. Values from outside are bounded and escaped, and never the token, wherever a
// client or an authorization server may have put it.
func (o *line) describe(at time.Time, r *watchword.Request, d *watchword.Decision) {
	client, subject, policy, token := "", "", "", string(r.Token)
	if d.Answer != nil {
		client, subject = d.Answer.ClientID(), d.Answer.Subject()
	}
	if d.Policy != nil {
		policy = d.Policy.Name
	}
	foreign := func(s string) string {
		if len(token) >= minSecret && strings.Contains(s, token) {
			return watchword.Token("").String()
		}
		return s
	}
	o.json = append(at.UTC().AppendFormat(append(o.json[:0], `{"time":"`...), time.RFC3339Nano), '"')
	o.text("request_id", foreign(r.ID))
	o.text("traceparent", foreign(r.Trace))
	o.text("door", r.Door)
	o.text("policy", policy)
	o.text("reason", d.Reason.String())
	o.text("issuer", d.Issuer)
	o.text("client", foreign(client))
	o.keyed("subject", o.subject, d.Issuer, subject)
	if len(token) > watchword.MaxTokenBytes {
		token = "" // no token, and not worth hashing
	}
	o.keyed("token", o.token, d.Issuer, token)
	o.text("source", d.Source())
	o.json = strconv.AppendInt(append(o.json, `,"evidence_age_ms":`...), d.Age.Milliseconds(), 10)
	o.text("degraded", d.Degraded.String())
	o.text("failure", failure(d.Err))
	o.json = append(o.json, '}', '\n')
}

// failure is the word of an error: its text may come from anywhere.
func failure(err error) string {
	if err == nil {
		return ""
	}
	f, _ := errors.AsType[watchword.Failure](err)
	return f.Error() // "unknown" where there is none
}

// keyed appends a member that stands for value at issuer: the first bytes of a keyed hash, in hex. Lengths come first,
// so that no two pairs are one message. Nothing of value stays behind.
func (o *line) keyed(key string, h hash.Hash, issuer, value string) {
	if value == "" {
		o.text(key, "")
		return
	}
	m := binary.BigEndian.AppendUint64(o.message[:0], uint64(len(issuer)))
	m = append(m, issuer...)
	m = binary.BigEndian.AppendUint64(m, uint64(len(value)))
	m = append(m, value...)
	h.Write(m)
	sum := h.Sum(o.sum[:0])
	h.Reset()
	clear(m)
	o.message = m
	o.text(key, "")
	o.json = append(hex.AppendEncode(o.json[:len(o.json)-1], sum[:fingerprintBytes]), '"')
}

// text appends a member. It writes what a JSON string may not hold, and whatever a terminal or a reader of lines could
// take for more than text, as an escape.
func (o *line) text(key, value string) {
	b := append(o.json, ',', '"')
	b = append(b, key...)
	b = append(b, '"', ':', '"')
	rest := ""
	if len(value) > maxText {
		value, rest = value[:maxText], "…"
	}
	for _, r := range value { // bytes that are no UTF-8 come as U+FFFD
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r < 0x7f:
			b = append(b, byte(r))
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = appendEscape(appendEscape(b, high), low)
		default:
			b = appendEscape(b, r)
		}
	}
	o.json = append(append(b, rest...), '"')
}

func appendEscape(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}
