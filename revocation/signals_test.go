package revocation

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
)

var heard = time.Unix(1_700_000_100, 0)

func ours() *Signals {
	return &Signals{Issuer: "main", Names: []string{"https://as.example"}, Sender: "https://as.example", Audience: []string{"rs"},
		Skew: 2 * time.Second, Declared: []string{"tenant", "email", "device"}, Critical: []string{"group"}}
}

func claims(t testing.TB, text string) watchword.Claims {
	t.Helper()
	c, err := watchword.ParseClaims([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

// set is a SET about subject with one event of CAEP; more goes into the event.
func set(kind, subject, more string) string {
	if subject != "" {
		subject = `,"sub_id":` + subject
	}
	return `{"iss":"https://as.example","aud":["rs"],"iat":1700000000,"jti":"j1"` + subject + `,"events":{"` + kind + `":{` + more + `}}}`
}

// told writes what a Reading comes down to in one line.
func told(r *Reading, err error) string {
	if refusal, is := errors.AsType[*Refusal](err); is {
		return string(refusal.Code)
	}
	if err != nil {
		return "error " + err.Error()
	}
	var parts []string
	for _, e := range r.Events {
		var p []string
		add := func(name, v string) {
			if v != "" {
				p = append(p, name+"="+v)
			}
		}
		add("jti", e.JTI)
		add("sub", e.Selector.Subject)
		add("client", e.Selector.Client)
		add("sid", e.Selector.Session)
		add("tenant", e.Selector.Tenant)
		for k, v := range e.Selector.Other {
			add(k, v)
		}
		parts = append(parts, e.Effect.String()+" "+strings.Join(p, " "))
	}
	s := strings.Join(parts, " | ")
	if r.Ignored != "" {
		s += "ignored " + r.Ignored
	}
	if r.Gap != "" {
		s += " gap " + r.Gap
	}
	if r.Verifies {
		s += "verifies " + r.State
	}
	return strings.TrimSpace(s)
}

const ann = `{"format":"iss_sub","iss":"https://as.example","sub":"ann"}`

// Every event type has the effect that the table of standards gives it, and none restores access.
//
// Covers: SIG-05 SIG-11 SIG-18
func TestSIG05EveryEventType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, more, want string }{
		{caep + "session-revoked", "", "deny sub=ann"},
		{caep + "token-claims-change", `"claims":{"role":"x"}`, "revalidate sub=ann"},
		{caep + "credential-change", `"change_type":"update"`, "revalidate sub=ann"},
		{caep + "credential-change", `"change_type":"revoke"`, "revalidate sub=ann"},
		{caep + "credential-change", `"change_type":"something new"`, "revalidate sub=ann"},
		{caep + "credential-change", `"change_type":"create"`, "ignored no_effect"},
		{caep + "assurance-level-change", `"change_direction":"decrease"`, "revalidate sub=ann"},
		{caep + "assurance-level-change", `"change_direction":"increase"`, "ignored no_effect"},
		{caep + "device-compliance-change", `"current_status":"not-compliant"`, "revalidate sub=ann"},
		{caep + "device-compliance-change", `"current_status":"compliant"`, "ignored no_effect"},
		{caep + "risk-level-change", `"current_level":"HIGH"`, "revalidate sub=ann"},
		{caep + "risk-level-change", `"current_level":"LOW"`, "ignored no_effect"},
		{caep + "session-established", "", "ignored no_effect"},
		{caep + "session-presented", "", "ignored no_effect"},
		{risc + "account-purged", "", "deny sub=ann"},
		{risc + "account-disabled", `"reason":"hijacking"`, "revalidate sub=ann"},
		{risc + "account-enabled", "", "ignored no_effect"},
		{risc + "sessions-revoked", "", "deny sub=ann"},
		{risc + "credential-compromise", `"credential_type":"password"`, "revalidate sub=ann"},
		{risc + "account-credential-change-required", "", "revalidate sub=ann"},
		{risc + "identifier-recycled", "", "revalidate sub=ann"},
		{risc + "opt-out-effective", "", "gap opt-out-effective"},
		{risc + "opt-in", "", "ignored no_effect"},
		{ssf + "verification", `"state":"s1"`, "verifies s1"},
		{ssf + "verification", "", "verifies"},
		{ssf + "stream-updated", `"status":"paused"`, "gap stream_paused"},
		{ssf + "stream-updated", `"status":"disabled"`, "gap stream_disabled"},
		{ssf + "stream-updated", `"status":"enabled"`, "gap stream_enabled"},
		{ssf + "stream-updated", `"status":"a secret"`, "gap stream_unknown"},
		{"https://vendor.example/made-up", "", "ignored unknown_event"},
	} {
		if got := told(ours().SET(claims(t, set(c.kind, ann, c.more)), heard)); got != c.want {
			t.Errorf("%s {%s}: %s, want %s", c.kind, c.more, got, c.want)
		}
	}
}

// Covers: SIG-06 SIG-14 SIG-15 SIG-19 T30
func TestSIG14EverySubjectFormat(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]string{
		ann: "deny sub=ann",
		`{"subject_type":"iss-sub","iss":"https://as.example","sub":"ann"}`: "deny sub=ann",
		`{"format":"iss_sub","iss":"https://other.example","sub":"ann"}`:    "ignored foreign_subject gap foreign_subject",
		`{"format":"iss_sub","iss":"https://as.example"}`:                   "invalid_request",
		`{"format":"opaque","id":"ann"}`:                                    "deny sub=ann",
		`{"format":"jwt_id","iss":"https://as.example","jti":"t1"}`:         "deny jti=t1",
		`{"format":"jwt_id","iss":"https://other.example","jti":"t1"}`:      "ignored foreign_subject gap foreign_subject",
		`{"format":"email","email":"Ann.B@Example.com"}`:                    "revalidate email=Ann.B@Example.com | revalidate email=ann.b@example.com",
		`{"format":"email","email":"ann@example.com"}`:                      "revalidate email=ann@example.com",
		`{"format":"phone_number","phone_number":"+12065550100"}`:           "ignored untold_subject gap untold_subject",
		`{"format":"did","url":"did:example:1"}`:                            "ignored untold_subject gap untold_subject",
		`{"format":"uri","uri":"urn:x"}`:                                    "ignored untold_subject gap untold_subject",
		`{"format":"account","uri":"acct:ann@example.com"}`:                 "ignored untold_subject gap untold_subject",
		`{"format":"saml_assertion_id","issuer":"x","assertion_id":"y"}`:    "ignored untold_subject gap untold_subject",
		`{"format":"ip-addresses","ip-addresses":["10.0.0.1"]}`:             "ignored untold_subject gap untold_subject",
		`{"format":"made_up","x":"y"}`:                                      "ignored unknown_format gap unknown_format",
		`{"format":"aliases","identifiers":[` + ann + `,{"format":"opaque","id":"a2"},{"format":"phone_number","phone_number":"+1"}]}`: "deny sub=ann | deny sub=a2",
		`{"format":"aliases","identifiers":[]}`:                                                                                                                             "invalid_request",
		`{"format":"aliases","identifiers":[{"format":"aliases","identifiers":[]}]}`:                                                                                        "invalid_request",
		`{"format":"aliases","identifiers":["ann"]}`:                                                                                                                        "invalid_request",
		`{"format":"aliases","identifiers":[` + strings.Repeat(ann+",", maxAliases) + ann + `]}`:                                                                            "ignored too_many_identifiers gap too_many_identifiers",
		`{"format":"complex","user":` + ann + `}`:                                                                                                                           "deny sub=ann",
		`{"user":` + ann + `,"session":{"format":"opaque","id":"s1"}}`:                                                                                                      "deny sub=ann sid=s1",
		`{"format":"complex","user":` + ann + `,"session":{"format":"opaque","id":"ALL"}}`:                                                                                  "deny sub=ann",
		`{"format":"complex","session":{"format":"opaque","id":"ALL"}}`:                                                                                                     "ignored untold_subject gap untold_subject",
		`{"format":"complex","session":{"format":"opaque","id":"s1"}}`:                                                                                                      "deny sid=s1",
		`{"format":"complex","user":` + ann + `,"tenant":{"format":"opaque","id":"acme"}}`:                                                                                  "deny sub=ann tenant=acme",
		`{"format":"complex","tenant":{"format":"opaque","id":"acme"}}`:                                                                                                     "deny tenant=acme",
		`{"format":"complex","user":` + ann + `,"device":{"format":"opaque","id":"d1"}}`:                                                                                    "deny sub=ann device=d1",
		`{"format":"complex","user":` + ann + `,"org_unit":{"format":"opaque","id":"o1"}}`:                                                                                  "revalidate sub=ann",
		`{"format":"complex","user":` + ann + `,"group":{"format":"opaque","id":"g1"}}`:                                                                                     "ignored critical_member gap critical_member",
		`{"format":"complex","user":` + ann + `,"extension":"x"}`:                                                                                                           "revalidate sub=ann",
		`{"format":"complex","org_unit":{"format":"opaque","id":"o1"}}`:                                                                                                     "ignored untold_subject gap untold_subject",
		`{"format":"complex","user":{"format":"iss_sub","iss":"https://other.example","sub":"ann"},"tenant":{"format":"opaque","id":"acme"}}`:                               "ignored foreign_subject gap foreign_subject",
		`{"format":"complex","user":{"format":"aliases","identifiers":[{"format":"opaque","id":"a"},{"format":"opaque","id":"b"}]},"session":{"format":"opaque","id":"s"}}`: "deny sub=a sid=s | deny sub=b sid=s",
		`{"format":"complex","user":{"format":"jwt_id","iss":"https://as.example","jti":"t"},"session":{"format":"opaque","id":"s"}}`:                                       "revalidate sid=s",
		`{"format":"complex"}`:           "invalid_request",
		`{}`:                             "invalid_request",
		`{"format":"complex","user":{}}`: "invalid_request",
		`{"format":"opaque","id":""}`:    "invalid_request",
		`{"format":7,"id":"x"}`:          "invalid_request",
		`"ann"`:                          "invalid_request",
		`{"format":"complex","user":{"format":"complex","user":` + ann + `}}`: "invalid_request",
		`{"format":"opaque","id":"` + strings.Repeat("x", 2000) + `"}`:        "invalid_request",
	} {
		if got := told(ours().SET(claims(t, set(caep+"session-revoked", subject, "")), heard)); got != want {
			t.Errorf("%.200s: %s, want %s", subject, got, want)
		}
		before := `{"iss":"https://as.example","aud":"rs","iat":1700000000,"jti":"j1","events":{"` + caep + `session-revoked":{"subject":` + subject + `}}}`
		if got := told(ours().SET(claims(t, before), heard)); got != want {
			t.Errorf("in the event, as before SSF 1.0: %.200s: %s, want %s", subject, got, want)
		}
	}
	none := ours()
	none.Declared = nil
	if got := told(none.SET(claims(t, set(caep+"session-revoked", `{"format":"complex","user":`+ann+`,"tenant":{"format":"opaque","id":"acme"}}`, "")), heard)); got != "revalidate sub=ann" {
		t.Errorf("a tenant that no answer tells: %s", got)
	}
}

