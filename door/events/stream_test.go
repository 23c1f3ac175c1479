package events

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func pushed(t *testing.T, f *fleet, covering bool) (*Door, func(string) *httptest.ResponseRecorder) {
	t.Helper()
	d := open(t, Config{Publisher: f, StateKey: []byte("shared by the fleet"), Streams: []Stream{{Name: "ssf-main", Signals: signals(), Verify: opened, Path: "/ssf", Bearer: one(secret), Covering: covering, Lag: 5 * time.Second}}})
	return d, func(envelope string) *httptest.ResponseRecorder {
		return send(t, d, "/ssf", "application/secevent+jwt", envelope, "Authorization", "Bearer "+secret)
	}
}

// Covers: SIG-01 SIG-02 SIG-05
func TestSIG01PushedSETs(t *testing.T) {
	t.Parallel()
	f := new(fleet)
	d, push := pushed(t, f, false)
	one := set("j1", revoked, ann, "")
	for _, told := range []string{"main ssf deny ann,,,,", ""} {
		w := push(one)
		check(t, "a SET", w, 202, f, told)
		if w.Body.Len() != 0 {
			t.Errorf("a body: %s", w.Body)
		}
	}
	refused := func(what string, w *httptest.ResponseRecorder, code string) {
		t.Helper()
		check(t, what, w, 400, f, "")
		var said struct{ Err, Description string }
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.Err != code || said.Description == "" {
			t.Errorf("%s: %s, want %s", what, w.Body, code)
		}
		if w.Header().Get("Content-Language") != "en" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", what, w.Header())
		}
	}
	refused("forged", push("forged"), "authentication_failed")
	refused("no JSON", push("x"), "invalid_request")
	refused("iss", push(strings.Replace(one, issuer, "https://evil.example", 1)), "invalid_issuer")
	refused("aud", push(strings.Replace(one, `"rs"`, `"other"`, 1)), "invalid_audience")
	refused("no subject", push(set("j2", revoked, "{}", "")), "invalid_request")
	refused("state", push(set("j3", verify, `{"format":"opaque","id":"s"}`, `"state":"made up"`)), "invalid_state")
	refused("type", send(t, d, "/ssf", "application/json", one, "Authorization", "Bearer "+secret), "invalid_request")
	refused("bearer", send(t, d, "/ssf", "application/secevent+jwt", one, "Authorization", "Bearer x"), "authentication_failed")
	refused("no bearer", send(t, d, "/ssf", "application/secevent+jwt", one), "authentication_failed")
	refused("too long", push(strings.Repeat("x", 70_000)), "invalid_request")
	check(t, "unknown", push(set("j4", "made-up", ann, "")), 202, f, "")
	if w := push("keys"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("keys not to be had: %d", w.Code)
	}
	f.set(true, false)
	two := set("j5", revoked, ann, "")
	check(t, "not durable", push(two), 503, f, "main ssf deny ann,,,,")
	f.set(false, false)
	check(t, "come again", push(two), 202, f, "main ssf deny ann,,,,")
}

// Covers: SIG-09 SIG-11 T19
func TestSIG09CoverageOfAPushedStream(t *testing.T) {
	t.Parallel()
	f := new(fleet)
	d, push := pushed(t, f, true)
	verified := func(state string) string {
		return set("v"+state+fmt.Sprint(time.Now().UnixNano()), verify, `{"format":"opaque","id":"s"}`, `"state":"`+state+`"`)
	}
	asked := time.Now().Add(-time.Second)
	check(t, "a verification that we asked for", push(verified(d.streams[0].state(asked))), 202, f, "proof main")
	if got := f.at[0]; !got.Equal(time.Unix(0, asked.Add(-5*time.Second).UnixNano())) {
		t.Errorf("proven until %v, want when we asked less lag, %v", got, asked.Add(-5*time.Second))
	}
	sent := time.Now().Truncate(time.Second)
	check(t, "one that nobody asked for", push(set("v0", verify, `{"format":"opaque","id":"s"}`, "")), 202, f, "proof main")
	if got := f.at[1]; got.Before(sent.Add(-8*time.Second)) || got.After(time.Now().Add(-7*time.Second)) {
		t.Errorf("proven until %v, want iat less skew and lag", got)
	}
	// another node of the fleet asked
	other, _ := pushed(t, new(fleet), true)
	check(t, "another node's", push(verified(other.streams[0].state(asked))), 202, f, "proof main")
	check(t, "a state of nobody", push(verified("AAAA")), 400, f, "")
	check(t, "paused", push(set("j1", "ssf/event-type/stream-updated", `{"format":"opaque","id":"s"}`, `"status":"paused"`)), 202, f, "gap main ssf-main: stream_paused")
	check(t, "opt-out", push(set("j2", "risc/event-type/opt-out-effective", ann, "")), 202, f, "gap main ssf-main: opt-out-effective")
	check(t, "untold", push(set("j3", revoked, `{"format":"made_up"}`, "")), 202, f, "gap main ssf-main: unknown_format")
	check(t, "forged, by the transmitter itself", push("forged"), 400, f, "gap main ssf-main: authentication_failed")
	check(t, "a stranger's garbage", send(t, d, "/ssf", "application/secevent+jwt", "forged"), 400, f, "")
	// what could not be made durable is owed: no proof moves past it
	f.set(true, false)
	push(set("j4", revoked, ann, ""))
	f.told()
	f.set(false, false)
	check(t, "after a failure", push(verified(d.streams[0].state(time.Now()))), 202, f, "gap main ssf-main: not_applied\nproof main")
	check(t, "and again", push(verified(d.streams[0].state(time.Now()))), 202, f, "proof main")
}
