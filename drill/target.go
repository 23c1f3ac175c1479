package drill

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"
)

// Target is a staging set-up that runs already, as a JSON file describes it. A drill makes the failures in a proxy of
// its own: the issuer's introspection_endpoint in the Watchword under drill must name http://PROXY/introspect, and the
// proxy passes on to IntrospectionEndpoint.
type Target struct {
	Doors                 []Door     `json:"doors"`                  // one for each node
	TokenEndpoint         string     `json:"token_endpoint"`         // where a client_credentials grant gives a token
	RevocationEndpoint    string     `json:"revocation_endpoint"`    // RFC 7009, of the authorization server or of Watchword's pass-through
	Client                Credential `json:"client"`                 // whose tokens the drill uses
	Scope                 string     `json:"scope"`                  // of those tokens
	IntrospectionEndpoint string     `json:"introspection_endpoint"` // the real one, behind the proxy
	Proxy                 string     `json:"proxy"`                  // host:port on loopback where the drill's proxy listens
	Metrics               string     `json:"metrics"`                // URL of /metrics; empty: what only metrics show is not looked at
	MaxStaleness          Duration   `json:"max_staleness"`          // as in the configuration under drill
	StaleIfError          Duration   `json:"stale_if_error"`
	Timeout               Duration   `json:"timeout"`
	RevocationBound       Duration   `json:"revocation_bound"`   // within which a revocation at RevocationEndpoint is enforced everywhere; zero: MaxStaleness
	PassThrough           string     `json:"pass_through"`       // Watchword's own RFC 7009 endpoint; empty: none is drilled
	PassThroughBound      Duration   `json:"pass_through_bound"` // within which what is revoked there is refused at every door; zero: at once
	StormAtLeast          int        `json:"storm_at_least"`     // zero: 20
}

// Door is where one node is asked: an introspection door as a caller of it, or a forward-auth door as a gateway.
type Door struct {
	Introspection string     `json:"introspection"`
	ForwardAuth   string     `json:"forward_auth"`
	Caller        Credential `json:"caller"` // of the introspection door
	Path          string     `json:"path"`   // of the request that the forward-auth door is asked about
	Host          string     `json:"host"`
}

func (d *Door) name() string {
	if d.Introspection != "" {
		return d.Introspection
	}
	return d.ForwardAuth
}

// Credential is a client's. Secret is a reference, {"env": NAME} or {"file": PATH}, and prints as one.
type Credential struct {
	ID     string `json:"client_id"`
	Secret struct {
		Env  string `json:"env,omitempty"`
		File string `json:"file,omitempty"`
	} `json:"client_secret"`

	resolved string
}

// Duration is a time.Duration that JSON writes as Go does.
type Duration time.Duration

// UnmarshalJSON reads "2s".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New(`a duration is a string such as "2s"`)
	}
	v, err := time.ParseDuration(text)
	*d = Duration(v)
	return err
}

const maxTargetBytes = 64 << 10

// ReadTarget reads a file strictly and reports every mistake at once.
func ReadTarget(path string) (*Target, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxTargetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxTargetBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes: is this the right file?", path, maxTargetBytes)
	}
	t := new(Target)
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if d.More() {
		return nil, fmt.Errorf("%s: something follows the object", path)
	}
	if err := t.resolve(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// resolve checks t and reads its secrets.
func (t *Target) resolve() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	address := func(name, raw string, required bool) {
		u, err := url.Parse(raw)
		wrong(raw == "" && required, "%s is missing", name)
		wrong(raw != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http"), "%s is no http or https URL", name)
	}
	wrong(len(t.Doors) == 0, `doors is empty: name {"introspection": URL} or {"forward_auth": URL} for each node`)
	for i := range t.Doors {
		d := &t.Doors[i]
		wrong((d.Introspection == "") == (d.ForwardAuth == ""), "doors[%d]: name either introspection or forward_auth", i)
		address(fmt.Sprintf("doors[%d]", i), d.name(), false)
		if d.Introspection != "" {
			wrong(d.Caller.resolve() != nil, "doors[%d].caller: %v", i, d.Caller.resolve())
		} else {
			wrong(!strings.HasPrefix(d.Path, "/"), "doors[%d].path does not begin with /", i)
		}
	}
	address("token_endpoint", t.TokenEndpoint, true)
	address("revocation_endpoint", t.RevocationEndpoint, false)
	address("introspection_endpoint", t.IntrospectionEndpoint, t.Proxy != "")
	address("metrics", t.Metrics, false)
	address("pass_through", t.PassThrough, false)
	wrong(t.Client.resolve() != nil, "client: %v", t.Client.resolve())
	wrong(t.MaxStaleness < 0 || t.StaleIfError < 0 || t.Timeout < 0 || t.RevocationBound < 0 || t.PassThroughBound < 0, "a bound is negative")
	if t.Timeout == 0 {
		t.Timeout = Duration(2 * time.Second)
	}
	if t.StormAtLeast == 0 {
		t.StormAtLeast = 20
	}
	return errors.Join(errs...)
}

func (c *Credential) resolve() error {
	if c.resolved != "" {
		return nil
	}
	switch {
	case c.ID == "":
		return errors.New("client_id is missing")
	case (c.Secret.Env == "") == (c.Secret.File == ""):
		return errors.New(`client_secret is a reference: {"env": NAME} or {"file": PATH}`)
	case c.Secret.Env != "":
		c.resolved = os.Getenv(c.Secret.Env)
	default:
		b, err := os.ReadFile(c.Secret.File)
		if err != nil {
			return err
		}
		c.resolved = strings.TrimSuffix(string(b), "\n")
	}
	if c.resolved == "" {
		return errors.New("client_secret is empty")
	}
	return nil
}
