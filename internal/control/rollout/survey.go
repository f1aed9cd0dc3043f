package rollout

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-security/holdfast"
)

// A unit is what hosts are drawn in: a ring, an organisation, a stratum.
type unit struct {
	unitKey
	site    int // index of its stratum in decision.sites
	through int // the last ring paced with it
	tally
	cells []int // indices of its groups in the snapshot
}

type unitKey struct {
	ring    int
	org     holdfast.OrgID
	stratum holdfast.Stratum
}

// A tally counts hosts: who could be drawn, and what became of the treated.
type tally struct {
	eligible, waiting, watching, last, later int

	drawn, clean, left, harmed, void int
	undone                           int // went back, and have not proved themselves since
	late                             int // harmed after they were clean
	outstanding                      int // granted, not yet drawn, not yet void

	controls      int // drawn as controls
	atRisk        int // controls in their fast window, unharmed
	harmedControl int
}

// pending counts treated hosts that have not proved themselves: they are
// neither clean nor harmed nor gone.
func (t *tally) pending() int {
	return max(0, t.drawn-t.clean-t.left-t.undone-t.harmed-t.void) + t.outstanding
}

// open counts what the harm budget has lent out: a harmed host never gives its
// share back, and one that went back not before it has proved itself.
func (t *tally) open() int { return t.pending() + t.undone + t.harmed }

// A site is a stratum across rings and organisations.
type site struct {
	name holdfast.Stratum
	tally
}

// survey sums the snapshot's rows by unit, stratum and altogether.
func (d *decision) survey() {
	if d.sites != nil {
		// A command has looked before: strata that appeared after the start are
		// found again, and numbered anew.
		maps.DeleteFunc(d.strata, func(_ holdfast.Stratum, i int) bool { return i >= len(d.s.Strata) })
	}
	d.units, d.total = make([]unit, 0, len(d.in.Groups)), tally{}
	d.byUnit = make(map[unitKey]int, len(d.in.Groups))
	d.cells = make([]int, 0, len(d.in.Groups)) // one array for the cells of all units
	d.unitOf = make([]int32, len(d.in.Cells))
	d.sites = make([]site, len(d.s.Strata), len(d.s.Strata)+8)
	for i, st := range d.s.Strata {
		d.sites[i].name = st.Name
	}
	for i := range d.in.Groups {
		g := &d.in.Groups[i]
		if g.Ring < 0 || g.Ring >= len(d.policy.Rings) {
			continue
		}
		u := d.unit(unitKey{d.ring(g.Ring), g.Org, g.Stratum})
		u.eligible += max(0, g.Eligible)
		u.waiting += max(0, g.Waiting)
		u.watching += max(0, g.Watching)
		u.last += max(0, g.Last)
		u.later += max(0, g.Later)
		if u.cells == nil {
			// The first needs no array of its own, and most have but one.
			d.cells = append(d.cells, i)
			u.cells = d.cells[len(d.cells)-1 : len(d.cells) : len(d.cells)]
		} else {
			u.cells = append(u.cells, i)
		}
	}
	at := 0
	for i := range d.in.Cells {
		c := &d.in.Cells[i]
		at = d.unitNear(at+1, c.Ring, c.Org, c.Stratum)
		d.unitOf[i] = int32(at)
		u := &d.units[at]
		u.drawn += max(0, c.Treated.Drawn)
		u.clean += max(0, c.Treated.Clean)
		u.left += max(0, c.Treated.Left)
		u.undone += max(0, c.Treated.Undone)
		u.controls += max(0, c.Control.Drawn)
		u.atRisk += max(0, c.Control.Drawn-c.Control.Clean-c.Control.Left)
	}
	d.surveyHarm()
	d.surveyOutstanding()
	d.surveyPlan()
	for i := range d.units {
		u := &d.units[i]
		d.sites[u.site].add(&u.tally)
		d.total.add(&u.tally)
	}
}

// ring maps a host's ring to the one it is paced with.
func (d *decision) ring(r int) int {
	if d.s.Collapsed {
		return min(r, 1)
	}
	return r
}

// unitNear returns the index of a unit. Rows come in the order of units, so it
// is almost always the one at i or one of the next: that spares a hash.
func (d *decision) unitNear(i, ring int, org holdfast.OrgID, stratum holdfast.Stratum) int {
	for range 4 {
		if i >= len(d.units) {
			i = 0
		}
		if len(d.units) == 0 {
			break
		}
		if u := &d.units[i]; u.stratum == stratum && u.ring == ring && u.org == org {
			return i
		}
		i++
	}
	k := unitKey{ring, org, stratum}
	d.unit(k)
	return d.byUnit[k]
}

