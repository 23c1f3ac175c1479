package feedtest

import (
	"testing"

	"github.com/watchword-dev/watchword/revocation"
)

func TestMemory(t *testing.T) {
	t.Parallel()
	Run(t, func(*testing.T) Engine {
		m := NewMemory()
		return Engine{
			Open:    func(*testing.T) revocation.Log { return m },
			Restart: func(*testing.T) {},
			Pause: func(*testing.T) func() {
				m.Stall(true)
				return func() { m.Stall(false) }
			},
			Lose: func(_ *testing.T, write func()) {
				m.Stall(false)
				write()
				m.Lose(1)
			},
		}
	})
}
