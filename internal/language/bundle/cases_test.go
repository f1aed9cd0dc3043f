package bundle

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
)

func TestCases(t *testing.T) {
	b := sample()
	b.Files["tests/a.yml"] = []byte("match:\n  - Image: /bin/sh\n    ProcessId: 7\n    Quoted: \"a\"\nno_match: []\n")
	got, err := b.Cases()
	if err != nil {
		t.Fatal(err)
	}
	want := []Case{{Rule: "rules/a.yml", File: "tests/a.yml", Match: []Event{{"Image": "/bin/sh", "ProcessId": "7", "Quoted": "a"}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestBadCasesNameFileAndLine(t *testing.T) {
	for text, where := range map[string]string{
		"match:\n  - 7\n":                         "tests/a.yml:2",
		"match:\n  - A: [1]\n":                    "tests/a.yml:2",
		"match:\n  - A: 1\n    A: 2\n":            "tests/a.yml:3",
		"matches: []\n":                           "tests/a.yml",
		"match: [\n":                              "tests/a.yml",
		strings.Repeat("# long\n", maxCaseFile/6): "tests/a.yml",
	} {
		b := sample()
		b.Files["tests/a.yml"] = []byte(text)
		_, err := b.Cases()
		if holdfast.KindOf(err) != holdfast.Invalid || !strings.HasPrefix(err.Error(), where+": ") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	b := sample()
	b.Files["tests/lost.yml"] = nil
	if _, err := b.Cases(); err == nil || !strings.Contains(err.Error(), "rules/lost.yml") {
		t.Errorf("tests without a rule: %v", err)
	}
}

func TestBenign(t *testing.T) {
	b := sample()
	b.Files["benign/x.jsonl"] = []byte(`{"Image":"/bin/ls","ProcessId":12345678901234567}` + "\n\n" + `{"Image":["no"]}` + "\n")
	n := 0
	err := b.Benign(func(_ string, _ int, e Event) error {
		n++
		if e["ProcessId"] != "12345678901234567" {
			t.Errorf("%v", e)
		}
		return nil
	})
	if n != 1 || err == nil || !strings.HasPrefix(err.Error(), "benign/x.jsonl:3") {
		t.Fatal(n, err)
	}
}

func FuzzCases(f *testing.F) {
	f.Add([]byte("match:\n  - Image: /bin/sh\nno_match: []\n"), []byte(`{"Image":"/bin/ls"}`))
	f.Add([]byte("match: &a [*a]"), []byte("{"))
	f.Fuzz(func(t *testing.T, tests, benign []byte) {
		b := sample()
		b.Files["tests/a.yml"], b.Files["benign/b.jsonl"] = tests, benign
		_, _ = b.Cases()
		_ = b.Benign(func(string, int, Event) error { return nil })
	})
}
