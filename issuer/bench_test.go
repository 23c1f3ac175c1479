package issuer

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

const benchAnswer = `{"active":true,"sub":"8a1c2f3e-ann","client_id":"orders","scope":"orders:read orders:write","aud":["https://api.example"],` +
	`"iss":"https://as.example","exp":4102444800,"iat":1700000000,"jti":"0f9d7c1e-5b7a-4a3a-9d59-77a1f3a1e9f1","token_type":"Bearer"}`

func benchServer(b *testing.B) string {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header()["Content-Type"] = acceptJSON
		_, _ = io.WriteString(w, benchAnswer)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	b.Cleanup(s.Close)
	return s.URL + "/introspect"
}

// BenchmarkMiss is one asking: the server's work is in the figure. Compare with BenchmarkBareCall.
func BenchmarkMiss(b *testing.B) {
	c := client(b, benchServer(b))
	q := query()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Introspect(ctx, q); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareCall is a tuned http.Client that posts the same form and reads the answer without understanding it.
func BenchmarkBareCall(b *testing.B) {
	at := benchServer(b)
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxConnsPerHost: 256, DisableCompression: true}}
	b.Cleanup(c.CloseIdleConnections)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		form := url.Values{"token": {canary}, "token_type_hint": {"access_token"}}
		req, err := http.NewRequestWithContext(ctx, "POST", at, strings.NewReader(form.Encode()))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("rs", hush)
		resp, err := c.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParse is what of a miss is reading the answer.
func BenchmarkParse(b *testing.B) {
	c := client(b, "https://as.example/i")
	r := reply{status: 200, header: http.Header{"Content-Type": acceptJSON}, body: []byte(benchAnswer), asked: query().At}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.parse(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
