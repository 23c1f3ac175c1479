package watchword

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxClaimsBytes is the largest claim set that is read.
const MaxClaimsBytes = 1 << 20

const (
	maxClaimsDepth = 32
	linearMembers  = 24 // up to here a list of names is faster than a map
)

// Claims is one JSON object from outside, strictly decoded: an introspection answer, server metadata, a JWT payload.
// Every value is kept as it was written, numbers too. Immutable; the zero value has no members.
type Claims struct{ json string }

// registered are the members whose case variants are refused at the top level: a reader that folds case would see
// another value there (RFC 7662 §1.1: names are case-sensitive). The value is what JSON type is asked of it.
var registered = map[string]jsonType{
	"active": typeAny, "scope": typeString, "client_id": typeString, "username": typeString, "token_type": typeString,
	"exp": typeNumber, "iat": typeNumber, "nbf": typeNumber, "sub": typeString, "aud": typeAny, "iss": typeString,
	"jti": typeString, "expires_in": typeNumber, "exi": typeNumber, "cnf": typeObject, "act": typeObject,
	"may_act": typeObject, "authorization_details": typeArray, "acr": typeString, "auth_time": typeNumber, "sid": typeString,
}

type jsonType byte

const (
	typeAny    jsonType = 0
	typeString jsonType = '"'
	typeNumber jsonType = '0'
	typeObject jsonType = '{'
	typeArray  jsonType = '['
)

func (t jsonType) holds(value string) bool {
	if t == typeNumber {
		return value[0] == '-' || value[0] >= '0' && value[0] <= '9'
	}
	return t == typeAny || value[0] == byte(t)
}

// ParseClaims decodes one object and nothing around it. It refuses more than MaxClaimsBytes, bad UTF-8, lone
// surrogates, nesting deeper than 32, duplicate members at any depth, and case variants of registered members at the
// top. Errors name a place, never a value.
func ParseClaims(body []byte) (Claims, error) {
	if len(body) > MaxClaimsBytes {
		return Claims{}, fmt.Errorf("more than %d bytes", MaxClaimsBytes)
	}
	if !utf8.Valid(body) {
		return Claims{}, errors.New("not UTF-8")
	}
	if !json.Valid(body) { // the grammar is the standard library's; what it tolerates is refused below
		return Claims{}, errors.New("not JSON")
	}
	s := scanner{json: strings.Trim(string(body), " \t\r\n")}
	if s.json[0] != '{' {
		return Claims{}, errors.New("not a JSON object")
	}
	if err := s.object(1); err != nil {
		return Claims{}, err
	}
	return Claims{s.json}, nil
}

// JSON returns the object as it was written.
func (c Claims) JSON() string {
	if c.json == "" {
		return "{}"
	}
	return c.json
}

// Get returns the value of a top-level member, as it was written.
func (c Claims) Get(name string) (value string, ok bool) {
	for n, v := range c.All() {
		if n == name {
			return v, true
		}
	}
	return "", false
}

// Text returns the value of a top-level member that is a JSON string, decoded.
func (c Claims) Text(name string) (text string, ok bool) {
	v, ok := c.Get(name)
	if !ok || !typeString.holds(v) {
		return "", false
	}
	return unquote(v), true
}

// All yields the top-level members in order: decoded names, values as they were written.
func (c Claims) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		s := scanner{json: c.json}
		for s.next('{') {
			name := unquote(s.text())
			s.skip(':')
			if !yield(name, s.value()) {
				return
			}
		}
	}
}

// Strings reads a JSON array of strings; anything else is not ok.
func Strings(value string) (list []string, ok bool) {
	if !utf8.ValidString(value) || !json.Valid([]byte(value)) {
		return nil, false
	}
	return texts(value)
}

// texts is Strings of a value that is known to be valid.
func texts(value string) (list []string, ok bool) {
	if !typeArray.holds(value) {
		return nil, false
	}
	s := scanner{json: value}
	for s.next('[') {
		v := s.value()
		if !typeString.holds(v) {
			return nil, false
		}
		list = append(list, unquote(v))
	}
	return list, true
}

// scanner walks JSON that is known to be valid, so it checks no grammar.
type scanner struct {
	json string
	i    int
}

// next moves to the next member or element of a container that begins with open, or past its end and reports false.
func (s *scanner) next(open byte) bool {
	s.space()
	if s.i >= len(s.json) {
		return false
	}
	c := s.json[s.i]
	if c == open && s.i == 0 || c == ',' {
		s.i++
		s.space()
		c = s.json[s.i]
	}
	if c == '}' || c == ']' {
		s.i++
		return false
	}
	return true
}

func (s *scanner) space() {
	for s.i < len(s.json) && s.json[s.i] <= ' ' { // the grammar knows no other such byte here
		s.i++
	}
}

func (s *scanner) skip(c byte) {
	s.space()
	if s.json[s.i] == c {
		s.i++
	}
	s.space()
}

