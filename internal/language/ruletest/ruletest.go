// Package ruletest runs the tests that a bundle's rules bring along, on this
// build's engine: events that must match, events that must not, and benign
// events on which no rule may fire. Authors run it on their desk, and it is the
// definition of what rehearsal asks of every sensor build.
package ruletest

import (
	"fmt"
	"slices"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Result is what the tests of a bundle showed.
type Result struct {
	Rules    int                    `json:"rules"`
	Matched  int                    `json:"matched"`   // events that must match, and did
	Silent   int                    `json:"silent"`    // events that must not match, and did not
	Benign   int                    `json:"benign"`    // benign events evaluated
	Untested []string               `json:"untested"`  // rule files without tests
	Problems []holdfast.RuleProblem `json:"problems"`  // what failed
	Warnings []holdfast.RuleProblem `json:"warnings"`  // what will do, but should not
	Weak     []string               `json:"expensive"` // rules the index cannot keep from most events
}

// Passed reports whether nothing failed.
func (r Result) Passed() bool { return len(r.Problems) == 0 }

// Load parses and compiles a bundle's rules for this build's sensor.
func Load(b *bundle.Bundle) (*detect.Engine, sigma.Set, []sigma.Problem) {
	var set sigma.Set
	var problems []sigma.Problem
	for _, p := range b.Paths("rules") {
		one, bad := sigma.Parse(p, b.Files[p])
		set.Add(one)
		problems = append(problems, bad...)
	}
	engine, bad := detect.Compile(set, detect.Options{})
	return engine, set, append(problems, bad...)
}

// Static lists what a bundle's rules ask of a build that its manifest does not
// promise. data need not be trusted.
func Static(data []byte, m holdfast.Manifest) []holdfast.RuleProblem {
	b, err := bundle.Open(data)
	if err != nil {
		return []holdfast.RuleProblem{{Stage: "static", Reason: err.Error()}}
	}
	var problems []holdfast.RuleProblem
	over := func(file, what string, is, most int64) {
		if most > 0 && is > most {
			problems = append(problems, holdfast.RuleProblem{File: file, Stage: "static", Reason: fmt.Sprintf("%s: %d, and the build takes at most %d", what, is, most)})
		}
	}
	over("", "bytes of the bundle", int64(len(data)), m.Limits.BundleBytes)
	var set sigma.Set
	for _, p := range b.Paths("rules") {
		over(p, "bytes of the file", int64(len(b.Files[p])), int64(m.Limits.RuleBytes))
		one, bad := sigma.Parse(p, b.Files[p])
		for _, b := range bad {
			if !b.Warning {
				problems = append(problems, b.RuleProblem("static"))
			}
		}
		set.Add(one)
	}
	over("", "rules", int64(len(set.Rules)), int64(m.Limits.Rules))
	return append(problems, detect.Check(set, m, nil)...)
}

// Run runs the bundle's tests.
func Run(b *bundle.Bundle) (Result, error) {
	engine, set, problems := Load(b)
	r := Result{Rules: len(set.Rules)}
	for _, p := range problems {
		if p.Warning {
			r.Warnings = append(r.Warnings, p.RuleProblem("static"))
		} else {
			r.Problems = append(r.Problems, p.RuleProblem("static"))
		}
	}
	for _, w := range engine.Weak() {
		r.Weak = append(r.Weak, w.String())
	}
	cases, err := b.Cases()
	if err != nil {
		return r, err
	}
	t := &tester{engine: engine, class: ocsf.ProcessActivity(), result: &r}
	tested := map[string]bool{}
	for _, c := range cases {
		tested[c.Rule] = len(c.Match) > 0 && len(c.NoMatch) > 0
		t.run(c)
	}
	for _, p := range b.Paths("rules") {
		if !tested[p] {
			r.Untested = append(r.Untested, p)
		}
	}
	return r, t.benign(b)
}

type tester struct {
	engine *detect.Engine
	class  *ocsf.Class
	result *Result
}

// run runs the tests of one rule file. Each event meets a fresh evaluator, so
// that no test depends on another.
func (t *tester) run(c bundle.Case) {
	for i, e := range c.Match {
		fired, err := t.evaluate(e)
		switch {
		case err != nil:
			t.fail(c.Rule, c.File, "match", i, err.Error())
		case !slices.ContainsFunc(fired, func(r *detect.Rule) bool { return r.File == c.Rule }):
			t.fail(c.Rule, c.File, "match", i, "the rule does not match the event")
		default:
			t.result.Matched++
		}
	}
	for i, e := range c.NoMatch {
		fired, err := t.evaluate(e)
		switch {
		case err != nil:
			t.fail(c.Rule, c.File, "no_match", i, err.Error())
		case slices.ContainsFunc(fired, func(r *detect.Rule) bool { return r.File == c.Rule }):
			t.fail(c.Rule, c.File, "no_match", i, "the rule matches the event")
		default:
			t.result.Silent++
		}
	}
}

func (t *tester) fail(rule, file, list string, i int, reason string) {
	t.result.Problems = append(t.result.Problems, holdfast.RuleProblem{
		Rule: rule, File: file, Stage: "attack", Reason: fmt.Sprintf("%s event %d: %s", list, i+1, reason),
	})
}

func (t *tester) evaluate(e bundle.Event) (fired []*detect.Rule, err error) {
	ev, err := t.class.FromWritten(e)
	if err != nil {
		return nil, err
	}
	t.engine.NewEvaluator().Evaluate(ev, func(m *detect.Match) { fired = append(fired, m.Rule) })
	return fired, nil
}

func (t *tester) benign(b *bundle.Bundle) error {
	eval := t.engine.NewEvaluator()
	return b.Benign(func(file string, line int, e bundle.Event) error {
		ev, err := t.class.FromWritten(e)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", file, line, err)
		}
		t.result.Benign++
		eval.Evaluate(ev, func(m *detect.Match) {
			t.result.Problems = append(t.result.Problems, holdfast.RuleProblem{
				Rule: m.Rule.ID, File: fmt.Sprintf("%s:%d", file, line), Stage: "benign", Reason: m.Rule.Title + " matches a benign event",
			})
		})
		return nil
	})
}
