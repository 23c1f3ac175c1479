package interop

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// binary is the one that WATCHWORD_BINARY names; else it is built from this tree, once for the whole run, into a
// folder that TestMain removes.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("WATCHWORD_BINARY"); path != "" {
		return path, nil
	}
	path := filepath.Join(buildDir, "watchword")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/watchword")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/watchword: %w\n%s", err, out)
	}
	return path, nil
})

var buildDir string

// TestMain lets all tests run at once: most of their time goes into waiting for servers to start and tokens to age.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "watchword-interop")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// daemon is a running `watchword serve`.
type daemon struct {
	*process
	config string // its file
}

// watchwordCommand is the binary with these arguments.
func watchwordCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(path, args...)
}

// serve runs Watchword with this configuration, whose admin listener is the address given, until it is ready.
func serve(t *testing.T, config, admin string, env ...string) *daemon {
	t.Helper()
	return serveFile(t, write(t, t.TempDir(), "watchword.yaml", config), admin, env...)
}

// serveFile is serve of a file that is there already.
func serveFile(t *testing.T, path, admin string, env ...string) *daemon {
	t.Helper()
	cmd := watchwordCommand(t, "serve", "--config", path)
	cmd.Env = append(os.Environ(), env...)
	w := &daemon{process: start(t, "watchword", cmd), config: path}
	w.ready(t, patience, answers("http://"+admin+"/readyz", http.StatusOK))
	return w
}
