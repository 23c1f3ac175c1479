package revocation_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-dev/watchword/revocation"
)

func TestFollowTriesUntilWhoReadsHasEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broke, enough, n := errors.New("broke"), errors.New("enough"), 0
		never := func(error) error { return nil }
		told := 0
		tell := func(err error) {
			if told++; err != broke {
				t.Errorf("told of %v", err)
			}
		}
		began := time.Now()
		err := revocation.Follow(t.Context(), func(context.Context) error {
			if n++; n == 20 {
				return revocation.Final(enough)
			}
			return broke
		}, never, tell)
		if err != enough || n != 20 || told != 19 {
			t.Errorf("%v after %d, of which %d were told", err, n, told)
		}
		if took := time.Since(began); took < 10*time.Second || took > 40*time.Second {
			t.Errorf("nineteen pauses took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := revocation.Follow(ctx, func(context.Context) error { return broke }, never, tell); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v after its context ended", err)
		}
		closed := func(err error) error {
			if n++; n == 22 && err == broke {
				return enough
			}
			return nil
		}
		if err := revocation.Follow(t.Context(), func(context.Context) error { return broke }, closed, tell); err != enough {
			t.Errorf("%v after it was closed", err)
		}
		n = 0
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := revocation.Follow(gone, func(ctx context.Context) error { n++; return ctx.Err() }, never, tell); !errors.Is(err, context.Canceled) || n != 1 {
			t.Errorf("%v after %d", err, n)
		}
	})
}

// What failed before a good spell is no reason to be deaf for long after it, however short the spell was.
func TestFollowForgetsWhatFailedBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, enough, ended := 0, errors.New("enough"), time.Time{}
		err := revocation.Follow(t.Context(), func(context.Context) error {
			switch n++; n {
			case 10:
				time.Sleep(1100 * time.Millisecond) // it reads
			case 11:
				if deaf := time.Since(ended); deaf > 50*time.Millisecond {
					t.Errorf("deaf for %v after it had read", deaf)
				}
				return revocation.Final(enough)
			}
			ended = time.Now()
			return errors.New("broke")
		}, func(error) error { return nil }, func(error) {})
		if err != enough {
			t.Error(err)
		}
	})
}
