package authority

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// faulty is an authority behind fault switches, over real HTTP.
func faulty(t *testing.T) (*Faults, peer) {
	t.Helper()
	a, _ := start(t, example())
	f := NewFaults(a)
	p := serve(t, example(), f)
	t.Cleanup(f.Clear) // runs before the server's Close, which waits for requests
	return f, p
}

func (f *Faults) must(t *testing.T, fault Fault) {
	t.Helper()
	if err := f.Set(fault); err != nil {
		t.Fatal(err)
	}
}

func (p peer) ask(token string) (reply, error) {
	p.Helper()
	return p.try("POST", introspectPath, "rs", "rs secret+%/", url.Values{"token": {token}})
}

func TestFaultsStatusHTMLGarbage(t *testing.T) {
	t.Parallel()
	f, p := faulty(t)
	token := p.job("orders:read")
	answers := func(fault Fault) reply {
		t.Helper()
		fault.Path = introspectPath
		f.must(t, fault)
		r, err := p.ask(token)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := answers(Fault{Mode: Status, Status: 503, RetryAfter: 1500 * time.Millisecond}); r.status != 503 || r.header.Get("Retry-After") != "2" {
		t.Errorf("%d, Retry-After %q", r.status, r.header.Get("Retry-After"))
	}
	if r := answers(Fault{Mode: Status, Status: 429}); r.status != 429 || r.header.Get("Retry-After") != "" {
		t.Errorf("%d, Retry-After %q", r.status, r.header.Get("Retry-After"))
	}
	if r := answers(Fault{Mode: HTML}); r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
		t.Errorf("%d %s", r.status, r.header.Get("Content-Type"))
	}
	if r := answers(Fault{Mode: Garbage}); r.status != 200 || r.header.Get("Content-Type") != "application/json" || json.Valid([]byte(r.body)) {
		t.Errorf("%d %s %s", r.status, r.header.Get("Content-Type"), r.body)
	}
	p.job("orders:read") // another path is untouched
	f.must(t, Fault{Mode: Status, Status: 500})
	p.want(500, p.do("GET", oauthPath, "", "", nil)) // no path: everything
	f.Clear()
	if !p.active(token) {
		t.Error("the fault outlived Clear")
	}
}

func TestFaultsDropAndHang(t *testing.T) {
	t.Parallel()
	f, p := faulty(t)
	token := p.job("orders:read")
	f.must(t, Fault{Mode: Drop})
	if r, err := p.ask(token); !errors.Is(err, io.EOF) {
		t.Errorf("drop: %v %v, want a closed connection", r.status, err)
	}
	f.must(t, Fault{Mode: Hang})
	p.client.Timeout = 50 * time.Millisecond
	if r, err := p.ask(token); err == nil || !err.(*url.Error).Timeout() {
		t.Errorf("hang: %v %v, want a timeout", r.status, err)
	}
	p.client.Timeout = 0
	ended := make(chan error)
	go func() {
		_, err := p.ask(token)
		ended <- err
	}()
	f.Clear() // before or after the request comes: it is either released with a closed connection or answered
	if err := <-ended; err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("cleared: %v", err)
	}
}

func TestFaultsLies(t *testing.T) {
	t.Parallel()
	f, p := faulty(t)
	token := p.job("orders:read")
	truth, err := p.ask(token)
	if err != nil {
		t.Fatal(err)
	}
	f.must(t, Fault{Mode: LieInactive})
	if r, err := p.ask(token); err != nil || r.status != 200 || r.body != `{"active":false}` {
		t.Errorf("%v %v", r, err)
	}
	stranger := func() { // a lie is no open door
		t.Helper()
		if r := p.want(401, p.do("POST", introspectPath, "rs", "wrong", url.Values{"token": {token}})); r.json(t)["error"] != "invalid_client" {
			t.Errorf("a wrong caller is told %s", r.body)
		}
	}
	stranger()
	p.want(200, p.revokeJob(token))
	f.must(t, Fault{Mode: LieActive})
	if r, err := p.ask(token); err != nil || r.body != truth.body {
		t.Errorf("a lagging replica says %s %v, want %s", r.body, err, truth.body)
	}
	if got := p.introspect("never seen"); got["active"] != true || got["sub"] != "nobody" {
		t.Errorf("never seen: %v", got)
	}
	stranger()
	f.Clear()
	if p.active(token) {
		t.Error("the lie became true")
	}
}

func TestFaultsAfterEffect(t *testing.T) {
	t.Parallel()
	f, p := faulty(t)
	revoke := func(token string, after bool) {
		t.Helper()
		f.must(t, Fault{Mode: Drop, AfterEffect: after})
		_, err := p.try("POST", revokePath, "", "", url.Values{"token": {token}, "client_id": {"job"}, "client_secret": {"job-secret"}})
		if err == nil {
			t.Error("answered")
		}
		f.Clear()
	}
	without, with := p.job("orders:read"), p.job("orders:read")
	revoke(without, false)
	revoke(with, true)
	if !p.active(without) || p.active(with) {
		t.Errorf("active: %v without effect, %v after effect", p.active(without), p.active(with))
	}
}

