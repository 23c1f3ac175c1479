package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Covers: OUT-02
func TestOUT02ModeCommand(t *testing.T) {
	t.Parallel()
	status, got := http.StatusOK, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(b)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"error":"no policy is named that"}`)
	}))
	defer srv.Close()
	f := func(want int, said, until string, vars map[string]string) {
		t.Helper()
		code, out, errors := command(t, "", vars, "mode", "--admin", srv.URL, "--policy", "orders", "--on-unavailable", "dangerously_allow", "--until", until, "--why", "it moves")
		if code != want || !strings.Contains(out+errors, said) {
			t.Errorf("%d %s%s, want %d %s", code, out, errors, want, said)
		}
	}
	ops := map[string]string{"WATCHWORD_OPERATOR": "s3cret"}
	f(0, "policy orders: dangerously_allow until 2126-01-31T12:00:00Z", "2126-01-31T12:00:00Z", ops)
	if want := `/v1/mode Bearer s3cret {"on_unavailable":"dangerously_allow","policy":"orders","until":"2126-01-31T12:00:00Z","why":"it moves"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	f(0, "policy orders: dangerously_allow until 2", "30m", ops)
	f(2, "--until is neither", "soon", ops)
	f(2, "WATCHWORD_OPERATOR", "30m", nil)
	status = http.StatusBadRequest
	f(2, "refused: no policy is named that", "30m", ops)
	status = http.StatusUnauthorized
	f(3, "no operator's", "30m", ops)
}
