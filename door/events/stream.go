package events

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

// Stream receives the events of one SSF transmitter: pushed to Path (RFC 8935), or fetched by Run (RFC 8936).
type Stream struct {
	Name    string
	Signals *revocation.Signals
	Verify  Verify
	Path    string  // where the transmitter pushes; empty: it is polled
	Bearer  Secrets // what the transmitter sends as a bearer token; required with Path

	// Covering makes this the feed whose silence proves that nothing was revoked, less Lag: SSF promises no order between
	// a verification event and the events before it (SSF 1.0 §8.1.4).
	Covering bool
	Lag      time.Duration

	// The stream API of the transmitter. A nil Client: the stream is set up by somebody else, and is pushed.
	Client      *http.Client
	Transmitter string                                      // its issuer identifier
	Token       func(ctx context.Context) ([]string, error) // authorizes us there; called for each request
	Refused     func(token string)                          // told of a token that is refused there, when Token may have another; nil: it has none
	Endpoint    string                                      // where the transmitter reaches Path; with Path
	Every       time.Duration                               // between verification requests; zero: 10s
}

// stream is one stream, whichever way it is delivered.
type stream struct {
	way
	config  Stream
	senders *bearers // nil: polled
	key     [sha256.Size]byte

	// Deliveries hold it for reading, a proof for writing: a proof waits for what arrived before it.
	order sync.RWMutex
	mu    sync.Mutex
	owed  string // why a delivery was not applied; what happened before it was cannot be proven. Guarded by mu

	critical atomic.Pointer[[]string] // members that the transmitter calls critical; nil: those of Signals
}

func (d *Door) stream(c Stream) (*stream, error) {
	if err := needs(c.Signals, c.Verify); err != nil {
		return nil, err
	}
	s := &stream{way: d.way("ssf", c.Signals), config: c}
	switch {
	case c.Path == "" && c.Client == nil:
		return nil, errors.New("it is neither pushed nor polled: write a path, or a stream API")
	case c.Client != nil && (c.Transmitter == "" || c.Token == nil):
		return nil, errors.New("a stream API needs Transmitter and Token")
	case c.Client != nil && c.Path != "" && c.Endpoint == "":
		return nil, errors.New("the transmitter must be told where to push: Endpoint is missing")
	case c.Lag < 0 || c.Every < 0:
		return nil, errors.New("Lag and Every cannot be negative")
	}
	if c.Path != "" {
		var err error
		if s.senders, err = admit(c.Bearer); err != nil {
			return nil, err
		}
	}
	key := d.config.StateKey
	if len(key) == 0 {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails (crypto/rand)
	}
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte("watchword ssf state\x00" + c.Name)) // a hash never fails
	h.Sum(s.key[:0])
	return s, nil
}

