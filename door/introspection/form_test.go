package introspection

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
)

func question(body io.Reader) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func TestPXY03BodySize(t *testing.T) {
	t.Parallel()
	x := exchanges.New().(*exchange)
	fits := func(n int, wrap func(io.Reader) io.Reader) {
		t.Helper()
		token := strings.Repeat("k", n-len("token="))
		r := question(wrap(strings.NewReader("token=" + token)))
		if no := x.read(r); n <= maxFormBytes && (no != nil || string(x.form.token) != token) || n > maxFormBytes && no != tooLarge {
			t.Errorf("%d bytes: %+v, %d read", n, no, len(x.form.token))
		}
	}
	for _, n := range []int{7, 2047, 2048, 2049, 8192, 8193, 32768, maxFormBytes - 1, maxFormBytes, maxFormBytes + 1, maxFormBytes + 2, 1 << 20} {
		fits(n, func(r io.Reader) io.Reader { return r })
		fits(n, func(r io.Reader) io.Reader { return io.MultiReader(r) }) // no length announced
		fits(n, iotest.DataErrReader)
	}
	fits(3000, iotest.OneByteReader)
	limited := question(nil)
	limited.Body = http.MaxBytesReader(httptest.NewRecorder(), io.NopCloser(strings.NewReader("token=xyz")), 4)
	if no := x.read(limited); no != tooLarge {
		t.Errorf("a server's own limit: %+v", no)
	}
	for _, err := range []error{io.ErrUnexpectedEOF, errors.New("reset")} {
		if no := x.read(question(io.MultiReader(strings.NewReader("token=x"), iotest.ErrReader(err)))); no != badRequest {
			t.Errorf("a body that breaks off: %+v", no)
		}
	}
}

// CAC-06: a buffer that waits for the next request holds no token of the last one.
func TestCAC06BuffersAreWiped(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"token=canary&client_secret=canary", "a=b&token=c%61n%61ry", "token=canary&x=" + strings.Repeat("x", 5000), "token=canary&x=" + strings.Repeat("x", 70000)} {
		x := exchanges.New().(*exchange)
		before := x.body[:cap(x.body)]
		x.read(question(io.MultiReader(strings.NewReader(form))))
		after := x.body[:cap(x.body)]
		x.wipe()
		if all := append(append([]byte(nil), before...), after...); bytes.Contains(all, []byte("an")) || bytes.Contains(all, []byte("ry")) {
			t.Errorf("%.30s stays in the buffer", form)
		}
	}
}

// What we make of a form is what net/url makes of it; only a semicolon, which net/url refuses, is an ordinary
// character here (WHATWG URL, application/x-www-form-urlencoded parsing).
func FuzzForm(f *testing.F) {
	for _, s := range []string{"token=abc", "token=a%2Bb+c&token_type_hint=access_token", "client_id=&client_secret=&token=x", "token=%zz", "&&=&a", "%74oken=1&token=2",
		"client_id=a&client_id=b", "client_assertion=a.b.c&client_assertion_type=urn", "token=%", "token=%4", "a;b=c&token=;", "token=\x00\xff", "=token&token"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var got form
		ok := got.parse([]byte(body))
		if strings.Contains(body, ";") {
			body = strings.ReplaceAll(body, ";", "%3b")
			if strings.Contains(body, "%%3b") || strings.Contains(body, "%3b") && !ok {
				return // the replacement may repair a broken escape, or break one differently
			}
		}
		want, err := url.ParseQuery(body)
		if ok != (err == nil) {
			t.Fatalf("%q: ok %v, net/url says %v", body, ok, err)
		}
		if !ok {
			return
		}
		last := func(name string, count int, value []byte) {
			if v := want[name]; len(v) != count || count > 0 && v[count-1] != string(value) {
				t.Errorf("%q: %s is %q %d times, want %q", body, name, value, count, v)
			}
		}
		last("token", got.tokens, got.token)
		last("token_type_hint", got.hints, got.hint)
		doubled := false
		for name, value := range map[string][]byte{"client_id": got.clientID, "client_secret": got.clientSecret, "client_assertion": got.assertion, "client_assertion_type": got.assertionType} {
			full := []string{""}
			for _, v := range want[name] {
				if v != "" {
					full = append(full, v)
				}
			}
			doubled = doubled || len(full) > 2
			if full[len(full)-1] != string(value) {
				t.Errorf("%q: %s is %q, want %q", body, name, value, full)
			}
		}
		if got.doubled != doubled {
			t.Errorf("%q: doubled %v", body, got.doubled)
		}
	})
}

// FuzzCacheControl: max-age is read from nothing but digits, and never lengthens anything.
func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"max-age=5", "no-cache, MAX-AGE=0", `max-age="7"`, "max-age=99999999999", "max-age=-1", "a=b,,max-age=1;x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		b := bound([]string{value})
		if b == nil {
			return
		}
		if b.MaxStaleness < 0 || b.MaxAge < b.MaxStaleness || b.MaxAge <= 0 || b.StaleIfError != 0 || b.Validate() != nil {
			t.Errorf("%q: %+v", value, b)
		}
		if !strings.Contains(strings.ToLower(value), "max-age=") {
			t.Errorf("%q is a bound", value)
		}
	})
}
