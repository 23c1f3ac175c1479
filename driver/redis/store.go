package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-dev/watchword/cache"
)

// Store is a cache.Store in one Redis, or spread over a cluster. Keys are the prefix and a digest, values are sealed by
// who writes them, and each has the life that it is worth. It connects when it is first used, and again whenever it
// must. Make it with NewStore; Close it.
type Store struct {
	c      Config
	client atomic.Pointer[rueidis.Client] // nil: not connected
	dialed sync.Mutex                     // held while connecting
	closed atomic.Bool
}

var (
	_ cache.Store    = (*Store)(nil)
	_ cache.Clocked  = (*Store)(nil)
	_ cache.Noticing = (*Store)(nil)
)

// NewStore makes a Store and touches no network.
func NewStore(c Config) (*Store, error) { return &Store{c: c}, c.Validate() }

// Close gives the connections back.
func (s *Store) Close() {
	s.closed.Store(true)
	s.dialed.Lock()
	defer s.dialed.Unlock()
	if c := s.client.Load(); c != nil {
		(*c).Close()
	}
}

var errConnecting = errors.New("redis: not connected")

// connected returns the client. One caller connects, and the others go without meanwhile.
func (s *Store) connected(ctx context.Context) (rueidis.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c := s.client.Load(); c != nil {
		return *c, nil
	}
	if !s.dialed.TryLock() {
		return nil, errConnecting
	}
	defer s.dialed.Unlock()
	if c := s.client.Load(); c != nil {
		return *c, nil
	}
	if s.closed.Load() {
		return nil, rueidis.ErrClosing
	}
	c, err := s.c.dialWhole(s.c.whole())
	if err != nil {
		return nil, err
	}
	s.client.Store(&c)
	return c, nil
}

// failed says what err of a command is.
func (s *Store) failed(err error) error {
	if err == nil {
		return nil
	}
	return s.c.explain(s.c.Address, err)
}

// survive makes an error of a panic: the client reads where a node of a cluster points (MOVED, ASK) without looking
// whether it points anywhere.
func survive(err *error) {
	if recover() != nil {
		*err = errors.New("redis: a node points nowhere")
	}
}

const (
	answers = "answer:"
	leases  = "lease:"
)

func (s *Store) key(kind string, d cache.Digest) string {
	return s.c.key(kind + hex.EncodeToString(d[:]))
}

// Get implements cache.Store. It reads no more than an item can be, whatever somebody has put there.
func (s *Store) Get(ctx context.Context, key cache.Digest) (_ *cache.Item, err error) {
	defer survive(&err)
	c, err := s.connected(ctx)
	if err != nil {
		return nil, err
	}
	b, err := c.Do(ctx, c.B().Getrange().Key(s.key(answers, key)).Start(0).End(cache.MaxEncodedItemBytes).Build()).AsBytes()
	if e, is := rueidis.IsRedisErr(err); is && strings.HasPrefix(e.Error(), "WRONGTYPE") {
		return nil, nil
	}
	if err != nil || len(b) == 0 {
		return nil, s.failed(err)
	}
	item, err := cache.DecodeItem(b)
	if err != nil {
		return nil, nil // not ours
	}
	return item, nil
}

// put keeps the younger of two items in one step. The head is text of fixed length, so digits compare as numbers in
// every locale. What is no item is overwritten.
var put = rueidis.NewLuaScript(`
local old = redis.pcall('GETRANGE', KEYS[1], 0, 20)
if type(old) == 'string' and string.match(old, '^[0-9]+[ai]$') and #old == 21 and string.sub(old, 1, 20) >= string.sub(ARGV[1], 1, 20) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// Put implements cache.Store.
func (s *Store) Put(ctx context.Context, key cache.Digest, item cache.Item, life time.Duration) (err error) {
	defer survive(&err)
	c, err := s.connected(ctx)
	if err != nil || life < time.Millisecond {
		return err
	}
	return s.failed(put.Exec(ctx, c, []string{s.key(answers, key)}, []string{rueidis.BinaryString(item.Encode()), strconv.FormatInt(life.Milliseconds(), 10)}).Error())
}

// release gives back a lease that is still ours.
var release = rueidis.NewLuaScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`)

// Lease implements cache.Store.
func (s *Store) Lease(ctx context.Context, key cache.Digest, life time.Duration) (_ func(context.Context) error, err error) {
	defer survive(&err)
	c, err := s.connected(ctx)
	if err != nil {
		return nil, err
	}
	name, mine := s.key(leases, key), rand.Text()
	err = c.Do(ctx, c.B().Set().Key(name).Value(mine).Nx().PxMilliseconds(max(1, life.Milliseconds())).Build()).Error()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	if err != nil {
		return nil, s.failed(err)
	}
	return func(ctx context.Context) (err error) {
		defer survive(&err)
		return release.Exec(ctx, c, []string{name}, []string{mine}).Error()
	}, nil
}

// Clock implements cache.Clocked (TIME).
func (s *Store) Clock(ctx context.Context) (_ time.Time, err error) {
	defer survive(&err)
	c, err := s.connected(ctx)
	if err != nil {
		return time.Time{}, err
	}
	now, err := c.Do(ctx, c.B().Time().Build()).AsIntSlice()
	if err != nil {
		return time.Time{}, s.failed(err)
	}
	if len(now) != 2 {
		return time.Time{}, errors.New("redis: TIME answered something else")
	}
	return time.Unix(now[0], now[1]*1000), nil
}

var errLost = errors.New("redis: the connection was lost, and notices with it")

// Notice implements cache.Noticing by server-assisted invalidation (CLIENT TRACKING, BCAST) on a connection of its own.
// A client that lost its connection does not ask for invalidations again before its next command, so one is sent every
// half second; and it hears of a loss, or of FLUSHALL, by an invalidation of nothing.
func (s *Store) Notice(ctx context.Context, ready func(), changed func(cache.Digest)) error {
	prefix := s.c.key(answers)
	lost := make(chan struct{}, 1)
	o := s.c.whole()
	o.DisableCache = false
	o.CacheSizeEachConn = 1 << 10 // nothing is cached: the least it takes
	o.PipelineMultiplex = -1      // one connection, so that each notice comes once
	o.ClientTrackingOptions = []string{"PREFIX", prefix, "BCAST"}
	o.OnInvalidations = func(names []rueidis.RedisMessage) {
		if names == nil {
			select {
			case lost <- struct{}{}:
			default:
			}
		}
		for i := range names {
			if name, err := names[i].ToString(); err == nil {
				if d, is := digest(name, prefix); is {
					changed(d)
				}
			}
		}
	}
	c, err := s.c.dialWhole(o)
	if err != nil {
		return err
	}
	defer c.Close()
	for first := true; ; first = false {
		if err := pingAll(ctx, c); err != nil {
			return s.failed(err)
		}
		if first {
			ready()
		}
		select {
		case <-lost:
			return errLost
		case <-time.After(pingEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pingAll pings the server, or every node of a cluster: each tells of its own keys, to who is connected.
func pingAll(ctx context.Context, c rueidis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	nodes := c.Nodes()
	errs := make(chan error, len(nodes))
	for _, one := range nodes {
		go func() { errs <- one.Do(ctx, one.B().Ping().Build()).Error() }()
	}
	var all []error
	for range nodes {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// digest reads a key that we wrote.
func digest(name, prefix string) (d cache.Digest, ok bool) {
	if len(name) != len(prefix)+2*len(d) || name[:len(prefix)] != prefix {
		return d, false
	}
	_, err := hex.Decode(d[:], []byte(name[len(prefix):]))
	return d, err == nil
}
