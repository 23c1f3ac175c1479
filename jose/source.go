package jose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/watchword-dev/watchword"
)

// Mode is when a signature is looked at.
type Mode uint8

// The modes. Neither makes an answer fresher than it is: a signature is evidence of the instant at which it was made.
const (
	LocalFirst      Mode = iota // a signature that is fresh enough answers; everything else is asked of the server
	IntrospectFirst             // the server is asked; a signature that is fresh enough answers only while it cannot
)

// DefaultAlgorithms is SourceConfig.Algorithms where it is nil.
func DefaultAlgorithms() []string { return []string{"RS256", "ES256", "EdDSA"} }

// SourceConfig is how the JWT access tokens of one issuer are read. Name, ID and Keys are required.
type SourceConfig struct {
	Name       string           // our name for the issuer
	ID         string           // iss, byte for byte
	Keys       *Keys            // this issuer's, and nobody else's
	Next       watchword.Source // the server itself; nil: it does not introspect, and the signature alone decides
	Mode       Mode
	Algorithms []string      // case-sensitive; nil: DefaultAlgorithms
	Skew       time.Duration // how far the issuer's clock may differ from ours: evidence is older by it
	Leeway     time.Duration // for exp and nbf

	// Inactive is told of every inactive answer of Next about a token whose signature is good and that is not over, before
	// anybody sees it, so that the signature can be doubted: while the server cannot be asked, later, it would still be
	// young. It must not block. Nil: nobody is.
	Inactive func(watchword.Query, *watchword.Answer)
}

// Source reads JWT access tokens (RFC 9068) and answers for those whose signature is evidence enough. It can only say
// yes: what it does not vouch for (opaque tokens, other types, unknown keys, wrong signatures) is asked of the server,
// which knows better. Where there is none, it is inactive, or unavailable while the keys are. Make it with NewSource.
// Safe for concurrent use.
type Source struct{ config SourceConfig }

// NewSource makes a Source, or reports every mistake of c at once.
func NewSource(c SourceConfig) (*Source, error) {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("jose: SourceConfig."+format, args...))
		}
	}
	if c.Algorithms == nil {
		c.Algorithms = DefaultAlgorithms()
	}
	wrong(c.Name == "", "Name is missing")
	wrong(c.ID == "", "ID is missing: whose tokens would it be?")
	wrong(c.Keys == nil, "Keys is missing")
	wrong(len(c.Algorithms) == 0, "Algorithms is empty: nothing could be verified")
	for _, alg := range c.Algorithms {
		wrong(!slices.Contains(algorithms, alg), "Algorithms holds %q, which is none of %v", alg, algorithms)
	}
	wrong(c.Mode > IntrospectFirst, "Mode is unknown")
	wrong(c.Mode == IntrospectFirst && c.Next == nil, "Mode is IntrospectFirst, and there is nobody to ask")
	wrong(c.Skew < 0 || c.Leeway < 0, "Skew or Leeway is negative")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.Algorithms = slices.Clone(c.Algorithms)
	return &Source{c}, nil
}

// Introspect answers as Mode says. A caller's own Credential always goes to the server: it may answer each caller
// differently (RFC 7662 §2.2).
func (s *Source) Introspect(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	switch {
	case s.config.Next == nil:
		return s.alone(ctx, q)
	case q.Credential != nil:
		return s.config.Next.Introspect(ctx, q)
	}
	if s.config.Mode == LocalFirst {
		if a := s.vouch(&q, watchword.Fresh); a != nil {
			return a, nil
		}
	}
	answer, err := s.config.Next.Introspect(ctx, q)
	switch {
	case cannotKnow(err):
		if a := s.vouch(&q, watchword.Stale); a != nil {
			return a, nil
		}
	case err == nil && answer != nil && !answer.Active() && s.config.Inactive != nil && s.signed(&q):
		s.config.Inactive(q, answer)
	}
	return answer, err
}

// signed reports a token that the issuer signed and that is not over: no stranger, and there is something to doubt.
func (s *Source) signed(q *watchword.Query) bool {
	t, err := s.read(hurried, q.Token)
	return err == nil && watchword.Judge(new(watchword.Policy), t.answer, q.At) != watchword.Expired && t.verify(t.keys) == nil
}

