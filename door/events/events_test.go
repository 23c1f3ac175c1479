package events

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

func logoutToken(jti, more string) string {
	now := time.Now().Unix()
	return fmt.Sprintf(`{"iss":%q,"aud":"rs","iat":%d,"exp":%d,"jti":%q,"events":{"http://schemas.openid.net/event/backchannel-logout":{}}%s}`, issuer, now, now+120, jti, more)
}

// Covers: SIG-22
func TestSIG22BackChannelLogout(t *testing.T) {
	t.Parallel()
	f := new(fleet)
	counted := map[string]int{}
	d := open(t, Config{Publisher: f, Logouts: []Logout{{Path: "/logout", Signals: signals(), Verify: opened}},
		Heard: func(issuer, way, effect, outcome string) { counted[issuer+" "+way+" "+effect+" "+outcome]++ }})
	post := func(token string) *httptest.ResponseRecorder {
		return send(t, d, "/logout", formType, url.Values{"logout_token": {token}}.Encode())
	}
	token := logoutToken("j1", `,"sub":"ann","sid":"s1"`)
	check(t, "a logout", post(token), 200, f, "main back_channel_logout deny ann,,s1,,")
	check(t, "the same again", post(token), 200, f, "")
	f.set(true, false)
	other := logoutToken("j2", `,"sub":"bob"`)
	check(t, "not durable", post(other), 400, f, "main back_channel_logout deny bob,,,,")
	f.set(false, false)
	check(t, "come again", post(other), 200, f, "main back_channel_logout deny bob,,,,")
	for _, bad := range []string{"forged", "keys", "", logoutToken("j3", ""), logoutToken("j4", `,"sub":"ann","nonce":"n"`)} {
		w := post(bad)
		check(t, bad, w, 400, f, "")
		if !strings.Contains(w.Body.String(), `"error":"invalid_request"`) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s", bad, w.Body)
		}
	}
	check(t, "two tokens", send(t, d, "/logout", formType, "logout_token=a&logout_token=b"), 400, f, "")
	check(t, "JSON", send(t, d, "/logout", "application/json", "{}"), 400, f, "")
	check(t, "too long", send(t, d, "/logout", formType, "logout_token="+strings.Repeat("x", 70_000)), 400, f, "")
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/logout", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d", w.Code)
	}
	if w := send(t, d, "/elsewhere", formType, ""); w.Code != http.StatusNotFound {
		t.Errorf("another path: %d", w.Code)
	}
	if counted["main back_channel_logout none repeated"] != 1 || counted["main back_channel_logout deny failed"] != 1 || counted["main back_channel_logout none refused"] != 8 {
		t.Errorf("counted %v", counted)
	}
}

func sign(at time.Time, key, body string) string {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	f := new(fleet)
	d := open(t, Config{Publisher: f, Webhooks: []Webhook{{Path: "/hook", Signals: signals(), Secrets: one(secret),
		Mapping: revocation.Mapping{When: map[string][]string{"type": {"blocked"}}, Select: map[string]string{"sub": "user.id"}, Effect: revocation.Revalidate}}}})
	body, now := `{"type":"blocked","user":{"id":"ann"}}`, time.Now()
	post := func(body string, signature ...string) *httptest.ResponseRecorder {
		var header []string
		for _, s := range signature {
			header = append(header, SignatureHeader, s)
		}
		return send(t, d, "/hook", "application/json", body, header...)
	}
	good := sign(now, secret, body)
	check(t, "signed", post(body, good), 204, f, "main webhook revalidate ann,,,,")
	check(t, "replayed", post(body, good), 204, f, "")
	at, sum, _ := strings.Cut(good, ",")
	for _, again := range []string{good + ",x=1", good + ",v1=" + strings.Repeat("ab", 32), sum + ", " + at, "v0=," + good} {
		check(t, "replayed, and its header rewritten", post(body, again), 204, f, "")
	}
	check(t, "during a rotation", post(body, sign(now.Add(-time.Second), secret, body)+",v1="+strings.Repeat("ab", 32)), 204, f, "main webhook revalidate ann,,,,")
	for what, signature := range map[string][]string{"none": nil, "two": {good, good}, "another secret": {sign(now, "another-secret-of-16", body)}, "old": {sign(now.Add(-6*time.Minute), secret, body)},
		"early": {sign(now.Add(6*time.Minute), secret, body)}, "another body": {sign(now, secret, body+" ")}, "no hex": {"t=1,v1=zz"}, "no time": {strings.TrimPrefix(good, "t")}, "short": {fmt.Sprintf("t=%d,v1=ab", now.Unix())}} {
		check(t, what, post(body, signature...), 401, f, "")
	}
	other := `{"type":"created"}`
	check(t, "another type", post(other, sign(now, secret, other)), 204, f, "")
	for _, bad := range []string{`{"type":"blocked"}`, `{"type":"blocked","type":"blocked","user":{"id":"ann"}}`, `[]`} {
		check(t, bad, post(bad, sign(now, secret, bad)), 400, f, "")
	}
	f.set(true, false)
	later := sign(now.Add(time.Second), secret, body)
	if w := post(body, later); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("not durable: %d", w.Code)
	}
	f.told()
	f.set(false, false)
	check(t, "come again", post(body, later), 204, f, "main webhook revalidate ann,,,,")
}

