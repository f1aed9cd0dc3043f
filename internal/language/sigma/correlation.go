package sigma

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Correlation is a rule about several events.
type Correlation struct {
	Meta
	Type       CorrelationType
	Rules      []Ref
	GroupBy    []string
	Timespan   time.Duration
	Fields     []string // value_*: the fields whose values count
	Bounds     []Bound  // all must hold
	Percentile float64  // value_percentile of numbers; 0 if not said
	Aliases    []Alias
	Generate   bool // the rules it refers to stand on their own too
}

// CorrelationType is what is counted.
type CorrelationType string

// The types of correlation.
const (
	EventCount      CorrelationType = "event_count"
	ValueCount      CorrelationType = "value_count"
	Temporal        CorrelationType = "temporal"
	TemporalOrdered CorrelationType = "temporal_ordered"
	ValueSum        CorrelationType = "value_sum"
	ValueAvg        CorrelationType = "value_avg"
	ValuePercentile CorrelationType = "value_percentile"
)

var correlationTypes = []CorrelationType{EventCount, ValueCount, Temporal, TemporalOrdered, ValueSum, ValueAvg, ValuePercentile}

// Bound is one comparison of a correlation's condition.
type Bound struct {
	Op    string // gt, gte, lt, lte, eq, neq
	Value float64
}

// Holds reports whether x fulfils the bound.
func (b Bound) Holds(x float64) bool {
	switch b.Op {
	case "gt":
		return x > b.Value
	case "gte":
		return x >= b.Value
	case "lt":
		return x < b.Value
	case "lte":
		return x <= b.Value
	case "neq":
		return x != b.Value
	}
	return x == b.Value
}

// Alias is a name for different fields in the events of different rules.
type Alias struct {
	Name   string
	Fields map[string]string // by the rule's name or id
}

var boundOps = []string{"gt", "gte", "lt", "lte", "eq", "neq"}

func (r *reader) correlation(doc, body *yaml.Node) *Correlation {
	c := &Correlation{Meta: r.meta}
	if body.Kind != yaml.MappingNode {
		r.report(problem(at(body), "a correlation is a mapping with a type, rules and a timespan"))
		return c
	}
	c.Type = CorrelationType(text(child(body, "type")))
	if !slices.Contains(correlationTypes, c.Type) {
		p := problem(nodeOr(child(body, "type"), body), "%q is not a type of correlation", c.Type)
		var names []string
		for _, t := range correlationTypes {
			names = append(names, string(t))
		}
		r.report(p.do("use one of " + strings.Join(names, ", ")))
	}
	if rules := child(body, "rules"); rules != nil {
		c.Rules = refs(rules)
	}
	if len(c.Rules) == 0 {
		r.report(problem(at(body), "the correlation names no rules").do(`list ids or names under "rules:"`))
	}
	c.GroupBy = texts(child(body, "group-by"))
	span := child(body, "timespan")
	var ok bool
	if c.Timespan, ok = parseTimespan(text(span)); !ok {
		r.report(problem(nodeOr(span, body), "%q is not a timespan", text(span)).do("write a number and s, m, h or d: 90m"))
	}
	r.bounds(c, body)
	r.aliases(c, body)
	for _, n := range []*yaml.Node{child(body, "generate"), child(doc, "generate")} {
		c.Generate = c.Generate || strings.EqualFold(text(n), "true")
	}
	return c
}

func nodeOr(n, otherwise *yaml.Node) Pos {
	if n != nil {
		return at(n)
	}
	return at(otherwise)
}

var timespanForm = regexp.MustCompile(`^([0-9]{1,6})([smhd])$`)

func parseTimespan(s string) (time.Duration, bool) {
	m := timespanForm.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, _ := strconv.Atoi(m[1])
	unit := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[2]]
	d := time.Duration(n) * unit
	return d, d > 0 && d <= maxTimespan
}

// maxTimespan is a year: no window is longer.
const maxTimespan = 366 * 24 * time.Hour

func (r *reader) bounds(c *Correlation, body *yaml.Node) {
	temporal := c.Type == Temporal || c.Type == TemporalOrdered
	cond := child(body, "condition")
	if cond == nil {
		if !temporal {
			r.report(problem(at(body), "a correlation of type %s needs a condition", c.Type).do(`add "condition:" with gt, gte, lt, lte, eq or neq`))
		}
		return
	}
	if cond.Kind != yaml.MappingNode {
		r.report(problem(at(cond), "the condition of a correlation is a mapping such as gte: 10"))
		return
	}
	for i := 0; i+1 < len(cond.Content); i += 2 {
		key, value := cond.Content[i], resolve(cond.Content[i+1])
		switch {
		case key.Value == "field":
			c.Fields = texts(value)
		case key.Value == "percentile" || slices.Contains(boundOps, key.Value):
			f, err := strconv.ParseFloat(text(value), 64)
			if err != nil || f != f {
				r.report(problem(at(value), "%s needs a number, not %q", key.Value, value.Value))
			} else if key.Value == "percentile" {
				c.Percentile = f
			} else {
				c.Bounds = append(c.Bounds, Bound{key.Value, f})
			}
		default:
			p := problem(at(key), "the condition of a correlation has no %q", key.Value)
			r.report(p.do("use field and one or two of " + strings.Join(boundOps, ", ")))
		}
	}
	wantsField := strings.HasPrefix(string(c.Type), "value_")
	switch {
	case wantsField && len(c.Fields) == 0:
		r.report(problem(at(cond), "a correlation of type %s needs the field whose values it looks at", c.Type).do(`add "field:" to the condition`))
	case !wantsField && len(c.Fields) > 0:
		r.report(problem(at(cond), "a correlation of type %s counts events, not the values of a field", c.Type).do("use value_count"))
	case len(c.Fields) > 1 && c.Type != ValueCount:
		r.report(problem(at(cond), "a correlation of type %s looks at one field", c.Type))
	case len(c.Bounds) == 0 && !temporal:
		r.report(problem(at(cond), "the condition compares with nothing").do("add gt, gte, lt, lte, eq or neq"))
	case c.Percentile < 0 || c.Percentile > 100:
		r.report(problem(at(cond), "a percentile is between 0 and 100"))
	}
}

func (r *reader) aliases(c *Correlation, body *yaml.Node) {
	n := child(body, "aliases")
	if n == nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.report(problem(at(n), "aliases are a mapping of names"))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		a := Alias{Name: n.Content[i].Value, Fields: map[string]string{}}
		fields := resolve(n.Content[i+1])
		if fields.Kind != yaml.MappingNode {
			r.report(problem(at(fields), "an alias says for each rule which field it stands for"))
			continue
		}
		for j := 0; j+1 < len(fields.Content); j += 2 {
			rule := fields.Content[j]
			if !slices.ContainsFunc(c.Rules, func(ref Ref) bool { return ref.Name == rule.Value }) {
				r.report(problem(at(rule), "the alias %s names the rule %q, which the correlation does not", a.Name, rule.Value))
			}
			a.Fields[rule.Value] = text(resolve(fields.Content[j+1]))
		}
		c.Aliases = append(c.Aliases, a)
	}
}

// FieldOf returns the field that name stands for in the events of the rule at
// index input: an alias if there is one, else itself.
func (c *Correlation) FieldOf(name string, input int) string {
	for _, a := range c.Aliases {
		if a.Name == name {
			if f, ok := a.Fields[c.Rules[input].Name]; ok {
				return f
			}
		}
	}
	return name
}
