package app

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/cache"
	"github.com/watchword-dev/watchword/revocation"
)

const (
	maxPEMBytes     = 1 << 20
	weakSecretBytes = 16
)

// clients yields how we authenticate to others, by its path in the file.
func (c *Config) clients() iter.Seq2[string, *ClientAuth] {
	return func(yield func(string, *ClientAuth) bool) {
		for i := range c.Issuers {
			if !yield(fmt.Sprintf("issuers[%d].client_auth", i), &c.Issuers[i].ClientAuth) {
				return
			}
		}
		for i := range c.Canaries {
			if !yield(fmt.Sprintf("canary[%d].client_auth", i), &c.Canaries[i].ClientAuth) {
				return
			}
		}
		if c.Events != nil {
			for i := range c.Events.Streams {
				if !yield(fmt.Sprintf("doors.events.ssf[%d].client_auth", i), &c.Events.Streams[i].ClientAuth) {
					return
				}
			}
		}
	}
}

// secrets yields every secret with its path in the file.
func (c *Config) secrets() iter.Seq2[string, Secret] {
	return func(yield func(string, Secret) bool) {
		for path, a := range c.clients() {
			key := "client_secret"
			if a.Method == "bearer" {
				key = "token"
			}
			if !a.Secret.IsZero() && !yield(path+"."+key, a.Secret) || !a.PrivateKey.IsZero() && !yield(path+".private_key", a.PrivateKey) {
				return
			}
		}
		for i, is := range c.Issuers {
			if !is.Response.Decryption.IsZero() && !yield(fmt.Sprintf("issuers[%d].introspection_response.decryption_key", i), is.Response.Decryption) {
				return
			}
		}
		if c.Introspection != nil {
			if s := c.Introspection.Signing; s != nil && !yield("doors.introspection.signing.key", s.Key) {
				return
			}
			for i, caller := range c.Introspection.Callers {
				path := fmt.Sprintf("doors.introspection.callers[%d].", i)
				key := "client_secret"
				if caller.ClientID == "" {
					key = "bearer"
				}
				if !caller.Secret.IsZero() && !yield(path+key, caller.Secret) {
					return
				}
				if e := caller.Encrypt; e != nil && !e.Key.IsZero() && !yield(path+"encryption.key", e.Key) {
					return
				}
			}
		}
		for i, o := range c.Operators {
			if !o.Bearer.IsZero() && !yield(fmt.Sprintf("admin.operators[%d].bearer", i), o.Bearer) {
				return
			}
		}
		for path, s := range c.Events.secrets() {
			if !yield(path, s) {
				return
			}
		}
		if !c.DeploymentSecret.IsZero() && !yield("deployment_secret", c.DeploymentSecret) {
			return
		}
		for _, e := range c.engines() {
			for path, s := range e.secrets() {
				if !yield(path, s) {
					return
				}
			}
		}
	}
}

// engines are the servers that this node shares with others.
func (c *Config) engines() []engine { return []engine{c.Revocation.Bus.engine(), c.Cache.L2.engine()} }

// pairs yields every certificate with its key, by path.
func (c *Config) pairs() iter.Seq2[string, TLS] {
	return func(yield func(string, TLS) bool) {
		for path, a := range c.clients() {
			if a.CertFile != "" && a.KeyFile != "" && !yield(path, TLS{a.CertFile, a.KeyFile}) {
				return
			}
		}
		for door, pair := range c.servedWith() {
			if !yield("doors."+door+".tls", pair) {
				return
			}
		}
		for _, e := range c.engines() {
			if e.tls.Cert != "" && e.tls.Key != "" && !yield(e.path+".tls", TLS{e.tls.Cert, e.tls.Key}) {
				return
			}
		}
	}
}

