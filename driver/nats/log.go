package nats

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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

// Log is a revocation.Log in JetStream: a stream, and a bucket for what is kept. Its identity is the instant at which
// the stream was created. JetStream acknowledges what its quorum stored; a single server is as durable as its
// sync_interval. Safe for concurrent use. Make it with NewLog.
type Log struct {
	c    LogConfig
	conn *link
	js   jetstream.JetStream

	mu   sync.Mutex
	made bool // the stream and the bucket were there once
	kv   jetstream.KeyValue
}

var _ revocation.Log = (*Log)(nil)

// NewLog makes a Log; it connects in the background.
func NewLog(c LogConfig) (*Log, error) {
	if c.Retention == 0 {
		c.Retention = Retention
	}
	if c.Retention < time.Minute {
		return nil, errors.New("nats: a retention below a minute")
	}
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn.Conn, jetstream.WithDefaultTimeout(askTimeout))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("nats: %w", err)
	}
	return &Log{c: c, conn: conn, js: js}, nil
}

func (l *Log) subject() string { return l.c.stream() + ".log" }

// prepare makes the stream and the bucket where they are not. What is there stays as its operator made it.
func (l *Log) prepare(ctx context.Context) (jetstream.KeyValue, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made {
		return l.kv, nil
	}
	replicas := max(1, l.c.Replicas)
	_, err := l.js.Stream(ctx, l.c.stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = l.js.CreateStream(ctx, jetstream.StreamConfig{Name: l.c.stream(), Subjects: []string{l.subject()},
			Description: "revocations that Watchword nodes share", Storage: jetstream.FileStorage, Replicas: replicas,
			MaxAge: l.c.Retention, MaxMsgSize: revocation.MaxRecordBytes, Duplicates: 2 * time.Second, DenyDelete: true, DenyPurge: true})
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node was faster
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", l.c.stream(), err)
	}
	name := l.c.stream() + "-kept"
	kv, err := l.js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = l.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, Description: "revocations that outlive the stream",
			Storage: jetstream.FileStorage, Replicas: replicas, History: 1, MaxValueSize: revocation.MaxRecordBytes + 8})
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = l.js.KeyValue(ctx, name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	l.kv, l.made = kv, true
	return kv, nil
}

// again is for what may have been deleted: the next use makes it anew.
func (l *Log) again(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		l.mu.Lock()
		l.made = false
		l.mu.Unlock()
	}
	return err
}

// Append implements revocation.Log.
func (l *Log) Append(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := l.prepare(ctx); err != nil {
		return l.conn.failed(ctx, err)
	}
	_, err := l.js.Publish(ctx, l.subject(), body, jetstream.WithRetryAttempts(0))
	return l.conn.failed(ctx, l.again(err))
}

// Keep implements revocation.Log. A key may hold any text.
func (l *Log) Keep(ctx context.Context, key string, body []byte, until time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	kv, err := l.prepare(ctx)
	if err != nil {
		return l.conn.failed(ctx, err)
	}
	value := append(binary.BigEndian.AppendUint64(nil, uint64(max(0, until.UnixMilli()))), body...)
	_, err = kv.Put(ctx, base64.RawURLEncoding.EncodeToString([]byte(key)), value)
	return l.conn.failed(ctx, l.again(err))
}

// Kept implements revocation.Log. What has been over for a minute is purged by whoever meets it.
func (l *Log) Kept(ctx context.Context, each func(key string, body []byte) error) error {
	prepared, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	kv, err := l.prepare(prepared)
	if err != nil {
		return l.conn.failed(ctx, err)
	}
	all, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return l.conn.failed(ctx, l.again(err))
	}
	defer func() { _ = all.Stop() }()
	var over []string
	silence := time.NewTimer(askTimeout)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-silence.C:
			return errors.New("nats: the bucket fell silent before its end")
		case e, open := <-all.Updates():
			if !open {
				return errors.New("nats: the bucket was closed before its end")
			}
			if e == nil { // the end of what was there
				for _, key := range over[:min(len(over), 1000)] {
					_ = kv.Purge(ctx, key)
				}
				return nil
			}
			silence.Reset(askTimeout)
			key, err := base64.RawURLEncoding.DecodeString(e.Key())
			if err != nil || len(e.Value()) < 8 {
				continue
			}
			until := int64(binary.BigEndian.Uint64(e.Value()))
			if now := time.Now(); now.UnixMilli() > until {
				if now.Add(-time.Minute).UnixMilli() > until {
					over = append(over, e.Key())
				}
				continue
			}
			if err := each(string(key), e.Value()[8:]); err != nil {
				return err
			}
		}
	}
}