func (d *decision) unit(k unitKey) *unit {
	if i, ok := d.byUnit[k]; ok {
		return &d.units[i]
	}
	s, ok := d.strata[k.stratum]
	if !ok { // appeared after the start: no scope of its own
		s = len(d.sites)
		d.strata[k.stratum] = s
		d.sites = append(d.sites, site{name: k.stratum})
	}
	through := k.ring
	if d.s.Collapsed && k.ring > 0 {
		through = len(d.policy.Rings) - 1
	}
	d.byUnit[k] = len(d.units)
	d.units = append(d.units, unit{unitKey: k, site: s, through: through})
	return &d.units[len(d.units)-1]
}

// surveyPlan marks the cells of the coverage plan that were tried.
func (d *decision) surveyPlan() {
	if !slices.ContainsFunc(d.s.Plan, func(c PlanCell) bool { return !c.Tried }) {
		return
	}
	tried := map[holdfast.Stratum]bool{}
	for i := range d.in.Cells {
		if c := &d.in.Cells[i]; c.Treated.Drawn > 0 {
			tried[cmp.Or(c.Cell, c.Stratum)] = true
		}
	}
	for i := range d.s.Plan {
		if tried[d.s.Plan[i].Cell] {
			d.s.Plan[i].Tried = true
		}
	}
}

func (d *decision) surveyHarm() {
	at := 0
	for i := range d.s.Blocks {
		for j := range d.s.Blocks[i].Cells {
			c := &d.s.Blocks[i].Cells[j]
			if c.HarmedTreated+c.HarmedControl+c.LateHarmedTreated+c.Void == 0 {
				continue
			}
			at = d.unitNear(at+1, c.Ring, c.Org, c.Stratum)
			u := &d.units[at]
			u.harmed += c.HarmedTreated
			u.harmedControl += c.HarmedControl
			u.late += c.LateHarmedTreated
			u.void += c.Void
		}
	}
}

// surveyOutstanding counts grants that may still be drawn. Who is promised to
// an open block no longer waits for another.
func (d *decision) surveyOutstanding() {
	d.trying = map[holdfast.Stratum]bool{}
	first := len(d.s.Blocks)
	for first > 0 && d.now.Before(d.s.Blocks[first-1].Until) {
		first--
	}
	if first == len(d.s.Blocks) {
		return
	}
	drawn := map[cellKey]*Cell{}
	for i := range d.in.Cells {
		if c := &d.in.Cells[i]; c.Block >= first {
			drawn[c.key()] = c
		}
	}
	for _, b := range d.s.Blocks[first:] {
		for i := range b.Cells {
			c := &b.Cells[i]
			treat, placebo := c.Treat, c.Placebo
			if row := drawn[c.key(b.Block)]; row != nil {
				treat, placebo = treat-row.Treated.Drawn, placebo-row.Control.Drawn
			}
			treat, placebo = max(0, treat), max(0, placebo)
			u := d.unit(unitKey{c.Ring, c.Org, c.Stratum})
			u.outstanding += treat
			if treat > 0 {
				d.trying[c.tries()] = true
			}
			u.promise(treat + placebo)
		}
	}
}

// promise takes n hosts out of those that could be drawn.
func (t *tally) promise(n int) {
	for _, pool := range []*int{&t.waiting, &t.watching, &t.last} {
		taken := min(n, *pool)
		*pool -= taken
		n -= taken
	}
}

// tries returns the cell of the coverage plan that a treatment here covers.
func (c *CellState) tries() holdfast.Stratum {
	if c.Cell != "" {
		return c.Cell
	}
	return c.Stratum
}

func (t *tally) add(o *tally) {
	t.eligible += o.eligible
	t.waiting += o.waiting
	t.watching += o.watching
	t.last += o.last
	t.later += o.later
	t.drawn += o.drawn
	t.clean += o.clean
	t.left += o.left
	t.undone += o.undone
	t.harmed += o.harmed
	t.late += o.late
	t.void += o.void
	t.outstanding += o.outstanding
	t.controls += o.controls
	t.atRisk += o.atRisk
	t.harmedControl += o.harmedControl
}

// cellKey names a cell of a block.
type cellKey struct {
	block   int
	ring    int
	org     holdfast.OrgID
	stratum holdfast.Stratum
	cell    holdfast.Stratum
}

func (c *Cell) key() cellKey { return cellKey{c.Block, c.Ring, c.Org, c.Stratum, c.Cell} }

func (e *Event) key() cellKey { return cellKey{e.Block, e.Ring, e.Org, e.Stratum, e.Cell} }

func (c *CellState) key(block int) cellKey {
	return cellKey{block, c.Ring, c.Org, c.Stratum, c.Cell}
}

// fine returns the finer stratum of the group.
func (g *Group) fine() holdfast.Stratum {
	if g.Cell != "" {
		return g.Cell
	}
	return g.Stratum
}

// isLevel reports whether a factor level says something: merging writes "*".
func isLevel(l string) bool { return !strings.HasSuffix(l, "=*") }

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
