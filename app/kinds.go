package app

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// scalar is a kind whose value is one word of one of the YAML types in tags. parse says what is wrong, and the fix.
func scalar[V any](s shape, tags string, parse func(text string) (v V, reason, fix string)) kind[V] {
	return kind[V]{s, func(r *reader, at place, into *V) {
		switch n := at.node; {
		case n == nil || n.Kind == yaml.AliasNode:
		case n.Kind != yaml.ScalarNode:
			r.silent(at, "is "+noun(n)+" where a "+s.word+" is expected", s.hint)
		case !slices.Contains(strings.Fields(tags), n.ShortTag()):
			fix := s.hint
			if _, reason, _ := parse(n.Value); tags == "!!str" && reason == "" && n.ShortTag() != "!!null" {
				fix = "quote it: " + strconv.Quote(n.Value)
			}
			r.wrong(at, "is "+noun(n)+" where a "+s.word+" is expected", fix)
		default:
			v, reason, fix := parse(n.Value)
			if reason != "" {
				if fix == "" {
					fix = s.hint
				}
				r.wrong(at, reason, fix)
				return
			}
			*into = v
		}
	}}
}

// text is a non-empty string of at most 1,024 bytes without control characters, for which check may find a fault.
func text(word, hint string, checks ...func(string) (reason, fix string)) kind[string] {
	s := shape{word: word, hint: hint, schema: map[string]any{"type": "string", "minLength": 1, "maxLength": 1024}}
	return scalar(s, "!!str", func(v string) (string, string, string) {
		switch {
		case v == "":
			return "", "is empty", ""
		case len(v) > 1024:
			return "", "is longer than 1,024 bytes", ""
		case strings.ContainsFunc(v, unicode.IsControl):
			return "", "holds a control character", "write it on one line"
		}
		for _, check := range checks {
			if reason, fix := check(v); reason != "" {
				return "", reason, fix
			}
		}
		return v, "", ""
	})
}

// like is a check against a pattern that says all there is to say.
func like(pattern, reason string) func(string) (string, string) {
	re := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) }) // most keys are seldom written
	return func(v string) (string, string) {
		if !re().MatchString(v) {
			return reason, ""
		}
		return "", ""
	}
}

// word is one of a few.
func word(words ...string) kind[string] {
	s := shape{word: "`" + strings.Join(words, "` or `") + "`", hint: "write " + strings.Join(words, " or "), schema: map[string]any{"enum": words}}
	return scalar(s, "!!str", func(v string) (string, string, string) {
		switch near := nearest(v, words); {
		case slices.Contains(words, v):
			return v, "", ""
		case near != "":
			return "", "is not known here", "did you mean " + near + "?"
		}
		return "", "is not known here", ""
	})
}

var boolean = scalar(shape{word: "boolean", hint: "write true or false", schema: map[string]any{"type": "boolean"}}, "!!bool",
	func(v string) (bool, string, string) {
		if v != "true" && v != "false" {
			return false, "is neither true nor false", ""
		}
		return v == "true", "", ""
	})

// integer is a whole number from low to high.
func integer(low, high int) kind[int] {
	hint := fmt.Sprintf("write a whole number from %d to %d", low, high)
	s := shape{word: "whole number", hint: hint, schema: map[string]any{"type": "integer", "minimum": low, "maximum": high}}
	return scalar(s, "!!int", func(v string) (int, string, string) {
		n, err := strconv.Atoi(v)
		switch {
		case err != nil || strconv.Itoa(n) != v:
			return 0, "is no plain decimal number", ""
		case n < 0 && low >= 0:
			return 0, "a bound cannot be negative", hint
		case n < low || n > high:
			return 0, "is out of range", ""
		}
		return n, "", ""
	})
}

// share is a number between 0 and 1, neither included.
var share = scalar(shape{word: "number", hint: "write a number between 0 and 1, such as 0.75",
	schema: map[string]any{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}}, "!!int !!float",
	func(v string) (float64, string, string) {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || strings.ContainsAny(v, "xX_") || !(f > 0 && f < 1) {
			return 0, "is not between 0 and 1", ""
		}
		return f, "", ""
	})

const durationHint = "write a Go duration such as 250ms, 30s or 10m, or a bare 0"

