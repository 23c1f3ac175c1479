package revocation

import (
	"context"
	"errors"
	"time"
)

// Sink takes what feeds bring, in the order in which it happened there. The Ledger is one. Safe for concurrent use.
type Sink interface {
	// Apply takes events. They are in force when it returns, whatever the error; nil: they also outlive this process, as
	// far as the Sink is durable, and only then may a sender be told.
	Apply(ctx context.Context, events ...Event) error

	// Cover is a proof, in its place among the events: every revocation of issuer that its covering feed covers and that
	// happened until through, on our clock, has been applied before.
	Cover(issuer string, through time.Time)

	// Gap tells that something may have been missed: what was asked before now is extended by nobody. An empty issuer
	// means every issuer. Whoever brings begins with a Gap unless it resumes exactly where it stood.
	Gap(issuer, why string)
}

// Publisher takes events from a way in and returns nil only when they are durable where the whole fleet reads them and
// in force here. On one machine the Ledger itself is one; in a fleet the bus is.
type Publisher interface {
	Publish(ctx context.Context, events ...Event) error
	// Prove forwards a proof of coverage, in order with the events that were published before.
	Prove(ctx context.Context, issuer string, through time.Time) error
	// Lapse forwards a gap of a covering feed (a paused stream, a message that could not be read).
	Lapse(ctx context.Context, issuer, why string) error
}

// What a driver's error is, beside its own words, where an operator must mend it.
var (
	ErrCredential = errors.New("it refuses the credential") // password, key or certificate
	ErrForbidden  = errors.New("it forbids something")      // to who is known
	ErrCluster    = errors.New("it is a node of a cluster") // and was taken for a server of its own
)

// Entry is one message of a Log.
type Entry struct {
	Position string // where to go on after it; opaque, of bounded size
	Body     []byte
}

// Log is what a bus driver implements: one ordered, append-only log that every node reads whole, and a keyed store
// beside it for what must outlive the log. Bodies are opaque and already sealed. Every driver passes feedtest. Safe for
// concurrent use.
type Log interface {
	// Append adds one message; nil: the engine acknowledged it as durable.
	Append(ctx context.Context, body []byte) error

	// Read calls each with every message after from ("" for the oldest that is left), in order, and then with new ones
	// as they come, until ctx ends or each fails. It reconnects by itself. Where continuity with from, or across a
	// reconnect, cannot be shown (the log was truncated past it, or is another one than before: replication id, stream
	// creation, partition count), gap is called before the next message, and the log may then be read from its oldest
	// message again. failed is told why reading does not go on, before it is tried again.
	Read(ctx context.Context, from string, each func(Entry) error, gap func(why string), failed func(err error)) error

	// Keep stores body under key for at least until, replacing what was there; nil: durable.
	Keep(ctx context.Context, key string, body []byte, until time.Time) error

	// Kept calls each with everything that Keep stored and that is not over, in any order.
	Kept(ctx context.Context, each func(key string, body []byte) error) error

	// Close gives the connection back.
	Close() error
}