// What a SET must and must not say of itself.
//
// Covers: SIG-02 SIG-03 SIG-04 SIG-16
func TestSIG03EnvelopeOfASET(t *testing.T) {
	t.Parallel()
	good := set(caep+"session-revoked", ann, "")
	for old, want := range map[string]struct{ with, want string }{
		`"iss":"https://as.example","aud"`:   {`"iss":"https://evil.example","aud"`, "invalid_issuer"},
		`"iss":"https://as.example",`:        {``, "invalid_request"},
		`"aud":["rs"]`:                       {`"aud":["other"]`, "invalid_audience"},
		`"aud":["rs"],`:                      {``, "invalid_audience"},
		`"jti":"j1"`:                         {`"jti":1`, "invalid_request"},
		`,"jti":"j1"`:                        {``, "invalid_request"},
		`"iat":1700000000,`:                  {``, "invalid_request"},
		`"iat":1700000000`:                   {`"iat":"1700000000"`, "invalid_request"},
		`1700000000,"jti"`:                   {`1700000103,"jti"`, "invalid_request"},
		`"jti":"j1",`:                        {`"jti":"j1","exp":1800000000,`, "invalid_request"},
		`"jti":"j1","sub_id"`:                {`"jti":"j1","sub":"ann","sub_id"`, "invalid_request"},
		`,"sub_id":` + ann:                   {``, "invalid_request"},
		`"events":{`:                         {`"events":{"https://x.example/y":{},`, "invalid_request"},
		`{"` + caep + `session-revoked":{}}`: {`{}`, "invalid_request"},
		`session-revoked":{}`:                {`session-revoked":[]`, "invalid_request"},
		`session-revoked":{`:                 {`session-revoked":{"event_timestamp":1700000103`, "invalid_request"},
		`n-revoked":{`:                       {`n-revoked":{"event_timestamp":1700000000000`, "invalid_request"},
		`revoked":{`:                         {`revoked":{"event_timestamp":"x"`, "invalid_request"},
	} {
		text := strings.Replace(good, old, want.with, 1)
		if text == good {
			t.Fatalf("%s is not in the SET", old)
		}
		if got := told(ours().SET(claims(t, text), heard)); got != want.want {
			t.Errorf("%s → %s: %s, want %s", old, want.with, got, want.want)
		}
	}
	for more, want := range map[string]int64{"": 1_700_000_000, `"event_timestamp":1699999990`: 1_699_999_990, `"event_timestamp":1699999990.5`: 1_699_999_990} {
		r, err := ours().SET(claims(t, set(caep+"session-revoked", ann, more)), heard)
		if err != nil || len(r.Events) != 1 || r.Events[0].At.Unix() != want {
			t.Errorf("{%s}: %+v %v, want the event at %d", more, r, err, want)
		}
	}
	withToe := strings.Replace(good, `"jti":"j1"`, `"jti":"j1","toe":1699999000`, 1)
	if r, err := ours().SET(claims(t, withToe), heard); err != nil || r.Events[0].At.Unix() != 1_699_999_000 {
		t.Errorf("toe is not the time of the event: %+v %v", r, err)
	}
}

