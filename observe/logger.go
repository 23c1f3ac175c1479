package observe

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/watchword-dev/watchword"
)

// LoggerConfig makes a logger. The zero value is info as text.
type LoggerConfig struct {
	Level  string // debug, info, warn, error; empty: info
	Format string // text, json; empty: text
}

// NewLogger makes the logger of what a process says about itself. As a last net, attributes named like a credential,
// and headers, forms and requests as a whole, are logged as REDACTED.
func NewLogger(w io.Writer, c LoggerConfig) (*slog.Logger, error) {
	options := &slog.HandlerOptions{ReplaceAttr: redact}
	levels := map[string]slog.Level{"": slog.LevelInfo, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, known := levels[c.Level]
	if !known {
		return nil, fmt.Errorf("observe: LoggerConfig.Level is %q: use debug, info, warn or error", c.Level)
	}
	options.Level = level
	switch c.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("observe: LoggerConfig.Format is %q: use text or json", c.Format)
}

var secrets = []string{"token", "secret", "password", "assertion", "authorization", "cookie", "credential", "private_key", "pepper"}

func redact(_ []string, a slog.Attr) slog.Attr {
	hidden := slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(strings.ToLower(a.Key), s) })
	switch a.Value.Any().(type) {
	case http.Header, *http.Request, *http.Response, url.Values:
		hidden = true
	}
	if hidden {
		a.Value = slog.StringValue(watchword.Token("").String())
	}
	return a
}
