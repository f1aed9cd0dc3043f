package rollout

import (
	"fmt"

	"github.com/holdfast-security/holdfast"
)

// events takes the new harm rows into account, in order, and halts at the
// event that brings E to its limit. Later events are counted, but the evidence
// stays as it was when it decided.
func (d *decision) events() {
	var places map[cellKey]*place
	signals := map[holdfast.HarmKind]int{}
	for k, s := range d.policy.Signals {
		signals[s] = k
	}
	for i := range d.in.Events {
		e := &d.in.Events[i]
		if e.Seq <= d.s.EventSeq {
			continue
		}
		if places == nil {
			places = d.placesOfEvents()
			d.evaluate()
		}
		d.s.EventSeq = e.Seq
		at := places[e.key()]
		k, watched := signals[e.Kind]
		switch {
		case !watched:
		case at == nil:
			d.note("harm row %d names a cell that was never opened, and is ignored", e.Seq)
		case e.Kind == holdfast.Silence && d.silencedByUs(e.At):
			d.void(at, e)
		default:
			d.count(at, e, k)
		}
	}
}

// A place is a cell that new events name: what the state knows of it, what was
// observed, and what an event there moves.
type place struct {
	state  *CellState
	row    *Cell
	unit   int // in decision.units
	site   int // in decision.sites
	scopes []int
	grids  []*fastGrid
	party  int // the organisation's evidence; 0 if there is but one
}

func (d *decision) placesOfEvents() map[cellKey]*place {
	places := map[cellKey]*place{}
	blocks := map[int]bool{}
	units := make([]bool, len(d.units))
	at := 0
	for i := range d.in.Events {
		e := &d.in.Events[i]
		places[e.key()], blocks[e.Block] = nil, true
		if at = d.unitNear(at+1, e.Ring, e.Org, e.Stratum); at < len(units) {
			units[at] = true
		}
	}
	for i := range blocks {
		if i < 0 || i >= len(d.s.Blocks) {
			continue
		}
		b := d.block(i)
		for j := range b.Cells {
			c := &b.Cells[j]
			if at = d.unitNear(at+1, c.Ring, c.Org, c.Stratum); at < len(units) && !units[at] {
				continue
			}
			if _, wanted := places[c.key(b.Block)]; wanted {
				places[c.key(b.Block)] = d.place(c)
			}
		}
	}
	for i := range d.in.Cells {
		if !units[d.unitOf[i]] {
			continue
		}
		if c := &d.in.Cells[i]; blocks[c.Block] {
			if at := places[c.key()]; at != nil {
				at.row = c
			}
		}
	}
	return places
}

func (d *decision) place(c *CellState) *place {
	k := unitKey{c.Ring, c.Org, c.Stratum}
	site := d.unit(k).site
	return &place{
		state: c, row: &Cell{}, unit: d.byUnit[k], site: site, scopes: d.scopes(site),
		grids: make([]*fastGrid, d.layout.signals), party: d.partyOf(c.Org),
	}
}

// scopes lists what an event in a stratum moves: the pool, and the levels and
// the stratum itself if it was there at the start.
func (d *decision) scopes(site int) []int {
	scopes := []int{0}
	if site < len(d.s.Strata) {
		for _, l := range d.s.Strata[site].Levels {
			scopes = append(scopes, d.layout.level(l))
		}
		scopes = append(scopes, d.layout.stratum(site))
	}
	return scopes
}

func (d *decision) evaluate() {
	if d.values != nil {
		return
	}
	d.values = make([]scopeValues, len(d.s.Evidence))
	for i := range d.s.Evidence {
		e := &d.s.Evidence[i]
		e.L = e.L.clone()
		d.values[i], e.E, e.Pooled = d.layout.combine(&e.L)
	}
}

func (d *decision) void(at *place, e *Event) {
	if e.Treated && e.First {
		at.state.Void++
		d.units[at.unit].void++
		d.sites[at.site].void++
		d.total.void++
	}
}

