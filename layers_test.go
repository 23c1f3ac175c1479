package watchword_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-dev/watchword"
)

const module = "github.com/watchword-dev/watchword"

// room is one package as `go list` sees it, without its tests.
type room struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct{ Path string }
}

func (r room) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(r.ImportPath, module), "/")
}

// house lists every package of the module, and every one that they are made of.
func house(t *testing.T) (rooms []room, owner map[string]string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,Deps,Standard,Module", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	owner = map[string]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var r room
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return rooms, owner
		} else if err != nil {
			t.Fatal(err)
		}
		switch {
		case r.Standard || r.Module == nil:
		case r.Module.Path == module:
			rooms = append(rooms, r)
		default:
			owner[r.ImportPath] = r.Module.Path
		}
	}
}

// rings says what each package may import of the module; the longest name that fits decides.
var rings = map[string]struct {
	may    []string // exact names; a name with a final /… stands for what is below it
	reason string
}{
	"":                     {nil, "the judgement depends on nothing: it can be read, tested and trusted alone"},
	"cache":                {[]string{""}, "a cache that knew issuers or doors could decide by something else than the formula"},
	"issuer":               {[]string{""}, "what it needs of jose is a function in its Config, so that a library user links no signing"},
	"issuer/guard":         {[]string{""}, "it guards any Source; apart from issuer, whose users link no library by it"},
	"jose":                 {[]string{""}, "it signs and verifies; it does not know for whom"},
	"revocation":           {[]string{""}, "a ledger that knew caches or doors could be routed around"},
	"revocation/feedtest":  {[]string{"", "revocation"}, "it drives logs and feeds through their interfaces only"},
	"cache/storetest":      {[]string{"", "cache"}, "it drives stores through their interface only"},
	"driver/redis":         {[]string{"", "cache", "revocation"}, "a heavy client: whoever does not import it does not link it"},
	"driver/nats":          {[]string{"", "cache", "revocation"}, "a heavy client: whoever does not import it does not link it"},
	"driver/nats/embedded": {[]string{"revocation"}, "a server inside, behind a build tag: nothing but app may link it"},
	"driver/kafka":         {[]string{"", "revocation"}, "a heavy client: whoever does not import it does not link it"},
	"door/events":          {[]string{"", "door", "revocation"}, "doors never know each other: any of them can be removed"},
	"door/admin":           {[]string{"", "door", "revocation"}, "doors never know each other: any of them can be removed"},
	"door":                 {[]string{""}, "what doors share knows no door"},
	"door/introspection":   {[]string{"", "door"}, "doors never know each other: any of them can be removed"},
	"door/forwardauth":     {[]string{"", "door"}, "doors never know each other: any of them can be removed"},
	"door/middleware":      {[]string{"", "door"}, "doors never know each other: any of them can be removed"},
	"door/doortest":        {[]string{"", "door"}, "it drives doors through net/http only"},
	"observe":              {[]string{"", "door", "revocation"}, "it sees decisions and events, and changes none"},
	"authority":            {nil, "it stands for somebody else's server: it must not share our code's mistakes"},
	"app":                  {[]string{"", "cache", "issuer", "issuer/guard", "jose", "door", "door/introspection", "door/forwardauth", "door/middleware", "door/events", "door/admin", "revocation", "driver/redis", "driver/nats", "driver/nats/embedded", "driver/kafka", "observe", "internal/lane"}, "the only room that knows all others"},
	"drill":                {[]string{"authority"}, "it meets Watchword where its users do: at the doors"},
	"cmd/watchword":        {[]string{"", "app", "authority", "drill"}, "commands talk to the app, not to its parts"},
	"internal/lane":        {nil, "it serves any handler: what a request means is for the doors"},
	"internal/memnet":      {nil, "a network for tests knows nobody"},
	"internal/script":      {[]string{"", "cache", "revocation"}, "scenarios run against the judgement, the cache and the ledger as they are"},
}

