package interop

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/watchword-dev/watchword/driver/kafka"
	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// kafkaPair are two brokers with a controller that makes a leader of one that is not in sync, rather than none.
type kafkaPair struct{ brokers map[int32]*kafkaServer }

const (
	kafkaController = `process.roles=controller
node.id=1
listeners=CONTROLLER://%[1]s
`
	kafkaBroker = `process.roles=broker
node.id=%[4]d
listeners=PLAINTEXT://%[1]s
advertised.listeners=PLAINTEXT://%[1]s
inter.broker.listener.name=PLAINTEXT
`
	kafkaEach = `controller.quorum.voters=1@%[2]s
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[3]s/data
unclean.leader.election.enable=true
min.insync.replicas=1
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
replica.lag.time.max.ms=2000
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=2
background.threads=2
auto.create.topics.enable=false
`
)

func startKafkaPair(t *testing.T) *kafkaPair {
	t.Helper()
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	id[0] &= 0x7f // no leading -, which would be a flag
	cluster, controller := base64.RawURLEncoding.EncodeToString(id), freePort(t)
	p := &kafkaPair{brokers: map[int32]*kafkaServer{}}
	var all []*kafkaServer
	var formatting sync.WaitGroup
	for node := int32(1); node <= 3; node++ {
		k := &kafkaServer{address: controller, dir: t.TempDir()}
		text := kafkaController
		if node > 1 {
			k.address, text = freePort(t), kafkaBroker
			p.brokers[node] = k
		}
		config := write(t, k.dir, "server.properties", fmt.Sprintf(text+kafkaEach+"#%[4]d\n", k.address, controller, k.dir, node))
		format := kafkaJava(t, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", config)
		formatting.Go(func() {
			if out, err := format.CombinedOutput(); err != nil {
				t.Errorf("format: %v\n%s", err, out)
			}
		})
		all = append(all, k)
	}
	formatting.Wait()
	for i, k := range all {
		cmd := kafkaJava(t, "kafka.Kafka", filepath.Join(k.dir, "server.properties"))
		cmd.Dir = k.dir
		k.process = start(t, fmt.Sprint("kafka-", i+1), cmd)
	}
	for _, k := range all {
		k.process.ready(t, 2*time.Minute, listens(k.address))
	}
	await(t, "both brokers to serve", patience, func() error {
		got, err := all[1].metadata(t, "")
		if err == nil && len(got.Brokers) < 2 {
			err = fmt.Errorf("%d brokers", len(got.Brokers))
		}
		return err
	})
	return p
}

func (p *kafkaPair) addresses() (all []string) {
	for _, k := range p.brokers {
		all = append(all, k.address)
	}
	return all
}

// metadata is what a broker says of a topic; empty: of the cluster only.
func (k *kafkaServer) metadata(t *testing.T, topic string) (*kmsg.MetadataResponse, error) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.address), kgo.RetryTimeout(2*time.Second), kgo.RequestTimeoutOverhead(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ask := kmsg.NewPtrMetadataRequest()
	if topic != "" {
		one := kmsg.NewMetadataRequestTopic()
		one.Topic = kmsg.StringPtr(topic)
		ask.Topics = append(ask.Topics, one)
	}
	return ask.RequestWith(t.Context(), client)
}

// partition is the only one of a topic.
func (k *kafkaServer) partition(t *testing.T, topic string, is func(kmsg.MetadataResponseTopicPartition) error) (one kmsg.MetadataResponseTopicPartition) {
	t.Helper()
	await(t, "topic "+topic, patience, func() error {
		got, err := k.metadata(t, topic)
		if err != nil {
			return err
		}
		if len(got.Topics) != 1 || len(got.Topics[0].Partitions) != 1 {
			return fmt.Errorf("%+v", got.Topics)
		}
		one = got.Topics[0].Partitions[0]
		return is(one)
	})
	return one
}

// The leader dies while its replica is out of sync, and the replica, which missed the last write, takes its place: the
// topic is the same, and its last messages are others. That shows by leader epochs only.
//
// Covers: SIG-21
func TestBusKafkaFailover(t *testing.T) {
	t.Parallel()
	p := startKafkaPair(t)
	const topic = "failover"
	open := func(t *testing.T) revocation.Log {
		t.Helper()
		log, err := kafka.NewLog(kafka.LogConfig{Config: kafka.Config{Brokers: p.addresses(), Topic: topic, Replicas: 2}})
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	feedtest.Lose(t, feedtest.Engine{
		Open: open,
		Lose: func(t *testing.T, write func()) {
			plain, found := open(t), make(chan string, 16) // who reads without numbers of its own must be told as well
			ctx, cancel := context.WithCancel(t.Context())
			reading := make(chan struct{})
			var seen atomic.Int64
			reads := func(more int64) { // the nodes' beats go on
				t.Helper()
				await(t, "messages to be read", patience, func() error {
					if n := seen.Load(); n < more {
						return fmt.Errorf("%d of %d", n, more)
					}
					return nil
				})
			}
			go func() {
				defer close(reading)
				_ = plain.Read(ctx, "", func(revocation.Entry) error { seen.Add(1); return nil }, func(why string) { found <- why }, func(error) {})
			}()
			t.Cleanup(func() { cancel(); <-reading; _ = plain.Close() })
			reads(1)
			was := p.brokers[2].partition(t, topic, func(one kmsg.MetadataResponseTopicPartition) error {
				if len(one.ISR) != 2 {
					return fmt.Errorf("%d of 2 replicas are in sync", len(one.ISR))
				}
				return nil
			})
			other := 5 - was.Leader // they are 2 and 3
			leader, replica := p.brokers[was.Leader], p.brokers[other]
			replica.process.pause()
			leader.partition(t, topic, func(one kmsg.MetadataResponseTopicPartition) error {
				if len(one.ISR) != 1 || one.Leader != was.Leader {
					return fmt.Errorf("leader %d, %d in sync", one.Leader, len(one.ISR))
				}
				return nil
			})
			write()
			reads(seen.Load() + 2)
			leader.process.kill()
			replica.process.resume()
			replica.partition(t, topic, func(one kmsg.MetadataResponseTopicPartition) error {
				if one.Leader != other || one.LeaderEpoch <= was.LeaderEpoch {
					return fmt.Errorf("leader %d at epoch %d", one.Leader, one.LeaderEpoch)
				}
				return nil
			})
			select {
			case why := <-found:
				t.Logf("the log itself says: %s", why)
			case <-time.After(patience):
				t.Error("the log itself says nothing of what it lost")
			}
		},
	})
}
