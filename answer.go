package watchword

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// maxSeconds is the last second of the year 9999; a larger instant is nonsense (often milliseconds).
const maxSeconds = 253402300799

// Answer is what an authorization server vouched for about one token, and as of when. It is immutable and made of
// strings, so one Answer is shared by every request that it serves. An inactive token is an Answer too, without
// claims.
type Answer struct {
	claims   Claims
	issuer   string
	asked    time.Time
	age      time.Duration
	bound    time.Duration // zero: none
	leeway   time.Duration
	offset   time.Duration // of the server's clock: ends a token earlier (ahead) or begins it later (behind), never the other way
	life     time.Duration // from asked until exp or the end of expires_in, whichever is first; valid if has&hasEnd
	late     time.Duration // life with leeway on exp
	trust    time.Duration // from asked until the signature must be verified again; valid if vouched
	nbf      int64         // unix seconds, rounded so as to shorten life
	iat      int64
	sub      string
	client   string
	scope    string
	session  string
	audience []string
	has      member
	active   bool
	refresh  bool
	vouched  bool
}

type member uint8

const (
	hasEnd member = 1 << iota
	hasNbf
	hasIat
	hasCnf
	hasAct
)

// Evidence is what is known about an answer besides its claims.
type Evidence struct {
	Issuer string        // our name for the authorization server
	Asked  time.Time     // the instant just before the first byte of the attempt that was answered left us
	Age    time.Duration // how old the answer was when it was given: its Age header (RFC 9111 §5.1); zero: none
	MaxAge time.Duration // how old the server lets the answer become (max-age, RFC 9111 §5.2.2.1): lowers Freshness.MaxAge for it; zero: it sets no limit
	Leeway time.Duration // how far clocks may differ when exp and nbf are read; zero: not at all
	Offset time.Duration // by how much the server's clock is surely ahead of ours (negative: behind): exp and nbf are its own; zero: nobody knows
	Quirks Quirks        // declared departures from RFC 7662 §2.2
}

// Quirks are departures from RFC 7662 §2.2 that some servers need. The zero value is strict.
type Quirks struct {
	StringBooleans bool // "active":"true" is active
	StringNumbers  bool // "exp":"1700000000" is a number
	ScopeArray     bool // "scope":["a","b"] is "a b"
}

const inactiveJSON = `{"active":false}`

// ParseAnswer reads an introspection response (RFC 7662 §2.2). It is as strict as ParseClaims, asks for the boolean
// active, and for the registered JSON type of every registered member. Of an inactive answer nothing else is kept.
// Errors name a member, never a value.
func ParseAnswer(body []byte, e Evidence) (*Answer, error) { return parseAnswer(body, e, true) }

// parseAnswer may be told not to compare iat with e.Asked, where that is no longer the instant of the asking itself.
func parseAnswer(body []byte, e Evidence, exactly bool) (*Answer, error) {
	c, err := ParseClaims(body)
	if err != nil {
		return nil, err
	}
	a := &Answer{issuer: e.Issuer, asked: e.Asked, age: max(0, e.Age), bound: min(max(0, e.MaxAge), longest), leeway: e.Leeway, offset: e.Offset}
	if a.active, err = active(c, e.Quirks); err != nil {
		return nil, err
	}
	if iat, there := c.Get("iat"); there && exactly {
		a.offset = max(e.Offset, ahead(iat, e)) // exp is by the clock that wrote iat
	}
	if a.claims, err = normal(c, a.active, e.Quirks, a); err != nil {
		return nil, err
	}
	a.offset = e.Offset // nbf is not moved by iat: that could only begin it sooner
	if !a.active {
		*a = Answer{issuer: a.issuer, asked: a.asked, age: a.age, claims: Claims{inactiveJSON}}
		return a, nil
	}
	for name, v := range a.claims.All() {
		a.take(name, v)
	}
	return a, nil
}

// mostAhead is the most by which an iat shortens a token: one that is off by more is a mistake and no clock.
const mostAhead = time.Minute

// ahead is by how much the clock that wrote iat is surely ahead of ours. The token was there before we asked about it,
// so a clock that wrote a later instant than e.Asked is ahead by that much at least; an earlier one says nothing, for
// nobody knows how long ago it was written. It counts for this token alone: what one token says moves no other's end.
func ahead(iat string, e Evidence) time.Duration {
	if e.Quirks.StringNumbers && typeString.holds(iat) {
		iat = unquote(iat)
	}
	f, err := strconv.ParseFloat(iat, 64)
	if err != nil || f < 0 || f > maxSeconds {
		return 0 // normal says what is wrong with it
	}
	return min(max(0, time.Unix(int64(math.Floor(f)), 0).Sub(e.Asked)), mostAhead)
}

