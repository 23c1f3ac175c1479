package watchword_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
)

// refused expects ParseClaims to refuse body with an error that says why and repeats nothing of body.
func refused(t *testing.T, why, body string) {
	t.Helper()
	c, err := watchword.ParseClaims([]byte(body))
	switch {
	case err == nil:
		t.Errorf("accepted %.60q as %.60q", body, c.JSON())
	case !strings.Contains(err.Error(), why):
		t.Errorf("%.60q: %v, want %q", body, err, why)
	case strings.Contains(err.Error(), "secret"):
		t.Errorf("%.60q: the error repeats the input: %v", body, err)
	}
}

func accepted(t *testing.T, body string) watchword.Claims {
	t.Helper()
	c, err := watchword.ParseClaims([]byte(body))
	if err != nil {
		t.Fatalf("%.80q: %v", body, err)
	}
	return c
}

// Abuse 14, INT-04, T30: what is not one JSON object and nothing else.
func TestINT04_T30NotOneObject(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", " ", "null", "true", "1", `"secret"`, "[]", `[{"active":true}]`} {
		if json.Valid([]byte(body)) {
			refused(t, "not a JSON object", body)
		} else {
			refused(t, "not JSON", body)
		}
	}
	for _, body := range []string{
		"{", "{}}", "{} {}", `{"a":1}x`, `{"a":1}` + "\x00", `{"a":1},`, "\ufeff{}", "{}\ufeff", "/**/{}", "{}//", `{'a':1}`, `{a:1}`, `{"a":1,}`, `{,"a":1}`,
		`{"a"}`, `{"a":}`, `{"a" 1}`, `{"a":1 "b":2}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":0x1}`,
		`{"a":NaN}`, `{"a":Infinity}`, `{"a":True}`, `{"a":"` + "\n" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"secret}`, "<html>secret</html>", "PK\x03\x04secret",
	} {
		refused(t, "not JSON", body)
	}
	for _, body := range []string{"{\"a\":\"\xff\"}", "{\"a\":\"\xc0\xaf\"}", "\x1f\x8b\x08secret", "{\"a\":\"\xed\xa0\x80\"}", "{\"\xfe\":1}", "\xff\xfe{\x00}\x00", "{\"a\":\"\xf4\x90\x80\x80\"}"} {
		refused(t, "not UTF-8", body)
	}
}

// Abuse 14, INT-06: a duplicate is refused wherever it is, however it is written.
func TestINT06_T30DuplicatesAtAnyDepth(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"active":false,"active":true}`, `{"active":true,"active":true}`, `{"active":true,"\u0061ctive":true}`, `{"a":1,"\u0061":1}`,
		`{"":1,"":2}`, `{"x":{"a":1,"a":1}}`, `{"x":[{"a":1},{"b":{"c":[[{"d":0,"d":0}]]}}]}`, `{"x":"secret","x":"secret"}`,
		`{"é":1,"\u00e9":2}`, `{"😀":1,"\ud83d\ude00":2}`, `{"a\/b":1,"a/b":2}`,
	} {
		refused(t, "a duplicate member", body)
	}
	for n := 1; n < 60; n++ { // across the change from a list to a map
		for _, again := range []int{0, n / 2, n - 1} {
			refused(t, "a duplicate member", manyMembers(n)+fmt.Sprintf(`,"m%d":0}`, again))
		}
		accepted(t, manyMembers(n)+"}")
	}
	accepted(t, `{"a":{"x":1},"b":{"x":1},"c":[{"x":1},{"x":1}],"x":1}`) // the same name in two objects is no duplicate
	accepted(t, `{"é":1,"e\u0301":2}`)                                   // no normalisation: two names
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `%c"m%d":%d`, "{,"[min(i, 1)], i, i)
	}
	return b.String()
}

// INT-06: a reader that folds case would see another value. At the top every fold of a registered name is refused.
func TestINT06CaseVariants(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ACTIVE", "Active", "activE", "\u0041ctive", "EXP", "Scope", "\u017fcope", "\u017fub", "i\u017fs", "\u017fID", "ACR", "clIent_id", "act\u0131ve",
		"acti\u0056e", "TOKEN_TYPE", "expires_\u0130n"} {
		quoted, _ := json.Marshal(name)
		refused(t, "a case variant of the registered member", `{`+string(quoted)+`:true}`)
		refused(t, "a case variant", `{"active":false,`+string(quoted)+`:true}`)
		accepted(t, `{"ext":{`+string(quoted)+`:true}}`) // below the top they are somebody else's names
	}
	refused(t, "a case variant", `{"\u0041ctive":true}`)
	refused(t, "a case variant", `{"to\u212aen_type":"x"}`)
	refused(t, "a case variant", "{\"to\u212aen_type\":\"x\"}")
	for _, name := range []string{"Name", "active_", " active", "active\u200b", "ЅUB", "Kelvin", "ÀCTIVE", "Actives"} {
		accepted(t, `{"`+name+`":1}`)
	}
}

// Abuse 14: readers differ about half a surrogate pair, in names and values, at any depth.
func TestT30LoneSurrogates(t *testing.T) {
	t.Parallel()
	for _, s := range []string{`\ud800`, `\udc00`, `\ud83d`, `\ude00\ud83d`, `\ud83dx`, `\ud83d\n`, `\ud83d\u0041`, `\ud83d\ud83d\ude00`, `\ud83d\ude00\ude00`, `x\uDFFF`, `\\\ud800`, `\uD83D\\ude00`} {
		refused(t, "a lone surrogate", `{"a":"`+s+`"}`)
		refused(t, "a lone surrogate", `{"`+s+`":1}`)
		refused(t, "a lone surrogate", `{"a":[0,{"b":["`+s+`"]}]}`)
	}
	for _, s := range []string{`\ud83d\ude00`, `\uD83D\uDE00`, `\\ud800`, `\\\\udc00`, `\u0000`, `\ufffe`, `\\`, `\"`, `\ud7ff\ue000`, `\ud83d\ude00\ud83d\ude00`} {
		c := accepted(t, `{"a":"`+s+`"}`)
		var want string
		if err := json.Unmarshal([]byte(`"`+s+`"`), &want); err != nil {
			t.Fatal(err)
		}
		if got, ok := c.Text("a"); !ok || got != want {
			t.Errorf("%s reads %q, want %q", s, got, want)
		}
	}
}

