package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword"
)

// Defaults of Config and Issuer.
const (
	DefaultMaxBytes     = 64 << 20
	MinBytes            = 64 << 10 // the least MaxBytes
	DefaultMaxTokenLife = 24 * time.Hour
	DefaultRemember     = watchword.DefaultMaxAge + time.Minute
)

// The largest numbers that are believed.
const (
	maxSettle    = time.Hour
	maxTokenLife = 10 * 365 * 24 * time.Hour
	maxSelectors = 4 // declared ones, tenant among them
)

// Config of a Ledger. Zero fields mean the default; what is negative is refused.
type Config struct {
	Issuers  []Issuer
	Folder   string // of the log; empty: memory only, so that a restart forgets
	ReadOnly bool   // look at the log of another process: nothing is written, locked or applied
	MaxBytes int64  // memory and log, each; zero: DefaultMaxBytes. A quarter of it is for what operators deny
	Key      Key    // of token ids; zero: the one kept in Folder, at first a random one
	Previous []Key  // of token ids that may still be held
	Logger   *slog.Logger
	Observe  func(e *Event, outcome Outcome)             // called for every event; must not block or keep e; nil: nobody
	Jumped   func(by time.Duration)                      // called when a clock jumped by more than a second; nil: nobody
	OnForget func(issuer string, n int, until time.Time) // called when n events of an issuer made room; nil: nobody
}

// Issuer is what a Ledger must know of an authorization server.
type Issuer struct {
	Name         string            // ours
	ID           string            // its iss; empty: not known
	Settle       time.Duration     // how long its introspection may lag its own revocations; zero: not at all
	Skew         time.Duration     // how far its clocks may be off; zero: not at all
	MaxTokenLife time.Duration     // how long a token of it may live; zero: DefaultMaxTokenLife
	Leeway       time.Duration     // how long it may be accepted past its end; zero: not at all
	Remember     time.Duration     // how long evidence may be of use: max_age and every grace; zero: DefaultRemember
	Selectors    map[string]string // declared selectors to claims; at most four; "tenant" is Selector.Tenant
	Keys         []string          // claims by which its covering feed names tokens: an answer that lacks one is never extended
	Exempt       bool              // until_expiry: tokens of before the ledger's beginning are accepted unasked
}

// Outcome is what became of an Event: metric label and log word.
type Outcome uint8

// The outcomes.
const (
	Applied   Outcome = iota // in force
	Duplicate                // it was in force before
	Over                     // every token that it names has ended
	Refused                  // it is no event, or from the future, or of an unknown issuer
	Full                     // the operators' share is full
)

// String returns the word of o.
func (o Outcome) String() string {
	return [...]string{"applied", "duplicate", "over", "refused", "full"}[min(o, Full)]
}

// Errors of Apply.
var (
	// ErrFull says that what operators deny fills their share. Nothing of it is ever forgotten to make room.
	ErrFull = errors.New("the operators' share of the ledger is full: raise revocation.max_bytes, or deny with fewer events")
	// ErrRefused says that an event cannot be what it says.
	ErrRefused = errors.New("event refused")
	// ErrReadOnly says that this Ledger looks at the log of another process.
	ErrReadOnly = errors.New("the ledger is read only")
)

// Ledger is everything that is held against tokens. It implements watchword.Ledger, Sink and Publisher, and outlives
// reloads. Make it with New, Close it after use. Safe for concurrent use; Coverage and Voids take no lock that a
// writer holds for longer than one map write.
type Ledger struct {
	config Config
	keys   []Key // the first makes new ids
	books  atomic.Pointer[map[string]*book]
	doubts doubts

	mu      sync.Mutex // one writer; guards what is below, and every write to a book
	store   store
	journal *journal // nil: memory only
	clocks  clocks   // read last
	began   int64
	passed  time.Duration // since, by the slower clock
}

// book is what is held against one issuer.
type book struct {
	bell     bell // rings when more is held
	issuer   Issuer
	known    bool // it is in the configuration
	replayed bool // it is in the log, and no configuration was seen yet
	shapes   [1 << maxNames]int
	tokens   int
	coverage atomic.Pointer[watchword.Coverage]
	view     atomic.Pointer[view]
}

