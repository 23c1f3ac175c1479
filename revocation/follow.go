package revocation

import (
	"context"
	"errors"
	weak "math/rand/v2"
	"time"
)

// Final marks an error of who reads: Follow returns it instead of trying again.
func Final(err error) error { return &final{err} }

type final struct{ error }

// Unwrap lets errors.Is see the error.
func (f *final) Unwrap() error { return f.error }

const (
	longestPause = 2 * time.Second
	goodSpell    = time.Second // an attempt that lasted so long was no failure: the next one need not wait
)

// Follow is how every driver keeps reading: it calls attempt again and again, with pauses from 50 ms to 2 s that are
// jittered, until ctx ends, attempt returns an error marked by Final, or closed says of its error that nothing can mend
// it, and returns why. Of every other error failed is told.
func Follow(ctx context.Context, attempt func(context.Context) error, closed func(err error) error, failed func(err error)) error {
	for n := 0; ; n++ {
		began := time.Now()
		err := attempt(ctx)
		if f, ok := errors.AsType[*final](err); ok {
			return f.error
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := closed(err); err != nil {
			return err
		}
		failed(err)
		if time.Since(began) > goodSpell {
			n = 0
		}
		d := min(50*time.Millisecond<<min(n, 10), longestPause)
		wait(ctx, d/2+time.Duration(weak.Float64()*float64(d/2)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
