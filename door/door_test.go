package door

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

func TestTraceKeepsOrMakesAnID(t *testing.T) {
	t.Parallel()
	f := func(want string, ids ...string) {
		t.Helper()
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["X-Request-Id"] = ids
		w := httptest.NewRecorder()
		id, _ := Trace(w, r)
		if want != "" && id != want || want == "" && len(id) != 32 {
			t.Errorf("%q: id %q, want %q", ids, id, want)
		}
		if got := w.Header()["X-Request-Id"]; len(got) != 1 || got[0] != id {
			t.Errorf("%q: echoed as %q, id %q", ids, got, id)
		}
	}
	f("a b~1", "a b~1")
	f(strings.Repeat("x", 128), strings.Repeat("x", 128))
	f("")
	f("", "")
	f("", strings.Repeat("x", 129))
	f("", "a", "b")
	f("", "a\x7f")
	f("", "a\nb")
	f("", "é")
	seen := map[string]bool{}
	for range 1000 {
		seen[newID()] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different ids of 1000", len(seen))
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	f := func(want string, values ...string) {
		t.Helper()
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Traceparent"] = values
		if _, got := Trace(httptest.NewRecorder(), r); got != want {
			t.Errorf("%q: %q, want %q", values, got, want)
		}
	}
	f(good, good)
	f("cc"+good[2:], "cc"+good[2:]+"-what-comes")
	f("", good, good)
	for _, bad := range []string{"", good[:54], good + "-x", "ff" + good[2:], "cc" + good[2:] + "x", strings.ToUpper(good), "00-" + strings.Repeat("0", 32) + good[35:], good[:36] + strings.Repeat("0", 16) + "-01", strings.Replace(good, "-", "_", 1), good[:53] + "zz", "0x" + good[2:]} {
		f("", bad)
	}
}

func TestTraceAllocatesTwiceAtMost(t *testing.T) {
	w := &discard{h: http.Header{}}
	r := httptest.NewRequest("GET", "/", nil)
	if n := testing.AllocsPerRun(100, func() { clear(w.h); Trace(w, r) }); n > 2 {
		t.Errorf("a new id: %v allocations", n)
	}
	r.Header["X-Request-Id"] = []string{"abc"}
	if n := testing.AllocsPerRun(100, func() { clear(w.h); Trace(w, r) }); n != 0 {
		t.Errorf("an id that came: %v allocations", n)
	}
}