func TestRings(t *testing.T) {
	t.Parallel()
	rooms, _ := house(t)
	if len(rooms) < 10 {
		t.Fatalf("only %d packages: go list did not see the house", len(rooms))
	}
	for _, r := range rooms {
		ring, known := rings[r.name()]
		if !known {
			t.Errorf("package %q is in no ring: say in layers_test.go what it may import, and why", r.name())
			continue
		}
		for _, i := range r.Imports {
			if i != module && !strings.HasPrefix(i, module+"/") {
				continue
			}
			if name := (room{ImportPath: i}).name(); !slices.Contains(ring.may, name) {
				t.Errorf("%s imports %q, which it may not: %s", r.ImportPath, name, ring.reason)
			}
		}
	}
}

// The judgement does no I/O, keeps no log and draws no weak random numbers.
func TestRootImportsNoWorld(t *testing.T) {
	t.Parallel()
	rooms, _ := house(t)
	for _, r := range rooms {
		if r.name() != "" {
			continue
		}
		for _, i := range r.Imports {
			if i == "net" || strings.HasPrefix(i, "net/") || i == "os" || strings.HasPrefix(i, "os/") || strings.HasPrefix(i, "log") || strings.HasPrefix(i, "math/rand") || strings.Contains(i, ".") {
				t.Errorf("the root package imports %s", i)
			}
		}
	}
}

// owners says which package imports each module; docs/dependencies.md says why.
var owners = map[string]string{
	"github.com/maypok86/otter/v2":        "cache",
	"github.com/failsafe-go/failsafe-go":  "issuer/guard",
	"github.com/go-jose/go-jose/v4":       "jose",
	"go.yaml.in/yaml/v4":                  "app",
	"github.com/fsnotify/fsnotify":        "app",
	"github.com/alecthomas/kong":          "cmd/watchword",
	"github.com/prometheus/client_golang": "observe",
	"github.com/luikyv/go-oidc":           "authority",
	"modernc.org/sqlite":                  "authority",
	"github.com/redis/rueidis":            "driver/redis",
	"github.com/nats-io/nats.go":          "driver/nats",
	"github.com/nats-io/nkeys":            "driver/nats",
	"github.com/nats-io/nats-server/v2":   "driver/nats/embedded",
	"github.com/twmb/franz-go":            "driver/kafka",
	"github.com/twmb/franz-go/pkg/kmsg":   "driver/kafka",
}

// light is what a library user links who imports the judgement, the cache, an issuer, the ledger and the net/http doors.
var light = map[string][]string{
	"": nil, "cache": {"github.com/maypok86/otter/v2"}, "issuer": nil, "jose": {"github.com/go-jose/go-jose/v4"}, "door": nil,
	"door/introspection": nil, "door/forwardauth": nil, "door/middleware": nil, "door/events": nil, "door/admin": nil, "revocation": nil,
}

func TestEveryModuleHasOneOwner(t *testing.T) {
	t.Parallel()
	rooms, owner := house(t)
	for _, r := range rooms {
		for _, i := range r.Imports {
			m, third := owner[i]
			if third && owners[m] != r.name() {
				t.Errorf("%s imports %s; its owner is %q (docs/dependencies.md)", r.ImportPath, m, owners[m])
			}
		}
		allowed, isLight := light[r.name()]
		for _, d := range r.Deps {
			if m, third := owner[d]; isLight && third && !slices.Contains(allowed, m) {
				t.Errorf("%s links %s: a library user would too", r.ImportPath, m)
			}
		}
	}
	docs, err := os.ReadFile("docs/dependencies.md")
	check(err)
	for m := range owners {
		if !strings.Contains(string(docs), m) {
			t.Errorf("docs/dependencies.md lacks %s", m)
		}
	}
}

