package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// papers are an authority's certificate, and one with its key for a server or client at 127.0.0.1, in PEM files. both
// holds key and certificate.
type papers struct{ ca, cert, key, both string }

func newPapers(t *testing.T) papers {
	t.Helper()
	dir := t.TempDir()
	make := func(serial int64, name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
		if parent == nil {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage, c.IPAddresses = true, true, x509.KeyUsageCertSign, nil, nil
			parent, by = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return c, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	authority, by, ca := make(1, "authority of a test", nil, nil)
	_, key, cert := make(2, "engine of a test", authority, by)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return papers{ca: write(t, dir, "ca.pem", ca), cert: write(t, dir, "cert.pem", cert), key: write(t, dir, "key.pem", private), both: write(t, dir, "both.pem", private+cert)}
}

// tls is the section of a client with these papers.
func (p papers) tls() string {
	return fmt.Sprintf("tls: {ca: %s, cert: %s, key: %s}", p.ca, p.cert, p.key)
}

// member is a Watchword with an engine below revocation.bus, and perhaps below cache.l2, that is not waited for.
func member(t *testing.T, as *oidcProvider, bus, l2 string) *front {
	t.Helper()
	introspect, door, admin := freePort(t), freePort(t), freePort(t)
	dir := t.TempDir()
	shared := ""
	if l2 != "" {
		shared = "cache: {l2: {timeout: 2s, " + l2 + "}}\n"
	}
	config := `issuers:
  - name: main
    introspection_endpoint: ` + as.introspection() + `
    ` + secretAuth(t, "client_secret_basic", "rs", "rs-secret") + `
freshness: {max_staleness: ` + farAway + `}
policies: [{name: orders, match: {paths: ["/orders/*"]}}]
doors:
  introspection: {listen: "` + introspect + `", ` + ordersCalls + `}
  forward_auth: {listen: "` + door + `", trusted_proxies: [127.0.0.1/32]}
admin: {listen: "` + admin + `", operators: [{name: ops, bearer: {env: OPS}}]}
deployment_secret: {file: ` + write(t, dir, "deployment", "deployment-secret-of-a-test-of-engines") + `}
revocation: {bus: {` + bus + `}}
` + shared
	cmd := watchwordCommand(t, "serve", "--config", write(t, dir, "watchword.yaml", config))
	cmd.Env = append(os.Environ(), "ORDERS_SECRET=orders-secret", "OPS=operator-of-the-test", "ENGINE_SECRET="+engineSecret, "WRONG_SECRET="+wrongSecret)
	f := &front{daemon: &daemon{process: start(t, "watchword", cmd)}, introspect: "http://" + introspect + "/introspect", door: door, admin: admin}
	f.ready(t, patience, answers("http://"+admin+"/healthz", http.StatusOK))
	return f
}

const (
	engineSecret = "secret-of-the-engine-27f0"
	wrongSecret  = "secret-that-is-wrong-91be"
)

// shares: two nodes become ready over an engine, and what an operator says to one, both obey.
func shares(t *testing.T, as *oidcProvider, bus, l2 string) {
	t.Helper()
	var nodes []*front
	for range 2 {
		f := member(t, as, bus, l2)
		f.ready(t, patience, answers("http://"+f.admin+"/readyz", http.StatusOK))
		if l2 != "" {
			f.ready(t, patience, metric(f.admin, "watchword_shared_in_use 1"))
		}
		nodes = append(nodes, f)
	}
	token := remembered(t, as, nodes...)
	nodes[0].deny(t, map[string]any{"issuer": "main", "token": token, "why": "a test"})
	for _, f := range nodes {
		if _, err := f.refuses(token, time.Now()); err != nil {
			t.Error(err)
		}
	}
}

// cannot: with this engine a node says what is wrong, and how to mend it, in one line that it does not repeat all the
// time; it is not ready, goes on deciding, and acknowledges no revocation, which is in force there all the same.
func cannot(t *testing.T, as *oidcProvider, bus, wrong, fix string) {
	t.Helper()
	f := member(t, as, bus, "")
	var line string
	await(t, "the error", patience, func() error {
		for one := range strings.Lines(f.tail(1 << 20)) {
			if strings.Contains(one, "the kept revocations cannot be read") {
				line = strings.TrimSpace(one)
				return nil
			}
		}
		return fmt.Errorf("it says %q", f.tail(1000))
	})
	t.Log(line)
	if !strings.Contains(line, wrong) || !strings.Contains(line, fix) {
		t.Errorf("want %q and %q in: %s", wrong, fix, line)
	}
	if err := answers("http://"+f.admin+"/readyz", http.StatusServiceUnavailable)(); err != nil {
		t.Error(err)
	}
	token := as.token(t, "ann", forAPI)
	f.lives(t, "a token while there is no bus", token)
	if status, said := f.revocation(t, map[string]any{"issuer": "main", "token": token, "why": "a test"}); status != http.StatusServiceUnavailable {
		t.Errorf("a revocation that nobody else hears of: %d %s", status, said)
	}
	f.dead(t, "what was revoked on this node only", token)
	log := f.tail(1 << 20)
	for _, secret := range []string{engineSecret, wrongSecret, token} {
		if strings.Contains(log, secret) {
			t.Errorf("a secret is in the log:\n%s", log)
		}
	}
	if n := strings.Count(log, "the kept revocations cannot be read"); n > 3 {
		t.Errorf("it is said %d times within seconds", n)
	}
}

// grants are those of docs/revocation.md for an ACL user of Redis.
func grants(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "revocation.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "    user watchword on ")
	line, _, _ := strings.Cut(rest, "\n\n")
	_, rights, also := strings.Cut(line, ">PASSWORD ")
	if !found || !also {
		t.Fatal("docs/revocation.md does not say what to grant")
	}
	return strings.Join(strings.Fields(rights), " ")
}

// Redis as people run it: TLS that wants a certificate of ours, and an ACL user that may do what docs/revocation.md lists
// and nothing else; and everything that can be wrong with that.
func TestRedisSecured(t *testing.T) {
	t.Parallel()
	as, ours, theirs := startOIDCProvider(t), newPapers(t), newPapers(t)
	address, dir := freePort(t), t.TempDir()
	_, port, _ := net.SplitHostPort(address)
	rights := grants(t)
	acl := write(t, dir, "users.acl", "user default off\nuser watchword on >"+engineSecret+" "+rights+
		"\nuser weak on >"+engineSecret+" "+strings.NewReplacer("+hscan", "", "+eval ", "").Replace(rights)+"\n")
	start(t, "redis", command("redis-server", "--bind", "127.0.0.1", "--port", "0", "--tls-port", port, "--dir", dir, "--save", "", "--appendonly", "yes", "--aclfile", acl,
		"--tls-cert-file", ours.cert, "--tls-key-file", ours.key, "--tls-ca-cert-file", ours.ca)).ready(t, patience, listens(address))
	at := func(user, secret, more string) string {
		return fmt.Sprintf("redis: {address: %q, username: %s, password: {env: %s}%s}", address, user, secret, more)
	}
	good := at("watchword", "ENGINE_SECRET", ", "+ours.tls())
	t.Run("serves", func(t *testing.T) { shares(t, as, good, good) })
	const path = "revocation.bus.redis"
	for name, one := range map[string]struct{ bus, wrong, fix string }{
		"wrong password":    {at("watchword", "WRONG_SECRET", ", "+ours.tls()), address + ": it refuses the credential of user watchword (WRONGPASS)", path + ".password"},
		"no user":           {fmt.Sprintf("redis: {address: %q, %s}", address, ours.tls()), "it refuses the credential of the default user (NOAUTH)", "write a credential below " + path},
		"a right is lacked": {at("weak", "ENGINE_SECRET", ", "+ours.tls()), "it forbids something to user weak: NOPERM", "docs/revocation.md"},
		"another authority": {at("watchword", "ENGINE_SECRET", ", tls: {ca: "+theirs.ca+"}"), "certificate signed by unknown authority", path + ".tls.ca"},
		"no certificate":    {at("watchword", "ENGINE_SECRET", ", tls: {ca: "+ours.ca+"}"), address, path + ".tls.cert"},
		"no TLS":            {at("watchword", "ENGINE_SECRET", ""), address, "write " + path + ".tls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cannot(t, as, one.bus, one.wrong, one.fix)
		})
	}
	t.Run("the shared store alone", func(t *testing.T) {
		t.Parallel()
		f := member(t, as, good, at("watchword", "WRONG_SECRET", ", "+ours.tls()))
		f.ready(t, patience, answers("http://"+f.admin+"/readyz", http.StatusOK)) // nobody needs it
		await(t, "the error", patience, func() error {
			for line := range strings.Lines(f.tail(1 << 20)) {
				if strings.Contains(line, "the shared store is not in use") && strings.Contains(line, "user watchword (WRONGPASS)") && strings.Contains(line, "cache.l2.redis.password") {
					return nil
				}
			}
			return fmt.Errorf("it says %q", f.tail(1000))
		})
		f.lives(t, "a token", as.token(t, "ann", forAPI))
	})
}

// NATS with TLS that wants a certificate of ours, a user with a password and one with an NKey; and what can be wrong.
func TestNATSSecured(t *testing.T) {
	t.Parallel()
	as, ours, theirs := startOIDCProvider(t), newPapers(t), newPapers(t)
	address, dir := freePort(t), t.TempDir()
	_, port, _ := net.SplitHostPort(address)
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := user.Seed()
	public, _ := user.PublicKey()
	other, _ := nkeys.CreateUser()
	stranger, _ := other.Seed()
	may := `permissions: {publish: ["watchword.log", "$KV.watchword-kept.>", "$JS.API.>", "$JS.ACK.>"], subscribe: "_INBOX.>"}`
	config := write(t, dir, "nats.conf", fmt.Sprintf(`host: 127.0.0.1
port: %s
jetstream {store_dir: %q}
tls {cert_file: %q, key_file: %q, ca_file: %q, verify: true}
authorization {users: [{user: watchword, password: %q, %s}, {nkey: %s}, {user: weak, password: %q, permissions: {publish: "nothing"}}]}
`, port, dir, ours.cert, ours.key, ours.ca, engineSecret, may, public, engineSecret))
	start(t, "nats", command("nats-server", "-c", config)).ready(t, patience, listens(address))
	at := func(who, more string) string {
		return fmt.Sprintf("nats: {url: %q, %s%s}", "tls://"+address, who, more)
	}
	nkey := "nkey: {file: " + write(t, dir, "seed", string(seed)) + "}"
	const password = "username: watchword, password: {env: ENGINE_SECRET}"
	t.Run("serves", func(t *testing.T) { shares(t, as, at(password, ", "+ours.tls()), at(nkey, ", "+ours.tls())) })
	const path = "revocation.bus.nats"
	for name, one := range map[string]struct{ bus, wrong, fix string }{
		"wrong password":    {at("username: watchword, password: {env: WRONG_SECRET}", ", "+ours.tls()), "it refuses the credential", path + ".password"},
		"wrong NKey":        {at("nkey: {file: "+write(t, dir, "stranger", string(stranger))+"}", ", "+ours.tls()), "it refuses the credential", path},
		"a right is lacked": {at("username: weak, password: {env: ENGINE_SECRET}", ", "+ours.tls()), "it forbids something", "docs/revocation.md"},
		"another authority": {at(password, ", tls: {ca: "+theirs.ca+"}"), "certificate signed by unknown authority", path + ".tls.ca"},
		"no certificate":    {at(password, ", tls: {ca: "+ours.ca+"}"), "127.0.0.1:", path + ".tls.cert"},
		"no TLS":            {strings.Replace(at("replicas: 1", ""), "tls://", "nats://", 1), "certificate signed by unknown authority", "write tls:// in " + path + ".url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cannot(t, as, one.bus, one.wrong, one.fix)
		})
	}
}

