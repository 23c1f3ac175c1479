package drill

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// outcome is what became of one question.
type outcome int

const (
	accepted  outcome = iota // the token is good
	degraded                 // accepted, and marked so
	refused                  // the token is said to be bad: inactive, 401
	forbidden                // 403
	throttled                // 429
	unknown                  // 503: nobody knows
	failed                   // anything else: no answer, 500
	outcomes
)

var outcomeNames = [outcomes]string{"accepted", "accepted, degraded", "refused (inactive, 401)", "forbidden (403)", "throttled (429)", "unavailable (503)", "no answer, or a fault"}
var outcomeColors = [outcomes]string{"#4c9f70", "#b5cf6b", "#d1495b", "#8d6a9f", "#edae49", "#5b8db8", "#222222"}

const bucket = 100 * time.Millisecond

// timeline counts outcomes and calls of the authorization server by tenths of a second. Safe for concurrent use.
type timeline struct {
	mu      sync.Mutex
	began   time.Time
	buckets []column
	marks   []mark
}

type column struct {
	counts [outcomes]int
	calls  int
}

type mark struct {
	at   time.Duration
	text string
}

func newTimeline() *timeline { return &timeline{began: time.Now()} }

func (t *timeline) column(at time.Time) *column {
	i := int(max(0, at.Sub(t.began)) / bucket)
	for len(t.buckets) <= i {
		t.buckets = append(t.buckets, column{})
	}
	return &t.buckets[i]
}

func (t *timeline) add(at time.Time, o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.column(at).counts[o]++
}

func (t *timeline) call(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.column(at).calls++
}

func (t *timeline) mark(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.marks = append(t.marks, mark{time.Since(t.began), text})
}

const (
	width, height = 960, 260
	left, top     = 50, 40
)

