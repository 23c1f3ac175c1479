package app

import (
	"net/http"

	"github.com/watchword-dev/watchword/door/middleware"
)

// Protect puts next behind the policies of the file, in this process. It follows every reload.
func (a *App) Protect(next http.Handler) http.Handler { return middleware.Protect(&a.verifier, next) }
