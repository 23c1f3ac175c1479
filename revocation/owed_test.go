package revocation_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/revocation"
	"github.com/watchword-dev/watchword/revocation/feedtest"
)

// What a node could not publish it goes on trying, as not every sender comes again; once it is out nothing is said twice.
//
// Covers: SIG-21 SIG-22
func TestOwed(t *testing.T) {
	bubble(t, func(t *testing.T, log *feedtest.Memory, a, b *station) {
		log.Stall(true)
		for _, id := range []string{"x", "y", "z"} {
			if err := a.Publish(t.Context(), news(id)); err == nil {
				t.Fatal("published, and the bus takes nothing")
			}
		}
		log.Stall(false)
		time.Sleep(10 * time.Second)
		if !b.sink.Has("x") || !b.sink.Has("y") || !b.sink.Has("z") {
			t.Errorf("the bus is back, and its sender is not: %q", b.sink.Story())
		}
		log.Fail("keep", feedtest.Nothing)
		if err := a.Publish(t.Context(), news("w")); err == nil {
			t.Fatal("published, and not kept")
		}
		time.Sleep(2 * time.Second)
		said := b.count("applied")
		time.Sleep(time.Minute)
		if again := b.count("applied"); again != said {
			t.Errorf("%d events more are sent", again-said)
		}
		log.Cut(len(log.Bodies()))
		late := board(t, log)
		defer late.stop()
		for _, id := range []string{"w", "x", "y", "z"} {
			if !late.sink.Has(id) {
				t.Errorf("%s does not outlive the log", id)
			}
		}
	})
}

// Two senders that choose one ID say two things, and both outlive the log.
//
// Covers: SIG-21
func TestKeptByWhatIsSaid(t *testing.T) {
	bubble(t, func(t *testing.T, log *feedtest.Memory, a, _ *station) {
		for _, e := range []revocation.Event{news("ann"), news("bob")} {
			e.ID = "1"
			if err := a.Publish(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		log.Cut(len(log.Bodies()))
		l, err := revocation.New(revocation.Config{Issuers: []revocation.Issuer{{Name: "main"}}})
		if err != nil {
			t.Fatal(err)
		}
		c := fleetConfig(log)
		c.Sink = l
		f, err := revocation.NewFleet(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = f.Run(ctx, l) }()
		synctest.Wait()
		if all := l.Held("main", func(*revocation.Event) bool { return true }, 9); f.Ready() != nil || len(all) != 2 {
			t.Errorf("%v; held: %+v", f.Ready(), all)
		}
		stop()
		<-done
	})
}

// Who wants to publish waits no longer than its sender does, also while a message of ours hangs before it.
//
// Covers: SIG-22
func TestSendersDoNotWaitForOthers(t *testing.T) {
	bubble(t, func(t *testing.T, log *feedtest.Memory, a, b *station) {
		log.Stall(true)
		time.Sleep(2 * time.Second) // a beat hangs
		for _, id := range []string{"x", "y"} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			if err := a.Publish(ctx, news(id)); err == nil || time.Since(began) != 100*time.Millisecond {
				t.Errorf("%s: %v after %v", id, err, time.Since(began))
			}
		}
		log.Stall(false)
		if err := a.Prove(t.Context(), "main", time.Now()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		story := b.sink.Story()
		if gap := slices.Index(story, "gap main: something could not be published"); gap < 0 || slices.Index(story, "cover main") < gap {
			t.Errorf("a proof passes over what was not told: %q", story)
		}
		time.Sleep(10 * time.Second)
		if !b.sink.Has("x") || !b.sink.Has("y") {
			t.Errorf("%q", b.sink.Story())
		}
	})
}