func durationShape() shape {
	return shape{word: "duration", hint: durationHint, schema: map[string]any{"oneOf": []any{
		map[string]any{"const": 0}, map[string]any{"type": "string", "pattern": `^[-+0-9.hmsuµn]+$`}}}}
}

// duration is from low to high.
func duration(low, high time.Duration) kind[time.Duration] {
	return scalar(durationShape(), "!!str !!int !!float", func(v string) (time.Duration, string, string) {
		d, err := time.ParseDuration(v)
		if _, bare := strconv.ParseFloat(v, 64); err != nil && bare == nil {
			return 0, "has no unit", "write " + strconv.Quote(v+"s") + ", or the unit that you mean"
		}
		switch {
		case err != nil:
			return 0, "is no duration", ""
		case d < 0:
			return 0, "a bound cannot be negative", ""
		case d < low:
			return 0, "is too short", "write at least " + low.String()
		case d > high:
			return 0, "is too long", "write at most " + high.String()
		}
		return d, "", ""
	})
}

// forever is the longest duration there is.
const forever = time.Duration(math.MaxInt64)

var sizeForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,18})(KiB|MiB|GiB)?$`)

// size is a positive number of bytes.
var size = scalar(shape{word: "size", hint: "write bytes, or a whole number with KiB, MiB or GiB, such as 64MiB",
	schema: map[string]any{"oneOf": []any{map[string]any{"type": "integer", "minimum": 1}, map[string]any{"type": "string", "pattern": sizeForm.String()}}}},
	"!!str !!int", func(v string) (int64, string, string) {
		if strings.HasPrefix(v, "-") {
			return 0, "a size cannot be negative", ""
		}
		m := sizeForm.FindStringSubmatch(v)
		if m == nil {
			return 0, "is no size", ""
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		unit := map[string]int64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[m[2]]
		switch {
		case n == 0 && err == nil:
			return 0, "a size cannot be zero", "write a positive one, or remove the key for the default"
		case err != nil || n > math.MaxInt64/unit:
			return 0, "is too large", ""
		}
		return n * unit, "", ""
	})

// list is a list of at least one; no two are the same.
func list[V any](of kind[V]) kind[[]V] {
	plural := "s"
	if strings.HasSuffix(of.word, "`") { // words as they are written
		plural = ""
	}
	s := shape{word: "list of " + of.word + plural, hint: "write a list such as [a, b]", secret: of.secret, keys: of.keys, items: true,
		made: func() map[string]any {
			return map[string]any{"type": "array", "minItems": 1, "items": of.jsonSchema()}
		}}
	return kind[[]V]{s, func(r *reader, at place, into *[]V) {
		switch n := at.node; {
		case n == nil || n.Kind == yaml.AliasNode:
			return
		case n.Kind != yaml.SequenceNode:
			r.wrong(at, "is "+noun(n)+" where a list is expected", s.hint)
			return
		case len(n.Content) == 0:
			r.silent(at, "an empty list", "remove the key, or write what belongs into it")
			return
		}
		seen := map[string]bool{}
		out := make([]V, len(at.node.Content))
		for i, n := range at.node.Content {
			item := at.item(i)
			r.written[item.path] = n
			switch {
			case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
				r.silent(item, "is empty", "remove it")
			case n.Kind == yaml.ScalarNode && seen[n.Value]:
				r.wrong(item, "is in the list twice", "remove one")
			default:
				seen[n.Value] = n.Kind == yaml.ScalarNode
				of.read(r, item, &out[i])
			}
		}
		*into = out
	}}
}

// oneOrList is one, or a list of them.
func oneOrList[V any](of kind[V]) kind[[]V] {
	many := list(of)
	s := shape{word: of.word + " or a list of them", hint: of.hint, made: func() map[string]any {
		return map[string]any{"oneOf": []any{of.jsonSchema(), many.jsonSchema()}}
	}}
	return kind[[]V]{s, func(r *reader, at place, into *[]V) {
		if at.node == nil || at.node.Kind != yaml.ScalarNode {
			many.read(r, at, into)
			return
		}
		one := make([]V, 1)
		of.read(r, at, &one[0])
		*into = one
	}}
}

