package door

import (
	"strings"
	"unicode/utf8"
)

// Path returns the percent-decoded form of the path of a request target, query already cut off, or not ok where a
// gateway and a backend could read it differently:
//
//   - it does not start with / (also *, and the absolute form of RFC 9112 §3.2.2);
//   - two slashes in a row, a segment that is . or .. or ends in . or space;
//   - \, ;, ?, #, a control, or a byte that is not ASCII;
//   - an escape that is broken, or decodes to a control, to what need not be escaped (RFC 3986 §2.3: a letter, a
//     digit, -._~), or to one of / \ % ; ? #;
//   - escapes that together are not UTF-8, or a character that Unicode takes for a compatible form of . / or \.
//
// What is ok has one reading, so policies may compare it. A path without escapes is returned as it is, without
// allocation.
func Path(raw string) (decoded string, ok bool) {
	if raw == "" || raw[0] != '/' {
		return "", false
	}
	for i := 1; i < len(raw); i++ {
		switch pathBytes[raw[i]] {
		case plain:
		case slash:
			if raw[i-1] == '/' || endsSegment(raw[i-1]) {
				return "", false
			}
		case percent:
			return unescape(raw)
		default:
			return "", false
		}
	}
	if endsSegment(raw[len(raw)-1]) {
		return "", false
	}
	return raw, true
}

// unescape is Path for what holds an escape.
func unescape(raw string) (string, bool) {
	b := make([]byte, 0, len(raw))
	ascii := true
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch pathBytes[c] {
		case plain:
		case slash:
			if i > 0 && (b[len(b)-1] == '/' || endsSegment(b[len(b)-1])) {
				return "", false
			}
		case percent:
			var ok bool
			if c, ok = escape(raw[i:]); !ok || c < ' ' || c == 0x7f || unreserved[c] || strings.IndexByte(`/\%;?#`, c) >= 0 {
				return "", false
			}
			ascii = ascii && c < utf8.RuneSelf
			i += 2
		default:
			return "", false
		}
		b = append(b, c)
	}
	if endsSegment(b[len(b)-1]) || !ascii && !characters(b) {
		return "", false
	}
	return string(b), true
}

// endsSegment reports what no segment may end in: Windows drops it, and . and .. are segments that end so.
func endsSegment(c byte) bool { return c == '.' || c == ' ' }

// characters reports whether b is UTF-8 (an over-long form is not) without C1 controls and without characters that
// compatibility normalisation (Unicode NFKC) turns into . / or \.
func characters(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		switch {
		case r >= 0x80 && r < 0xa0:
			return false
		case strings.ContainsRune("\u2024\u2025\ufe52\uff0e\uff0f\ufe68\uff3c", r):
			return false
		}
	}
	return true
}

type pathByte byte

const (
	plain pathByte = iota
	slash
	percent
	refused
)

var pathBytes = func() (t [256]pathByte) {
	for c := range t {
		if c < ' ' || c >= 0x7f || strings.IndexByte(`\;?#`, byte(c)) >= 0 {
			t[c] = refused
		}
	}
	t['/'], t['%'] = slash, percent
	return t
}()
