package door

import (
	"net/netip"
	"strings"
)

// Peers are the proxies whose word about the original request is believed. The zero value trusts nobody. Immutable.
type Peers []netip.Prefix

// Trusts reports whether remoteAddr, as in http.Request.RemoteAddr, is one of p. What is no IP address is not.
func (p Peers) Trusts(remoteAddr string) bool {
	addr, ok := address(remoteAddr)
	return ok && p.contains(addr)
}

func (p Peers) contains(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// Client is the address of the client that the peer at remoteAddr speaks for: the right-most entry of the
// X-Forwarded-For lines that is none of p, else the peer. A peer that is not in p is itself the client; one without an
// IP address, on a unix socket, is believed. An entry that is no address ends the search: what stands left of it was
// written by nobody known.
func (p Peers) Client(remoteAddr string, xff []string) string {
	peer := host(remoteAddr)
	if addr, ok := address(remoteAddr); ok && !p.contains(addr) {
		return peer
	}
	for i := len(xff) - 1; i >= 0; i-- {
		for rest := xff[i]; rest != ""; {
			entry := rest
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				entry, rest = rest[comma+1:], rest[:comma]
			} else {
				rest = ""
			}
			entry = strings.Trim(entry, " \t")
			addr, ok := address(entry)
			if !ok {
				return peer
			}
			if !p.contains(addr) {
				return host(entry)
			}
		}
	}
	return peer
}

// address reads an IP address with or without a port.
func address(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(host(s))
	return addr, err == nil
}

// host drops a port, and the brackets of an IPv6 address, without allocation.
func host(s string) string {
	if strings.HasPrefix(s, "[") {
		if end := strings.IndexByte(s, ']'); end > 0 {
			return s[1:end]
		}
	}
	if i := strings.IndexByte(s, ':'); i >= 0 && strings.IndexByte(s[i+1:], ':') < 0 {
		return s[:i]
	}
	return s
}
