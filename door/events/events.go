// Package events takes in what others know of revocations: OpenID Connect back-channel logout, SSF, CAEP and RISC by
// push and by poll, signed webhooks, RFC 7009 revocations on their way to the authorization server, and global token
// revocation. Whatever it acknowledges is durable where the whole fleet reads it.
package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

const (
	maxBody        = 64 << 10
	publishTimeout = 3 * time.Second // below the 5 s after which common senders give up …
	lapseTimeout   = time.Second     // … with this beside it
	replayed       = 1 << 16         // signals of one way that are remembered
)

// Verify checks signature, typ and key of a signed envelope and returns what it says. A *revocation.Refusal is the
// sender's fault; any other error means that it could not be told now.
type Verify func(ctx context.Context, envelope string) (watchword.Claims, error)

// Secrets are one secret, or two during a rotation. New calls it once.
type Secrets func() ([]string, error)

// Config of the door. Publisher is required, and at least one way in.
type Config struct {
	Publisher revocation.Publisher
	Logouts   []Logout
	Streams   []Stream
	Webhooks  []Webhook
	Revokes   []Revoke
	Globals   []Global

	// Heard counts the signals that did not come to be applied, in words of closed lists: effect is deny, revalidate or
	// none; outcome is repeated, ignored, unfit (authentic, and we cannot apply it), refused or failed (not durable, so
	// not acknowledged). Whoever applies counts the rest. nil: nobody counts.
	Heard  func(issuer, way, effect, outcome string)
	Logger *slog.Logger // nil: nothing is said

	// StateKey keys the state of verification requests, so that every node of a fleet knows the others'. Empty: a
	// random one.
	StateKey []byte
}

// Logout receives logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.5).
type Logout struct {
	Path    string
	Signals *revocation.Signals
	Verify  Verify
}

// Door is the http.Handler. Safe for concurrent use. Run keeps its streams alive.
type Door struct {
	config  Config
	paths   map[string]http.Handler
	streams []*stream
}

// New makes a Door, or reports every mistake of c at once.
func New(c Config) (*Door, error) {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf("events: "+format, args...)) }
	if c.Publisher == nil {
		mistake("Config.Publisher is missing: nothing could be applied")
	}
	if c.Heard == nil {
		c.Heard = func(string, string, string, string) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Door{config: c, paths: map[string]http.Handler{}}
	at := func(path string, h http.Handler, err error) {
		switch {
		case err != nil:
			mistake("%s: %w", path, err)
		case !strings.HasPrefix(path, "/"):
			mistake("path %q does not begin with /", path)
		case d.paths[path] != nil:
			mistake("path %q is given twice", path)
		default:
			d.paths[path] = h
		}
	}
	for _, l := range c.Logouts {
		at(l.Path, &logout{way: d.way("back_channel_logout", l.Signals), verify: l.Verify}, needs(l.Signals, l.Verify))
	}
	for _, s := range c.Streams {
		one, err := d.stream(s)
		if err != nil {
			mistake("stream %q: %w", s.Name, err)
			continue
		}
		d.streams = append(d.streams, one)
		if s.Path != "" {
			at(s.Path, one, nil)
		}
	}
	for _, w := range c.Webhooks {
		h, err := d.webhook(w)
		at(w.Path, h, err)
	}
	for _, r := range c.Revokes {
		h, err := d.revoke(r)
		at(r.Path, h, err)
	}
	for _, g := range c.Globals {
		h, err := d.global(g)
		at(g.Path, h, err)
	}
	if len(d.paths)+len(d.streams) == 0 && len(errs) == 0 {
		mistake("no way in is configured: nothing would be answered")
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return d, nil
}

func needs(s *revocation.Signals, v Verify) error {
	if s == nil || v == nil {
		return errors.New("Signals and Verify are required")
	}
	return nil
}

// Run sets up and keeps alive every stream that has a stream API, until ctx ends.
func (d *Door) Run(ctx context.Context) {
	var wait sync.WaitGroup
	for _, s := range d.streams {
		if s.config.Client != nil {
			wait.Go(func() { s.run(ctx) })
		}
	}
	wait.Wait()
}

// ServeHTTP answers one signal.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["Cache-Control"] = noStore
	h := d.paths[r.URL.Path]
	switch {
	case h == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method != http.MethodPost:
		w.Header()["Allow"] = allow
		w.WriteHeader(http.StatusMethodNotAllowed)
	default:
		h.ServeHTTP(w, r)
	}
}

