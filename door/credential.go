package door

import (
	"net/http"
	"strings"

	"github.com/watchword-dev/watchword"
)

// Credential reads the one access token of a request from its Authorization header (RFC 6750 §2.1); rawQuery is the
// query of the request that the token is for, without the question mark. The Reason is
//
//   - InvalidRequest for two credentials: two Authorization headers, two that a proxy merged with a comma, or one beside
//     an access_token in the query (RFC 6750 §2: never more than one method);
//   - NoToken for none, for another scheme, and for a token in the query alone, where it ends up in logs (RFC 9700 §4.3.2);
//   - MalformedToken for what is no token68 (RFC 9110 §11.2) or longer than watchword.MaxTokenBytes;
//   - OK otherwise, with the token.
func Credential(h http.Header, rawQuery string) (watchword.Token, watchword.Reason) {
	values := h["Authorization"]
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return "", watchword.NoToken
	}
	if len(values) > 1 || hasAccessToken(rawQuery) {
		return "", watchword.InvalidRequest
	}
	scheme, rest := cutScheme(values[0])
	bearer := strings.EqualFold(scheme, "Bearer")
	if token := strings.TrimLeft(rest, " "); bearer && len(token) < len(rest) && len(token) <= watchword.MaxTokenBytes && token68(token) {
		return watchword.Token(token), watchword.OK
	}
	switch {
	case merged(rest):
		return "", watchword.InvalidRequest
	case bearer:
		return "", watchword.MalformedToken
	}
	return "", watchword.NoToken
}

// cutScheme splits off the leading token (RFC 9110 §11.1).
func cutScheme(s string) (scheme, rest string) {
	i := 0
	for i < len(s) && tchar[s[i]] {
		i++
	}
	return s[:i], s[i:]
}

// merged reports a comma with another scheme and something for it behind: a recipient may join the lines of a repeated
// header so (RFC 9110 §5.3), and which of the two counts is anybody's guess.
func merged(s string) bool {
	for {
		_, after, found := strings.Cut(s, ",")
		if !found {
			return false
		}
		scheme, rest := cutScheme(strings.TrimLeft(after, " \t"))
		if credentials := strings.TrimLeft(rest, " \t"); scheme != "" && credentials != "" && len(credentials) < len(rest) {
			return true
		}
		s = after
	}
}

// token68 is RFC 9110 §11.2, which equals the b64token of RFC 6750 §2.1.
func token68(s string) bool {
	body := strings.TrimRight(s, "=")
	for i := range len(body) {
		if !token68Char[body[i]] {
			return false
		}
	}
	return body != ""
}

// hasAccessToken looks for the parameter of RFC 6750 §2.3 as any backend may read it: names percent-decoded, split at
// & and at the semicolon that some still accept.
func hasAccessToken(query string) bool {
	for query != "" {
		var pair string
		if i := strings.IndexAny(query, "&;"); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			pair, query = query, ""
		}
		name, _, _ := strings.Cut(pair, "=")
		if decodesTo(name, "access_token") {
			return true
		}
	}
	return false
}

// decodesTo compares the percent-decoded s with want, without allocating.
func decodesTo(s, want string) bool {
	for ; want != ""; want = want[1:] {
		if s == "" {
			return false
		}
		c, n := s[0], 1
		if c == '%' {
			var ok bool
			if c, ok = escape(s); !ok {
				return false
			}
			n = 3
		}
		if c != want[0] {
			return false
		}
		s = s[n:]
	}
	return s == ""
}

// escape decodes the %XX that s begins with (RFC 3986 §2.1).
func escape(s string) (c byte, ok bool) {
	if len(s) < 3 {
		return 0, false
	}
	high, low := hexValue[s[1]], hexValue[s[2]]
	return high<<4 | low&15, high != noHex && low != noHex
}

const noHex = 0xff

// Tables instead of comparisons: these loops run over every byte of every request.
var tchar, token68Char, unreserved, hexValue = func() (t, t68, u [256]bool, h [256]byte) {
	for c := range 256 {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		u[c] = alnum || strings.IndexByte("-._~", byte(c)) >= 0            // RFC 3986 §2.3
		t68[c] = u[c] || c == '+' || c == '/'                              // RFC 9110 §11.2
		t[c] = alnum || strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0 // RFC 9110 §5.6.2
		switch h[c] = noHex; {
		case c >= '0' && c <= '9':
			h[c] = byte(c - '0')
		case c >= 'a' && c <= 'f':
			h[c] = byte(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			h[c] = byte(c - 'A' + 10)
		}
	}
	return t, t68, u, h
}()