// secured adds a listener to a Kafka: TLS that wants a certificate of ours, SASL, and who may do what.
func (k *kafkaServer) secured(ours papers) string {
	return `ssl.keystore.type=PEM
ssl.keystore.location=` + ours.both + `
ssl.truststore.type=PEM
ssl.truststore.location=` + ours.ca + `
listener.name.secured.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secured.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
`
}

// securely: the same broker by TLS and SASL, and what can be wrong.
func (k *kafkaServer) securely(t *testing.T, ours papers) {
	as, theirs := startOIDCProvider(t), newPapers(t)
	at := func(user, secret, more string) string {
		return fmt.Sprintf("kafka: {brokers: [%q], topic: secured, username: %s, password: {env: %s}%s}", k.securedAt, user, secret, more)
	}
	k.grant(t, "watchword", "secured", "secured-kept")
	t.Run("serves", func(t *testing.T) { shares(t, as, at("watchword", "ENGINE_SECRET", ", "+ours.tls()), "") })
	const path = "revocation.bus.kafka"
	for name, one := range map[string]struct{ bus, wrong, fix string }{
		"wrong password":    {at("watchword", "WRONG_SECRET", ", "+ours.tls()), "it refuses the credential", path + ".password"},
		"a right is lacked": {at("weak", "ENGINE_SECRET", ", "+ours.tls()), "it forbids something", "docs/revocation.md"},
		"another authority": {at("watchword", "ENGINE_SECRET", ", tls: {ca: "+theirs.ca+"}"), "certificate signed by unknown authority", path + ".tls.ca"},
		"no certificate":    {at("watchword", "ENGINE_SECRET", ", tls: {ca: "+ours.ca+"}"), "127.0.0.1:", path + ".tls.cert"},
		"no TLS":            {at("watchword", "ENGINE_SECRET", ""), k.securedAt, path + ".tls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cannot(t, as, one.bus, one.wrong, one.fix)
		})
	}
}

// grant gives a user what docs/revocation.md lists, on each topic.
func (k *kafkaServer) grant(t *testing.T, user string, topics ...string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ask := kmsg.NewPtrCreateACLsRequest()
	for _, topic := range topics {
		for _, may := range []kmsg.ACLOperation{kmsg.ACLOperationCreate, kmsg.ACLOperationDescribe, kmsg.ACLOperationRead, kmsg.ACLOperationWrite} {
			c := kmsg.NewCreateACLsRequestCreation()
			c.ResourceType, c.ResourceName, c.ResourcePatternType = kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral
			c.Principal, c.Host, c.Operation, c.PermissionType = "User:"+user, "*", may, kmsg.ACLPermissionTypeAllow
			ask.Creations = append(ask.Creations, c)
		}
	}
	got, err := ask.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
}
