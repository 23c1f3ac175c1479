package script_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/watchword-dev/watchword/internal/script"
)

// A token's whole life: asked, remembered, asked again, the server gone and back, revoked, over.
//
// Covers: T6 T7 CAC-01 CAC-13 OUT-01
func TestCAC13ALife(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=10s
		at 0s token t1 sub=ann exp=60s
		check t1 -> ok asked=1 age=0s source=issuer
		at 5s check t1 -> ok asked=1 age=5s source=cache
		as down
		at 10s check t1 -> ok asked=1 age=10s      # at the bound
		at 10s1ns check t1 -> unavailable asked=2  # 503, never 401
		at 12s as up
		check t1 -> ok asked=3 age=0s
		at 20s as revoke t1
		check t1 -> ok asked=3 age=8s              # as promised: not longer than max_staleness
		at 22s1ns check t1 -> inactive asked=4
		check t1 -> inactive asked=5               # inactive answers are not kept by default
		as restore t1
		check t1 -> ok asked=6                     # T14: no false negative is pinned
		at 31s check t1 -> ok asked=6 age=8.999999999s
		at 55s check t1 -> ok asked=7
		at 60s check t1 -> expired asked=8 age=0s  # remembered for 5 s, dead all the same; the server agrees
		at 61s check t1 -> expired asked=9
		check never-seen -> inactive`)
}

// Covers: CAC-10 OUT-01
func TestOUT01StaleIfError(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=10s stale_if_error=20s
		policy strict max_staleness=10s
		token t1 exp=28s
		token t2
		check t1 -> ok asked=1
		check t2 -> ok asked=2
		at 10s as down
		at 11s check t1 -> ok asked=3 age=11s source=stale
		check t1 by strict -> unavailable asked=4
		at 27s check t1 -> ok source=stale
		at 28s check t1 -> expired                   # never past exp
		at 30s check t2 -> ok age=30s source=stale
		at 30s1ns check t2 -> unavailable
		as up
		at 31s check t2 -> ok source=issuer age=0s`)
}

// Covers: T14 CAC-04
func TestCAC04_T14InactiveIsBounded(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=10s
		policy strict max_staleness=2s
		cache inactive=5s
		check t1 -> inactive asked=1
		at 3s token t1
		check t1 -> inactive asked=1        # remembered
		check t1 by strict -> ok asked=2    # not beyond the bound of who asks
		token t3
		as revoke t3
		check t3 -> inactive asked=3
		as restore t3
		at 8s check t3 -> inactive asked=3
		at 8s1ns check t3 -> ok asked=4`)
}

// A slow server's word is as old as its question; one that does not answer in time is unavailable.
//
// Covers: CAC-13 CAC-02
func TestCAC13SlowServer(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=5s
		cache timeout=4s
		token t1
		as slow 3s
		check t1 -> ok asked=1 age=0s
		at 3s check t1 -> ok asked=1 age=3s
		at 5s check t1 -> ok asked=1 age=5s
		at 5s1ns as revoke t1
		check t1 -> inactive asked=2
		at 20s as slow 1h
		check t1 -> unavailable asked=3
		at 24s check t1 -> unavailable asked=4`)
}

// Two policies over one memory: each has its bounds and demands.
//
// Covers: T1 T2
func TestT1_T2TwoPolicies(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy read max_staleness=1m scopes=read
		policy write max_staleness=5s scopes=read,write audience=api
		policy live
		token t1 scope=read aud=api
		check t1 by read -> ok asked=1
		check t1 by write -> scope asked=1
		at 6s check t1 by read -> ok asked=1 age=6s
		check t1 by write -> scope asked=2 age=0s
		at 7s check t1 by live -> ok asked=3 age=0s
		at 8s check t1 by live -> ok asked=4 age=0s`)
}

// INT-11: an answer is not usable before nbf, and is judged anew each time.
func TestINT11NotYetValid(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=1m
		token t1 nbf=30s
		check t1 -> not_yet_valid asked=1
		at 29s check t1 -> not_yet_valid asked=1
		at 30s check t1 -> ok asked=1`)
}

// CAC-10: a popular token is asked about before its bound; an error on the way changes nothing.
func TestCAC10RefreshAhead(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=20s
		cache refresh_after=0.5 refresh_hits=1
		token t1
		check t1 -> ok asked=1
		at 10s check t1 -> ok asked=1
		at 11s check t1 -> ok asked=2 age=11s source=cache   # asked ahead; nobody waited
		at 12s check t1 -> ok asked=2 age=1s
		at 20s as down
		at 25s check t1 -> ok asked=3 age=14s source=cache   # the asking failed: fresh within the bound, unmarked
		at 31s check t1 -> ok age=20s
		at 31s1ns check t1 -> unavailable
		at 32s as up
		check t1 -> ok age=0s
		at 40s as revoke t1
		at 43s check t1 -> ok source=cache                   # this one starts the asking that
		check t1 -> inactive                                 # replaces the entry at once`)
}

