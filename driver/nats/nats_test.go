package nats

import (
	"strings"
	"testing"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, good := range []Config{
		{URL: "nats://127.0.0.1:4222"},
		{URL: "tls://a.example:4222,tls://b.example:4222", Username: "u", Password: func() (string, error) { return "hunter2", nil }, Stream: "ww", Bucket: "b", Replicas: 3},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("%s: %v", good.URL, err)
		}
	}
	bad := Config{URL: "nats://u:hunter2@127.0.0.1:4222", Username: "u", Stream: "a.b", Bucket: "a b", Replicas: 9}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"holds credentials", "stream", "bucket", "without a password", "replicas"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the password is in the error: %v", err)
	}
	for _, url := range []string{"", "http://a:1", "nats://", "nats://a/x", "nats://a:1,"} {
		if err := (&Config{URL: url}).Validate(); err == nil {
			t.Errorf("%q is accepted", url)
		}
	}
}