// Covers: SIG-23 T27
func TestSIG23GlobalTokenRevocation(t *testing.T) {
	t.Parallel()
	f := new(fleet)
	d := open(t, Config{Publisher: f, Globals: []Global{{Path: "/all", Signals: signals(), Secrets: one(secret)}, {Path: "/acme", Signals: signals(), Secrets: one(secret), Tenant: "acme"}}})
	post := func(path, subject string) *httptest.ResponseRecorder {
		return send(t, d, path, "application/json", `{"sub_id":`+subject+`}`, "Authorization", "Bearer "+secret)
	}
	tenant := func(name string) string {
		return `{"format":"complex","user":` + ann + `,"tenant":{"format":"opaque","id":"` + name + `"}}`
	}
	check(t, "a subject", post("/all", ann), 204, f, "main global_token_revocation deny ann,,,, operator")
	check(t, "within a tenant", post("/acme", ann), 204, f, "main global_token_revocation deny ann,,,acme, operator")
	check(t, "its own tenant", post("/acme", tenant("acme")), 204, f, "main global_token_revocation deny ann,,,acme, operator")
	check(t, "another tenant", post("/acme", tenant("other")), 403, f, "")
	check(t, "another issuer", post("/all", strings.Replace(ann, "as.example", "evil.example", 1)), 404, f, "")
	check(t, "unknown format", post("/all", `{"format":"made_up"}`), 400, f, "")
	check(t, "untold", post("/all", `{"format":"email","email":"a@example.com"}`), 422, f, "")
	check(t, "nobody", post("/all", `{"format":"complex"}`), 400, f, "")
	told := signals()
	told.Declared = append(told.Declared, "email")
	byMail := open(t, Config{Publisher: f, Globals: []Global{{Path: "/all", Signals: told, Secrets: one(secret)}}})
	mail := func(subject string) *httptest.ResponseRecorder {
		return send(t, byMail, "/all", "application/json", `{"sub_id":`+subject+`}`, "Authorization", "Bearer "+secret)
	}
	check(t, "an address, which never denies", mail(`{"format":"email","email":"a@example.com"}`), 422, f, "")
	check(t, "a user on a device that nobody can tell", mail(`{"format":"complex","user":`+ann+`,"device":{"format":"opaque","id":"d"}}`), 422, f, "")
	check(t, "an address and a subject", mail(`{"format":"aliases","identifiers":[{"format":"email","email":"a@example.com"},`+ann+`]}`), 204, f,
		"main global_token_revocation revalidate ,,,, + main global_token_revocation deny ann,,,, operator")
	for _, header := range [][]string{nil, {"Authorization", "Bearer x"}, {"Authorization", "Basic " + secret}, {"Authorization", "Bearer " + secret, "Authorization", "Bearer " + secret}} {
		w := send(t, d, "/all", "application/json", `{"sub_id":`+ann+`}`, header...)
		check(t, fmt.Sprint(len(header)), w, 401, f, "")
		if w.Header().Get("WWW-Authenticate") == "" {
			t.Error("no challenge")
		}
	}
	f.set(false, true)
	check(t, "full", post("/all", ann), 507, f, "main global_token_revocation deny ann,,,, operator")
}

func TestEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Logouts: []Logout{{Path: "logout", Signals: signals(), Verify: opened}, {Path: "/x"}},
		Streams:  []Stream{{Name: "s", Signals: signals(), Verify: opened}, {Name: "b", Signals: signals(), Verify: opened, Path: "/b"}},
		Webhooks: []Webhook{{Path: "/w", Signals: signals(), Secrets: one("short"), Mapping: revocation.Mapping{Select: map[string]string{"sub": "a"}}}},
		Globals:  []Global{{Path: "/g", Signals: &revocation.Signals{}, Secrets: one(secret), Tenant: "acme"}}, Revokes: []Revoke{{Path: "/r"}}})
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"Publisher is missing", "does not begin with /", "/x: ", `stream "s"`, `stream "b"`, "shorter than 16", "names a tenant", "/r: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "short\n") {
		t.Error("it repeats a secret")
	}
}

func FuzzSignature(f *testing.F) {
	f.Add("t=1700000000,v1=" + strings.Repeat("ab", 32))
	f.Add("v1=,t=")
	f.Fuzz(func(t *testing.T, v string) {
		at, sums, ok := signature(v)
		if ok && (at == "" || len(sums) == 0 || len(sums) > 4) {
			t.Fatalf("%q: %q %d", v, at, len(sums))
		}
	})
}
