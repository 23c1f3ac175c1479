package watchword

import (
	"context"
	"fmt"
	"time"
)

// Query asks a Source about one token. It carries everything that the freshness formula needs, so Sources stay plain
// pipes. It is a value; raising its demand makes a new one.
type Query struct {
	Token      Token
	Key        Key         // identity of the question, the only index of a cache
	Issuer     string      // the configured issuer to ask; nothing below the Verifier guesses
	Credential *Credential // whose credential asks; nil: the issuer's own
	Peer       string      // who presented the token, for the budget of unknown tokens; empty: all such share one
	At         time.Time   // when the check began: every bound is counted back from here
	AskedSince time.Time   // an answer asked for earlier does not count: a revocation or a recheck said so
	Freshness  Freshness   // the bounds
	Coverage   Coverage    // what feeds prove, read before asking
	Hold       bool        // a doubted inactive answer (Error.Doubted) counts as an outage, so that a stale one may serve
	Background bool        // nobody waits for the answer: whoever rations questions serves those first that somebody waits for
}

// Source answers as freshly as the Query demands. An inactive token is an Answer; an error means "could not know" and
// is an *Error. A Source that cannot know may return what it knew before beside the error: the Verifier weighs it, and
// decides by the words of the policy whether that error excuses it. Safe for concurrent use.
type Source interface {
	Introspect(ctx context.Context, q Query) (*Answer, error)
}

// SourceFunc is a Source made of a function.
type SourceFunc func(context.Context, Query) (*Answer, error)

// Introspect calls f.
func (f SourceFunc) Introspect(ctx context.Context, q Query) (*Answer, error) { return f(ctx, q) }

// Failure is why an answer could not be had. The list is closed. It is an error, so errors.Is(err, Unavailable) works
// on every *Error.
type Failure uint8

// The failures. There is no zero Failure.
const (
	Unavailable    Failure = iota + 1 // timeout, reset, 5xx, 429
	ClientRejected                    // the authorization server refuses our own credential: page someone
	ProtocolError                     // it answered nonsense
	ConfigError                       // we ask wrongly: 404, 405, a redirect, no such issuer, not discovered yet
	Throttled                         // this peer asked about too many tokens that nobody knows; nobody was asked
	Canceled                          // the caller left
)

// Failures lists every Failure in order, for tables and metrics.
func Failures() []Failure {
	return []Failure{Unavailable, ClientRejected, ProtocolError, ConfigError, Throttled, Canceled}
}

var failures = [...]string{"unknown", "unavailable", "client_rejected", "protocol_error", "config_error", "throttled", "canceled"}

// Error returns the word of f, which is also its metric label.
func (f Failure) Error() string {
	if int(f) >= len(failures) {
		f = 0
	}
	return failures[f]
}

// Error is a Source's error. It never holds a token, a secret or what an authorization server wrote.
type Error struct {
	Failure    Failure
	Issuer     string        // our name for the authorization server
	RetryAfter time.Duration // zero: it did not say
	Cause      error         // for logs
	Rejection  *Rejection    // set where a caller's own Credential was refused: the answer to hand back
	Doubted    bool          // the server said inactive, in a storm of such answers that is no revocation: nobody knows
}

// Rejection is an authorization server's refusal of a caller's own Credential, relayed to that caller.
type Rejection struct {
	Status      int    // 401 or 403
	Challenge   string // WWW-Authenticate; empty: none
	ContentType string
	Body        []byte // bounded by who made it
}

// Error names the issuer, the failure and its cause.
func (e *Error) Error() string {
	if e.Cause == nil {
		return fmt.Sprintf("issuer %q: %v", e.Issuer, e.Failure)
	}
	return fmt.Sprintf("issuer %q: %v: %v", e.Issuer, e.Failure, e.Cause)
}

// Unwrap lets errors.Is find the Failure and the Cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Failure}
	}
	return []error{e.Failure, e.Cause}
}
