// Package app turns a file into a running Watchword: Parse, Build, Run. It is the only package that knows all others,
// and the file's keys are described in one table (keys.go).
package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/watchword-dev/watchword"
	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

const (
	maxConfigBytes = 1 << 20
	maxConfigDepth = 32
	maxTimeout     = 30 * time.Second // of one asking
)

// Config is a file, checked. Plain data: defaults are filled in, files are absolute, secrets are references. Treat it
// as read-only.
type Config struct {
	Path string // of the file, absolute
	Hash string // of the file's bytes, for watchword_config_info

	Issuers          []Issuer
	Freshness        watchword.Freshness // where neither a policy nor a caller has its own
	Cache            Cache
	Revocation       Revocation
	Policies         []watchword.Route
	Introspection    *Introspection // nil: no such door
	ForwardAuth      *ForwardAuth   // nil: no such door
	Events           *Events        // nil: no such door
	Log              Log
	DecisionLog      DecisionLog
	DeploymentSecret Secret     // zero: random for the life of the process
	Admin            Listen     // zero: none
	Operators        []Operator // of the admin API; nil: there is none

	Canaries []Canary

	warnings []string
	seen     snapshot // of Files, not younger than what was read of them
}

// Issuer is one authorization server.
type Issuer struct {
	Name, ID, Endpoint string // ours, its identifier (RFC 8414 §2), where it introspects; Endpoint empty: discovered
	ClientAuth         ClientAuth
	Prefixes           []string
	Timeout            time.Duration
	Skew, Leeway       time.Duration
	CA                 string // PEM file; empty: the system's
	Hint               string // token_type_hint: access_token or none
	MaxAgeHint         bool
	Quirks             watchword.Quirks
	Settle             time.Duration
	MaxTokenLife       time.Duration
	Selectors          map[string]string // declared selectors to claims
	Revocation         string            // where it revokes (RFC 7009); empty: discovered
	Covering           string            // the stream that may extend; empty: none
	JWKS               string            // where its keys are; empty: discovered from ID
	JWT                JWT
	Response           Response
	Guard              Guard
	Storm              Storm
}

// Guard is what stands before an authorization server.
type Guard struct {
	Retries           int
	RetryBudget       float64 // share of all questions
	MaxInFlight, Rate int
	Failures          float64 // share that opens the breaker, among at least Over
	Over              int
	Open              time.Duration
	HedgeAfter        time.Duration // zero: never
}

// Storm says when its inactive answers are doubted.
type Storm struct {
	Share   float64
	Within  time.Duration
	AtLeast int
}

// ClientAuth is how we authenticate to an authorization server; which fields count depends on Method. An empty Method
// is none written.
type ClientAuth struct {
	Method, ClientID     string
	Secret               Secret // client_secret_basic, client_secret_post, bearer
	PrivateKey           Secret // private_key_jwt
	KeyID, Alg, Audience string
	CertFile, KeyFile    string // tls_client_auth
}

// Cache bounds what is remembered.
type Cache struct {
	MaxBytes         int64
	InactiveTTL      time.Duration
	InactiveMaxBytes int64
	UnknownPerPeer   int // a second
	UnknownBurst     int
	RefreshAfter     float64 // share of the bound
	RefreshMinHits   int
	RefreshPerSecond int
	L2               *L2 // nil: nothing is shared
}

// Introspection is the RFC 7662 door.
type Introspection struct {
	Listen     Listen
	SocketMode uint32
	TLS        *TLS
	Paths      []string
	Callers    []Caller
	Forward    bool // the callers' own credentials go to the one issuer
	Signing    *Signing
}

// Caller may ask the introspection door. Policy is what it gets to see; its name is the client_id or the name.
type Caller struct {
	Policy   watchword.Policy
	ClientID string // empty: it sends Secret as a bearer token
	Secret   Secret
	Claims   []string    // shown besides active; nil: all
	Encrypt  *Encryption // nil: its answers are not encrypted
}

// ForwardAuth is the door for gateways.
type ForwardAuth struct {
	Listen     Listen
	SocketMode uint32
	TLS        *TLS
	Profile    string
	Headers    map[string]string // header to claim
	Trusted    []netip.Prefix    // nil on a unix socket: every peer
	PathPrefix string
	Realm      string
}

// TLS is a certificate with its key, in PEM files that are read again when they change.
type TLS struct{ Cert, Key string }

