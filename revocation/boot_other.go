//go:build !linux

package revocation

import "time"

// boottime cannot tell here: only the wall shows that the host slept.
func boottime() time.Duration { return 0 }
