package kafka

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/watchword-dev/watchword/revocation"
)

// Retention is how long the log keeps a message where LogConfig says nothing. It must be longer than any answer lives
// that a revalidate event may concern; everything else is kept beside the log.
const Retention = time.Hour

// LogConfig makes a Log.
type LogConfig struct {
	Config
	Retention time.Duration // 0: Retention
}

// Log is a revocation.Log in Kafka: partition 0 of a topic, and a compacted topic for what is kept. Its identity is the
// topic's id and its number of partitions; leader epochs show a truncation. Kafka acknowledges what every replica in
// sync has: min.insync.replicas of the topic says how many those are at least, and with 1 a failover can lose. Safe for
// concurrent use. Make it with NewLog.
type Log struct {
	c      LogConfig
	client *kgo.Client // writes and asks; each Read has its own

	mu   sync.Mutex
	made bool
}

var _ revocation.Log = (*Log)(nil)

// NewLog makes a Log; it connects when it is first used.
func NewLog(c LogConfig) (*Log, error) {
	if c.Retention == 0 {
		c.Retention = Retention
	}
	if c.Retention < time.Minute {
		return nil, errors.New("kafka: a retention below a minute")
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	return &Log{c: c, client: client}, nil
}

// prepare makes the topics where they are not. What is there stays as its operator made it.
func (l *Log) prepare(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made {
		return nil
	}
	ask := kmsg.NewPtrCreateTopicsRequest()
	ask.TimeoutMillis = int32(askTimeout.Milliseconds())
	add := func(name string, configs map[string]string) {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, 1, -1
		if l.c.Replicas > 0 {
			t.ReplicationFactor = int16(l.c.Replicas)
		}
		for key, value := range configs {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = key, kmsg.StringPtr(value)
			t.Configs = append(t.Configs, c)
		}
		ask.Topics = append(ask.Topics, t)
	}
	add(l.c.topic(), map[string]string{"cleanup.policy": "delete", "retention.ms": strconv.FormatInt(l.c.Retention.Milliseconds(), 10)})
	add(l.c.kept(), map[string]string{"cleanup.policy": "compact"})
	got, err := ask.RequestWith(ctx, l.client)
	if err != nil {
		return l.c.explain(err)
	}
	for _, t := range got.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return l.c.explain(fmt.Errorf("topic %s: %w", t.Topic, err))
		}
	}
	l.made = true
	return nil
}

// produce writes one record and returns its offset once every replica in sync has it.
func (l *Log) produce(ctx context.Context, r *kgo.Record) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := l.prepare(ctx); err != nil {
		return 0, err
	}
	done, err := l.client.ProduceSync(ctx, r).First()
	if err != nil {
		if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
			l.mu.Lock()
			l.made = false
			l.mu.Unlock()
			l.client.PurgeTopicsFromProducing(r.Topic) // it knows it by an id that is no more
		}
		return 0, l.c.explain(err)
	}
	return done.Offset, nil
}

// Append implements revocation.Log.
func (l *Log) Append(ctx context.Context, body []byte) error {
	_, err := l.produce(ctx, &kgo.Record{Topic: l.c.topic(), Value: body})
	return err
}

// Keep implements revocation.Log.
func (l *Log) Keep(ctx context.Context, key string, body []byte, until time.Time) error {
	value := append(binary.BigEndian.AppendUint64(nil, uint64(max(0, until.UnixMilli()))), body...)
	_, err := l.produce(ctx, &kgo.Record{Topic: l.c.kept(), Key: []byte("k" + key), Value: value})
	return err
}

// Kept implements revocation.Log. It writes a mark and reads until it finds it. What has been over for a minute is
// buried by whoever meets it.
func (l *Log) Kept(ctx context.Context, each func(key string, body []byte) error) error {
	end, err := l.produce(ctx, &kgo.Record{Topic: l.c.kept(), Key: []byte("m"), Value: []byte("end")})
	if err != nil {
		return err
	}
	client, err := l.c.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.c.kept(): {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return err
	}
	defer client.Close()
	// The last value of a key counts, and a log holds older ones until it is compacted: what is not over is small.
	kept := map[string][]byte{}
	over := map[string]bool{}
	for at := int64(-1); at < end; {
		wait, cancel := context.WithTimeout(ctx, 2*askTimeout)
		got := client.PollFetches(wait)
		cancel()
		if err := got.Err0(); err != nil {
			return l.c.explain(err)
		}
		for _, e := range got.Errors() {
			return l.c.explain(e.Err)
		}
		got.EachRecord(func(r *kgo.Record) {
			if at = r.Offset; len(r.Key) == 0 || r.Key[0] != 'k' {
				return
			}
			key := string(r.Key[1:])
			delete(kept, key)
			delete(over, key)
			if len(r.Value) < 8 {
				return
			}
			until := int64(binary.BigEndian.Uint64(r.Value))
			switch now := time.Now(); {
			case now.UnixMilli() <= until:
				kept[key] = r.Value[8:]
			case now.Add(-time.Minute).UnixMilli() > until && len(over) < 1000:
				over[key] = true
			}
		})
	}
	for key := range over {
		if _, err := l.produce(ctx, &kgo.Record{Topic: l.c.kept(), Key: []byte("k" + key)}); err != nil {
			break // the next one does it
		}
	}
	for key, body := range kept {
		if err := each(key, body); err != nil {
			return err
		}
	}
	return nil
}

