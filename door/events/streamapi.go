package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

const (
	byPush      = "urn:ietf:rfc:8935"
	byPoll      = "urn:ietf:rfc:8936"
	verifyEvery = 10 * time.Second
	apiTimeout  = 10 * time.Second
	pollTimeout = 60 * time.Second // a transmitter may hold an empty answer back
	maxReply    = 4 << 20          // of a poll: its SETs together
	maxSets     = 64               // asked for at once
)

// api is what the transmitter said of itself and of our stream.
type api struct {
	configuration, verification string
	critical                    []string // SSF 1.0 §3.6

	id, poll string        // of the stream; where it is polled
	interval time.Duration // min_verification_interval
}

// errGone says that the stream is no more.
var errGone = errors.New("the transmitter does not know the stream any more")

// slowDown is a 429, or a 503 that says how long.
type slowDown struct{ after time.Duration }

func (s slowDown) Error() string { return fmt.Sprintf("asked to wait for %v", s.after) }

// run keeps the stream alive until ctx ends.
func (s *stream) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		err := s.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			failures = 0
		}
		wait := pause(failures, rand.Float64())
		if slow, is := errors.AsType[slowDown](err); is {
			wait = max(wait, slow.after)
		}
		failures++
		s.door.config.Logger.LogAttrs(ctx, slog.LevelWarn, "an event stream is interrupted", slog.String("stream", s.config.Name),
			slog.String("error", err.Error()), slog.Duration("again_in", wait))
		sleep(ctx, wait)
	}
}

