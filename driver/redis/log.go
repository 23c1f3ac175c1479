package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-dev/watchword/revocation"
)

// Retention is how long the log keeps a message where LogConfig says nothing. It must be longer than any answer lives
// that a revalidate event may concern; everything else is kept beside the log.
const Retention = time.Hour

// LogConfig makes a Log.
type LogConfig struct {
	Config
	Retention time.Duration     // 0: Retention
	Replicas  int               // how many replicas must have a message before it counts (WAIT); 0: none
	Warn      func(what string) // what an operator should mend; nil: nobody is told
}

// Log is a revocation.Log in one Redis: a stream, a hash of what is kept, and when that is over. Its identity is the
// server's replication id: a restart or a failover is another log, as far as anybody can show, and so a gap. In a
// cluster all of it lies in one slot, so one node has it; when the slot moves, the next one's is another log. Redis
// acknowledges before it is durable unless it runs with appendfsync always; Replicas narrows what a failover can lose.
// Safe for concurrent use. Make it with NewLog.
type Log struct {
	c LogConfig

	mu     sync.Mutex
	client rueidis.Client // nil: not connected yet, or given up
	tried  int            // how often, to begin with another seed of a cluster
	closed bool
}

var _ revocation.Log = (*Log)(nil)

// NewLog makes a Log; it connects when it is first used.
func NewLog(c LogConfig) (*Log, error) {
	if c.Retention == 0 {
		c.Retention = Retention
	}
	if c.Retention < time.Minute || c.Replicas < 0 {
		return nil, errors.New("redis: a retention below a minute, or a negative number of replicas")
	}
	return &Log{c: c}, c.Validate()
}

// One call each, so that the server's clock decides what is old. redis.call('TIME') is in seconds and microseconds.
const (
	appendScript = `
local now = redis.call('TIME')[1]
return redis.call('XADD', KEYS[1], 'MINID', '~', string.format('%d-0', (now - ARGV[1]) * 1000), '*', 'b', ARGV[2])`
	keepScript = `
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', redis.call('TIME')[1], 'LIMIT', 0, 100)
if #over > 0 then
  redis.call('HDEL', KEYS[1], unpack(over))
  redis.call('ZREM', KEYS[2], unpack(over))
end
return 1`
)

// Append implements revocation.Log.
func (l *Log) Append(ctx context.Context, body []byte) error {
	return l.write(ctx, appendScript, []string{l.c.together("log")}, strconv.FormatInt(int64(l.c.Retention/time.Second), 10), rueidis.BinaryString(body))
}

// Keep implements revocation.Log. The server's clock decides when it is over, a second late.
func (l *Log) Keep(ctx context.Context, key string, body []byte, until time.Time) error {
	value := append(binary.BigEndian.AppendUint64(nil, uint64(max(0, until.UnixMilli()))), body...)
	return l.write(ctx, keepScript, []string{l.c.together("kept"), l.c.together("kept.until")}, key, rueidis.BinaryString(value), strconv.FormatInt(until.Unix()+1, 10))
}

// write runs a script and waits for the replicas.
func (l *Log) write(ctx context.Context, script string, keys []string, args ...string) error {
	ctx, cancel := deadline(ctx)
	defer cancel()
	client, err := l.connected(ctx)
	if err != nil {
		return err
	}
	if l.c.Replicas == 0 {
		return l.exec(ctx, client, client, script, keys, args)
	}
	return client.Dedicated(func(one rueidis.DedicatedClient) error { // WAIT counts what its own connection wrote
		if err := l.exec(ctx, client, one, script, keys, args); err != nil {
			return err
		}
		got, err := one.Do(ctx, one.B().Wait().Numreplicas(int64(l.c.Replicas)).Timeout(askTimeout.Milliseconds()).Build()).AsInt64()
		if err == nil && got < int64(l.c.Replicas) {
			err = fmt.Errorf("%d of %d replicas have it", got, l.c.Replicas)
		}
		return l.failed(client, err)
	})
}

func (l *Log) exec(ctx context.Context, of rueidis.Client, c rueidis.CoreClient, script string, keys, args []string) error {
	return l.failed(of, c.Do(ctx, c.B().Eval().Script(script).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()).Error())
}

