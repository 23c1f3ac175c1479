package app

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write docs/config.md")

var indices = regexp.MustCompile(`\[\d+\]`)

// examples are the files of deploy/examples and `config init`, also with its commented keys switched on.
func examples(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("../deploy/examples/*.yaml")
	if err != nil || len(paths) < 5 {
		t.Fatal(paths, err)
	}
	more, _ := filepath.Glob("testdata/*.yaml")
	gateways, _ := filepath.Glob("../deploy/*/watchword.yaml")
	more = append(more, gateways...)
	paths = append(paths, more...)
	all := map[string][]byte{"config init": Example(), "config init, all switched on": regexp.MustCompile(`(?m)^( *)#([^ #\n])`).ReplaceAll(Example(), []byte("$1$2"))}
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = body
	}
	return all
}

func TestExamplesAreAccepted(t *testing.T) {
	needsEngines(t)
	t.Parallel()
	for name, body := range examples(t) {
		if _, r := decode(body, "/etc/watchword"); len(r.mistakes) > 0 {
			t.Errorf("%s is refused:\n%v", name, r.mistakes)
		}
	}
}

// `config init` prints what `config check` accepts on a fresh machine: no secret, no file.
func TestConfigInitPassesConfigCheck(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "watchword.yaml")
	if err := os.WriteFile(path, Example(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(path); err != nil {
		t.Fatal(err)
	}
}

func TestReferenceIsCommitted(t *testing.T) {
	t.Parallel()
	const path = "../docs/config.md"
	if *update {
		if err := os.WriteFile(path, Reference(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if committed, err := os.ReadFile(path); err != nil || !bytes.Equal(committed, Reference()) {
		t.Errorf("docs/config.md is not what the table says (%v): go test ./app -run TestReferenceIsCommitted -update", err)
	}
}

func TestReferenceLinksLead(t *testing.T) {
	t.Parallel()
	text := string(Reference())
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^## (.*)$").FindAllStringSubmatch(text, -1) {
		if a := anchor(m[1]); headings[a] {
			t.Errorf("two headings have the anchor %s", a)
		} else {
			headings[a] = true
		}
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(text, -1) {
		if !headings[m[1]] {
			t.Errorf("#%s leads nowhere", m[1])
		}
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	t.Parallel()
	walk(file.keys, "", func(path string, e entry) {
		if !e.later && (len(e.doc) < 8 || !strings.HasSuffix(e.doc, ".") || e.hint == "" || e.word == "") {
			t.Errorf("%s: doc %q, hint %q, word %q", path, e.doc, e.hint, e.word)
		}
	})
}

func schemaOf(t testing.TB) map[string]any {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// The schema and the decoder come from one table; what the decoder accepts, the schema accepts.
func TestSchemaAcceptsTheExamples(t *testing.T) {
	t.Parallel()
	s := schemaOf(t)
	for name, body := range examples(t) {
		if why := schemaRefuses(s, value(t, body), ""); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
}

func TestSchemaRefusesWhatIsMalformed(t *testing.T) {
	t.Parallel()
	s := schemaOf(t)
	bad := func(pairs ...string) {
		t.Helper()
		if schemaRefuses(s, value(t, []byte(change(t, base, pairs...))), "") == "" {
			t.Errorf("accepted %q", pairs)
		}
	}
	bad("doors:", "dors:")
	bad("    client_auth", "    timeout: 2\n    client_auth")
	bad("    client_auth", "    settle: 2\n    client_auth")
	bad("{env: ORDERS_SECRET}", "hunter2")
	bad("audience: [api]", "audience: []")
	bad("audience: [api]", "audience: api")
	bad("name: main", "name: 5")
	bad("{method: none}", "{method: nothing}")
	bad("    listen: unix:/run/watchword/auth.sock", "    profile: nginx")
}

func value(t testing.TB, body []byte) (v any) {
	t.Helper()
	if err := yaml.Load(body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// schemaRefuses checks v against the keywords that Schema uses; an unknown keyword fails the test by a panic.
func schemaRefuses(s map[string]any, v any, at string) string {
	for keyword, want := range s {
		ok := true
		switch keyword {
		case "$schema", "title", "description", "default", "additionalProperties", "required":
		case "type":
			switch v.(type) {
			case map[string]any:
				ok = want == "object"
			case []any:
				ok = want == "array"
			case string:
				ok = want == "string"
			case bool:
				ok = want == "boolean"
			case int:
				ok = want == "integer" || want == "number"
			case float64:
				ok = want == "number"
			default:
				ok = false
			}
		case "enum":
			ok = false
			for _, w := range want.([]any) {
				ok = ok || w == v
			}
		case "const":
			n, is := v.(int)
			ok = is && float64(n) == want || v == want
		case "oneOf":
			fits := 0
			for _, one := range want.([]any) {
				if schemaRefuses(one.(map[string]any), v, at) == "" {
					fits++
				}
			}
			ok = fits == 1
		case "pattern":
			text, is := v.(string)
			ok = !is || regexp.MustCompile(want.(string)).MatchString(text)
		case "minLength":
			text, is := v.(string)
			ok = !is || len(text) >= int(want.(float64))
		case "maxLength":
			text, is := v.(string)
			ok = !is || len([]rune(text)) <= int(want.(float64))
		case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum":
			n, is := number(v)
			b := want.(float64)
			ok = !is || map[string]bool{"minimum": n >= b, "maximum": n <= b, "exclusiveMinimum": n > b, "exclusiveMaximum": n < b}[keyword]
		case "minItems", "maxItems":
			list, is := v.([]any)
			ok = !is || (keyword == "minItems") == (len(list) >= int(want.(float64))) || len(list) == int(want.(float64))
		case "minProperties":
			m, is := v.(map[string]any)
			ok = !is || len(m) >= int(want.(float64))
		case "items":
			for _, item := range items(v) {
				if why := schemaRefuses(want.(map[string]any), item, at+"[]"); why != "" {
					return why
				}
			}
		case "properties":
			if why := propertiesRefuse(s, v, at); why != "" {
				return why
			}
		default:
			panic("the test does not know the keyword " + keyword)
		}
		if !ok {
			return at + ": " + keyword
		}
	}
	return ""
}

func propertiesRefuse(s map[string]any, v any, at string) string {
	m, is := v.(map[string]any)
	if !is {
		return ""
	}
	known := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for _, key := range required {
		if _, has := m[key.(string)]; !has {
			return at + ": misses " + key.(string)
		}
	}
	for key, value := range m {
		property, is := known[key].(map[string]any)
		if !is {
			return at + ": unknown " + key
		}
		if why := schemaRefuses(property, value, at+"."+key); why != "" {
			return why
		}
	}
	return ""
}

func number(v any) (float64, bool) {
	rv := reflect.ValueOf(v)
	switch {
	case v == nil:
		return 0, false
	case rv.CanInt():
		return float64(rv.Int()), true
	case rv.CanFloat():
		return rv.Float(), true
	}
	return 0, false
}

func items(v any) []any {
	l, _ := v.([]any)
	return l
}

// FuzzConfig feeds arbitrary bytes to the decoder: it must neither panic nor accept what the schema refuses, and every
// mistake must say what to do.
func FuzzConfig(f *testing.F) {
	for _, body := range examples(f) {
		f.Add(body)
	}
	for _, s := range []string{base, "", "a: *b", "a: &b [*b]", "issuers: [[]]", "doors: {introspection: {callers: [null]}}", "? {a: b}\n: c", "{\"issuers\":1e999}", "--- \n...\n---", "<<: [{}]", "\ufeffissuers: []"} {
		f.Add([]byte(s))
	}
	s := schemaOf(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 64<<10 {
			t.Skip("the size is bounded by a test of its own")
		}
		_, r := decode(body, "/etc/watchword")
		for _, m := range r.mistakes {
			if m.Reason == "" || m.Fix == "" {
				t.Errorf("%+v says too little", m)
			}
		}
		if len(r.mistakes) > 0 {
			return
		}
		var v any
		if err := yaml.Load(body, &v); err != nil {
			t.Fatalf("accepted what is no YAML: %v", err)
		}
		if why := schemaRefuses(s, v, ""); why != "" {
			t.Errorf("the decoder accepts what the schema refuses: %s", why)
		}
	})
}
