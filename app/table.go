package app

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"
)

// The file is described once, by the table in keys.go. A row names a key, says how its value is written, where it goes
// and what it means; the decoder, the JSON Schema, docs/config.md and the suggestions for a misspelt key all read it.

// shape is what a value looks like, whatever becomes of it.
type shape struct {
	word   string                // in the reference: "duration"
	hint   string                // how to write one
	schema map[string]any        // JSON Schema, keywords of this value only
	made   func() map[string]any // the same where it is made of others: nobody needs it but Schema
	keys   []entry               // of a mapping, or of the mappings of a list
	items  bool                  // keys belong to the mappings of a list
	secret bool                  // nothing of it is ever repeated in a mistake
}

// entry is a row without its destination.
type entry struct {
	name, doc, def  string
	required, later bool
	shape
}

// kind is a shape that can be read. A place without a node was not written: what has a default takes it.
type kind[V any] struct {
	shape
	read func(r *reader, at place, into *V)
}

// translated is k, whose value becomes a W. What is not written stays the zero W.
func translated[V, W any](k kind[V], into func(V) W) kind[W] {
	return kind[W]{k.shape, func(r *reader, at place, w *W) {
		if at.node == nil {
			return
		}
		var v V
		k.read(r, at, &v)
		*w = into(v)
	}}
}

// row is one key of a mapping that becomes a T.
type row[T any] struct {
	entry
	read func(r *reader, at place, into *T)
}

// key makes a row; field says where its value goes.
func key[T, V any](name string, k kind[V], field func(*T) *V, doc string) row[T] {
	return row[T]{entry{name: name, doc: doc, shape: k.shape}, func(r *reader, at place, into *T) { k.read(r, at, field(into)) }}
}

// required marks a key that its mapping cannot do without.
func (w row[T]) required() row[T] {
	w.entry.required = true
	return w
}

// or gives the value that counts where the key is not written, as it would be written.
func (w row[T]) or(def string) row[T] {
	read := w.read
	w.def = def
	w.read = func(r *reader, at place, into *T) {
		if at.node == nil {
			at.node = parsed(def)
		}
		read(r, at, into)
	}
	return w
}

func parsed(text string) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Load([]byte(text), &doc); err != nil {
		panic("the table holds a default that is no YAML: " + text)
	}
	return doc.Content[0]
}

// self is the destination of a mapping whose keys go where the mapping itself goes.
func self[T any](t *T) *T { return t }

// place is where a value stands.
type place struct {
	path string
	node *yaml.Node // nil: not written
}

func (p place) child(name string, n *yaml.Node) place {
	if p.path != "" {
		name = p.path + "." + name
	}
	return place{name, n}
}

func (p place) item(i int) place { return place{fmt.Sprintf("%s[%d]", p.path, i), p.node.Content[i]} }

// reader collects what is wrong while a tree becomes a Config.
type reader struct {
	dir      string                // relative files are relative to it
	table    []entry               // every key of the file
	written  map[string]*yaml.Node // every known key that was written, by path
	faulty   map[string]bool       // every path with a mistake
	mistakes Mistakes
}

// wrong reports the value at a place, and repeats it.
func (r *reader) wrong(at place, reason, fix string) {
	value := ""
	if at.node != nil && at.node.Kind == yaml.ScalarNode {
		value = at.node.Value
	}
	if strings.Contains(value, "@") { // a URL may hold a password
		value = ""
	}
	if len(value) > 64 {
		value = value[:64] + "…"
	}
	r.add(at, value, reason, fix)
}

// silent reports the value at a place without repeating it.
func (r *reader) silent(at place, reason, fix string) { r.add(at, "", reason, fix) }

// add keeps the first mistake at a path: what follows from it would only distract.
func (r *reader) add(at place, value, reason, fix string) {
	if r.bad(at.path) {
		return
	}
	m := Mistake{Path: at.path, Value: value, Reason: reason, Fix: fix}
	if at.node != nil {
		m.Line, m.Column = at.node.Line, at.node.Column
	}
	r.faulty[at.path] = true
	r.mistakes = append(r.mistakes, m)
}

// at is the place of a path: where it was written, else where the nearest thing around it was.
func (r *reader) at(path string) place {
	for around := path; ; around = around[:strings.LastIndexAny(around, ".[")] {
		if n := r.written[around]; n != nil {
			return place{path, n}
		}
		if !strings.ContainsAny(around, ".[") {
			return place{path, nil}
		}
	}
}

func (r *reader) has(path string) bool { return r.written[path] != nil }

func (r *reader) bad(path string) bool { return r.faulty[path] && path != "" }

