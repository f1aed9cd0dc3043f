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

// order puts the cheap kids of each group first and returns what evaluating the
// tree costs at most, in about nanoseconds.
func (t *tree) order(preds []predicate) int {
	if t.op == leaf {
		return preds[t.pred].cost()
	}
	type priced struct {
		kid  *tree
		cost int
	}
	var kids []priced
	total := 1
	for _, kid := range t.kids {
		c := kid.order(preds)
		kids, total = append(kids, priced{kid, c}), total+c
	}
	if t.op != not {
		slices.SortStableFunc(kids, func(a, b priced) int { return cmp.Compare(a.cost, b.cost) })
		for i := range kids {
			t.kids[i] = kids[i].kid
		}
	}
	return total
}

func (p *predicate) cost() int {
	if p.known {
		return 1
	}
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
	first int32 // in kids; of a leaf: the predicate
	count int32
}

func (c *code) add(t *tree) int32 {
	at := int32(len(c.nodes))
	c.nodes = append(c.nodes, node{op: t.op, n: int16(t.n)})
	if t.op == leaf {
		c.nodes[at].first = int32(t.pred)
		return at
	}
	ids := make([]int32, 0, len(t.kids))
	for _, kid := range t.kids {
		ids = append(ids, c.add(kid))
	}
	c.nodes[at].first, c.nodes[at].count = int32(len(c.kids)), int32(len(ids))
	c.kids = append(c.kids, ids...)
	return at
}

// eval evaluates a tree on the event of s.
func (c *code) eval(s *scratch, at int32) bool {
	n := c.nodes[at]
	if n.op == leaf {
		return s.holds(n.first)
	}
	kids := c.kids[n.first : n.first+n.count]
	switch n.op {
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
