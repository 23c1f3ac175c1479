package watchword

import "time"

// Question is what the Verifier does to a Query when an answer is questioned.
func (q *Query) Question(t time.Time) { q.question(t) }

// Problem is what a Verifier finds wrong with a token before anybody is asked.
func (t Token) Problem() Reason { return t.problem() }
