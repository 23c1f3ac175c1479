package events

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// SignatureHeader carries the signature of a webhook: t=SECONDS,v1=HEX, where HEX is HMAC-SHA256 under the shared
// secret over the decimal digits of SECONDS, a dot, and the body. During a rotation v1 may be given up to four times.
const SignatureHeader = "Watchword-Signature"

const signatureWindow = 5 * time.Minute // how far SECONDS may be from now

// Webhook receives JSON of a shape of somebody's own, signed with a shared secret.
type Webhook struct {
	Path    string
	Signals *revocation.Signals
	Secrets Secrets
	Mapping revocation.Mapping
}

type webhook struct {
	way
	secrets []string
	mapping revocation.Mapping
}

func (d *Door) webhook(c Webhook) (*webhook, error) {
	if c.Signals == nil || c.Secrets == nil {
		return nil, errors.New("Signals and Secrets are required")
	}
	secrets, err := c.Secrets()
	if err != nil {
		return nil, err
	}
	for _, s := range secrets {
		if len(s) < 16 {
			return nil, errors.New("a secret is shorter than 16 bytes: it could be guessed from one message")
		}
	}
	if len(secrets) == 0 || len(secrets) > 2 {
		return nil, errors.New("give one secret, or two during a rotation")
	}
	if err := c.Mapping.Validate(c.Signals.Declared); err != nil {
		return nil, err
	}
	return &webhook{d.way("webhook", c.Signals), secrets, c.Mapping}, nil
}

// ServeHTTP takes one message: 204 when it is applied, or means nothing here.
func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, no := read(r, "application/json")
	if no != nil {
		h.refused(r.Context(), no)
		http.Error(w, no.Text, http.StatusBadRequest)
		return
	}
	now := time.Now()
	signed, err := h.signed(r.Header[SignatureHeader], body, now)
	if err != nil {
		h.refused(r.Context(), err)
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	claims, err := watchword.ParseClaims(body)
	var reading *revocation.Reading
	if err == nil {
		reading, err = h.signals.Webhook(&h.mapping, claims, now)
	}
	if err != nil {
		h.refused(r.Context(), err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if reading.ID == "" && len(reading.Events) > 0 { // the same bytes signed at the same second are the same message, however the header is written
		sum := sha256.Sum256(signed)
		reading.ID = hex.EncodeToString(sum[:20])
		reading.Events[0].ID = reading.ID
	}
	if err := h.apply(r.Context(), reading); err != nil {
		later(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// signed checks the signature and returns what it is over. Errors say nothing of it.
func (h *webhook) signed(header []string, body []byte, now time.Time) ([]byte, error) {
	if len(header) != 1 {
		return nil, errors.New(SignatureHeader + " is missing, or given twice")
	}
	at, sums, ok := signature(header[0])
	if !ok {
		return nil, errors.New(SignatureHeader + " is not t=SECONDS,v1=HEX")
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if age := now.Sub(time.Unix(seconds, 0)).Abs(); err != nil || age > signatureWindow {
		return nil, errors.New(SignatureHeader + " is older or newer than 5 minutes: do the clocks agree?")
	}
	text, good := append([]byte(at+"."), body...), false
	for _, secret := range h.secrets {
		mac := hmac.New(sha256.New, []byte(secret))
		_, _ = mac.Write(text) // a hash never fails
		want := mac.Sum(nil)
		for _, sum := range sums {
			good = hmac.Equal(sum, want) || good
		}
	}
	if !good {
		return nil, errors.New(SignatureHeader + " does not fit the body and any secret")
	}
	return text, nil
}

// signature reads the header's value: t once, v1 up to four times, in any order; other members are ignored.
func signature(v string) (at string, sums [][]byte, ok bool) {
	for part := range strings.SplitSeq(v, ",") {
		name, value, _ := strings.Cut(strings.Trim(part, " \t"), "=")
		switch name {
		case "t":
			if at != "" || value == "" || len(value) > 12 || strings.Trim(value, "0123456789") != "" {
				return "", nil, false
			}
			at = value
		case "v1":
			sum, err := hex.DecodeString(value)
			if err != nil || len(sum) != sha256.Size || len(sums) == 4 {
				return "", nil, false
			}
			sums = append(sums, sum)
		}
	}
	return at, sums, at != "" && len(sums) > 0
}
