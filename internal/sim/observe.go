package sim

import (
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// followEvery is how many ticks pass between two looks at the slow window.
const followEvery = 20

// breakDue turns faults that are noticed in this tick into harm events. While
// the control plane is deaf, silence is not noticed: it shows three heartbeats
// after the control plane can hear again.
func (c *counts) breakDue(deaf bool) {
	tick := int64(c.now / c.tick)
	due := c.due[tick]
	delete(c.due, tick)
	for _, b := range due {
		if deaf && b.kind == holdfast.Silence {
			later := tick + int64(3*c.policy.Heartbeat/c.tick)
			c.due[later] = append(c.due[later], b)
			continue
		}
		c.harm(b.cell, !b.control, b.kind, b.drawn, b.n, deaf)
	}
}

// harm reports n hosts of one arm of a cell as harmed.
func (c *counts) harm(at int, treated bool, kind holdfast.HarmKind, drawn time.Duration, n int, deaf bool) {
	row := &c.cells[at].row
	for range n {
		e := rollout.Event{
			Block: row.Block, Ring: row.Ring, Org: row.Org, Stratum: row.Stratum, Cell: row.Cell,
			Treated: treated, Kind: kind, First: true, At: epoch.Add(c.now), After: c.now - drawn,
		}
		if deaf {
			c.held = append(c.held, e)
		} else {
			c.events = append(c.events, e)
		}
	}
}

// background is what happens to hosts anyway, and what a fault's raised rate
// adds to it.
func (c *counts) background(deaf bool) {
	for i := range c.cohorts {
		if x := &c.cohorts[i]; x.n > 0 {
			c.normal(x, c.tick, deaf)
		}
	}
	if c.out.Steps%followEvery != 0 {
		return
	}
	kept := c.follow[:0]
	for _, x := range c.follow {
		if x.steady > 0 && c.now < x.drawn+c.policy.Slow {
			c.later(x, followEvery*c.tick, deaf)
			kept = append(kept, x)
		}
	}
	c.follow = kept
}

// rates are what is normal for a cohort in a span of time, and what a fault
// adds to its crashes.
func (c *counts) rates(x *cohort, span time.Duration, deaf bool) (silence, crash, excess float64) {
	k := &c.world.Kinds[c.groups[x.group].kind]
	part := float64(span) / float64(10*c.policy.Heartbeat)
	silence, crash = k.Silence*part, k.Crash*part
	if deaf {
		silence = 0
	}
	if x.treated {
		for f := range c.world.Faults {
			if fault := &c.world.Faults[f]; fault.Rate > 0 && (fault.Where == nil || fault.Where(k)) {
				excess += fault.Rate * part
			}
		}
	}
	return silence, crash, excess
}

// normal harms hosts of a cohort in its fast window.
func (c *counts) normal(x *cohort, span time.Duration, deaf bool) {
	silence, crash, excess := c.rates(x, span, deaf)
	p := silence + crash + excess
	n := binomial(c.random, x.n, p)
	if n == 0 {
		return
	}
	ofSilence := binomial(c.random, n, silence/p)
	if excess > 0 {
		c.out.Excess += binomial(c.random, n-ofSilence, excess/(crash+excess))
	}
	c.lose(x, &c.groups[x.group], n)
	c.harm(x.cell, x.treated, holdfast.Silence, x.drawn, ofSilence, deaf)
	c.harm(x.cell, x.treated, holdfast.Crash, x.drawn, n-ofSilence, deaf)
}

// later harms hosts of a cohort in its slow window. A host that reported at the
// end of its fast window cannot have missed three heartbeats before three more
// have passed.
func (c *counts) later(x *cohort, span time.Duration, deaf bool) {
	silence, crash, excess := c.rates(x, span, deaf || c.now < x.drawn+c.policy.Fast+4*c.policy.Heartbeat)
	silent := binomial(c.random, x.n, silence)
	x.n -= silent
	if !x.treated {
		c.groups[x.group].plain += silent
	}
	c.harm(x.cell, x.treated, holdfast.Silence, x.drawn, silent, deaf)
	crashed := binomial(c.random, x.steady, crash+excess)
	if excess > 0 {
		c.out.Excess += binomial(c.random, crashed, excess/(crash+excess))
	}
	x.steady -= crashed
	c.harm(x.cell, x.treated, holdfast.Crash, x.drawn, crashed, deaf)
}

// lose takes harmed hosts out of a cohort. Controls come back to wait once
// their window has passed.
func (c *counts) lose(x *cohort, g *group, n int) {
	x.n -= n
	if !x.treated {
		g.inWindow -= n
		g.away = append(g.away, returning{x.drawn + c.policy.Fast + c.policy.Heartbeat, n})
	}
}

// cutOffs silences a share of the observed hosts when a network outage begins,
// the release or not.
func (c *counts) cutOffs() {
	for _, o := range c.world.Outage {
		if o.Server || c.now < o.From || c.now >= o.From+c.tick {
			continue
		}
		for j := range c.cohorts {
			x := &c.cohorts[j]
			g := &c.groups[x.group]
			if o.Where != nil && !o.Where(&c.world.Kinds[g.kind]) {
				continue
			}
			if n := binomial(c.random, x.n, o.Share); n > 0 {
				c.lose(x, g, n)
				// Noticed after three missed heartbeats.
				tick := int64((c.now+3*c.policy.Heartbeat)/c.tick) + 1
				c.due[tick] = append(c.due[tick], breaking{cell: x.cell, control: !x.treated, kind: holdfast.Silence, drawn: x.drawn, n: n})
			}
		}
	}
}

func (c *counts) observeGroups() []rollout.Group {
	out := make([]rollout.Group, 0, len(c.groups))
	for i := range c.groups {
		g := &c.groups[i]
		k := &c.world.Kinds[g.kind]
		x := rollout.Group{Ring: g.ring, Org: k.Org, Stratum: g.stratum, Cell: g.cell, Eligible: g.online}
		if epoch.Add(c.now).Before(c.policy.Rings.Opens(g.ring, c.policy.Signed)) {
			out = append(out, x)
			continue
		}
		x.Waiting, x.Watching = g.waiting(), g.inWindow
		out = append(out, x)
	}
	return out
}

func (c *counts) observeCells() []rollout.Cell {
	out := make([]rollout.Cell, len(c.cells))
	for i := range c.cells {
		out[i] = c.cells[i].row
	}
	return out
}
