package nats

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/watchword-dev/watchword/revocation"
)

// pair makes a key pair and its public half.
func pair(t *testing.T, make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
	t.Helper()
	kp, err := make()
	if err != nil {
		t.Fatal(err)
	}
	public, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return kp, public
}

// A server whose users have JWTs: a credentials file serves, and is read anew, so that a file of before its time is
// mended without a restart.
func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	operator, operatorKey := pair(t, nkeys.CreateOperator)
	oc := jwt.NewOperatorClaims(operatorKey)
	accounts := &server.MemAccResolver{}
	account := func(name string, limit int64) (nkeys.KeyPair, string) {
		kp, public := pair(t, nkeys.CreateAccount)
		c := jwt.NewAccountClaims(public)
		c.Name = name
		c.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: limit, MemoryStorage: limit, Streams: limit, Consumer: limit}
		text, err := c.Encode(operator)
		if err == nil {
			err = accounts.Store(public, text)
		}
		if err != nil {
			t.Fatal(err)
		}
		return kp, public
	}
	_, system := account("system", 0)
	owner, _ := account("watchword", -1)
	file := func(by nkeys.KeyPair) string {
		user, public := pair(t, nkeys.CreateUser)
		text, err := jwt.NewUserClaims(public).Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		seed, _ := user.Seed()
		body, err := jwt.FormatUserConfig(text, seed)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
		TrustedOperators: []*jwt.OperatorClaims{oc}, AccountResolver: accounts, SystemAccount: system})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}

	stranger, _ := pair(t, nkeys.CreateAccount)
	var now atomic.Value
	now.Store(file(stranger))
	l, err := NewLog(LogConfig{Config: Config{URL: s.ClientURL(), Credentials: func() (string, error) { return now.Load().(string), nil }}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = l.Append(t.Context(), []byte("one"))
	if !errors.Is(err, revocation.ErrCredential) || !strings.Contains(err.Error(), s.ClientURL()) {
		t.Errorf("a stranger's credentials: %v", err)
	}
	now.Store(file(owner))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for err = errors.New("none"); err != nil && ctx.Err() == nil; err = l.Append(ctx, []byte("two")) {
	}
	if err != nil {
		t.Errorf("credentials that were mended: %v", err)
	}
}

// Who may write and not read is told so: it would wait for ever otherwise, and nobody would know for what.
//
// Covers: SIG-21
func TestReadingThatIsForbidden(t *testing.T) {
	t.Parallel()
	deny := &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.CREATE.>"}}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{{Username: "node", Password: "pw", Permissions: &server.Permissions{Publish: deny}}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	l, err := NewLog(LogConfig{Config: Config{URL: s.ClientURL(), Username: "node", Password: func() (string, error) { return "pw", nil }}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var why error
	err = l.Read(ctx, "", func(revocation.Entry) error { return nil }, func(string) {}, func(err error) {
		why = err
		cancel()
	})
	if !errors.Is(why, revocation.ErrForbidden) || !strings.Contains(why.Error(), s.ClientURL()) || !errors.Is(err, context.Canceled) {
		t.Errorf("told %v, ended with %v", why, err)
	}
}

func TestNKeyIsAUsers(t *testing.T) {
	t.Parallel()
	account, _ := pair(t, nkeys.CreateAccount)
	seed, _ := account.Seed()
	for _, text := range []string{string(seed), "SUNOTASEED", ""} {
		_, err := NewLog(LogConfig{Config: Config{URL: "nats://127.0.0.1:1", NKey: func() (string, error) { return text, nil }}})
		if err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("accepted, or shown: %v", err)
		}
	}
	bad := Config{URL: "nats://a:1", NKey: func() (string, error) { return "", nil }, Credentials: func() (string, error) { return "", nil }}
	if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "more than one of") {
		t.Errorf("two credentials: %v", err)
	}
}
