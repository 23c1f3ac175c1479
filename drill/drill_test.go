package drill

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEveryMistakeOfATargetAtOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "target.json")
	read := func(text string) error {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadTarget(file)
		return err
	}
	err := read(`{"doors":[{"introspection":"http://a/i","forward_auth":"http://a/"},{"forward_auth":"ftp://a"}],"proxy":"127.0.0.1:1","client":{"client_id":"c","client_secret":{"env":"A","file":"b"}}}`)
	if err == nil {
		t.Fatal("a target full of mistakes is accepted")
	}
	for _, word := range []string{"doors[0]: name either", "doors[1] is no http", "doors[1].path", "token_endpoint is missing", "introspection_endpoint is missing", "client: client_secret is a reference"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("lacks %q:\n%v", word, err)
		}
	}
	for _, text := range []string{`{"dors":[]}`, `{} {}`, `[]`, ``, `{"max_staleness":2}`, strings.Repeat(" ", maxTargetBytes+1)} {
		if read(text) == nil {
			t.Errorf("%.20q is accepted", text)
		}
	}
}

func TestAPictureIsXMLWhateverItSays(t *testing.T) {
	t.Parallel()
	line := newTimeline()
	for o := range outcomes {
		line.add(line.began.Add(time.Duration(o)*bucket), o)
	}
	line.call(line.began.Add(-time.Hour)) // a clock that was set back
	line.mark(`<script>"&`)
	if err := wellFormed(line.svg(`<script>"&`)); err != nil {
		t.Error(err)
	}
	var page bytes.Buffer
	r := &Report{Scenario: "<b>", Promises: []Promise{{"<i>", false, "&"}}, Nodes: []Node{{Door: "<u>"}}, timeline: line}
	if err := WriteHTML(&page, []*Report{r}); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"<script>", "<b>", "<i>", "<u>"} {
		if strings.Contains(page.String(), word) {
			t.Errorf("%s came through as it was", word)
		}
	}
	if !strings.Contains(page.String(), "BROKE") {
		t.Error("a broken promise is not shown")
	}
}

// One column that stands out leaves the others their height, and what is said late stays in the picture.
func TestAPictureShowsWhatMatters(t *testing.T) {
	t.Parallel()
	for want, columns := range map[int][]int{
		1: nil, 100: {3, 100}, 10: append(slices.Repeat([]int{10}, 60), 100), 15: append(slices.Repeat([]int{10}, 60), 15), 7: append(make([]int, 60), 7),
	} {
		if got := scale(columns); got != want {
			t.Errorf("%v: scaled to %d, want %d", columns, got, want)
		}
	}
	if got := peaks([]int{9, 3, 5, 7, 1, 8}, 4); !slices.Equal(got, []peak{{0, 1, 9}, {2, 4, 7}, {5, 6, 8}}) {
		t.Errorf("%v", got)
	}
	line := newTimeline()
	line.column(line.began.Add(time.Minute))
	line.marks = []mark{{time.Second, "early"}, {59 * time.Second, "late"}}
	svg := line.svg("x")
	for _, want := range []string{`text-anchor="start">1.0s early`, `text-anchor="end">59.0s late`, ">10s</text>", ">1m0s</text>"} {
		if !strings.Contains(svg, want) {
			t.Errorf("lacks %s:\n%s", want, svg)
		}
	}
	for length, want := range map[int]time.Duration{0: 100 * time.Millisecond, 12: 100 * time.Millisecond, 150: 2 * time.Second, 36_000: 5 * time.Minute, 360_000: 50 * time.Minute} {
		if got := (&timeline{buckets: make([]column, length)}).tick(); got != want {
			t.Errorf("%d columns: a mark every %v, want %v", length, got, want)
		}
	}
}

func TestNoSuchDrill(t *testing.T) {
	t.Parallel()
	if _, err := Run(t.Context(), "nonsense", Config{}); err == nil || !strings.Contains(err.Error(), "outage") {
		t.Errorf("%v", err)
	}
	if _, err := Run(t.Context(), "herd", Config{}); err == nil {
		t.Error("a drill with nothing to play against is played")
	}
	if why := new(Target).Lacks("rotate"); why == "" {
		t.Error("rotate plays against a target")
	}
	for _, name := range []string{"outage", "spray", "revoke", "nonsense"} {
		if new(Target).Lacks(name) == "" {
			t.Errorf("%s plays against an empty target", name)
		}
	}
}

// wellFormed reports whether a picture is XML.
func wellFormed(svg string) error {
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
