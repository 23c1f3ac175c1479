package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"
	"github.com/luikyv/go-oidc/pkg/provider"
)

const (
	codeSeconds  = 60
	loginSeconds = 300
)

func newProvider(c Config, st *store) (http.Handler, error) {
	key, err := signingKey(st)
	if err != nil {
		return nil, err
	}
	keys := goidc.JSONWebKeySet{Keys: []goidc.JSONWebKey{key}}
	clients, audience, scopes := register(c.Clients)
	lifetime := int(c.AccessTokenLifetime / time.Second)

	p, err := provider.New(
		provider.Config{
			Issuer:      c.Issuer,
			Manager:     st,
			JWKS:        func(context.Context) (goidc.JSONWebKeySet, error) { return keys, nil },
			IDTokenAlgs: []goidc.SignatureAlgorithm{goidc.SigAlgES256},
		},
		provider.WithStaticClients(clients...),
		provider.WithScopes(scopes...),
		provider.WithSecretBasicAuthn(),
		provider.WithSecretPostAuthn(),
		provider.WithNoneAuthn(),
		provider.WithClientSecretVerifier(verifySecret),
		provider.WithClientCredentialsGrant(),
		provider.WithAuthnSessionIDFunc(random("")),
		provider.WithAuthSessionLifetime(loginSeconds),
		provider.WithAuthCodeGrant(
			provider.AuthCodeGrantConfig{Manager: st, ResponseTypes: []goidc.ResponseType{goidc.ResponseTypeCode}},
			provider.WithPKCE([]goidc.CodeChallengeMethod{goidc.CodeChallengeMethodSHA256}, provider.WithPKCERequired()),
			provider.WithIssuerResponseParameter(),
			provider.WithAuthCodeFunc(random("")),
			provider.WithAuthCodeLifetime(codeSeconds),
			provider.WithAuthPolicies(goidc.NewPolicy("password", everyLogin, login(c.Users).authenticate)),
		),
		provider.WithRefreshTokenGrant(st,
			provider.WithRefreshTokenFunc(random(refreshPrefix)),
			provider.WithRefreshTokenLifetime(int(c.RefreshTokenLifetime/time.Second)),
			provider.WithRefreshTokenRotation(),
		),
		provider.WithTokenOptions(
			func(context.Context, *goidc.Grant, *goidc.Client) goidc.TokenOptions {
				return goidc.NewOpaqueTokenOptions(lifetime)
			},
			provider.WithOpaqueTokens(st),
			provider.WithOpaqueTokenFunc(func(ctx context.Context, _ *goidc.Grant) string { return random(TokenPrefix)(ctx) }),
		),
		provider.WithGrantHandler(func(_ context.Context, _ goidc.GrantType, g *goidc.Grant) error {
			g.Resources = audience[g.ClientID]
			return nil
		}),
		// Who may ask was decided before (hideForeign): the provider's own way to say no is an error.
		provider.WithTokenIntrospection(func(context.Context, *goidc.Client, goidc.TokenInfo) bool { return true }),
		provider.WithTokenRevocation(func(context.Context, *goidc.Client) bool { return true }),
		// No client authenticates with an assertion, so none can be replayed; unset, the provider prints a warning.
		provider.WithJTIConsumer(func(context.Context, string) error { return errors.New("assertions are not accepted") }),
		provider.WithErrorHandler(func(_ context.Context, err error) { c.report(err) }),
	)
	if err != nil {
		return nil, fmt.Errorf("set up the provider: %w", err)
	}
	return p.Handler(), nil
}

// report passes on what is our own failure; an error of the protocol is the caller's and may quote it.
func (c Config) report(err error) {
	if failure, ok := errors.AsType[storeError](err); ok && c.Report != nil {
		c.Report(failure)
	}
}

// register turns clients into the provider's, with the audience of each and all scopes there are.
func register(clients []Client) (out []*goidc.Client, audience map[string]goidc.Resources, scopes []goidc.Scope) {
	audience = map[string]goidc.Resources{}
	names := []string{goidc.ScopeOpenID.ID}
	for _, c := range clients {
		audience[c.ID] = c.Audience
		names = append(names, c.Scopes...)
		meta := goidc.ClientMeta{
			ScopeIDs:         strings.Join(c.Scopes, " "),
			RedirectURIs:     c.RedirectURIs,
			TokenAuthnMethod: goidc.AuthnMethod(c.AuthMethod),
		}
		switch {
		case c.Secret == "":
			meta.TokenAuthnMethod = goidc.AuthnMethodNone
		case c.AuthMethod == "":
			meta.TokenAuthnMethod = goidc.AuthnMethodSecretBasic
		}
		if c.Secret != "" && len(c.Scopes) > 0 {
			meta.GrantTypes = append(meta.GrantTypes, goidc.GrantClientCredentials)
		}
		if len(c.RedirectURIs) > 0 {
			meta.GrantTypes = append(meta.GrantTypes, goidc.GrantAuthorizationCode, goidc.GrantRefreshToken)
			meta.ResponseTypes = []goidc.ResponseType{goidc.ResponseTypeCode}
		}
		out = append(out, &goidc.Client{ID: c.ID, Secret: string(digest(string(c.Secret))), ClientMeta: meta})
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		scopes = append(scopes, goidc.NewScope(name))
	}
	return out, audience, scopes
}

// verifySecret compares digests in constant time. The provider does not undo the form encoding of HTTP Basic
// (RFC 6749 §2.3.1), so a secret is taken as it came or decoded, as most servers do.
func verifySecret(_ context.Context, stored, presented string) error {
	ok := subtle.ConstantTimeCompare([]byte(stored), digest(presented))
	if decoded, err := url.QueryUnescape(presented); err == nil {
		ok |= subtle.ConstantTimeCompare([]byte(stored), digest(decoded))
	}
	if ok != 1 {
		return errors.New("wrong client secret")
	}
	return nil
}

func digest(value string) []byte {
	sum := sha256.Sum256([]byte(value))
	return sum[:]
}

// random makes values of 130 random bits (RFC 6749 §10.10 asks for 128).
func random(prefix string) goidc.RandomFunc {
	return func(context.Context) string { return prefix + rand.Text() }
}

// signingKey returns the P-256 key in the store, made at the first start.
func signingKey(st *store) (key goidc.JSONWebKey, err error) {
	fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return key, fmt.Errorf("make the signing key: %w", err)
	}
	body, err := json.Marshal(goidc.JSONWebKey{Key: fresh, KeyID: rand.Text(), Algorithm: string(goidc.SigAlgES256), Use: string(goidc.KeyUsageSignature)})
	if err != nil {
		return key, fmt.Errorf("write the signing key: %w", err)
	}
	if body, err = st.settle("signing_key", body); err != nil {
		return key, err
	}
	if err := json.Unmarshal(body, &key); err != nil || !key.Valid() || key.IsPublic() {
		return key, errors.New("the signing key in the store cannot be read: move the file away and start with an empty one")
	}
	return key, nil
}