// view is what a reader needs of a book, replaced whole. While nothing is held it says so in one load.
type view struct {
	issuer    *Issuer
	claims    claimsOf
	sigma     int64
	index     *index
	shapes    []names
	want      names // all of shapes together
	everybody mark  // of events about the whole issuer
	tokens    bool
	forgotten time.Time // evidence up to here is questioned; zero: nothing was forgotten
}

// New makes a Ledger and reads its log, or reports every mistake of c at once.
func New(c Config) (*Ledger, error) {
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	errs := []error{validate(c.Issuers)}
	if c.MaxBytes < MinBytes {
		errs = append(errs, fmt.Errorf("revocation: MaxBytes %d is less than 64 KiB", c.MaxBytes))
	}
	if c.ReadOnly && c.Folder == "" {
		errs = append(errs, errors.New("revocation: ReadOnly needs a Folder"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	l := &Ledger{config: c, clocks: newClocks(), store: newStore(), began: nanos(time.Now())}
	l.doubts.most = int(c.MaxBytes / 16 / doubtBytes)
	l.books.Store(&map[string]*book{})
	if err := l.open(); err != nil {
		return nil, err
	}
	if err := l.Reconfigure(c.Issuers...); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func validate(issuers []Issuer) error {
	var errs []error
	seen := map[string]bool{}
	for i := range issuers {
		is := &issuers[i]
		bad := func(wrong bool, format string, args ...any) {
			if wrong {
				errs = append(errs, fmt.Errorf("revocation: issuer %q: "+format, append([]any{is.Name}, args...)...))
			}
		}
		bad(is.Name == "" || seen[is.Name], "the name is empty or given twice")
		bad(is.Settle < 0 || is.Settle > maxSettle, "Settle %v is not between 0 and %v", is.Settle, maxSettle)
		bad(is.Skew < 0 || is.Skew > maxSettle, "Skew %v is not between 0 and %v", is.Skew, maxSettle)
		bad(is.MaxTokenLife < 0 || is.MaxTokenLife > maxTokenLife, "MaxTokenLife %v is not between 0 and ten years", is.MaxTokenLife)
		bad(is.Leeway < 0 || is.Leeway > maxSettle, "Leeway %v is not between 0 and %v", is.Leeway, maxSettle)
		bad(is.Remember < 0, "Remember %v is negative", is.Remember)
		bad(len(is.Selectors) > maxSelectors, "more than %d declared selectors", maxSelectors)
		for name, claim := range is.Selectors {
			bad(name == "" || claim == "", "a selector has no name or no claim")
		}
		seen[is.Name] = true
	}
	return errors.Join(errs...)
}

func (is *Issuer) setDefaults() {
	if is.MaxTokenLife == 0 {
		is.MaxTokenLife = DefaultMaxTokenLife
	}
	if is.Remember == 0 {
		is.Remember = DefaultRemember
	}
	is.Remember = min(is.Remember, maxTokenLife)
	if is.Exempt { // its tokens are evidence for as long as they live
		is.Remember = max(is.Remember, is.MaxTokenLife)
	}
	is.Selectors, is.Keys = maps.Clone(is.Selectors), slices.Clone(is.Keys)
}

// sigma is how far the issue of a token and a revocation may seem to lie apart though they are one instant: clocks
// that differ, and whole seconds.
func (is *Issuer) sigma() time.Duration { return time.Second + is.Skew }

// Reconfigure tells whom a reload left. What is held stays held; an issuer that is new, or that was away, has
// forgotten everything until now. On error nothing changes.
func (l *Ledger) Reconfigure(issuers ...Issuer) error {
	if err := validate(issuers); err != nil {
		return err
	}
	l.reconfigure(issuers)
	return l.commit()
}

func (l *Ledger) reconfigure(issuers []Issuer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	books := maps.Clone(*l.books.Load())
	left := map[string]bool{}
	for _, is := range issuers {
		is.setDefaults()
		left[is.Name] = true
		b := books[is.Name]
		if b == nil {
			b = newBook(is)
			books[is.Name] = b
		}
		l.reissue(b, is)
		if !b.known {
			l.begin(b)
		}
	}
	for name, b := range books {
		b.known, b.replayed = b.known && left[name], false
	}
	l.books.Store(&books)
}

func newBook(is Issuer) *book {
	b := &book{issuer: is}
	b.coverage.Store(&watchword.Coverage{Since: time.Now()})
	b.view.Store(&view{issuer: &b.issuer, claims: newClaimsOf(is.Selectors), sigma: int64(is.sigma()), index: newIndex()})
	return b
}

// begin lets b begin to be of use: of what came before, nothing is known but what was replayed.
func (l *Ledger) begin(b *book) {
	switch {
	case b.replayed:
	case b.issuer.Exempt:
		l.keep(forgottenLine(b.issuer.Name, time.Time{}))
	default:
		l.forget(b, time.Now())
	}
	b.known, b.replayed = true, false
	c := *b.coverage.Load()
	c.Since = time.Now() // what was said of it meanwhile, nobody heard
	b.coverage.Store(&c)
}

// Coverage implements watchword.Ledger: what the covering feed of issuer proves, or nothing.
func (l *Ledger) Coverage(issuer string) watchword.Coverage {
	b := (*l.books.Load())[issuer]
	if b == nil {
		return watchword.Coverage{}
	}
	c := b.coverage.Load()
	if c.Through.IsZero() {
		return watchword.Coverage{}
	}
	return *c
}

// Cover implements Sink. A proof of the future proves until now.
func (l *Ledger) Cover(issuer string, through time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := (*l.books.Load())[issuer]
	if b == nil || !b.known {
		return
	}
	if now := time.Now(); watchword.Age(now, through) < 0 {
		through = now
	}
	c := *b.coverage.Load()
	if c.Settle, c.Keys = b.issuer.Settle, b.issuer.Keys; c.Through.IsZero() || watchword.Age(c.Through, through) < 0 {
		c.Through = through
	}
	b.coverage.Store(&c)
}

// Gap implements Sink.
func (l *Ledger) Gap(issuer, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap(issuer, why)
}

func (l *Ledger) gap(issuer, why string) {
	now := time.Now()
	for name, b := range *l.books.Load() {
		if issuer == "" || name == issuer {
			c := *b.coverage.Load()
			c.Since = now
			b.coverage.Store(&c)
		}
	}
	l.config.Logger.Warn("something may have been missed by a revocation feed: what was asked before is extended no more", "issuer", issuer, "why", why)
}

// Publish implements Publisher for one machine: it is Apply.
func (l *Ledger) Publish(ctx context.Context, events ...Event) error { return l.Apply(ctx, events...) }

// Prove implements Publisher for one machine: it is Cover.
func (l *Ledger) Prove(_ context.Context, issuer string, through time.Time) error {
	l.Cover(issuer, through)
	return nil
}

// Lapse implements Publisher for one machine: it is Gap.
func (l *Ledger) Lapse(_ context.Context, issuer, why string) error {
	l.Gap(issuer, why)
	return nil
}

// TokenID is the identity of one token of an issuer. Copies of a JWT that are encoded otherwise have the same.
func (l *Ledger) TokenID(issuer string, token watchword.Token) TokenID {
	return l.keys[0].of(issuer, l.home(issuer), token)
}

func (l *Ledger) home(issuer string) string {
	if b := (*l.books.Load())[issuer]; b != nil {
		return b.view.Load().issuer.ID
	}
	return ""
}

// Fingerprint tells whether two ledgers mean the same by a TokenID, for FleetConfig. It tells nothing about the key.
func (l *Ledger) Fingerprint() []byte {
	p := l.keys[0].print()
	return p[:]
}

// Voids implements watchword.Ledger: what is held against a, which answers q. Without an answer only what names the
// token itself can be known. It allocates nothing where the token is no JWT.
func (l *Ledger) Voids(q watchword.Query, a *watchword.Answer) (v watchword.Void) {
	b := (*l.books.Load())[q.Issuer]
	if b == nil {
		return v
	}
	for {
		w := b.view.Load()
		if v = l.weigh(w, &q, a); v.Revoked || a == nil || !a.Active() {
			return v
		}
		asOf := a.AsOf()
		if !w.forgotten.IsZero() && watchword.Age(w.forgotten, asOf) >= 0 {
			later(&v, w.forgotten)
		}
		if inactive, ok := l.doubts.about(&q.Key); ok && watchword.Age(inactive, asOf) >= 0 {
			later(&v, inactive)
		}
		// Forgotten is raised before what it stands for goes: where it is as it was, nothing went meanwhile.
		if b.view.Load().forgotten.Equal(w.forgotten) {
			return v
		}
	}
}

// weigh is what the events of w say of a, which answers q.
func (l *Ledger) weigh(w *view, q *watchword.Query, a *watchword.Answer) (v watchword.Void) {
	if w.tokens && l.voidsToken(w, q, a, &v) {
		return watchword.Void{Revoked: true}
	}
	if a != nil && a.Active() && (len(w.shapes) > 0 || w.everybody.events > 0) {
		w.judge(a, &v)
	}
	if v.Revoked {
		return watchword.Void{Revoked: true}
	}
	return v
}

func later(v *watchword.Void, t time.Time) {
	if v.Questioned.IsZero() || watchword.Age(t, v.Questioned) > 0 {
		v.Questioned = t
	}
}

// judge joins what the selectors say of a.
func (w *view) judge(a *watchword.Answer, v *watchword.Void) {
	iat := int64(never)
	if t, ok := a.IssuedAt(); ok {
		iat = nanos(t)
	}
	var have values
	has, wild := w.claims.of(a, w.want, &have)
	hold := func(m *mark, shape names) {
		revoked, questioned := m.void(iat, w.sigma, shape&session != 0)
		v.Revoked = v.Revoked || revoked
		if questioned != 0 {
			later(v, instant(questioned))
		}
	}
	if w.everybody.events > 0 {
		hold(&w.everybody, 0)
	}
	for _, shape := range w.shapes {
		known := shape & has
		if known == 0 && shape&wild == 0 {
			continue
		}
		if m, ok := w.index.get(w.index.at(shape, known, &have)); ok {
			hold(&m, shape)
		}
	}
}

// voidsToken reports an event about this very token, and joins what is asked of it.
func (l *Ledger) voidsToken(w *view, q *watchword.Query, a *watchword.Answer, v *watchword.Void) bool {
	jti, iss := "", ""
	if a != nil && a.Active() {
		jti, _ = a.Claims().Text("jti")
	}
	if jti != "" {
		iss, _ = a.Claims().Text("iss")
	}
	held := func(id TokenID) bool {
		m, ok := w.index.get(ofToken(&id))
		if ok && m.asked != 0 {
			later(v, instant(m.asked))
		}
		return ok && m.final
	}
	for i := range l.keys {
		k := &l.keys[i]
		if held(k.of(q.Issuer, w.issuer.ID, q.Token)) || jti != "" && held(k.byJTI(q.Issuer, w.issuer.ID, iss, jti)) {
			return true
		}
	}
	return false
}

// forget raises Forgotten of b to t. The caller holds mu.
func (l *Ledger) forget(b *book, t time.Time) {
	old := b.view.Load()
	if !old.forgotten.IsZero() && watchword.Age(t, old.forgotten) <= 0 {
		return
	}
	next := *old
	next.forgotten = t
	b.view.Store(&next)
	l.keep(forgottenLine(b.issuer.Name, t))
}

// drop forgets an event of b that was applied then. Evidence of the time in which introspection may have lagged that
// event is questioned too; where that time is not over, nothing of it is extended by a feed.
func (l *Ledger) drop(b *book, applied int64) {
	until, now := instant(applied).Add(b.issuer.Settle), time.Now()
	if watchword.Age(now, until) < 0 {
		until = now
		c := *b.coverage.Load()
		if watchword.Age(instant(applied), c.Since) > 0 {
			c.Since = instant(applied)
			b.coverage.Store(&c)
		}
	}
	l.forget(b, until)
}
