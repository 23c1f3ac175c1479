package jose

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-dev/watchword"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// Every way to write a message that is not the one way. The signature is right in each.
//
// Covers: JWT-04 JWT-05 SIG-07
func TestJWT04OneMessageHasOneSpelling(t *testing.T) {
	t.Parallel()
	k := newKeys(t, &published{body: jwks(jwk("rsa", "rsa"), jwk("ed25519", "ed"))}, 0)
	good := set("ed25519", "EdDSA", "ed")
	parts := strings.Split(good, ".")
	idle := func(p string) string { // the last character's idle bits, changed
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		i := strings.IndexByte(alphabet, p[len(p)-1])
		return p[:len(p)-1] + alphabet[i^1:i^1+1]
	}
	sig := idle(parts[2]) // 64 bytes leave four idle bits
	if b, err := base64.RawURLEncoding.DecodeString(sig); err != nil || len(b) != 64 {
		t.Fatal("the case shows nothing:", err)
	}
	full := must(jose.ParseSignedCompact(good, []jose.SignatureAlgorithm{"EdDSA"})).FullSerialize()
	for what, m := range map[string]string{
		"idle bits": parts[0] + "." + parts[1] + "." + sig, "padding": good + "=", "padding inside": parts[0] + "=." + parts[1] + "." + parts[2],
		"space": good + " ", "space before": " " + good, "line end": good + "\n", "line end inside": good[:40] + "\r\n" + good[40:],
		"line end at a dot": strings.Replace(good, ".", "\n.", 1), "JSON": full, "extra dot": good + ".", "leading dot": "." + good, "two parts": parts[0] + "." + parts[1],
		"no signature": parts[0] + "." + parts[1] + ".", "no payload": parts[0] + ".." + parts[2], "standard alphabet": strings.ReplaceAll(strings.ReplaceAll(good, "-", "+"), "_", "/") + "+",
		"empty": "", "dots": "..", "JWE": "a.b.c.d.e", "large": parts[0] + "." + strings.Repeat("A", MaxEnvelopeBytes) + "." + parts[2], "NUL": good + "\x00", "unicode": good + "é",
	} {
		_, err := k.VerifySET(t.Context(), m)
		if e := wantFault(t, err, Malformed); strings.Contains(e.Error(), "example") {
			t.Errorf("%s: %v", what, e)
		}
	}
	if _, err := k.VerifySET(t.Context(), good); err != nil {
		t.Error(err)
	}
}

