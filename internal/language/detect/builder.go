package detect

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// builder makes the predicates and trees of one program.
type builder struct {
	class *ocsf.Class
	preds []predicate
	known map[string]int // predicates by their identity
	id    []byte         // the last identity asked for
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
		for i := range tests.Values {
			kids = append(kids, l.any(tests.Values[i:i+1], field))
		}
		t = allOf(kids...)
	default:
		t = l.any(tests.Values, field)
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

// any makes a tree that holds if one of the tests of one of an item's values
// does. Many literals become one predicate, and so do all networks.
func (l *lowering) any(values [][]sigma.Test, field int) *tree {
	literals, nets := 0, 0
	for _, tests := range values {
		for i := range tests {
			switch tests[i].Op {
			case sigma.Match:
				literals++
			case sigma.Within:
				nets++
			}
		}
	}
	var kids []*tree
	for _, tests := range values {
		for i := range tests {
			t := &tests[i]
			if t.Op == sigma.Match && literals >= manyLiterals || t.Op == sigma.Within {
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
			kids = append(kids, &tree{op: leaf, pred: l.predicate(t, field, other)})
		}
	}
	if literals >= manyLiterals {
		kids = append(kids, &tree{op: leaf, pred: l.literals(values, field)})
	}
	if nets > 0 {
		kids = append(kids, &tree{op: leaf, pred: l.networks(values, field)})
	}
	return anyOf(kids...)
}

// networks makes one predicate of the networks among an item's tests.
func (l *lowering) networks(values [][]sigma.Test, field int) int {
	l.id = l.id[:0]
	var nets []netip.Prefix
	for _, tests := range values {
		for i := range tests {
			if t := &tests[i]; t.Op == sigma.Within {
				nets = append(nets, t.Prefix)
				l.id = appendIdentity(l.id, t, field, 0)
			}
		}
	}
	return l.intern(func() predicate { return predicate{op: sigma.Within, field: field, nets: nets} })
}

// literals makes one predicate of the literals among an item's tests, which are
// all cased or all not.
func (l *lowering) literals(values [][]sigma.Test, field int) int {
	l.id = l.id[:0]
	var lits []*sigma.Test
	for _, tests := range values {
		for i := range tests {
			if t := &tests[i]; t.Op == sigma.Match {
				lits = append(lits, t)
				l.id = appendIdentity(l.id, t, field, 0)
			}
		}
	}
	return l.intern(func() predicate {
		p := predicate{op: sigma.Match, field: field, cased: lits[0].Cased}
		for _, t := range lits {
			p.pats = append(p.pats, newPattern(t.Pattern, !t.Cased))
		}
		return p
	})
}

func (b *builder) predicate(t *sigma.Test, field, other int) int {
	b.id = appendIdentity(b.id[:0], t, field, other)
	return b.intern(func() predicate { return newPredicate(t, field, other) })
}

// intern returns the number of the predicate whose identity b.id is. Most are
// known: many rules ask the same.
func (b *builder) intern(build func() predicate) int {
	if i, ok := b.known[string(b.id)]; ok {
		return i
	}
	b.known[string(b.id)] = len(b.preds)
	b.preds = append(b.preds, build())
	return len(b.preds) - 1
}

// appendIdentity appends what is the same for tests that are the same predicate.
func appendIdentity(b []byte, t *sigma.Test, field, other int) []byte {
	switch t.Op {
	case sigma.Match:
		b = strconv.AppendInt(append(b, 'm'), int64(field), 10)
		b = strconv.AppendBool(b, t.Cased)
		for _, part := range t.Pattern {
			b = append(strconv.AppendInt(append(b, byte(part.Kind), ' '), int64(len(part.Text)), 10), ' ')
			if t.Cased {
				b = append(b, part.Text...)
			} else {
				b = appendFold(b, part.Text)
			}
		}
		return b
	case sigma.Regex:
		return fmt.Appendf(b, "r%d,%q", field, t.Regexp)
	case sigma.Within:
		return fmt.Appendf(b, "w%d,%s", field, t.Prefix)
	}
	return fmt.Appendf(b, "%d,%d,%d,%d,%d,%v,%v,%t,%t,%q", t.Op, field, other, t.Where, t.Part, t.Number, t.Int, t.Cased, t.Want, t.Source)
}
