package introspection

import "strings"

// wantsJWT reports whether an Accept header names the media type of signed answers (RFC 9701 §4), other than to refuse
// it. A wildcard does not name it: clients that send one expect JSON.
func wantsJWT(accept []string) bool {
	for _, line := range accept {
		for element := range strings.SplitSeq(line, ",") {
			kind, parameters, _ := strings.Cut(element, ";")
			if !strings.EqualFold(strings.Trim(kind, " \t"), typeJWT[0]) {
				continue
			}
			if !refusedBy(parameters) {
				return true
			}
		}
	}
	return false
}

// refusedBy reports a weight of zero (RFC 9110 §12.4.2).
func refusedBy(parameters string) bool {
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.Trim(p, " \t"), "=")
		if strings.EqualFold(name, "q") && strings.Trim(value, "0.") == "" && value != "" {
			return true
		}
	}
	return false
}