// Files lists every file that c was made of or refers to, for watching.
func (c *Config) Files() []string {
	files := []string{}
	if c.Path != "" {
		files = append(files, c.Path)
	}
	for _, s := range c.secrets() {
		files = append(files, s.files()...)
	}
	for _, pair := range c.pairs() {
		files = append(files, pair.Cert, pair.Key)
	}
	for _, is := range c.Issuers {
		if is.CA != "" {
			files = append(files, is.CA)
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// onDisk reads every file and secret that c refers to, and reports those that cannot serve. What c lacks because it has
// other mistakes is passed over.
func (c *Config) onDisk(r *reader) {
	for path, s := range c.secrets() {
		values, err := s.Resolve()
		if err != nil {
			r.silent(r.at(path), strings.ReplaceAll(err.Error(), "\n", "; "), "write the secret there; a final newline does not count")
			continue
		}
		for _, v := range values {
			switch {
			case strings.HasSuffix(path, ".bearer") || strings.HasSuffix(path, ".token"):
				if strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' }) {
					r.silent(r.at(path), "is no bearer token: it holds a space, a control or a character outside ASCII", "write it again, on one line")
				}
			case strings.HasSuffix(path, ".private_key"), strings.HasSuffix(path, ".decryption_key"), strings.HasSuffix(path, ".signing.key"):
				if block, _ := pem.Decode([]byte(v)); block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") {
					r.silent(r.at(path), "is no private key in PEM", "write a file that begins with -----BEGIN PRIVATE KEY-----")
				}
			case strings.HasSuffix(path, ".nkey") && !strings.HasPrefix(v, "SU"):
				r.silent(r.at(path), "is no seed of a user's NKey", "write one that begins with SU: `nsc` or `nk -gen user` makes one")
			case strings.HasSuffix(path, ".credentials") && !strings.Contains(v, "-----BEGIN NATS USER JWT-----"):
				r.silent(r.at(path), "is no credentials file", "write the file that `nsc generate creds` prints")
			case path == "deployment_secret" && len(v) < cache.MinSecretBytes && c.Cache.L2 != nil:
				r.silent(r.at(path), fmt.Sprintf("is shorter than %d bytes: it seals what cache.l2 shares, and could be guessed from a dump", cache.MinSecretBytes), "make one with `openssl rand -hex 32`")
			case path == "deployment_secret" && len(v) < revocation.MinSecretBytes && c.Revocation.Bus != nil:
				r.silent(r.at(path), fmt.Sprintf("is shorter than %d bytes: whoever guesses it revokes on every node", revocation.MinSecretBytes), "make one with `openssl rand -hex 32`")
			case path == "deployment_secret" && len(v) < weakSecretBytes:
				c.warnings = append(c.warnings, fmt.Sprintf("deployment_secret is shorter than %d bytes: whoever reads the logs could find it by trying", weakSecretBytes))
			}
		}
	}
	for path, pair := range c.pairs() {
		if pair.Cert == "" || pair.Key == "" {
			continue
		}
		if _, err := pair.load(); err != nil {
			r.silent(r.at(path), err.Error(), "write a certificate and its key, both in PEM")
		}
	}
	for _, e := range c.engines() {
		if e.tls.CA == "" {
			continue
		}
		if _, err := certPool(e.tls.CA); err != nil {
			r.silent(r.at(e.path+".tls.ca"), err.Error(), "write a file of certificates in PEM")
		}
	}
	for i, is := range c.Issuers {
		if is.CA == "" {
			continue
		}
		if _, err := certPool(is.CA); err != nil {
			r.silent(r.at(fmt.Sprintf("issuers[%d].tls.ca", i)), err.Error(), "write a file of certificates in PEM")
		}
	}
}

// load reads a certificate and its key now.
func (t TLS) load() (*tls.Certificate, error) {
	cert, err := readFile(t.Cert, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	key, err := readFile(t.Key, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("files %s and %s: %w", t.Cert, t.Key, err)
	}
	return &pair, nil
}

func certPool(path string) (*x509.CertPool, error) {
	body, err := readFile(path, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(body) {
		return nil, errors.New("file " + path + " holds no certificate in PEM")
	}
	return pool, nil
}

// warn collects what is allowed and yet probably not meant.
func (c *Config) warn() {
	add := func(format string, args ...any) { c.warnings = append(c.warnings, fmt.Sprintf(format, args...)) }
	catchAll := ""
	for i := range c.Policies {
		p := &c.Policies[i]
		if len(p.Policy.Audience) == 0 {
			add("policy %q requires no audience: it accepts tokens that were issued for anybody", p.Policy.Name)
		}
		if on := p.Policy.OnUnavailable; on != watchword.Deny {
			add("policy %q says %s: while an authorization server cannot answer, revoked tokens pass it too", p.Policy.Name, on)
		}
		if catchAll != "" {
			add("policy %q is never reached: %q stands before it and matches every request", p.Policy.Name, catchAll)
		} else if len(p.Match.Hosts)+len(p.Match.Paths)+len(p.Match.Methods) == 0 {
			catchAll = p.Policy.Name
		}
	}
	for i := range c.Issuers {
		is := &c.Issuers[i]
		if len(c.accepting(is.Name)) == 0 {
			add("issuer %q is never asked: no policy or caller accepts its tokens", is.Name)
		} else if is.JWT.Mode != "off" && !c.vouches(is) {
			add("issuer %q: jwt vouches for no token: a signature counts as skew (%v) older than it is, and no max_staleness is longer", is.Name, is.Skew)
		}
	}
	if c.ForwardAuth != nil {
		for _, p := range c.ForwardAuth.Trusted {
			if p.Bits() == 0 {
				add("doors.forward_auth.trusted_proxies: %s trusts every address to say what was asked; name your gateways", p)
			}
		}
	}
	c.warnings = append(c.warnings, c.Revocation.Bus.embedded().warnings()...)
	if c.Admin == (Listen{}) {
		add("admin is absent: no /metrics, /healthz and /readyz")
	}
	if c.DeploymentSecret.IsZero() && c.DecisionLog.To != "none" {
		add("deployment_secret is absent: fingerprints in the decision log change with every start, and differ between instances")
	}
}
