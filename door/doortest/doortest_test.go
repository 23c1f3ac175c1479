package doortest

import (
	"testing"

	"github.com/watchword-dev/watchword"
)

func TestEveryReasonHasACase(t *testing.T) {
	t.Parallel()
	for _, r := range watchword.Reasons() {
		found := false
		for _, c := range Cases() {
			found = found || c.Decision.Reason == r
		}
		if !found {
			t.Errorf("no case for %v: doors may disagree about it", r)
		}
	}
}
