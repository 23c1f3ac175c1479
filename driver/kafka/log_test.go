package kafka

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// Covers: SIG-21
func TestLog(t *testing.T) {
	t.Parallel()
	feedtest.Run(t, func(t *testing.T) feedtest.Engine {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cluster.Close)
		open := func(t *testing.T) revocation.Log {
			l, err := NewLog(LogConfig{Config: Config{Brokers: cluster.ListenAddrs()}})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		return feedtest.Engine{
			Open: open,
			Lose: func(t *testing.T, write func()) { // somebody deletes the topic, and it is made anew
				write()
				l := open(t).(*Log)
				defer l.Close()
				ask := kmsg.NewPtrDeleteTopicsRequest()
				ask.TopicNames = []string{"watchword"}
				one := kmsg.NewDeleteTopicsRequestTopic()
				one.Topic = kmsg.StringPtr("watchword")
				ask.Topics = append(ask.Topics, one)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if _, err := ask.RequestWith(ctx, l.client); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := Config{Brokers: []string{"127.0.0.1:9092"}, Username: "u", Password: func() (string, error) { return "hunter2", nil }, Topic: "a.b"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{Brokers: []string{"kafka"}, Username: "u", Topic: "a b", Mechanism: "plain", Replicas: -1}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"host:port", "topic", "without a password", "needs TLS", "replicas"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported: %v", want, err)
		}
	}
}
