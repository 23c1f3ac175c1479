package drill

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
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