// pause is how long to wait after the nth failure in a row, counted from 0: it doubles from a second to a minute, and
// u in [0,1) takes up to half of it away, so that a fleet does not come back as one.
func pause(n int, u float64) time.Duration {
	d := time.Minute
	if n < 6 {
		d = min(d, time.Second<<n)
	}
	return d - time.Duration(u*float64(d)/2)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// session finds or makes the stream and serves it until something fails.
func (s *stream) session(ctx context.Context) error {
	a, err := s.discover(ctx)
	if err != nil {
		return err
	}
	s.critical.Store(&a.critical)
	fresh, err := s.setUp(ctx, a)
	if err != nil {
		return err
	}
	if fresh { // what happened before there was a stream, nobody sends
		if err := s.lapse(ctx, "new_stream"); err != nil {
			return err
		}
	}
	s.door.config.Logger.LogAttrs(ctx, slog.LevelInfo, "an event stream is set up", slog.String("stream", s.config.Name), slog.Bool("new", fresh))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	workers := 1
	go func() { ended <- s.keepVerifying(ctx, a) }()
	if s.config.Path == "" {
		workers++
		go func() { ended <- s.keepPolling(ctx, a) }()
	}
	err = <-ended
	cancel()
	for ; workers > 1; workers-- {
		<-ended
	}
	if errors.Is(err, errGone) {
		return errors.Join(err, s.lapse(ctx, "stream_gone"))
	}
	return err
}

// discover reads the transmitter's metadata (SSF 1.0 §7.2), which must name the transmitter that we meant.
func (s *stream) discover(ctx context.Context) (*api, error) {
	id, err := url.Parse(s.config.Transmitter)
	if err != nil {
		return nil, errors.New("the transmitter is no URL")
	}
	path := strings.TrimSuffix(id.EscapedPath(), "/")
	var last error
	for _, known := range []string{"/.well-known/ssf-configuration", "/.well-known/sse-configuration", "/.well-known/risc-configuration"} {
		_, c, err := s.call(ctx, http.MethodGet, id.Scheme+"://"+id.Host+known+path, nil, false)
		if err != nil {
			last = fmt.Errorf("%s: %w", known, err)
			continue
		}
		if iss, _ := c.Text("issuer"); iss != s.config.Transmitter {
			return nil, errors.New("the metadata is another transmitter's: issuer must be equal byte for byte")
		}
		a := new(api)
		a.configuration, _ = c.Text("configuration_endpoint")
		a.verification, _ = c.Text("verification_endpoint")
		if v, there := c.Get("critical_subject_members"); there {
			a.critical, _ = watchword.Strings(v)
		}
		if a.configuration == "" {
			return nil, errors.New("the metadata names no configuration_endpoint: set the stream up at the transmitter, and leave the stream API out")
		}
		return a, nil
	}
	return nil, last
}

// setUp finds our stream, or makes one: whoever has one already is told 409 (SSF 1.0 §8.1.1.1).
func (s *stream) setUp(ctx context.Context, a *api) (fresh bool, err error) {
	found, err := s.find(ctx, a)
	if err != nil || found {
		return false, err
	}
	status, c, err := s.call(ctx, http.MethodPost, a.configuration, map[string]any{"delivery": s.delivery(), "events_requested": revocation.EventTypes(),
		"description": "Watchword " + s.config.Name}, true)
	switch {
	case status == http.StatusConflict:
		if found, err = s.find(ctx, a); err == nil && !found {
			err = errors.New("the transmitter has a stream of ours with another delivery, and allows no second one: delete it there")
		}
		return false, err
	case err != nil:
		return false, err
	case status == http.StatusAccepted: // pending (§8.1.1.1): it will be there
		return false, slowDown{10 * time.Second}
	}
	return true, s.adopt(a, c)
}

// delivery is how we want to be served.
func (s *stream) delivery() map[string]any {
	if s.config.Path == "" {
		return map[string]any{"method": byPoll}
	}
	d := map[string]any{"method": byPush, "endpoint_url": s.config.Endpoint}
	if secrets, err := s.config.Bearer(); err == nil && len(secrets) > 0 {
		d["authorization_header"] = "Bearer " + secrets[0]
	}
	return d
}

// find looks for a stream with our delivery (§8.1.1.2): one object, or a list.
func (s *stream) find(ctx context.Context, a *api) (bool, error) {
	status, body, err := s.raw(ctx, http.MethodGet, a.configuration, nil, true)
	if status == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var list []json.RawMessage
	if text := bytes.TrimSpace(body); len(text) > 0 && text[0] == '[' {
		if json.Unmarshal(text, &list) != nil {
			return false, errors.New("the list of streams is no JSON")
		}
	} else {
		list = []json.RawMessage{text}
	}
	for _, one := range list {
		c, err := watchword.ParseClaims(one)
		if err != nil {
			return false, fmt.Errorf("a stream's configuration: %w", err)
		}
		text, _ := c.Get("delivery")
		delivery, err := watchword.ParseClaims([]byte(text))
		if err != nil {
			continue
		}
		method, _ := delivery.Text("method")
		at, _ := delivery.Text("endpoint_url")
		if s.config.Path == "" && method == byPoll || s.config.Path != "" && method == byPush && at == s.config.Endpoint {
			return true, s.adopt(a, c)
		}
	}
	return false, nil
}

// adopt reads a stream's configuration (§8.1.1).
func (s *stream) adopt(a *api, c watchword.Claims) error {
	a.id, _ = c.Text("stream_id")
	if iss, ok := c.Text("iss"); ok && iss != s.config.Transmitter {
		return errors.New("the stream is of another iss than the transmitter")
	}
	if v, ok := c.Get("min_verification_interval"); ok {
		if n, err := strconv.ParseInt(v, 10, 32); err == nil && n > 0 {
			a.interval = time.Duration(n) * time.Second
		}
	}
	text, _ := c.Get("delivery")
	if delivery, err := watchword.ParseClaims([]byte(text)); err == nil {
		a.poll, _ = delivery.Text("endpoint_url")
	}
	switch {
	case a.id == "":
		return errors.New("the stream has no stream_id")
	case s.config.Path == "" && a.poll == "":
		return errors.New("the stream does not say where it is polled")
	}
	return nil
}

// keepVerifying asks for a verification event again and again, no faster than the transmitter allows (§8.1.4).
func (s *stream) keepVerifying(ctx context.Context, a *api) error {
	every := s.config.Every
	if every == 0 {
		every = verifyEvery
	}
	every = max(every, a.interval)
	if a.verification == "" {
		s.door.config.Logger.LogAttrs(ctx, slog.LevelWarn, "the transmitter verifies no stream: this one covers nothing", slog.String("stream", s.config.Name))
		<-ctx.Done()
		return ctx.Err()
	}
	for failures := 0; ctx.Err() == nil; {
		wait := every
		status, _, err := s.raw(ctx, http.MethodPost, a.verification, map[string]any{"stream_id": a.id, "state": s.state(time.Now())}, true)
		slow, is := errors.AsType[slowDown](err)
		switch {
		case status == http.StatusNotFound:
			return errGone
		case is:
			wait = max(every, slow.after)
		case err != nil && failures >= 3:
			return err
		case err != nil:
			failures++
		default:
			failures = 0
		}
		sleep(ctx, wait)
	}
	return ctx.Err()
}

// keepPolling fetches SETs, acknowledges what is durable, and reports what is bad (RFC 8936 §2). The SETs of one answer have
// no order, and more may wait behind it, so what is proven counts when everything that there is has been applied.
func (s *stream) keepPolling(ctx context.Context, a *api) error {
	ack, bad := []string{}, map[string]setError{}
	var proven time.Time
	for failures := 0; ctx.Err() == nil; {
		ask := map[string]any{"maxEvents": maxSets, "returnImmediately": false, "ack": ack, "setErrs": bad}
		began := time.Now()
		status, body, err := s.rawWithin(ctx, pollTimeout, http.MethodPost, a.poll, ask, true)
		if status == http.StatusNotFound {
			return errGone
		}
		var sets map[string]string
		var more bool
		if err == nil {
			sets, more, err = polled(body)
		}
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) && time.Since(began) >= pollTimeout { // nothing came
				continue
			}
			if failures++; failures > 3 {
				return err
			}
			wait := pause(failures, rand.Float64())
			if slow, is := errors.AsType[slowDown](err); is {
				wait = max(wait, slow.after)
			}
			sleep(ctx, wait)
			continue // what was to be acknowledged still is
		}
		failures, ack, bad = 0, []string{}, map[string]setError{}
		unfinished := false
		for jti, envelope := range sets {
			through, err := s.hear(ctx, envelope)
			switch refusal, is := errors.AsType[*revocation.Refusal](err); {
			case err == nil:
				if ack = append(ack, jti); through.After(proven) {
					proven = through
				}
			case is:
				bad[jti] = setError{string(refusal.Code), refusal.Text}
			default:
				unfinished = true // neither: it comes again
			}
		}
		if !more && !unfinished && !proven.IsZero() {
			_ = s.prove(ctx, proven) // it said why not; another one comes
			proven = time.Time{}
		}
		switch {
		case unfinished:
			sleep(ctx, time.Second)
		case len(sets) == 0 && !more && time.Since(began) < time.Second: // it does not hold answers back
			sleep(ctx, time.Second)
		}
	}
	return ctx.Err()
}

