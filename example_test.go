package watchword_test

import (
	"log"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/door/middleware"
	"github.com/watchword-dev/watchword/issuer"
)

var (
	endpoint = "https://as.example/introspect"
	orders   = http.NotFoundHandler()
)

func secret() ([]string, error) { return []string{"secret"}, nil }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Protect a handler. Answers are remembered for 30 seconds; every request is judged anew.
func Example() {
	as, err := issuer.New(issuer.Config{Name: "main", IntrospectionEndpoint: endpoint, Auth: issuer.ClientSecretBasic("rs", secret)})
	check(err)
	memory, err := cache.New(cache.Config{})
	check(err)
	v, err := watchword.New(watchword.Config{
		Source:  memory.Over(as, 30*time.Second),
		Issuers: []watchword.Issuer{as.Shape()},
		Routes: []watchword.Route{{Policy: watchword.Policy{Name: "orders", Scopes: []string{"orders:read"}, Audience: []string{"https://api.example"},
			Freshness: watchword.Freshness{MaxStaleness: 30 * time.Second}}}},
	})
	check(err)
	api := middleware.Protect(v, orders)

	_ = http.Server{Handler: api}
	memory.Close()
	// Output:
}

// The README's example is Example, line by line.
func TestReadmeExampleIsCompiled(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	check(err)
	source, err := os.ReadFile("example_test.go")
	check(err)
	_, block, _ := strings.Cut(string(readme), "```go\n")
	block, _, _ = strings.Cut(block, "```")
	if strings.TrimSpace(block) == "" {
		t.Fatal("the README has no Go example")
	}
	for line := range strings.Lines(block) {
		if strings.TrimSpace(line) != "" && !strings.Contains(string(source), "\t"+line) {
			t.Errorf("the README's example has a line that Example has not:\n%s", line)
		}
	}
}
