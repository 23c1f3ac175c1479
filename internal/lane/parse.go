package lane

import (
	"net/http"
	"net/url"
	"strings"
)

const maxFields = 64

// request is one that was read, for one handler at a time.
type request struct {
	http.Request
	header http.Header
	values []string // what the lists in header are cut from
	url    url.URL
}

// parse reads a head, which ends with its empty line, into r, which holds no other. It reports false for whatever is not
// plain, and has then changed r as it liked. Plain is: a common method, a target that begins with a slash, HTTP/1.1, and
// at most 64 fields of visible ASCII without odd spaces; one Host; no Content-Length or one; and nothing that changes how
// the connection or the body is read but `Connection: close`.
func (r *request) parse(head string) bool {
	line, rest, _ := strings.Cut(head, "\r\n")
	method, line, _ := strings.Cut(line, " ")
	target, proto, _ := strings.Cut(line, " ")
	if !methods[method] || proto != "HTTP/1.1" || !r.target(target) {
		return false
	}
	r.Method, r.RequestURI, r.Proto, r.ProtoMajor, r.ProtoMinor = method, target, proto, 1, 1
	r.URL, r.Header, r.ContentLength, r.Host, r.Close = &r.url, r.header, 0, "", false
	length := false
	for rest != "\r\n" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, ok := field(line)
		if !ok || len(r.values) == maxFields {
			return false
		}
		switch name {
		case "Host":
			if r.Host != "" || !plainHost(value) {
				return false
			}
			r.Host = value
			continue
		case "Content-Length":
			n, ok := decimal(value)
			if !ok || length {
				return false
			}
			length, r.ContentLength = true, n
		case "Connection":
			switch value {
			case "close":
				r.Close = true
			case "keep-alive", "Keep-Alive":
			default:
				return false
			}
		case "Transfer-Encoding", "Upgrade", "Expect", "Trailer", "Http2-Settings", "Pragma":
			return false // the last because net/http makes a Cache-Control of it
		}
		r.add(name, value)
	}
	return r.Host != ""
}

func (r *request) add(name, value string) {
	n := len(r.values)
	r.values = append(r.values, value)
	if before := r.header[name]; before != nil {
		r.header[name] = append(before, value)
		return
	}
	r.header[name] = r.values[n : n+1 : n+1]
}

var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "OPTIONS": true}

// target reads what begins with a slash as net/http does; most of the time, that is cutting.
func (r *request) target(s string) bool {
	if s == "" || s[0] != '/' {
		return false
	}
	for i := range len(s) {
		if class[s[i]]&inTarget == 0 || i == 1 && s[i] == '/' {
			u, err := url.ParseRequestURI(s)
			if err == nil {
				r.url = *u
			}
			return err == nil
		}
	}
	path, query, has := strings.Cut(s, "?")
	r.url = url.URL{Path: path, RawQuery: query, ForceQuery: has && query == ""}
	return true
}

// field is `Name: value`, with the name as net/http spells it.
func field(line string) (name, value string, ok bool) {
	colon := strings.IndexByte(line, ':')
	if colon < 1 || colon > 64 {
		return "", "", false
	}
	name, value = line[:colon], line[colon+1:]
	for value != "" && value[0] == ' ' {
		value = value[1:]
	}
	if value != "" && value[len(value)-1] == ' ' {
		return "", "", false
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return "", "", false
		}
	}
	name, ok = canonical(name)
	return name, value, ok
}

// canonical spells a name as http.CanonicalHeaderKey does.
func canonical(name string) (string, bool) {
	right, upper := true, true
	for i := range len(name) {
		c := class[name[i]]
		if c&inName == 0 {
			return "", false
		}
		if upper && c&lower != 0 || !upper && c&capital != 0 {
			right = false
		}
		upper = name[i] == '-'
	}
	if right {
		return name, true
	}
	var b [64]byte
	n := copy(b[:], name)
	for i := range n {
		switch first := i == 0 || b[i-1] == '-'; {
		case first && class[b[i]]&lower != 0:
			b[i] -= 'a' - 'A'
		case !first && class[b[i]]&capital != 0:
			b[i] += 'a' - 'A'
		}
	}
	if known, ok := common[string(b[:n])]; ok {
		return known, true
	}
	return string(b[:n]), true
}

// common are names that gateways and clients often spell otherwise: no copy is made of them.
var common = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Cookie", "Dpop", "Host",
		"Origin", "Referer", "Traceparent", "Tracestate", "User-Agent", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Method", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Forwarded-Server",
		"X-Forwarded-Uri", "X-Original-Method", "X-Original-Uri", "X-Original-Url", "X-Real-Ip", "X-Request-Id"} {
		m[name] = name
	}
	return m
}()

// plainHost is a name or an address, with or without a port.
func plainHost(s string) bool {
	for i := range len(s) {
		if class[s[i]]&inHost == 0 {
			return false
		}
	}
	return s != ""
}

// decimal is a Content-Length of at most nine digits.
func decimal(s string) (n int64, ok bool) {
	if s == "" || len(s) > 9 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// What a byte may be part of.
const (
	inTarget = 1 << iota
	inName
	inHost
	lower
	capital
	inToken // beside those of inName
)

var class = func() (all [256]uint8) {
	set := func(bytes string, is uint8) {
		for i := range len(bytes) {
			all[bytes[i]] |= is
		}
	}
	for c := byte('a'); c <= 'z'; c++ {
		set(string(c), inTarget|inName|inHost|lower)
		set(string(c-'a'+'A'), inTarget|inName|inHost|capital)
	}
	set("0123456789-", inTarget|inName|inHost)
	set("_", inTarget|inName)
	set(".", inTarget|inHost)
	set(":[]", inHost)
	set("~/?$&+,;=:@", inTarget)
	set("!#$%&'*+.^`|~", inToken)
	return all
}()
