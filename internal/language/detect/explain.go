package detect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Explanation says of one rule and one event which parts hold and which do not.
type Explanation struct {
	Rule      string         `json:"rule_id"`
	Title     string         `json:"rule_title"`
	Matched   bool           `json:"matched"`
	Source    string         `json:"log_source"`
	Routed    bool           `json:"routed"` // the rule wants to see this kind of event
	Searches  []SearchResult `json:"searches"`
	Condition []string       `json:"failed,omitempty"` // what of the condition failed, for people
}

// SearchResult is one search of the rule.
type SearchResult struct {
	Name    string       `json:"name"`
	Matched bool         `json:"matched"`
	Items   []ItemResult `json:"items"`
}

// ItemResult is one line of a search.
type ItemResult struct {
	Field   string   `json:"field"` // as the rule names it; "(any)" for a keyword
	Path    string   `json:"path,omitempty"`
	Test    string   `json:"test"`            // the modifiers, "contains|all"
	Value   string   `json:"value"`           // what the event has
	Present bool     `json:"present"`         // whether it has the field
	Matched bool     `json:"matched"`         //
	Hits    []string `json:"hits,omitempty"`  // the rule's values that fit
	Wants   []string `json:"wants,omitempty"` // some of those that do not, if nothing fits
	Line    int      `json:"line"`
}

// Explain evaluates one rule on one event, each part of it, without the index.
func Explain(rule *sigma.Rule, class *ocsf.Class, ev *ocsf.Event, placeholders map[string][]string) Explanation {
	x := newExplainer(class, ev, placeholders)
	e := Explanation{Rule: rule.Key(), Title: rule.Title, Source: rule.LogSource.String(), Routed: routed(class, ev, rule.LogSource)}
	holds := make([]bool, len(rule.Detection.Searches))
	for i := range rule.Detection.Searches {
		s := &rule.Detection.Searches[i]
		r := SearchResult{Name: s.Name}
		r.Matched = x.node(&s.Node, &r.Items)
		holds[i] = r.Matched
		e.Searches = append(e.Searches, r)
	}
	matched := judge(rule.Detection.Condition, holds)
	e.Matched = matched && e.Routed
	if !matched {
		e.Condition = blame(rule.Detection.Condition, rule.Detection.Searches, holds, false)
	}
	if !e.Routed {
		e.Condition = append(e.Condition, "the event is not of "+e.Source)
	}
	return e
}

// routed says whether the event is of a source the rule wants.
func routed(class *ocsf.Class, ev *ocsf.Event, want ocsf.LogSource) bool {
	return slices.ContainsFunc(class.Sources, func(s ocsf.Source) bool {
		return want.Accepts(s.LogSource) && (s.When < 0 || ev.Values[s.When].Kind == ocsf.Int && ev.Values[s.When].Num == s.Is)
	})
}

// explainer evaluates tests one by one.
type explainer struct {
	builder *builder
	scratch *scratch
}

func newExplainer(class *ocsf.Class, ev *ocsf.Event, placeholders map[string][]string) *explainer {
	open := *class // a field the class lacks is shown as absent
	open.Open = true
	s := newScratch(&program{class: &open})
	s.begin(0, ev)
	return &explainer{&builder{class: &open, shared: shared{placeholders: placeholders}, known: map[string]int{}}, s}
}

func (x *explainer) node(n *sigma.Node, items *[]ItemResult) bool {
	if n.Item != nil {
		r := x.item(n.Item)
		*items = append(*items, r)
		return r.Matched
	}
	all, any := true, false
	for i := range n.Kids {
		kid := x.node(&n.Kids[i], items)
		all, any = all && kid, any || kid
	}
	if n.All {
		return all
	}
	return any
}

const mostWants = 5

func (x *explainer) item(item *sigma.Item) ItemResult {
	l := lowering{builder: x.builder}
	tests, _ := item.Tests(x.builder.placeholders)
	r := ItemResult{Field: item.Field, Test: strings.Join(item.Modifiers, "|"), Line: item.Pos.Line}
	field, known := l.field(item.Field, item.Pos)
	switch {
	case item.Field == "":
		r.Field, r.Present = "(any)", true
	case known:
		r.Path = x.builder.class.Fields[field].Path
		if field < len(x.scratch.event.Values) {
			r.Present = x.scratch.event.Values[field].Present()
			r.Value = joined(x.scratch.event.Texts(field))
		}
	}
	all, any := true, false
	for _, alternatives := range tests.Values {
		hit := false
		for i := range alternatives {
			t := &alternatives[i]
			if hit = x.test(&l, t, field, known); hit {
				r.Hits = append(r.Hits, t.Source)
				break
			}
		}
		if !hit && len(alternatives) > 0 && len(r.Wants) < mostWants {
			r.Wants = append(r.Wants, alternatives[0].Source)
		}
		all, any = all && hit, any || hit
	}
	r.Matched = any
	if tests.All {
		r.Matched = all
	}
	if tests.Negate {
		r.Matched = !r.Matched
	}
	if r.Matched {
		r.Wants = nil
	}
	return r
}

func (x *explainer) test(l *lowering, t *sigma.Test, field int, known bool) bool {
	if !known {
		return t.Op == sigma.IsNull || t.Op == sigma.Exists && !t.Want
	}
	other := 0
	if t.Op == sigma.Same {
		if other, known = l.field(t.Other, t.Pos); !known {
			return false
		}
	}
	p := newPredicate(t, field, other)
	return p.holds(x.scratch)
}

func judge(c *sigma.Condition, holds []bool) bool {
	n := 0
	for _, kid := range c.Kids {
		if judge(kid, holds) {
			n++
		}
	}
	for _, i := range c.Searches {
		if holds[i] {
			n++
		}
	}
	switch c.Op {
	case sigma.One:
		return holds[c.Search]
	case sigma.Of:
		return n >= c.N
	case sigma.Not:
		return n == 0
	case sigma.And:
		return n == len(c.Kids)
	}
	return n > 0
}

// blame lists what keeps a condition from being true (or, inside a "not", from
// being false).
func blame(c *sigma.Condition, searches []sigma.Search, holds []bool, want bool) []string {
	want = !want // what c should have been
	switch c.Op {
	case sigma.Not:
		return blame(c.Kids[0], searches, holds, want)
	case sigma.One:
		if want {
			return []string{searches[c.Search].Name + " does not match"}
		}
		return []string{searches[c.Search].Name + " matches, and the condition excludes it"}
	case sigma.Of:
		var names []string
		for _, i := range c.Searches {
			if holds[i] != want {
				names = append(names, searches[i].Name)
			}
		}
		if want {
			return []string{fmt.Sprintf("of %d searches at least %d must match, and these do not: %s", len(c.Searches), c.N, strings.Join(names, ", "))}
		}
		return []string{"the condition excludes what matches " + strings.Join(names, ", ")}
	}
	var all []string
	for _, kid := range c.Kids {
		if judge(kid, holds) != want {
			all = append(all, blame(kid, searches, holds, !want)...)
		}
	}
	return all
}