// text reads a string with its quotes.
func (s *scanner) text() string {
	from := s.i
	for s.i++; ; {
		end := s.i + strings.IndexByte(s.json[s.i:], '"')
		escape := strings.IndexByte(s.json[s.i:end], '\\')
		if escape < 0 {
			s.i = end + 1
			return s.json[from:s.i]
		}
		s.i += escape + 2 // what follows a backslash may be a quote that ends nothing
	}
}

// value reads one value of any type.
func (s *scanner) value() string {
	if s.json[s.i] == '"' {
		return s.text()
	}
	from, depth := s.i, 0
	for s.i < len(s.json) {
		switch s.json[s.i] {
		case '"':
			s.text()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return strings.TrimRight(s.json[from:s.i], " \t\r\n")
			}
			if depth--; depth == 0 {
				s.i++
				return s.json[from:s.i]
			}
		case ',':
			if depth == 0 {
				return strings.TrimRight(s.json[from:s.i], " \t\r\n")
			}
		}
		s.i++
	}
	return s.json[from:]
}

// object checks the structure of the object at s.i and moves past it.
func (s *scanner) object(depth int) error {
	if depth > maxClaimsDepth {
		return fmt.Errorf("nested deeper than %d", maxClaimsDepth)
	}
	var room [linearMembers]string
	list, many := room[:0], map[string]bool(nil)
	s.i++
	for s.space(); s.json[s.i] != '}'; s.space() {
		if s.json[s.i] == ',' {
			s.i++
			s.space()
		}
		at := s.i
		quoted := s.text()
		if loneSurrogate(quoted) {
			return fmt.Errorf("a lone surrogate at byte %d", at)
		}
		name := unquote(quoted)
		again := many[name] || slices.Contains(list, name)
		if again {
			return fmt.Errorf("a duplicate member%s at byte %d", known(name), at)
		}
		if depth == 1 && caseVariant(name) {
			return fmt.Errorf("a case variant of the registered member%s at byte %d", known(fold(name)), at)
		}
		if len(list) < linearMembers {
			list = append(list, name)
		} else {
			if many == nil {
				many = map[string]bool{}
			}
			many[name] = true
		}
		s.skip(':')
		if err := s.check(depth); err != nil {
			return err
		}
	}
	s.i++
	return nil
}

// check checks the value at s.i and moves past it.
func (s *scanner) check(depth int) error {
	switch s.json[s.i] {
	case '{':
		return s.object(depth + 1)
	case '[':
		if depth+1 > maxClaimsDepth {
			return fmt.Errorf("nested deeper than %d", maxClaimsDepth)
		}
		s.i++
		for s.space(); s.json[s.i] != ']'; s.space() {
			if s.json[s.i] == ',' {
				s.i++
				s.space()
			}
			if err := s.check(depth + 1); err != nil {
				return err
			}
		}
		s.i++
	case '"':
		if at := s.i; loneSurrogate(s.text()) {
			return fmt.Errorf("a lone surrogate at byte %d", at)
		}
	default:
		for s.i < len(s.json) && strings.IndexByte(",]} \t\r\n", s.json[s.i]) < 0 {
			s.i++
		}
	}
	return nil
}

// unquote decodes a JSON string with its quotes; without escapes it shares the bytes.
func unquote(quoted string) string {
	if strings.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if json.Unmarshal([]byte(quoted), &s) != nil {
		return "" // not reached: the grammar was checked
	}
	return s
}

// loneSurrogate reports a \u escape that is half of a pair: readers differ about what it means (RFC 8259 §8.2).
func loneSurrogate(quoted string) bool {
	for i := strings.IndexByte(quoted, '\\'); i >= 0 && i < len(quoted); i++ {
		if quoted[i] != '\\' {
			continue
		}
		if i++; quoted[i] != 'u' {
			continue
		}
		switch unit := hex4(quoted[i+1:]); {
		case unit >= 0xdc00 && unit < 0xe000:
			return true
		case unit >= 0xd800 && unit < 0xdc00:
			rest := quoted[i+5:]
			if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
				return true
			}
			if low := hex4(rest[2:]); low < 0xdc00 || low >= 0xe000 {
				return true
			}
			i += 6
		}
		i += 4
	}
	return false
}

func hex4(s string) (v rune) {
	for i := range 4 {
		c := rune(s[i])
		switch {
		case c >= 'a':
			c -= 'a' - 10
		case c >= 'A':
			c -= 'A' - 10
		default:
			c -= '0'
		}
		v = v<<4 | c
	}
	return v
}

// fold lowers name so that whatever some reader takes for an ASCII letter becomes that letter: long s and the Kelvin
// sign by Unicode folding, the dotless i in those that compare upper case.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }

func caseVariant(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf {
			_, is := registered[fold(name)]
			return is
		}
	}
	return false
}

// known names a member in an error only if it is one of ours: others may hold anything.
func known(name string) string {
	if _, is := registered[name]; is {
		return " " + name
	}
	return ""
}

func quote(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}
