package script

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-dev/watchword"
)

// tier reads "tier [NAME] client=… max_staleness=…": tighter bounds for some tokens of a policy that stands before it.
func (s *stage) tier(words []string) error {
	name := "default"
	if len(words) > 0 && !strings.Contains(words[0], "=") {
		name, words = words[0], words[1:]
	}
	i := slices.IndexFunc(s.policies, func(p watchword.Policy) bool { return p.Name == name })
	if i < 0 {
		return fmt.Errorf("there is no policy %s before it", name)
	}
	p := &s.policies[i]
	t := watchword.Tier{Freshness: p.Freshness}
	err := settings(words, map[string]func(string) error{
		"client": list(&t.When.Clients), "scope": list(&t.When.Scopes), "audience": list(&t.When.Audiences), "tenant": list(&t.When.Tenants),
		"subject": func(v string) error {
			t.When.Subject = map[string]watchword.SubjectClass{"user": watchword.UserSubject, "client": watchword.ClientSubject}[v]
			if t.When.Subject == watchword.AnySubject {
				return errors.New("is neither user nor client")
			}
			return nil
		},
		"max_staleness": duration(&t.Freshness.MaxStaleness), "max_age": duration(&t.Freshness.MaxAge), "stale_if_error": duration(&t.Freshness.StaleIfError),
	})
	p.Tiers = append(p.Tiers, t)
	return err
}

// rechecks are the settings of a policy that ask again about fresh answers.
func rechecks(r *watchword.Recheck) (probability, onChange func(string) error) {
	probability = func(v string) (err error) { r.Probability, err = strconv.ParseFloat(v, 64); return err }
	onChange = func(v string) error {
		for what := range strings.SplitSeq(v, ",") {
			switch what {
			case "client_ip":
				r.OnChange.ClientIP = true
			case "user_agent":
				r.OnChange.UserAgent = true
			default:
				return fmt.Errorf("%q is neither client_ip nor user_agent", what)
			}
		}
		return nil
	}
	return probability, onChange
}

// draw reads "chance U": what every draw gives from here on.
func (s *stage) draw(words []string) (err error) {
	if len(s.waiting) > 0 {
		return errors.New("somebody who asks may be drawing")
	}
	s.chance, err = strconv.ParseFloat(words[0], 64)
	if err == nil && !(s.chance >= 0 && s.chance < 1) {
		err = errors.New("a draw is from 0 to 1, 1 excluded")
	}
	return err
}
