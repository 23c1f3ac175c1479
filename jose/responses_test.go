package jose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-dev/watchword"
)

const inner = `{"active":true,"sub":"ann","exp":1.8e9}`

// response is the payload of RFC 9701 §5, changed by pairs.
func response(pairs ...any) string {
	c := map[string]any{"iss": asID, "aud": "rs", "iat": time.Now().Unix(), "token_introspection": json.RawMessage(inner)}
	for i := 0; i+1 < len(pairs); i += 2 {
		if c[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
			delete(c, pairs[i].(string))
		}
	}
	return string(must(json.Marshal(c)))
}

func signedResponse(payload string, header ...any) string {
	h := map[string]any{"typ": "token-introspection+jwt", "kid": "p256"}
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i].(string)] = header[i+1]
	}
	return signed("p256", "ES256", h, payload)
}

func newResponses(t testing.TB, edit ...func(*ResponsesConfig)) *Responses {
	t.Helper()
	p := &published{body: jwks(jwk("rsa", "rsa"), jwk("p256", "p256"))}
	c := ResponsesConfig{Name: "main", ID: asID, Audience: "rs", Keys: newKeys(t, p, 0), Skew: 2 * time.Second}
	for _, e := range edit {
		e(&c)
	}
	return must(NewResponses(c))
}

func wantProtocolError(t *testing.T, what string, err error) {
	t.Helper()
	if e, is := errors.AsType[*watchword.Error](err); !is || e.Failure != watchword.ProtocolError || e.Issuer != "main" || strings.Contains(err.Error(), "ann") {
		t.Errorf("%s: %v", what, err)
	}
}

func TestJIR01SignedAnswersAreRead(t *testing.T) {
	t.Parallel()
	r := newResponses(t)
	for what, jwt := range map[string]string{
		"plain": signedResponse(response()), "typ with application/": signedResponse(response(), "typ", "application/token-introspection+jwt"),
		"aud list": signedResponse(response("aud", []string{"other", "rs"})), "unknown members": signedResponse(response("x", 1)),
		"iat a second ago": signedResponse(response("iat", time.Now().Unix()-1)), "iat ahead, within skew": signedResponse(response("iat", time.Now().Unix()+1)),
		"iat with a fraction": signedResponse(response("iat", float64(time.Now().Unix())+0.5)),
		"RS256":               signed("rsa", "RS256", map[string]any{"typ": "token-introspection+jwt", "kid": "rsa"}, response()),
	} {
		out, err := r.Open(t.Context(), []byte(jwt), time.Now())
		if err != nil || string(out) != inner {
			t.Errorf("%s: %s, %v", what, out, err)
		}
	}
	for what, jwt := range map[string]string{
		"typ": signedResponse(response(), "typ", "JWT"), "no typ": signedResponse(response(), "typ", ""), "alg not configured": signed("rsa", "PS256", map[string]any{"typ": "token-introspection+jwt", "kid": "rsa"}, response()),
		"unknown key": signedResponse(response(), "kid", "x"), "another key": signedResponse(response(), "kid", "rsa"), "crit": signedResponse(response(), "crit", []string{"iat"}),
	} {
		_, err := r.Open(t.Context(), []byte(jwt), time.Now())
		wantProtocolError(t, what, err)
	}
}

func TestJIR02WhatASignedAnswerMustSay(t *testing.T) {
	t.Parallel()
	r := newResponses(t)
	now := time.Now()
	for what, payload := range map[string]string{
		"iss": response("iss", asID+"/"), "no iss": response("iss", nil), "aud": response("aud", "other"), "aud list": response("aud", []string{"other"}),
		"aud prefix": response("aud", "rs2"), "no aud": response("aud", nil), "aud a number": response("aud", 1), "old": response("iat", now.Unix()-10), "future": response("iat", now.Unix()+10),
		"no iat": response("iat", nil), "iat a string": response("iat", fmt.Sprint(now.Unix())), "iat in milliseconds": response("iat", now.UnixMilli()), "no answer": response("token_introspection", nil),
		"answer a string": response("token_introspection", inner), "answer a list": response("token_introspection", []int{}), "answer null": response("token_introspection", json.RawMessage("null")),
		"answer twice": strings.Replace(response(), `{"aud`, `{"token_introspection":{"active":true},"aud`, 1), "nothing": `{}`, "duplicate in the answer": response("token_introspection", json.RawMessage(`{"active":true,"active":false}`)),
	} {
		_, err := r.Open(t.Context(), []byte(signedResponse(payload)), now)
		wantProtocolError(t, what, err)
	}
}

