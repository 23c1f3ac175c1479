package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/watchword-dev/watchword"
	"github.com/watchword-dev/watchword/issuer"
	"github.com/watchword-dev/watchword/jose"
)

// JWT is what an issuer's JWT access tokens are worth by their signatures alone. Mode off is nothing.
type JWT struct {
	Mode       string
	KeysMaxAge time.Duration
	Algorithms []string
}

var jwtKeys = object([]row[JWT]{
	key("mode", word("off", "local_first", "introspect_first"), func(j *JWT) *string { return &j.Mode },
		"local_first: a signature that is fresh enough answers, everything else is asked of the AS. introspect_first: the AS is asked, and a signature that is fresh enough answers only while it cannot.").or("off"),
	key("keys_max_age", duration(10*time.Second, 24*time.Hour), func(j *JWT) *time.Duration { return &j.KeysMaxAge },
		"How long a key that the AS withdraws may still verify here. The key set is fetched twice in that time.").or("10m"),
	key("algorithms", list(word(jose.Algorithms()...)), func(j *JWT) *[]string { return &j.Algorithms },
		"Signatures that count.").or("[RS256, ES256, EdDSA]"),
})

// staleness is a duration, or the words that give it up.
var staleness = func() kind[time.Duration] {
	k := duration(0, forever)
	s := durationShape()
	s.word, s.hint = "duration, or `until_expiry`", s.hint+", or until_expiry"
	s.schema = map[string]any{"oneOf": append(slices.Clone(s.schema["oneOf"].([]any)), map[string]any{"const": "until_expiry"})}
	return kind[time.Duration]{s, func(r *reader, at place, into *time.Duration) {
		if at.node != nil && at.node.Value == "until_expiry" {
			*into = watchword.UntilExpiry
			return
		}
		k.read(r, at, into)
	}}
}()

// introspects reports whether is can be asked.
func (is *Issuer) introspects() bool { return is.Endpoint != issuer.NoIntrospection }

// verifies reports whether the keys of is are always needed.
func (is *Issuer) verifies() bool { return is.JWT.Mode != "off" || is.Response.Signed }

// keys are the public keys of is; nil: nothing says where they are. They are fetched over its own connections.
func (is *Issuer) keys(asks *issuer.Client, observe func(outcome string, keys int), logger *slog.Logger) (*jose.Keys, error) {
	if is.JWKS == "" && is.ID == "" {
		return nil, nil
	}
	return jose.NewKeys(jose.KeysConfig{MaxAge: is.JWT.KeysMaxAge, Observe: observe,
		Fetch: func(ctx context.Context) ([]byte, time.Time, error) {
			return asks.KeySet(ctx, is.JWKS, is.JWT.KeysMaxAge)
		},
		Failed: func(err error, again time.Time) {
			logger.Warn("the key set of an issuer cannot be fetched", "issuer", is.Name, "error", err, "again_in", time.Until(again).Round(time.Second))
		}})
}

// chain is the order in which one issuer's Sources stand, cheap to dear: local JWT, then whoever asks. A signature is
// looked at before any store that is shared, and before anything that protects the server: every host can verify it
// again, and it says nothing of the server. doubt is told what the server calls inactive though it is well signed; nil:
// nobody is.
func (is *Issuer) chain(asks watchword.Source, keys *jose.Keys, doubt func(watchword.Query, *watchword.Answer)) (watchword.Source, error) {
	if is.JWT.Mode == "off" {
		return asks, nil
	}
	if keys == nil {
		return nil, errors.New("jwt: nothing says where the keys are")
	}
	c := jose.SourceConfig{Name: is.Name, ID: is.ID, Keys: keys, Algorithms: is.JWT.Algorithms, Skew: is.Skew, Leeway: is.Leeway, Inactive: doubt}
	if is.introspects() {
		c.Next = asks
	}
	if is.JWT.Mode == "introspect_first" {
		c.Mode = jose.IntrospectFirst
	}
	return jose.NewSource(c)
}

