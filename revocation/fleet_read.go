package revocation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// recall applies what is kept beside the log.
func (f *Fleet) recall(ctx context.Context, to Sink) error {
	batch := &record{}
	apply := func() {
		f.apply(ctx, to, batch)
		batch.events = batch.events[:0]
	}
	err := f.c.Log.Kept(ctx, func(_ string, body []byte) error {
		r, err := f.seal.open(body)
		if err != nil {
			f.unreadable(to, err)
			return nil
		}
		f.alien(to, r)
		if batch.events = append(batch.events, r.events...); len(batch.events) >= recallBatch {
			apply()
		}
		return nil
	})
	apply()
	return err
}

// read handles one body of the log.
func (f *Fleet) read(ctx context.Context, to Sink, body []byte) {
	r, err := f.seal.open(body)
	if errors.Is(err, errStranger) {
		f.unreadable(to, err)
		return
	}
	if fresh := f.follow(to, r); err != nil {
		f.unreadable(to, err)
		return
	} else if !fresh && r.kind != kindEvents {
		f.message("duplicate")
		return // an event may be applied as often as it comes; a proof counts in its place only
	}
	f.alien(to, r)
	own := r.from == f.self
	switch r.kind {
	case kindEvents:
		if own {
			f.message("own") // in force since before it was sent
			break
		}
		f.apply(ctx, to, r)
	case kindProof:
		f.prove(to, r)
	case kindLapse:
		if n := f.nodes[r.from]; r.issuer == "" {
			n.through = nil // it proves anew
		} else {
			delete(n.through, r.issuer)
		}
		if !own {
			f.gap(to, r.issuer, GapTold, r.why)
		}
	case kindHello:
		if own {
			f.ours(to, r)
		}
	case kindBye:
		f.nodes[r.from].through = nil
	}
}

// follow keeps the sequence and the clock of r's publisher, and reports whether r comes in its place. A hole is a gap; at
// the start a log may have forgotten what its oldest publishers sent first.
func (f *Fleet) follow(to Sink, r *record) bool {
	n := f.nodes[r.from]
	if n == nil {
		n = &node{}
		f.forget(to)
		f.nodes[r.from] = n
	}
	n.beat = f.beats
	switch {
	case r.sequence <= n.sequence:
		return false
	case r.sequence > n.sequence+1:
		kind := GapMissing
		if n.sequence == 0 && f.Ready() != nil {
			kind = GapStart
		}
		f.gap(to, "", kind, fmt.Sprintf("%d messages of a node are missing", r.sequence-n.sequence-1))
	}
	n.sequence, n.ahead = r.sequence, max(0, time.Until(r.sent))
	return true
}

// forget makes room for one publisher more: the one unheard for longest goes.
func (f *Fleet) forget(to Sink) {
	if len(f.nodes) < maxPublishers {
		return
	}
	var oldest publisher
	for id, n := range f.nodes {
		if o := f.nodes[oldest]; o == nil || n.beat < o.beat {
			oldest = id
		}
	}
	if len(f.nodes[oldest].through) > 0 {
		f.gap(to, "", GapSilent, "more nodes than are remembered")
	}
	delete(f.nodes, oldest)
}

// apply puts events of another node in force. Its clock may be behind ours, and what it heard may have happened later
// than it says, but not later than now.
func (f *Fleet) apply(ctx context.Context, to Sink, r *record) {
	if len(r.events) == 0 {
		return
	}
	now := time.Now()
	events := make([]Event, len(r.events))
	for i, e := range r.events {
		if e.Heard = e.Heard.Add(f.c.Skew); e.Heard.After(now) {
			e.Heard = now
		}
		events[i] = e
	}
	if err := to.Apply(ctx, events...); err != nil {
		f.message("refused")
		f.warn("an event of the bus could not be applied", err)
		f.gap(to, "", GapUnread, "an event could not be applied")
		return
	}
	f.message("applied")
}

