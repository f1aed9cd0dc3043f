package detect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// correlation is a compiled correlation. What it has counted is the
// evaluator's (window.go).
type correlation struct {
	rule    int // its own number in the engine
	def     *sigma.Correlation
	inputs  []int // engine numbers of the rules it counts, in order
	fields  map[int][]inputFields
	bounds  []sigma.Bound
	meaning fingerprint
	keep    int // entries a group needs at most
	group   int // groups at most
	total   int // entries of all groups at most
}

// inputFields are the ordinals of the fields that matter in the events of one
// input, in one class; -1 for a field the class lacks.
type inputFields struct {
	groupBy []int
	values  []int
}

// feed says that matches of a rule are input number input of a correlation.
type feed struct {
	correlation, input int
}

// Bounds limit what each correlation keeps.
type Bounds struct {
	Groups  int // distinct group-by tuples; the least recently seen goes first
	Entries int // events or values, over all groups
}

const (
	defaultGroups  = 4096
	defaultEntries = 1 << 16
	// mostPerGroup bounds the work per event: conditions look at each entry.
	mostPerGroup = 4096
)

func (c *compiler) addCorrelations(all []*sigma.Correlation) {
	c.engine.feeds = make([][]feed, len(c.engine.rules))
	names := map[string]int{}
	for _, a := range c.admitted {
		c.meanings = append(c.meanings, c.ruleMeaning(a))
	}
	for i, r := range c.engine.rules {
		if !c.failed[i] {
			names[r.Source.ID], names[r.Source.Name] = i, i
		}
	}
	byName := map[string]*sigma.Correlation{}
	for _, def := range all {
		for _, name := range []string{def.ID, def.Name} {
			if name != "" {
				byName[name] = def
			}
		}
	}
	delete(names, "")
	// Those that others count come first, so that inputs are known.
	state := map[*sigma.Correlation]int{} // 1 is being visited, 2 is done
	var visit func(def *sigma.Correlation, path []string)
	visit = func(def *sigma.Correlation, path []string) {
		if state[def] != 0 {
			return
		}
		state[def] = 1
		defer func() { state[def] = 2 }()
		path = append(path, def.Key())
		for _, ref := range def.Rules {
			other := byName[ref.Name]
			if other == nil {
				continue
			}
			if state[other] == 1 {
				c.report(&def.Meta, sigma.Problem{
					Pos: ref.Pos, Reason: "the correlation counts itself: " + strings.Join(append(path, other.Key()), " counts "),
					Do: "break the circle",
				})
				return
			}
			visit(other, path)
		}
		c.addCorrelation(def, names)
	}
	for _, def := range all {
		visit(def, nil)
	}
	c.silenceInputs()
}

func (c *compiler) addCorrelation(def *sigma.Correlation, names map[string]int) {
	co := &correlation{def: def, bounds: def.Bounds, fields: map[int][]inputFields{}}
	for _, ref := range def.Rules {
		input, ok := names[ref.Name]
		if !ok {
			c.report(&def.Meta, sigma.Problem{
				Pos: ref.Pos, Reason: fmt.Sprintf("the correlation counts %q, which is not in this set or has a problem itself", ref.Name),
				Do: "name a rule by its id, or by its name",
			})
			return
		}
		co.inputs = append(co.inputs, input)
	}
	if _, twice := names[def.Key()]; twice {
		c.report(&def.Meta, sigma.Problem{Reason: fmt.Sprintf("another document already has the id %s", def.Key()), Do: "give each an id of its own"})
		return
	}
	if !co.limit(c.options.Correlation) {
		c.report(&def.Meta, sigma.Problem{
			Reason: fmt.Sprintf("the condition needs %d entries for one group, and %d are kept at most", co.keep, mostPerGroup),
			Do:     "use a lower threshold over a shorter timespan",
		})
		return
	}
	if !c.resolveFields(co) {
		return
	}
	e := c.engine
	co.rule = len(e.rules)
	co.meaning = c.correlationMeaning(co)
	c.meanings = append(c.meanings, co.meaning)
	rule := newRule(&def.Meta)
	rule.Compound = def
	e.rules, e.feeds = append(e.rules, rule), append(e.feeds, nil)
	for i, input := range co.inputs {
		e.feeds[input] = append(e.feeds[input], feed{len(e.correlations), i})
	}
	e.correlations = append(e.correlations, co)
	for _, name := range []string{def.ID, def.Name} {
		if name != "" {
			names[name] = co.rule
		}
	}
}

// limit sizes the state. Without a condition, temporal correlations want all
// of their rules.
func (co *correlation) limit(b Bounds) bool {
	co.group, co.total = cmp.Or(b.Groups, defaultGroups), cmp.Or(b.Entries, defaultEntries)
	switch co.def.Type {
	case sigma.Temporal, sigma.TemporalOrdered:
		co.keep = len(co.inputs)
		if len(co.bounds) == 0 {
			co.bounds = []sigma.Bound{{Op: "gte", Value: float64(len(co.inputs))}}
		}
	case sigma.EventCount, sigma.ValueCount:
		for _, bound := range co.bounds {
			co.keep = max(co.keep, int(min(max(bound.Value, 0), 1<<40))+2)
		}
	default:
		co.keep = mostPerGroup
	}
	return co.keep <= mostPerGroup
}

// resolveFields finds the group-by fields, through aliases, and the counted
// ones in each class.
func (c *compiler) resolveFields(co *correlation) bool {
	ok := true
	for _, p := range c.engine.programs {
		find := func(name string, must bool) int {
			if i, known := p.class.Ordinal(name); known {
				return i
			}
			if must && !p.class.Open {
				ok = false
				c.report(&co.def.Meta, sigma.Problem{
					Field: name, Reason: fmt.Sprintf("the field %s is unknown to the class %s of this sensor build", name, p.class.Name),
					Do: "use a field of its manifest",
				})
			}
			return -1
		}
		for i := range co.inputs {
			var f inputFields
			for _, name := range co.def.GroupBy {
				f.groupBy = append(f.groupBy, find(co.def.FieldOf(name, i), true))
			}
			for _, name := range co.def.Fields {
				f.values = append(f.values, find(name, true))
			}
			co.fields[p.class.UID] = append(co.fields[p.class.UID], f)
		}
	}
	return ok
}

// silenceInputs keeps rules that only feed correlations from making findings
// of their own.
func (c *compiler) silenceInputs() {
	e := c.engine
	for i, feeds := range e.feeds {
		e.rules[i].Silent = len(feeds) > 0 && !slices.ContainsFunc(feeds, func(f feed) bool {
			return e.correlations[f.correlation].def.Generate
		})
	}
}
