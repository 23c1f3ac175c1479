package redis

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	password := func() (string, error) { return "hunter2", nil }
	for _, good := range []Config{
		{Address: "127.0.0.1:6379"},
		{Address: "a.example:6379, b.example:6379", Cluster: true},
		{Address: "[::1]:6379", Username: "u", Password: password, TLS: &tls.Config{}, Prefix: "ww.prod"},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good.Address, err)
		}
	}
	bad := Config{Address: "redis", Username: "u", Prefix: "a{b}"}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"host:port", "prefix", "without a password"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported: %v", want, err)
		}
	}
}

func TestClusterNames(t *testing.T) {
	t.Parallel()
	several := Config{Address: "a:1,b:1"}
	if err := several.Validate(); err == nil || !strings.Contains(err.Error(), "no cluster") {
		t.Errorf("several addresses without a cluster: %v", err)
	}
	for prefix, want := range map[string]string{"": "{watchword}:log", "ww.prod": "{ww.prod}:log", "a:": "{a:}:log"} {
		if got := (&Config{Prefix: prefix}).together("log"); got != want {
			t.Errorf("%q: %s, want %s", prefix, got, want)
		}
	}
	for _, one := range []struct{ at, said, want string }{
		{"a:1", "MOVED 3999 10.0.0.7:6381", "10.0.0.7:6381"}, {"a:1", "MOVED 3999 :6381", "a:6381"}, {"[::1]:1", "MOVED 3999 :6381", "[::1]:6381"},
		{"a:1", "ASK 3999 10.0.0.7:6381", ""}, {"a:1", "MOVED 3999 nonsense", ""}, {"a:1", "READONLY", ""},
		{"a:1", "MOVED", ""}, {"a:1", "MOVED 1", ""}, {"a:1", "MOVED 1 ?:6381", ""}, {"a:1", "MOVED 1 a:99999", ""}, {"a:1", "MOVED 1 fe80::1:6381", "[fe80::1]:6381"},
	} {
		if got := moved(one.at, one.said); got != one.want {
			t.Errorf("%s says %s: %q, want %q", one.at, one.said, got, one.want)
		}
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	for n := range 100 {
		if low, high := pause(n, 0), pause(n, 1); low < 25*time.Millisecond || high > 2*time.Second || low > high {
			t.Errorf("attempt %d: %v to %v", n, low, high)
		}
	}
}