// Signature is what is known about the verification of a JWT besides its claims.
type Signature struct {
	Skew       time.Duration // how far the issuer's clock may differ from ours
	Keys       time.Time     // the instant of which the key set that verified it speaks
	KeysMaxAge time.Duration // how long after that instant its keys are believed
}

// NewVouched makes the Answer that a signature gives, of the claims of a JWT that was verified at e.Asked. It speaks of
// the instant at which the token was signed: iat, or e.Asked if iat is later, less s.Skew. Nothing that happened after
// that is known to it, however often the signature is verified again, so the same bounds hold for it as for any other
// evidence; and it is of no use once s.Keys is older than s.KeysMaxAge: the key may be withdrawn. iat is required; every
// registered member must have its type. e.Age and e.Quirks have no meaning here. Errors name a member, never a value.
func NewVouched(c Claims, e Evidence, s Signature) (*Answer, error) {
	v, _ := c.Get("iat")
	a := &Answer{issuer: e.Issuer, leeway: e.Leeway, active: true, vouched: true}
	if v == "" || !typeNumber.holds(v) {
		return nil, errors.New("no number iat")
	}
	if err := a.instant("iat", v); err != nil {
		return nil, err
	}
	a.offset = ahead(v, Evidence{Asked: e.Asked})
	signed := min(0, time.Unix(a.iat, 0).Sub(e.Asked)) // Add keeps the monotonic reading: a wall set back revives nothing
	a.asked = e.Asked.Add(max(signed, -longest) - max(0, s.Skew))
	a.trust = min(s.KeysMaxAge, longest) - max(Age(a.asked, s.Keys), -longest)
	var err error
	if a.claims, err = normal(c, true, Quirks{}, a); err != nil {
		return nil, err
	}
	for name, v := range a.claims.All() {
		a.take(name, v)
	}
	return a, nil
}

func active(c Claims, q Quirks) (bool, error) {
	switch v, ok := c.Get("active"); {
	case !ok:
		return false, errors.New("no member active")
	case v == "true", v == "false":
		return v == "true", nil
	case q.StringBooleans && v == `"true"`, q.StringBooleans && v == `"false"`:
		return v == `"true"`, nil
	}
	return false, errors.New("member active is not a boolean")
}

// normal checks the registered members and rewrites c to what RFC 7662 says: active first, quirks undone, lifetimes
// that count from the asking taken out (they would be wrong on every later hit) and into a.
func normal(c Claims, active bool, q Quirks, a *Answer) (Claims, error) {
	var b strings.Builder
	b.Grow(len(c.json) + 16)
	b.WriteString(`{"active":` + strconv.FormatBool(active))
	s := scanner{json: c.json}
	for s.next('{') {
		quoted := s.text()
		s.skip(':')
		v := s.value()
		name := unquote(quoted)
		v, err := registeredValue(name, v, q)
		if err != nil {
			return Claims{}, err
		}
		switch name {
		case "active":
			continue
		case "exp", "nbf", "iat", "expires_in", "exi":
			if err := a.instant(name, v); err != nil {
				return Claims{}, err
			}
			if name == "expires_in" || name == "exi" {
				continue
			}
		}
		b.WriteByte(',')
		b.WriteString(quoted)
		b.WriteByte(':')
		b.WriteString(v)
	}
	b.WriteByte('}')
	return Claims{b.String()}, nil
}

// registeredValue asks a registered member for its type and undoes the declared quirks.
func registeredValue(name, v string, q Quirks) (string, error) {
	want, is := registered[name]
	if !is {
		return v, nil
	}
	if list, isList := texts(v); isList && name == "scope" && q.ScopeArray {
		joined := strings.Join(list, " ")
		if strings.Count(joined, " ") != max(0, len(list)-1) {
			return "", errors.New("member scope has an element with a space, which is no scope")
		}
		return quote(joined), nil
	}
	if want == typeNumber && q.StringNumbers && typeString.holds(v) && number(unquote(v)) {
		v = unquote(v)
	}
	if !want.holds(v) {
		return "", fmt.Errorf("member %s has the wrong JSON type", name)
	}
	if name == "aud" && !typeString.holds(v) {
		if _, isList := texts(v); !isList {
			return "", errors.New("member aud is neither a string nor a list of strings")
		}
	}
	return v, nil
}

