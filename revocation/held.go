package revocation

// Held lists what is held against the tokens of an issuer and fits match, newest first and at most most of them. What
// writers wait for is short; reading what is held is not.
func (l *Ledger) Held(issuer string, match func(e *Event) bool, most int) (all []Event) {
	l.mu.Lock()
	var bodies []string
	for h := l.store.newest; h != nil; h = h.prev {
		if h.issuer == issuer {
			bodies = append(bodies, h.body)
		}
	}
	l.mu.Unlock()
	for _, body := range bodies {
		e, _, err := parseEventLine([]byte(body))
		if err == nil && match(&e) {
			if all = append(all, e); len(all) == most {
				break
			}
		}
	}
	return all
}