// optional is nil where it is not written; what it holds has its defaults only where it is.
func optional[V any](of kind[V]) kind[*V] {
	return kind[*V]{of.shape, func(r *reader, at place, into **V) {
		if at.node != nil {
			*into = new(V)
			of.read(r, at, *into)
		}
	}}
}

// folder is one, relative to the file that names it.
var folder = func() kind[string] {
	k := text("folder", "write the path of a folder")
	return kind[string]{k.shape, func(r *reader, at place, into *string) {
		k.read(r, at, into)
		*into = r.file(*into)
	}}
}()

// filePath is a file, relative to the one that names it.
var filePath = func() kind[string] {
	k := text("file", "write the path of a file")
	return kind[string]{k.shape, func(r *reader, at place, into *string) {
		k.read(r, at, into)
		*into = r.file(*into)
	}}
}()

func (r *reader) file(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(r.dir, path)
}

var prefixes = scalar(shape{word: "network", hint: "write an address or a network such as 10.0.0.0/8", schema: map[string]any{"type": "string", "minLength": 1}},
	"!!str", func(v string) (netip.Prefix, string, string) {
		if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
			return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), "", ""
		}
		p, err := netip.ParsePrefix(v)
		switch {
		case err != nil || p.Addr().Is4In6():
			return netip.Prefix{}, "is no network", ""
		case p != p.Masked():
			return netip.Prefix{}, "has bits set behind its length", "write " + p.Masked().String() + ", or one address with its full length"
		}
		return p, "", ""
	})

// Listen is where a door waits: "unix" and the absolute path of a socket, or "tcp" and address:port. The zero value is
// nowhere.
type Listen struct{ Network, Address string }

// String is the address as the file has it.
func (l Listen) String() string {
	if l.Network == "unix" {
		return "unix:" + l.Address
	}
	return l.Address
}

const maxSocketPath = 107 // sun_path less its NUL, on Linux; shorter elsewhere

var listen = scalar(shape{word: "address", hint: "write address:port, such as 127.0.0.1:8081, or unix:/absolute/path",
	schema: map[string]any{"type": "string", "pattern": `^(unix:/.+|[^/]*:[0-9]{1,5})$`}}, "!!str",
	func(v string) (Listen, string, string) {
		if path, unix := strings.CutPrefix(v, "unix:"); unix {
			switch {
			case !strings.HasPrefix(path, "/") || filepath.Clean(path) != path:
				return Listen{}, "is no absolute path of a socket", "write unix:/absolute/path, without . and .. and //"
			case len(path) > maxSocketPath:
				return Listen{}, fmt.Sprintf("is longer than a socket's path can be (%d bytes)", maxSocketPath), "use a shorter folder, such as /run/watchword"
			case strings.ContainsFunc(path, unicode.IsControl):
				return Listen{}, "holds a control character", ""
			}
			return Listen{"unix", path}, "", ""
		}
		i := strings.LastIndexByte(v, ':')
		if i < 0 {
			return Listen{}, "has no port", ""
		}
		host := strings.TrimSuffix(strings.TrimPrefix(v[:i], "["), "]")
		port, err := strconv.ParseUint(v[i+1:], 10, 16)
		_, notIP := netip.ParseAddr(host)
		switch {
		case err != nil || len(v[i+1:]) > 5:
			return Listen{}, "has no port from 0 to 65535", ""
		case host != "" && host != "localhost" && notIP != nil:
			return Listen{}, "is no address of this machine", "write an IP address, localhost, or nothing before the colon for all addresses"
		case strings.Contains(host, ":") != strings.HasPrefix(v, "["):
			return Listen{}, "is no address and port", "write an IPv6 address in brackets, such as [::1]:8081"
		}
		return Listen{"tcp", v[:i+1] + strconv.FormatUint(port, 10)}, "", ""
	})

var socketMode = scalar(shape{word: "mode", hint: `write four octal digits in quotes, such as "0660"`, schema: map[string]any{"type": "string", "pattern": "^0[0-7]{3}$"}},
	"!!str", func(v string) (uint32, string, string) {
		n, err := strconv.ParseUint(v, 8, 32)
		if err != nil || len(v) != 4 || v[0] != '0' {
			return 0, "is no mode", ""
		}
		return uint32(n), "", ""
	})