// Shared header values: nobody may write to them.
var (
	typeJSON = []string{"application/json"}
	noStore  = []string{"no-store"}
	english  = []string{"en"}
	allow    = []string{http.MethodPost}
	soon     = []string{"1"}
)

// way is one way in.
type way struct {
	door    *Door
	name    string // metric label and audit word
	signals *revocation.Signals
	replays *revocation.Replays
}

func (d *Door) way(name string, s *revocation.Signals) way {
	return way{d, name, s, revocation.NewReplays(replayed)}
}

func (w *way) count(effect, outcome string) {
	w.door.config.Heard(w.signals.Issuer, w.name, effect, outcome)
}

// refused counts a signal that is not taken, and says so where an operator looks. why never holds what was sent.
func (w *way) refused(ctx context.Context, why error) {
	w.count("none", "refused")
	w.door.config.Logger.LogAttrs(ctx, slog.LevelWarn, "a revocation signal is refused", slog.String("issuer", w.signals.Issuer),
		slog.String("way", w.name), slog.String("error", why.Error()))
}

// apply publishes what a signal says. nil: it may be acknowledged. It goes on when the sender hangs up: what was begun
// is finished, so that a repetition finds it done.
func (w *way) apply(ctx context.Context, r *revocation.Reading) error {
	if r.ID != "" && w.replays.Seen(r.ID) {
		w.count("none", "repeated")
		return nil
	}
	switch {
	case r.Ignored != "" && r.Gap != "":
		w.count("none", "unfit")
		w.door.config.Logger.LogAttrs(ctx, slog.LevelError, "a revocation signal is authentic and cannot be applied", slog.String("issuer", w.signals.Issuer),
			slog.String("way", w.name), slog.String("type", r.Type), slog.String("why", r.Ignored))
	case len(r.Events) == 0:
		w.count("none", "ignored")
	}
	if len(r.Events) > 0 {
		if err := w.publish(ctx, r.Events...); err != nil {
			return err
		}
	}
	if r.ID != "" {
		w.replays.Remember(r.ID)
	}
	return nil
}

func (w *way) publish(ctx context.Context, events ...revocation.Event) error {
	now := time.Now()
	for i := range events {
		events[i].Heard = now
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	err := w.door.config.Publisher.Publish(ctx, events...)
	if err != nil {
		w.door.config.Logger.LogAttrs(ctx, slog.LevelError, "a revocation is not durable, so it is not acknowledged", slog.String("issuer", w.signals.Issuer),
			slog.String("way", w.name), slog.String("error", err.Error()))
		for i := range events {
			w.count(events[i].Effect.String(), "failed")
		}
	}
	return err
}

// read reads a body of at most maxBody bytes of the media type want.
func read(r *http.Request, want string) ([]byte, *revocation.Refusal) {
	v := r.Header["Content-Type"]
	if len(v) != 1 {
		return nil, &revocation.Refusal{Code: revocation.InvalidRequest, Text: "Content-Type is missing, or given twice"}
	}
	media, _, _ := strings.Cut(v[0], ";")
	if !strings.EqualFold(strings.Trim(media, " \t"), want) {
		return nil, &revocation.Refusal{Code: revocation.InvalidRequest, Text: "Content-Type is not " + want}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, &revocation.Refusal{Code: revocation.InvalidRequest, Text: "the body broke off"}
	case len(body) > maxBody:
		return nil, &revocation.Refusal{Code: revocation.InvalidRequest, Text: fmt.Sprintf("the body is longer than %d bytes", maxBody)}
	}
	return body, nil
}

// later tells a sender to come again.
func later(w http.ResponseWriter) {
	w.Header()["Retry-After"] = soon
	w.WriteHeader(http.StatusServiceUnavailable)
}
