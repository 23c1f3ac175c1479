package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// report is the table, row by row.
type report struct {
	rows  []string
	notes []string
}

// limit is what a figure must be at most, and where it is meant to go; zero: nothing is asked.
type limit struct{ must, moonshot float64 }

// figure adds a row. The format is for the value and both limits.
func (r *report) figure(name, format string, value float64, l limit, detail string) {
	show := func(v float64) string {
		if v == 0 {
			return "–"
		}
		return fmt.Sprintf("≤ "+format, v)
	}
	verdict := "**missed**"
	switch {
	case l.must == 0 && l.moonshot == 0:
		verdict = "–"
	case l.moonshot > 0 && value <= l.moonshot:
		verdict = "moonshot"
	case value <= l.must:
		verdict = "reached"
	}
	measured := fmt.Sprintf(format, value)
	if detail != "" {
		measured += " (" + detail + ")"
	}
	r.row(name, measured, show(l.must), show(l.moonshot), verdict)
}

// none adds a row for what must not happen at all.
func (r *report) none(name string, n int, detail string) {
	measured := fmt.Sprint(n)
	if detail != "" {
		measured += " (" + detail + ")"
	}
	r.row(name, measured, "0", "–", map[bool]string{true: "reached", false: "**missed**"}[n == 0])
}

func (r *report) row(cells ...string) { r.rows = append(r.rows, "| "+strings.Join(cells, " | ")+" |") }

func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
	fmt.Fprintln(os.Stderr, r.notes[len(r.notes)-1])
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "| figure | measured | must | moonshot | |\n|---|---|---|---|---|\n%s\n", strings.Join(r.rows, "\n"))
	for _, n := range r.notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
}

func model() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(info), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(strings.TrimLeft(line, "\t :"))
}

func most(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	return slices.Max(all)
}
