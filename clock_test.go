package watchword_test

import (
	"testing"
	"time"
	"unsafe"
)

// Start is when the clocks of these tests read zero.
var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// instant is wall after start by the wall clock and mono by the monotonic one. Equal, they are a host that never
// slept and whose wall was never set; nothing in package time makes two instants that differ, so this writes the two
// readings where time.Time keeps them (TestInstant fails should they ever move).
func instant(wall, mono time.Duration) time.Time {
	var t time.Time
	w := start.Add(wall)
	since1885 := uint64(w.Unix() - time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	*(*[2]uint64)(unsafe.Pointer(&t)) = [2]uint64{1<<63 | since1885<<30 | uint64(w.Nanosecond()), uint64(time.Hour + mono)}
	return t
}

// both is an instant on which both clocks agree.
func both(d time.Duration) time.Time { return instant(d, d) }

func TestInstant(t *testing.T) {
	t.Parallel()
	a, b := instant(5*time.Second+7, 3*time.Second), instant(time.Hour, 10*time.Second)
	if mono, wall := b.Sub(a), b.Round(0).Sub(a.Round(0)); mono != 7*time.Second || wall != time.Hour-5*time.Second-7 {
		t.Fatalf("monotonic difference %v, wall difference %v: time.Time keeps its readings elsewhere", mono, wall)
	}
	if !a.Round(0).Equal(start.Add(5*time.Second + 7)) {
		t.Fatal(a)
	}
}
