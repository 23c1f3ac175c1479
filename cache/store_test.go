package cache_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/cache/storetest"
)

func TestMemoryIsAStore(t *testing.T) {
	t.Parallel()
	m := new(cache.Memory)
	storetest.Run(t, storetest.Config{Open: func(*testing.T) cache.Store { return m }})
}

// FuzzItem: what decodes encodes to itself, whatever a store hands back.
func FuzzItem(f *testing.F) {
	f.Add(cache.Item{Sealed: []byte("x"), AsOf: time.Unix(1, 2)}.Encode())
	f.Add(cache.Item{AsOf: time.Unix(1<<32, 0), Inactive: true}.Encode())
	f.Add([]byte("+0000000000000000001a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := cache.DecodeItem(b); err == nil && !bytes.Equal(i.Encode(), b) {
			t.Errorf("%q became %q", b, i.Encode())
		}
	})
}
