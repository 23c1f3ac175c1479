package door

import (
	"net/netip"
	"testing"
)

var proxies = Peers{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("fd00::/8")}

// Covers: T22
func TestT22TrustedPeers(t *testing.T) {
	t.Parallel()
	f := func(p Peers, remote string, want bool) {
		t.Helper()
		if p.Trusts(remote) != want {
			t.Errorf("%v trusts %q: %v", p, remote, !want)
		}
	}
	for _, in := range []string{"10.1.2.3:5", "127.0.0.1:80", "[fd00::1]:80", "[::ffff:10.0.0.1]:80", "10.1.2.3", "fd00::1", "[fd00::1%eth0]:1"} {
		f(proxies, in, true)
	}
	for _, out := range []string{"11.0.0.1:5", "127.0.0.2:80", "[fe80::1]:1", "", "@", "/run/x.sock", "pipe", "10.0.0.1.evil:80", "010.0.0.1:80", ":80", "localhost:80"} {
		f(proxies, out, false)
	}
	f(nil, "127.0.0.1:80", false)
	f(nil, "@", false)
}

// Covers: FWD-02
func TestFWD02ClientBehindProxies(t *testing.T) {
	t.Parallel()
	f := func(remote, want string, xff ...string) {
		t.Helper()
		if got := proxies.Client(remote, xff); got != want {
			t.Errorf("%s, %q: %q, want %q", remote, xff, got, want)
		}
	}
	f("10.0.0.1:5", "10.0.0.1")
	f("10.0.0.1:5", "192.0.2.7", "192.0.2.7")
	f("10.0.0.1:5", "192.0.2.7", "6.6.6.6, 192.0.2.7")            // what a client wrote itself stands left
	f("10.0.0.1:5", "192.0.2.7", "6.6.6.6,192.0.2.7 , 10.2.2.2")  // a proxy of ours in between
	f("10.0.0.1:5", "192.0.2.7", "6.6.6.6", "192.0.2.7,10.2.2.2") // two lines are one list
	f("10.0.0.1:5", "192.0.2.7", "192.0.2.7", "10.2.2.2")
	f("10.0.0.1:5", "192.0.2.7", "192.0.2.7:4711")
	f("10.0.0.1:5", "2001:db8::1", "[2001:db8::1]:4711")
	f("10.0.0.1:5", "2001:db8::1", "2001:db8::1")
	f("10.0.0.1:5", "10.0.0.1", "10.3.3.3, 10.2.2.2") // proxies all the way
	f("10.0.0.1:5", "10.0.0.1", "6.6.6.6, unknown")
	f("10.0.0.1:5", "10.0.0.1", "6.6.6.6, ")
	f("192.0.2.9:5", "192.0.2.9", "6.6.6.6") // no proxy: its word counts for nothing
	f("@", "192.0.2.7", "6.6.6.6, 192.0.2.7")
	f("@", "@")
	f("[2001:db8::9]:1", "2001:db8::9", "6.6.6.6")
}

func TestClientAllocatesNothing(t *testing.T) {
	xff := []string{"6.6.6.6, 192.0.2.7"}
	if n := testing.AllocsPerRun(100, func() { proxies.Trusts("10.0.0.1:41234"); proxies.Client("10.0.0.1:41234", xff) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
