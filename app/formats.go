package app

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/watchword-dev/watchword/issuer"
)

// Each function here says what is wrong with one text, and the fix; no reason means that it is well formed.

// webURL is https, or http on loopback.
func webURL(v string) (reason, fix string) {
	u, err := url.Parse(v)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || strings.ContainsAny(v, " \"<>\\^`{|}"):
		return "is no absolute URL", ""
	case u.User != nil:
		return "holds a user or a password", "remove what stands before the @"
	case strings.Contains(v, "#"):
		return "has a fragment", "remove the # and what follows"
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return "is not protected", "write https; http is for loopback only (127.0.0.0/8, ::1, localhost)"
	case u.Scheme != "https" && u.Scheme != "http":
		return "is no web URL", "write https"
	}
	return "", ""
}

func webURLOrNone(v string) (reason, fix string) {
	if v == issuer.NoIntrospection {
		return "", ""
	}
	return webURL(v)
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.IsLoopback()
}

// noQuery is RFC 8414 §2: an issuer identifier has neither query nor fragment.
func noQuery(v string) (reason, fix string) {
	if strings.Contains(v, "?") {
		return "has a query", "write the issuer identifier as the AS publishes it"
	}
	return "", ""
}

func host(v string) (reason, fix string) {
	bare := strings.TrimSuffix(strings.TrimPrefix(v, "["), "]")
	if a, err := netip.ParseAddr(bare); err == nil && a.Is4() == (bare == v) && a.Zone() == "" {
		return "", ""
	}
	name, _, port := strings.Cut(v, ":")
	name, dot := strings.CutSuffix(name, ".")
	for l := range strings.SplitSeq(name, ".") {
		if l == "" || len(l) > 63 || strings.ContainsFunc(l, func(c rune) bool { return !alnum(c) && c != '-' && c != '_' }) {
			return "is no host name", "write it exactly; patterns are for paths only"
		}
	}
	if port || dot {
		return "has a port or a final dot, which are not compared", "write " + name
	}
	return "", ""
}

func alnum(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// pathPattern is a path that may end in "*". What the door calls ambiguous can never match, so it is a mistake here.
func pathPattern(v string) (reason, fix string) {
	prefix, open := strings.CutSuffix(v, "*")
	switch {
	case !strings.HasPrefix(v, "/"):
		return "does not begin with /", ""
	case strings.Contains(prefix, "*"):
		return "has a * that is not at the end", "end the pattern at its first *"
	case strings.ContainsAny(prefix, `\;#?%`):
		return `can never match: the decoded path of an accepted request holds none of \ ; # ? %`, "write the percent-decoded path, without query"
	case strings.Contains(prefix, "//"):
		return "can never match: // is refused", "write one /"
	}
	segments := strings.Split(prefix, "/")
	if open { // the last one may go on
		segments = segments[:len(segments)-1]
	}
	for _, s := range segments {
		if strings.HasSuffix(s, ".") || strings.HasSuffix(s, " ") {
			return "can never match: a segment that ends in . or space is refused", "write the path as the backend serves it"
		}
	}
	return "", ""
}

func pathExact(v string) (reason, fix string) {
	if strings.Contains(v, "*") {
		return "holds a *", "write the whole path"
	}
	return pathPattern(v)
}

func noFinalSlash(v string) (reason, fix string) {
	if strings.HasSuffix(v, "/") {
		return "ends in /", "remove the final /, as path_prefix of Envoy's filter is put before a path that begins with one"
	}
	return "", ""
}

func shownClaim(v string) (reason, fix string) {
	if v == "active" {
		return "is shown always", "remove it"
	}
	return "", ""
}

var logTargets = []string{"stdout", "stderr", "none"}

func logTarget(v string) (reason, fix string) {
	if slices.Contains(logTargets, v) || strings.ContainsAny(v, "/.") {
		return "", ""
	}
	if near := nearest(v, logTargets); near != "" {
		return "is neither a known word nor clearly a file", "did you mean " + near + "? A file is written ./" + v
	}
	return "is neither a known word nor clearly a file", "write stdout, stderr, none, or ./" + v
}

// headers maps identity headers to claims.
var headers = kind[map[string]string]{shape{word: "mapping of header to claim", hint: "write {X-Auth-Subject: sub}", schema: map[string]any{
	"type": "object", "minProperties": 1, "additionalProperties": map[string]any{"type": "string", "minLength": 1}}},
	func(r *reader, at place, into *map[string]string) {
		switch n := at.node; {
		case n == nil || n.Kind == yaml.AliasNode:
			return
		case n.Kind != yaml.MappingNode:
			r.wrong(at, "is "+noun(n)+" where a mapping is expected", "write {X-Auth-Subject: sub}")
			return
		case len(n.Content) == 0:
			r.silent(at, "is empty", "remove the key, or write what belongs into it")
			return
		}
		out, seen, claim := map[string]string{}, map[string]string{}, text("claim", "write the name of a claim")
		for i := 0; i+1 < len(at.node.Content); i += 2 {
			name, value := at.node.Content[i], at.node.Content[i+1]
			if name.Kind != yaml.ScalarNode || name.ShortTag() == "!!merge" {
				continue // reported by plain
			}
			spot := at.child(name.Value, name)
			reason, fix := identityHeader(name.Value)
			other, twice := seen[folded(name.Value)]
			switch {
			case reason != "":
				r.silent(spot, reason, fix)
			case twice && other == name.Value:
				r.silent(spot, "is written twice", "keep one")
			case twice:
				r.silent(spot, "differs from "+other+" only in case or in - _ and .", "keep one: servers take them for the same header")
			}
			seen[folded(name.Value)] = name.Value
			var to string
			spot.node = value
			if value.ShortTag() == "!!null" {
				r.silent(spot, "names no claim", "write the name of a claim")
				continue
			}
			claim.read(r, spot, &to)
			out[name.Value] = to
		}
		*into = out
	}}

// folded is what of a header name survives servers that fold case, and turn - and . into _ (CGI, WSGI, PHP).
func folded(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

// reserved headers mean something to the gateway or to HTTP itself; an identity header must not be one of them.
var reserved = []string{"authorization", "cache-control", "connection", "content-encoding", "content-length", "content-type",
	"cookie", "date", "expect", "host", "keep-alive", "location", "proxy-authenticate", "proxy-authorization", "proxy-connection",
	"retry-after", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "vary", "via", "www-authenticate",
	"x-request-id", "traceparent"}

func identityHeader(name string) (reason, fix string) {
	f := folded(name)
	switch {
	case name == "" || len(name) > 128 || strings.ContainsFunc(name, func(c rune) bool { return !alnum(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", c) }):
		return "is no header name (RFC 9110 §5.1)", "write letters, digits and -"
	case slices.Contains(reserved, f) || strings.HasPrefix(f, "x-watchword-") || strings.HasPrefix(f, "x-forwarded-") || strings.HasPrefix(f, "x-original-"):
		return "is a header with a meaning of its own", "choose a name of your own, such as X-Auth-Subject"
	}
	return "", ""
}
