package revocation

import (
	"testing"
	"time"
)

// deaf is a Sink that counts.
type deaf struct {
	Sink
	gaps, covers int
}

func (d *deaf) Gap(string, string)      { d.gaps++ }
func (d *deaf) Cover(string, time.Time) { d.covers++ }

// A node whose clock is ahead by more than skew is seen by its messages, and what it proves counts for nothing.
//
// Covers: CAC-11
func TestAClockThatIsAheadProvesNothing(t *testing.T) {
	t.Parallel()
	var ahead time.Duration
	var kinds []GapKind
	sink := new(deaf)
	f, err := NewFleet(FleetConfig{Log: struct{ Log }{}, Sink: sink, Secret: []byte("0123456789abcdef"),
		Issuer: func(string) (string, bool) { return "https://as.example", true },
		Watch: FleetWatch{Ahead: func(d time.Duration) { ahead = d },
			Gap: func(_ string, kind GapKind, _ string) { kinds = append(kinds, kind) }}})
	if err != nil {
		t.Fatal(err)
	}
	sent := uint64(0)
	heard := func(kind kind, off time.Duration) {
		sent++
		now := time.Now()
		r := &record{kind: kind, from: publisher{1}, sequence: sent, sent: now.Add(off), issuer: "main", through: now.Add(-time.Minute)}
		f.read(t.Context(), sink, f.seal.seal(r))
		f.read(t.Context(), sink, f.seal.seal(&record{kind: kindHello, from: f.self, sequence: sent, sent: now}))
	}
	heard(kindHello, -time.Minute) // late, or behind: nobody can tell
	if heard(kindProof, 500*time.Millisecond); ahead <= 0 || ahead > 500*time.Millisecond || sink.covers != 1 || len(kinds) != 0 {
		t.Errorf("within skew: ahead %v, %d proofs, gaps %v", ahead, sink.covers, kinds)
	}
	if heard(kindProof, time.Hour); ahead < 59*time.Minute || sink.covers != 1 || len(kinds) != 1 || kinds[0] != GapClock {
		t.Errorf("an hour: ahead %v, %d proofs, gaps %v", ahead, sink.covers, kinds)
	}
	if heard(kindHello, 0); ahead > 0 {
		t.Errorf("mended: ahead %v", ahead)
	}
	sent += 3 // what this node sent is gone
	if heard(kindHello, 0); len(kinds) != 3 || kinds[1] != GapMissing || kinds[2] != GapMissing {
		t.Errorf("messages that are gone: gaps %v", kinds)
	}
}
