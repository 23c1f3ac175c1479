//go:build race

package watchword_test

// raced says that the race detector looks on, which takes ten times as long.
const raced = true