// object is a mapping with the keys of a table, which becomes a T. The contract names the keys in later too, and this
// version lacks them: they are refused, each by its own name.
func object[T any](rows []row[T], later ...string) kind[T] {
	for _, name := range later {
		rows = append(rows, row[T]{entry: entry{name: name, later: true}})
	}
	k := kind[T]{shape: shape{word: "mapping", hint: "write its keys"}}
	for _, w := range rows {
		k.keys = append(k.keys, w.entry)
	}
	k.read = func(r *reader, at place, into *T) {
		if at.node == nil {
			for _, w := range rows {
				if !w.later {
					w.read(r, at.child(w.name, nil), into)
				}
			}
			return
		}
		values, ok := r.mapping(at, k.keys)
		if !ok {
			return
		}
		for _, w := range rows {
			child := at.child(w.name, values[w.name])
			switch n := child.node; {
			case n == nil && w.entry.required:
				r.silent(place{child.path, at.node}, "is missing", "add it: "+w.hint)
			case n == nil && w.later:
			case n == nil:
				w.read(r, child, into)
			case w.later:
				r.silent(child, "not in this version", "remove it")
			case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
				r.silent(child, "has no value", "give it one ("+w.hint+") or remove the key")
			default:
				r.written[child.path] = n
				w.read(r, child, into)
			}
		}
	}
	return k
}

// mapping splits a mapping into its values by key, and reports keys that are unknown or written twice.
func (r *reader) mapping(at place, known []entry) (map[string]*yaml.Node, bool) {
	if at.node.Kind != yaml.MappingNode {
		if at.node.Kind != yaml.AliasNode {
			r.silent(at, "is "+noun(at.node)+" where a mapping is expected", "write keys and values, such as {"+known[0].name+": …}")
		}
		return nil, false
	}
	if len(at.node.Content) == 0 {
		r.silent(at, "is empty", "remove the key, or write what belongs into it")
		return nil, false
	}
	values := make(map[string]*yaml.Node, len(known))
	for i := 0; i+1 < len(at.node.Content); i += 2 {
		name, value := at.node.Content[i], at.node.Content[i+1]
		switch {
		case name.Kind != yaml.ScalarNode || name.ShortTag() == "!!merge": // reported by plain
		case !slices.ContainsFunc(known, func(e entry) bool { return e.name == name.Value }):
			r.unknown(at, name, value, known)
		case values[name.Value] != nil:
			r.silent(at.child(name.Value, name), "is written twice", "keep one")
		default:
			values[name.Value] = value
		}
	}
	return values, true
}

var keyLike = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`) })

// unknown reports a key that is not in the table. What may be a secret whose key or colon was forgotten, as in
// {client_secret:hunter2}, is not repeated.
func (r *reader) unknown(at place, name, value *yaml.Node, known []entry) {
	var names []string
	for _, e := range known {
		if !e.later {
			names = append(names, e.name)
		}
	}
	near := nearest(name.Value, names)
	spot := at.child(name.Value, name)
	if !keyLike().MatchString(name.Value) || value.ShortTag() == "!!null" && near == "" {
		spot = place{at.path, name}
	}
	fix := "known here: " + strings.Join(names, ", ")
	if near != "" {
		fix = "did you mean " + near + "?"
	} else if homes := r.homes(name.Value); len(homes) > 0 {
		fix = "it is known as " + strings.Join(homes, " and ")
	}
	r.silent(spot, "unknown key", fix)
}

// homes lists where in the file a key of that name belongs.
func (r *reader) homes(name string) (homes []string) {
	walk(r.table, "", func(path string, e entry) {
		if e.name == name && !e.later {
			homes = append(homes, path)
		}
	})
	return homes
}

// walk visits every entry below a mapping, outermost first, with its path ("issuers[].tls.ca").
func walk(entries []entry, path string, visit func(path string, e entry)) {
	for _, e := range entries {
		here := e.name
		if path != "" {
			here = path + "." + e.name
		}
		visit(here, e)
		if e.items {
			here += "[]"
		}
		walk(e.keys, here, visit)
	}
}

// plain reports what YAML has and this file does not: anchors, aliases, merge keys, tags, keys that are no words.
func (r *reader) plain(n *yaml.Node) {
	at := place{"", n}
	switch {
	case n.Kind == yaml.AliasNode:
		r.silent(at, "an alias", "write the value itself: what is written in one place is read in one place")
		return
	case n.Anchor != "":
		r.silent(at, "an anchor", "remove it: aliases are not followed")
	case n.Style&yaml.TaggedStyle != 0:
		r.silent(at, "an explicit tag", "remove it: the key says what its value is")
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if child.ShortTag() == "!!merge" {
				r.silent(place{"", child}, "a merge key", "write the keys themselves")
				continue
			}
			if child.Kind != yaml.ScalarNode {
				r.silent(place{"", child}, "a key that is no word", "write a key of docs/config.md")
				continue
			}
		}
		r.plain(child)
	}
}

func noun(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "a string"
}
