package issuer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

func TestINT03ActiveAloneIsActiveWithoutEnd(t *testing.T) {
	t.Parallel()
	a := answer(t, client(t, serve(t, says(`{"active":true}`)).URL))
	if _, known := a.Remaining(time.Now()); !a.Active() || known {
		t.Errorf("active %v, end known %v", a.Active(), known)
	}
}

// Covers: INT-04 INT-05 INT-06 T30
func TestINT04_INT05_INT06_T30OnlyTheBooleanActiveIsAnAnswer(t *testing.T) {
	t.Parallel()
	var body string
	c := client(t, serve(t, func(w http.ResponseWriter, r *http.Request) { says(body)(w, r) }).URL)
	for _, body = range []string{`{}`, `{"active":null}`, `{"active":1}`, `{"active":{}}`, `{"active":"true"}`, `{"active":"false"}`, `[]`, `[{"active":true}]`,
		``, `true`, `{"active":true`, `{"active":true}x`, `<html>`, `{"active":false,"ACTIVE":true}`, `{"active":false,"active":true}`,
		`{"active":true,"active":false}`, `{"Active":true}`, `{"active":true,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
		"{\"active\":true,\"sub\":\"\xff\"}", `{"active":true,"exp":"` + leak + `"}`, `{"active":true,"` + leak + `":1,"` + leak + `":2}`} {
		failure(t, c, watchword.ProtocolError)
	}
}

func TestINT05_INT10QuirksAreDeclared(t *testing.T) {
	t.Parallel()
	s := serve(t, says(`{"active":"true","exp":"4102444800","scope":["a","b"]}`))
	failure(t, client(t, s.URL), watchword.ProtocolError)
	a := answer(t, client(t, s.URL, func(c *Config) {
		c.Quirks = watchword.Quirks{StringBooleans: true, StringNumbers: true, ScopeArray: true}
	}))
	if left, known := a.Remaining(time.Now()); !a.Active() || !known || left <= 0 || a.Scope() != "a b" {
		t.Errorf("%v %v %v %q", a.Active(), left, known, a.Scope())
	}
	no := serve(t, says(`{"active":"false"}`))
	if answer(t, client(t, no.URL, func(c *Config) { c.Quirks.StringBooleans = true })).Active() {
		t.Error(`"false" is active`)
	}
}

// Covers: INT-07 INT-08 INT-09 INT-13
func TestINT07_INT08_INT09_INT13MembersArriveWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	body := `{"active":true,"aud":["x","y"],"scope":"a  b","big":9007199254740993,"deep":{"n":[1.50,{"k":"v"}]},"exp":4.1024448e9}`
	a := answer(t, client(t, serve(t, says(body)).URL))
	big, _ := a.Claims().Get("big")
	deep, _ := a.Claims().Get("deep")
	if big != "9007199254740993" || deep != `{"n":[1.50,{"k":"v"}]}` || !a.HasScope("b") || a.HasScope("") || !a.HasAudience([]string{"y"}) {
		t.Errorf("%s", a.Claims().JSON())
	}
	if left, known := a.Remaining(time.Unix(4102444800, 0).Add(-time.Minute)); !known || left != time.Minute {
		t.Errorf("exp 4.1024448e9 leaves %v, %v", left, known)
	}
	off := answer(t, client(t, serve(t, says(`{"active":false,"sub":"ann","reason":"`+leak+`"}`)).URL))
	if got := off.Claims().JSON(); got != `{"active":false}` {
		t.Errorf("an inactive answer holds %s", got)
	}
}

func TestINT14MediaTypeIsJSON(t *testing.T) {
	t.Parallel()
	var kinds []string
	c := client(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = kinds
		_, _ = io.WriteString(w, `{"active":true}`)
	}).URL)
	for _, kinds = range [][]string{{"application/json;charset=UTF-8"}, {"APPLICATION/JSON"}, {"Application/Json ; x=\"y\""}, {" application/json"}} {
		answer(t, c)
	}
	for _, kinds = range [][]string{{"text/html"}, {"application/jwt"}, {"application/token-introspection+jwt"}, {"application/jsonx"}, {"text/json"}, {""}, nil,
		{"application/json, text/html"}, {"application/json", "text/html"}, {"application/json", "application/json"}} {
		failure(t, c, watchword.ProtocolError)
	}
}

// Covers: INT-15 T30
func TestINT15_T30LargeBodyIsOneBoundedError(t *testing.T) {
	t.Parallel()
	const size = 200 << 20
	for _, announce := range []bool{true, false} {
		taken := make(chan int, 1)
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if announce {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			written, err := io.WriteString(w, `{"active":true,"x":"`)
			for chunk, n := make([]byte, 64<<10), 0; err == nil && written < size; written += n {
				n, err = w.Write(chunk[:min(len(chunk), size-written)])
			}
			taken <- written
		})
		failure(t, client(t, s.URL), watchword.ProtocolError)
		if n := <-taken; n > 32<<20 {
			t.Errorf("%d bytes were taken from the server", n)
		}
	}
}

