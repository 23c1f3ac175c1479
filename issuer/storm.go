package issuer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// StormConfig says when a server is no longer believed that calls tokens inactive. Zero fields mean the default.
type StormConfig struct {
	Name    string        // the issuer's, for Logger
	Share   float64       // of the answers about known tokens that is inactive; up to 1; zero: 0.3
	Within  time.Duration // the window in which they are counted; zero: 10s
	AtLeast int           // so many known tokens turned: fewer are denials one by one, and are honoured; zero: 20

	// Canary looks at a token that must be good. Not known: there is none, or nobody knows. Nil: there is none.
	Canary func() (known, alive bool)
	// Explained reports that revocations were heard of that account for what is seen. Nil: none ever are.
	Explained func() bool
	Logger    *slog.Logger // hears when a storm begins and ends; nil: nobody
}

const (
	stormSlices  = 10 // of the window
	stormSlots   = 1 << 15
	longestStorm = 10 * time.Minute // without a canary; then the server is believed
)

// StormStats is a look at a Storm; counters count since it was made.
type StormStats struct {
	Raging   bool
	Doubted  uint64 // inactive answers that became errors
	Storms   uint64 // how many began
	Honoured uint64 // how often so many tokens turned, and the server was believed
}

// Storm is a Source over that of one authorization server that tells a mass revocation from a server whose storage or
// client credential failed, and which therefore calls every token inactive. While it doubts, an inactive answer becomes
// an *Error{Unavailable, Doubted}: nobody is logged out, and nobody let in. It never makes an active answer of anything.
//
// A canary that the server calls inactive is enough, unless it called some other token active in the window: who has
// just begun knows no token that could turn.
//
// Else it is told by tokens that are known. Known is a token that this server called active, and that by its own word
// has not ended yet; a token without an end is never known. When at least AtLeast known tokens turned inactive in the window, and these are Share of its answers
// about known tokens, then the canary decides, if there is one; else whether a revocation explains it; else it is a
// storm. In a storm every inactive answer is doubted, also that of a token never seen: a fresh login is as good as
// another. It ends when the canary lives, a revocation explains it, or less than half of Share of a window's answers is
// inactive (inactive answers about tokens never seen do not count); without a canary also after longestStorm, and then nothing is
// doubted until such a calm was seen.
type Storm struct {
	next   watchword.Source
	config StormConfig
	start  time.Time
	doubt  atomic.Uint64
	known  [stormSlots]atomic.Uint64 // tag of a token << 32 | when it ends, in seconds; the younger of two in one slot stays

	mu       sync.Mutex // guards what is below
	phase    phase
	began    time.Time // of the storm
	slices   [stormSlices]stormSlice
	storms   uint64
	honoured uint64
}

type phase uint8

const (
	calm     phase = iota
	raging         // inactive answers are doubted
	believed       // so many turned, and it is the truth
)

// NewStorm makes a Storm over next, or reports every mistake of c at once.
func NewStorm(next watchword.Source, c StormConfig) (*Storm, error) {
	var errs []error
	if !(c.Share >= 0 && c.Share <= 1) {
		errs = append(errs, fmt.Errorf("storm: Share %v is not a share between 0 and 1", c.Share))
	}
	if c.Within < 0 {
		errs = append(errs, fmt.Errorf("storm: Within %v is negative", c.Within))
	}
	if c.AtLeast < 0 {
		errs = append(errs, fmt.Errorf("storm: AtLeast %d is negative", c.AtLeast))
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if c.Share == 0 {
		c.Share = 0.3
	}
	if c.Within == 0 {
		c.Within = 10 * time.Second
	}
	if c.AtLeast == 0 {
		c.AtLeast = 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Storm{next: next, config: c, start: time.Now()}, nil
}

// Inherit takes over what old knows of the same server: which tokens that called active, whether it is doubted, and what
// was counted; so a change of the configuration in the middle of a storm logs nobody out. Call it before s is asked.
func (s *Storm) Inherit(old *Storm) {
	for i := range old.known {
		s.known[i].Store(old.known[i].Load())
	}
	s.doubt.Store(old.doubt.Load())
	old.mu.Lock()
	defer old.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.began, s.storms, s.honoured = old.phase, old.began, old.storms, old.honoured
	if s.config.Within == old.config.Within {
		s.start, s.slices = old.start, old.slices
	}
}

// Introspect asks next and doubts what it says where that is called for.
func (s *Storm) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	a, err := s.next.Introspect(ctx, q)
	if err != nil || a == nil {
		return a, err
	}
	now := time.Now()
	if a.Active() {
		s.remember(q.Key, a, now)
		s.sound(ctx, now)
		return a, nil
	}
	if !s.doubts(ctx, q.Key, now) {
		return a, nil
	}
	s.doubt.Add(1)
	return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: q.Issuer, RetryAfter: time.Second, Doubted: true,
		Cause: errors.New("it says inactive, and is not believed: too many tokens turned at once that it called active")}
}

