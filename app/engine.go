package app

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/watchword-dev/watchword/revocation"
)

// Redis is a Redis or Valkey server, or a cluster of them.
type Redis struct {
	Address, Prefix, Username string
	Cluster                   bool
	Password                  Secret
	TLS                       ClientTLS
}

// NATS is a NATS cluster with JetStream: its stream is the bus, its bucket the shared store.
type NATS struct {
	Embedded                      *Embedded // of the bus: the nodes are the cluster; nil: URL
	URL, Stream, Bucket, Username string
	Password, NKey, Credentials   Secret
	TLS                           ClientTLS
	Replicas                      int
}

// Kafka is a Kafka cluster.
type Kafka struct {
	Brokers                    []string
	Topic, Username, Mechanism string
	Password                   Secret
	TLS                        ClientTLS
}

// ClientTLS is TLS towards a server, by PEM files. An empty CA is none, but with a URL of NATS that says tls: then the
// system's authorities count.
type ClientTLS struct{ CA, Cert, Key string }

const (
	passwordDoc = "With username. Read again for every connection, so a rotation needs no restart."
	tlsToDoc    = "TLS towards it. Absent: none."
)

var clientTLSKeys = object([]row[ClientTLS]{
	key("ca", filePath, func(t *ClientTLS) *string { return &t.CA }, "The certificates, in PEM, that the server's must chain to. Read at start.").required(),
	key("cert", filePath, func(t *ClientTLS) *string { return &t.Cert }, "Our own certificate in PEM, where the server wants one; read again for every connection."),
	key("key", filePath, func(t *ClientTLS) *string { return &t.Key }, "Its key in PEM."),
})