func TestINT15BodyOfExactlyTheLimit(t *testing.T) {
	t.Parallel()
	sized := func(n int) string {
		const head, tail = `{"active":true,"x":"`, `"}`
		return head + strings.Repeat("a", n-len(head)-len(tail)) + tail
	}
	var body string
	var flush bool
	c := client(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if flush {
			w.(http.Flusher).Flush() // so without Content-Length
		}
		_, _ = io.WriteString(w, body)
	}).URL)
	for _, flush = range []bool{false, true} {
		body = sized(watchword.MaxClaimsBytes)
		answer(t, c)
		body = sized(watchword.MaxClaimsBytes + 1)
		failure(t, c, watchword.ProtocolError)
	}
}

// Covers: INT-15 T30
func TestINT15_T30CompressedAnswerIsRefusedUnread(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.WriteString(z, `{"active":true,"x":"`)
	_, _ = z.Write(make([]byte, 4<<20))
	_ = z.Close()
	coded := func(encoding string, body []byte) *Client {
		return client(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", encoding)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body)
		}).URL)
	}
	for _, encoding := range []string{"gzip", "br", "identity, gzip"} {
		failure(t, coded(encoding, bomb.Bytes()), watchword.ProtocolError)
		failure(t, coded(encoding, []byte(`{"active":true}`)), watchword.ProtocolError)
	}
	answer(t, coded("identity", []byte(`{"active":true}`)))
}

// Covers: INT-15 T30
func TestINT15_T30SlowDripEndsAtTheTimeout(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{\"active\":true,\"x\":\""} {
		cut := make(chan struct{})
		url := raw(t, func(_ int, c net.Conn) {
			defer close(cut)
			if !readRequest(bufio.NewReader(c)) {
				return
			}
			if _, err := io.WriteString(c, head); err != nil {
				return
			}
			for { // one byte at a time, until the client hangs up
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				if _, err := c.Read(make([]byte, 1)); err == io.EOF {
					return
				}
				if _, err := io.WriteString(c, "a"); err != nil {
					return
				}
			}
		})
		failure(t, client(t, url, soon), watchword.Unavailable)
		<-cut
	}
}

func TestINT16RedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, says(`{"active":true}`))
	for _, code := range []int{300, 301, 302, 303, 307, 308} {
		s := serve(t, status(code, "Location", elsewhere.URL+"/"+leak))
		failure(t, client(t, s.URL), watchword.ConfigError)
		failure(t, client(t, serve(t, status(code, "Location", "/same/origin")).URL), watchword.ConfigError)
	}
	if len(elsewhere.questions()) != 0 {
		t.Error("the token went to where the redirect pointed")
	}
}

// Covers: INT-18 INT-19
func TestINT18_INT19EveryStatusHasItsFailure(t *testing.T) {
	t.Parallel()
	want := map[int]watchword.Failure{401: watchword.ClientRejected, 403: watchword.ClientRejected, 404: watchword.ConfigError,
		405: watchword.ConfigError, 501: watchword.ConfigError, 304: watchword.ConfigError, 429: watchword.Unavailable, 408: watchword.Unavailable,
		500: watchword.Unavailable, 502: watchword.Unavailable, 503: watchword.Unavailable, 504: watchword.Unavailable, 599: watchword.Unavailable,
		400: watchword.ProtocolError, 402: watchword.ProtocolError, 406: watchword.ProtocolError, 410: watchword.ProtocolError, 415: watchword.ProtocolError,
		201: watchword.ProtocolError, 204: watchword.ProtocolError, 206: watchword.ProtocolError}
	for code, f := range want {
		s := serve(t, status(code))
		failure(t, client(t, s.URL), f)
		if n := len(s.questions()); n != 1 {
			t.Errorf("status %d: asked %d times", code, n)
		}
	}
}

