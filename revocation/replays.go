package revocation

import (
	"crypto/sha256"
	"sync"
)

// Replays remembers, in bounded memory, which signals were dealt with, so that a repeated one costs nothing and is
// answered as if it were new (RFC 8935 §2). Forgetting one is harmless: events of one ID are one event. The newest Size
// are certain to be remembered, and up to twice as many are. Safe for concurrent use; make it with NewReplays.
type Replays struct {
	size int

	mu         sync.Mutex
	young, old map[[sha256.Size]byte]struct{}
}

// NewReplays makes a memory for the newest size signals; less than one counts as one.
func NewReplays(size int) *Replays {
	return &Replays{size: max(1, size), young: map[[sha256.Size]byte]struct{}{}}
}

// Seen reports whether id was remembered.
func (r *Replays) Seen(id string) bool {
	key := sha256.Sum256([]byte(id))
	r.mu.Lock()
	defer r.mu.Unlock()
	_, young := r.young[key]
	_, old := r.old[key]
	return young || old
}

// Remember takes note of id. Call it only after what it stands for is durable.
func (r *Replays) Remember(id string) {
	key := sha256.Sum256([]byte(id))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young[key] = struct{}{}; len(r.young) >= r.size {
		r.young, r.old = make(map[[sha256.Size]byte]struct{}, r.size), r.young
	}
}