// Kept implements revocation.Log.
func (l *Log) Kept(ctx context.Context, each func(key string, body []byte) error) error {
	client, err := l.connected(ctx)
	if err != nil {
		return err
	}
	for cursor := uint64(0); ; {
		ask, cancel := deadline(ctx)
		page, err := client.Do(ask, client.B().Hscan().Key(l.c.together("kept")).Cursor(cursor).Count(512).Build()).AsScanEntry()
		cancel()
		if err != nil {
			return l.failed(client, err)
		}
		for i := 0; i+1 < len(page.Elements); i += 2 {
			value := page.Elements[i+1]
			if len(value) < 8 || time.Now().UnixMilli() > int64(binary.BigEndian.Uint64([]byte(value[:8]))) {
				continue
			}
			if err := each(page.Elements[i], []byte(value[8:])); err != nil {
				return err
			}
		}
		if cursor = page.Cursor; cursor == 0 {
			return nil
		}
	}
}

// Read implements revocation.Log. A position is the replication id and the message's id.
func (l *Log) Read(ctx context.Context, from string, each func(revocation.Entry) error, gap func(why string), failed func(err error)) error {
	r := &reading{log: l, each: each, gap: gap}
	var known bool
	if r.id, r.after, known = strings.Cut(from, "/"); !known {
		r.id, r.after = "", ""
	}
	return revocation.Follow(ctx, r.follow, func(_ error) error {
		if l.isClosed() {
			return errors.New("redis: closed")
		}
		return nil
	}, failed)
}

// reading is one Read: where it stands.
type reading struct {
	log   *Log
	each  func(revocation.Entry) error
	gap   func(why string)
	id    string // replication id of what was read; empty: nothing was
	after string // id of the last message; empty: from the oldest
}

// follow reads on one connection until something fails.
func (r *reading) follow(ctx context.Context) error {
	client, err := r.log.connected(ctx)
	if err != nil {
		return err
	}
	one, release := client.Dedicate()
	defer release()
	return r.log.failed(client, r.on(ctx, one))
}

func (r *reading) on(ctx context.Context, one rueidis.DedicatedClient) error {
	if err := r.continuity(ctx, one); err != nil {
		return err
	}
	stream := r.log.c.together("log")
	for {
		after := r.after
		if after == "" {
			after = "0-0"
		}
		// Who answers is asked behind the question, and told with the answer: a server that is kept by its disk would let a
		// second question wait until it has synced what came meanwhile. In silence this is also the ping.
		ask, cancel := context.WithTimeout(ctx, pingEvery+askTimeout)
		said := one.DoMulti(ask, one.B().Xread().Count(512).Block(pingEvery.Milliseconds()).Streams().Key(stream).Id(after).Build(), whoAnswers(one))
		cancel()
		got, err := said[0].AsXRead()
		if err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
		id, err := identity(said[1])
		if err != nil {
			return err
		}
		if id != r.id {
			r.another(id)
			continue
		}
		for _, m := range got[stream] {
			if err := r.each(revocation.Entry{Position: r.id + "/" + m.ID, Body: []byte(m.FieldValues["b"])}); err != nil {
				return revocation.Final(err)
			}
			r.after = m.ID
		}
	}
}

// continuity shows that what comes next follows what was read last, or is a gap.
func (r *reading) continuity(ctx context.Context, one rueidis.DedicatedClient) error {
	ask, cancel := deadline(ctx)
	defer cancel()
	id, err := identity(one.Do(ask, whoAnswers(one)))
	if err != nil {
		return err
	}
	switch {
	case r.id == "":
		r.id = id
		return nil
	case r.id != id:
		r.another(id)
		return nil
	case r.after == "":
		return nil
	}
	last, err := one.Do(ask, one.B().Xrange().Key(r.log.c.together("log")).Start(r.after).End(r.after).Count(1).Build()).AsXRange()
	if err != nil {
		return err
	}
	if len(last) == 0 {
		r.after = ""
		r.gap("the log no longer holds what was read last")
	}
	return nil
}

// another begins another log: its ids need not be greater than those of the one before, so it is read whole.
func (r *reading) another(id string) {
	r.id, r.after = id, ""
	r.gap("another server, or one that started again")
}

func whoAnswers(c rueidis.CoreClient) rueidis.Completed {
	return c.B().Info().Section("replication").Build()
}

// identity is the replication id of the master that answered whoAnswers.
func identity(said rueidis.RedisResult) (string, error) {
	info, err := said.ToString()
	if err != nil {
		return "", err
	}
	if field(info, "role") != "master" {
		return "", errReplica
	}
	id := field(info, "master_replid")
	if id == "" || len(id) > 64 {
		return "", errors.New("it tells no replication id")
	}
	return id, nil
}

