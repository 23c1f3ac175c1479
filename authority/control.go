package authority

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Control returns a handler that turns faults on and off over HTTP: PUT ?mode=status&status=503&retry_after=5s sets one
// (mode, path, delay, status, retry_after, after_effect), DELETE clears it. It exists only where somebody mounts it. It
// serves loopback only, and no request that a web page can make (those carry Origin).
func (f *Faults) Control() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !arrivedLocally(r) || r.Header.Get("Origin") != "" {
			http.Error(w, "faults are switched from this machine and not by a web page", http.StatusForbidden)
			return
		}
		switch r.Method {
		case http.MethodPut:
			fault, err := parseFault(r.URL.RawQuery)
			if err == nil {
				err = f.Set(fault)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		case http.MethodDelete:
			f.Clear()
		default:
			w.Header().Set("Allow", "PUT, DELETE")
			http.Error(w, "use PUT or DELETE", http.StatusMethodNotAllowed)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func parseFault(query string) (fault Fault, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fault, err
	}
	for name, given := range values {
		switch value := given[0]; name {
		case "mode":
			fault.Mode = Mode(value)
		case "path":
			fault.Path = value
		case "delay":
			fault.Delay, err = time.ParseDuration(value)
		case "status":
			fault.Status, err = strconv.Atoi(value)
		case "retry_after":
			fault.RetryAfter, err = time.ParseDuration(value)
		case "after_effect":
			fault.AfterEffect, err = strconv.ParseBool(value)
		default:
			err = fmt.Errorf("no such parameter; there are mode, path, delay, status, retry_after and after_effect")
		}
		if err != nil {
			return fault, fmt.Errorf("%s: %w", name, err)
		}
	}
	return fault, nil
}
