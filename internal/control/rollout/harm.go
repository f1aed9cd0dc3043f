package rollout

import (
	"fmt"
	"slices"

	"github.com/holdfast-security/holdfast"
)

// events takes the new harm rows into account, in order, and halts at the
// event that brings E to its limit. Later events are counted, but the evidence
// stays as it was when it decided.
func (d *decision) events() {
	var rows map[cellKey]*Cell
	var cells map[cellKey]*CellState
	var grids map[[2]int]*fastGrid
	for _, e := range d.in.Events {
		if e.Seq <= d.s.EventSeq {
			continue
		}
		if rows == nil {
			rows, cells = d.rowsOfEvents()
			grids = map[[2]int]*fastGrid{}
			d.evaluate()
		}
		d.s.EventSeq = e.Seq
		c, row := cells[e.key()], rows[e.key()]
		k := slices.Index(d.policy.Signals, e.Kind)
		switch {
		case k < 0:
			continue // a kind of harm this policy does not watch
		case c == nil:
			d.note("harm row %d names a cell that was never opened, and is ignored", e.Seq)
			continue
		case e.Kind == holdfast.Silence && d.silencedByUs(e.At):
			d.void(c, &e)
			continue
		}
		if row == nil {
			row = &Cell{}
		}
		d.count(c, row, &e, k, grids)
	}
}

// rowsOfEvents finds the observed rows and the state's cells of every cell that
// new events name.
func (d *decision) rowsOfEvents() (map[cellKey]*Cell, map[cellKey]*CellState) {
	wanted := map[cellKey]bool{}
	blocks := map[int]bool{}
	for i := range d.in.Events {
		e := &d.in.Events[i]
		wanted[e.key()], blocks[e.Block] = true, true
	}
	rows := make(map[cellKey]*Cell, len(wanted))
	for i := range d.in.Cells {
		c := &d.in.Cells[i]
		if blocks[c.Block] && wanted[c.key()] {
			rows[c.key()] = c
		}
	}
	cells := make(map[cellKey]*CellState, len(wanted))
	for i := range blocks {
		if i < 0 || i >= len(d.s.Blocks) {
			continue
		}
		b := d.block(i)
		for j := range b.Cells {
			if k := b.Cells[j].key(b.Block); wanted[k] {
				cells[k] = &b.Cells[j]
			}
		}
	}
	return rows, cells
}

func (d *decision) evaluate() {
	if d.values != nil {
		return
	}
	n := d.layout.scopes() * d.layout.signals
	d.values = make([]scopeValues, len(d.s.Evidence))
	for i := range d.s.Evidence {
		e := &d.s.Evidence[i]
		e.L = e.L.clone()
		d.values[i] = scopeValues{make([]float64, n), make([]float64, n)}
		e.E, e.Pooled = d.layout.combine(&e.L, d.values[i].fast, d.values[i].slow)
	}
}

func (d *decision) void(c *CellState, e *Event) {
	if e.Treated && e.First {
		c.Void++
		d.tallyOf(c).void++
		d.total.void++
	}
}

// count lets one event move the evidence, and then takes its host out of the
// risk set of its kind.
func (d *decision) count(c *CellState, row *Cell, e *Event, k int, grids map[[2]int]*fastGrid) {
	fast := e.After <= d.policy.Fast || e.Kind == holdfast.Silence && e.After <= d.policy.Fast+3*d.policy.Heartbeat // it fell silent within
	slow := e.After <= d.policy.Slow
	// A host harmed in one way stays at risk of the others until its window
	// closes; so a row's Clean and Left hold only hosts without any harm.
	yFast := row.Treated.Drawn - row.Treated.Clean - row.Treated.Left - at(c.Treated, k)
	cFast := row.Control.Drawn - row.Control.Clean - row.Control.Left - at(c.Control, k)
	ySlow := row.Treated.Drawn - row.Treated.Left - row.Treated.Ended - at(c.Treated, k) - at(c.LateTreated, k)
	cSlow := row.Control.Drawn - row.Control.Left - row.Control.Ended - at(c.Control, k) - at(c.LateControl, k)
	yFast, cFast = atLeast(e.Treated, yFast, cFast)
	ySlow, cSlow = atLeast(e.Treated, ySlow, cSlow)
	for i := range d.s.Evidence {
		ev := &d.s.Evidence[i]
		if i > 0 && ev.Org != e.Org || ev.Halted || d.s.Phase.Recalling() {
			continue
		}
		if fast {
			d.moveFast(i, e, k, yFast, cFast, grids)
		}
		if slow {
			d.moveSlow(i, e, k, ySlow, cSlow)
		}
		if e.Treated {
			ev.TreatedEvents++
		} else {
			ev.ControlEvents++
		}
		ev.Peak = max(ev.Peak, ev.E)
	}
	d.record(c, e, k, fast)
	d.halt(e)
}

// atLeast makes the risk set hold the host the event fell on.
func atLeast(treated bool, y, c int) (int, int) {
	if treated {
		return max(y, 1), max(c, 0)
	}
	return max(y, 0), max(c, 1)
}

func at(n []int, k int) int {
	if k < len(n) {
		return n[k]
	}
	return 0
}

