package detect

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// builder makes the predicates and trees of one program.
type builder struct {
	class *ocsf.Class
	preds []predicate
	known map[string]int // predicates by their identity
	shared
}

// shared is what the programs of one compilation have in common.
type shared struct {
	placeholders map[string][]string
	automata     map[string]*automaton // by expression
	tests        map[*sigma.Item]resolved
	census       census
}

// resolved is what an item says with its placeholders put in; several classes
// ask for the same.
type resolved struct {
	tests    sigma.Tests
	problems []sigma.Problem // without warnings
}

func (s *shared) resolve(item *sigma.Item) resolved {
	if r, ok := s.tests[item]; ok {
		return r
	}
	var r resolved
	tests, problems := item.Tests(s.placeholders)
	r.tests = tests
	for _, p := range problems {
		if !p.Warning {
			r.problems = append(r.problems, p.Problem)
		}
	}
	if s.tests != nil {
		s.tests[item] = r
	}
	return r
}

// lowering turns one rule's detection into a tree for the builder's class.
type lowering struct {
	*builder
	problems []sigma.Problem
}

func (b *builder) lower(d *sigma.Detection) (*tree, []sigma.Problem) {
	l := lowering{builder: b}
	searches := make([]*tree, len(d.Searches))
	for i := range d.Searches {
		searches[i] = l.node(&d.Searches[i].Node)
	}
	return l.condition(d.Condition, searches), l.problems
}

func (l *lowering) condition(c *sigma.Condition, searches []*tree) *tree {
	var kids []*tree
	for _, kid := range c.Kids {
		kids = append(kids, l.condition(kid, searches))
	}
	switch c.Op {
	case sigma.One:
		return searches[c.Search]
	case sigma.Of:
		for _, i := range c.Searches {
			kids = append(kids, searches[i])
		}
		return someOf(c.N, kids)
	case sigma.Not:
		return notOf(kids[0])
	case sigma.And:
		return allOf(kids...)
	}
	return anyOf(kids...)
}

func (l *lowering) node(n *sigma.Node) *tree {
	if n.Item != nil {
		return l.item(n.Item)
	}
	var kids []*tree
	for i := range n.Kids {
		kids = append(kids, l.node(&n.Kids[i]))
	}
	if n.All {
		return allOf(kids...)
	}
	return anyOf(kids...)
}

func (l *lowering) item(item *sigma.Item) *tree {
	r := l.resolve(item)
	tests := r.tests
	l.problems = append(l.problems, r.problems...)
	field, ok := l.field(item.Field, item.Pos)
	var t *tree
	switch {
	case !ok:
		t = l.absent(tests)
	case tests.All:
		var kids []*tree
		for _, alternatives := range tests.Values {
			kids = append(kids, l.any(alternatives, field))
		}
		t = allOf(kids...)
	default:
		var flat []sigma.Test
		for _, alternatives := range tests.Values {
			flat = append(flat, alternatives...)
		}
		t = l.any(flat, field)
	}
	if tests.Negate {
		return notOf(t)
	}
	return t
}

// field finds a field of the class. In a closed class, a field it lacks is a
// problem; in an open one the events just never have it.
func (l *lowering) field(name string, pos sigma.Pos) (int, bool) {
	if name == "" {
		return everything, true
	}
	if i, ok := l.class.Ordinal(name); ok {
		return i, true
	}
	if !l.class.Open {
		l.problems = append(l.problems, sigma.Problem{
			Pos: pos, Field: name, Inapplicable: true,
			Reason: fmt.Sprintf("the field %s is unknown to the class %s of this sensor build", name, l.class.Name),
			Do:     "use a field of its manifest, or release the rule when every build supplies the field",
		})
	}
	return 0, false
}

// absent is what tests say of a field that no event has.
func (l *lowering) absent(tests sigma.Tests) *tree {
	var kids []*tree
	for _, alternatives := range tests.Values {
		var any []*tree
		for _, t := range alternatives {
			any = append(any, constant(t.Op == sigma.IsNull || t.Op == sigma.Exists && !t.Want))
		}
		kids = append(kids, anyOf(any...))
	}
	if tests.All {
		return allOf(kids...)
	}
	return anyOf(kids...)
}

// any makes a tree that holds if one of the tests does. Many literals become
// one predicate.
func (l *lowering) any(tests []sigma.Test, field int) *tree {
	var (
		kids []*tree
		lits = map[bool][]sigma.Test{} // by Cased
	)
	for _, t := range tests {
		if t.Op == sigma.Match {
			lits[t.Cased] = append(lits[t.Cased], t)
		}
	}
	for i := range tests {
		t := &tests[i]
		if t.Op == sigma.Match && len(lits[t.Cased]) >= manyLiterals {
			continue
		}
		other := 0
		if t.Op == sigma.Same {
			var ok bool
			if other, ok = l.field(t.Other, t.Pos); !ok {
				kids = append(kids, no)
				continue
			}
		}
		kids = append(kids, &tree{op: leaf, pred: l.intern(newPredicate(t, field, other), identity(t, field, other))})
	}
	for _, cased := range [...]bool{false, true} {
		if set := lits[cased]; len(set) >= manyLiterals {
			kids = append(kids, &tree{op: leaf, pred: l.literals(set, field, cased)})
		}
	}
	return anyOf(kids...)
}

func (l *lowering) literals(tests []sigma.Test, field int, cased bool) int {
	p := predicate{op: sigma.Match, field: field, cased: cased}
	var id strings.Builder
	for i := range tests {
		id.WriteString(identity(&tests[i], field, 0))
		p.pats = append(p.pats, newPattern(tests[i].Pattern, !cased))
	}
	return l.intern(p, id.String())
}

func (b *builder) intern(p predicate, id string) int {
	if i, ok := b.known[id]; ok {
		return i
	}
	b.known[id] = len(b.preds)
	b.preds = append(b.preds, p)
	return len(b.preds) - 1
}

// identity is the same for tests that are the same predicate.
func identity(t *sigma.Test, field, other int) string {
	switch t.Op {
	case sigma.Match:
		b := strconv.AppendInt([]byte{'m'}, int64(field), 10)
		b = strconv.AppendBool(b, t.Cased)
		for _, part := range t.Pattern {
			b = append(strconv.AppendInt(append(b, byte(part.Kind), ' '), int64(len(part.Text)), 10), ' ')
			if t.Cased {
				b = append(b, part.Text...)
			} else {
				b = appendFold(b, part.Text)
			}
		}
		return string(b)
	case sigma.Regex:
		return fmt.Sprintf("r%d,%q", field, t.Regexp)
	case sigma.Within:
		return fmt.Sprintf("w%d,%s", field, t.Prefix)
	}
	return fmt.Sprintf("%d,%d,%d,%d,%d,%v,%v,%t,%t,%q", t.Op, field, other, t.Where, t.Part, t.Number, t.Int, t.Cased, t.Want, t.Source)
}
