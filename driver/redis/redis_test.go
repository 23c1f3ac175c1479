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

func TestPause(t *testing.T) {
	t.Parallel()
	for n := range 100 {
		if low, high := pause(n, 0), pause(n, 1); low < 25*time.Millisecond || high > 2*time.Second || low > high {
			t.Errorf("attempt %d: %v to %v", n, low, high)
		}
	}
}