// shape also says how its JWTs are verified: an answer that other keys vouched for is another answer.
func (is *Issuer) shape(asks *issuer.Client) watchword.Issuer {
	shape := asks.Shape()
	shape.Tenant = is.Selectors["tenant"]
	if is.verifies() {
		shape.Asking += fmt.Sprintf(" jwt %v %q %v %v %q", is.JWT, is.JWKS, is.Response.Signed, is.Response.Algorithms, is.Response.Audience)
	}
	return shape
}

func (c *Config) checkJWT(r *reader, path string, is *Issuer) {
	jwt := path + ".jwt"
	switch {
	case is.JWT.Mode == "off":
		if !is.verifies() && !c.hearsSigned(is.Name) {
			r.inert(jwt+".keys_max_age", "mode is off", "write mode, or remove it")
			r.inert(path+".jwks_uri", "nothing of this issuer is verified here", "remove it, or write jwt")
		}
		r.inert(jwt+".algorithms", "mode is off", "write mode, or remove it")
		if !is.introspects() {
			r.silent(r.at(path+".introspection_endpoint"), "is none, and jwt.mode is off: no token of it could be accepted", "write jwt: {mode: local_first}, or where it introspects")
		}
	case !r.has(path + ".issuer"):
		r.silent(place{path + ".issuer", r.at(jwt).node}, "is missing: a JWT is its own by iss", "write its issuer identifier, as in iss")
	case is.JWT.Mode == "introspect_first" && !is.introspects():
		r.silent(r.at(jwt+".mode"), "is introspect_first, and introspection_endpoint is none", "write local_first, or where it introspects")
	}
}

// checkReach finds bounds that no source can meet, and the words that give up a bound where one could be kept. A
// signature tells of the instant at which it was made, so where nobody can be asked every token is as old as itself,
// unless a feed that covers every kind of revocation says that nothing happened since.
func (c *Config) checkReach(r *reader, path string, p *watchword.Policy) {
	at := r.at(path + ".freshness.max_staleness")
	if !r.has(at.path) && r.has("freshness.max_staleness") {
		at = place{at.path, r.at("freshness.max_staleness").node}
	}
	c.checkBound(r, at, p, p.Freshness.MaxStaleness)
	for i := range p.Tiers {
		if at := r.at(fmt.Sprintf("%s.tiers[%d].freshness.max_staleness", path, i)); r.has(at.path) {
			c.checkBound(r, at, p, p.Tiers[i].Freshness.MaxStaleness)
		}
	}
}

func (c *Config) checkBound(r *reader, at place, p *watchword.Policy, bound time.Duration) {
	feeds := c.covering()
	for i := range c.Issuers {
		is := &c.Issuers[i]
		if !accepts(p, is.Name) {
			continue
		}
		switch until := bound == watchword.UntilExpiry; {
		case !until && !is.introspects() && feeds[is.Name] == "":
			r.silent(at, fmt.Sprintf("cannot be met: issuer %s does not introspect, so nothing newer than a token's own signature can be had", is.Name),
				"write max_staleness: until_expiry, which promises nothing, accept only issuers that introspect, or name a covering feed that covers everything")
		case !until && !is.introspects() && bound <= c.stream(feeds[is.Name], is.Name).Lag:
			r.silent(at, fmt.Sprintf("is %v, and cannot be met: issuer %s does not introspect, and what its covering feed proves is always older than its lag", bound, is.Name),
				"write a duration above the feed's lag, such as 30s")
		case until && is.introspects():
			r.silent(at, fmt.Sprintf("is until_expiry, though issuer %s introspects and a bound could be kept", is.Name),
				"write a duration, or accept only issuers whose introspection_endpoint is none")
		}
	}
}

// vouches reports whether a signature of is can be worth anything to anybody: it counts as skew older than it is.
func (c *Config) vouches(is *Issuer) bool {
	return is.Covering != "" || slices.ContainsFunc(c.boundsFor(is.Name), func(f watchword.Freshness) bool { return f.MaxStaleness > is.Skew })
}
