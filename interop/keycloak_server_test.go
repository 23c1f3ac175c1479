package interop

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keycloak is a running Keycloak with the realm of keycloak-realm.json.
type keycloak struct {
	*process
	url string
}

func startKeycloak(t *testing.T) *keycloak {
	t.Helper()
	homes, err := filepath.Glob(installed(t, "keycloak-*", "bin", "kc.sh"))
	if err != nil || len(homes) != 1 {
		t.Fatalf("no Keycloak, or more than one: %v %v (interop/setup installs it)", homes, err)
	}
	address := freePort(t)
	cmd := exec.Command("sh", homes[0], "start", "--optimized", "--cache=local", "--http-enabled=true",
		"--http-host=127.0.0.1", "--http-port="+port(address), "--hostname-strict=false",
		"--spi-ssf-transmitter--default--allow-insecure-push-targets=true", "--spi-ssf-transmitter--default--default-subjects=ALL",
		"--spi-ssf-transmitter--default--outbox-drainer-interval=1s", "--spi-ssf-transmitter--default--transmitter-initiated-verification-delay-millis=200")
	cmd.Env = append(os.Environ(), "KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=admin",
		"JAVA_OPTS_KC_HEAP=-Xms64m -Xmx512m", "JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1")
	k := &keycloak{process: start(t, "keycloak", cmd), url: "http://" + address}
	k.ready(t, 4*time.Minute, answers(k.url+"/realms/master", http.StatusOK))

	realm, err := os.ReadFile("keycloak-realm.json")
	if err != nil {
		t.Fatal(err)
	}
	k.admin(t, http.MethodPost, "", json.RawMessage(realm), http.StatusCreated)
	return k
}

func (k *keycloak) issuer() string        { return k.url + "/realms/ww" }
func (k *keycloak) endpoint() string      { return k.issuer() + "/protocol/openid-connect" }
func (k *keycloak) introspection() string { return k.endpoint() + "/token/introspect" }

// login gets tokens for ann at a client.
func (k *keycloak) login(t *testing.T, client string) tokenAnswer {
	t.Helper()
	return tokens(t, k.endpoint()+"/token", client,
		url.Values{"grant_type": {"password"}, "username": {"ann"}, "password": {"ann-password"}})
}

func (k *keycloak) revoke(t *testing.T, client, token string) {
	t.Helper()
	post(t, k.endpoint()+"/revoke", client, url.Values{"token": {token}}, http.StatusOK)
}

func (k *keycloak) logout(t *testing.T, client, refresh string) {
	t.Helper()
	post(t, k.endpoint()+"/logout", client, url.Values{"refresh_token": {refresh}}, http.StatusNoContent)
}

// enable switches ann's account on or off.
func (k *keycloak) enable(t *testing.T, state map[string]any) {
	t.Helper()
	k.admin(t, http.MethodPut, k.user(t), state, http.StatusNoContent)
}

// admin calls the admin API below /admin/realms.
func (k *keycloak) admin(t *testing.T, method, path string, body any, want int) []byte {
	t.Helper()
	form := url.Values{"grant_type": {"password"}, "client_id": {"admin-cli"}, "username": {"admin"}, "password": {"admin"}}
	status, _, said := postAs(t, k.url+"/realms/master/protocol/openid-connect/token", "", "", form)
	var answer tokenAnswer
	if err := json.Unmarshal(said, &answer); err != nil || status != http.StatusOK {
		t.Fatalf("admin login: %d %s", status, said)
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, k.url+"/admin/realms"+path, content)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+answer.Access)
	req.Header.Set("Content-Type", "application/json")
	status, _, said = roundTrip(t, req)
	if status != want {
		t.Fatalf("%s %s: %d %s", method, strings.TrimPrefix(req.URL.String(), k.url), status, said)
	}
	return said
}
