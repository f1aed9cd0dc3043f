package rollout

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// CoveragePlan is an order in which to give each kind of host its first
// treated one.
type CoveragePlan struct {
	// Order lists cells. The first five are as different as they can be; then
	// each covers the largest mass that nothing before it covered; cells that
	// add no new combination follow, largest first.
	Order []holdfast.Stratum `json:"order"`
	// Needed is how many of them cover every combination.
	Needed int `json:"needed"`
	// Combinations counts pairs of attribute values, and triples of kernel,
	// agent and role if Triples is set.
	Combinations int  `json:"combinations"`
	Triples      bool `json:"triples"`
}

// firstDiverse is how many hosts are chosen for being different alone: the
// ones admitted when nothing is known.
const firstDiverse = 5

// PlanCoverage computes a covering array greedily over cells (strata and the
// number of their hosts). Triples are included where all combinations still fit
// one host in a hundred of the fleet. It orders hosts inside an open ring; it
// never moves one to an earlier ring.
func PlanCoverage(cells map[holdfast.Stratum]int, fleet int) CoveragePlan {
	c := newCovering(cells, true)
	plan := c.greedy()
	if plan.Needed > max(20, fleet/100) {
		c = newCovering(cells, false)
		plan = c.greedy()
	}
	return plan
}

// covering is the state of the greedy cover.
type covering struct {
	cells   []coverCell
	mass    []int // by combination: hosts that show it
	covered []bool
	triples bool
	seen    []map[string]bool // by factor: values among the chosen
}

type coverCell struct {
	name   holdfast.Stratum
	values []string
	hosts  int
	combos []int
	gain   int // an upper bound: gains only shrink
	index  int
}

func newCovering(cells map[holdfast.Stratum]int, triples bool) *covering {
	c := &covering{triples: triples}
	ids := map[string]int{}
	id := func(key string, hosts int) int {
		i, ok := ids[key]
		if !ok {
			i = len(c.mass)
			ids[key] = i
			c.mass = append(c.mass, 0)
		}
		c.mass[i] += hosts
		return i
	}
	for _, name := range sortedKeys(cells) {
		if cells[name] <= 0 {
			continue
		}
		f := name.Factors()
		x := coverCell{name: name, hosts: cells[name], values: f}
		for i := range f {
			for j := i + 1; j < len(f); j++ {
				x.combos = append(x.combos, id(f[i]+"\x00"+f[j], x.hosts))
			}
		}
		if triples && len(f) == 4 {
			x.combos = append(x.combos, id(f[0]+"\x00"+f[2]+"\x00"+f[3], x.hosts))
		}
		c.cells = append(c.cells, x)
	}
	c.covered = make([]bool, len(c.mass))
	return c
}

func (c *covering) greedy() CoveragePlan {
	p := CoveragePlan{Combinations: len(c.mass), Triples: c.triples}
	chosen := make([]bool, len(c.cells))
	take := func(i int) {
		chosen[i] = true
		p.Order = append(p.Order, c.cells[i].name)
		for _, k := range c.cells[i].combos {
			c.covered[k] = true
		}
	}
	for range min(firstDiverse, len(c.cells)) {
		take(c.mostDiverse(chosen))
	}
	p.Needed = len(p.Order)
	q := c.queue(chosen)
	for q.Len() > 0 {
		x := q[0]
		if now := c.gain(x); now < x.gain {
			x.gain = now
			heap.Fix(&q, 0)
			continue
		}
		heap.Pop(&q)
		if x.gain > 0 {
			p.Needed = len(p.Order) + 1
		}
		take(x.index)
	}
	return p
}

// mostDiverse finds the cell with the most attribute values not yet chosen,
// the largest among equals.
func (c *covering) mostDiverse(chosen []bool) int {
	if c.seen == nil {
		c.seen = make([]map[string]bool, 8)
		for i := range c.seen {
			c.seen[i] = map[string]bool{}
		}
	}
	best, bestNew := -1, -1
	for i := range c.cells {
		if chosen[i] {
			continue
		}
		fresh := 0
		for f, v := range c.cells[i].values {
			if !c.seen[f][v] {
				fresh++
			}
		}
		if fresh > bestNew || fresh == bestNew && c.cells[i].hosts > c.cells[best].hosts {
			best, bestNew = i, fresh
		}
	}
	for f, v := range c.cells[best].values {
		c.seen[f][v] = true
	}
	return best
}

// gain is the mass of the combinations a cell would newly cover.
func (c *covering) gain(x *coverCell) (g int) {
	for _, k := range x.combos {
		if !c.covered[k] {
			g += c.mass[k]
		}
	}
	return g
}

func (c *covering) queue(chosen []bool) coverQueue {
	var q coverQueue
	for i := range c.cells {
		if !chosen[i] {
			x := &c.cells[i]
			x.index, x.gain = i, c.gain(x)
			q = append(q, x)
		}
	}
	heap.Init(&q)
	return q
}

// coverQueue is a heap, largest gain first, then most hosts, then name.
type coverQueue []*coverCell

func (q coverQueue) Len() int { return len(q) }
func (q coverQueue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[j].gain, q[i].gain), cmp.Compare(q[j].hosts, q[i].hosts), strings.Compare(string(q[i].name), string(q[j].name))) < 0
}
func (q coverQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *coverQueue) Push(x any)   { *q = append(*q, x.(*coverCell)) }
func (q *coverQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// Uncovered reports how many combinations of attribute values no tried cell
// shows, and the share of the fleet that has at least one of them.
func Uncovered(cells map[holdfast.Stratum]int, tried []holdfast.Stratum) (combinations int, mass float64) {
	c := newCovering(cells, true)
	for i := range c.cells {
		if slices.Contains(tried, c.cells[i].name) {
			for _, k := range c.cells[i].combos {
				c.covered[k] = true
			}
		}
	}
	for _, done := range c.covered {
		if !done {
			combinations++
		}
	}
	var open, all int
	for i := range c.cells {
		all += c.cells[i].hosts
		if c.gain(&c.cells[i]) > 0 {
			open += c.cells[i].hosts
		}
	}
	if all == 0 {
		return 0, 0
	}
	return combinations, float64(open) / float64(all)
}
