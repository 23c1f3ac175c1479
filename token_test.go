package watchword_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
)

const canary = "canary-7Qx9"

// forms are what a printer may make of the canary.
var forms = func() (all []string) {
	b := []byte(canary)
	for _, f := range []string{"%s", "%x", "%X", "% x", "% X", "%d", "%o", "%b"} {
		all = append(all, strings.Trim(fmt.Sprintf(f, b), "[]"))
	}
	return append(all, strings.ReplaceAll(fmt.Sprintf("%d", b), " ", ","), base64.StdEncoding.EncodeToString(b)[:12], strings.ReplaceAll(fmt.Sprintf("% #x", b), " ", ", "))
}()

// clean fails if s holds the canary in any form.
func clean(t *testing.T, how, s string) {
	t.Helper()
	for _, form := range forms {
		if strings.Contains(s, strings.Trim(form, "[]")) {
			t.Errorf("%s shows %s", how, s)
		}
	}
}

// T18: whatever prints, logs or marshals a token, a credential or the pepper, alone or inside of anything, reads
// REDACTED. (%w and %p make package fmt skip every method: go vet refuses the one, TestNoPointerVerb the other.)
func TestT18TokensPrintRedacted(t *testing.T) {
	t.Parallel()
	token := watchword.Token(canary)
	credential := watchword.Credential{Authorization: canary, Parameters: [][2]string{{"client_secret", canary}}, Hint: canary}
	pepper := watchword.Pepper([]byte(canary + strings.Repeat("x", 32-len(canary))))
	type holder struct {
		Token      watchword.Token
		Pointer    *watchword.Token
		Any        any
		List       []watchword.Token
		Map        map[string]watchword.Token
		Credential *watchword.Credential
		Pepper     watchword.Pepper
	}
	h := holder{token, &token, token, []watchword.Token{token}, map[string]watchword.Token{"k": token}, &credential, pepper}
	values := map[string]any{
		"token": token, "*token": &token, "credential": credential, "*credential": &credential, "pepper": pepper, "*pepper": &pepper, "holder": h, "*holder": &h,
		"keys":    map[watchword.Token]int{token: 1},
		"request": watchword.Request{Token: token, Credential: &credential},
		"query":   watchword.Query{Token: token, Credential: &credential},
		"error":   fmt.Errorf("asking about %v: %s", token, credential),
	}
	for name, v := range values {
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'p' || verb == 'w' || verb == 'T' {
				continue
			}
			for _, flags := range []string{"", "+", "#", "# ", "+20.12"} {
				clean(t, "%"+flags+string(verb)+" of "+name, fmt.Sprintf("%"+flags+string(verb), v))
			}
		}
		clean(t, "Sprint of "+name, fmt.Sprint(v))
		clean(t, "Sprintln of "+name, fmt.Sprintln("x", v))
		clean(t, "too many of "+name, fmt.Sprintf(canary[:1], v))
		clean(t, "a width of "+name, fmt.Sprintf("%*d", v, 1))
		clean(t, "a panic with "+name, panicked(v))

		if name == "keys" {
			continue // encoding/json writes the keys of a map as they are, whatever they say: the docs of Token warn
		}
		if b, err := json.Marshal(v); err == nil {
			clean(t, "json of "+name, string(b))
		}
		if b, err := xml.Marshal(v); err == nil {
			clean(t, "xml of "+name, string(b))
		}
		for kind, handler := range map[string]func(*bytes.Buffer) slog.Handler{
			"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			l := slog.New(handler(&b))
			l.Info("x", "k", v)
			l.With("k", v).WithGroup("g").Info(fmt.Sprint(v), slog.Group("h", "k", v))
			clean(t, "slog "+kind+" of "+name, b.String())
		}
		if m, ok := v.(interface{ MarshalText() ([]byte, error) }); ok { // what YAML, TOML and flag packages call
			b, err := m.MarshalText()
			if string(b) != "REDACTED" || err != nil {
				t.Errorf("MarshalText of %s: %s, %v", name, b, err)
			}
		}
	}
	for _, v := range []any{token, credential, pepper} {
		if s := fmt.Sprintf("%v %s %q %x", v, v, v, v); s != "REDACTED REDACTED REDACTED REDACTED" {
			t.Errorf("%T prints %s", v, s)
		}
		if b, err := json.Marshal(v); string(b) != `"REDACTED"` || err != nil {
			t.Errorf("%T marshals as %s, %v", v, b, err)
		}
	}
	if token.String() != "REDACTED" || string(token) != canary {
		t.Error("String hides, a conversion does not")
	}
}

// panicked is what the runtime would print of a panic with v.
func panicked(v any) (s string) {
	defer func() { s = fmt.Sprint(recover()) }()
	panic(v)
}

// INT-21, T16: every byte at every place of a word, and every length.
func TestINT21_T16MalformedTokens(t *testing.T) {
	t.Parallel()
	if r := watchword.Token("").Problem(); r != watchword.NoToken {
		t.Error(r)
	}
	for n := 1; n <= 17; n++ {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte{'~'}, n)
				if at%2 == 0 {
					b = bytes.Repeat([]byte{'!'}, n)
				}
				b[at] = byte(c)
				want := watchword.MalformedToken
				if c > ' ' && c < 0x7f {
					want = watchword.OK
				}
				if got := watchword.Token(b).Problem(); got != want {
					t.Fatalf("%q: %v, want %v", b, got, want)
				}
			}
		}
	}
	for _, s := range []string{"a&b=c%20+/=", "\"'\\;,<>", strings.Repeat("x", watchword.MaxTokenBytes)} {
		if r := watchword.Token(s).Problem(); r != watchword.OK {
			t.Errorf("%.20q: %v", s, r)
		}
	}
	for _, s := range []string{strings.Repeat("x", watchword.MaxTokenBytes+1), "a b", "a\r\nb", "a\x00", "é", "a\u2028", " ", "\xff", "token ", "\ttoken"} {
		if r := watchword.Token(s).Problem(); r != watchword.MalformedToken {
			t.Errorf("%.20q: %v", s, r)
		}
	}
}