// The runner names what it could not play and what did not come true.
func TestFailuresName(t *testing.T) {
	t.Parallel()
	f := func(text string, wants ...string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			err := script.Play(text)
			for _, want := range wants {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant %q", err, want)
				}
			}
		})
	}
	f("policy\n\n# nothing\ntoken t1\nat 5s check t1 -> inactive", "line 5: at 5s check t1 -> inactive", "5s after the start", "got ok asked=1 age=0s source=issuer")
	f("policy\ntoken t1\ncheck t1 -> ok asked=2", "line 3", "got ok asked=1")
	f("policy\ncheck t1 -> ok", "got inactive")
	f("policy\ntoken t1\ncheck t1 -> ok speed=2", "speed=2")
	f("policy max=1s", "max=1s")
	f("policy max_staleness=1", "max_staleness=1")
	f("policy max_staleness=-1s\ntoken t1", "max_staleness is -1s")
	f("cache inactive=1h\ntoken t1", "Inactive.TTL 1h0m0s")
	f("token t1\npolicy", "line 2", "before all else")
	f("token t1 colour=red", "colour=red")
	f("policy\nat 5s\nat 4s", "line 3", "that is over")
	f("policy\nat soon", "soon")
	f("policy\nas revoke nobody", "revoke nobody")
	f("policy\nas tired", "tired")
	f("policy\nas", "too little")
	f("policy\ndance", "dance")
	f("policy\ncheck t1", "TOKEN [by POLICY] [from IP] [agent UA] -> REASON")
	f("policy\ncheck t1 for x -> ok", "for x")
	f("policy\ncheck t1 from -> ok", "from")
	f("tier client=a max_staleness=1s", "line 1", "no policy default")
	f("policy max_staleness=1s\ntier client=a max_staleness=2s\ntoken t1", "can only tighten")
	f("policy\ntier subject=dog", "neither user nor client")
	f("policy recheck_on=moon", "neither client_ip nor user_agent")
	f("policy\nchance 1", "1 excluded")
	f("policy\nask t1\nchance 0.1\ngot t1 -> inactive", "line 3", "may be drawing")
	f("policy\ntoken t1", "checks nothing")
	f("", "checks nothing")
}

// Every word of an outage, with a cache: marked, and only where it is written.
//
// Covers: OUT-01 OUT-02
func TestOUT02Words(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy deny max_staleness=10s
		policy allow max_staleness=10s stale_if_error=5s on_unavailable=dangerously_allow
		policy unknown max_staleness=10s on_unavailable=dangerously_allow_unknown
		policy hold max_staleness=10s stale_if_error=5s hold
		token t1 exp=1h
		check t1 by deny -> ok asked=1
		at 10s1ns as down
		check t1 by allow -> ok degraded=stale source=stale
		at 15s1ns check t1 by allow -> ok degraded=allow age=15.000000001s
		check t1 by deny -> unavailable degraded=
		check t1 by unknown -> ok degraded=allow
		check t2 by allow -> unavailable
		check t2 by unknown -> ok degraded=unknown source=none age=0s
		at 59m59s check t1 by allow -> ok degraded=allow    # kept to its end
		at 1h check t1 by allow -> expired degraded=
		at 2h as up
		token t1 exp=4h
		check t1 by deny -> ok degraded=
		check t2 by unknown -> inactive                      # known again
		as lying
		as revoke t1
		at 2h10s check t1 by deny -> ok source=cache degraded=
		at 2h10s1ns check t1 by hold -> ok degraded=hold
		check t1 by deny -> unavailable
		check t1 by unknown -> unavailable                   # somebody did say inactive
		at 2h15s1ns check t1 by hold -> unavailable
		as up
		check t1 by hold -> inactive`)
}

// Tiers tighten by what the answer says, for hits and for misses, and also what an outage may serve.
//
// Covers: CAC-01
func TestTiers(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=30s stale_if_error=1m
		tier client=batch max_staleness=10s
		tier tenant=acme scope=pay subject=user max_staleness=5s stale_if_error=0s
		token plain client=app exp=1h
		token batch client=batch exp=1h
		token pay client=batch sub=ann tenant=acme scope=pay,read exp=1h
		token machine client=batch sub=batch tenant=acme scope=pay exp=1h   # stands for no user
		check plain -> ok asked=1
		check batch -> ok asked=2
		check pay -> ok asked=3
		check machine -> ok asked=4
		at 5s check pay -> ok asked=4 source=cache
		at 5s1ns check pay -> ok asked=5 age=0s source=issuer
		at 10s check batch -> ok asked=5 source=cache
		check machine -> ok asked=5 source=cache
		at 10s1ns check batch -> ok asked=6 source=issuer
		check machine -> ok asked=7 source=issuer
		at 20s as down
		at 30s check plain -> ok asked=7 source=cache
		check pay -> unavailable                            # its tier allows no stale answer
		check batch -> ok source=stale degraded=stale
		at 40s as revoke batch
		as up
		check batch -> inactive`)
}

// A recheck asks about a fresh answer: by chance, or when its bearer seems to be another. If nobody can be asked, the
// answer serves on, for it is as fresh as promised.
//
// Covers: CAC-01
func TestRechecks(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=1h recheck=0.1 recheck_on=client_ip,user_agent
		policy plain max_staleness=1h
		token t1 exp=2h
		check t1 from 192.0.2.1 agent curl -> ok asked=1
		at 1s check t1 from 192.0.2.1 agent curl -> ok asked=1 source=cache
		at 2s chance 0.0999
		check t1 from 192.0.2.1 agent curl -> ok asked=2 age=0s source=issuer
		check t1 by plain from 192.0.2.1 agent curl -> ok asked=2
		at 3s chance 0.1
		check t1 from 192.0.2.1 agent curl -> ok asked=2 source=cache
		check t1 from 198.51.100.7 agent curl -> ok asked=3 source=issuer   # another address
		at 4s check t1 from 198.51.100.7 agent wget -> ok asked=4 source=issuer
		at 5s check t1 from 198.51.100.7 agent wget -> ok asked=4 source=cache
		as down
		at 6s check t1 from 192.0.2.9 agent wget -> ok asked=5 age=2s degraded=  # as fresh as promised
		as up
		as revoke t1
		at 7s check t1 from 198.51.100.7 agent wget -> ok source=cache      # where it was: within the bound
		at 8s check t1 from 203.0.113.1 agent wget -> inactive              # stolen, and found to be revoked`)
}