// instant keeps a number of seconds, rounded so that a token lives shorter rather than longer.
func (a *Answer) instant(name, v string) error {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil && !math.IsInf(f, 0) {
		return fmt.Errorf("member %s is not a number", name)
	}
	if f > maxSeconds {
		return fmt.Errorf("member %s is beyond the year 9999: milliseconds?", name)
	}
	f = max(f, -maxSeconds)
	switch name {
	case "exp":
		a.ends(time.Unix(int64(math.Floor(f)), 0).Sub(a.asked)-max(0, a.offset), a.leeway)
	case "nbf":
		a.nbf, a.has = int64(math.Ceil(f)), a.has|hasNbf
	case "iat":
		a.iat, a.has = int64(math.Floor(f)), a.has|hasIat
	default: // expires_in, exi (RFC 9200 §5.10.3)
		a.ends(seconds(int64(math.Floor(f))), 0)
	}
	return nil
}

// ends keeps the earliest of all ends that the server gave. Each counts from the asking, exp too: a wall that is set
// back later must not bring a token back to life.
func (a *Answer) ends(after, leeway time.Duration) {
	after = min(max(after, -longest), longest)
	life, late := max(0, after), max(0, after+leeway)
	if a.has&hasEnd != 0 {
		life, late = min(life, a.life), min(late, a.late)
	}
	a.life, a.late, a.has = life, late, a.has|hasEnd
}

// take decodes once what every decision reads.
func (a *Answer) take(name, v string) {
	switch name {
	case "sub":
		a.sub = unquote(v)
	case "client_id":
		a.client = unquote(v)
	case "scope":
		a.scope = unquote(v)
	case "sid":
		a.session = unquote(v)
	case "aud":
		if typeString.holds(v) {
			a.audience = []string{unquote(v)}
		} else {
			a.audience, _ = texts(v)
		}
	case "cnf":
		a.has |= hasCnf
	case "act":
		a.has |= hasAct
	case "token_type":
		t := unquote(v)
		a.refresh = a.refresh || strings.EqualFold(t, "Refresh") || strings.EqualFold(t, "refresh_token")
	case "token_use":
		a.refresh = a.refresh || typeString.holds(v) && strings.EqualFold(unquote(v), "refresh_token")
	}
}

// Active reports what the server said. An active answer may still be expired: Judge decides.
func (a *Answer) Active() bool { return a.active }

// Vouched reports that a signature vouches for a, verified here: no server was asked.
func (a *Answer) Vouched() bool { return a.vouched }

// Actor is who acts for the subject: the outermost act (RFC 8693 §4.1). An act inside of it tells of earlier actors, is
// no ground for any decision, and is left out; Claims still has it. Not ok: nobody acts for the subject.
func (a *Answer) Actor() (actor Claims, ok bool) {
	v, ok := a.claims.Get("act")
	if !ok {
		return Claims{}, false
	}
	var b strings.Builder
	for name, member := range (Claims{v}).All() {
		if name == "act" {
			continue
		}
		b.WriteString(map[bool]string{true: "{", false: ","}[b.Len() == 0] + quote(name) + ":" + member)
	}
	if b.Len() == 0 {
		return Claims{}, true
	}
	b.WriteByte('}')
	return Claims{b.String()}, true
}

// Issuer is our name for the server that was asked, not the iss claim.
func (a *Answer) Issuer() string { return a.issuer }

// Asked is the instant just before the question left us; expires_in counts from here.
func (a *Answer) Asked() time.Time { return a.asked }

// AsOf is the instant that the answer speaks of: Asked less the answer's own Age.
func (a *Answer) AsOf() time.Time {
	if a.age == 0 {
		return a.asked
	}
	return a.asked.Add(-a.age)
}

// Leeway is the clock difference allowed to the issuer of a.
func (a *Answer) Leeway() time.Duration { return a.leeway }

// Subject is sub, empty if absent.
func (a *Answer) Subject() string { return a.sub }

// ClientID is client_id, empty if absent.
func (a *Answer) ClientID() string { return a.client }

