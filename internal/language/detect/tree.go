package detect

import (
	"cmp"
	"slices"

	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// tree is a rule's condition over predicates, while it is compiled.
type tree struct {
	op   treeOp
	kids []*tree
	pred int // leaf
	n    int // atLeast
}

type treeOp uint8

const (
	leaf treeOp = iota
	and
	or
	not
	atLeast // n of the kids
	always
	never
)

var (
	yes = &tree{op: always}
	no  = &tree{op: never}
)

func constant(b bool) *tree {
	if b {
		return yes
	}
	return no
}

func notOf(t *tree) *tree {
	switch t.op {
	case always:
		return no
	case never:
		return yes
	case not:
		return t.kids[0]
	}
	return &tree{op: not, kids: []*tree{t}}
}

func allOf(kids ...*tree) *tree { return join(and, always, never, kids) }
func anyOf(kids ...*tree) *tree { return join(or, never, always, kids) }

// join flattens groups in groups, drops kids that change nothing (neutral),
// and gives up the group if one kid decides it.
func join(op, neutral, deciding treeOp, kids []*tree) *tree {
	t := &tree{op: op}
	for _, kid := range kids {
		switch kid.op {
		case neutral:
		case deciding:
			return kid
		case op:
			t.kids = append(t.kids, kid.kids...)
		default:
			t.kids = append(t.kids, kid)
		}
	}
	seen := map[int]bool{}
	t.kids = slices.DeleteFunc(t.kids, func(k *tree) bool {
		if k.op != leaf {
			return false
		}
		twice := seen[k.pred]
		seen[k.pred] = true
		return twice
	})
	switch len(t.kids) {
	case 0:
		return &tree{op: neutral}
	case 1:
		return t.kids[0]
	}
	return t
}

func someOf(n int, kids []*tree) *tree {
	switch {
	case n > len(kids):
		return no
	case n == len(kids):
		return allOf(kids...)
	case n == 1:
		return anyOf(kids...)
	}
	return &tree{op: atLeast, n: n, kids: kids}
}

// order puts those kids of each group first that are most likely to decide it
// for what they cost. It returns what evaluating the tree costs, in about
// nanoseconds, and how likely it is to hold; likely is the same by predicate.
func (t *tree) order(preds []predicate, known []answers, likely []float64) (cost, holds float64) {
	if t.op == leaf {
		holds = likely[t.pred]
		switch k := &known[t.pred]; {
		case k.marked:
			return 1, holds
		case k.exact:
			return float64(len(k.atoms)), holds
		}
		return float64(preds[t.pred].cost()), holds
	}
	type priced struct {
		kid               *tree
		cost, holds, rank float64
	}
	var kids []priced
	for _, kid := range t.kids {
		c, h := kid.order(preds, known, likely)
		rank := c
		switch t.op {
		case and:
			rank = c / (1 - h)
		case or:
			rank = c / h
		}
		kids = append(kids, priced{kid, c, h, rank})
	}
	slices.SortStableFunc(kids, func(a, b priced) int { return cmp.Compare(a.rank, b.rank) })
	reached, none := 1.0, 1.0 // how likely evaluation comes so far; that no kid holds
	for i, k := range kids {
		t.kids[i] = k.kid
		cost += reached * k.cost
		switch t.op {
		case and:
			reached *= k.holds
		case or:
			reached *= 1 - k.holds
		}
		none *= 1 - k.holds
	}
	switch t.op {
	case and:
		return 1 + cost, reached
	case not:
		return 1 + cost, none
	}
	return 1 + cost, 1 - none
}

func (p *predicate) cost() int {
	switch p.op {
	case sigma.Match:
		switch {
		case p.set != nil:
			return 150 + len(p.set.anchored)*3
		case p.pat.shape == contains:
			return 30
		case p.pat.shape == glob:
			return 60
		}
		return 5
	case sigma.Regex:
		if p.re.table != nil || p.re.least > 100 {
			return 200
		}
		return 5000
	case sigma.Within, sigma.Same:
		return 50
	}
	return 3
}