// Revocation bounds what is held against tokens, and says where it outlives a restart.
type Revocation struct {
	Log            string // a folder; empty: memory only
	MaxBytes       int64
	ReaskPerSecond int  // questions to one issuer that revocations cause
	Bus            *Bus // nil: one machine
}

// Log says how much goes to stderr, and how.
type Log struct{ Level, Format string }

// DecisionLog says which decisions are written, and where: stdout, stderr, none, or a file.
type DecisionLog struct{ To, Decisions string }

// Warnings names what is allowed and yet probably not meant, one line each.
func (c *Config) Warnings() []string { return slices.Clone(c.warnings) }

// Parse reads and checks a file, the files that it names and the secrets that it refers to. It touches no network. A
// file that cannot be read is a plain error; everything else that is wrong is reported at once, as Mistakes.
func Parse(path string) (*Config, error) {
	c, err := parse(path)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// parse also returns a Config that has mistakes, for the files that it names.
func parse(path string) (*Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	body, regular, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	c, r := decode(body, filepath.Dir(path))
	c.Path = path
	if c.seen = look(c.Files()); regular { // a pipe is read once
		c.seen[path] = sha256.Sum256(body)
	}
	c.linked(r)
	c.onDisk(r)
	if len(r.mistakes) == 0 {
		c.rehearse(r)
	}
	if len(r.mistakes) > 0 {
		return c, r.sorted()
	}
	return c, nil
}

// readConfig reads at most one byte more than a file may have.
func readConfig(path string) (body []byte, regular bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, plainError(path, err)
	}
	defer f.Close()
	if body, err = io.ReadAll(io.LimitReader(f, maxConfigBytes+1)); err != nil {
		return nil, false, plainError(path, err)
	}
	info, err := f.Stat()
	return body, err == nil && info.Mode().IsRegular() && len(body) <= maxConfigBytes, nil
}

// decode is Parse without files: dir is where relative ones are.
func decode(body []byte, dir string) (*Config, *reader) {
	c, r := new(Config), &reader{dir: dir, table: file.keys, written: map[string]*yaml.Node{}, faulty: map[string]bool{}}
	root := r.document(body)
	if root == nil {
		return c, r
	}
	r.plain(root)
	r.written[""] = root
	file.read(r, place{"", root}, c)
	if root.Kind == yaml.MappingNode {
		c.check(r)
	}
	sum := sha256.Sum256(body)
	c.Hash = hex.EncodeToString(sum[:6])
	return c, r
}

// document returns the root of the only document in body, or nil after it said why there is none.
func (r *reader) document(body []byte) *yaml.Node {
	switch {
	case len(body) > maxConfigBytes:
		r.silent(place{}, "is larger than 1 MiB", "a configuration is a few KiB: is this the right file?")
		return nil
	case !utf8.Valid(body):
		r.silent(place{}, "is not UTF-8", "save it as UTF-8 text")
		return nil
	}
	loader, err := yaml.NewLoader(strings.NewReader(string(body)), yaml.WithUniqueKeys(false),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxConfigDepth))))
	if err != nil {
		r.silent(place{}, err.Error(), "")
		return nil
	}
	var first, second yaml.Node
	switch err := loader.Load(&first); {
	case errors.Is(err, io.EOF):
		r.silent(place{}, "is empty", "`watchword config init` prints an example")
		return nil
	case err != nil:
		r.syntax(err)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		r.silent(place{"", &second}, "a second document", "one file holds one configuration: remove what follows ---")
	case !errors.Is(err, io.EOF):
		r.syntax(err)
	}
	return first.Content[0]
}

// syntax reports what the YAML library refuses. It repeats nothing of the file but a position.
func (r *reader) syntax(err error) {
	m := Mistake{Reason: "is no YAML", Fix: "mind indentation, quotes and brackets here"}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		m.Line, m.Column = load.Mark.Line, load.Mark.Column
		switch {
		case strings.Contains(load.Message, "anchor"):
			m.Reason, m.Fix = "an alias", "write the value itself: aliases are not followed"
		case strings.Contains(load.Message, "max depth"):
			m.Reason, m.Fix = fmt.Sprintf("is nested deeper than %d levels", maxConfigDepth), "no key needs that"
		}
	}
	r.mistakes = append(r.mistakes, m)
}

// sorted is what was found, in the order of the file.
func (r *reader) sorted() Mistakes {
	slices.SortStableFunc(r.mistakes, func(a, b Mistake) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.CompactFunc(r.mistakes, func(a, b Mistake) bool { return a == b })
}