// svg draws decisions above and calls of the authorization server below, over time. What stands out by far, as getting
// everything ready does, is cut off, and says how high it was: it would flatten all the rest.
func (t *timeline) svg(title string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var decisions, asked []int
	for _, c := range t.buckets {
		n := 0
		for _, k := range c.counts {
			n += k
		}
		decisions, asked = append(decisions, n), append(asked, c.calls)
	}
	most, mostCalls := scale(decisions), scale(asked)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11" role="img" aria-label="%s">`, left+width+20, top+2*height/2+height/2+104, html.EscapeString(title))
	fmt.Fprintf(&b, `<text x="%d" y="18" font-size="14">%s</text>`, left, html.EscapeString(title))
	each := float64(width) / float64(max(1, len(t.buckets)))
	calls := top + height + 20
	bottom := calls + height/2
	for i, c := range t.buckets {
		x, y := float64(left)+each*float64(i), float64(top+height)
		for o, n := range c.counts {
			if h := min(float64(height)*float64(n)/float64(most), y-top); h > 0 {
				y -= h
				fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.2f" height="%.1f" fill="%s"/>`, x, y, each, h, outcomeColors[o])
			}
		}
		if h := float64(height/2) * float64(min(c.calls, mostCalls)) / float64(mostCalls); h > 0 {
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.2f" height="%.1f" fill="#555"/>`, x, float64(bottom)-h, each, h)
		}
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%d</text><text x="%d" y="%d">decisions in %v</text>`, left-4, top+10, most, left, top-4, bucket)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%d</text><text x="%d" y="%d">calls of the authorization server in %v</text>`, left-4, calls+10, mostCalls, left, calls-4, bucket)
	for y, cut := range map[int][]peak{top + 10: peaks(decisions, most), calls + 10: peaks(asked, mostCalls)} {
		for _, p := range cut {
			x, anchor := beside(float64(left)+each*float64(p.from), float64(left)+each*float64(p.to), 2)
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="%s">%d↑</text>`, x, y, anchor, p.high)
		}
	}
	at := func(d time.Duration) float64 { return float64(left) + each*float64(d)/float64(bucket) }
	for d := time.Duration(0); at(d) <= left+width; d += t.tick() {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#000"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555">%v</text>`, at(d), at(d), bottom, bottom+4, at(d), bottom+15, d)
	}
	for i, m := range t.marks {
		x, anchor := beside(at(m.at), at(m.at), 3)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#000" stroke-dasharray="3 3"/>`, at(m.at), at(m.at), top, bottom)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="%s">%s</text>`, x, bottom+29+12*(i%2), anchor, html.EscapeString(fmt.Sprintf("%.1fs %s", m.at.Seconds(), m.text)))
	}
	x := left
	for o, name := range outcomeNames {
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>`, x, bottom+52, outcomeColors[o], x+13, bottom+61, html.EscapeString(name))
		x += 20 + 7*len(name)
	}
	b.WriteString("</svg>")
	return b.String()
}

// scale is up to where columns are shown whole: the highest, unless it is more than half as high again as all but one
// in fifty.
func scale(columns []int) int {
	if len(columns) == 0 {
		return 1
	}
	sorted := slices.Sorted(slices.Values(columns))
	highest, usual := sorted[len(sorted)-1], sorted[(len(sorted)-1)*98/100]
	if len(sorted) >= 20 && usual > 0 && highest > usual+usual/2 {
		highest = usual
	}
	return max(1, highest)
}

// peak is a row of columns that are cut off: from one to before another, and how high the highest is.
type peak struct{ from, to, high int }

func peaks(columns []int, most int) (all []peak) {
	for i, n := range columns {
		switch last := len(all) - 1; {
		case n <= most:
		case last >= 0 && all[last].to == i:
			all[last].to, all[last].high = i+1, max(all[last].high, n)
		default:
			all = append(all, peak{i, i + 1, n})
		}
	}
	return all
}

// beside is where a text about what lies from one x to another begins or ends, so that none leaves the picture.
func beside(from, to, gap float64) (x float64, anchor string) {
	if to > left+width/2 {
		return from - gap, "end"
	}
	return to + gap, "start"
}

// tick is how far the marks of the time axis are apart: a dozen of them at most.
func (t *timeline) tick() time.Duration {
	length := time.Duration(len(t.buckets)) * bucket
	for _, d := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute} {
		if length/d <= 12 {
			return d
		}
	}
	return max(5*time.Minute, (length / 12).Truncate(time.Minute))
}

// WriteHTML writes a page with the verdicts and a picture of every drill. It is one file and loads nothing.
func WriteHTML(w io.Writer, reports []*Report) error {
	var b strings.Builder
	b.WriteString(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Watchword drills</title><style>body{font-family:sans-serif;max-width:1040px;margin:2em auto}td{padding:2px 10px;vertical-align:top}.broke{color:#b00020;font-weight:bold}</style><h1>Watchword drills</h1>`)
	for _, r := range reports {
		fmt.Fprintf(&b, "<h2>%s</h2><p>%s</p><table>", html.EscapeString(r.Scenario), html.EscapeString(r.Doc))
		for _, p := range r.Promises {
			word, class := "held", ""
			if !p.Held {
				word, class = "BROKE", "broke"
			}
			fmt.Fprintf(&b, `<tr><td class="%s">%s</td><td>%s</td><td>%s</td></tr>`, class, word, html.EscapeString(p.Text), html.EscapeString(p.Detail))
		}
		b.WriteString("</table>")
		if len(r.Nodes) > 0 {
			b.WriteString("<table><tr><td>node</td><td>revoked</td><td>samples</td><td>p50</td><td>p99</td><td>max</td></tr>")
			for _, n := range r.Nodes {
				fmt.Fprintf(&b, "<tr><td>%s</td><td>%s</td><td>%d</td><td>%.0f ms</td><td>%.0f ms</td><td>%.0f ms</td></tr>", html.EscapeString(n.Door), html.EscapeString(n.Way), n.Samples, n.P50, n.P99, n.Max)
			}
			b.WriteString("</table>")
		}
		if r.timeline != nil {
			b.WriteString(r.timeline.svg(r.Scenario))
		}
	}
	b.WriteString("</html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}