// Session is sid, empty if absent.
func (a *Answer) Session() string { return a.session }

// Scope is scope, as a string, empty if absent.
func (a *Answer) Scope() string { return a.scope }

// Bound reports whether the token is bound to a key (cnf, RFC 7800 §3.1).
func (a *Answer) Bound() bool { return a.has&hasCnf != 0 }

// Delegated reports whether somebody acts for the subject (act, RFC 8693 §4.1), whoever it is.
func (a *Answer) Delegated() bool { return a.has&hasAct != 0 }

// hasAll reports whether every one of these claims is there and names something.
func (a *Answer) hasAll(names []string) bool {
	for _, name := range names {
		if v, there := a.claims.Get(name); !there || v == "null" || v == `""` {
			return false
		}
	}
	return true
}

// Refresh reports whether the server calls it a refresh token, which no resource accepts.
func (a *Answer) Refresh() bool { return a.refresh }

// IssuedAt is iat; not ok: the server did not say.
func (a *Answer) IssuedAt() (t time.Time, ok bool) { return time.Unix(a.iat, 0), a.has&hasIat != 0 }

// Claims are all members, lossless, as they were written, without expires_in and exi (Remaining tells those).
func (a *Answer) Claims() Claims { return a.claims }

// HasScope reports whether want is one of the space-separated scopes, exactly (RFC 6749 §3.3).
func (a *Answer) HasScope(want string) bool {
	if want == "" || strings.IndexByte(want, ' ') >= 0 {
		return false
	}
	for from := 0; from < len(a.scope); {
		i := strings.Index(a.scope[from:], want)
		if i < 0 {
			return false
		}
		i += from
		if end := i + len(want); (i == 0 || a.scope[i-1] == ' ') && (end == len(a.scope) || a.scope[end] == ' ') {
			return true
		}
		from = i + 1
	}
	return false
}

// HasAudience reports whether one of want is in aud, exactly. An absent aud has none.
func (a *Answer) HasAudience(want []string) bool {
	for _, have := range a.audience {
		for _, w := range want {
			if have == w {
				return true
			}
		}
	}
	return false
}

// Remaining is how long the token lives on after now, by exp and by expires_in, whichever ends first, without leeway;
// zero: it is over. More than 146 years count as 146. Not known: the server gave no end.
func (a *Answer) Remaining(now time.Time) (left time.Duration, known bool) {
	if a.has&hasEnd == 0 {
		return math.MaxInt64, false
	}
	return max(0, a.life-max(0, Age(now, a.asked))), true
}

// doubtful reports whether the key behind a signature may have been withdrawn since it was verified, so long ago.
func (a *Answer) doubtful(age time.Duration) bool { return a.vouched && age > a.trust }

// expired reports whether a is over at now, with the issuer's leeway or without.
func (a *Answer) expired(now time.Time, leeway bool) bool { return a.over(Age(now, a.asked), leeway) }

// over is expired, so long after the asking.
func (a *Answer) over(age time.Duration, leeway bool) bool {
	end := a.life
	if leeway {
		end = a.late
	}
	return a.has&hasEnd != 0 && age >= end
}

// early is now + leeway < nbf, of which time.Time.Add would be the dearest part of a hit's judgement.
func (a *Answer) early(now time.Time) bool {
	if a.has&hasNbf == 0 {
		return false
	}
	slack := a.leeway + min(0, a.offset)
	second, rest := now.Unix()+int64(slack/time.Second), now.Nanosecond()+int(slack%time.Second)
	switch {
	case rest < 0:
		second--
	case rest >= int(time.Second):
		second++
	}
	return second < a.nbf
}

// Size is how many bytes of memory a takes, nearly.
func (a *Answer) Size() int {
	n := int(unsafe.Sizeof(*a)) + len(a.claims.json) + len(a.audience)*int(unsafe.Sizeof(""))
	if a.claims.json == inactiveJSON {
		n -= len(inactiveJSON) // shared
	}
	return n
}

// seconds turns a number of seconds into a Duration without wrapping around.
func seconds(n int64) time.Duration {
	const most = int64(math.MaxInt64 / time.Second)
	return time.Duration(min(max(n, -most), most)) * time.Second
}

// number reports whether s is a JSON number and nothing around it.
func number(s string) bool {
	return s != "" && typeNumber.holds(s) && json.Valid([]byte(s)) && s == strings.TrimSpace(s)
}
