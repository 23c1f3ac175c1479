package app

import (
	"fmt"
	"strings"
)

// Mistake is one thing wrong with a configuration file.
type Mistake struct {
	Path   string `json:"path"`             // "issuers[0].client_auth.method"; empty: the file as a whole
	Line   int    `json:"line,omitempty"`   // from 1; zero: unknown
	Column int    `json:"column,omitempty"` // from 1
	Value  string `json:"value,omitempty"`  // as written; empty where it is, or might be, a secret
	Reason string `json:"reason"`           // what is wrong
	Fix    string `json:"fix"`              // what to write instead
}

// String is one line: position, path, value, reason and fix.
func (m Mistake) String() string {
	var b strings.Builder
	if m.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", m.Line, m.Column)
	}
	if m.Path != "" {
		b.WriteString(m.Path + ": ")
	}
	if m.Value != "" {
		fmt.Fprintf(&b, "%q: ", m.Value)
	}
	b.WriteString(m.Reason)
	if m.Fix != "" {
		b.WriteString("; " + m.Fix)
	}
	return b.String()
}

// Mistakes is everything wrong with a configuration file, in the order of the file. It never holds a secret.
type Mistakes []Mistake

// Error has one line for each mistake.
func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// nearest returns the one of words that word was probably meant to be, or "".
func nearest(word string, words []string) string {
	best, at := "", 1+min(2, len(word)/3)
	for _, w := range words {
		if d := distance(strings.ToLower(word), w, at); d < at {
			best, at = w, d
		}
	}
	return best
}

// distance counts the letters to insert, drop, change or swap to turn a into b; what reaches limit is limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := rows[(i-1)%3], rows[i%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return min(rows[(len(a)+1)%3][len(b)], limit)
}
