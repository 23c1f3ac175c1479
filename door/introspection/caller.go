package introspection

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/watchword-dev/watchword"
)

// caller is who asks.
type caller struct {
	policy   string
	clientID string
	audience string   // of what is signed for it
	encrypt  Encrypt  // nil: nothing is encrypted to it
	shown    []member // nil: all
	noEnd    bool     // expires_in is not shown
}

type member struct {
	name   string
	prefix string // `,"name":`
}

// credentials tell callers by a keyed digest of what they send. Nobody outside can aim at a digest, so how long a
// look-up takes says nothing about a secret, and no secret is kept.
type credentials struct {
	key  [sha256.BlockSize]byte
	byID map[digest]*caller
}

type digest [sha256.Size]byte

// The two things that are digested, so that neither can be taken for the other.
const (
	wholeHeader = 'h' // an Authorization header, as most clients write it: the fast way
	idAndSecret = 's' // what any other spelling of it, or the body, comes down to; a bearer secret has no id
)

// admit makes the table, or reports every mistake at once.
func admit(callers []Caller) (*credentials, error) {
	c := &credentials{byID: map[digest]*caller{}}
	_, _ = rand.Read(c.key[:]) // never fails (crypto/rand)
	var errs []error
	seen := map[string]bool{}
	for _, one := range callers {
		mistake := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("introspection: caller %q: %w", one.Name, fmt.Errorf(format, args...)))
		}
		if one.Name == "" || one.Name == stranger || seen[one.Name] {
			mistake("its name is empty or given twice")
		}
		seen[one.Name] = true
		if slices.Contains(one.Claims, "") || slices.Contains(one.Claims, "active") {
			mistake("claims: active is always shown, and no claim has an empty name: leave them out")
		}
		if one.Secrets == nil {
			mistake("Secrets is missing: it could never authenticate")
			continue
		}
		secrets, err := one.Secrets()
		if err != nil {
			mistake("%w", err)
			continue
		}
		if len(secrets) == 0 || len(secrets) > 2 {
			mistake("it has %d secrets: give one, or two during a rotation", len(secrets))
		}
		who := &caller{policy: one.Name, clientID: one.ClientID, audience: cmp.Or(one.ClientID, one.Name), encrypt: one.Encrypt, shown: members(one.Claims)}
		who.noEnd = len(one.Claims) > 0 && !slices.Contains(one.Claims, "exp") && !slices.Contains(one.Claims, "expires_in")
		for _, secret := range secrets {
			if err := c.add(who, secret); err != nil {
				mistake("%w", err)
			}
		}
	}
	return c, errors.Join(errs...)
}

// add accepts one secret in every spelling. Errors do not hold it.
func (c *credentials) add(who *caller, secret string) error {
	if secret == "" {
		return errors.New("a secret is empty, which anybody could send")
	}
	var headers []string
	if who.clientID == "" {
		if strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return errors.New("a bearer secret holds a character that no Authorization header can carry: use visible ASCII")
		}
		headers = []string{"Bearer " + secret}
	} else {
		headers = basicSpellings(who.clientID, secret)
	}
	digests := []digest{sum(&c.key, idAndSecret, who.clientID, secret)}
	for _, h := range headers {
		digests = append(digests, sum(&c.key, wholeHeader, "", h))
	}
	for _, d := range digests {
		if other := c.byID[d]; other != nil && other != who {
			return fmt.Errorf("it cannot be told from caller %q: give it a secret of its own", other.policy)
		}
		c.byID[d] = who
	}
	return nil
}

// basicSpellings are what most clients make of HTTP Basic: form-encoded as RFC 6749 §2.3.1 asks, or raw. A raw id with
// a colon would be another id (RFC 7617 §2). All others, Latin-1 too, are left to basicReadings.
func basicSpellings(id, secret string) []string {
	plain := []string{url.QueryEscape(id) + ":" + url.QueryEscape(secret)}
	if !strings.Contains(id, ":") {
		plain = append(plain, id+":"+secret)
	}
	for i, p := range plain {
		plain[i] = "Basic " + base64.StdEncoding.EncodeToString([]byte(p))
	}
	return plain
}

