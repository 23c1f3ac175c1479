package script_test

import (
	"testing"

	"github.com/watchword-dev/watchword/internal/script"
)

// With a covering feed that proves something every ten seconds a token costs one question per max_age, and when the feed
// falls silent the bound is max_staleness again, by itself.
//
// Covers: SIG-12
func TestSIG12CoveredAndSilent(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=30s max_age=2m
		ledger settle=5s skew=2s
		token t1 sub=ann iat=0s
		at 10s check t1 -> ok asked=1
		cover
		at 30s cover
		at 50s cover -2s
		at 63s check t1 -> ok asked=1 age=53s source=cache    # proven until 48s
		at 64s as down
		at 78s check t1 -> ok asked=2 age=1m8s source=cache   # at the bound; asked early, behind its back
		at 78s1ns check t1 -> unavailable asked=3             # silent since 48s: nothing older than 30 s serves
		at 79s cover
		check t1 -> ok asked=3 age=1m9s                       # the proof comes, late and whole
		at 80s as up
		at 100s cover
		at 120s cover
		at 130s check t1 -> ok asked=3 age=2m0s
		at 130s1ns check t1 -> ok asked=4 age=0s              # max_age, however well the feed is`)
}

// Not every answer is extended: not one that was asked within settle after the feed began, one from before a gap, one
// that its events cannot name.
//
// Covers: SIG-11 SIG-15 SIG-21
func TestSIG11WhatIsNotExtended(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=10s max_age=10m
		ledger settle=5s skew=2s keys=sub
		token t1 sub=ann iat=0s
		token t2 sub=bob iat=0s
		token t3 client=app iat=0s
		at 1s check t1 -> ok asked=1                                # within settle of the beginning
		at 6s check t2 -> ok asked=2
		check t3 -> ok asked=3                                # has no sub
		at 20s cover
		check t1 -> ok asked=4 age=0s
		check t2 -> ok asked=4 age=14s
		check t3 -> ok asked=5 age=0s
		at 25s gap
		at 40s cover
		check t2 -> ok asked=6 age=0s                         # from before the gap, whatever is proven now
		at 55s cover
		check t2 -> ok asked=6 age=15s`)
}

// A deny and an introspection that is in the air when it lands: the answer was true when it left the server, and is
// refused all the same. An event that only asks again asks once more.
//
// Covers: CAC-09 T32 T10
func TestCAC09_T32InTheAir(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=1m
		policy grace max_staleness=1m stale_if_error=1m
		ledger settle=5s skew=2s
		token t1 sub=ann iat=-5m
		token t2 sub=bob iat=-5m
		token t3 sub=eve
		token t4 sub=joe iat=-5m
		at 10s as slow 3s
		ask t1
		ask t2
		ask t3
		ask t4 by grace
		at 11s as revoke t1
		deny sub=ann
		as revoke t2
		revalidate sub=bob
		as revoke t3
		deny sub=eve                                          # without iat: nobody knows which came first
		at 13s got t1 -> revoked asked=6                      # t2 and t3 are asked about once more
		got t2 -> inactive asked=6
		got t3 -> inactive asked=6
		got t4 -> ok asked=6
		at 20s as up
		check t1 -> revoked asked=6                           # remembered, and refused
		check t2 -> inactive asked=7
		check t4 -> ok source=cache asked=7`)
}

// What is questioned is asked about once more, and only a younger answer lifts that; where none is to be had nobody
// knows: not even where the policy serves stale answers. What is revoked is refused with the server down.
//
// Covers: OUT-02 SIG-18
func TestQuestionedIsNeverServedStale(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=30s stale_if_error=1h
		policy any max_staleness=30s stale_if_error=1h on_unavailable=dangerously_allow
		ledger settle=5s skew=2s
		token t1 sub=ann iat=-5m client=app
		token t2 sub=bob iat=-5m client=other
		token t3 sub=cat iat=-5m client=other
		at 1s check t1 -> ok asked=1
		check t2 -> ok asked=2
		check t3 -> ok asked=3
		at 5s as down
		revalidate client=app
		deny sub=bob
		check t1 -> unavailable asked=4
		check t1 by any -> unavailable asked=5
		check t2 -> revoked
		check t3 -> ok source=cache
		at 1m check t1 -> unavailable
		check t2 by any -> revoked
		check t3 -> ok degraded=stale
		at 2m as up
		check t1 -> ok age=0s
		check t2 -> revoked
		at 2m1s as down
		at 2m10s check t1 -> ok source=cache age=10s           # lifted
		at 3m check t1 -> ok degraded=stale`)
}

// An event is in force for a token that nobody has seen yet, by every way to name it.
//
// Covers: SIG-17
func TestSIG17BeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=30s
		ledger settle=5s skew=2s
		token t1 sub=ann iat=-5m
		token t2 sub=bob jti=j2 iat=-5m
		token t3 sub=bob jti=j3 iat=-5m
		token t4 tenant=acme sub=cat iat=-5m
		token t5 tenant=acme sub=dan iat=-5m
		deny sub=ann
		deny token=t2
		deny jti=j3
		deny tenant=acme sub=cat
		at 1s check t1 -> revoked
		check t2 -> revoked
		check t3 -> revoked
		check t4 -> revoked
		check t5 -> ok
		at 1h check t2 -> revoked                              # for its life
		check t5 -> ok`)
}

