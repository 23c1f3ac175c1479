package watchword_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

// answer parses body as asked at start, by a server that is called main.
func answer(t testing.TB, body string) *watchword.Answer {
	t.Helper()
	return answerOf(t, body, watchword.Evidence{Issuer: "main", Asked: both(0)})
}

func answerOf(t testing.TB, body string, e watchword.Evidence) *watchword.Answer {
	t.Helper()
	a, err := watchword.ParseAnswer([]byte(body), e)
	if err != nil {
		t.Fatalf("%.100q: %v", body, err)
	}
	return a
}

// nonsense expects ParseAnswer to refuse body: the server told us nothing, neither yes nor no.
func nonsense(t *testing.T, body string, q watchword.Quirks) {
	t.Helper()
	a, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Asked: both(0), Quirks: q})
	if err == nil {
		t.Errorf("accepted %.100q: active is %v, claims %.100s", body, a.Active(), a.Claims().JSON())
	} else if a != nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%.100q: %v and the error %v", body, a, err)
	}
}

var anyone = &watchword.Policy{}

// judged is what a policy without demands says of body after d.
func judged(t *testing.T, body string, d time.Duration) string {
	t.Helper()
	return watchword.Judge(anyone, answer(t, body), both(d)).String()
}

// Covers: INT-03 INT-04
func TestINT04_T30ActiveIsABoolean(t *testing.T) {
	t.Parallel()
	if a := answer(t, `{"active":true}`); !a.Active() || a.Claims().JSON() != `{"active":true}` {
		t.Error("an active answer that says no more")
	}
	if left, known := answer(t, `{"active":true}`).Remaining(both(0)); known {
		t.Errorf("INT-03: no end was given, but %v are left", left)
	}
	if s := judged(t, `{"active":true}`, 100*365*24*time.Hour); s != "ok" {
		t.Errorf("INT-03: without an end: %s", s)
	}
	for _, v := range []string{`null`, `1`, `0`, `-1`, `"true"`, `"secret"`, `""`, `[]`, `[true]`, `{}`, `{"active":true}`, `1.0`} {
		nonsense(t, `{"active":`+v+`}`, watchword.Quirks{})
		nonsense(t, `{"active":`+v+`}`, watchword.Quirks{StringNumbers: true, ScopeArray: true})
	}
	for _, body := range []string{``, `{}`, `[]`, `null`, `true`, `[{"active":true}]`, `{"sub":"secret"}`, `{"x":{"active":true}}`, `<html>secret`, `{"active":true}{"active":false}`, `{"active":tru}`, `{"active":TRUE}`, "\ufeff{\"active\":true}"} {
		nonsense(t, body, watchword.Quirks{})
	}
}

func TestINT05StringBooleans(t *testing.T) {
	t.Parallel()
	quirk := watchword.Quirks{StringBooleans: true}
	f := func(v string, want bool) {
		t.Helper()
		a := answerOf(t, `{"active":`+v+`,"sub":"s"}`, watchword.Evidence{Asked: both(0), Quirks: quirk})
		if a.Active() != want {
			t.Errorf("%s is active: %v", v, a.Active())
		}
		if v, _ := a.Claims().Get("active"); v != fmt.Sprint(want) {
			t.Errorf("it is handed on as %s: a caller has no quirks", v)
		}
	}
	f(`"true"`, true)
	f(`"false"`, false)
	f(`true`, true)
	f(`false`, false)
	nonsense(t, `{"active":"true"}`, watchword.Quirks{})
	nonsense(t, `{"active":"false"}`, watchword.Quirks{})
	for _, v := range []string{`"True"`, `"TRUE"`, `" true"`, `"1"`, `""`, `"yes"`, `null`, `1`} {
		nonsense(t, `{"active":`+v+`}`, quirk)
	}
}

