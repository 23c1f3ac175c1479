package authority

import (
	"crypto/subtle"
	"html/template"
	"net/http"

	"github.com/luikyv/go-oidc/pkg/goidc"
)

// login is the people who can log in.
type login []User

var loginForm = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en"><title>Log in</title>
<h1>Log in</h1>
<p>This authority is for development only.</p>
{{if .Wrong}}<p role="alert">Wrong user or password.</p>{{end}}
<form method="post" action="/authorize/{{.ID}}">
<label>User <input name="username" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button>
</form></html>
`))

func everyLogin(*http.Request, *goidc.AuthnSession, *goidc.Client) bool { return true }

// authenticate takes username and password from the body of a POST, never from a URL, and shows the form until they
// are right. Who is right consents to what was asked: a script is at the keyboard.
func (l login) authenticate(w http.ResponseWriter, r *http.Request, s *goidc.AuthnSession, _ *goidc.Client) (goidc.Status, error) {
	name, password := r.PostFormValue("username"), r.PostFormValue("password")
	if name != "" && l.knows(name, password) {
		s.Subject, s.Username, s.GrantedScopes = name, name, s.Scopes
		return goidc.StatusSuccess, nil
	}
	if s.Prompt == goidc.PromptTypeNone { // OpenID Connect Core §3.1.2.6
		return goidc.StatusFailure, goidc.NewError(goidc.ErrorCodeLoginRequired, "log in first")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if name != "" {
		w.WriteHeader(http.StatusForbidden) // not 401: that would make a browser ask for a Basic credential
	}
	return goidc.StatusPending, loginForm.Execute(w, struct {
		ID    string
		Wrong bool
	}{s.ID, name != ""})
}

func (l login) knows(name, password string) bool {
	ok := 0
	for _, u := range l {
		ok |= subtle.ConstantTimeCompare(digest(u.Name), digest(name)) & subtle.ConstantTimeCompare(digest(string(u.Password)), digest(password))
	}
	return ok == 1
}