// prove moves Through to what every node that proves has proven. A node whose clock is known to be ahead proves nothing.
func (f *Fleet) prove(to Sink, r *record) {
	if len(r.aliens) > 0 {
		return
	}
	through, n := r.through, f.nodes[r.from]
	if r.from != f.self {
		through = through.Add(-f.c.Skew)
	}
	if through.After(time.Now()) || n.ahead > f.c.Skew {
		f.warn("a node proves what has not happened yet: its clock is ahead of ours", nil)
		f.gap(to, r.issuer, GapClock, "a clock is ahead")
		return
	}
	if n.through == nil {
		n.through = map[string]proof{}
	}
	if through.After(n.through[r.issuer].until) {
		f.proofs[r.issuer]++
		n.through[r.issuer] = proof{through, f.proofs[r.issuer]}
		f.leaveBehind(to, r.issuer)
	}
	f.message("applied")
	f.cover(to, r.issuer)
}

// leaveBehind lets go of nodes that are heard, but prove nothing more while others do: a balancer sends the feed
// elsewhere. They would hold coverage back for as long as they live. What they were told is in the log by now, or they
// have lapsed, and what they were not is told to others; nothing asked before that is extended.
func (f *Fleet) leaveBehind(to Sink, issuer string) {
	proving := 0
	for _, n := range f.nodes {
		if _, proves := n.through[issuer]; proves {
			proving++
		}
	}
	for _, n := range f.nodes {
		if last, proves := n.through[issuer]; proves && f.proofs[issuer]-last.count > silentRounds*(proving-1) {
			delete(n.through, issuer)
			f.gap(to, issuer, GapSilent, "a node that proved coverage proves no more, and others do")
		}
	}
}

// cover tells the minimum over the nodes, where it moved.
func (f *Fleet) cover(to Sink, issuer string) {
	var least time.Time
	for _, n := range f.nodes {
		if last, proves := n.through[issuer]; proves && (least.IsZero() || last.until.Before(least)) {
			least = last.until
		}
	}
	if !least.After(f.covered[issuer]) {
		return
	}
	f.covered[issuer] = least
	to.Cover(issuer, least)
}

// ours is our own beat, read: how far the bus is behind, and who has fallen silent. Silence is counted in beats of ours
// that were read, so a bus that stalls and comes back silences nobody.
func (f *Fleet) ours(to Sink, r *record) {
	f.beats++
	f.message("own")
	if f.c.Watch.Lag != nil {
		f.c.Watch.Lag(max(0, time.Since(r.sent)))
	}
	f.ready.Store(nil)
	ahead := time.Duration(0)
	for _, n := range f.nodes {
		if f.beats-n.beat < silentBeats {
			ahead = max(ahead, n.ahead)
			continue
		}
		if len(n.through) == 0 {
			continue
		}
		// What it was told and did not publish, others are told again; nothing asked before that is extended.
		through := n.through
		n.through = nil
		for issuer := range through {
			f.gap(to, issuer, GapSilent, "a node that proved coverage is silent")
		}
	}
	if f.c.Watch.Ahead != nil {
		f.c.Watch.Ahead(ahead)
	}
}

func (f *Fleet) alien(to Sink, r *record) {
	for _, issuer := range r.aliens {
		f.message("foreign")
		f.warn("a message about an issuer that this node does not know, or knows as another: give every node the same issuers", nil)
		f.gap(to, issuer, GapUnread, "another node means another authorization server by that name")
	}
}

// unreadable counts what strangers write. What one of us wrote and we cannot read is a gap.
func (f *Fleet) unreadable(to Sink, err error) {
	switch {
	case errors.Is(err, errStranger):
		f.message("stranger")
		return
	case errors.Is(err, errForeign):
		f.message("foreign")
	default:
		f.message("unreadable")
	}
	f.warn("a message of the bus is not understood", err)
	f.gap(to, "", GapUnread, err.Error())
}
