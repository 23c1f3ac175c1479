package introspection

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

const (
	maxFormBytes = 64 << 10
	keepBytes    = 16 << 10 // larger buffers are not kept for the next request
)

// exchange is what one request needs and the next can use again. The form points into the body.
type exchange struct {
	form form
	body []byte
	out  []byte
	sign Sign // nil: the answer is JSON
}

var exchanges = sync.Pool{New: func() any {
	return &exchange{body: make([]byte, 0, 2<<10), out: make([]byte, 0, 2<<10)}
}}

// wipe forgets the body: it holds a token, and maybe a secret.
func (x *exchange) wipe() {
	clear(x.body)
	x.form = form{}
}

func (x *exchange) release() {
	x.wipe()
	if cap(x.body) <= keepBytes && cap(x.out) <= keepBytes {
		exchanges.Put(x)
	}
}

// form is what we read of the body (RFC 7662 §2.1, RFC 6749 §2.3). All other members are ignored.
type form struct {
	token, hint                                      []byte
	clientID, clientSecret, assertion, assertionType []byte
	tokens, hints                                    int  // how often they are given, empty ones included
	doubled                                          bool // a member that authenticates is given twice, empty ones apart
}

// secret reports whether the body authenticates somebody: a client_id alone proves nothing.
func (f *form) secret() bool { return len(f.clientSecret) > 0 || len(f.assertion) > 0 }

// read takes the body of r apart.
func (x *exchange) read(r *http.Request) *refusal {
	if !isForm(r.Header["Content-Type"]) {
		return badRequest
	}
	if r.ContentLength > maxFormBytes {
		return tooLarge
	}
	if no := x.fill(r.Body); no != nil {
		return no
	}
	if !x.form.parse(x.body) {
		return badRequest
	}
	return nil
}

// isForm asks for the media type of RFC 7662 §2.1, once; parameters such as charset mean nothing to it.
func isForm(contentType []string) bool {
	if len(contentType) != 1 {
		return false
	}
	media, _, _ := strings.Cut(contentType[0], ";")
	return strings.EqualFold(strings.Trim(media, " \t"), "application/x-www-form-urlencoded")
}

// fill reads the whole body, and no more than maxFormBytes of it.
func (x *exchange) fill(body io.Reader) *refusal {
	x.body = x.body[:0]
	for {
		if n := len(x.body); n == cap(x.body) {
			more := make([]byte, n, min(4*n, maxFormBytes+1))
			copy(more, x.body)
			clear(x.body)
			x.body = more
		}
		n, err := body.Read(x.body[len(x.body):cap(x.body)])
		x.body = x.body[:len(x.body)+n]
		_, tooLong := errors.AsType[*http.MaxBytesError](err)
		switch {
		case len(x.body) > maxFormBytes, tooLong:
			return tooLarge
		case err == io.EOF:
			return nil
		case err != nil:
			return badRequest // the caller broke off
		}
	}
}

// parse decodes b in place (application/x-www-form-urlencoded, RFC 6749 Appendix B). Not ok: an escape is broken.
func (f *form) parse(b []byte) (ok bool) {
	*f = form{}
	for len(b) > 0 {
		member := b
		if i := bytes.IndexByte(b, '&'); i >= 0 {
			member, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		name, value, _ := bytes.Cut(member, []byte{'='})
		name, ok := unescape(name)
		if !ok {
			return false
		}
		if value, ok = unescape(value); !ok {
			return false
		}
		f.take(name, value)
	}
	return true
}

func (f *form) take(name, value []byte) {
	switch string(name) {
	case "token":
		f.token = value
		f.tokens++
	case "token_type_hint":
		f.hint = value
		f.hints++
	case "client_id":
		f.once(&f.clientID, value)
	case "client_secret":
		f.once(&f.clientSecret, value)
	case "client_assertion":
		f.once(&f.assertion, value)
	case "client_assertion_type":
		f.once(&f.assertionType, value)
	}
}

// once keeps a member that authenticates. Empty ones count as absent: some clients send them beside HTTP Basic.
func (f *form) once(at *[]byte, value []byte) {
	if len(value) == 0 {
		return
	}
	f.doubled = f.doubled || len(*at) > 0 // RFC 6749 §3.2: no parameter more than once
	*at = value
}

// unescape decodes b in place.
func unescape(b []byte) ([]byte, bool) {
	at := bytes.IndexByte(b, '%')
	if plus := bytes.IndexByte(b, '+'); plus >= 0 && (at < 0 || plus < at) {
		at = plus
	}
	if at < 0 {
		return b, true
	}
	out := b[:at]
	for i := at; i < len(b); i++ {
		c := b[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if i+2 >= len(b) {
				return nil, false
			}
			high, low := unhex(b[i+1]), unhex(b[i+2])
			if high > 15 || low > 15 {
				return nil, false
			}
			c = high<<4 | low
			i += 2
		}
		out = append(out, c) // never longer than what was read
	}
	return out, true
}

// unhex is the value of a hexadecimal digit, more than 15 if c is none.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// inURL reports a token or a secret in the query, where it ends up in logs (RFC 7662 §4, RFC 6749 §2.3.1); also where
// only a reader that splits at semicolons finds it, or where an escape is broken and nobody can say.
func inURL(query string) bool {
	if query == "" {
		return false
	}
	var f form
	ok := f.parse([]byte(strings.ReplaceAll(query, ";", "&")))
	return !ok || f.tokens > 0 || f.secret()
}
