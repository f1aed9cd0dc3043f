package rehearse

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

const rule = `title: Shell
id: 5f1b3a52-0000-4000-8000-000000000001
logsource: {product: linux, category: process_creation}
detection:
  s: {Image: /bin/sh}
  condition: s
`

func content(t testing.TB, rule string) []byte {
	b, err := bundle.FromRepository(fstest.MapFS{
		"pack.yml": {Data: []byte("name: t\nchannel: rules\nversion: \"1\"\n")}, "rules/r.yml": {Data: []byte(rule)},
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var all = map[int]int{ocsf.ProcessActivityUID: ocsf.ProcessInputs}

func answers(t *testing.T, data []byte, supplied map[int]int, in string) (out []Answer) {
	t.Helper()
	var b bytes.Buffer
	if err := Serve(data, supplied, strings.NewReader(in), &b); err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(&b); d.More(); {
		var a Answer
		if err := d.Decode(&a); err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func TestAConversation(t *testing.T) {
	got := answers(t, content(t, rule), all, `{"n":1,"fields":{"Image":"/bin/sh"}}
{"n":2,"fields":{"process.file.path":"/bin/cat"},"fresh":true,"repeat":100}
{"n":3,"fields":{"NoSuchField":"x"}}
{"n":4,"class":"no_such_class"}
{"n":5,"raw":{"Image":"L2Jpbi9zaA=="},"at":"2040-01-01T00:00:00Z"}
`)
	if len(got) != 10 || got[0].Loaded == nil || got[0].Loaded.Rules != 1 || got[9].End == nil || got[9].End.Events != 102 {
		t.Fatalf("%+v", got)
	}
	if got[1].Begin != 1 || got[2].N != 1 || len(got[2].Matches) != 1 || got[3].Begin != 2 || len(got[4].Matches) != 0 || got[4].Ns <= 0 {
		t.Errorf("%+v", got[1:5])
	}
	if got[5].N != 3 || !strings.Contains(got[5].Error, "NoSuchField") || got[6].Error == "" || len(got[8].Matches) != 1 {
		t.Errorf("%+v", got[5:])
	}
}

func TestARuleThatDoesNotRunIsNamed(t *testing.T) {
	got := answers(t, content(t, strings.Replace(rule, "Image:", "NoSuchField:", 1)), all, "")
	if ps := got[0].Loaded.Problems; len(ps) != 1 || ps[0].Field != "NoSuchField" || ps[0].Stage != "load" {
		t.Errorf("%+v", got[0].Loaded)
	}
}

// An event has what the sensor supplies, and reading beyond it is a real fault:
// nothing here covers it up.
func TestAnEventHasWhatTheSensorSupplies(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a field that is not supplied was read")
		}
	}()
	answers(t, content(t, rule), map[int]int{ocsf.ProcessActivityUID: 3}, `{"n":1,"fields":{"Image":"/bin/sh"}}`)
}

func TestWhatIsNoRequestEndsTheConversation(t *testing.T) {
	for _, in := range []string{"x", "{}", `{"n":0}`, `{"n":1,"more":2}`, `{"n":1,"fields":{"Image":7}}`, strings.Repeat("x", MaxLine+1)} {
		if err := Serve(content(t, rule), all, strings.NewReader(in+"\n"), io.Discard); holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%.40q: %v", in, err)
		}
	}
}

func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"n":1,"fields":{"Image":"/bin/sh"}}` + "\n"))
	f.Add([]byte(`{"n":2,"raw":{"CommandLine":"/w=="},"at":"1970-01-01T00:00:00Z","repeat":3,"fresh":true}` + "\n"))
	f.Add([]byte(`{"n":3,"class":"process_activity","fields":{"activity_id":"2","UtcTime":"x"}}`))
	data := content(f, rule)
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.Contains(in, []byte("repeat")) {
			return // it does as often as it is told
		}
		_ = Serve(data, all, bytes.NewReader(in), io.Discard)
	})
}