// field is a line of INFO.
func field(info, name string) string {
	for line := range strings.SplitSeq(info, "\n") {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), ":"); key == name {
			return value
		}
	}
	return ""
}

// connected returns the client, and connects where there is none.
func (l *Log) connected(ctx context.Context) (rueidis.Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.New("redis: closed")
	}
	if l.client == nil {
		client, err := l.find(ctx)
		if err != nil {
			return nil, err
		}
		l.client = client
		l.advise(ctx, client)
	}
	return l.client, nil
}

// find connects to the server, in a cluster to the node that has the log. The caller holds mu.
func (l *Log) find(ctx context.Context) (rueidis.Client, error) {
	seeds := l.c.seeds()
	at := seeds[l.tried%len(seeds)]
	l.tried++
	for range mostHops {
		client, err := l.c.dial(l.c.one(at))
		if err != nil || !l.c.Cluster {
			return client, err
		}
		ask, cancel := deadline(ctx)
		err = client.Do(ask, client.B().Exists().Key(l.c.together("log")).Build()).Error()
		cancel()
		if err == nil {
			return client, nil
		}
		client.Close()
		next := ""
		if said, is := rueidis.IsRedisErr(err); is {
			next = moved(at, said.Error())
		}
		if next == "" {
			return nil, l.c.explain(at, err)
		}
		at = next
	}
	return nil, fmt.Errorf("redis %s: its nodes point at each other", l.c.Address)
}

// moved is the address to which the node at address points; empty: to none. The client's own reading of it trusts the
// server to say three words.
func moved(address, said string) string {
	words := strings.Fields(said)
	if len(words) != 3 || words[0] != "MOVED" {
		return ""
	}
	i := strings.LastIndexByte(words[2], ':')
	if i < 0 {
		return ""
	}
	host, port := strings.Trim(words[2][:i], "[]"), words[2][i+1:]
	if host == "" { // where it is reached by
		host, _, _ = net.SplitHostPort(address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "?" {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// advise warns of a server that acknowledges what a crash undoes, or throws away what it acknowledged.
func (l *Log) advise(ctx context.Context, client rueidis.Client) {
	if l.c.Warn == nil {
		return
	}
	info := func(section string) string {
		ask, cancel := deadline(ctx)
		defer cancel()
		text, _ := client.Do(ask, client.B().Info().Section(section).Build()).ToString() // what cannot be told is not warned of
		return text
	}
	if field(info("persistence"), "aof_enabled") == "0" && l.c.Replicas == 0 {
		l.c.Warn("Redis acknowledges revocations that a crash undoes: set appendonly yes there, and better appendfsync always, or replicas here")
	}
	memory := info("memory")
	if most := field(memory, "maxmemory"); most != "" && most != "0" && strings.HasPrefix(field(memory, "maxmemory_policy"), "allkeys-") {
		l.c.Warn("Redis throws revocations away when its memory is full: set maxmemory-policy noeviction there, or give revocation.bus a Redis of its own")
	}
}

// errReplica is why a connection is given up that leads to a server that is no master any more.
var errReplica = errors.New("a replica answers")

// failed says what err is, and gives client up where another connection may lead to a server that does better: this one
// takes no writes, or is a node of a cluster that has lost the log or is gone. It then begins anew.
func (l *Log) failed(client rueidis.Client, err error) error {
	if err == nil {
		return nil
	}
	said, is := rueidis.IsRedisErr(err)
	gone := errors.Is(err, errReplica)
	if is {
		word, _, _ := strings.Cut(said.Error(), " ")
		gone = word == "READONLY" || l.c.Cluster && slices.Contains([]string{"MOVED", "ASK", "CLUSTERDOWN"}, word)
	} else if l.c.Cluster && !errors.Is(err, context.Canceled) {
		gone = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if gone && l.client == client {
		go client.Close() // it waits for calls, and this one is one
		l.client = nil
	}
	return l.c.explain(l.c.Address, err)
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close implements revocation.Log.
func (l *Log) Close() error {
	l.mu.Lock()
	client := l.client
	l.client, l.closed = nil, true
	l.mu.Unlock()
	if client != nil {
		client.Close()
	}
	return nil
}

// deadline bounds ctx by askTimeout where it has no nearer end.
func deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, askTimeout)
}