func TestINT06NoSecondReadingOfActive(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{"active":false,"ACTIVE":true}`, `{"ACTIVE":true}`, `{"Active":true,"active":false}`, `{"active":false,"active":true}`, `{"active":true,"active":false}`,
		`{"active":false,"\u0061ctive":true}`, `{"active":true,"SCOPE":"admin"}`, "{\"active\":true,\"\u017fub\":\"root\"}", `{"active":true,"Exp":99999999999}`} {
		nonsense(t, body, watchword.Quirks{StringBooleans: true})
	}
}

func TestINT07_T12Audience(t *testing.T) {
	t.Parallel()
	f := func(member string, want ...string) { // want: the audiences that are in it, of these
		t.Helper()
		a := answer(t, `{"active":true`+member+`}`)
		for _, aud := range []string{"api", "b", "", "API", "ap", "api ", "1", "null", "[]"} {
			if got := a.HasAudience([]string{"nobody", aud}); got != slices.Contains(want, aud) {
				t.Errorf("%s holds %q: %v", member, aud, got)
			}
		}
		if a.HasAudience(nil) {
			t.Errorf("%s holds one of none", member)
		}
	}
	f(``)
	f(`,"aud":"api"`, "api")
	f(`,"aud":["api"]`, "api")
	f(`,"aud":["b","api"]`, "api", "b")
	f(`,"aud":[]`)
	f(`,"aud":""`, "")
	f(`,"aud":"api b"`)
	f(`,"aud":"\u0061pi"`, "api")
	f(`,"aud":["[]"]`, "[]")
	for _, v := range []string{`1`, `null`, `true`, `{}`, `["api",1]`, `["api",null]`, `[["api"]]`, `{"api":1}`} {
		nonsense(t, `{"active":true,"aud":`+v+`}`, watchword.Quirks{StringBooleans: true, StringNumbers: true, ScopeArray: true})
	}
}

func TestINT08Scope(t *testing.T) {
	t.Parallel()
	f := func(member string, q watchword.Quirks, want ...string) {
		t.Helper()
		a := answerOf(t, `{"active":true`+member+`}`, watchword.Evidence{Asked: both(0), Quirks: q})
		for _, s := range []string{"read", "write", "read:all", "Read", "rea", "ead", "", " ", "read write", "a\tb", "b", "é"} {
			if got := a.HasScope(s); got != slices.Contains(want, s) {
				t.Errorf("%s holds %q: %v", member, s, got)
			}
		}
	}
	strict, array := watchword.Quirks{}, watchword.Quirks{ScopeArray: true}
	f(``, strict)
	f(`,"scope":""`, strict)
	f(`,"scope":"read"`, strict, "read")
	f(`,"scope":"  read   write "`, strict, "read", "write")
	f(`,"scope":"read:all"`, strict, "read:all")
	f(`,"scope":"xread readx read:all read"`, strict, "read", "read:all")
	f(`,"scope":"xread readx read:all"`, strict, "read:all")
	f(`,"scope":"Read"`, strict, "Read")
	f(`,"scope":"read\twrite"`, strict) // only a space parts (RFC 6749 §3.3)
	f(`,"scope":"a\tb"`, strict, "a\tb")
	f(`,"scope":"\u0072ead"`, strict, "read")
	f(`,"scope":"é b"`, strict, "é", "b")
	f(`,"scope":"read read"`, strict, "read")
	f(`,"scope":["read","write"]`, array, "read", "write")
	f(`,"scope":[]`, array)
	f(`,"scope":["",""]`, array)
	f(`,"scope":"read write"`, array, "read", "write")
	for _, v := range []string{`["read"]`, `[]`, `null`, `1`, `true`, `{"read":true}`} {
		nonsense(t, `{"active":true,"scope":`+v+`}`, strict)
	}
	for _, v := range []string{`null`, `["read",1]`, `[["read"]]`, `{"read":true}`} {
		nonsense(t, `{"active":true,"scope":`+v+`}`, array)
	}
	nonsense(t, `{"active":true,"scope":["read admin"]}`, array) // one element would become two scopes
	a := answerOf(t, `{"active":true,"scope":["a<b","\"c\\"]}`, watchword.Evidence{Asked: both(0), Quirks: array})
	if s, ok := a.Claims().Text("scope"); s != `a<b "c\` || !ok || a.Scope() != s {
		t.Errorf("handed on as %q, %q", s, a.Scope())
	}
}

func TestHasScopeByAnOracle(t *testing.T) {
	t.Parallel()
	words := []string{"a", "b", "aa", "ab", "ba", "aba", " ", "", "a b"}
	var try func(scope string, depth int)
	try = func(scope string, depth int) {
		q, _ := json.Marshal(scope)
		a := answer(t, `{"active":true,"scope":`+string(q)+`}`)
		for _, w := range words {
			want := w != "" && w != " " && slices.Contains(strings.Split(scope, " "), w)
			if got := a.HasScope(w); got != want {
				t.Fatalf("%q holds %q: %v", scope, w, got)
			}
		}
		if depth > 0 {
			for _, c := range []string{"a", "b", " "} {
				try(scope+c, depth-1)
			}
		}
	}
	try("", 6)
}

