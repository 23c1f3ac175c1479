// Package door is what all doors share: reading a credential and a path, writing a refusal, naming identity headers,
// trusting peers. A door is an http.Handler that turns its protocol into a watchword.Request and a Decision back into
// its protocol; it sees no cache, no ledger and no authorization server, and whoever opens it owns the socket.
package door

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"

	"github.com/watchword-dev/watchword"
)

// Verifier is what a door needs of a *watchword.Verifier. Safe for concurrent use.
type Verifier interface {
	Verify(ctx context.Context, r watchword.Request) watchword.Decision
}

const (
	maxIDBytes       = 128
	traceparentBytes = 55 // W3C Trace Context §3.2.2: version 00
)

// Trace names r for logs. The id is its X-Request-ID if that is one value of 1 to 128 printable ASCII bytes, else a
// new one (unique, not secret); w gets it back as X-Request-ID. The traceparent is r's if there is one that is well
// formed (W3C Trace Context §3.2), else empty.
func Trace(w http.ResponseWriter, r *http.Request) (id, traceparent string) {
	if v := r.Header["X-Request-Id"]; len(v) == 1 && len(v[0]) > 0 && len(v[0]) <= maxIDBytes && printable(v[0]) {
		w.Header()["X-Request-Id"] = v[:1:1]
		id = v[0]
	} else {
		id = newID()
		w.Header()["X-Request-Id"] = []string{id}
	}
	if v := r.Header["Traceparent"]; len(v) == 1 {
		traceparent = wellFormed(v[0])
	}
	return id, traceparent
}

func newID() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	var id [32]byte
	hex.Encode(id[:], b[:])
	return string(id[:])
}

// wellFormed returns the part of a traceparent that version 00 defines, or nothing. A later version may append to it.
func wellFormed(v string) string {
	if len(v) < traceparentBytes || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return ""
	}
	version, trace, parent, flags := v[:2], v[3:35], v[36:52], v[53:55]
	if !lowerHex(version) || version == "ff" || !lowerHex(flags) || !lowerHex(trace) || !lowerHex(parent) || zeros(trace) || zeros(parent) {
		return ""
	}
	if len(v) > traceparentBytes && (version == "00" || v[traceparentBytes] != '-') {
		return ""
	}
	return v[:traceparentBytes]
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}

// printable reports whether s holds nothing outside 0x20–0x7E.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
