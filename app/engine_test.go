package app

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/watchword-dev/watchword/revocation"
)

// Each thing that can be wrong with an engine has the key that mends it.
func TestEngineRemedies(t *testing.T) {
	t.Parallel()
	plain := (&Redis{}).engine("revocation.bus.")
	user := (&Redis{Username: "u", Password: Secret{refs: []reference{{env: "P"}}}, TLS: ClientTLS{CA: "ca.pem"}}).engine("revocation.bus.")
	nkey := (&NATS{URL: "nats://a:1", NKey: Secret{refs: []reference{{env: "N"}}}}).engine("cache.l2.")
	for _, one := range []struct {
		e    engine
		err  error
		want string
	}{
		{plain, revocation.ErrCredential, "write a credential below revocation.bus.redis"},
		{user, revocation.ErrCredential, "revocation.bus.redis.password"},
		{nkey, revocation.ErrCredential, "cache.l2.nats"},
		{user, revocation.ErrForbidden, "docs/revocation.md"},
		{plain, revocation.ErrCluster, "revocation.bus.redis.cluster: true"},
		{user, x509.UnknownAuthorityError{}, "revocation.bus.redis.tls.ca"},
		{nkey, x509.UnknownAuthorityError{}, "tls:// in cache.l2.nats.url"},
		{user, x509.HostnameError{Certificate: &x509.Certificate{}, Host: "a"}, "name that the server's certificate has"},
		{user, x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, "another certificate"},
		{user, tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "remove revocation.bus.redis.tls"},
		{user, errors.New("remote error: tls: certificate required"), "revocation.bus.redis.tls.cert"},
		{plain, io.EOF, "write revocation.bus.redis.tls"},
		{user, io.EOF, "revocation.bus.redis.tls.cert"},
		{user, fmt.Errorf("write: %w", syscall.EPIPE), "revocation.bus.redis.tls.cert"},
		{user, errors.New("connection refused"), ""},
	} {
		if got := one.e.remedy(fmt.Errorf("redis a:1: %w", one.err)); !strings.Contains(got, one.want) || one.want == "" && got != "" {
			t.Errorf("%v: %q, want %q", one.err, got, one.want)
		}
	}
}
