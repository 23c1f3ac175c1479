package revocation

import "sync"

// bell tells whoever waits that more is held than before. The zero value is silent.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // closed at the next ring; nil: nobody waits
}

func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// Changed returns a channel that is closed when more is held against the tokens of an issuer than at the call; nil for
// an issuer that is not known. It is what watchword.Verifier.Watch waits for.
func (l *Ledger) Changed(issuer string) <-chan struct{} {
	if b := (*l.books.Load())[issuer]; b != nil {
		return b.bell.wait()
	}
	return nil
}