// header finds whose Authorization header that is; nil: nobody's.
func (c *credentials) header(value string) *caller {
	if who := c.byID[sum(&c.key, wholeHeader, "", value)]; who != nil {
		return who
	}
	scheme, rest := cutScheme(value)
	if strings.EqualFold(scheme, "Bearer") {
		return c.byID[sum(&c.key, idAndSecret, "", rest)]
	}
	for _, p := range basicReadings(value) {
		if who := c.byID[sum(&c.key, idAndSecret, p.id, p.secret)]; who != nil && p.id != "" {
			return who
		}
	}
	return nil
}

// body finds whose client_id and client_secret those are (RFC 6749 §2.3.1); nil: nobody's.
func (c *credentials) body(f *form) *caller {
	if len(f.clientID) == 0 || len(f.clientSecret) == 0 {
		return nil
	}
	return c.byID[sum(&c.key, idAndSecret, f.clientID, f.clientSecret)]
}

// sum is a keyed digest: the key is one whole block, and the length of a keeps it apart from b.
func sum[T string | []byte](key *[sha256.BlockSize]byte, kind byte, a, b T) digest {
	var stack [512]byte // more than that costs an allocation
	buf := append(stack[:0], key[:]...)
	buf = append(buf, kind)
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(a)))
	buf = append(buf, a...)
	buf = append(buf, b...)
	return sha256.Sum256(buf)
}

func cutScheme(value string) (scheme, rest string) {
	scheme, rest, _ = strings.Cut(value, " ")
	return scheme, strings.TrimLeft(rest, " ")
}

type pair struct{ id, secret string }

// basicReadings are the ids and secrets that an HTTP Basic header may mean: raw in UTF-8 or in Latin-1 (RFC 7617 §2.1
// leaves that open), or form-encoded. None: it is no such header.
func basicReadings(value string) (all []pair) {
	scheme, rest := cutScheme(value)
	if !strings.EqualFold(scheme, "Basic") {
		return nil
	}
	plain, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return nil
	}
	id, secret, _ := strings.Cut(string(plain), ":")
	all = append(all, pair{id, secret}, pair{fromLatin1(id), fromLatin1(secret)})
	if id, err := url.QueryUnescape(id); err == nil {
		if secret, err := url.QueryUnescape(secret); err == nil {
			all = append(all, pair{id, secret})
		}
	}
	return all
}

// names reports whether a client_id in the body, if there is one, is that of the Authorization header beside it. Other
// schemes than Basic name nobody to compare with.
func names(header string, clientID []byte) bool {
	if len(clientID) == 0 {
		return true
	}
	readings := basicReadings(header)
	return len(readings) == 0 || slices.ContainsFunc(readings, func(p pair) bool { return p.id == string(clientID) })
}

// fromLatin1 reads s as ISO 8859-1.
func fromLatin1(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// credential is the caller's own, as it came, to be forwarded. It outlives the request: a flight may carry it.
func (f *form) credential(header []string) *watchword.Credential {
	c := &watchword.Credential{Hint: string(f.hint)}
	if len(header) == 1 {
		c.Authorization = header[0]
	}
	for _, p := range []struct {
		name  string
		value []byte
	}{{"client_id", f.clientID}, {"client_secret", f.clientSecret}, {"client_assertion_type", f.assertionType}, {"client_assertion", f.assertion}} {
		if len(p.value) > 0 {
			c.Parameters = append(c.Parameters, [2]string{p.name, string(p.value)})
		}
	}
	return c
}

// refusal is an answer that does not depend on the token.
type refusal struct {
	reason    watchword.Reason
	status    int
	challenge []string
	body      string
}

// The refusals. A caller that we do not know is covered by no policy.
var (
	noBasic    = &refusal{watchword.PolicyDenied, http.StatusUnauthorized, []string{`Basic realm="watchword"`}, `{"error":"invalid_client"}`}      // RFC 6749 §5.2
	noBearer   = &refusal{watchword.PolicyDenied, http.StatusUnauthorized, []string{`Bearer error="invalid_token"`}, `{"error":"invalid_client"}`} // RFC 6750 §3.1
	badRequest = &refusal{watchword.InvalidRequest, http.StatusBadRequest, nil, `{"error":"invalid_request"}`}                                     // RFC 6749 §5.2
	tooLarge   = &refusal{watchword.InvalidRequest, http.StatusRequestEntityTooLarge, nil, `{"error":"invalid_request"}`}                          // RFC 9110 §15.5.14
)

func unauthenticated(header string) *refusal {
	if scheme, _ := cutScheme(header); strings.EqualFold(scheme, "Bearer") {
		return noBearer
	}
	return noBasic
}
