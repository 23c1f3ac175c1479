//go:build !race

package watchword_test

const raced = false