func slot(key watchword.Key) (at int, tag uint64) {
	return int(binary.LittleEndian.Uint64(key[:]) % stormSlots), binary.LittleEndian.Uint64(key[8:]) << 32
}

// remember keeps a token until it ends, by the wall in whole seconds: a guard needs no more.
func (s *Storm) remember(key watchword.Key, a *watchword.Answer, now time.Time) {
	left, ends := a.Remaining(now)
	if !ends || left < time.Second {
		return
	}
	end := min(now.Add(min(left, 100*365*24*time.Hour)).Unix(), 1<<32-1)
	i, tag := slot(key)
	s.known[i].Store(tag | uint64(end))
}

func (s *Storm) knows(key watchword.Key, now time.Time) bool {
	i, tag := slot(key)
	have := s.known[i].Load()
	return have != 0 && have&^(1<<32-1) == tag && now.Unix() < int64(have&(1<<32-1))
}

// forget drops a token that turned and was believed: it counts once, however often it is asked about.
func (s *Storm) forget(key watchword.Key) {
	i, tag := slot(key)
	if have := s.known[i].Load(); have&^(1<<32-1) == tag {
		s.known[i].CompareAndSwap(have, 0)
	}
}

// sound counts an active answer.
func (s *Storm) sound(ctx context.Context, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slice(now).sound++
	if s.phase != calm {
		s.weigh(ctx, now)
	}
}

// doubts counts an inactive answer and reports whether it is doubted.
func (s *Storm) doubts(ctx context.Context, key watchword.Key, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.knows(key, now)
	if known {
		s.slice(now).turned++
	}
	if known || s.phase != calm || s.config.Canary != nil {
		s.weigh(ctx, now)
	}
	if s.phase == raging {
		return true
	}
	s.forget(key)
	return false
}

// stormSlice is a tenth of a window.
type stormSlice struct {
	at            int64 // which, counted since start
	turned, sound int   // answers about known tokens that were inactive, and active answers
}

// slice is the one of now. The caller holds mu.
func (s *Storm) slice(now time.Time) *stormSlice {
	at := int64(watchword.Age(now, s.start) / max(1, s.config.Within/stormSlices))
	one := &s.slices[at%stormSlices]
	if one.at != at {
		*one = stormSlice{at: at}
	}
	return one
}

const canaryDied = "the server calls tokens inactive that it issued just now (the canary), and is not believed: inactive answers count as no answer"

// weigh moves from phase to phase by what the window shows. The caller holds mu.
func (s *Storm) weigh(ctx context.Context, now time.Time) {
	turned, all, at := 0, 0, s.slice(now).at
	for _, one := range s.slices {
		if at-one.at < stormSlices {
			turned, all = turned+one.turned, all+one.turned+one.sound
		}
	}
	sane := turned < all && float64(turned) < s.config.Share/2*float64(all)
	switch s.phase {
	case calm:
		few := turned < s.config.AtLeast || float64(turned) < s.config.Share*float64(all)
		if few && (turned < all || s.config.Canary == nil) {
			return
		}
		switch known, lies := s.lies(); {
		case known && lies:
			s.become(ctx, raging, now, canaryDied)
		case few:
		case known:
			s.become(ctx, believed, now, "so many tokens turned inactive because they were revoked")
		default:
			s.become(ctx, raging, now, "so many tokens turned inactive that the server is not believed: inactive answers count as no answer")
		}
	case raging:
		known, lies := s.lies()
		switch {
		case known && !lies:
			s.become(ctx, believed, now, "the server is believed again: the canary lives, or revocations were heard of that explain it")
		case sane:
			s.become(ctx, calm, now, "the server calls tokens active again and is believed")
		case !known && watchword.Age(now, s.began) > longestStorm:
			s.become(ctx, believed, now, "the server said so for long enough to be believed; a canary would know better")
		}
	case believed:
		if known, lies := s.lies(); known && lies {
			s.become(ctx, raging, now, canaryDied)
		} else if sane {
			s.phase = calm
		}
	}
}

// lies asks the canary first, then what was heard. Not known: neither can tell.
func (s *Storm) lies() (known, lies bool) {
	if s.config.Canary != nil {
		if known, alive := s.config.Canary(); known {
			return true, !alive
		}
	}
	return s.config.Explained != nil && s.config.Explained(), false
}

func (s *Storm) become(ctx context.Context, p phase, now time.Time, why string) {
	s.phase = p
	level := slog.LevelInfo
	switch p {
	case raging:
		level = slog.LevelError
		s.began = now
		s.storms++
	case believed:
		level = slog.LevelWarn
		s.honoured++
	}
	s.config.Logger.LogAttrs(ctx, level, why, slog.String("issuer", s.config.Name))
}

// Stats returns a look at s.
func (s *Storm) Stats() StormStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return StormStats{Raging: s.phase == raging, Doubted: s.doubt.Load(), Storms: s.storms, Honoured: s.honoured}
}
