package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v4"
)

const maxSecretBytes = 64 << 10

// Secret says where a secret is, never what it is. It prints REDACTED. The zero value is no secret.
type Secret struct{ refs []reference }

type reference struct{ file, env string }

// Format prints REDACTED for every verb.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "REDACTED") }

// MarshalText returns REDACTED.
func (Secret) MarshalText() ([]byte, error) { return []byte("REDACTED"), nil }

// IsZero reports that none was configured.
func (s Secret) IsZero() bool { return len(s.refs) == 0 }

// Resolve reads the secret now, from the disk and the environment: one value, or two where a list was configured, to
// be tried in order. An error names the file or variable, and never holds what was read.
func (s Secret) Resolve() ([]string, error) {
	var values []string
	var errs []error
	for _, ref := range s.refs {
		v, err := ref.resolve()
		values, errs = append(values, v), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return values, nil
}

func (ref reference) resolve() (string, error) {
	if ref.env != "" {
		v := os.Getenv(ref.env)
		switch {
		case v == "":
			return "", fmt.Errorf("environment variable %s is not set, or empty", ref.env)
		case len(v) > maxSecretBytes:
			return "", fmt.Errorf("environment variable %s is longer than %d bytes", ref.env, maxSecretBytes)
		}
		return v, nil
	}
	body, err := readFile(ref.file, maxSecretBytes)
	if err != nil {
		return "", err
	}
	v := string(body)
	if line, ok := strings.CutSuffix(v, "\n"); ok {
		v = strings.TrimSuffix(line, "\r")
	}
	if v == "" {
		return "", fmt.Errorf("file %s is empty", ref.file)
	}
	return v, nil
}

// readFile reads a regular file of at most limit bytes. Opening does not wait for a writer of a named pipe.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, plainError(path, err)
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return nil, plainError(path, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("file %s is no regular file", path)
	}
	body, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, plainError(path, err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("file %s is larger than %d bytes", path, limit)
	}
	return body, nil
}

func plainError(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("file %s: %w", path, err)
}

// files are the files of s, to be watched.
func (s Secret) files() (paths []string) {
	for _, ref := range s.refs {
		if ref.file != "" {
			paths = append(paths, ref.file)
		}
	}
	return paths
}

const secretHint = "write {file: PATH} or {env: NAME}"

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secret is one reference, or a list of two where two is set.
func secret(most int) kind[Secret] {
	one := map[string]any{"oneOf": []any{member("file"), member("env")}}
	s := shape{word: "secret", hint: secretHint, schema: one, secret: true}
	if most > 1 {
		s.word = "secret or two"
		s.schema = map[string]any{"oneOf": []any{one, map[string]any{"type": "array", "minItems": most, "maxItems": most, "items": one}}}
	}
	return kind[Secret]{s, func(r *reader, at place, into *Secret) {
		switch n := at.node; {
		case n == nil || n.Kind == yaml.AliasNode:
		case n.Kind == yaml.SequenceNode && most == 1:
			r.silent(at, "is a list, and only one secret is of use here", secretHint)
		case n.Kind == yaml.SequenceNode && len(n.Content) != most:
			r.silent(at, fmt.Sprintf("is a list of %d secrets", len(n.Content)), secretHint+", or a list of two, tried in order")
		case n.Kind == yaml.SequenceNode:
			for i := range n.Content {
				r.reference(at.item(i), into)
			}
			if len(into.refs) == most && into.refs[0] == into.refs[1] {
				r.silent(at, "names one secret twice", "keep one")
			}
		default:
			r.reference(at, into)
		}
	}}
}

func member(name string) map[string]any {
	return map[string]any{"type": "object", "required": []string{name}, "additionalProperties": false,
		"properties": map[string]any{name: map[string]any{"type": "string", "minLength": 1}}}
}

// reference reads {file: PATH} or {env: NAME}, and repeats nothing of anything else.
func (r *reader) reference(at place, into *Secret) {
	n := at.node
	if n.Kind == yaml.AliasNode {
		return
	}
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 || n.Content[1].Kind != yaml.ScalarNode || n.Content[1].ShortTag() != "!!str" {
		reason := "is no reference to one secret"
		if n.Kind == yaml.ScalarNode {
			reason = "is written into the file"
		}
		r.silent(at, reason, secretHint+": a secret is never in this file")
		return
	}
	switch way, what := n.Content[0].Value, n.Content[1].Value; {
	case way == "file" && what != "":
		into.refs = append(into.refs, reference{file: r.file(what)})
	case way == "env" && envName.MatchString(what):
		into.refs = append(into.refs, reference{env: what})
	case way == "env":
		r.silent(at, "names no environment variable", "write the variable's name: letters, digits and _")
	default:
		r.silent(at, "is no reference to a secret", secretHint)
	}
}