// polled reads the answer to a poll (RFC 8936 §2.3). Its members are few and known, and its SETs are strings.
func polled(body []byte) (sets map[string]string, more bool, err error) {
	var reply struct {
		Sets map[string]string `json:"sets"`
		More bool              `json:"moreAvailable"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, false, errors.New("the answer to a poll is no JSON of its kind (RFC 8936 §2.3)")
	}
	if len(reply.Sets) > 4*maxSets {
		return nil, false, fmt.Errorf("the answer to a poll holds %d SETs: %d were asked for", len(reply.Sets), maxSets)
	}
	return reply.Sets, reply.More, nil
}

// call is raw, with an answer that is one strict object, or nothing.
func (s *stream) call(ctx context.Context, method, at string, body any, authorized bool) (int, watchword.Claims, error) {
	status, text, err := s.raw(ctx, method, at, body, authorized)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return status, watchword.Claims{}, err
	}
	c, err := watchword.ParseClaims(text)
	return status, c, err
}

func (s *stream) raw(ctx context.Context, method, at string, body any, authorized bool) (int, []byte, error) {
	return s.rawWithin(ctx, apiTimeout, method, at, body, authorized)
}

// rawWithin asks the transmitter, with each token until one is not refused. Where others can be had, they are tried once.
func (s *stream) rawWithin(ctx context.Context, within time.Duration, method, at string, body any, authorized bool) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if !authorized {
		return s.once(ctx, method, at, body, "")
	}
	var status int
	var text []byte
	var err error
	for again := s.config.Refused != nil; ; again = false {
		tokens, lacking := s.config.Token(ctx)
		if lacking != nil {
			return 0, nil, fmt.Errorf("the stream API's token: %w", lacking)
		}
		for _, token := range tokens {
			if status, text, err = s.once(ctx, method, at, body, token); status != http.StatusUnauthorized {
				return status, text, err
			}
			if s.config.Refused != nil {
				s.config.Refused(token)
			}
		}
		if !again {
			return status, text, err
		}
	}
}

func (s *stream) once(ctx context.Context, method, at string, body any, token string) (int, []byte, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, at, content)
	if err != nil {
		return 0, nil, errors.New("the transmitter names an endpoint that is no URL")
	}
	r.Header["Accept"] = typeJSON
	if content != nil {
		r.Header["Content-Type"] = typeJSON
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := s.config.Client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		return 0, nil, plain(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxReply+1))
	switch status := answer.StatusCode; {
	case err != nil && ctx.Err() != nil:
		return 0, nil, ctx.Err()
	case err != nil:
		return 0, nil, errors.New("the answer broke off")
	case len(text) > maxReply:
		return 0, nil, fmt.Errorf("the answer is longer than %d bytes", maxReply)
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return status, nil, slowDown{retryAfter(answer.Header.Get("Retry-After"))}
	case status < 200 || status > 299:
		return status, nil, fmt.Errorf("%s: status %d", method, status)
	default:
		return status, text, nil
	}
}

// plain says what went wrong without the URL, which a transmitter may have chosen.
func plain(err error) error {
	if u, is := errors.AsType[*url.Error](err); is {
		return u.Err
	}
	return err
}

// retryAfter is the seconds of that header, from 1 to 60; a date counts as the most.
func retryAfter(v string) time.Duration {
	n, err := strconv.Atoi(v)
	switch {
	case v == "":
		return time.Second
	case err != nil:
		return time.Minute
	}
	return time.Duration(min(max(n, 1), 60)) * time.Second
}
