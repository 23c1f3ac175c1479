package admin

import (
	"bytes"
	"encoding/json"
	"iter"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/revocation"
)

// desk is a door over a memory of three answers.
func desk(t *testing.T, k *kept, audit *bytes.Buffer) (http.Handler, map[watchword.Key]*watchword.Answer) {
	t.Helper()
	all := map[watchword.Key]*watchword.Answer{}
	for key, body := range map[string]string{
		"main token-ann": `{"active":true,"sub":"ann","client_id":"app","sid":"s1","org":"acme","jti":"j1","exp":4000000000}`,
		"main token-bob": `{"active":true,"sub":"bob","client_id":"app","org":"evil","run":7}`,
		"other dead":     `{"active":false}`,
	} {
		issuer, token, _ := strings.Cut(key, " ")
		a, err := watchword.ParseAnswer([]byte(body), watchword.Evidence{Issuer: issuer, Asked: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		all[keyOf(issuer, token)] = a
	}
	d := open(t, k, audit)
	d, err := New(Config{Operators: d.config.Operators, Selectors: d.config.Selectors, Publisher: k, TokenID: d.config.TokenID, Audit: d.config.Audit, Memory: &Memory{
		All: func() iter.Seq2[watchword.Key, *watchword.Answer] { return maps.All(maps.Clone(all)) },
		Keys: func(token watchword.Token) map[string]watchword.Key {
			return map[string]watchword.Key{"main": keyOf("main", string(token)), "other": keyOf("other", string(token))}
		},
		Forget: func(keys ...watchword.Key) (n int) {
			for _, key := range keys {
				if all[key] != nil {
					n++
				}
				delete(all, key)
			}
			return n
		},
		Claims: map[string]map[string]string{"main": {"tenant": "org", "job": "run"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d, all
}

func keyOf(issuer, token string) (k watchword.Key) {
	copy(k[:], issuer+token)
	return k
}

func TestTokensAreFoundByWhatTheyAre(t *testing.T) {
	t.Parallel()
	audit := new(bytes.Buffer)
	d, _ := desk(t, new(kept), audit)
	for body, want := range map[string]int{
		`{"issuer":"main","token":"token-ann"}`:             1,
		`{"issuer":"other","token":"token-ann"}`:            0,
		`{"issuer":"main","sub":"ann"}`:                     1,
		`{"issuer":"main","client":"app"}`:                  2,
		`{"issuer":"main","client":"app","session":"s1"}`:   1,
		`{"issuer":"main","jti":"j1"}`:                      1,
		`{"issuer":"main","tenant":"evil"}`:                 1,
		`{"issuer":"main","job":"7"}`:                       1, // as the ledger reads it, which also voids it
		`{"issuer":"main","job":"8"}`:                       0,
		`{"issuer":"other","whole_issuer":true}`:            1,
		`{"issuer":"main","sub":"ann","tenant":"evil"}`:     0,
		`{"issuer":"main"}`:                                 -400,
		`{"issuer":"main","sub":"ann","effect":"deny"}`:     -400,
		`{"issuer":"main","sub":"ann","why":"curious"}`:     -400,
		`{"issuer":"main","token":"token-ann "}`:            -400,
		`{"issuer":"nobody","sub":"ann"}`:                   -400,
		`{"issuer":"main","sub":"ann","token":"token-ann"}`: -400,
	} {
		w := call(d, "POST", "/v1/tokens/find", "ops-secret", body)
		var said struct{ Remembered []map[string]any }
		if w.Code != 200 {
			if w.Code != -want {
				t.Errorf("%s: %d %s", body, w.Code, w.Body)
			}
			continue
		}
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || len(said.Remembered) != want {
			t.Errorf("%s: %s, want %d", body, w.Body, want)
		}
		if strings.Contains(w.Body.String(), "token-") {
			t.Errorf("%s shows a token: %s", body, w.Body)
		}
	}
	if strings.Contains(audit.String(), "token-") {
		t.Errorf("the audit log shows a token: %s", audit)
	}
}

// Covers: T27
func TestPurgeIsARevalidateEvent(t *testing.T) {
	t.Parallel()
	k, audit := new(kept), new(bytes.Buffer)
	d, all := desk(t, k, audit)
	w := call(d, "POST", "/v1/tokens/purge", "ops-secret", `{"issuer":"main","client":"app","why":"scopes changed"}`)
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"forgotten":2`) || len(all) != 1 {
		t.Errorf("%d %s, %d are left", w.Code, w.Body, len(all))
	}
	if len(k.events) != 1 || k.events[0].Effect != revocation.Revalidate || k.events[0].Operator || k.events[0].Selector.Client != "app" || k.events[0].Why != "scopes changed" {
		t.Errorf("published %+v", k.events)
	}
	w = call(d, "POST", "/v1/tokens/purge", "ops-secret", `{"issuer":"main","token":"token-zoe"}`)
	if w.Code != 200 || len(k.events) != 2 || k.events[1].Token == (revocation.TokenID{}) || !strings.Contains(w.Body.String(), `"forgotten":0`) {
		t.Errorf("a token that nobody remembers here: %d %s", w.Code, w.Body)
	}
	k.err = revocation.ErrFull
	if w = call(d, "POST", "/v1/tokens/purge", "ops-secret", `{"issuer":"other","whole_issuer":true}`); w.Code != 507 || len(all) != 1 {
		t.Errorf("not durable: %d %s, %d are left", w.Code, w.Body, len(all))
	}
	for _, path := range []string{"/v1/tokens/purge", "/v1/tokens/find"} {
		for body, want := range map[string]int{`{"issuer":"main","tenant":"evil"}`: 403, `{"issuer":"main","token":"token-ann"}`: 403, `{"issuer":"other","whole_issuer":true}`: 403} {
			if w := call(d, "POST", path, "acme-secret", body); w.Code != want {
				t.Errorf("%s %s by a tenant's operator: %d %s", path, body, w.Code, w.Body)
			}
		}
		if w := call(d, "POST", path, "", `{}`); w.Code != 401 {
			t.Errorf("%s by nobody: %d", path, w.Code)
		}
	}
}