func TestINT10StringNumbers(t *testing.T) {
	t.Parallel()
	quirk := watchword.Quirks{StringNumbers: true}
	exp := fmt.Sprint(start.Add(time.Hour).Unix())
	a := answerOf(t, `{"active":true,"exp":"`+exp+`","iat":"1","expires_in":"60"}`, watchword.Evidence{Asked: both(0), Quirks: quirk})
	if left, known := a.Remaining(both(0)); left != time.Minute || !known {
		t.Error(left, known)
	}
	if s := a.Claims().JSON(); s != `{"active":true,"exp":`+exp+`,"iat":1}` {
		t.Errorf("a caller has no quirks, but gets %s", s)
	}
	for _, v := range []string{`""`, `" 1"`, `"1 "`, `"\n1"`, `"0x10"`, `"1_000"`, `"+1"`, `"01"`, `"1."`, `".5"`, `"NaN"`, `"Inf"`, `"-"`, `"1,2"`, `"secret"`, `"null"`, `null`, `[1]`, `"1e19"`, `"١"`} {
		nonsense(t, `{"active":true,"exp":`+v+`}`, quirk)
	}
	nonsense(t, `{"active":true,"exp":"`+exp+`"}`, watchword.Quirks{StringBooleans: true, ScopeArray: true})
}

// CONTRACT: a registered member of another JSON type is nonsense, also beside active:false.
func TestINT09RegisteredTypes(t *testing.T) {
	t.Parallel()
	values := map[string]string{"string": `"s"`, "number": `1`, "object": `{}`, "array": `[]`, "null": `null`, "boolean": `true`}
	of := map[string]string{"scope": "string", "client_id": "string", "username": "string", "token_type": "string", "sub": "string", "iss": "string", "jti": "string", "acr": "string", "sid": "string",
		"exp": "number", "iat": "number", "nbf": "number", "expires_in": "number", "exi": "number", "auth_time": "number", "cnf": "object", "act": "object", "may_act": "object", "authorization_details": "array"}
	for name, want := range of {
		for kind, v := range values {
			for _, active := range []string{"true", "false"} {
				body := fmt.Sprintf(`{"active":%s,%q:%s}`, active, name, v)
				if kind != want {
					nonsense(t, body, watchword.Quirks{})
				} else if name != "exp" && name != "expires_in" && name != "exi" {
					answer(t, body)
				}
			}
		}
	}
}

