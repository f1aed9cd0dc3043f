package sim

import (
	"math"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// drawAll lets hosts ask. Within one heartbeat of an opening every waiting host
// asks once; who asks first is drawn first.
func (c *counts) drawAll() {
	kept := c.grants[:0]
	for i := range c.grants {
		g := &c.grants[i]
		if !c.time().Before(g.admit.Until) {
			continue // what was not drawn by then is void
		}
		asked := c.now - g.since
		left := c.policy.Heartbeat - asked
		share := 1.0
		if left > 0 {
			share = min(1, float64(c.tick)/float64(left+c.tick))
		}
		c.draw(g, share)
		if g.treat+g.placebo > 0 {
			kept = append(kept, *g)
		}
	}
	c.grants = kept
}

// draw lets a share of a grant's waiting hosts ask.
func (c *counts) draw(g *grant, share float64) {
	a := &g.admit
	pools := c.pools[:0]
	all := 0
	for _, i := range g.members {
		n := c.asking(&c.groups[i], a)
		pools, all = append(pools, n), all+n
	}
	c.pools = pools
	asking := min(binomial(c.random, all, share), g.treat+g.placebo)
	if asking == 0 {
		return
	}
	treat := hypergeometric(c.random, g.treat+g.placebo, g.treat, asking)
	g.treat -= treat
	g.placebo -= asking - treat
	at := c.cell(a)
	for j, i := range g.members {
		n := hypergeometric(c.random, all, pools[j], asking)
		t := hypergeometric(c.random, asking, treat, n)
		all -= pools[j]
		asking -= n
		treat -= t
		c.enter(i, at, n, t)
	}
}

func (c *counts) matches(g *group, a *rollout.Admit) bool {
	k := &c.world.Kinds[g.kind]
	return g.home >= a.Ring && g.home <= a.Through && g.stratum == a.Stratum && k.Org == a.Org &&
		(a.Cell == "" || a.Cell == k.Stratum)
}

func (c *counts) cell(a *rollout.Admit) int {
	k := cellKey{a.Block, a.Ring, a.Org, a.Stratum, a.Cell}
	i, ok := c.cellAt[k]
	if !ok {
		i = len(c.cells)
		c.cellAt[k] = i
		c.cells = append(c.cells, rollout.Cell{Block: a.Block, Ring: a.Ring, Org: a.Org, Stratum: a.Stratum, Cell: a.Cell})
	}
	return i
}

// enter draws n hosts of a group into a cell, treat of them for the release.
func (c *counts) enter(group, at, n, treat int) {
	if n == 0 {
		return
	}
	g := &c.groups[group]
	c.takeOut(g, group, n)
	row := &c.cells[at]
	if control := n - treat; control > 0 {
		row.Control.Drawn += control
		g.inWindow += control
		c.cohorts = append(c.cohorts, cohort{cell: at, group: group, drawn: c.now, n: control})
	}
	if treat == 0 {
		return
	}
	row.Treated.Drawn += treat
	c.out.Exposed += treat
	if g.treated == 0 {
		g.first = c.now
	}
	g.latest = c.now
	x := cohort{cell: at, group: group, treated: true, drawn: c.now, n: treat}
	untreated := g.untreated()
	g.treated += treat
	for f := range c.world.Faults {
		fault := &c.world.Faults[f]
		if fault.Rate > 0 {
			continue
		}
		hit := min(hypergeometric(c.random, untreated, g.faulty[f], treat), x.n)
		g.faulty[f] -= hit
		c.out.Broken += hit
		late := fault.Soonest > c.policy.Fast
		if !late {
			x.n -= hit
			x.pending += hit
		}
		if fault.Mute && hit > 0 {
			c.heals[int64((c.now+mute(c.policy.Heartbeat))/c.tick)+1] += hit
		}
		for range hit {
			at := fault.Soonest + time.Duration(c.random.Float64()*float64(fault.Latest-fault.Soonest))
			tick := int64(math.Ceil(float64(c.now+at) / float64(c.tick)))
			c.due[tick] = append(c.due[tick], breaking{cell: x.cell, kind: fault.Kind, drawn: c.now, n: 1})
		}
	}
	c.cohorts = append(c.cohorts, x)
}

// takeOut removes n random hosts of a group from wherever they wait: from no
// observation, from the slow one of an older block, or (for a probe) from an
// open window.
func (c *counts) takeOut(g *group, group, n int) {
	all := g.waiting()
	fromWindow := 0
	if n > all {
		fromWindow, n = n-all, all
	}
	k := hypergeometric(c.random, all, g.plain, n)
	share := 0.0 // of those in no fast observation that are drawn now
	if g.plain > 0 {
		share = float64(k) / float64(g.plain)
	}
	all -= g.plain
	g.plain -= k
	n -= k
	kept := g.watched[:0]
	for _, w := range g.watched {
		k := hypergeometric(c.random, all, w.n, n)
		back := binomial(c.random, max(0, w.steady-w.n), share)
		all -= w.n
		w.n -= k
		n -= k
		w.steady -= min(w.steady, k+back)
		c.cells[w.cell].Control.Ended += k + back
		if w.steady > 0 {
			kept = append(kept, w)
		}
	}
	g.watched = kept
	for i := range c.cohorts {
		x := &c.cohorts[i]
		if fromWindow == 0 {
			break
		}
		if x.group == group && !x.treated && x.n > 0 {
			k := min(x.n, fromWindow)
			x.n -= k
			g.inWindow -= k
			fromWindow -= k
			c.cells[x.cell].Control.Left += k
		}
	}
}

// ripen ends fast windows: hosts that were drawn a window ago and are well
// report so.
func (c *counts) ripen() {
	kept := c.cohorts[:0]
	for i := range c.cohorts {
		x := c.cohorts[i]
		if c.now < x.drawn+c.policy.Fast {
			kept = append(kept, x)
			continue
		}
		if x.n == 0 {
			continue
		}
		row, g := &c.cells[x.cell], &c.groups[x.group]
		if x.treated {
			row.Treated.Clean += x.n
			g.proven = c.goOn(g.proven, &x)
		} else {
			row.Control.Clean += x.n
			g.inWindow -= x.n
			g.watched = c.goOn(g.watched, &x)
		}
	}
	c.cohorts = kept
}

// goOn observes a cohort through its slow window: with the one of the same cell
// that is observed already, if there is one.
func (c *counts) goOn(observed []*cohort, x *cohort) []*cohort {
	for _, o := range slices.Backward(observed) {
		if o.cell == x.cell && o.steady > 0 {
			o.n += x.n
			o.steady += x.n
			return observed
		}
	}
	w := *x
	w.steady = w.n
	c.follow = append(c.follow, &w)
	return append(observed, &w)
}

// come brings controls that were harmed back to waiting.
func (c *counts) come() {
	for i := range c.groups {
		g := &c.groups[i]
		kept := g.away[:0]
		for _, r := range g.away {
			if c.now >= r.at {
				g.plain += r.n
				c.cells[r.cell].Control.Gone += r.n
			} else {
				kept = append(kept, r)
			}
		}
		g.away = kept
	}
}