func TestT30Depth(t *testing.T) {
	t.Parallel()
	nested := func(open, close string, depth int) string { // depth counts the outermost object
		return `{"a":` + strings.Repeat(open, depth-1) + "0" + strings.Repeat(close, depth-1) + "}"
	}
	for _, kind := range [][2]string{{"[", "]"}, {`{"a":`, "}"}} {
		accepted(t, nested(kind[0], kind[1], 32))
		refused(t, "nested deeper than 32", nested(kind[0], kind[1], 33))
		refused(t, "nested deeper than 32", nested(kind[0], kind[1], 9_999))
		refused(t, "not JSON", nested(kind[0], kind[1], 100_000)) // the standard library's own limit
	}
	accepted(t, `{"a":[`+strings.Repeat("[[]],", 1000)+`[]]}`) // wide is not deep
}

// Abuse 14: what fits in the limit costs time in proportion to its length, and what does not is not looked at. Had
// looking for duplicates been quadratic, the first two would take minutes.
func TestT30MillionMembers(t *testing.T) {
	t.Parallel()
	var flat strings.Builder
	flat.WriteString(`{"":0`)
	n := 1
	for ; flat.Len() < watchword.MaxClaimsBytes-16; n++ {
		fmt.Fprintf(&flat, `,"%x":0`, n)
	}
	got := 0
	for range accepted(t, flat.String()+"}").All() {
		got++
	}
	if got != n {
		t.Errorf("%d members, want %d", got, n)
	}
	accepted(t, `{"a":[`+strings.Repeat(`{"b":0},`, 130_000)+`0]}`)
	accepted(t, `{"a":"`+strings.Repeat(`\u0061`, 170_000)+`"}`)
	accepted(t, `{"a":`+strings.Repeat("9", watchword.MaxClaimsBytes-6)+`}`)
	refused(t, "more than 1048576 bytes", `{"a":`+strings.Repeat("9", watchword.MaxClaimsBytes-5)+`}`)
	refused(t, "more than 1048576 bytes", manyMembers(1_000_000)+"}")
	refused(t, "more than 1048576 bytes", strings.Repeat(" ", watchword.MaxClaimsBytes)+"{}")
}

// INT-09: members come back byte for byte, in order.
func TestINT09ClaimsAreLossless(t *testing.T) {
	t.Parallel()
	c := accepted(t, "\t\r\n {\"a\" : 1.0 ,\n\"b\":-0,\"c\":1E400,\"d\":12345678901234567890123,\"e\":\"\\u0041\\/\",\"f\":[1 , 2] , \"g\":{ \"x\" : null },\"h\":true,\"\\u0069\":null\n} ")
	var got []string
	for name, v := range c.All() {
		got = append(got, name+"="+v)
		if one, ok := c.Get(name); !ok || one != v {
			t.Errorf("Get(%q) = %q, %v", name, one, ok)
		}
	}
	want := `a=1.0|b=-0|c=1E400|d=12345678901234567890123|e="\u0041\/"|f=[1 , 2]|g={ "x" : null }|h=true|i=null`
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if !strings.HasPrefix(c.JSON(), `{"a" : 1.0`) || !strings.HasSuffix(c.JSON(), "}") {
		t.Errorf("JSON is %q", c.JSON())
	}
	if s, ok := c.Text("e"); s != "A/" || !ok {
		t.Errorf("Text = %q, %v", s, ok)
	}
	for _, name := range []string{"a", "f", "g", "h", "i", "missing", ""} {
		if s, ok := c.Text(name); ok {
			t.Errorf("%s is no string, but reads %q", name, s)
		}
	}
	for range c.All() {
		break // an iterator may be left
	}
	var none watchword.Claims
	if v, ok := none.Get("a"); ok || none.JSON() != "{}" {
		t.Errorf("the zero value has %q and reads %s", v, none.JSON())
	}
	accepted(t, "{}")
	accepted(t, "{ }")
}

