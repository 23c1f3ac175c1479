package watchword

// Reason says why a request was accepted or refused. The list is closed: every door, metric, log line and runbook
// uses it. The zero value is OK, so a Reason only means something inside a Decision or a Request.Problem.
type Reason uint8

// The reasons, in the order of the table in docs/runbooks.md.
const (
	OK                Reason = iota // the token is valid now and the policy accepts it
	NoToken                         // the request carries no access token
	InvalidRequest                  // two credentials, an ambiguous path: nobody can say what was asked
	MalformedToken                  // what was sent cannot be a token; nobody is asked
	Inactive                        // the authorization server says active:false (RFC 7662 §2.2)
	Expired                         // past exp or expires_in
	NotYetValid                     // before nbf
	Revoked                         // a revocation heard here names it
	UnknownIssuer                   // no configured issuer can have issued it; nobody is asked
	WrongAudience                   // aud holds none of the required audiences
	NotBound                        // it carries cnf and the request proves no possession (RFC 7800 §3.1)
	InsufficientScope               // a required scope is missing
	StepUp                          // a stronger or younger authentication is required (RFC 9470)
	PolicyDenied                    // no policy matches the request, or the one that does forbids delegation
	TooManyUnknown                  // this peer asked about too many tokens that turned out to be nothing
	CallerLeft                      // the caller went away before there was an answer
	CannotKnow                      // the authorization server could not be asked, or did not answer sense
	Misconfigured                   // the authorization server refuses us, or we ask it wrongly
	Internal                        // a fault of our own
)

// Row is what a Reason is called in every protocol.
type Row struct {
	Word  string // log word, metric label, anchor in docs/runbooks.md
	HTTP  int    // status
	GRPC  uint32 // google.rpc.Code
	OAuth string // error of RFC 6750 §3.1 or RFC 9470 §3; empty: a challenge without error, or none
}

var reasons = [...]Row{
	OK:                {"ok", 200, 0, ""},
	NoToken:           {"no_token", 401, 16, ""},
	InvalidRequest:    {"invalid_request", 400, 3, "invalid_request"},
	MalformedToken:    {"malformed_token", 401, 16, "invalid_token"},
	Inactive:          {"inactive", 401, 16, "invalid_token"},
	Expired:           {"expired", 401, 16, "invalid_token"},
	NotYetValid:       {"not_yet_valid", 401, 16, "invalid_token"},
	Revoked:           {"revoked", 401, 16, "invalid_token"},
	UnknownIssuer:     {"unknown_issuer", 401, 16, "invalid_token"},
	WrongAudience:     {"audience", 401, 16, "invalid_token"},
	NotBound:          {"binding", 401, 16, "invalid_token"},
	InsufficientScope: {"scope", 403, 7, "insufficient_scope"},
	StepUp:            {"step_up", 401, 16, "insufficient_user_authentication"},
	PolicyDenied:      {"policy", 403, 7, ""},
	TooManyUnknown:    {"throttled", 429, 8, ""},
	CallerLeft:        {"canceled", 499, 1, ""},
	CannotKnow:        {"unavailable", 503, 14, ""},
	Misconfigured:     {"misconfigured", 503, 14, ""},
	Internal:          {"internal", 500, 13, ""},
}

// Reasons lists every Reason in order, for tables and metrics.
func Reasons() []Reason {
	all := make([]Reason, len(reasons))
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// Row returns the names of r in every protocol.
func (r Reason) Row() Row {
	if int(r) >= len(reasons) {
		r = Internal
	}
	return reasons[r]
}

// String returns the word of r.
func (r Reason) String() string { return r.Row().Word }

// reasonOf turns ignorance into a Reason, and never into a 401 (RFC 6750 §3.1: invalid_token is a claim to know).
var reasonOf = [...]Reason{
	Unavailable:    CannotKnow,
	ClientRejected: Misconfigured,
	ProtocolError:  CannotKnow,
	ConfigError:    Misconfigured,
	Throttled:      TooManyUnknown,
	Canceled:       CallerLeft,
}