// A bubble's clock shows how long an answer takes.
func TestFaultsDelayAndDripTakeTheirTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const said = `{"active":true}`
		f := NewFaults(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, said) }))
		took := func(ctx context.Context) (time.Duration, string) {
			from, w := time.Now(), httptest.NewRecorder()
			func() {
				defer func() { _ = recover() }() // http.ErrAbortHandler
				f.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", introspectPath, nil))
			}()
			return time.Since(from), w.Body.String()
		}
		expect := func(ctx context.Context, d time.Duration, body string) {
			t.Helper()
			if gotD, got := took(ctx); gotD != d || got != body {
				t.Errorf("%s after %s, want %s after %s", got, gotD, body, d)
			}
		}
		expect(t.Context(), 0, said)
		f.must(t, Fault{Mode: Delay, Delay: 3 * time.Second})
		expect(t.Context(), 3*time.Second, said)
		f.must(t, Fault{Mode: Drip, Delay: time.Second})
		expect(t.Context(), time.Duration(len(said))*time.Second, said)

		soon, cancel := context.WithTimeout(t.Context(), 4500*time.Millisecond)
		defer cancel()
		expect(soon, 4500*time.Millisecond, said[:4]) // the client went
		f.must(t, Fault{Mode: Hang})
		time.AfterFunc(time.Hour, f.Clear)
		expect(t.Context(), time.Hour, "")
		f.must(t, Fault{Mode: Delay, Delay: time.Hour})
		time.AfterFunc(time.Second, f.Clear)
		expect(t.Context(), time.Second, said) // released
	})
}

func TestFaultsDripArrivesWhole(t *testing.T) {
	t.Parallel()
	f, p := faulty(t)
	token := p.job("orders:read")
	f.must(t, Fault{Mode: Drip, Delay: time.Microsecond})
	if !p.active(token) {
		t.Error("the truth changed on its way")
	}
	f.must(t, Fault{Mode: Delay, Delay: time.Millisecond})
	if !p.active(token) {
		t.Error("the truth changed by waiting")
	}
}

func TestFaultsAreRefusedWithMistakes(t *testing.T) {
	t.Parallel()
	f := NewFaults(http.NotFoundHandler())
	for _, fault := range []Fault{
		{}, {Mode: "slow"}, {Mode: Delay}, {Mode: Drip}, {Mode: Delay, Delay: -1}, {Mode: Drop, Delay: 1}, {Mode: Status}, {Mode: Status, Status: 199},
		{Mode: Status, Status: 600}, {Mode: HTML, Status: 200}, {Mode: Drop, RetryAfter: 1}, {Mode: Status, Status: 503, RetryAfter: -1}, {Mode: LieActive, AfterEffect: true},
	} {
		if err := f.Set(fault); err == nil {
			t.Errorf("%+v: accepted", fault)
		}
	}
	if f.current() != nil {
		t.Error("a refused fault is on")
	}
}

func TestREV01FaultControlOnlyWhereMounted(t *testing.T) {
	t.Parallel()
	f, p := faulty(t)
	p.want(404, p.do("PUT", "/faults?mode=drop", "", "", nil)) // not mounted: no path of the authority switches anything
	if f.current() != nil {
		t.Fatal("a fault is on")
	}
	c := serve(t, example(), f.Control())
	c.want(204, c.do("PUT", "/?mode=status&status=503&retry_after=5s&path=/introspect&after_effect=true", "", "", nil))
	if got, want := f.current().Fault, (Fault{Mode: Status, Path: introspectPath, Status: 503, RetryAfter: 5 * time.Second, AfterEffect: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, query := range []string{"", "mode=slow", "mode=delay&delay=fast", "mode=status&status=x", "mode=drop&colour=red", "mode=drop&after_effect=maybe", "%zz"} {
		c.want(400, c.do("PUT", "/?"+query, "", "", nil))
	}
	c.want(405, c.do("POST", "/?mode=drop", "", "", url.Values{}))
	if f.current().Mode != Status {
		t.Error("a refused order changed the fault")
	}
	c.want(204, c.do("DELETE", "/", "", "", nil))
	if f.current() != nil {
		t.Error("still on")
	}
	order := func(r *http.Request) int {
		w := httptest.NewRecorder()
		f.Control().ServeHTTP(w, r)
		return w.Code
	}
	web := httptest.NewRequest("PUT", "/?mode=drop", nil)
	web.Header.Set("Origin", "http://127.0.0.1:9000")
	away := httptest.NewRequest("PUT", "/?mode=drop", nil)
	away = away.WithContext(context.WithValue(away.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}))
	if order(web) != 403 || order(away) != 403 || f.current() != nil {
		t.Error("a web page or another machine switched a fault")
	}
}
