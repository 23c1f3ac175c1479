package interop

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for a server that should answer at once but shares two cores with everybody else.
const patience = 30 * time.Second

// process is a real server, a child of one test: it is stopped when that test ends, with everything it started.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string        // file with its standard output and error
	exited chan struct{} // closed when it is gone
}

// start runs cmd in a process group of its own. Its log is shown if t fails.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s does not start (interop/setup installs it): %v", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log.Name(), exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, p.tail(3000))
		}
	})
	return p
}

// stop ends the process and its whole group: politely, then not.
func (p *process) stop() {
	group := -p.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // also what a leader that is gone has left behind
	<-p.exited
}

func (p *process) tail(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-n):])
}

// ready waits until check returns nil, and fails at once if the process has ended.
func (p *process) ready(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	await(t, p.name+" to be ready", within, func() error {
		select {
		case <-p.exited:
			t.Fatalf("%s ended before it was ready", p.name)
		default:
		}
		return check()
	})
}

// await polls until check returns nil; after within it fails with check's last words.
func await(t *testing.T, what string, within time.Duration, check func() error) {
	t.Helper()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", within, what, err)
		}
	}
}

// answers is a check for ready: GET url answers with one of the statuses.
func answers(url string, statuses ...int) func() error {
	client := &http.Client{Timeout: 5 * time.Second}
	return func() error {
		r, err := client.Get(url)
		if err != nil {
			return err
		}
		r.Body.Close()
		for _, want := range statuses {
			if r.StatusCode == want {
				return nil
			}
		}
		return fmt.Errorf("GET %s: %s", url, r.Status)
	}
}

// listens is a check for ready: address (host:port or a socket's path) takes a connection.
func listens(address string) func() error {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	return func() error {
		c, err := net.DialTimeout(network, address, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

var lastPort atomic.Int32

// freePort returns a loopback address that nobody listens on. It lies below the ephemeral range, so that no outgoing
// connection can take it before its server does, and no two tests of a run get the same.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := 20000 + (os.Getpid()*37+int(lastPort.Add(1)))%12000
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port between 20000 and 32000")
	return ""
}

// socketDir is a folder with a name short enough for unix sockets, which t.TempDir's is not always.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ww")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// installed is the folder that interop/setup fills.
func installed(t *testing.T, path ...string) string {
	t.Helper()
	dir := os.Getenv("WATCHWORD_INTEROP_CACHE")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(home, ".cache", "watchword-interop")
	}
	return filepath.Join(append([]string{dir}, path...)...)
}

// command is exec.Command for a server from Debian, which may live in an sbin that is not on the PATH.
func command(name string, args ...string) *exec.Cmd {
	if path, err := exec.LookPath(name); err == nil {
		return exec.Command(path, args...)
	}
	return exec.Command(filepath.Join("/usr/sbin", name), args...)
}

// root is the folder of the product.
func root(t *testing.T) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal(errors.New("no caller"))
	}
	return filepath.Dir(filepath.Dir(file))
}

// deployed returns a file of deploy/ with its example addresses replaced, pairs of old and new. An old text that the
// file lacks is a failure: then the file and its test have drifted apart.
func deployed(t *testing.T, path string, pairs ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "deploy", path))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			t.Fatalf("deploy/%s has no %q to replace", path, pairs[i])
		}
	}
	return strings.NewReplacer(pairs...).Replace(string(text))
}

// write puts text into a file and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
