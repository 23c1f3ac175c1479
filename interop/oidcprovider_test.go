package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The resources of oidc-provider.mjs: what a token is for chooses its kind.
const (
	forAPI   = "https://api.example"
	forOther = "https://other.example"
	forJWT   = "https://jwt.example"
)

// oidcProvider is a running oidc-provider.
type oidcProvider struct {
	*process
	issuer string
	issued []string // every token that the test got from it
}

func startOIDCProvider(t *testing.T, env ...string) *oidcProvider {
	t.Helper()
	script, err := os.Open(filepath.Join(root(t), "interop", "oidc-provider.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { script.Close() })
	// The script comes by stdin, so that its imports are resolved in the folder that setup filled.
	cmd := exec.Command("node", "--input-type=module", "-")
	cmd.Dir = installed(t, "node")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = script
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = in
	as := &oidcProvider{process: start(t, "oidc-provider", cmd)}
	in.Close()
	t.Cleanup(func() { out.Close() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		<-as.exited
		t.Fatalf("oidc-provider did not start (interop/setup installs it): %v\n%s", err, as.tail(2000))
	}
	if err := json.Unmarshal([]byte(line), as); err != nil || as.issuer == "" {
		t.Fatalf("oidc-provider said %q: %v", line, err)
	}
	return as
}

// UnmarshalJSON reads the line that the script prints.
func (as *oidcProvider) UnmarshalJSON(line []byte) error {
	var said struct{ Issuer string }
	err := json.Unmarshal(line, &said)
	as.issuer = said.Issuer
	return err
}

func (as *oidcProvider) introspection() string { return as.issuer + "/token/introspection" }

// token gets an access token of client for a resource, with all scopes or with those named.
func (as *oidcProvider) token(t *testing.T, client, resource string, scopes ...string) string {
	t.Helper()
	if len(scopes) == 0 {
		scopes = []string{"orders:read", "orders:write"}
	}
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {strings.Join(scopes, " ")}}
	if resource != "" {
		form.Set("resource", resource)
	}
	token := tokens(t, as.issuer+"/token", client, form).Access
	as.issued = append(as.issued, token)
	return token
}

// revoke revokes a token of client (RFC 7009).
func (as *oidcProvider) revoke(t *testing.T, client, token string) {
	t.Helper()
	post(t, as.issuer+"/token/revocation", client, url.Values{"token": {token}}, http.StatusOK)
}

type tokenAnswer struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// tokens asks a token endpoint.
func tokens(t *testing.T, endpoint, client string, form url.Values) tokenAnswer {
	t.Helper()
	var answer tokenAnswer
	if err := json.Unmarshal(post(t, endpoint, client, form, http.StatusOK), &answer); err != nil || answer.Access == "" {
		t.Fatalf("%s gave no access token: %v", endpoint, err)
	}
	return answer
}

// post sends a form with the Basic credentials of client, whose secret is its name and "-secret".
func post(t *testing.T, endpoint, client string, form url.Values, want int) []byte {
	t.Helper()
	status, _, body := postAs(t, endpoint, client, client+"-secret", form)
	if status != want {
		t.Fatalf("POST %s as %s: %d, want %d: %s", endpoint, client, status, want, body)
	}
	return body
}

func postAs(t *testing.T, endpoint, client, secret string, form url.Values) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client != "" {
		req.SetBasicAuth(client, secret)
	}
	return roundTrip(t, req)
}

func roundTrip(t *testing.T, req *http.Request) (int, http.Header, []byte) {
	t.Helper()
	client := http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	r, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(fmt.Errorf("%s %s: %w", req.Method, req.URL, err))
	}
	return r.StatusCode, r.Header, body
}
