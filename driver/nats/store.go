package nats

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// What a bucket that we create looks like. An operator may create it beforehand in another way.
const (
	bucketLife  = time.Hour // after which the server forgets a value, however long it would live
	bucketBytes = 256 << 20
	headerBytes = 1 << 10 // what the server counts beside a value
)

// Store is a cache.Store in one JetStream key-value bucket, in the server's memory. Keys are a digest, values are
// sealed by who writes them, and each says how long it lives: servers before 2.11 know one life for all. It connects
// when it is first used, and again whenever it must. Make it with NewStore; Close it.
type Store struct {
	c      Config
	me     string // names the key that Clock writes
	bucket atomic.Pointer[jetstream.KeyValue]
	opened sync.Mutex // held while connecting; guards conn and closed
	conn   *link
	closed bool
}

var (
	_ cache.Store    = (*Store)(nil)
	_ cache.Clocked  = (*Store)(nil)
	_ cache.Noticing = (*Store)(nil)
)

// NewStore makes a Store and touches no network.
func NewStore(c Config) (*Store, error) {
	if c.Bucket == "" {
		c.Bucket = "watchword-answers"
	}
	return &Store{c: c, me: "clock." + rand.Text()}, c.Validate()
}

// Close gives the connection back.
func (s *Store) Close() {
	s.opened.Lock()
	defer s.opened.Unlock()
	s.closed = true
	if s.conn != nil {
		s.conn.Close()
	}
}

var errConnecting = errors.New("nats: not connected")

// kv returns the bucket. One caller opens it, and the others go without meanwhile.
func (s *Store) kv(ctx context.Context) (jetstream.KeyValue, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if kv := s.bucket.Load(); kv != nil {
		return *kv, nil
	}
	if !s.opened.TryLock() {
		return nil, errConnecting
	}
	defer s.opened.Unlock()
	if kv := s.bucket.Load(); kv != nil {
		return *kv, nil
	}
	if s.closed {
		return nil, nats.ErrConnectionClosed
	}
	if s.conn == nil {
		conn, err := s.c.connect()
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	js, err := jetstream.New(s.conn.Conn)
	if err != nil {
		return nil, err
	}
	kv, err := js.KeyValue(ctx, s.c.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: s.c.Bucket, Description: "answers that Watchwords share; sealed, and worth nothing once they are old",
			TTL: bucketLife, MaxBytes: bucketBytes, MaxValueSize: lifeBytes + cache.MaxEncodedItemBytes + headerBytes, Storage: jetstream.MemoryStorage, Replicas: max(1, s.c.Replicas),
		})
		if errors.Is(err, jetstream.ErrBucketExists) { // another host was faster
			kv, err = js.KeyValue(ctx, s.c.Bucket)
		}
	}
	if err != nil {
		return nil, s.conn.failed(ctx, err)
	}
	s.bucket.Store(&kv)
	return kv, nil
}

const (
	answers   = "answer."
	leases    = "lease."
	lifeBytes = 8 // before every value: how many milliseconds it lives from its creation at the server
)

func key(kind string, d cache.Digest) string { return kind + hex.EncodeToString(d[:]) }

func living(life time.Duration, body []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(life.Milliseconds())), body...)
}

// body is what an entry holds; nil: it is over, or nothing that living wrote.
func body(e jetstream.KeyValueEntry) []byte {
	v := e.Value()
	if len(v) < lifeBytes || len(v) > lifeBytes+cache.MaxEncodedItemBytes {
		return nil
	}
	const longest = uint64(365 * 24 * time.Hour / time.Millisecond)
	life := time.Duration(min(binary.BigEndian.Uint64(v), longest)) * time.Millisecond
	if watchword.Age(time.Now(), e.Created()) >= life {
		return nil
	}
	return v[lifeBytes:]
}

// Get implements cache.Store.
func (s *Store) Get(ctx context.Context, d cache.Digest) (*cache.Item, error) {
	kv, err := s.kv(ctx)
	if err != nil {
		return nil, err
	}
	item, _, err := read(ctx, kv, d)
	return item, err
}

func read(ctx context.Context, kv jetstream.KeyValue, d cache.Digest) (item *cache.Item, revision uint64, err error) {
	e, err := kv.Get(ctx, key(answers, d))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if item, err = cache.DecodeItem(body(e)); err != nil {
		return nil, e.Revision(), nil // over, or not ours
	}
	return item, e.Revision(), nil
}

// Put implements cache.Store. Who loses a race looks again.
func (s *Store) Put(ctx context.Context, d cache.Digest, item cache.Item, life time.Duration) error {
	kv, err := s.kv(ctx)
	if err != nil || life < time.Millisecond {
		return err
	}
	value := living(life, item.Encode())
	for {
		old, revision, err := read(ctx, kv, d)
		if err != nil || old != nil && watchword.Age(item.AsOf, old.AsOf) <= 0 {
			return err
		}
		if revision == 0 {
			_, err = kv.Create(ctx, key(answers, d), value)
		} else {
			_, err = kv.Update(ctx, key(answers, d), value, revision)
		}
		if !raced(err) {
			return err
		}
	}
}

// raced reports a write that came after another one.
func raced(err error) bool {
	e, is := errors.AsType[*jetstream.APIError](err)
	return errors.Is(err, jetstream.ErrKeyExists) || is && e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence
}

// Lease implements cache.Store.
func (s *Store) Lease(ctx context.Context, d cache.Digest, life time.Duration) (func(context.Context) error, error) {
	kv, err := s.kv(ctx)
	if err != nil {
		return nil, err
	}
	name, mine := key(leases, d), living(max(life, time.Millisecond), nil)
	revision, err := kv.Create(ctx, name, mine)
	if raced(err) {
		e, found := kv.Get(ctx, name)
		switch {
		case errors.Is(found, jetstream.ErrKeyNotFound): // given back just now: somebody asks again
			return nil, nil
		case found != nil:
			return nil, found
		case body(e) != nil:
			return nil, nil
		}
		if revision, err = kv.Update(ctx, name, mine, e.Revision()); raced(err) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		if err := kv.Delete(ctx, name, jetstream.LastRevision(revision)); err != nil && !raced(err) {
			return err
		}
		return nil
	}, nil
}

// Clock implements cache.Clocked: what the server says when it stored something for us.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	kv, err := s.kv(ctx)
	if err != nil {
		return time.Time{}, err
	}
	revision, err := kv.Put(ctx, s.me, nil)
	if err != nil {
		return time.Time{}, err
	}
	e, err := kv.GetRevision(ctx, s.me, revision)
	if err != nil {
		return time.Time{}, err
	}
	return e.Created(), nil
}

// Notice implements cache.Noticing.
func (s *Store) Notice(ctx context.Context, ready func(), changed func(cache.Digest)) error {
	kv, err := s.kv(ctx)
	if err != nil {
		return err
	}
	w, err := kv.Watch(ctx, answers+"*", jetstream.UpdatesOnly(), jetstream.IgnoreDeletes(), jetstream.MetaOnly())
	if err != nil {
		return err
	}
	defer func() { _ = w.Stop() }()
	ready()
	for {
		select {
		case e, more := <-w.Updates():
			if !more {
				return errors.New("nats: the watch ended")
			}
			if e == nil {
				continue
			}
			var d cache.Digest
			text := strings.TrimPrefix(e.Key(), answers)
			if n, err := hex.Decode(d[:], []byte(text[:min(len(text), 2*len(d))])); err == nil && n == len(d) && len(text) == 2*len(d) {
				changed(d)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
