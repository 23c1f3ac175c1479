package door

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

// Covers: T23
func TestT23AmbiguousPaths(t *testing.T) {
	t.Parallel()
	for _, raw := range strings.Split(strings.TrimSpace(`
*
admin
http://api.example/admin
//admin
/a//b
/a//
/./admin
/a/.
/..
/public/..
/public/../admin
/public/...
/public/a./b
/public/a.
/public/..;/admin
/public;jsessionid=1
/a\b
/..\admin
/a#b
/a?b
/%2e%2e/admin
/%2E%2E/admin
/public/%2e%2e/admin
/public/.%2e/admin
/admin%2f..%2fpublic
/admin%2F..%2Fpublic
/a%5cb
/a%5Cb
/a%3bb
/a%3Fb
/a%23b
/a%252fb
/a%25
/%61dmin
/a%41
/a%30
/a%2Db
/a%5Fb
/a%7Eb
/a%00
/a%0d%0ab
/a%1f
/a%7f
/a%20/b
/a%20
/a%
/a%2
/a%2g
/a%g2
/a%u002e
/%c0%ae%c0%ae/admin
/%c0%afadmin
/%e0%80%ae/admin
/%ff
/%C2%85
/%e2%80%a4%e2%80%a4/admin
/%EF%BC%8E%EF%BC%8E/admin
/%ef%bc%8fadmin
/é
`), "\n") {
		if got, ok := Path(raw); ok {
			t.Errorf("%q is read as %q; it must be refused", raw, got)
		}
	}
	for _, raw := range []string{"", "/a\x00", "/a\tb", "/a\r\n", "/a\x7f", "/a ", "/a /b", "/\xff", "/a\u2024", "/%2e", "/%2F"} {
		if got, ok := Path(raw); ok {
			t.Errorf("%q is read as %q; it must be refused", raw, got)
		}
	}
}

// Covers: T23
func TestT23PlainPaths(t *testing.T) {
	t.Parallel()
	f := func(raw, want string) {
		t.Helper()
		if got, ok := Path(raw); !ok || got != want {
			t.Errorf("%q: %q, %v; want %q", raw, got, ok, want)
		}
	}
	for _, same := range []string{"/", "/orders", "/orders/", "/.well-known/x", "/a/.hidden/b", "/a.b/..c", "/Admin", "/a-b_c~d.e", "/a,b=c@d:e!$&'()*+", "/a|b^c`{}<>\"", "/a b"} {
		f(same, same)
	}
	f("/a%20b", "/a b")
	f("/caf%C3%A9", "/café")
	f("/%e4%bd%a0/%22x%22", `/你/"x"`)
	f("/a%3Ab%40c", "/a:b@c")
	f("/%e2%82%ac.txt", "/€.txt")
}

func TestPathAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Path("/orders/0123456789/lines/17") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// readPath is the rules once more, one after the other.
func readPath(raw string) (string, bool) {
	if !strings.HasPrefix(raw, "/") || strings.ContainsAny(raw, `\;#?`) {
		return "", false
	}
	for i := range len(raw) {
		if raw[i] < 0x20 || raw[i] > 0x7e {
			return "", false
		}
	}
	decoded, err := url.PathUnescape(raw)
	if err != nil || !utf8.ValidString(decoded) {
		return "", false
	}
	for i, part := range strings.Split(raw, "%") {
		if i == 0 {
			continue
		}
		one, _ := url.PathUnescape("%" + part[:2])
		if one[0] < 0x20 || one[0] == 0x7f || one[0] < 0x80 && url.QueryEscape(one) == one || strings.Contains(`/\%;?#`, one) {
			return "", false
		}
	}
	segments := strings.Split(decoded[1:], "/")
	for i, s := range segments {
		if s == "" && i < len(segments)-1 || strings.HasSuffix(s, ".") || strings.HasSuffix(s, " ") {
			return "", false
		}
	}
	for _, r := range decoded {
		if r >= 0x80 && r < 0xa0 || strings.ContainsRune("․‥﹒．／﹨＼", r) {
			return "", false
		}
	}
	return decoded, true
}

// Covers: T23
func TestT23EveryShortPath(t *testing.T) {
	t.Parallel()
	atoms := []string{"/", ".", " ", "a", "%20", "%2e", "%2F", "%c3%a9", "%ff", "%", ";", "\\", "%25"}
	var try func(raw string, left int)
	try = func(raw string, left int) {
		got, ok := Path(raw)
		if want, wantOK := readPath(raw); got != want || ok != wantOK {
			t.Errorf("%q: %q, %v; the rules say %q, %v", raw, got, ok, want, wantOK)
		}
		for _, a := range atoms {
			if left > 0 {
				try(raw+a, left-1)
			}
		}
	}
	try("/", 4)
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/", "/a%20b/.well-known/%c3%a9", "/a/../b", "/%2e%2e//;x", "/a./b%20/", "/%e2%80%a4", "/%C2%80", "a", "/%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, ok := Path(raw)
		want, wantOK := readPath(raw)
		if got != want || ok != wantOK {
			t.Fatalf("%q: %q, %v; the rules say %q, %v", raw, got, ok, want, wantOK)
		}
		if !ok {
			return
		}
		// Nothing a backend does next may change it: decode again, clean, split.
		again, err := url.PathUnescape(got)
		if err != nil || again != got {
			t.Fatalf("%q decodes twice: %q, %q", raw, got, again)
		}
		u, err := url.ParseRequestURI(raw)
		if err == nil && u.Path != got {
			t.Fatalf("%q: net/url reads %q, we read %q", raw, u.Path, got)
		}
	})
}
