// Package report writes what is known about rules in the forms other tools
// read: SARIF for problems, JUnit for tests, ATT&CK Navigator layers (and a
// picture of them) for coverage.
package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Finding is one thing to say about a rule.
type Finding struct {
	Check   string `json:"check"` // which check says so: parse, applicable, compile, cost, metadata
	Level   string `json:"level"` // error: the rule does not run; warning; note
	Rule    string `json:"rule,omitempty"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column,omitempty"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	Do      string `json:"do,omitempty"`
}

// Lint checks a set: what parsing found, whether each rule compiles for classes
// (nil for this build's sensor), what it costs, and what it should say of
// itself.
func Lint(set sigma.Set, parsed []sigma.Problem, classes []*ocsf.Class, placeholders map[string][]string) []Finding {
	var all []Finding
	for _, p := range parsed {
		all = append(all, finding("parse", p))
	}
	engine, compiled := detect.Compile(set, detect.Options{Classes: classes, Placeholders: placeholders})
	for _, p := range compiled {
		all = append(all, finding("compile", p))
	}
	for _, w := range engine.Weak() {
		if s := w.Rule.Source; s != nil {
			all = append(all, about("cost", "warning", &s.Meta, fmt.Sprintf("evaluated on about %.0f %% of all %s events: nothing it needs is rarer", 100*w.Share, w.Class),
				"add a value that few events have"))
		}
	}
	for _, r := range set.Rules {
		all = append(all, metadata(&r.Meta)...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return all
}

func finding(check string, p sigma.Problem) Finding {
	level := "error"
	if p.Warning {
		level = "warning"
	}
	if p.Inapplicable {
		check = "applicable"
	}
	return Finding{check, level, p.Rule, p.File, p.Pos.Line, p.Pos.Column, p.Field, p.Reason, p.Do}
}

func about(check, level string, m *sigma.Meta, message, do string) Finding {
	return Finding{Check: check, Level: level, Rule: m.Key(), File: m.File, Line: m.Pos.Line, Column: m.Pos.Column, Message: message, Do: do}
}

func metadata(m *sigma.Meta) []Finding {
	var all []Finding
	for _, c := range []struct {
		missing     bool
		level       string
		message, do string
	}{
		{m.ID == "", "warning", "the rule has no id", "give it a UUID: findings, suspensions and verdicts are known by it"},
		{m.Level == "", "warning", "the rule has no level", "use informational, low, medium, high or critical"},
		{len(m.Techniques()) == 0, "note", "the rule names no ATT&CK technique", "tag it, attack.t1059.004"},
		{len(m.FalsePositives) == 0, "note", "the rule says nothing of false positives", "say who does this without harm, or Unlikely"},
		{m.Description == "", "note", "the rule has no description", "say what an analyst should know"},
	} {
		if c.missing {
			all = append(all, about("metadata", c.level, m, c.message, c.do))
		}
	}
	return all
}

// Errors counts the findings that keep a rule from running.
func Errors(all []Finding) (n int) {
	for _, f := range all {
		if f.Level == "error" {
			n++
		}
	}
	return n
}

// Counts says how many documents of a set run, and why the others do not.
type Counts struct {
	Run          int `json:"run"`
	Inapplicable int `json:"inapplicable"` // they ask for what the sensor does not supply
	Wrong        int `json:"wrong"`
}

// Count counts what Lint found, by document: a document that cannot be read is
// in no set.
func Count(set sigma.Set, all []Finding) Counts {
	type place struct{ file, rule string }
	worst := map[place]string{}
	for _, f := range all {
		if at := (place{f.File, f.Rule}); f.Level == "error" && worst[at] != "wrong" {
			worst[at] = f.Check
			if f.Check != "applicable" {
				worst[at] = "wrong"
			}
		}
	}
	var n Counts
	for _, how := range worst {
		if how == "wrong" {
			n.Wrong++
		} else {
			n.Inapplicable++
		}
	}
	meta := func(m *sigma.Meta) {
		if worst[place{m.File, m.Key()}] == "" {
			n.Run++
		}
	}
	for _, r := range set.Rules {
		meta(&r.Meta)
	}
	for _, c := range set.Correlations {
		meta(&c.Meta)
	}
	return n
}
