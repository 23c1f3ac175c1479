package lane

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
)

// What a connection was asked and answered is not held while it waits for more: neither the room of a large answer nor
// the head, which had a token in it.
func TestIdleConnectionsHoldNothing(t *testing.T) { // not parallel: it looks at the heap
	synctest.Test(t, func(t *testing.T) {
		const connections, size = 16, 1 << 20
		much := bytes.Repeat([]byte("a"), size)
		s := open(t, true, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(much) })
		heap := func() int64 {
			synctest.Wait()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		for range connections {
			c := s.dial(t)
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, c, size); err != nil {
				t.Fatal(err)
			}
		}
		if held := heap() - before; held > connections*64<<10 {
			t.Errorf("%d idle connections hold %d bytes", connections, held)
		}
		s.lane.each(func(c *conn) {
			r := &c.request
			if len(r.header) > 0 || r.RequestURI != "" || r.url.Path != "" || bytes.Contains(c.in, []byte("Bearer")) {
				t.Errorf("a request is kept: %+v", r.Request)
			}
			for _, v := range r.values[:cap(r.values)] {
				if v != "" {
					t.Errorf("a value is kept: %q", v)
				}
			}
		})
	})
}