func TestINT19BadRequestNamesOnlyRegisteredErrors(t *testing.T) {
	t.Parallel()
	var body string
	c := client(t, serve(t, func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 400, body) }).URL)
	body = `{"error":"unsupported_token_type","error_description":"` + leak + `"}`
	if e := failure(t, c, watchword.ConfigError); !strings.Contains(e.Error(), "token_type_hint: none") {
		t.Errorf("no hint in %v", e)
	}
	body = `{"error":"invalid_request"}`
	if e := failure(t, c, watchword.ProtocolError); !strings.Contains(e.Error(), "invalid_request") {
		t.Errorf("no code in %v", e)
	}
	for _, body = range []string{`{"error":"` + leak + `"}`, `{"error":["unsupported_token_type"]}`, `{"error":"unsupported_token_type","error":"x"}`,
		`unsupported_token_type`, ``, strings.Repeat(leak, 10000)} {
		failure(t, c, watchword.ProtocolError)
	}
}

func TestINT20RetryAfterIsKept(t *testing.T) {
	t.Parallel()
	for _, code := range []int{429, 503, 500} {
		s := serve(t, status(code, "Retry-After", "30"))
		c := client(t, s.URL)
		if e := failure(t, c, watchword.Unavailable); e.RetryAfter != 30*time.Second {
			t.Errorf("status %d: %v", code, e.RetryAfter)
		}
		for range 3 {
			if e := failure(t, c, watchword.Unavailable); e.RetryAfter <= 0 || e.RetryAfter > 30*time.Second {
				t.Errorf("status %d, while kept: %v", code, e.RetryAfter)
			}
		}
		if n := len(s.questions()); n != 1 {
			t.Errorf("status %d: asked %d times although it asked to wait", code, n)
		}
	}
}

// A date is read by the clock of the server that wrote it, where that shows: by ours it may be over, or far away.
func TestINT20RetryAfterDatesAreReadByTheServersClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for off, date := range map[time.Duration]string{-time.Hour: "Tue, 24 Nov 2026 11:00:09 GMT", 50 * time.Second: "Tue, 24 Nov 2026 12:00:59 GMT"} {
		h := http.Header{"Retry-After": {date}, "Date": {now.Add(off).Format(http.TimeFormat)}}
		if got := retryAfter(h, now); got != 9*time.Second {
			t.Errorf("a clock that is off by %v: %v, want 9s", off, got)
		}
	}
}

func TestINT20RetryAfterThatIsOverOrUnreadableHoldsNothing(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"", "0", "-1", "soon", "1.5", "Mon, 02 Jan 2006 15:04:05 GMT"} {
		s := serve(t, status(503, "Retry-After", v))
		c := client(t, s.URL)
		failure(t, c, watchword.Unavailable)
		failure(t, c, watchword.Unavailable)
		if n := len(s.questions()); n != 2 {
			t.Errorf("%q: asked %d times", v, n)
		}
	}
}

func TestINT20RetryAfterReadsSecondsAndDates(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{"7": 7 * time.Second, " 7 ": 7 * time.Second, "60": time.Minute, "61": time.Minute, "99999999999999999999": time.Minute,
		"Tue, 24 Nov 2026 12:00:09 GMT": 9 * time.Second, "Tue, 24 Nov 2026 13:00:00 GMT": time.Minute, "Tue, 24 Nov 2026 11:00:00 GMT": 0, "x": 0, "": 0, "-5": 0, "+5": 0} {
		if got := retryAfter(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

// One stranger that is asked to slow down must not stop the others.
func TestINT20ForwardedCallersDoNotHoldEachOther(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer stranger" {
			status(429, "Retry-After", "30")(w, r)
			return
		}
		says(`{"active":true}`)(w, r)
	})
	c := client(t, s.URL)
	q := query()
	q.Credential = &watchword.Credential{Authorization: "Bearer stranger"}
	if e := failureOf(t, c, q, watchword.Unavailable); e.RetryAfter != 30*time.Second {
		t.Errorf("told to wait %v", e.RetryAfter)
	}
	answer(t, c)
}

