package admin

import (
	"context"
	"errors"
	"fmt"

	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-dev/watchword"
)

// MaxMode is the longest that an operator's word about a policy may stand: who wants more writes it into the file.
const MaxMode = 24 * time.Hour

// Modes are the endpoints of /v1/mode: what operators say about single policies, for a while. Set and List are required.
type Modes struct {
	Set   func(policy string, m watchword.Mode) error // an error is told to the operator: there is no such policy
	List  func() map[string]watchword.Mode            // those that are not over
	Audit *slog.Logger                                // who said what, and why; nil: nobody keeps it
}

// Endpoints are for Config.More.
func (m Modes) Endpoints() []Endpoint {
	if m.Audit == nil {
		m.Audit = slog.New(slog.DiscardHandler)
	}
	return []Endpoint{{"/v1/mode", http.MethodPost, m.set}, {"/v1/mode", http.MethodGet, m.list}}
}

// set is POST /v1/mode {"policy", "on_unavailable", "until" (RFC 3339), "why"}.
func (m Modes) set(w http.ResponseWriter, r *http.Request, by Operator) {
	policy, why, mode, err := readMode(r, time.Now())
	if err != nil {
		say(w, http.StatusBadRequest, err.Error())
		return
	}
	what := []slog.Attr{slog.String("operator", by.Name), slog.String("policy", policy), slog.String("on_unavailable", mode.OnUnavailable.String()), slog.Time("until", mode.Until), slog.String("why", why)}
	audit := func(said string) { m.Audit.LogAttrs(context.WithoutCancel(r.Context()), slog.LevelWarn, said, what...) }
	if len(by.Issuers)+len(by.Tenants) > 0 {
		audit("an operator may not say what a policy does in an outage")
		say(w, http.StatusForbidden, "operator "+strconv.Quote(by.Name)+" is limited to some issuers or tenants, and a policy concerns all")
		return
	}
	if err := m.Set(policy, mode); err != nil {
		say(w, http.StatusBadRequest, err.Error())
		return
	}
	audit("an operator said what a policy does in an outage")
	write(w, http.StatusOK, shownMode(policy, mode))
}

func (m Modes) list(w http.ResponseWriter, _ *http.Request, _ Operator) {
	all := []map[string]string{}
	for policy, mode := range m.List() {
		all = append(all, shownMode(policy, mode))
	}
	slices.SortFunc(all, func(a, b map[string]string) int { return strings.Compare(a["policy"], b["policy"]) })
	write(w, http.StatusOK, map[string]any{"modes": all})
}

func shownMode(policy string, m watchword.Mode) map[string]string {
	return map[string]string{"policy": policy, "on_unavailable": m.OnUnavailable.String(), "until": m.Until.UTC().Format(time.RFC3339)}
}

func readMode(r *http.Request, now time.Time) (policy, why string, m watchword.Mode, err error) {
	refuse := func(format string, args ...any) (string, string, watchword.Mode, error) {
		return "", "", watchword.Mode{}, fmt.Errorf(format, args...)
	}
	c, err := object(r)
	if err != nil {
		return refuse("%w", err)
	}
	said := map[string]string{"policy": "", "on_unavailable": "", "until": "", "why": ""}
	for name := range c.All() {
		if _, known := said[name]; !known {
			return refuse("a member is not known: known are policy, on_unavailable, until, why")
		}
		v, ok := c.Text(name)
		if !ok || v == "" || len(v) > 1024 {
			return refuse("%s is no text of 1 to 1,024 bytes", name)
		}
		said[name] = v
	}
	var missing []error
	for _, name := range []string{"policy", "on_unavailable", "until", "why"} {
		if said[name] == "" {
			missing = append(missing, errors.New(name+" is missing"))
		}
	}
	if missing != nil {
		return refuse("%w", errors.Join(missing...))
	}
	on, ok := watchword.ParseOnUnavailable(said["on_unavailable"])
	if !ok {
		return refuse("on_unavailable is none of deny, dangerously_allow, dangerously_allow_unknown")
	}
	until, err := time.Parse(time.RFC3339, said["until"])
	if err != nil {
		return refuse("until is no time such as 2026-01-31T12:00:00Z (RFC 3339)")
	}
	left := -watchword.Age(now, until)
	if left <= 0 || left > MaxMode {
		return refuse("until is not within the next %v: what shall stand longer belongs into the file", MaxMode)
	}
	return said["policy"], said["why"], watchword.Mode{OnUnavailable: on, Until: now.Add(left)}, nil // by both clocks
}