// An answer that was there before the question is somebody else's, and other kinds of JWT are no answers.
//
// Covers: JIR-03 JIR-05
func TestJIR05AnAnswerBelongsToItsQuestion(t *testing.T) {
	t.Parallel()
	r := newResponses(t)
	earlier := signedResponse(response("iat", time.Now().Unix()))
	_, err := r.Open(t.Context(), []byte(earlier), time.Now().Add(4*time.Second))
	wantProtocolError(t, "replayed", err)
	for what, body := range map[string]string{"plain JSON": inner, "an access token": string(token("p256", "ES256", nil)), "a SET": set("p256", "ES256", "p256"), "nothing": ""} {
		_, err := r.Open(t.Context(), []byte(body), time.Now())
		wantProtocolError(t, what, err)
	}
	answer := signedResponse(response())
	if a, err := newSource(t, nil).Introspect(t.Context(), query(watchword.Token(answer), until)); !inactive(a, err) {
		t.Error("an answer is taken for an access token", err)
	}
	k := newKeys(t, &published{body: jwks(jwk("p256", "p256"))}, 0)
	_, err = k.VerifySET(t.Context(), answer)
	wantFault(t, err, Malformed)
}

func encrypted(t *testing.T, alg jose.KeyAlgorithm, enc jose.ContentEncryption, key any, payload string, o *jose.EncrypterOptions) string {
	t.Helper()
	e := must(jose.NewEncrypter(enc, jose.Recipient{Algorithm: alg, Key: key}, o))
	return must(must(e.Encrypt([]byte(payload))).CompactSerialize())
}

