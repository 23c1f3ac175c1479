package jose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// DefaultKeysMaxAge is KeysConfig.MaxAge where it is zero.
const DefaultKeysMaxAge = 10 * time.Minute

const (
	fetchTimeout = 10 * time.Second // one look at the key set
	refetchAfter = 10 * time.Second // a younger set is not fetched again for a key that it lacks
	longestHold  = time.Minute      // that a server can ask for after a failure
	absentFor    = 30 * time.Second // a kid that a fresh set lacked causes no fetch
	maxAbsent    = 1024             // kids remembered as absent
)

// Fetch gets the issuer's key set (RFC 7517 §5) as it is served now. asOf is the instant just before the question left
// us, less the answer's Age. It must bound size and time, and follow no redirect.
type Fetch func(ctx context.Context) (set []byte, asOf time.Time, err error)

// KeysConfig is where one issuer's keys come from. Fetch is required.
type KeysConfig struct {
	Fetch   Fetch
	MaxAge  time.Duration                    // an older set verifies nothing: how long a withdrawn key may still do so; zero: DefaultKeysMaxAge
	Observe func(outcome string, keys int)   // after every fetch: ok or unavailable, and how many keys there are now; nil: nobody looks
	Failed  func(err error, again time.Time) // hears of every failed fetch, and when the next one may come; nil: nobody
}

// Keys are the public keys of one issuer and of nobody else: a kid means nothing outside of its Keys. The last good set
// serves until it is MaxAge old. Make it with NewKeys. Safe for concurrent use.
type Keys struct {
	config KeysConfig
	set    atomic.Pointer[keySet] // the last good one; nil: none yet

	mu       sync.Mutex
	flight   *fetching            // nil: none is under way
	failures int                  // in a row
	hold     time.Time            // not before, after a failure
	cause    error                // of the last failure
	absent   map[string]time.Time // kids that a set lacked, and when that was seen
}

type keySet struct {
	keys    []*verifyingKey
	asOf    time.Time // what MaxAge counts from
	fetched time.Time // when we asked: a set out of somebody's cache can be old and new to us
}

type fetching struct{ done chan struct{} }

// NewKeys makes Keys, or reports what is wrong with c. It fetches nothing: the first message does, or Run.
func NewKeys(c KeysConfig) (*Keys, error) {
	if c.Fetch == nil {
		return nil, errors.New("jose: KeysConfig.Fetch is missing: no key could be had")
	}
	if c.MaxAge < 0 || c.MaxAge > 0 && c.MaxAge < refetchAfter {
		return nil, fmt.Errorf("jose: KeysConfig.MaxAge is %v: it must be at least %v", c.MaxAge, refetchAfter)
	}
	c.MaxAge = cmp.Or(c.MaxAge, DefaultKeysMaxAge)
	return &Keys{config: c, absent: map[string]time.Time{}}, nil
}

