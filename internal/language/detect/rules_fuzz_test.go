package detect_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/detect/reference"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

var fuzzClass = (&ocsf.Class{
	UID: 1, Name: "test", Open: true, Sources: []ocsf.Source{{LogSource: ocsf.LogSource{Product: "test"}, When: -1}},
	Fields: []ocsf.Field{{Path: "a"}, {Path: "b"}, {Path: "c"}},
}).Index()

// FuzzRules compiles any text as rules. Whatever compiles gives the verdicts of
// the naive reference on an event of any texts and a number, and Explain's are
// the same.
func FuzzRules(f *testing.F) {
	rule := func(detection string) string {
		return "title: r\nid: r\nlogsource: {product: test}\ndetection:\n" + detection + "\n"
	}
	for _, d := range []string{
		"  s: {a|contains|all: [x, 'y*z'], b|re|i: 'k+$'}\n  condition: s",
		"  s: {a|windash|contains: ' -e', c|gte: 7}\n  f: {b: null}\n  condition: s and not f",
		"  s: {a|base64offset|contains: abc}\n  t: {b|utf16le|base64offset|contains: ab}\n  condition: 1 of them",
		"  s:\n    - keyword\n    - 'k?y*'\n  t: {a|cidr: 10.0.0.0/8, b|exists: true}\n  condition: s or not t",
		"  s: {a|fieldref|endswith: b, c|neq: 3}\n  condition: s",
		"  s: {a|expand: '%one%\\*'}\n  t: {'a|cased|startswith': [A, 'é']}\n  condition: all of *",
		"  s: {'|all': [x, y]}\n  t: [{a: '\\\\\\*'}, {b: ''}]\n  condition: [s, not t]",
		"  s: {c|hour: 7, a|week|lt: 30}\n  condition: s",
		"  s: {a: [1, true, '1', 1.5, ~]}\n  condition: not s",
	} {
		f.Add(rule(d), "xyz -e abc", "key word", int64(7))
	}
	f.Fuzz(func(t *testing.T, text, a, b string, c int64) {
		if len(text) > 1500 || len(a)+len(b) > 300 || strings.Count(text, "/")+strings.Count(text, "-") > 24 {
			return // the reference spells out every dash
		}
		set, _ := sigma.Parse("fuzz.yml", []byte(text))
		for _, r := range set.Rules {
			for i := range r.Detection.Searches {
				if spells(&r.Detection.Searches[i].Node) {
					return
				}
			}
		}
		engine, problems := detect.Compile(set, detect.Options{Classes: []*ocsf.Class{fuzzClass}, Placeholders: lists})
		left := map[string]bool{}
		for _, p := range problems {
			if p.Reason == "" || p.File == "" {
				t.Errorf("a problem without a reason or place: %+v", p)
			}
			left[p.Rule] = left[p.Rule] || !p.Warning
		}
		ev := &ocsf.Event{Class: 1, Values: []ocsf.Value{ocsf.StringValue(a), ocsf.StringValue(b), ocsf.IntValue(c)}}
		ref := reference.Event{Fields: map[string][]any{"a": {a}, "b": {b}, "c": {c}}}
		var got, want []string
		engine.NewEvaluator().Evaluate(ev, func(m *detect.Match) {
			if facts, why := m.Why(); m.Rule.Source != nil && len(facts) > 0 && len(why) == 0 {
				t.Errorf("facts without a reason: %v", facts)
			}
			got = append(got, m.Rule.ID)
		})
		if len(set.Correlations)+len(set.Filters) > 0 {
			return // they are no part of the reference; that they did not panic is enough
		}
		for _, r := range set.Rules {
			if left[r.Key()] {
				continue
			}
			holds := reference.Matches(&r.Detection, ref, lists)
			if holds {
				want = append(want, r.Key())
			}
			if x := detect.Explain(r, fuzzClass, ev, lists); (x.Matched != holds) && x.Routed {
				t.Errorf("Explain says %v of %s, the reference %v, on %q %q %d\n%s", x.Matched, r.Key(), holds, a, b, c, text)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("engine %q, reference %q, on %q %q %d\n%s", got, want, a, b, c, text)
		}
	})
}

// spells says whether the reference would have to spell out dashes, once for
// each of five.
func spells(n *sigma.Node) bool {
	if n.Item != nil && slices.Contains(n.Item.Modifiers, "windash") {
		return slices.ContainsFunc(n.Item.Values, func(l sigma.Literal) bool { return strings.Count(l.Text, "-")+strings.Count(l.Text, "/") > 5 })
	}
	for i := range n.Kids {
		if spells(&n.Kids[i]) {
			return true
		}
	}
	return false
}
