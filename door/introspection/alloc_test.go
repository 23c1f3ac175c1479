//go:build !race

package introspection_test

import (
	"math"
	"net/http"
	"testing"

	"github.com/watchword-dev/watchword/door/introspection"
)

// Under the race detector a sync.Pool forgets at random, so nothing is counted there.

// A hit costs at most three allocations more than the same request costs a bare handler.
// Not parallel: it counts the allocations of the whole process.
func TestHitAllocations(t *testing.T) {
	count := func(h http.Handler, header string) float64 {
		k := newKeepAlive(t, start(t, h, plain), header)
		var failed error
		n := math.Inf(1)
		for range 3 { // on a busy machine net/http makes one more, now and then
			n = min(n, testing.AllocsPerRun(500, func() {
				if err := k.ask(); err != nil {
					failed = err
				}
			}))
		}
		if failed != nil {
			t.Fatal(failed)
		}
		return n
	}
	const named = "X-Request-ID: 4f2c9a\r\n"
	for _, c := range []struct {
		name, header string
		door         *introspection.Door
	}{{"all claims", "", hitDoor(t)}, {"all claims, with a request id", named, hitDoor(t)}, {"some claims", "", hitDoor(t, "sub", "scope", "exp")}} {
		bare, hit := count(hello, c.header), count(c.door, c.header)
		t.Logf("%s: a bare handler %v, a hit %v", c.name, bare, hit)
		if hit > bare+3 {
			t.Errorf("%s: %v allocations, a bare handler has %v", c.name, hit, bare)
		}
	}
}

// The door itself allocates the token, which outlives the request, and a request id where none came.
// Not parallel: it counts the allocations of the whole process.
func TestHandlerAllocations(t *testing.T) {
	for _, c := range []struct {
		name   string
		most   float64
		claims []string
		header []string
	}{
		{"with a request id", 1, nil, []string{"X-Request-Id", "4f2c9a"}},
		{"without one", 3, nil, nil},
		{"some claims", 3, []string{"sub", "scope", "exp"}, nil},
		{"with a bound", 4, nil, []string{"Cache-Control", "max-age=30"}},
	} {
		ask, w := direct(hitDoor(t, c.claims...), c.header...)
		n := testing.AllocsPerRun(500, ask)
		t.Logf("%s: %v", c.name, n)
		if n > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.name, n, c.most)
		}
		if w.bytes < 60 {
			t.Errorf("%s: no answer, %d bytes", c.name, w.bytes)
		}
	}
}