// cannotKnow tells a server that could not say from one that was not asked, and from one that said inactive.
func cannotKnow(err error) bool {
	e, is := errors.AsType[*watchword.Error](err)
	return is && !e.Doubted && e.Failure != watchword.Throttled && e.Failure != watchword.Canceled
}

// hurried is a context that waits for nothing: what is not here now is fetched for the next one.
var hurried = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// vouch answers if the signature is worth at least least to q, or shows that the token is over, which no asking can
// change. It waits for no key: the server can be asked meanwhile. The signature is verified last: what would not matter
// costs nothing.
func (s *Source) vouch(q *watchword.Query, least watchword.Standing) *watchword.Answer {
	t, err := s.read(hurried, q.Token)
	if err != nil || q.Weigh(t.answer) < least && watchword.Judge(new(watchword.Policy), t.answer, q.At) != watchword.Expired {
		return nil
	}
	if t.verify(t.keys) != nil {
		return nil
	}
	return t.answer
}

// alone answers where nobody can be asked. What is older than the bounds is returned too: the Verifier weighs it.
func (s *Source) alone(ctx context.Context, q watchword.Query) (*watchword.Answer, error) {
	t, err := s.read(ctx, q.Token)
	if err == nil {
		err = t.verify(t.keys)
	}
	e, failed := errors.AsType[*Error](err)
	switch {
	case !failed:
		return t.answer, nil
	case e.Fault == KeysUnavailable && ctx.Err() != nil:
		return nil, &watchword.Error{Failure: watchword.Canceled, Issuer: s.config.Name, Cause: ctx.Err()}
	case e.Fault == KeysUnavailable:
		return nil, &watchword.Error{Failure: watchword.Unavailable, Issuer: s.config.Name, RetryAfter: e.RetryAfter, Cause: e}
	}
	return watchword.ParseAnswer([]byte(`{"active":false}`), watchword.Evidence{Issuer: s.config.Name, Asked: time.Now()})
}

// accessToken is a JWT that is right but for its signature, which is not verified yet.
type accessToken struct {
	*message
	keys   []*verifyingKey
	answer *watchword.Answer // if the signature is right
}

// read takes an access token apart and judges everything but its signature (RFC 9068 §4). There is no lenient way: a
// JWT that another kind of token could be taken for is not vouched for.
func (s *Source) read(ctx context.Context, token watchword.Token) (*accessToken, error) {
	m, err := read(string(token), watchword.MaxTokenBytes)
	if err == nil {
		err = m.check("at+jwt", s.config.Algorithms)
	}
	if err != nil {
		return nil, err
	}
	c, bad := watchword.ParseClaims(m.payload)
	if bad != nil {
		return nil, fault(Malformed, "claims: %w", bad)
	}
	if err := s.complete(c); err != nil {
		return nil, &Error{Fault: Malformed, Cause: err}
	}
	keys, asOf, err := s.config.Keys.find(ctx, m.alg, m.kid)
	if err != nil {
		return nil, err
	}
	a, bad := watchword.NewVouched(c, watchword.Evidence{Issuer: s.config.Name, Asked: time.Now(), Leeway: s.config.Leeway},
		watchword.Signature{Skew: s.config.Skew, Keys: asOf, KeysMaxAge: s.config.Keys.config.MaxAge})
	if bad != nil {
		return nil, fault(Malformed, "claims: %w", bad)
	}
	return &accessToken{m, keys, a}, nil
}

// complete asks for the issuer, byte for byte, and for every claim of RFC 9068 §2.2; iat is asked for by NewVouched.
func (s *Source) complete(c watchword.Claims) error {
	if iss, _ := c.Text("iss"); iss != s.config.ID {
		return errors.New("claims: iss is not the issuer's identifier")
	}
	for _, name := range []string{"sub", "client_id", "jti"} {
		if v, _ := c.Text(name); v == "" {
			return fmt.Errorf("claims: no %s", name)
		}
	}
	if _, there := c.Get("exp"); !there {
		return errors.New("claims: no exp")
	}
	aud, _ := c.Get("aud")
	if one, _ := c.Text("aud"); one == "" {
		if list, _ := watchword.Strings(aud); len(list) == 0 {
			return errors.New("claims: no aud")
		}
	}
	return nil
}