// Read implements revocation.Log. A position is the topic's identity, the message's offset and its leader epoch.
func (l *Log) Read(ctx context.Context, from string, each func(revocation.Entry) error, gap func(why string), failed func(err error)) error {
	r := &reading{log: l, each: each, gap: gap, after: -1, epoch: -1}
	if part := strings.Split(from, "/"); len(part) == 3 {
		offset, err := strconv.ParseInt(part[1], 10, 64)
		epoch, err2 := strconv.ParseInt(part[2], 10, 32)
		if err == nil && err2 == nil {
			r.id, r.after, r.epoch = part[0], offset, int32(epoch)
		}
	}
	return revocation.Follow(ctx, r.follow, func(err error) error {
		if errors.Is(err, kgo.ErrClientClosed) {
			return err
		}
		return nil
	}, func(err error) {
		if !errors.Is(err, errMoved) { // it goes on at once
			failed(err)
		}
	})
}

// reading is one Read: where it stands.
type reading struct {
	log   *Log
	each  func(revocation.Entry) error
	gap   func(why string)
	id    string // topic id and number of partitions; empty: nothing was read
	after int64  // offset of the last message; -1: from the oldest
	epoch int32  // its leader's
}

// follow reads with one client until something fails.
func (r *reading) follow(ctx context.Context) error {
	topic := r.log.c.topic()
	if err := r.continuity(ctx); err != nil {
		return err
	}
	at := kgo.NewOffset().AtStart()
	if r.after >= 0 {
		at = kgo.NewOffset().At(r.after + 1).WithEpoch(r.epoch)
	}
	client, err := r.log.c.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: at}}))
	if err != nil {
		return err
	}
	defer client.Close()
	looked := time.Now()
	for {
		wait, cancel := context.WithTimeout(ctx, lookEvery)
		got := client.PollFetches(wait)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range got.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return r.failed(e.Err)
			}
		}
		if time.Since(looked) >= lookEvery {
			if err := r.continuity(ctx); err != nil {
				return err
			}
			looked = time.Now()
		}
		for it := got.RecordIter(); !it.Done(); {
			m := it.Next()
			if r.after >= 0 && m.Offset != r.after+1 {
				r.gap("messages of the topic are missing")
			}
			r.after, r.epoch = m.Offset, m.LeaderEpoch
			p := r.id + "/" + strconv.FormatInt(r.after, 10) + "/" + strconv.FormatInt(int64(r.epoch), 10)
			if err := r.each(revocation.Entry{Position: p, Body: m.Value}); err != nil {
				return revocation.Final(err)
			}
		}
	}
}

// errMoved ends a client whose place is no more.
var errMoved = errors.New("kafka: another topic, or an older state of it")

// failed tells a lost place from a lost connection.
func (r *reading) failed(err error) error {
	var loss *kgo.ErrDataLoss
	if errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange) {
		r.after, r.epoch = -1, -1
		r.gap("the topic was truncated, or forgot what was not read yet")
		return errMoved
	}
	return r.log.c.explain(err)
}

// continuity shows that the topic is the one that was read, or is a gap.
func (r *reading) continuity(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := r.log.prepare(ctx); err != nil {
		return err
	}
	ask := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(r.log.c.topic())
	ask.Topics = append(ask.Topics, t)
	got, err := ask.RequestWith(ctx, r.log.client)
	if err != nil {
		return r.log.c.explain(err)
	}
	if len(got.Topics) != 1 {
		return errors.New("kafka: it tells nothing about the topic")
	}
	if err := kerr.ErrorForCode(got.Topics[0].ErrorCode); err != nil {
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			r.log.mu.Lock()
			r.log.made = false
			r.log.mu.Unlock()
		}
		return r.log.c.explain(err)
	}
	id := hex.EncodeToString(got.Topics[0].TopicID[:]) + "." + strconv.Itoa(len(got.Topics[0].Partitions))
	switch {
	case r.id == "":
		r.id = id
	case r.id != id:
		r.id, r.after, r.epoch = id, -1, -1
		r.gap("another topic, or one with another number of partitions")
		return errMoved
	}
	return nil
}

// Close implements revocation.Log.
func (l *Log) Close() error {
	l.client.Close()
	return nil
}
