package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// heard is what a script says of revocations, and the Ledger that hears it. Without a ledger statement there is none.
type heard struct {
	config revocation.Config
	on     bool // a ledger statement was played
	log    bool // a restart replays
	ledger *revocation.Ledger
	end    func() // its clock
}

// ledger reads the statement; the Ledger is made with all else.
func (s *stage) ledger(words []string) error {
	is := revocation.Issuer{Name: "as", ID: "https://as.example", Selectors: map[string]string{"tenant": "org_id"}}
	err := settings(words, map[string]func(string) error{
		"settle": duration(&is.Settle), "skew": duration(&is.Skew), "max_token_life": duration(&is.MaxTokenLife), "remember": duration(&is.Remember),
		"keys": list(&is.Keys), "log": func(string) error { s.heard.log = true; return nil },
	})
	s.heard.config.Issuers, s.heard.on = []revocation.Issuer{is}, true
	return err
}

// open makes a Ledger: at first, and after it was closed. It replays its log, or begins with nothing.
func (h *heard) open() (err error) {
	if h.log && h.config.Folder == "" {
		if h.config.Folder, err = os.MkdirTemp("", "script"); err != nil {
			return err
		}
	}
	if h.ledger, err = revocation.New(h.config); err != nil {
		return err
	}
	h.ledger.Gap("as", "a feed begins")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.ledger.Run(ctx) }()
	h.end = func() { cancel(); <-done }
	return nil
}

// shut ends what open began.
func (h *heard) shut() error {
	if h.ledger == nil {
		return nil
	}
	h.end()
	return h.ledger.Close()
}

func (h *heard) clean() {
	_ = h.shut()
	if h.config.Folder != "" {
		_ = os.RemoveAll(h.config.Folder)
	}
}

// hear plays what a feed or an operator says.
func (s *stage) hear(words []string) error {
	if !s.heard.on {
		return errors.New("needs a ledger")
	}
	verb, rest := words[0], words[1:]
	switch verb {
	case "cover":
		return s.cover(rest)
	case "gap":
		s.heard.ledger.Gap("as", "the script says so")
		return nil
	case "restart":
		return s.restart()
	case "signal":
		return s.signal(rest)
	}
	e := revocation.Event{Issuer: "as", Way: "script"}
	if verb == "operator" && len(rest) > 0 {
		e.Operator, verb, rest = true, rest[0], rest[1:]
	}
	if verb != "deny" && verb != "revalidate" {
		return fmt.Errorf("an operator cannot %q", verb)
	}
	if verb == "revalidate" {
		e.Effect = revocation.Revalidate
	}
	text := func(to *string) func(string) error { return func(v string) error { *to = v; return nil } }
	err := settings(rest, map[string]func(string) error{
		"sub": text(&e.Selector.Subject), "client": text(&e.Selector.Client), "session": text(&e.Selector.Session), "tenant": text(&e.Selector.Tenant), "jti": text(&e.JTI),
		"token": func(v string) error { e.Token = s.heard.ledger.TokenID("as", watchword.Token(v)); return nil },
		"whole": func(string) error { e.WholeIssuer = true; return nil },
		"at": func(v string) error {
			d, err := time.ParseDuration(v)
			e.At = s.start.Add(d)
			return err
		},
	})
	if err != nil {
		return err
	}
	return s.heard.ledger.Apply(context.Background(), e)
}

// cover is a proof of the covering feed until now, or until some time before.
func (s *stage) cover(words []string) (err error) {
	ago := time.Duration(0)
	if len(words) > 0 {
		ago, err = time.ParseDuration(words[0])
	}
	s.heard.ledger.Cover("as", time.Now().Add(ago))
	return err
}

// restart ends the Ledger and begins a new one. What the cache holds stays, as a shared store would.
func (s *stage) restart() error {
	err := s.heard.shut()
	if err == nil {
		err = s.heard.open()
	}
	if err == nil {
		err = s.verifier.Reconfigure(s.verifies())
	}
	return err
}

// signal is a security event about a subject, read as a feed reads it.
func (s *stage) signal(words []string) error {
	if len(words) != 2 {
		return errors.New("a signal is EVENT SUBJECT")
	}
	kind := map[string]string{
		"account-enabled":  "https://schemas.openid.net/secevent/risc/event-type/account-enabled",
		"account-disabled": "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
		"session-revoked":  "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
	}[words[0]]
	claims, err := watchword.ParseClaims(fmt.Appendf(nil, `{"iss":"https://as.example","aud":["rs"],"iat":%d,"jti":"%[1]d-%s","sub_id":{"format":"iss_sub","iss":"https://as.example","sub":%[3]q},"events":{%[4]q:{}}}`,
		time.Now().Unix(), strings.Join(words, "-"), words[1], kind))
	if err != nil {
		return err
	}
	reads := revocation.Signals{Issuer: "as", Names: []string{"https://as.example"}, Sender: "https://as.example", Audience: []string{"rs"}, Skew: time.Minute}
	reading, err := reads.SET(claims, time.Now())
	if err != nil {
		return err
	}
	return s.heard.ledger.Apply(context.Background(), reading.Events...)
}

// ask begins a decision in the background; got waits for it.
func (s *stage) ask(words []string) error {
	r, err := request(words)
	if err != nil {
		return err
	}
	if s.waiting[words[0]] != nil {
		return errors.New("is asked already")
	}
	c := make(chan watchword.Decision, 1)
	s.waiting[words[0]] = c
	go func() { c <- s.verifier.Verify(context.Background(), r) }()
	synctest.Wait() // the question has left
	return nil
}

func (s *stage) got(words []string) error {
	c := s.waiting[words[0]]
	if c == nil || len(words) < 3 || words[1] != "->" {
		return errors.New("is got TOKEN -> REASON, after ask TOKEN")
	}
	delete(s.waiting, words[0])
	return s.became(<-c, words[2:])
}