// comparisons lists every line of the judgement and the cache that compares instants by one clock alone, and why it may.
var comparisons = map[string]string{
	"freshness.go: return max(now.Sub(then), math.MinInt64)":                                        "Age itself",
	"freshness.go: return max(now.Sub(then), wall)":                                                 "Age itself",
	"answer.go: a.ends(time.Unix(int64(math.Floor(f)), 0).Sub(a.asked)-max(0, a.offset), a.leeway)": "exp is a date: the wall at the asking says how long it is off; Age counts from there",
	"verifier.go: took = time.Since(at)":                                                            "what observers are told",
	"verifier.go: if took = time.Since(at); took > time.Millisecond {":                              "whether the clocks are worth a second look",
	"cache/budget.go: if len(b.peers) < maxPeers || now.Sub(b.swept) < time.Second {":               "a rate, no evidence",
	"cache/budget.go: return max(0, b.used-max(0, now.Sub(b.last).Seconds())*perSecond)":            "a rate, no evidence",
	"cache/sharedstate.go: mono, wall := now.Sub(c.at), now.Round(0).Sub(c.at.Round(0))":            "finds a step of the wall, which is where the clocks differ",
	"cache/sharedstate.go: early, late := theirs.Sub(now.Round(0)), theirs.Sub(before.Round(0))":    "a store's clock against our wall: no evidence",
	"cache/cache.go: if d := int64(now.Sub(c.start)); d > c.since.Load()+int64(tick) {":             "the table's clock: hygiene, every hit is weighed",
	"answer.go: return min(max(0, time.Unix(int64(math.Floor(f)), 0).Sub(e.Asked)), mostAhead)":     "iat is a date, written by a clock that is compared with our wall; Age counts from there",
	"answer.go: signed := min(0, time.Unix(a.iat, 0).Sub(e.Asked))":                                 "iat is a date: the wall at the verification says how long ago; Age counts from there",
}

// Evidence is as old as the worse of two clocks says, and only Age knows both, so nothing else in the judgement and
// the cache compares instants.
//
// Covers: CAC-11 T7
func TestOnlyAgeComparesInstants(t *testing.T) {
	t.Parallel()
	compares := regexp.MustCompile(`\.(Sub|Before|After|Compare)\(|\btime\.(Since|Until)\(`)
	found := map[string]bool{}
	sources(t, func(path, line string) {
		if d := filepath.Dir(path); (d == "." || d == "cache") && compares.MatchString(line) {
			if found[path+": "+line] = true; comparisons[path+": "+line] == "" {
				t.Errorf("%s: %s\ncompares instants by one clock: use watchword.Age, or list it with its reason", path, line)
			}
		}
	})
	for line := range comparisons {
		if !found[line] {
			t.Errorf("%s\nis listed, but is no more", line)
		}
	}
}

// fmt's %p skips the methods that redact (T18), and vet does not mind.
//
// Covers: T18
func TestNoPointerVerb(t *testing.T) {
	t.Parallel()
	verb := regexp.MustCompile(`%[-+# 0-9.\[\]*]*p`)
	sources(t, func(path, line string) {
		if verb.MatchString(line) {
			t.Errorf("%s: %s\nprints a pointer: of a token that is the token", path, line)
		}
	})
}

// sources calls f with every line of code of the product, without comments.
func sources(t *testing.T, f func(path, line string)) {
	t.Helper()
	n := 0
	check(filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "interop" || d.Name() == "tools"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		body, err := os.ReadFile(path)
		for line := range strings.Lines(string(body)) {
			n++
			code, _, _ := strings.Cut(line, "//")
			f(path, strings.TrimSpace(code))
		}
		return err
	}))
	if n < 1000 {
		t.Fatalf("only %d lines were seen", n)
	}
}

// A file that cannot be read in one sitting is two files.
func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	check(filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		body, err := os.ReadFile(path)
		if n := strings.Count(string(body), "\n"); n > 500 {
			t.Errorf("%s has %d lines; want at most 500", path, n)
		}
		return err
	}))
}

// Whoever is paged finds a heading for every Reason in the runbooks.
func TestEveryReasonHasARunbook(t *testing.T) {
	t.Parallel()
	body, err := os.ReadFile("docs/runbooks.md")
	check(err)
	for _, r := range allReasons() {
		if !strings.Contains(string(body), "\n## "+r+"\n") {
			t.Errorf("docs/runbooks.md has no heading %q", r)
		}
	}
}

func allReasons() (words []string) {
	for _, r := range watchword.Reasons() {
		words = append(words, r.String())
	}
	return words
}
