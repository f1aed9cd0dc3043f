package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast/internal/language/report"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

const rules = `title: Whole <rule>
id: whole
level: high
description: d
tags: [attack.execution, attack.t1059.004, attack.defense_evasion, attack.g0007]
falsepositives: [Unlikely]
logsource: {product: linux, category: process_creation}
detection: {s: {'Image|endswith': /curl}, condition: s}
---
title: Weak rule
id: weak
tags: [attack.t1059.004]
logsource: {product: linux, category: process_creation}
detection: {s: {Image: /usr/bin/x}, condition: not s}
---
title: Windows rule
id: win
logsource: {product: windows, category: process_creation}
detection: {s: {Image: x}, condition: s}
---
title: Broken
id: broken
logsource: {product: linux}
detection: {s: {'Image|endswth': x}, condition: s}
`

func lint(t *testing.T) (sigma.Set, []report.Finding) {
	set, problems := sigma.Parse("rules/r.yml", []byte(rules))
	return set, report.Lint(set, problems, nil, nil)
}

func TestLintSaysWhatIsWrongWhere(t *testing.T) {
	_, all := lint(t)
	var got []string
	for _, f := range all {
		if f.File != "rules/r.yml" || f.Line == 0 {
			t.Errorf("a finding without a place: %+v", f)
		}
		if f.Level != "note" {
			got = append(got, f.Check+":"+f.Level+":"+f.Rule)
		}
	}
	want := "cost:warning:weak metadata:warning:weak metadata:warning:win applicable:error:win parse:error:broken"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if report.Errors(all) != 2 {
		t.Errorf("%d errors, want 2", report.Errors(all))
	}
}

func TestSARIF(t *testing.T) {
	_, all := lint(t)
	var b bytes.Buffer
	if err := report.WriteSARIF(&b, "1.0", all); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Results []struct {
				RuleID    string
				Level     string
				Message   struct{ Text string }
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(b.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || len(log.Runs) != 1 || len(log.Runs[0].Results) != len(all) || len(log.Runs[0].Tool.Driver.Rules) != 4 {
		t.Fatalf("log %+v", log)
	}
	for _, r := range log.Runs[0].Results {
		if r.Message.Text == "" || r.Locations[0].PhysicalLocation.Region.StartLine < 1 || r.Locations[0].PhysicalLocation.ArtifactLocation.URI != "rules/r.yml" {
			t.Errorf("result %+v", r)
		}
	}
}

func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	err := report.WriteJUnit(&b, []report.Case{{Suite: "a.yml", Name: "matches 1"}, {Suite: "b.yml", Name: "x"}, {Suite: "a.yml", Name: "not <2>", Failure: "it \"matched\" & should not", Where: "a.yml:3"}})
	if err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string `xml:"name,attr"`
				Failure struct {
					Message string `xml:"message,attr"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b.Bytes(), &suites); err != nil {
		t.Fatal(err)
	}
	if suites.Tests != 3 || suites.Failures != 1 || len(suites.Suites) != 2 || suites.Suites[0].Cases[1].Failure.Message != `it "matched" & should not` {
		t.Errorf("suites %+v", suites)
	}
}

func TestCoverage(t *testing.T) {
	set, _ := lint(t)
	all := report.Coverage(set.Rules)
	if len(all) != 1 || all[0].ID != "T1059.004" || len(all[0].Rules) != 2 || strings.Join(all[0].Tactics, " ") != "defense-evasion execution" {
		t.Fatalf("coverage %+v", all)
	}
	var layer, picture bytes.Buffer
	if err := report.WriteNavigator(&layer, "pack", all); err != nil {
		t.Fatal(err)
	}
	var l struct {
		Domain     string
		Techniques []struct {
			TechniqueID string
			Score       int
		}
	}
	if err := json.Unmarshal(layer.Bytes(), &l); err != nil || l.Domain != "enterprise-attack" || l.Techniques[0].TechniqueID != "T1059.004" || l.Techniques[0].Score != 2 {
		t.Errorf("layer %+v, %v", l, err)
	}
	if err := report.WritePicture(&picture, "A & B", all); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(picture.Bytes(), new(any)); err != nil && err.Error() != "EOF" {
		t.Errorf("the picture is not XML: %v", err)
	}
	for _, want := range []string{"T1059.004 · 2", "defense evasion (1)", "A &amp; B", "Whole &lt;rule&gt;"} {
		if !strings.Contains(picture.String(), want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
}