func (d *decision) moveFast(party int, e *Event, k, y, c int, grids map[[2]int]*fastGrid) {
	st, frozen := d.frozen(e.Stratum)
	g := grids[[2]int{st, k}]
	if g == nil {
		x := fastGridFor(d.policy.rate(e.Stratum, e.Kind), d.policy.ThetaFast)
		g = &x
		grids[[2]int{st, k}] = g
	}
	step := g.step(e.Treated, share(y, c, d.policy.ThetaFast))
	ev, values := &d.s.Evidence[party], d.values[party].fast
	move := func(scope int) float64 {
		i := d.layout.at(scope, k)
		ev.L.fast[i].add(&step)
		now := ev.L.fast[i].value()
		delta := now - values[i]
		values[i] = now
		ev.E += d.layout.fastWeight(scope) * delta
		return delta
	}
	ev.Pooled += move(0) / float64(d.layout.signals)
	if frozen {
		for _, l := range d.s.Strata[st].Levels {
			move(d.layout.level(l))
		}
		move(d.layout.stratum(st))
	}
	ev.Ratio.step(e.Treated, y, c)
}

func (d *decision) moveSlow(party int, e *Event, k, y, c int) {
	step := slowStep(e.Treated, share(y, c, d.policy.ThetaSlow))
	ev, values := &d.s.Evidence[party], d.values[party].slow
	move := func(scope int) {
		i := d.layout.at(scope, k)
		ev.L.slow[i].add(&step)
		now := ev.L.slow[i].value()
		ev.E += d.layout.slowWeight(scope) * (now - values[i])
		values[i] = now
	}
	move(0)
	if st, frozen := d.frozen(e.Stratum); frozen {
		move(d.layout.stratum(st))
	}
}

// frozen returns the stratum's index and whether it had a scope from the start.
func (d *decision) frozen(s holdfast.Stratum) (int, bool) {
	i, ok := d.strata[s]
	return i, ok && i < len(d.s.Strata)
}

func (d *decision) record(c *CellState, e *Event, k int, fast bool) {
	n := len(d.policy.Signals)
	bump := func(s *[]int) {
		if *s == nil {
			*s = make([]int, n)
		}
		(*s)[k]++
	}
	t := d.tallyOf(c)
	switch {
	case e.Treated && fast:
		bump(&c.Treated)
		if e.First {
			c.HarmedTreated++
			t.harmed++
			d.total.harmed++
			d.sites[d.strata[c.Stratum]].harmed++
		}
	case e.Treated:
		bump(&c.LateTreated)
		if e.First {
			c.LateHarmedTreated++
			t.late++
		}
	case fast:
		bump(&c.Control)
		if e.First {
			c.HarmedControl++
			t.harmedControl++
			d.total.harmedControl++
			d.sites[d.strata[c.Stratum]].harmedControl++
		}
	default:
		bump(&c.LateControl)
		if e.First {
			c.LateHarmedControl++
		}
	}
}

func (d *decision) tallyOf(c *CellState) *tally {
	return &d.unit(unitKey{c.Ring, c.Org, c.Stratum}).tally
}

// halt recalls the release for every party whose evidence reached its limit.
// One organisation's hosts, hostile or broken, can only recall its own part:
// the pool needs treated harm in two of them, where there are two.
func (d *decision) halt(e *Event) {
	if d.policy.Unchecked || d.s.Phase.Recalling() {
		return
	}
	for i := len(d.s.Evidence) - 1; i >= 0; i-- {
		ev := &d.s.Evidence[i]
		if ev.Halted || ev.E < ev.Limit {
			continue
		}
		if i == 0 && len(d.s.Evidence) > 1 && d.witnesses() < 2 {
			continue
		}
		ev.Halted, ev.HaltedBy = true, ""
		signal, scope := d.strongest(i)
		h := Halt{
			Org: ev.Org, Evidence: ev.E, Limit: ev.Limit, Signal: signal, Scope: scope, AtEvent: e.Seq,
			Harmed: d.harmedIn(ev.Org), Exposed: d.drawnIn(ev.Org),
			Why: fmt.Sprintf("evidence %.4g reached %.4g: %s among the treated of %s is more than chance and tolerance explain", ev.E, ev.Limit, signal, scope),
		}
		d.recall(ev.Org, holdfast.Halted, h.Why)
		d.do(h)
	}
}

// witnesses counts organisations with treated harm.
func (d *decision) witnesses() (n int) {
	for _, ev := range d.s.Evidence[1:] {
		if ev.TreatedEvents > 0 {
			n++
		}
	}
	return n
}

// recall ends admission for an organisation, or for all.
func (d *decision) recall(org holdfast.OrgID, phase holdfast.Phase, why string) {
	if org != "" {
		for _, ev := range d.s.Evidence[1:] {
			if !ev.Halted {
				return // others go on
			}
		}
	}
	d.s.Phase, d.s.Why = phase, why
}

// strongest names the signal and scope that contribute most to a party's E.
func (d *decision) strongest(party int) (signal, scope string) {
	best, v := 0.0, d.values[party]
	for sc := range d.layout.scopes() {
		for k := range d.layout.signals {
			i := d.layout.at(sc, k)
			w := max(d.layout.fastWeight(sc)*v.fast[i], d.layout.slowWeight(sc)*v.slow[i])
			if w > best {
				best, signal, scope = w, string(d.policy.Signals[k]), d.scopeName(sc)
			}
		}
	}
	return signal, scope
}

func (d *decision) scopeName(sc int) string {
	switch {
	case sc == 0:
		return "the whole fleet"
	case d.layout.isStratum(sc):
		return string(d.s.Strata[sc-1-d.layout.levels].Name)
	}
	return d.s.Levels[sc-1]
}

func (d *decision) harmedIn(org holdfast.OrgID) (n int) {
	for i := range d.units {
		if org == "" || d.units[i].org == org {
			n += d.units[i].harmed + d.units[i].late
		}
	}
	return n
}

func (d *decision) drawnIn(org holdfast.OrgID) (n int) {
	for i := range d.units {
		if org == "" || d.units[i].org == org {
			n += d.units[i].drawn
		}
	}
	return n
}