// ServeHTTP takes one pushed SET (RFC 8935 §2). A repeated one is answered as if it were new.
func (s *stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.senders.lets(r) {
		no := &revocation.Refusal{Code: revocation.AuthenticationFailed, Text: "the transmitter is not known here"}
		s.refused(r.Context(), no)
		s.no(w, no)
		return
	}
	body, no := read(r, "application/secevent+jwt")
	var err error = no
	if no == nil {
		err = s.take(r.Context(), string(body))
	} else {
		s.failed(r.Context(), no)
	}
	refusal, is := errors.AsType[*revocation.Refusal](err)
	switch {
	case is && refusal != nil:
		s.no(w, refusal)
	case err != nil:
		later(w)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// no is a refusal (RFC 8935 §2.3).
func (s *stream) no(w http.ResponseWriter, refusal *revocation.Refusal) {
	h := w.Header()
	h["Content-Type"], h["Content-Language"] = typeJSON, english
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(setError{string(refusal.Code), refusal.Text})
}

type setError struct {
	Err  string `json:"err"`
	Text string `json:"description"`
}

// take applies one SET whose sender is authenticated, and what it proves. nil: it may be acknowledged; a
// *revocation.Refusal: it is bad for ever; any other error: the sender should come again.
func (s *stream) take(ctx context.Context, envelope string) error {
	through, err := s.hear(ctx, envelope)
	if err != nil || through.IsZero() {
		return err
	}
	return s.prove(ctx, through)
}

// hear applies one SET as take does, and returns until when it proves that everything has arrived; zero: it proves nothing.
func (s *stream) hear(ctx context.Context, envelope string) (through time.Time, err error) {
	s.order.RLock()
	reading, err := s.read(ctx, envelope)
	if err == nil && !reading.Verifies {
		err = s.deliver(ctx, reading)
	}
	s.order.RUnlock()
	if err != nil {
		s.failed(ctx, err)
		return through, err
	}
	if reading.Verifies {
		return s.verified(ctx, reading)
	}
	return through, nil
}

func (s *stream) read(ctx context.Context, envelope string) (*revocation.Reading, error) {
	claims, err := s.config.Verify(ctx, envelope)
	if err != nil {
		return nil, err
	}
	signals := *s.signals
	if critical := s.critical.Load(); critical != nil {
		signals.Critical = *critical
	}
	return signals.SET(claims, time.Now())
}

// deliver applies what a SET says, and its gap.
func (s *stream) deliver(ctx context.Context, r *revocation.Reading) error {
	if r.Gap != "" {
		if err := s.lapse(ctx, r.Gap); err != nil {
			return err
		}
	}
	for i := range r.Events {
		r.Events[i].Who = s.config.Name
	}
	return s.apply(ctx, r)
}

// failed notes a delivery that was not applied: from here on nothing is proven that happened before the next proof.
// Only what somebody authenticated sends gets here, so that garbage from strangers is no gap.
func (s *stream) failed(ctx context.Context, err error) {
	why, within := "not_applied", lapseTimeout // most of what the sender waits for was spent on publishing
	if refusal, is := errors.AsType[*revocation.Refusal](err); is {
		why, within = string(refusal.Code), publishTimeout
		s.refused(ctx, err)
	}
	s.mu.Lock()
	s.owed = why
	s.mu.Unlock()
	if s.lapseWithin(ctx, within, why) == nil {
		s.mu.Lock()
		s.owed = ""
		s.mu.Unlock()
	}
}

// lapse forwards a gap, where this feed covers anything.
func (s *stream) lapse(ctx context.Context, why string) error {
	return s.lapseWithin(ctx, publishTimeout, why)
}

func (s *stream) lapseWithin(ctx context.Context, within time.Duration, why string) error {
	if !s.config.Covering {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	return s.door.config.Publisher.Lapse(ctx, s.signals.Issuer, s.config.Name+": "+why)
}

// verified reads a verification event: the stream is alive, so what happened Lag before we asked for it, or before it was
// made, has arrived.
func (s *stream) verified(ctx context.Context, r *revocation.Reading) (through time.Time, err error) {
	through = r.At.Add(-s.signals.Skew) // nobody asked: the transmitter's own heartbeat, by its own clock
	if r.State != "" {
		asked, ours := s.askedAt(r.State)
		if !ours {
			no := &revocation.Refusal{Code: revocation.InvalidState, Text: "state is none that was asked for"}
			s.refused(ctx, no)
			return time.Time{}, no
		}
		through = asked
	}
	s.count("none", "ignored")
	if !s.config.Covering {
		return time.Time{}, nil
	}
	return through.Add(-s.config.Lag), nil
}

// prove forwards what was proven. It waits for the deliveries that came before it.
func (s *stream) prove(ctx context.Context, through time.Time) error {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	owed := s.owed
	s.mu.Unlock()
	if owed != "" {
		if err := s.lapse(ctx, owed); err != nil {
			return err
		}
		s.mu.Lock()
		s.owed = ""
		s.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	err := s.door.config.Publisher.Prove(ctx, s.signals.Issuer, through)
	if err != nil {
		s.door.config.Logger.LogAttrs(ctx, slog.LevelWarn, "a proof of coverage could not be forwarded", slog.String("issuer", s.signals.Issuer), slog.String("error", err.Error()))
	}
	return err
}

// state says when we asked for a verification, so that whichever node hears it knows. Nobody else can make one.
func (s *stream) state(now time.Time) string {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(now.UnixNano()))
	return base64.RawURLEncoding.EncodeToString(append(at[:], s.mac(at[:])...))
}

func (s *stream) mac(at []byte) []byte {
	h := hmac.New(sha256.New, s.key[:])
	_, _ = h.Write(at) // a hash never fails
	return h.Sum(nil)[:16]
}

// askedAt reads a state of ours.
func (s *stream) askedAt(state string) (t time.Time, ours bool) {
	b, err := base64.RawURLEncoding.DecodeString(state)
	if err != nil || len(b) != 24 || !hmac.Equal(b[8:], s.mac(b[:8])) {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b[:8]))), true
}