// count lets one event move the evidence, and then takes its host out of the
// risk set of its kind.
func (d *decision) count(at *place, e *Event, k int) {
	c, t, n := at.state, &at.row.Treated, &at.row.Control
	// A host that was silent for three heartbeats fell silent before that.
	fast := e.After <= d.policy.Fast || e.Kind == holdfast.Silence && e.After <= d.policy.Fast+3*d.policy.Heartbeat
	// A host harmed in one way stays at risk of the others until its window
	// closes; so a row's Clean and Left hold only hosts without any harm.
	if fast {
		y, n := atLeast(e.Treated, t.Drawn-t.Clean-t.Left-t.Undone-nth(c.Treated, k), n.Drawn-n.Clean-n.Left-nth(c.Control, k))
		d.moveFast(0, at, e, k, y, n)
		if at.party > 0 {
			d.moveFast(at.party, at, e, k, y, n)
		}
	}
	if e.After <= d.policy.Slow {
		// Whoever is Gone with harm of this kind is subtracted twice. Fewer
		// controls than there are only weaken the evidence, so that is done
		// for controls alone.
		y, n := atLeast(e.Treated, t.Drawn-t.Left-t.Undone-t.Ended-nth(c.Treated, k)-nth(c.LateTreated, k), n.Drawn-n.Left-n.Ended-n.Gone-nth(c.Control, k)-nth(c.LateControl, k))
		d.moveSlow(0, at, e.Treated, k, y, n)
		if at.party > 0 {
			d.moveSlow(at.party, at, e.Treated, k, y, n)
		}
	}
	d.tell(0, e.Treated)
	if at.party > 0 {
		d.tell(at.party, e.Treated)
	}
	d.record(at, e, k, fast)
	d.halt(e)
}

// listens reports whether a party's evidence still moves.
func (d *decision) listens(party int) bool {
	return !d.s.Evidence[party].Halted && !d.s.Phase.Recalling()
}

func (d *decision) tell(party int, treated bool) {
	if !d.listens(party) {
		return
	}
	ev := &d.s.Evidence[party]
	if treated {
		ev.TreatedEvents++
	} else {
		ev.ControlEvents++
	}
	ev.Peak = max(ev.Peak, ev.E)
}

// atLeast makes the risk set hold the host the event fell on.
func atLeast(treated bool, y, c int) (int, int) {
	if treated {
		return max(y, 1), max(c, 0)
	}
	return max(y, 0), max(c, 1)
}

func nth(n []int, k int) int {
	if k < len(n) {
		return n[k]
	}
	return 0
}

func (d *decision) moveFast(party int, at *place, e *Event, k, y, c int) {
	if !d.listens(party) {
		return
	}
	g := at.grids[k]
	if g == nil {
		x := fastGridFor(d.policy.rate(e.Stratum, e.Kind), d.policy.ThetaFast)
		g = &x
		at.grids[k] = g
	}
	step := g.step(e.Treated, share(y, c, d.policy.ThetaFast))
	ev, values := &d.s.Evidence[party], d.values[party].fast
	for _, scope := range at.scopes {
		i := d.layout.at(scope, k)
		delta := values[i].move(&ev.L.fast[i], &step)
		ev.E += d.layout.fastWeight(scope) * delta
		if scope == 0 {
			ev.Pooled += delta / float64(d.layout.signals)
		}
	}
	ev.Ratio.step(e.Treated, y, c)
}

func (d *decision) moveSlow(party int, at *place, treated bool, k, y, c int) {
	if !d.listens(party) {
		return
	}
	step := stepSlow(treated, share(y, c, d.policy.ThetaSlow))
	ev, values := &d.s.Evidence[party], d.values[party].slow
	for _, scope := range at.scopes {
		w := d.layout.slowWeight(scope)
		if w == 0 {
			continue
		}
		i := d.layout.at(scope, k)
		ev.E += w * values[i].move(&ev.L.slow[i], &step)
	}
}

func (d *decision) record(at *place, e *Event, k int, fast bool) {
	n, c, u := len(d.policy.Signals), at.state, &d.units[at.unit].tally
	bump := func(s *[]int) {
		if *s == nil {
			*s = make([]int, n)
		}
		(*s)[k]++
	}
	switch {
	case e.Treated && fast:
		bump(&c.Treated)
		if e.First {
			c.HarmedTreated++
			u.harmed++
			d.sites[at.site].harmed++
			d.total.harmed++
		}
	case e.Treated:
		bump(&c.LateTreated)
		if e.First {
			c.LateHarmedTreated++
			u.late++
		}
	case fast:
		bump(&c.Control)
		if e.First {
			c.HarmedControl++
			u.harmedControl++
			d.sites[at.site].harmedControl++
			d.total.harmedControl++
		}
	default:
		bump(&c.LateControl)
		if e.First {
			c.LateHarmedControl++
		}
	}
}

// halt recalls the release for every party whose evidence reached its limit.
// One organisation's hosts, hostile or broken, can only recall its own part:
// the pool needs treated harm in two of them, where there are two.
func (d *decision) halt(e *Event) {
	if !halting || d.s.Phase.Recalling() {
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
			w := max(d.layout.fastWeight(sc)*v.fast[i].value, d.layout.slowWeight(sc)*v.slow[i].value)
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