// The same signal has the same identity, so that whoever applies it twice applies it once.
func TestIdentityOfASignal(t *testing.T) {
	t.Parallel()
	read := func(text string) string {
		r, err := ours().SET(claims(t, text), heard)
		if err != nil {
			t.Fatal(err)
		}
		return r.Events[0].ID
	}
	one := set(caep+"session-revoked", ann, "")
	//lint:ignore SA4000 the same twice, on purpose
	if read(one) == "" || read(one) != read(one) || read(one) == read(strings.Replace(one, "j1", "j2", 1)) {
		t.Error("an identity is empty, or not that of jti")
	}
	if signalID("a", "bc") == signalID("ab", "c") {
		t.Error("parts run together")
	}
	r, err := ours().SET(claims(t, set(caep+"session-revoked", `{"format":"aliases","identifiers":[{"format":"opaque","id":"a"},{"format":"opaque","id":"b"}]}`, "")), heard)
	if err != nil || len(r.Events) != 2 || r.Events[0].ID == r.Events[1].ID {
		t.Errorf("two events of one signal share an identity: %v", err)
	}
}

// Covers: SIG-22 T26
func TestSIG22LogoutToken(t *testing.T) {
	t.Parallel()
	const good = `{"iss":"https://as.example","aud":"rs","iat":1700000090,"exp":1700000210,"jti":"j1","sub":"ann","sid":"s1","events":{"http://schemas.openid.net/event/backchannel-logout":{}}}`
	change := func(old, with string) string {
		out := strings.Replace(good, old, with, 1)
		if old != "" && out == good {
			t.Fatalf("%s is not in it", old)
		}
		return out
	}
	for text, want := range map[string]string{
		good:                       "deny sub=ann sid=s1",
		change(`,"sid":"s1"`, ``):  "deny sub=ann",
		change(`"sub":"ann",`, ``): "deny sid=s1",
		change(`logout":{}`, `logout":{},"revoke_offline_access":true`):                   "deny sub=ann sid=s1", // Keycloak
		change(`logout":{}`, `logout":true`):                                              "deny sub=ann sid=s1",
		change(`logout":{}`, `logout":"x"`):                                               "invalid_request",
		change(`backchannel-logout`, `other`):                                             "invalid_request",
		change(`"sub":"ann","sid":"s1",`, ``):                                             "invalid_request",
		change(`"jti":"j1"`, `"jti":"j1","nonce":"n"`):                                    "invalid_request",
		change(`"jti":"j1"`, `"jti":"j1","nonce":null`):                                   "invalid_request",
		change(`"exp":1700000210,`, ``):                                                   "invalid_request",
		change(`"exp":1700000210`, `"exp":1700000098`):                                    "invalid_request",
		change(`"exp":1700000210`, `"exp":1700000099`):                                    "deny sub=ann sid=s1", // within skew
		change(`"iat":1700000090,`, ``):                                                   "invalid_request",
		change(`"iat":1700000090`, `"iat":1700000103`):                                    "invalid_request",
		change(`"jti":"j1",`, ``):                                                         "invalid_request",
		change(`"aud":"rs"`, `"aud":["x","rs"]`):                                          "deny sub=ann sid=s1",
		change(`"aud":"rs"`, `"aud":"x"`):                                                 "invalid_audience",
		change(`https://as.example`, `https://evil.example`):                              "invalid_issuer",
		change(`"sub":"ann"`, `"sub":7`):                                                  "invalid_request",
		change(`"sub":"ann"`, `"sub":""`):                                                 "invalid_request",
		change(`,"events":{"http://schemas.openid.net/event/backchannel-logout":{}}`, ``): "invalid_request",
	} {
		if got := told(ours().Logout(claims(t, text), heard)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// Covers: SIG-23
func TestSIG23GlobalRevocation(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"sub_id":` + ann + `}`:                                                "deny sub=ann",
		`{"sub_id":{"format":"email","email":"ann@example.com"}}`:               "revalidate email=ann@example.com",
		`{"sub_id":{"format":"made_up"}}`:                                       "ignored unknown_format gap unknown_format",
		`{"sub_id":{"format":"iss_sub","iss":"https://x.example","sub":"ann"}}`: "ignored foreign_subject gap foreign_subject",
		`{"sub_id":{}}`: "invalid_request",
		`{}`:            "invalid_request",
		`{"sub_id":[]}`: "invalid_request",
	} {
		if got := told(ours().GlobalRevocation(claims(t, body))); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestWebhookMapping(t *testing.T) {
	t.Parallel()
	m := &Mapping{When: map[string][]string{"type": {"user.blocked", "user.deleted"}}, Select: map[string]string{"sub": "data.user.id", "tenant": "data.org"}, ID: "id", At: "at", Effect: Revalidate}
	if err := m.Validate([]string{"tenant"}); err != nil {
		t.Fatal(err)
	}
	const good = `{"id":"e1","type":"user.blocked","at":1700000000,"data":{"user":{"id":"ann"},"org":42}}`
	for body, want := range map[string]string{
		good: "revalidate sub=ann tenant=42",
		strings.Replace(good, "1700000000", `"2023-11-14T22:13:20Z"`, 1): "revalidate sub=ann tenant=42",
		strings.Replace(good, "1700000000", "1700000999", 1):             "invalid_request",
		strings.Replace(good, "1700000000", `"yesterday"`, 1):            "invalid_request",
		strings.Replace(good, "user.blocked", "user.created", 1):         "ignored no_match",
		strings.Replace(good, `,"org":42`, "", 1):                        "invalid_request", // a missing key would widen it
		strings.Replace(good, `"ann"`, `null`, 1):                        "invalid_request",
		strings.Replace(good, `{"id":"ann"}`, `"ann"`, 1):                "invalid_request",
		strings.Replace(good, `"ann"`, `""`, 1):                          "invalid_request",
		strings.Replace(good, `"id":"e1",`, ``, 1):                       "invalid_request",
		`{}`: "ignored no_match",
	} {
		if got := told(ours().Webhook(m, claims(t, body), heard)); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	for _, bad := range []Mapping{{}, {Select: map[string]string{"tenant": "x"}}, {Select: map[string]string{"user": "x"}}, {Select: map[string]string{"sub": "a..b"}}, {Select: map[string]string{"jti": "a", "sub": "b"}}} {
		if bad.Validate(nil) == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestReplaysAreBounded(t *testing.T) {
	t.Parallel()
	r := NewReplays(100)
	for i := range 10_000 {
		r.Remember(fmt.Sprint(i))
		if n := len(r.young) + len(r.old); n > 200 {
			t.Fatalf("%d are remembered", n)
		}
	}
	for i := 9_900; i < 10_000; i++ {
		if !r.Seen(fmt.Sprint(i)) {
			t.Errorf("%d is forgotten", i)
		}
	}
	if r.Seen("0") || r.Seen("never") {
		t.Error("what was not there is seen")
	}
}

// Whatever comes, what it does is valid, bounded, and about somebody.
func FuzzSignals(f *testing.F) {
	f.Add(set(caep+"session-revoked", ann, ""))
	f.Add(set(caep+"session-revoked", `{"format":"aliases","identifiers":[`+ann+`]}`, `"event_timestamp":1`))
	f.Add(set(risc+"account-disabled", `{"format":"complex","user":`+ann+`,"session":{"format":"opaque","id":"ALL"}}`, ""))
	f.Add(`{"iss":"https://as.example","aud":"rs","iat":1700000090,"exp":1700000210,"jti":"j1","sub":"ann","events":{"http://schemas.openid.net/event/backchannel-logout":{}}}`)
	f.Add(`{"sub_id":{"format":"aliases","identifiers":[ {"format":"opaque","id":"a\"],["} , {} ]}}`)
	m := &Mapping{Select: map[string]string{"sub": "a.b", "email": "c"}, At: "d"}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := watchword.ParseClaims([]byte(text))
		if err != nil {
			return
		}
		for _, read := range []func() (*Reading, error){
			func() (*Reading, error) { return ours().SET(c, heard) },
			func() (*Reading, error) { return ours().Logout(c, heard) },
			func() (*Reading, error) { return ours().GlobalRevocation(c) },
			func() (*Reading, error) { return ours().Webhook(m, c, heard) },
		} {
			r, err := read()
			if err != nil {
				if _, is := errors.AsType[*Refusal](err); !is {
					t.Fatalf("%q: an error that is no Refusal: %v", text, err)
				}
				continue
			}
			if len(r.Events) > maxAlternatives {
				t.Fatalf("%q: %d events", text, len(r.Events))
			}
			for _, e := range r.Events {
				if err := e.Validate(); err != nil || e.WholeIssuer || e.Operator || e.At.After(heard.Add(2*time.Second)) {
					t.Fatalf("%q: %+v %v", text, e, err)
				}
			}
		}
	})
}