// Read implements revocation.Log. A position is the stream's creation, the message's sequence and a
// digest of it: a server that lost its last message gives the same sequence to another one.
func (l *Log) Read(ctx context.Context, from string, each func(revocation.Entry) error, gap func(why string), failed func(err error)) error {
	r := &reading{log: l, each: each, gap: gap}
	if part := strings.Split(from, "/"); len(part) == 3 {
		r.id, r.digest = part[0], part[2]
		r.after, _ = strconv.ParseUint(part[1], 10, 64)
	}
	return revocation.Follow(ctx, r.follow, func(_ error) error {
		if l.conn.IsClosed() {
			return errors.New("nats: closed")
		}
		return nil
	}, func(err error) {
		if !errors.Is(err, errReconnected) && !errors.Is(err, errMoved) { // it goes on at once
			failed(l.conn.failed(ctx, err))
		}
	})
}

// reading is one Read: where it stands.
type reading struct {
	log    *Log
	each   func(revocation.Entry) error
	gap    func(why string)
	id     string // when the stream was created; empty: nothing was read
	after  uint64 // sequence of the last message; 0: from the oldest
	digest string // of it
}

// digest tells a message from another one under its sequence.
func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}

// A consumer shows that it lives every pulse. Next misses it after two of them and counts anew in every call, so each must
// last longer: a consumer can be lost with a server of the cluster that is not the one we are connected to. The server
// forgets one that nobody asks for idle.
const (
	pulse = 500 * time.Millisecond
	idle  = 30 * time.Second
)

// follow reads with one consumer until something fails. It counts what is delivered, so that what is lost on the way
// shows; who the stream is, and that it did not forget past us, is looked at whenever it begins anew and every second.
// The client's ordered consumer would begin anew by itself, and wait ten seconds for an answer that was lost.
func (r *reading) follow(ctx context.Context) error {
	connection := r.log.conn.Stats().Reconnects
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := r.log.prepare(ask); err != nil {
		return err
	}
	stream, err := r.log.js.Stream(ask, r.log.c.stream())
	if err != nil {
		return r.log.again(err)
	}
	if err := r.continuity(ask, stream); err != nil {
		return err
	}
	if r.after > 0 {
		last, err := stream.GetMsg(ask, r.after)
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && digest(last.Data) != r.digest {
			r.after = 0
			r.gap("the stream no longer holds what was read last")
			return errMoved
		} else if err != nil {
			return err
		}
	}
	consumer, err := stream.CreateConsumer(ask, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.after + 1,
		AckPolicy: jetstream.AckNonePolicy, InactiveThreshold: idle, MemoryStorage: true, Replicas: 1})
	if err != nil {
		return r.log.again(err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(512), jetstream.PullExpiry(10*time.Second), jetstream.PullHeartbeat(pulse), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	defer messages.Stop()
	looked := time.Now()
	for delivered := uint64(0); ; {
		wait, cancel := context.WithTimeout(ctx, 3*pulse)
		m, err := messages.Next(jetstream.NextContext(wait))
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.log.conn.Stats().Reconnects != connection { // the consumer goes on, but perhaps in an older store
			return errReconnected
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if time.Since(looked) >= pingEvery {
			ask, cancel := context.WithTimeout(ctx, askTimeout)
			err := r.continuity(ask, stream)
			cancel()
			if err != nil {
				return err
			}
			looked = time.Now()
		}
		if m == nil {
			continue
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if delivered++; meta.Sequence.Consumer != delivered {
			return errors.New("nats: something was lost on the way")
		}
		switch at := meta.Sequence.Stream; {
		case at <= r.after:
			return errors.New("nats: the stream went back")
		case at > r.after+1 && r.after > 0:
			r.gap("messages of the stream are missing")
			fallthrough
		default:
			r.after, r.digest = at, digest(m.Data())
		}
		if err := r.each(revocation.Entry{Position: r.id + "/" + strconv.FormatUint(r.after, 10) + "/" + r.digest, Body: m.Data()}); err != nil {
			return revocation.Final(err)
		}
	}
}

// What ends a consumer: its place is no more, or must be shown anew.
var (
	errMoved       = errors.New("nats: another stream, or an older state of it")
	errReconnected = errors.New("nats: connected anew")
)

// continuity shows that the stream is the one that was read and holds what follows, or is a gap.
func (r *reading) continuity(ctx context.Context, stream jetstream.Stream) error {
	info, err := stream.Info(ctx)
	if err != nil {
		return r.log.again(err)
	}
	id := strconv.FormatInt(info.Created.UnixNano(), 36)
	switch {
	case r.id == "":
		r.id = id
	case r.id != id:
		r.id, r.after = id, 0
		r.gap("another stream")
		return errMoved
	case info.State.LastSeq < r.after: // it was restored, or lost what it had acknowledged
		r.after = 0
		r.gap("the stream lost what it had acknowledged")
		return errMoved
	case r.after > 0 && info.State.FirstSeq > r.after+1:
		r.after = 0
		r.gap("the stream forgot what was not read yet")
		return errMoved
	}
	return nil
}

// Close implements revocation.Log.
func (l *Log) Close() error {
	l.conn.Close()
	return nil
}