// INT-09: unknown members, 64-bit integers, floats and escapes reach a policy and a caller as they were written.
func TestINT09Lossless(t *testing.T) {
	t.Parallel()
	members := `"big":12345678901234567890,"float":1.70e9,"tiny":1E-999,"neg":-0.0,"s":"\u0041\/é\ud83d\ude00","nested":{"a" : [ 1, {"b":null} ]},"aud":["x" , "y"],"exp":4102444800.0,"active":true,"ext":{"active":false,"EXP":"x"},"\u0065scaped":1`
	want := `{"active":true,` + strings.Replace(members, `"active":true,`, "", 1) + `}`
	if got := answer(t, "{ "+members+" }").Claims().JSON(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	a := answer(t, `{"active":true,"sub":"\u0061nn","client_id":"c\/d","sid":"s","scope":"a","cnf":{"jkt":"x"}}`)
	if a.Subject() != "ann" || a.ClientID() != "c/d" || a.Session() != "s" || a.Scope() != "a" || !a.Bound() || a.Issuer() != "main" {
		t.Error(a.Subject(), a.ClientID(), a.Session(), a.Scope(), a.Bound(), a.Issuer())
	}
	if answer(t, `{"active":true,"ext":{"cnf":{}}}`).Bound() {
		t.Error("a member of something else binds nothing")
	}
}

func TestINT13InactiveHasNothingElse(t *testing.T) {
	t.Parallel()
	a := answerOf(t, `{"active":false,"sub":"ann","scope":"admin","aud":"api","exp":99999999999,"nbf":99999999999,"iat":1,"cnf":{"jkt":"x"},"client_id":"c","sid":"s","secret":{"a":1},"token_type":"Refresh","expires_in":60}`,
		watchword.Evidence{Issuer: "main", Asked: both(0), Age: time.Second, Leeway: time.Minute})
	if a.Claims().JSON() != `{"active":false}` || a.Active() || a.Subject()+a.Scope()+a.ClientID()+a.Session() != "" || a.HasAudience([]string{"api"}) || a.HasScope("admin") || a.Bound() {
		t.Errorf("%+v", a)
	}
	if _, known := a.Remaining(both(0)); known {
		t.Error("an end is known")
	}
	if _, known := a.IssuedAt(); known {
		t.Error("iat is known")
	}
	if !a.AsOf().Equal(both(-time.Second)) || a.Issuer() != "main" {
		t.Error("how old it is and who said it must stay")
	}
	if got := watchword.Judge(anyone, a, both(0)); got != watchword.Inactive {
		t.Error(got)
	}
}

// CAC-03, T37: nothing that went in or came out lets a caller change what the next one sees.
func TestCAC03AnswersAreImmutable(t *testing.T) {
	t.Parallel()
	body := []byte(`{"active":true,"sub":"ann","scope":"read","aud":["api","b"],"n":{"x":[1,2]},"exp":4102444800}`)
	a := answer(t, string(body))
	b, err := watchword.ParseAnswer(body, watchword.Evidence{Issuer: "main", Asked: both(0)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = 'X' // a door's buffer goes back to its pool
	}
	whole := func(a *watchword.Answer) string {
		return fmt.Sprint(a.Claims().JSON(), a.Subject(), a.Scope(), a.HasAudience([]string{"api"}), a.HasAudience([]string{"b"}), a.AsOf(), a.Size())
	}
	want := whole(a)
	if got := whole(b); got != want {
		t.Fatalf("the bytes it was parsed from are still in use:\n%s\n%s", got, want)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { // the race detector sees any write
			for range 50 {
				aud, _ := a.Claims().Get("aud")
				list, _ := watchword.Strings(aud)
				list[0] = "mallory"
				if got := whole(a); got != want {
					t.Errorf("changed to %s", got)
				}
			}
		})
	}
	wg.Wait()
}

func TestSizeCoversWhatAnAnswerHolds(t *testing.T) {
	t.Parallel()
	if a, b := answer(t, `{"active":true}`).Size(), answer(t, `{"active":true,"x":"`+strings.Repeat("y", 1000)+`"}`).Size(); b-a < 1000 || b-a > 1100 {
		t.Error(a, b)
	}
	if n := answer(t, `{"active":false,"x":"`+strings.Repeat("y", 1000)+`"}`).Size(); n > 400 {
		t.Error("an inactive answer keeps nothing:", n)
	}
}

// FuzzParseAnswer: active only if the JSON boolean says so, every member kept as it was, and one reading of the result.
func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{`{"active":true}`, `{"active":false,"sub":"x"}`, `{"active":"true","exp":"17","scope":["a","b"],"aud":[]}`, `{"active":true,"exp":1e9,"expires_in":1.5,"exi":-1,"nbf":0,"iat":-1,"aud":["a"],"scope":"a b","cnf":{},"token_type":"Refresh","\u0061ud2":1}`} {
		for q := range byte(8) {
			f.Add([]byte(s), q, int64(time.Minute))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, quirks byte, later int64) {
		q := watchword.Quirks{StringBooleans: quirks&1 != 0, StringNumbers: quirks&2 != 0, ScopeArray: quirks&4 != 0}
		e := watchword.Evidence{Issuer: "main", Asked: both(0), Quirks: q}
		a, err := watchword.ParseAnswer(body, e)
		if err != nil {
			return
		}
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(body, &raw); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		says := string(raw["active"])
		if a.Active() != (says == "true" || q.StringBooleans && says == `"true"`) {
			t.Fatalf("active is %s, the answer says %v", says, a.Active())
		}
		kept := map[string]string{}
		for name, v := range a.Claims().All() {
			kept[name] = v
		}
		for name, v := range raw {
			switch {
			case name == "active", !a.Active():
			case name == "expires_in" || name == "exi":
				if _, ok := kept[name]; ok {
					t.Fatalf("%s stayed", name)
				}
			case kept[name] != string(v) && (q == watchword.Quirks{} || v[0] != '"' && name != "scope"):
				t.Fatalf("%q was %s and is %s", name, v, kept[name])
			}
		}
		again, err := watchword.ParseAnswer([]byte(a.Claims().JSON()), watchword.Evidence{Issuer: "main", Asked: both(0)})
		if err != nil || again.Claims() != a.Claims() || again.Active() != a.Active() || again.Scope() != a.Scope() || again.Subject() != a.Subject() {
			t.Fatalf("read again, strictly: %v, %v", again, err)
		}
		if exp, ok := new(big.Float).SetString(string(raw["exp"])); ok && a.Active() {
			later %= 1e6
			reason := watchword.Judge(anyone, a, both(time.Duration(later)*time.Second))
			if past := exp.Cmp(big.NewFloat(float64(start.Unix()+later))) <= 0; past && later >= 0 && !(reason == watchword.Expired || reason == watchword.Inactive) {
				t.Fatalf("exp %s, %d s after start: %v", raw["exp"], later, reason)
			}
		}
		if left, _ := a.Remaining(both(time.Duration(max(0, later)))); left < 0 {
			t.Fatal(left)
		}
		_ = watchword.Explain(anyone, a, both(time.Duration(max(0, later))))
		_ = a.Size()
	})
}
