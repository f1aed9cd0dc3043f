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
	c.out.Returned += c.heals[tick]
	delete(c.heals, tick)
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
	row := &c.cells[at]
	for range n {
		e := rollout.Event{
			Block: row.Block, Ring: row.Ring, Org: row.Org, Stratum: row.Stratum, Cell: row.Cell,
			Treated: treated, Kind: kind, First: true, At: c.time(), After: c.now - drawn,
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
	all := c.hazards(c.tick, deaf)
	harm := newWalk(c.random)
	for i := range c.cohorts {
		if x := &c.cohorts[i]; x.n > 0 {
			h := &all[c.arm(x)]
			if n := harm.among(x.n, h.any); n > 0 {
				c.normal(x, n, h, deaf)
			}
		}
	}
	if c.out.Steps%followEvery != 0 {
		return
	}
	c.later(followEvery*c.tick, deaf)
}

// A hazard is what may happen to a host of one kind in one arm within a span of
// time: probabilities, and -ln(1-p) of silence, of a crash and of either.
type hazard struct {
	silence, crash, excess    float64
	anySilence, anyCrash, any float64
}

// hazardKey names a table of hazards.
type hazardKey struct {
	span time.Duration
	deaf bool
}

// arm is the index of a cohort's kind and arm in a table of hazards.
func (c *counts) arm(x *cohort) int {
	i := 2 * c.groups[x.group].kind
	if x.treated {
		i++
	}
	return i
}

// hazards are what is normal for every kind in a span of time, and what faults
// add to the crashes of the treated.
func (c *counts) hazards(span time.Duration, deaf bool) []hazard {
	key := hazardKey{span, deaf}
	if all, ok := c.normals[key]; ok {
		return all
	}
	all := make([]hazard, 2*len(c.world.Kinds))
	part := float64(span) / float64(10*c.policy.Heartbeat)
	for i := range all {
		h, k := &all[i], &c.world.Kinds[i/2]
		h.silence, h.crash = k.Silence*part, k.Crash*part
		if deaf {
			h.silence = 0
		}
		if i%2 == 1 {
			for f := range c.world.Faults {
				if fault := &c.world.Faults[f]; fault.Rate > 0 && (fault.Where == nil || fault.Where(k)) {
					h.excess += fault.Rate * part
				}
			}
		}
		h.anySilence, h.anyCrash, h.any = exponent(h.silence), exponent(h.crash+h.excess), exponent(h.silence+h.crash+h.excess)
	}
	c.normals[key] = all
	return all
}

// normal harms n hosts of a cohort in its fast window.
func (c *counts) normal(x *cohort, n int, h *hazard, deaf bool) {
	ofSilence := binomial(c.random, n, h.silence/(h.silence+h.crash+h.excess))
	if h.excess > 0 {
		c.out.Excess += binomial(c.random, n-ofSilence, h.excess/(h.crash+h.excess))
	}
	c.lose(x, &c.groups[x.group], n)
	c.harm(x.cell, x.treated, holdfast.Silence, x.drawn, ofSilence, deaf)
	c.harm(x.cell, x.treated, holdfast.Crash, x.drawn, n-ofSilence, deaf)
}

// later harms hosts of the cohorts in their slow window. A host that reported
// at the end of its fast window cannot have missed three heartbeats before
// three more have passed.
func (c *counts) later(span time.Duration, deaf bool) {
	heard, unheard := c.hazards(span, deaf), c.hazards(span, true)
	silences, crashes := newWalk(c.random), newWalk(c.random)
	kept := c.follow[:0]
	for _, x := range c.follow {
		if x.steady <= 0 || c.now >= x.drawn+c.policy.Slow {
			continue
		}
		h := &heard[c.arm(x)]
		if c.now < x.drawn+c.policy.Fast+4*c.policy.Heartbeat {
			h = &unheard[c.arm(x)]
		}
		if n := silences.among(x.n, h.anySilence); n > 0 {
			x.n -= n
			if !x.treated {
				c.groups[x.group].plain += n
			}
			c.harm(x.cell, x.treated, holdfast.Silence, x.drawn, n, deaf)
		}
		if n := crashes.among(x.steady, h.anyCrash); n > 0 {
			if h.excess > 0 {
				c.out.Excess += binomial(c.random, n, h.excess/(h.crash+h.excess))
			}
			x.steady -= n
			c.harm(x.cell, x.treated, holdfast.Crash, x.drawn, n, deaf)
		}
		kept = append(kept, x)
	}
	c.follow = kept
}

// lose takes harmed hosts out of a cohort. Controls come back to wait once
// their window has passed.
func (c *counts) lose(x *cohort, g *group, n int) {
	x.n -= n
	if !x.treated {
		g.inWindow -= n
		g.away = append(g.away, returning{x.drawn + c.policy.Fast + c.policy.Heartbeat, x.cell, n})
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
	out := c.seen[:0]
	for i := range c.groups {
		g := &c.groups[i]
		k := &c.world.Kinds[g.kind]
		x := rollout.Group{Ring: g.home, Org: k.Org, Stratum: g.stratum, Cell: g.cell, Eligible: g.online}
		if c.now >= c.opens[g.home] {
			x.Waiting, x.Watching = g.waiting(), g.inWindow
		}
		g.say.tell(g, &x, c.time())
		out = append(out, x)
	}
	c.seen = out
	return out
}
