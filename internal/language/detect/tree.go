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
	// These are in code only.
	found  // the index found one of the kids, which are atoms
	marked // the index marks the predicate if it holds
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

// code is the trees of a program, laid out flat.
type code struct {
	nodes []node
	kids  []int32
}

type node struct {
	op    treeOp
	n     int16
	first int32 // in kids; of leaf and marked: the predicate
	count int32
}

// add lays a tree out and returns its place. What the index knows of a
// predicate is asked instead of it, or before.
func (c *code) add(t *tree, known []answers) int32 {
	if t.op == leaf {
		k := &known[t.pred]
		switch {
		case k.marked:
			return c.put(node{op: marked, first: int32(t.pred)})
		case k.exact:
			return c.put(node{op: found}, k.atoms...)
		case k.atoms != nil:
			return c.put(node{op: and}, c.put(node{op: found}, k.atoms...), c.put(node{op: leaf, first: int32(t.pred)}))
		}
		return c.put(node{op: leaf, first: int32(t.pred)})
	}
	ids := make([]int32, 0, len(t.kids))
	for _, kid := range t.kids {
		ids = append(ids, c.add(kid, known))
	}
	return c.put(node{op: t.op, n: int16(t.n)}, ids...)
}

func (c *code) put(n node, kids ...int32) int32 {
	if len(kids) > 0 {
		n.first, n.count = int32(len(c.kids)), int32(len(kids))
		c.kids = append(c.kids, kids...)
	}
	c.nodes = append(c.nodes, n)
	return int32(len(c.nodes) - 1)
}

// eval evaluates a tree on the event of s.
func (c *code) eval(s *scratch, at int32) bool {
	n := c.nodes[at]
	switch n.op {
	case leaf:
		return s.holds(n.first)
	case marked:
		return s.truth[n.first] == s.stamp<<1|1
	}
	kids := c.kids[n.first : n.first+n.count]
	switch n.op {
	case found:
		return s.foundAny(kids)
	case and:
		for _, k := range kids {
			if !c.eval(s, k) {
				return false
			}
		}
		return true
	case or:
		for _, k := range kids {
			if c.eval(s, k) {
				return true
			}
		}
		return false
	case not:
		return !c.eval(s, kids[0])
	case atLeast:
		have := int16(0)
		for _, k := range kids {
			if c.eval(s, k) {
				if have++; have == n.n {
					return true
				}
			}
		}
		return false
	}
	return n.op == always
}