func TestINT07_INT08Strings(t *testing.T) {
	t.Parallel()
	f := func(value, want string) {
		t.Helper()
		got := "no"
		if list, ok := watchword.Strings(value); ok {
			got = fmt.Sprintf("%q", list)
		}
		if got != want {
			t.Errorf("%s gives %s, want %s", value, got, want)
		}
	}
	f(`[]`, `[]`)
	f(`[ ]`, `[]`)
	f(`["a"]`, `["a"]`)
	f(` ["a"]`, `no`)
	f(`[ "a" , "\u0062,]" ,""]`, `["a" "b,]" ""]`)
	f(`["a",1]`, `no`)
	f(`[["a"]]`, `no`)
	f(`["a",null]`, `no`)
	f(`["a",{"b":"c"}]`, `no`)
	f(`"a"`, `no`)
	f(`{}`, `no`)
	f(`{"a":"b"}`, `no`)
	for _, broken := range []string{"", "[", `["`, `["a`, `["a"`, `["a",`, `["a",]`, `["a"]]`, `["a"] x`, `["\`, `["\u12`, `["\q"]`, "[\"\n\"]", "[\"\xff\"]"} {
		f(broken, "no") // it is exported, so it may meet anything
	}
}

// FuzzParseClaims holds the decoder against encoding/json: whatever we accept, that reads in the same way, and there
// is only one way to read it.
func FuzzParseClaims(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, ` { "active" : true , "x" : [ 1 , { "y" : "\ud83d\ude00" } ] } `, `{"a":1,"a":2}`, `{"ACTIVE":true}`, `{"a":"\ud800"}`, `{"\u0061":"\\\""}`, `[]`, `{"a":[[[[]]]],"b":{"c":{}}}`, `{"a":-1.5e-7,"b":null,"c":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := watchword.ParseClaims(body)
		if err != nil {
			if c != (watchword.Claims{}) {
				t.Fatalf("an error and claims: %v", c)
			}
			return
		}
		want := map[string]json.RawMessage{}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		n := 0
		for name, v := range c.All() {
			n++
			if !bytes.Equal(want[name], []byte(v)) {
				t.Fatalf("%q: %s, encoding/json says %s", name, v, want[name])
			}
			if list, ok := watchword.Strings(v); ok {
				var same []string
				if json.Unmarshal([]byte(v), &same) != nil || len(same) != len(list) {
					t.Fatalf("%s gives %q", v, list)
				}
			}
		}
		if n != len(want) || n != topMembers(t, body) {
			t.Fatalf("%d members, encoding/json has %d", n, len(want))
		}
		again, err := watchword.ParseClaims([]byte(c.JSON()))
		if err != nil || again.JSON() != c.JSON() {
			t.Fatalf("read again: %q, %v", again.JSON(), err)
		}
	})
}

// topMembers counts the members of body with a streaming decoder, which shows duplicates, and checks names and depth.
func topMembers(t *testing.T, body []byte) (top int) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	type level struct {
		object bool
		seen   map[string]bool
		n      int
	}
	var stack []level
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return top
		}
		if err != nil {
			t.Fatalf("a stream reader refuses it: %v", err)
		}
		if delim, ok := tok.(json.Delim); ok && (delim == '}' || delim == ']') {
			stack = stack[:len(stack)-1]
			continue
		}
		if i := len(stack) - 1; i >= 0 {
			l := &stack[i]
			if l.n++; l.object && l.n%2 == 1 {
				name := tok.(string)
				if l.seen[name] {
					t.Fatalf("a duplicate %q at depth %d was accepted", name, len(stack))
				}
				l.seen[name] = true
				if i == 0 {
					top++
				}
			}
		}
		if delim, ok := tok.(json.Delim); ok {
			if len(stack) == 32 {
				t.Fatal("nested deeper than 32")
			}
			stack = append(stack, level{object: delim == '{', seen: map[string]bool{}})
		}
	}
}
