package forwardauth

import (
	"net/http"
	"strings"

	"github.com/watchword-dev/watchword/door"
)

// original is the request that the gateway holds back.
type original struct {
	method, host, path, query string
}

// original finds out what the gateway asks about; not ok where that can be read in two ways.
func (d *Door) original(r *http.Request) (o original, ok bool) {
	if d.config.Profile == Envoy {
		target, prefixed := strings.CutPrefix(r.RequestURI, d.config.PathPrefix)
		return o.complete(r.Method, r.Host, target, prefixed)
	}
	fMethod, fURI := r.Header["X-Forwarded-Method"], r.Header["X-Forwarded-Uri"]
	oMethod, oURL, oURI := r.Header["X-Original-Method"], r.Header["X-Original-Url"], r.Header["X-Original-Uri"]
	forwarded := fMethod != nil || fURI != nil
	if forwarded == (oMethod != nil || oURL != nil || oURI != nil) {
		return o, false // no family, or both: a client may have sent the other one
	}
	if forwarded {
		hosts := r.Header["X-Forwarded-Host"]
		if len(hosts) > 1 {
			return o, false
		}
		return o.complete(one(fMethod), one(hosts), one(fURI), true)
	}
	if len(oURL)+len(oURI) != 1 {
		return o, false
	}
	if oURI != nil {
		return o.complete(one(oMethod), r.Host, oURI[0], true)
	}
	host, target, ok := cutHost(oURL[0], r.Host)
	return o.complete(one(oMethod), host, target, ok)
}

// one returns the only value, or nothing.
func one(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// complete checks the parts and takes the target apart.
func (o original) complete(method, host, target string, ok bool) (original, bool) {
	raw, query, _ := strings.Cut(target, "?")
	path, plain := door.Path(raw)
	return original{method, host, path, query}, ok && plain && isMethod(method) && isHost(host)
}

// cutHost splits the absolute form of X-Original-URL; a value without a scheme is a path at host.
func cutHost(url, host string) (h, target string, ok bool) {
	if strings.HasPrefix(url, "/") {
		return host, url, true
	}
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", "", false
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return rest, "/", rest != ""
	}
	if rest[end] == '?' { // RFC 9110 §4.2.3: an empty path is /
		return rest[:end], "/" + rest[end:], end > 0
	}
	return rest[:end], rest[end:], end > 0
}

// isMethod is the token of RFC 9110 §9.1, and so no list of methods.
func isMethod(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isHost asks for what a host and port are made of (RFC 3986 §3.2.2), without user and escapes: nothing that two
// readers may split differently. None at all is fine and matches no policy that names hosts.
func isHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c >= 'A' && c <= 'Z':
		case c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}
