package watchword

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// What is accepted with a measured offset is accepted without: a clock shortens, never lengthens.
//
// Covers: CAC-11
func TestOffsetOnlyShortensAcceptance(t *testing.T) {
	t.Parallel()
	shorter := 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 2))
		asked := time.Unix(1_800_000_000, r.Int64N(1e9))
		near := func(by int64) int64 { return asked.Unix() + r.Int64N(2*by) - by }
		body := fmt.Appendf(nil, `{"active":true,"exp":%d,"nbf":%d}`, near(200), near(100))
		e := Evidence{Issuer: "main", Asked: asked, Leeway: time.Duration(r.Int64N(int64(time.Minute)))}
		plain, err := ParseAnswer(body, e)
		check(t, err)
		e.Offset = time.Duration(r.Int64N(int64(2*time.Minute))) - time.Minute
		measured, err := ParseAnswer(body, e)
		check(t, err)
		now := asked.Add(time.Duration(r.Int64N(int64(5 * time.Minute))))
		for _, leeway := range []bool{false, true} {
			was, is := !plain.expired(now, leeway) && !plain.early(now), !measured.expired(now, leeway) && !measured.early(now)
			if is && !was {
				t.Fatalf("seed %d: offset %v lengthens %s at %v", seed, e.Offset, body, now)
			}
			if was && !is {
				shorter++
			}
		}
		if left, _ := measured.Remaining(now); left > plain.life {
			t.Fatalf("seed %d: %v remain", seed, left)
		}
	}
	if shorter == 0 {
		t.Error("no acceptance was shortened: the offset does nothing")
	}
}