// An account that is enabled again, and a late, old event, give nothing back; only the server's younger word about a
// younger token does. A suspension needs no event to end.
//
// Covers: SIG-18
func TestSIG18NothingIsGivenBack(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=30s
		ledger settle=5s skew=2s
		token t1 sub=ann iat=-5m
		token t2 sub=bob iat=-5m
		at 10s check t1 -> ok asked=1
		check t2 -> ok asked=2
		at 20s signal session-revoked ann
		as revoke t2
		signal account-disabled bob
		at 20001ms check t1 -> revoked asked=2
		check t2 -> inactive asked=3
		at 21s signal account-enabled ann
		deny sub=ann at=-1m                                    # older than the one that is known
		check t1 -> revoked asked=3
		at 25s as restore t2
		check t2 -> ok asked=4                                 # nobody said so: the server did
		token t3 sub=ann iat=25s
		check t3 -> ok                                         # issued after it all`)
}

// The zones of a deny, at 100 s with a skew of 2 s: before, about, after; a session's later tokens; an operator's deny.
//
// Covers: SIG-16
func TestSIG16ZonesPlayed(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=1h
		ledger settle=5s skew=2s
		token before sub=ann iat=96s
		token first sub=ann iat=97s
		token last sub=ann iat=103s
		token after sub=ann iat=104s
		token none sub=ann
		token later session=s iat=104s
		token op1 sub=bob iat=103s
		token op2 sub=bob iat=104s
		token op3 sub=bob
		at 105s check before -> ok
		check first -> ok
		check last -> ok
		check after -> ok
		check none -> ok
		check later -> ok
		check op1 -> ok
		check op2 -> ok
		check op3 -> ok asked=9
		at 106s deny sub=ann at=100s
		deny session=s at=100s
		operator deny sub=bob at=100s
		at 107s check before -> revoked asked=9
		check first -> ok asked=10
		check last -> ok asked=11
		check after -> ok asked=11 source=cache
		check none -> ok asked=12
		check later -> ok asked=13
		check op1 -> revoked asked=13
		check op2 -> ok asked=13
		check op3 -> revoked asked=13`)
}

// Introspection that lags the revocation: the answer from within that time is young enough for max_staleness, and is
// never extended, although it was asked after the event.
//
// Covers: SIG-21
func TestIntrospectionThatLags(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=10s max_age=10m
		ledger settle=5s skew=2s
		token t1 sub=ann
		at 20s check t1 -> ok asked=1
		cover
		at 30s as lag 4s
		as revoke t1
		revalidate sub=ann
		at 32s check t1 -> ok asked=2                          # the server says so still: V is 34s
		cover
		at 38s cover
		at 42s check t1 -> ok asked=2 age=10s
		at 42s1ns cover
		check t1 -> inactive asked=3`)
}

// What is forgotten questions what it voided: a policy that would take older answers than was reckoned with gains nothing.
func TestForgettingRevivesNothing(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=1h stale_if_error=10h
		ledger settle=5s skew=2s remember=1m
		token t1 sub=ann iat=-5m
		token t2 sub=bob iat=-5m
		at 10s check t1 -> ok asked=1
		check t2 -> ok asked=2
		at 20s revalidate sub=ann
		as revoke t1
		at 30s token t3 sub=cat
		check t3 -> ok asked=3
		at 40s check t2 -> ok asked=3 source=cache
		at 2m check t1 -> inactive asked=4                     # the event is over, not its question
		check t2 -> ok asked=5                                 # nobody knows any more whom it meant
		check t3 -> ok asked=5 source=cache age=1m30s          # asked after it, and after settle`)
}

// A restart that replays forgets nothing and asks about nothing anew; one that begins empty asks about everything from
// before it. What is remembered here is as old as the process before.
//
// Covers: SIG-20
func TestSIG20RestartPlayed(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=30s max_age=10m
		ledger settle=5s skew=2s log
		token t1 sub=ann iat=-5m
		token t2 sub=bob iat=-5m
		token t3 sub=cat iat=-5m
		at 10s check t1 -> ok asked=1
		check t2 -> ok asked=2
		check t3 -> ok asked=3
		at 15s cover
		deny sub=ann
		as revoke t2
		revalidate sub=bob
		restart
		at 16s check t1 -> revoked asked=3
		check t2 -> inactive asked=4
		check t3 -> ok asked=4 source=cache
		at 30s cover
		at 41s check t3 -> ok asked=5 age=0s                   # no feed extends across a restart`)
	script.Run(t, `
		policy max_staleness=30s
		ledger settle=5s skew=2s
		token t1 sub=ann iat=-5m
		at 10s check t1 -> ok asked=1
		at 15s as revoke t1
		deny sub=ann
		restart
		at 16s check t1 -> inactive asked=2                    # nothing is known: the server is asked
		token t2
		check t2 -> ok asked=3
		at 17s check t2 -> ok asked=3`)
}

// An inactive answer ends older evidence at once, also for who would have been content with it, and also where that
// evidence lands later.
//
// Covers: T32 CAC-09
func TestT32InactiveAnswerDoubtsOlderOnes(t *testing.T) {
	t.Parallel()
	script.Run(t, `
		policy max_staleness=1m
		policy live
		ledger settle=5s
		token t1 sub=ann
		at 1s check t1 -> ok asked=1
		at 2s as slow 4s
		ask t1 by live
		at 3s as up
		as revoke t1
		check t1 by live -> inactive asked=3
		at 6s got t1 -> inactive asked=4                       # what it brought is from before: once more
		check t1 -> inactive`)
}
