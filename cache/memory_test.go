package cache_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
	"unsafe"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
)

// What a cache says it takes is what it takes: max_bytes is a bound on memory, not on a guess. Not parallel: it
// measures the heap.
func TestCAC06BytesPerEntry(t *testing.T) {
	const n = 20_000
	before := heap()
	_, m := verifier(t, n)
	s := m.Stats()
	perEntry := float64(heap()-before) / n
	counted := float64(s.Bytes) / n
	t.Logf("%.0f bytes of heap per entry of 552 bytes, %.0f counted", perEntry, counted)
	if s.Entries != n {
		t.Errorf("%d entries; want %d", s.Entries, n)
	}
	if perEntry > 1250 {
		t.Errorf("%.0f bytes of heap per entry; want at most 1250", perEntry)
	}
	if counted < 0.8*perEntry || counted > 1.25*perEntry {
		t.Errorf("%.0f bytes counted per entry, %.0f taken: entryBytes is off", counted, perEntry)
	}
}

func heap() int64 {
	var s runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// The bound holds: ten times as much as fits leaves no more than fits.
func TestMaxBytesHolds(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	m, err := cache.New(cache.Config{MaxBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	src := m.Over(watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
		return watchword.ParseAnswer(body(1), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
	}), 0)
	for i := range 10_000 {
		q := watchword.Query{Issuer: "main", At: time.Now(), Freshness: watchword.Freshness{MaxStaleness: time.Hour}}
		q.Key[0], q.Key[1], q.Key[2] = byte(i), byte(i>>8), 1
		if _, err := src.Introspect(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(10 * time.Second) // maintenance runs beside the writes
	for m.Stats().Bytes > limit && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if s := m.Stats(); s.Bytes > limit || s.Entries == 0 {
		t.Errorf("%d entries of %d bytes; want at most %d", s.Entries, s.Bytes, limit)
	}
}

// Covers: CAC-06 T18
// A dump of the heap holds no token, only keys. The bytes of the token are wiped after the question, so whatever is
// found is a copy that somebody keeps.
func TestNoTokenInAHeapDump(t *testing.T) {
	canary := bytes.Repeat([]byte{'c', 'A', 'n', 'a', 'R', 'y'}, 7)
	raw := bytes.Clone(canary)
	m, err := cache.New(cache.Config{Inactive: cache.Inactive{TTL: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	v, err := watchword.New(watchword.Config{Issuers: []watchword.Issuer{{Name: "main"}},
		Source: m.Over(watchword.SourceFunc(func(_ context.Context, q watchword.Query) (*watchword.Answer, error) {
			return watchword.ParseAnswer([]byte(`{"active":true,"sub":"remembered-subject"}`), watchword.Evidence{Issuer: q.Issuer, Asked: time.Now()})
		}), 0),
		Routes: []watchword.Route{{Policy: watchword.Policy{Name: "all", Freshness: watchword.Freshness{MaxStaleness: time.Hour}}}}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan watchword.Reason)
	go func() { // on a stack of its own, which is gone before the dump
		done <- v.Verify(context.Background(), watchword.Request{Token: watchword.Token(unsafe.String(&raw[0], len(raw)))}).Reason
	}()
	if r := <-done; r != watchword.OK {
		t.Fatal(r)
	}
	clear(raw)
	for i := range canary {
		canary[i] ^= 0x20 // and the pattern itself must not be found
	}
	runtime.GC()
	file, err := os.Create(filepath.Join(t.TempDir(), "heap"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	debug.WriteHeapDump(file.Fd())
	dump, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(dump, []byte("remembered-subject")) {
		t.Error("the dump lacks the answer: this test proves nothing")
	}
	for i := range canary {
		canary[i] ^= 0x20
	}
	if bytes.Contains(dump, canary[:24]) {
		t.Error("the dump holds the token")
	}
	if m.Stats().Entries != 1 {
		t.Error("nothing is remembered")
	}
}