var redisKeys = object([]row[Redis]{
	key("address", text("address", "write host:port, such as 127.0.0.1:6379", like(`^.+:[0-9]{1,5}$`, "has no port")), func(s *Redis) *string { return &s.Address },
		"Where it listens. Of a cluster several nodes, with commas, to begin with.").required(),
	key("cluster", boolean, func(s *Redis) *bool { return &s.Cluster }, "It is a Redis Cluster: answers are spread over it, and all that belongs to revocations lies in one slot.").or("false"),
	key("prefix", text("prefix", "write letters, digits and _ . : -, at most 64", like(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$`, "is no prefix")), func(s *Redis) *string { return &s.Prefix },
		"Of every key, so that others can use the server too.").or("watchword"),
	key("username", text("name", "write the name of its ACL user"), func(s *Redis) *string { return &s.Username }, "Of an ACL user. Absent: the default one."),
	key("password", secret(1), func(s *Redis) *Secret { return &s.Password }, "Read again for every connection, so a rotation needs no restart."),
	key("tls", clientTLSKeys, func(s *Redis) *ClientTLS { return &s.TLS }, tlsToDoc),
})

func natsURL(doc string) row[NATS] {
	return key("url", text("URL", "write nats://host:port or tls://host:port, several with commas", like(`^(nats|tls)://[^@]+$`, "is no URL of NATS without credentials")), func(s *NATS) *string { return &s.URL }, doc)
}

// natsRows are the keys of NATS but for where it is, and what it is used for.
func natsRows() []row[NATS] {
	return []row[NATS]{
		key("username", text("name", "write the name of its user"), func(s *NATS) *string { return &s.Username }, "Its user. Absent: none."),
		key("password", secret(1), func(s *NATS) *Secret { return &s.Password }, passwordDoc),
		key("nkey", secret(1), func(s *NATS) *Secret { return &s.NKey }, "Instead of username: the seed of a user's NKey (SU…). Another user's needs a restart."),
		key("credentials", secret(1), func(s *NATS) *Secret { return &s.Credentials }, "Instead of username: a credentials file, with a user's JWT and its seed. Read again for every connection."),
		key("replicas", integer(1, 5), func(s *NATS) *int { return &s.Replicas }, "Of what we make.").or("1"),
		key("tls", clientTLSKeys, func(s *NATS) *ClientTLS { return &s.TLS }, "TLS towards it. Absent: the system's certificates, where the URL says tls."),
	}
}

var kafkaKeys = object([]row[Kafka]{
	key("brokers", list(text("broker", "write host:port, such as 127.0.0.1:9092", like(`^.+:[0-9]{1,5}$`, "has no port"))), func(s *Kafka) *[]string { return &s.Brokers }, "Some of the cluster, to begin with.").required(),
	key("topic", text("topic", "write letters, digits, . _ and -, at most 200", like(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`, "is no name of a topic")), func(s *Kafka) *string { return &s.Topic },
		"The topic; made with one partition if it is not there. Only partition 0 is used: one order.").or("watchword"),
	key("username", text("name", "write the name of its user"), func(s *Kafka) *string { return &s.Username }, "SASL. Absent: none."),
	key("password", secret(1), func(s *Kafka) *Secret { return &s.Password }, passwordDoc),
	key("mechanism", word("scram-sha-512", "scram-sha-256", "plain"), func(s *Kafka) *string { return &s.Mechanism }, "Of SASL; plain needs TLS.").or("scram-sha-512"),
	key("tls", clientTLSKeys, func(s *Kafka) *ClientTLS { return &s.TLS }, tlsToDoc),
})

// engine is what the three have in common. The zero value is none.
type engine struct {
	path, user                  string
	password, nkey, credentials Secret
	tls                         ClientTLS
	clear                       bool   // the address says that there is no TLS
	nobody                      bool   // without a user, a password means nothing
	several                     bool   // addresses, and it is no cluster
	rest                        string // what else cannot change while it serves
}

func (s *Redis) engine(path string) engine {
	return engine{path: path + "redis", user: s.Username, password: s.Password, tls: s.TLS, several: strings.Contains(s.Address, ",") && !s.Cluster, rest: fmt.Sprint(s.Address, " ", s.Cluster, " ", s.Prefix)}
}

func (s *NATS) engine(path string) engine {
	return engine{path: path + "nats", user: s.Username, password: s.Password, nkey: s.NKey, credentials: s.Credentials, tls: s.TLS, nobody: true,
		clear: strings.HasPrefix(s.URL, "nats"), rest: fmt.Sprint(s.URL, " ", s.Embedded, " ", s.Stream, " ", s.Bucket, " ", s.Replicas, " ", s.NKey.IsZero(), " ", s.Credentials.IsZero())}
}

func (s *Kafka) engine(path string) engine {
	return engine{path: path + "kafka", user: s.Username, password: s.Password, tls: s.TLS, nobody: true, rest: fmt.Sprint(s.Brokers, " ", s.Topic, " ", s.Mechanism)}
}

// String is what of it cannot change while it serves.
func (e engine) String() string {
	return fmt.Sprintf("%s %s username %q tls %+v", e.path, e.rest, e.user, e.tls)
}

// secrets are those that are written, by path.
func (e engine) secrets() map[string]Secret {
	all := map[string]Secret{}
	for name, s := range map[string]Secret{"password": e.password, "nkey": e.nkey, "credentials": e.credentials} {
		if !s.IsZero() {
			all[e.path+"."+name] = s
		}
	}
	return all
}

// check finds what is missing for it to be reached, and what means nothing.
func (e engine) check(r *reader) {
	missing := func(name, needs string) {
		r.silent(place{e.path + "." + name, r.at(e.path).node}, "is missing: "+needs+" needs it", "write it")
	}
	switch {
	case e.user != "" && e.password.IsZero():
		r.silent(place{e.path + ".password", r.at(e.path).node}, "is missing: username needs it", secretHint)
	case e.user == "" && e.nobody:
		r.inert(e.path+".password", "there is no username", "write username, or remove it")
	}
	if e.user != "" || !e.nkey.IsZero() {
		r.inert(e.path+".credentials", "there is another credential", "keep one of username, nkey and credentials")
	}
	if e.user != "" {
		r.inert(e.path+".nkey", "there is another credential", "keep one of username, nkey and credentials")
	}
	if e.several {
		r.wrong(r.at(e.path+".address"), "is more than one", "keep one, or write cluster: true")
	}
	if e.clear {
		r.inert(e.path+".tls", "the URL says nats", "write tls:// in the URL, or remove it")
	}
	if e.tls.Cert != "" && e.tls.Key == "" {
		missing("tls.key", "cert")
	}
	if e.tls.Key != "" && e.tls.Cert == "" {
		missing("tls.cert", "key")
	}
}

// reach is how an engine is reached. What is nil is not there.
type reach struct {
	password, nkey, credentials func() (string, error) // asked for every connection
	tls                         *tls.Config
	inner                       inside // the server that is reached, where it is in this process
}

// reach reads e's files. now is the engine of the configuration that serves.
func (e engine) reach(now func() engine) (w reach, err error) {
	ask := func(of func(engine) Secret) func() (string, error) {
		if of(e).IsZero() {
			return nil
		}
		return func() (string, error) {
			values, err := of(now()).Resolve()
			if err != nil {
				return "", err
			}
			if len(values) == 0 {
				return "", errors.New(e.path + ": no credential any more")
			}
			return values[0], nil
		}
	}
	w.password = ask(func(e engine) Secret { return e.password })
	w.nkey = ask(func(e engine) Secret { return e.nkey })
	w.credentials = ask(func(e engine) Secret { return e.credentials })
	if e.tls.CA == "" {
		return w, nil
	}
	pool, err := certPool(e.tls.CA)
	if err != nil {
		return w, fmt.Errorf("tls: ca: %w", err)
	}
	w.tls = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if e.tls.Cert != "" {
		w.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return TLS{e.tls.Cert, e.tls.Key}.load()
		}
	}
	return w, nil
}

// because are the attributes of a log line about err: what it is and, where the file may be to blame, what to do.
func (e engine) because(err error) []any {
	all := []any{"error", err}
	if fix := e.remedy(err); fix != "" {
		all = append(all, "fix", fix)
	}
	return all
}

// remedy is what an operator can do about err; empty: there is nothing to be said.
func (e engine) remedy(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, revocation.ErrCredential) && e.user == "" && len(e.secrets()) == 0:
		return "it wants to know who we are: write a credential below " + e.path
	case errors.Is(err, revocation.ErrCredential) && e.user != "":
		return "write the password that " + e.user + " has there into " + e.path + ".password, or mend " + e.path + ".username"
	case errors.Is(err, revocation.ErrCredential):
		return "write the credential that it knows below " + e.path
	case errors.Is(err, revocation.ErrForbidden):
		return "grant there what docs/revocation.md lists"
	case errors.Is(err, revocation.ErrCluster):
		return "write " + e.path + ".cluster: true"
	case errors.As(err, &unknown) && e.clear:
		return "write tls:// in " + e.path + ".url, and into " + e.path + ".tls.ca the authority of the server's certificate"
	case errors.As(err, &unknown):
		return e.path + ".tls.ca must hold the authority of the server's certificate"
	case errors.As(err, &name):
		return "write the name that the server's certificate has, or give it one for the name that is written below " + e.path
	case errors.As(err, &invalid):
		return "give the server another certificate"
	case errors.As(err, &record):
		return "it speaks no TLS there: write the port where it does, or remove " + e.path + ".tls"
	case strings.Contains(err.Error(), "remote error: tls:"):
		return "the server refuses our side of TLS: does it want " + e.path + ".tls.cert and key of its own authority?"
	case e.tls.CA != "" && e.tls.Cert == "" && hungUp(err): // that alert may be lost
		return "if it wants a certificate of ours, write " + e.path + ".tls.cert and key"
	case e.tls.CA == "" && (hungUp(err) || strings.Contains(err.Error(), "tls")):
		return "if it speaks TLS only, write " + e.path + ".tls"
	}
	return ""
}

// hungUp reports that the server ended the connection without a word that arrived.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || strings.Contains(err.Error(), "closed by remote")
}
