package detect

import (
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// Facts returns which fields matched, with their values, by OCSF path.
func (m *Match) Facts() []holdfast.Fact {
	facts, _ := m.Why()
	return facts
}

// Why returns which fields matched, with their values, by OCSF path, and by
// which lines of the rule. Of a correlation that is its group, what was counted,
// and the lines of its rules that held for this event, which completed it. It
// evaluates the rule again and allocates; call it for findings only.
func (m *Match) Why() ([]holdfast.Fact, []holdfast.Reason) {
	w := why{match: m, explainer: newExplainer(m.program.class, m.Event, m.evaluator.engine.placeholders)}
	if m.Rule.Source != nil {
		w.rule(m.Rule, "")
	} else {
		w.correlation(m.Rule, 0)
	}
	return w.facts, w.reasons
}

type why struct {
	match     *Match
	explainer *explainer
	facts     []holdfast.Fact
	reasons   []holdfast.Reason
}

// mostFits bounds the values of one reason.
const mostFits = 5

func (w *why) fact(field int) string {
	path, value := "message", w.match.Event.Message
	if field != everything {
		path, value = w.match.program.class.Fields[field].Path, joined(w.match.Event.Texts(field))
	}
	if !slices.ContainsFunc(w.facts, func(f holdfast.Fact) bool { return f.Field == path }) {
		w.facts = append(w.facts, holdfast.Fact{Field: path, Value: value})
	}
	return path
}

// rule adds what held of a rule: the lines of those searches that hold and that
// the condition asks to hold.
func (w *why) rule(r *Rule, prefix string) {
	d := &r.Source.Detection
	asked := make([]bool, len(d.Searches))
	markAsked(d.Condition, true, asked)
	for i := range d.Searches {
		if !asked[i] {
			continue
		}
		items, ok := w.explainer.held(&d.Searches[i].Node)
		if !ok {
			continue
		}
		for _, item := range items {
			field, ok := everything, item.Field == "(any)"
			if !ok {
				field, ok = w.match.program.class.Ordinal(item.Field)
			}
			if !ok {
				continue
			}
			w.reasons = append(w.reasons, holdfast.Reason{
				Search: prefix + d.Searches[i].Name, Field: w.fact(field), Test: item.Test, Fits: item.Hits[:min(len(item.Hits), mostFits)],
			})
		}
	}
}

// mostChained bounds how many correlations of correlations are followed.
const mostChained = 4

// correlation adds what a correlation counted, and what its rules matched now.
func (w *why) correlation(r *Rule, depth int) {
	v := w.match.evaluator
	at := slices.IndexFunc(v.counters, func(c *counter) bool { return v.engine.rules[c.co.rule] == r })
	if at < 0 || depth == mostChained {
		return
	}
	c := v.counters[at]
	now := func(input int) bool { return slices.Contains(v.matches, int32(input)) }
	if input := slices.IndexFunc(c.co.inputs, now); input >= 0 {
		f := c.co.fields[w.match.Event.Class][input]
		for _, field := range f.groupBy {
			if field >= 0 {
				w.reasons = append(w.reasons, holdfast.Reason{Search: "group-by", Field: w.fact(field)})
			}
		}
		counted := holdfast.Reason{
			Search: string(c.co.def.Type), Test: conditionText(c.co), Counted: strconv.FormatFloat(c.last, 'g', 6, 64),
		}
		if len(f.values) > 0 && f.values[0] >= 0 {
			counted.Field = w.fact(f.values[0])
		}
		w.reasons = append(w.reasons, counted)
	}
	for _, input := range c.co.inputs {
		switch rule := v.engine.rules[input]; {
		case !now(input):
		case rule.Source != nil:
			w.rule(rule, rule.Title+": ")
		default:
			w.correlation(rule, depth+1)
		}
	}
}

func conditionText(co *correlation) string {
	var parts []string
	for _, b := range co.bounds {
		parts = append(parts, b.Op+" "+strconv.FormatFloat(b.Value, 'g', 6, 64))
	}
	span := co.def.Timespan.String() // "1h0m0s"
	if strings.HasSuffix(span, "m0s") {
		span = strings.TrimSuffix(span, "0s")
	}
	if strings.HasSuffix(span, "h0m") {
		span = strings.TrimSuffix(span, "0m")
	}
	return strings.Join(parts, ", ") + " within " + span
}

// held returns the lines that made a search hold; none if it does not.
func (x *explainer) held(n *sigma.Node) ([]ItemResult, bool) {
	if n.Item != nil {
		r := x.item(n.Item)
		return []ItemResult{r}, r.Matched
	}
	var items []ItemResult
	any := false
	for i := range n.Kids {
		lines, ok := x.held(&n.Kids[i])
		switch {
		case ok:
			items, any = append(items, lines...), true
		case n.All:
			return nil, false
		}
	}
	return items, any
}

// markAsked marks the searches that a condition asks to hold, as opposed to not
// to hold.
func markAsked(c *sigma.Condition, want bool, asked []bool) {
	if c.Op == sigma.Not {
		want = !want
	}
	if c.Op == sigma.One && want {
		asked[c.Search] = true
	}
	for _, i := range c.Searches {
		asked[i] = asked[i] || want
	}
	for _, kid := range c.Kids {
		markAsked(kid, want, asked)
	}
}