func TestJIR04NestedAnswers(t *testing.T) {
	t.Parallel()
	of := func(name string) *Responses {
		return newResponses(t, func(c *ResponsesConfig) { c.Decryption = pkcs8(name) })
	}
	rsaPub, ecPub := keys()["rsa"].Public(), keys()["p256"].Public()
	for name, ways := range map[string][]jose.KeyAlgorithm{"rsa": {jose.RSA_OAEP, jose.RSA_OAEP_256}, "p256": {jose.ECDH_ES, jose.ECDH_ES_A128KW, jose.ECDH_ES_A256KW}} {
		for _, way := range ways {
			for _, enc := range []jose.ContentEncryption{jose.A128CBC_HS256, jose.A256GCM} {
				jwe := encrypted(t, way, enc, keys()[name].Public(), signedResponse(response()), new(jose.EncrypterOptions).WithContentType("JWT"))
				if out, err := of(name).Open(t.Context(), []byte(jwe), time.Now()); err != nil || string(out) != inner {
					t.Errorf("%s, %s: %s, %v", way, enc, out, err)
				}
			}
		}
	}
	good := encrypted(t, jose.RSA_OAEP, jose.A128GCM, rsaPub, signedResponse(response()), nil)
	for what, x := range map[string]struct {
		r   *Responses
		jwe string
	}{
		"no inner signature":          {of("rsa"), encrypted(t, jose.RSA_OAEP, jose.A128GCM, rsaPub, response(), nil)},
		"twice encrypted":             {of("rsa"), encrypted(t, jose.RSA_OAEP, jose.A128GCM, rsaPub, good, nil)},
		"inner alg none":              {of("rsa"), encrypted(t, jose.RSA_OAEP, jose.A128GCM, rsaPub, b64(`{"alg":"none","typ":"token-introspection+jwt"}`)+"."+b64(response())+".", nil)},
		"inner signature wrong":       {of("rsa"), encrypted(t, jose.RSA_OAEP, jose.A128GCM, rsaPub, signedResponse(response(), "kid", "rsa"), nil)},
		"to another key":              {of("rsa"), encrypted(t, jose.ECDH_ES, jose.A128GCM, ecPub, signedResponse(response()), nil)},
		"RSA1_5":                      {of("rsa"), encrypted(t, jose.RSA1_5, jose.A128GCM, rsaPub, signedResponse(response()), nil)},
		"zip":                         {of("rsa"), encrypted(t, jose.RSA_OAEP, jose.A128GCM, rsaPub, signedResponse(response()), &jose.EncrypterOptions{Compression: jose.DEFLATE})},
		"a password of 2^31 rounds":   {of("rsa"), b64(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483648,"p2s":"AAAA"}`) + good[strings.IndexByte(good, '.'):]},
		"dir":                         {of("rsa"), b64(`{"alg":"dir","enc":"A128GCM"}`) + good[strings.IndexByte(good, '.'):]},
		"changed":                     {of("rsa"), good[:len(good)-4] + "AAAA"},
		"signed only, key configured": {of("rsa"), signedResponse(response())},
		"encrypted, none configured":  {newResponses(t), good},
	} {
		_, err := x.r.Open(t.Context(), []byte(x.jwe), time.Now())
		wantProtocolError(t, what, err)
	}
}

func TestKeysThatCannotBeHadAreNoProtocolError(t *testing.T) {
	t.Parallel()
	r := newResponses(t, func(c *ResponsesConfig) { c.Keys = newKeys(t, &published{err: errors.New("down")}, 0) })
	_, err := r.Open(t.Context(), []byte(signedResponse(response())), time.Now())
	if e, is := errors.AsType[*watchword.Error](err); !is || e.Failure != watchword.Unavailable || e.RetryAfter <= 0 {
		t.Error(err)
	}
}

func TestResponsesConfigMistakes(t *testing.T) {
	t.Parallel()
	good := ResponsesConfig{Name: "main", ID: asID, Audience: "rs", Keys: newKeys(t, new(published), 0)}
	if got := fmt.Sprintf("%v %+v", must(NewResponses(good)), must(NewResponses(good))); got != "REDACTED REDACTED" {
		t.Error(got)
	}
	for what, edit := range map[string]func(*ResponsesConfig){
		"name": func(c *ResponsesConfig) { c.Name = "" }, "id": func(c *ResponsesConfig) { c.ID = "" }, "audience": func(c *ResponsesConfig) { c.Audience = "" },
		"keys": func(c *ResponsesConfig) { c.Keys = nil }, "none": func(c *ResponsesConfig) { c.Algorithms = []string{"none"} }, "no algorithms": func(c *ResponsesConfig) { c.Algorithms = []string{} },
		"skew": func(c *ResponsesConfig) { c.Skew = -1 }, "no key": func(c *ResponsesConfig) { c.Decryption = []byte("SECRET") }, "a key for signatures": func(c *ResponsesConfig) { c.Decryption = pkcs8("ed25519") },
	} {
		c := good
		edit(&c)
		if _, err := NewResponses(c); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What we sign is what we would read, and nothing else: RFC 9701 §5.
func TestResponseSigner(t *testing.T) {
	t.Parallel()
	s := must(NewResponseSigner(pkcs8("p256"), "ES256", "p256", asID))
	jwt := must(s.Sign("rs", []byte(`{"active":false}`)))
	out, err := newResponses(t).Open(t.Context(), []byte(jwt), time.Now())
	if err != nil || string(out) != `{"active":false}` {
		t.Errorf("%s, %v", out, err)
	}
	m := must(read(jwt, maxResponse))
	c := must(watchword.ParseClaims(m.payload))
	for _, name := range []string{"sub", "exp", "jti", "active"} {
		if _, there := c.Get(name); there {
			t.Errorf("%s stands at the top", name)
		}
	}
	if fmt.Sprint(s) != "REDACTED" || m.typ != "token-introspection+jwt" || m.kid != "p256" {
		t.Error(s, m.typ, m.kid)
	}
	if _, err := NewResponseSigner(pkcs8("p256"), "RS256", "", asID); err == nil {
		t.Error("a key of another kind")
	}
	if _, err := NewResponseSigner(pkcs8("p256"), "ES256", "", ""); err == nil {
		t.Error("no issuer")
	}
	if _, err := s.Sign("rs", []byte("{")); err == nil {
		t.Error("what is no JSON was signed")
	}
}

func FuzzSignedAnswer(f *testing.F) {
	plain, nested := newResponses(f), newResponses(f, func(c *ResponsesConfig) { c.Decryption = pkcs8("p256") })
	good := signedResponse(response())
	f.Add(good)
	f.Add(inner)
	f.Add(b64(`{"alg":"ECDH-ES","enc":"A128GCM","epk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}`) + "..AAAA.AAAA.AAAA")
	f.Fuzz(func(t *testing.T, body string) {
		for _, r := range []*Responses{plain, nested} {
			if out, err := r.Open(context.Background(), []byte(body), time.Now()); err == nil && body != good {
				t.Fatalf("%q: %s", body, out)
			}
		}
	})
}