func TestForwardedRefusalIsHandedBack(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("b", 5000)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("WWW-Authenticate", `Basic realm="as"`)
		w.Header().Add("WWW-Authenticate", `Bearer`)
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(401)
		_, _ = io.WriteString(w, body)
	})
	var outcomes []string
	c := client(t, s.URL, func(c *Config) {
		c.Auth = ClientSecretBasic("rs", fixed("one", "two"))
		c.Observe = func(o string, _ time.Duration) { outcomes = append(outcomes, o) }
	})
	q := query()
	q.Credential = &watchword.Credential{Authorization: "Basic eDp5"}
	e := failureOf(t, c, q, watchword.ClientRejected)
	r := e.Rejection
	if r == nil || r.Status != 401 || r.Challenge != `Basic realm="as", Bearer` || r.ContentType != "text/plain" || string(r.Body) != body[:4<<10] {
		t.Fatalf("%+v", r)
	}
	if n := len(s.questions()); n != 1 {
		t.Errorf("a caller's own credential was tried %d times", n)
	}
	if e := failure(t, c, watchword.ClientRejected); e.Rejection != nil {
		t.Error("the refusal of our own credential is handed to a caller")
	}
	if got := fmt.Sprint(outcomes); got != "[caller_rejected client_rejected]" {
		t.Errorf("outcomes %s", got)
	}
}

func TestIssuerInTheAnswerMustBeTheConfiguredOne(t *testing.T) {
	t.Parallel()
	const id = "https://as.example/realm"
	var body string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { says(body)(w, r) })
	c := client(t, s.URL, func(c *Config) { c.Issuer = id })
	for _, body = range []string{`{"active":true}`, `{"active":true,"iss":"` + id + `"}`, `{"active":false,"iss":"https://other"}`} {
		answer(t, c)
	}
	for _, body = range []string{`{"active":true,"iss":"` + id + `/"}`, `{"active":true,"iss":"https://AS.example/realm"}`, `{"active":true,"iss":""}`, `{"active":true,"iss":"` + leak + `"}`} {
		failure(t, c, watchword.ProtocolError)
	}
	answer(t, client(t, s.URL)) // no issuer configured: a claim like others
}

func TestAgeOfTheAnswerIsSubtracted(t *testing.T) {
	t.Parallel()
	var ages []string
	c := client(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Age"] = ages
		says(`{"active":true,"expires_in":100}`)(w, r)
	}).URL)
	for _, x := range []struct {
		ages []string
		want time.Duration
	}{{nil, 0}, {[]string{"0"}, 0}, {[]string{"7"}, 7 * time.Second}, {[]string{"3, 9"}, 9 * time.Second}, {[]string{"3", "9", "5"}, 9 * time.Second},
		{[]string{"99999999999999999999"}, 1 << 31 * time.Second}} {
		ages = x.ages
		a := answer(t, c)
		if got := a.Asked().Sub(a.AsOf()); got != x.want {
			t.Errorf("Age %q: %v, want %v", ages, got, x.want)
		}
		if left, _ := a.Remaining(a.Asked()); left != 100*time.Second {
			t.Errorf("Age %q: expires_in left %v", ages, left) // whoever sends Age recomputes it
		}
	}
	for _, ages = range [][]string{{"-1"}, {"1.5"}, {"x"}, {""}, {"3,"}} {
		failure(t, c, watchword.ProtocolError)
	}
}

// Covers: INT-12 T8
func TestINT12_T08EvidenceBeginsBeforeTheFirstByteOfTheAnsweredAttempt(t *testing.T) {
	t.Parallel()
	first := true
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			status(401)(w, r)
			return
		}
		says(`{"active":true,"expires_in":60}`)(w, r)
	})
	c := client(t, s.URL, func(c *Config) { c.Auth = ClientSecretBasic("rs", fixed("old", "new")) })
	before := time.Now()
	a := answer(t, c)
	all := s.questions()
	if len(all) != 2 || a.Asked().Before(all[0].at) || a.Asked().After(all[1].at) || a.Asked().Before(before) {
		t.Errorf("asked %v; attempts arrived at %v", a.Asked(), all)
	}
	if left, known := a.Remaining(a.Asked().Add(time.Minute)); !known || left != 0 {
		t.Errorf("expires_in does not count from the asking: %v left", left)
	}
}

// Covers: CAC-13
func TestCAC13MaxAgeHint(t *testing.T) {
	t.Parallel()
	f := func(want time.Duration, lines ...string) {
		t.Helper()
		if got := maxAge(http.Header{"Cache-Control": lines}); got != want {
			t.Errorf("%q: %v, want %v", lines, got, want)
		}
	}
	f(0)
	f(0, "no-store")
	f(5*time.Second, "no-store, max-age=5")
	f(5*time.Second, "Max-Age=60", `private , max-age="5"`)
	f(1, "max-age=0")
	f(0, "max-age=-1", "max-age=soon", "max-age", "s-maxage=3")
}
