package app

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/watchword-dev/watchword"
)

// modes are what operators said about single policies. They outlive reloads, end by themselves, and end with the
// process: what stands in the file is what a restart finds. The zero value holds none.
type modes struct {
	mu   sync.Mutex
	said map[string]watchword.Mode
}

// standing are those that are not over.
func (m *modes) standing() map[string]watchword.Mode {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(m.said, func(_ string, one watchword.Mode) bool { return watchword.Age(now, one.Until) >= 0 })
	return maps.Clone(m.said)
}

func (m *modes) set(policy string, one watchword.Mode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.said == nil {
		m.said = map[string]watchword.Mode{}
	}
	m.said[policy] = one
}

// setMode lets one stand instead of what the file says about a policy, from the next decision on.
func (a *App) setMode(policy string, one watchword.Mode) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.now.Load()
	var names []string
	for i := range p.config.Policies {
		names = append(names, p.config.Policies[i].Policy.Name)
	}
	known := false
	for _, name := range names {
		known = known || name == policy
	}
	if !known {
		return fmt.Errorf("no policy is named that; there are: %s", strings.Join(names, ", "))
	}
	a.modes.set(policy, one)
	return a.decideBy(p)
}