// Covers: JWT-02 JWT-03 JWT-05 JWT-08 SIG-03 SIG-07 T26
func TestT26HeadersThatAreRefused(t *testing.T) {
	t.Parallel()
	k := newKeys(t, &published{body: jwks(jwk("rsa", "rsa"), jwk("ed25519", "ed"))}, 0)
	good := set("rsa", "RS256", "rsa")
	tail := good[strings.IndexByte(good, '.'):]
	with := func(header string) string { return b64(header) + tail }
	hmacKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(keys()["rsa"].Public()))})
	head := b64(`{"alg":"HS256","typ":"secevent+jwt","kid":"rsa"}`) + "." + b64(aSET)
	mac := hmac.New(sha256.New, hmacKey)
	mac.Write([]byte(head))
	type case_ struct {
		message string
		want    Fault
	}
	signedWith := func(header map[string]any) string {
		if header["typ"] == nil {
			header["typ"] = "secevent+jwt"
		}
		header["kid"] = "ed"
		return signed("ed25519", "EdDSA", header, aSET)
	}
	for what, x := range map[string]case_{
		"alg none":             {b64(`{"alg":"none","typ":"secevent+jwt"}`) + "." + b64(aSET) + ".", Malformed},
		"alg none, signed":     {with(`{"alg":"none","typ":"secevent+jwt"}`), BadAlgorithm},
		"alg noNE":             {with(`{"alg":"noNE","typ":"secevent+jwt"}`), BadAlgorithm},
		"alg rs256":            {with(`{"alg":"rs256","typ":"secevent+jwt"}`), BadAlgorithm},
		"HS256 by public key":  {head + "." + b64(string(mac.Sum(nil))), BadAlgorithm},
		"alg missing":          {with(`{"typ":"secevent+jwt"}`), Malformed},
		"alg a number":         {with(`{"alg":1,"typ":"secevent+jwt"}`), Malformed},
		"alg twice":            {with(`{"alg":"RS256","alg":"none","typ":"secevent+jwt"}`), Malformed},
		"alg of another key":   {with(`{"alg":"EdDSA","typ":"secevent+jwt","kid":"rsa"}`), UnknownKey},
		"another hash":         {with(`{"alg":"RS512","typ":"secevent+jwt","kid":"rsa"}`), Forged},
		"header changed":       {with(`{"alg":"RS256","typ":"secevent+jwt","kid":"rsa","x":1}`), Forged},
		"typ missing":          {with(`{"alg":"RS256","kid":"rsa"}`), Malformed},
		"typ JWT":              {signedWith(map[string]any{"typ": "JWT"}), Malformed},
		"typ at+jwt":           {signedWith(map[string]any{"typ": "at+jwt"}), Malformed},
		"typ logout+jwt":       {signedWith(map[string]any{"typ": "logout+jwt"}), Malformed},
		"typ text/secevent":    {signedWith(map[string]any{"typ": "text/secevent+jwt"}), Malformed},
		"crit":                 {signedWith(map[string]any{"crit": []string{"x"}, "x": 1}), Malformed},
		"crit empty":           {signedWith(map[string]any{"crit": []string{}}), Malformed},
		"b64":                  {with(`{"alg":"RS256","typ":"secevent+jwt","kid":"rsa","b64":false}`), Malformed},
		"zip":                  {signedWith(map[string]any{"zip": "DEF"}), Malformed},
		"kid a number":         {with(`{"alg":"RS256","typ":"secevent+jwt","kid":1}`), Malformed},
		"header no object":     {with(`[]`), Malformed},
		"header not JSON":      {with(`{`), Malformed},
		"key of its own (jwk)": {ownKey("jwk"), Forged},
		"key of its own (kid)": {ownKey("kid"), UnknownKey},
		"claims no object":     {signed("rsa", "RS256", map[string]any{"typ": "secevent+jwt", "kid": "rsa"}, `[1]`), Malformed},
		"claims twice":         {signed("rsa", "RS256", map[string]any{"typ": "secevent+jwt", "kid": "rsa"}, `{"iss":"a","iss":"b"}`), Malformed},
		"payload changed":      {strings.Replace(good, b64(aSET), b64(strings.Replace(aSET, "1800", "1900", 1)), 1), Forged},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := k.VerifySET(t.Context(), x.message)
			wantFault(t, err, x.want)
		})
	}
	for _, typ := range []string{"secevent+jwt", "SecEvent+JWT", "application/secevent+jwt", "Application/secevent+jwt"} {
		if _, err := k.VerifySET(t.Context(), signedWith(map[string]any{"typ": typ})); err != nil {
			t.Errorf("typ %s: %v", typ, err)
		}
	}
	// pointers to keys are looked at by nobody
	far := signedWith(map[string]any{"jku": "http://127.0.0.1:1/jwks", "x5u": "file:///etc/passwd"})
	if _, err := k.VerifySET(t.Context(), far); err != nil {
		t.Error(err)
	}
	logout := signed("ed25519", "EdDSA", map[string]any{"typ": "logout+jwt", "kid": "ed"}, `{"sid":"1"}`)
	if c, err := k.VerifyLogoutToken(t.Context(), logout); err != nil || c.JSON() != `{"sid":"1"}` {
		t.Error(err)
	}
	if _, err := k.VerifyLogoutToken(t.Context(), good); err == nil {
		t.Error("a SET is no logout token")
	}
}

// ownKey is signed with a key that nobody published, and says so in the header.
func ownKey(how string) string {
	other := must(rsa.GenerateKey(rand.Reader, 2048))
	o := new(jose.SignerOptions).WithType("secevent+jwt")
	signWith := jose.SigningKey{Algorithm: "RS256", Key: other}
	if how == "jwk" {
		o.EmbedJWK = true
		o = o.WithHeader("kid", "rsa")
		signWith.Key = other
	} else {
		o = o.WithHeader("kid", "mine")
	}
	return must(must(must(jose.NewSigner(signWith, o)).Sign([]byte(aSET))).CompactSerialize())
}

func FuzzEnvelope(f *testing.F) {
	k := newKeys(f, &published{body: jwks(jwk("ed25519", "ed"))}, 0)
	good := set("ed25519", "EdDSA", "ed")
	f.Add(good)
	f.Add(b64(`{"alg":"none"}`) + "." + b64(`{}`) + ".")
	f.Add("a.b.c.d.e")
	f.Fuzz(func(t *testing.T, compact string) {
		c, err := k.VerifySET(context.Background(), compact)
		if err == nil && compact != good {
			t.Fatalf("a second spelling, or a forgery: %q", compact)
		}
		if err != nil && c != (watchword.Claims{}) {
			t.Error("claims beside an error")
		}
	})
}
