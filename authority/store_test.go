package authority

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
)

func TestREV01RestartKeepsTokensRevocationsAndKey(t *testing.T) {
	t.Parallel()
	t.Run("after Close", func(t *testing.T) {
		t.Parallel()
		restart(t, func(a *Authority) {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("after a kill", func(t *testing.T) { // the file as an open store leaves it
		t.Parallel()
		restart(t, func(*Authority) {})
	})
}

func TestREV01ClosedIsAnErrorNotInactive(t *testing.T) {
	t.Parallel()
	a, p := start(t, example())
	token := p.job("orders:read")
	_ = a.Close()
	p.want(500, p.do("POST", introspectPath, "rs", "rs secret+%/", url.Values{"token": {token}}))
}

func restart(t *testing.T, end func(*Authority)) {
	c := example()
	c.Path = file(t)
	a, p := start(t, c)
	kept, revoked := p.job("orders:read"), p.job("orders:read")
	access, refresh := p.web()
	before, keys := p.introspect(kept), p.do("GET", "/jwks", "", "", nil).body
	p.want(200, p.revokeJob(revoked))
	code := p.code("web")
	end(a)
	_, p = start(t, c)
	if after := p.introspect(kept); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("after the restart %v, before %v", after, before)
	}
	if p.active(revoked) {
		t.Error("a restart brought a revoked token back")
	}
	if !p.active(access) {
		t.Error("a user's token is gone")
	}
	p.want(200, p.refresh(refresh))
	p.want(200, p.do("POST", tokenPath, "web", "web-secret", redemption(code)))
	if p.do("GET", "/jwks", "", "", nil).body != keys {
		t.Error("another signing key")
	}
}

func TestREV01FileHoldsDigestsOnly(t *testing.T) {
	t.Parallel()
	c := example()
	c.Path = file(t)
	_, p := start(t, c)
	page := p.want(200, p.do("GET", "/authorize?"+request("web").Encode(), "", "", nil))
	login := regexp.MustCompile(`/authorize/(\w+)"`).FindStringSubmatch(page.body)[1]
	open := p.code("web")
	used := p.code("web")
	r := p.want(200, p.do("POST", tokenPath, "web", "web-secret", redemption(used)))
	next := p.want(200, p.refresh(text(t, r, "refresh_token")))
	secrets := []string{login, open, used, p.job("orders:read"), text(t, r, "access_token"), text(t, r, "refresh_token"), text(t, next, "refresh_token"),
		"rs secret", "job-secret", "web-secret", "correct horse", verifier}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(c.Path), "*"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%v %v: want the file and its log", files, err)
	}
	var content []byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content = append(content, b...)
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: others may read it (%v)", name, info.Mode())
		}
	}
	if !bytes.Contains(content, []byte("orders:read")) {
		t.Fatal("nothing was written: the test looks in the wrong place")
	}
	for i, secret := range secrets {
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("value %d is in the file in the clear", i)
		}
	}
}

func TestAGrantReadBackKeepsItsDigests(t *testing.T) {
	t.Parallel()
	st, err := openStore("", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	ctx := t.Context()
	if err := st.SaveGrant(ctx, &goidc.Grant{ID: "g", AuthCode: "code", RefreshToken: "refresh", CreatedAt: int(time.Now().Unix())}); err != nil {
		t.Fatal(err)
	}
	g, err := st.Grant(ctx, "g")
	if err != nil || g.AuthCode != "" || g.RefreshToken != "" {
		t.Fatalf("%+v %v", g, err)
	}
	if err := st.SaveGrant(ctx, g); err != nil {
		t.Fatal(err)
	}
	_, byCode := st.GrantByAuthCode(ctx, "code")
	_, byRefresh := st.GrantByRefreshToken(ctx, "refresh")
	_, byNothing := st.GrantByRefreshToken(ctx, "")
	if byCode != nil || byRefresh != nil || !errors.Is(byNothing, goidc.ErrNotFound) {
		t.Errorf("by code %v, by refresh token %v, by nothing %v", byCode, byRefresh, byNothing)
	}
}

func TestREV01StrangersFileIsRefused(t *testing.T) {
	t.Parallel()
	c := example()
	c.Path = filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(c.Path, bytes.Repeat([]byte("not a database\n"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), c.Path) {
		t.Errorf("text file: %v", err)
	}
	c.Path = filepath.Join(t.TempDir(), "missing", "folder")
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), c.Path) {
		t.Errorf("missing folder: %v", err)
	}
	c.Path = file(t)
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.store.write.Exec("PRAGMA user_version = 7"); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("another version: %v", err)
	}
}

func TestREV01FailuresAreReportedWithoutTokens(t *testing.T) {
	t.Parallel()
	c := example()
	var mu sync.Mutex
	var reports []string
	c.Report = func(err error) { mu.Lock(); defer mu.Unlock(); reports = append(reports, err.Error()) }
	a, p := start(t, c)
	token := p.job("orders:read")
	p.want(400, p.refresh("unknown")) // the caller's mistake is no failure of ours
	_ = a.Close()
	p.want(500, p.do("POST", introspectPath, "rs", "rs secret+%/", url.Values{"token": {token}}))
	mu.Lock()
	defer mu.Unlock()
	if len(reports) != 1 || !strings.Contains(reports[0], "find an access token") || strings.Contains(reports[0], token) {
		t.Errorf("reports %q", reports)
	}
}

func BenchmarkNew(b *testing.B) {
	c := example()
	open := func(b *testing.B) {
		a, err := New(c)
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		_ = a.Close()
		b.StartTimer()
	}
	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			c.Path = ""
			open(b)
		}
	})
	b.Run("empty file", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			c.Path = filepath.Join(b.TempDir(), fmt.Sprint(i))
			open(b)
		}
	})
	b.Run("old file", func(b *testing.B) {
		c.Path = filepath.Join(b.TempDir(), "as.db")
		for b.Loop() {
			open(b)
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	c := example()
	c.Path = filepath.Join(b.TempDir(), "as.db")
	a, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	post := func(path, user, secret string, form url.Values) string {
		r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if user != "" {
			r.SetBasicAuth(user, secret)
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
		return w.Body.String()
	}
	issue := url.Values{"grant_type": {"client_credentials"}, "client_id": {"job"}, "client_secret": {"job-secret"}, "scope": {"orders:read"}}
	var token struct {
		Value string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(post(tokenPath, "", "", issue)), &token); err != nil {
		b.Fatal(err)
	}
	b.Run("issue", func(b *testing.B) {
		for b.Loop() {
			post(tokenPath, "", "", issue)
		}
	})
	b.Run("introspect", func(b *testing.B) {
		for b.Loop() {
			post(introspectPath, "rs", "rs secret+%/", url.Values{"token": {token.Value}})
		}
	})
}