// Run fetches the set now, and again whenever half of MaxAge has passed, until ctx ends: messages seldom wait.
func (k *Keys) Run(ctx context.Context) {
	for {
		_ = k.Refresh(ctx) // Failed hears of it
		k.mu.Lock()
		wait := max(time.Until(k.hold), time.Second)
		k.mu.Unlock()
		if age, known := k.Age(time.Now()); known && age < k.config.MaxAge/2 {
			wait = max(wait, k.config.MaxAge/2-age-time.Duration(rand.Float64()*float64(k.config.MaxAge/10)))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Inherit takes over the set that old has of the same issuer, as old as it is, so that a change of the configuration
// while the keys cannot be fetched refuses nobody. Call it before k is used.
func (k *Keys) Inherit(old *Keys) { k.set.Store(old.set.Load()) }

// Age is how old the set is at now; not known: there is none yet.
func (k *Keys) Age(now time.Time) (age time.Duration, known bool) {
	s := k.set.Load()
	if s == nil {
		return 0, false
	}
	return max(0, watchword.Age(now, s.asOf)), true
}

// Refresh fetches the set, or waits for a fetch that is under way, or until ctx ends. On error what was there stays.
func (k *Keys) Refresh(ctx context.Context) error {
	k.mu.Lock()
	f := k.flight
	if f == nil {
		if left := time.Until(k.hold); left > 0 {
			defer k.mu.Unlock()
			return &Error{Fault: KeysUnavailable, RetryAfter: left, Cause: k.cause}
		}
		f = &fetching{done: make(chan struct{})}
		k.flight = f
		go k.fetch(f)
	}
	k.mu.Unlock()
	select {
	case <-ctx.Done():
		return &Error{Fault: KeysUnavailable, Cause: ctx.Err()}
	case <-f.done:
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cause != nil {
		return &Error{Fault: KeysUnavailable, RetryAfter: max(0, time.Until(k.hold)), Cause: k.cause}
	}
	return nil
}

// fetch runs apart from whoever caused it: others wait for it too.
func (k *Keys) fetch(f *fetching) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	next, err := k.look(ctx)
	k.mu.Lock()
	if err == nil {
		if old := k.set.Load(); old == nil || watchword.Age(next.asOf, old.asOf) >= 0 { // never back to an older set
			k.set.Store(next)
		}
		k.failures, k.cause, k.hold = 0, nil, time.Time{}
	} else {
		pause := min(time.Second<<min(k.failures, 6), refetchAfter)
		if e, is := errors.AsType[*watchword.Error](err); is { // the server said when to come back (RFC 9110 §10.2.3)
			pause = max(pause, min(e.RetryAfter, longestHold))
		}
		k.cause, k.hold = err, time.Now().Add(pause)
		k.failures++
	}
	again := k.hold
	k.flight = nil
	k.mu.Unlock()
	defer close(f.done)
	if err != nil && k.config.Failed != nil {
		k.config.Failed(err, again)
	}
	if k.config.Observe != nil {
		outcome, n := "ok", 0
		if err != nil {
			outcome = "unavailable"
		}
		if s := k.set.Load(); s != nil {
			n = len(s.keys)
		}
		k.config.Observe(outcome, n)
	}
}

func (k *Keys) look(ctx context.Context) (s *keySet, err error) {
	defer func() {
		if recover() != nil { // a fault in a fetch must not take the process along
			s, err = nil, errors.New("a fault while fetching the key set")
		}
	}()
	began := time.Now()
	body, asOf, err := k.config.Fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("the key set cannot be had: %w", err)
	}
	found, err := parseSet(body)
	if err != nil {
		return nil, fmt.Errorf("the key set cannot be used: %w", err)
	}
	return &keySet{found, asOf, began}, nil
}

// find returns the keys that a message names and that may verify it, and the instant of which their set speaks. For a key that the set lacks, the set is fetched
// once more, unless it is young or was just seen to lack that key: strangers can name any key they like, and cause one
// fetch in refetchAfter.
func (k *Keys) find(ctx context.Context, alg, kid string) (found []*verifyingKey, asOf time.Time, err error) {
	now := time.Now()
	s := k.set.Load()
	if s == nil || watchword.Age(now, s.asOf) > k.config.MaxAge {
		if err := k.Refresh(ctx); err != nil {
			return nil, asOf, err
		}
		if s = k.set.Load(); s == nil || watchword.Age(time.Now(), s.asOf) > k.config.MaxAge {
			return nil, asOf, fault(KeysUnavailable, "the key set that is served is older than %v: somebody in between keeps it for longer", k.config.MaxAge)
		}
	}
	if found = s.find(alg, kid); len(found) > 0 {
		return found, s.asOf, nil
	}
	if len(kid) > maxKeyID {
		return nil, asOf, fault(UnknownKey, "kid is longer than %d bytes", maxKeyID)
	}
	if watchword.Age(now, s.fetched) >= refetchAfter && !k.lacks(kid, now) {
		if err := k.Refresh(ctx); err != nil {
			return nil, asOf, err
		}
		s = k.set.Load()
		if found = s.find(alg, kid); len(found) > 0 {
			return found, s.asOf, nil
		}
		k.remember(kid, now)
	}
	return nil, asOf, fault(UnknownKey, "none of the issuer's %d keys has that kid and fits %s", len(s.keys), alg)
}

func (k *Keys) lacks(kid string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen, is := k.absent[kid]
	return is && watchword.Age(now, seen) < absentFor
}

func (k *Keys) remember(kid string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.absent) >= maxAbsent {
		clear(k.absent)
	}
	k.absent[kid] = now
}
