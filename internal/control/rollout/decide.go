package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Decide takes one step: people's commands, then new harm events in order,
// then (if nothing recalled the release) rings, stages, probes, coverage and
// pacing. It is total: every state and snapshot yields a state and actions,
// and rows that make no sense are noted and ignored. It never changes its
// arguments. The caller stores the state and carries the actions out in one
// transaction; a step that was not stored did not happen.
//
// A zero State begins the rollout. The policy must be valid, and the same in
// every step.
func Decide(p *Policy, s State, in Snapshot, now time.Time) (State, []Action) {
	d := decision{policy: p, s: s, in: in, now: now}
	if s.Schema == 0 {
		if !d.start() {
			return s, nil // nobody to release to yet
		}
	}
	d.own()
	d.outage()
	d.commands()
	d.survey()
	if !in.Outage {
		d.events()
		d.stop()
		d.storm()
	}
	d.pace()
	d.closeBlocks()
	if d.admitting() {
		d.openRings()
		d.advanceStage()
		d.admit()
	}
	d.finish()
	return d.s, d.actions
}

// A decision is one call of Decide: the state being made, and what was derived
// from the snapshot.
type decision struct {
	policy  *Policy
	s       State
	in      Snapshot
	now     time.Time
	actions []Action

	layout  layout
	values  []scopeValues // by party
	strata  map[holdfast.Stratum]int
	units   []unit
	byUnit  map[unitKey]int
	cells   []int   // backs the cells of units
	unitOf  []int32 // of every row of the snapshot's cells
	sites   []site  // by stratum
	total   tally
	granted []CellState               // of the block being opened
	trying  map[holdfast.Stratum]bool // cells with a treatment granted and not yet drawn
	owned   map[int]bool
	others  *bool // had theirs; nil: nobody has asked
}

func (d *decision) do(a Action) { d.actions = append(d.actions, a) }

func (d *decision) note(format string, args ...any) {
	d.do(Note{What: fmt.Sprintf(format, args...)})
}

// start freezes what the weights and the plan depend on. It reports false
// while no host is eligible.
func (d *decision) start() bool {
	p := d.policy
	hosts := map[holdfast.Stratum]int{}
	cells := map[holdfast.Stratum]int{}
	orgs := map[holdfast.OrgID]bool{}
	fleet := 0
	for _, g := range d.in.Groups {
		if g.Eligible <= 0 {
			continue
		}
		hosts[g.Stratum] += g.Eligible
		cells[g.fine()] += g.Eligible
		orgs[g.Org] = true
		fleet += g.Eligible
	}
	if fleet == 0 {
		return false
	}
	d.s = State{
		Schema: StateSchema, Phase: holdfast.Running, Started: d.now,
		Rings: make([]RingState, len(p.Rings)), Fleet: fleet, StopAt: 3,
		Collapsed: fleet < p.SmallFleet,
	}
	if p.Profile == holdfast.Emergency && p.Approved == "" {
		d.s.Phase, d.s.Why = holdfast.Waiting, "an emergency needs a second person"
	}
	levels := map[string]int{}
	for _, name := range sortedKeys(hosts) {
		st := StratumState{Name: name, Hosts: hosts[name]}
		for _, l := range name.Factors() {
			if !isLevel(l) {
				continue
			}
			if _, ok := levels[l]; !ok {
				levels[l] = len(d.s.Levels)
				d.s.Levels = append(d.s.Levels, l)
			}
			st.Levels = append(st.Levels, levels[l])
		}
		d.s.Strata = append(d.s.Strata, st)
	}
	d.s.Orgs = sortedKeys(orgs)
	for _, c := range PlanCoverage(cells, fleet).Order {
		d.s.Plan = append(d.s.Plan, PlanCell{Cell: c})
	}
	parties := 1
	if len(d.s.Orgs) > 1 {
		parties += len(d.s.Orgs)
	}
	a := layout{levels: len(d.s.Levels), strata: len(d.s.Strata), signals: len(p.Signals)}
	for i := range parties {
		e := Evidence{Limit: 1 / p.Alpha, E: 1, Peak: 1, Pooled: 1, L: newLikelihoods(a.scopes(), a.signals)}
		if i > 0 {
			e.Org = d.s.Orgs[i-1]
		}
		d.s.Evidence = append(d.s.Evidence, e)
	}
	return true
}

// own copies what this decision may change; blocks are copied when touched.
func (d *decision) own() {
	s := &d.s
	s.Rings, s.Blocks, s.Plan = slices.Clone(s.Rings), slices.Clone(s.Blocks), slices.Clone(s.Plan)
	s.Outages, s.Paused, s.Evidence = slices.Clone(s.Outages), slices.Clone(s.Paused), slices.Clone(s.Evidence)
	d.owned = map[int]bool{}
	d.layout = layout{levels: len(s.Levels), strata: len(s.Strata), signals: len(d.policy.Signals)}
	d.strata = make(map[holdfast.Stratum]int, len(s.Strata))
	for i, st := range s.Strata {
		d.strata[st.Name] = i
	}
}

// block returns block i of the state, which this decision may then change.
func (d *decision) block(i int) *BlockState {
	b := &d.s.Blocks[i]
	if !d.owned[i] {
		d.owned[i] = true
		b.Cells = slices.Clone(b.Cells)
		for j := range b.Cells {
			c := &b.Cells[j]
			c.Treated, c.Control = slices.Clone(c.Treated), slices.Clone(c.Control)
			c.LateTreated, c.LateControl = slices.Clone(c.LateTreated), slices.Clone(c.LateControl)
		}
	}
	return b
}

// outage keeps the intervals in which the control plane heard nobody.
func (d *decision) outage() {
	n := len(d.s.Outages)
	open := n > 0 && d.s.Outages[n-1].To.IsZero()
	switch {
	case d.in.Outage && !open:
		if n >= 64 {
			d.s.Outages = d.s.Outages[1:]
		}
		d.s.Outages = append(d.s.Outages, Interval{From: d.now})
		d.note("the control plane cannot hear the fleet: nothing is admitted, and no evidence moves")
	case !d.in.Outage && open:
		d.s.Outages[n-1].To = d.now
		d.note("the control plane hears the fleet again, after %s", d.now.Sub(d.s.Outages[n-1].From).Round(time.Second))
	}
}

// silencedByUs reports whether a silence that was noticed at t may be the
// control plane's own: a host needs three heartbeats after an outage to be
// heard again.
func (d *decision) silencedByUs(t time.Time) bool {
	for _, o := range d.s.Outages {
		if !t.Before(o.From) && (o.To.IsZero() || t.Before(o.To.Add(3*d.policy.Heartbeat))) {
			return true
		}
	}
	return false
}

// pace sets Running or Held from the pool's evidence.
func (d *decision) pace() {
	if d.s.Phase != holdfast.Running && d.s.Phase != holdfast.Held {
		return
	}
	e := d.s.Evidence[0].Pooled
	switch {
	case e >= d.policy.HoldAt && d.s.Phase == holdfast.Running:
		d.s.Phase, d.s.Why = holdfast.Held, fmt.Sprintf("pooled evidence %.3g: half a host for every clean one until it falls below %.3g", e, d.policy.HoldAt)
		d.do(Hold{Evidence: e})
	case e < d.policy.HoldAt && d.s.Phase == holdfast.Held:
		d.s.Phase, d.s.Why = holdfast.Running, ""
		d.do(Resume{Evidence: e})
	}
}

// closeBlocks ends fast windows: one window and one heartbeat after the last
// draw, every host that is well has said so.
func (d *decision) closeBlocks() {
	if d.in.Outage {
		return
	}
	for i := range d.s.Blocks {
		b := &d.s.Blocks[i]
		if !b.Closed && !d.now.Before(b.Until.Add(d.policy.Fast+d.policy.Heartbeat)) {
			b.Closed = true
			d.do(CloseBlock{Block: b.Block})
		}
	}
}

func (d *decision) admitting() bool {
	return !d.in.Outage && (d.s.Phase == holdfast.Running || d.s.Phase == holdfast.Held)
}

// finish writes the block that was opened, and sees whether all is done.
func (d *decision) finish() {
	away := d.away()
	d.s.Delayed = 0
	if d.s.Phase == holdfast.Running {
		d.s.Why = ""
	}
	if len(d.granted) > 0 {
		d.s.Blocks = append(d.s.Blocks, BlockState{
			Block: d.s.NextBlock, Opened: d.now, Until: d.until(), Cells: d.granted,
		})
		d.s.NextBlock++
		return
	}
	if d.admitting() && d.total.undone > 0 && d.room() < 1 && d.s.Phase == holdfast.Running {
		d.s.Why = fmt.Sprintf("%d hosts went back to what they had, though nothing failed; until they are offered it again and have proved themselves, nobody else is drawn", d.total.undone)
	}
	if !d.admitting() || !d.allOpen() {
		return
	}
	last := len(d.s.Blocks) - 1
	settled := last >= 0 && !d.now.Before(d.s.Blocks[last].Until.Add(d.policy.Fast))
	nobody := d.total.waiting == 0 && d.total.last == 0 && d.total.pending() == 0 && settled
	nearly := d.total.waiting*200 <= d.total.eligible && d.total.last == 0 && d.total.drawn*200 >= d.total.eligible*199 && d.total.pending()*100 <= d.total.drawn
	switch {
	case nobody && d.total.drawn > 0 && d.total.later > 0:
		// Those whose customers delay them are paced and compared like all others.
		d.s.Delayed = d.total.later
		if d.s.Phase == holdfast.Running {
			d.s.Why = fmt.Sprintf("waits for %d hosts whose organisations allow it later", d.total.later)
		}
	case nobody && d.total.drawn > 0 && away > 0 && d.now.Before(d.s.Blocks[last].Until.Add(d.policy.Slow)):
		d.s.Delayed = away
		if d.s.Phase == holdfast.Running {
			d.s.Why = fmt.Sprintf("waits for %d hosts that were here and are away: coming all at once, they would be too many", away)
		}
	case nobody && d.total.drawn > 0, nearly && settled:
		d.complete()
	}
}

// away counts the hosts that were here since the rollout began, have not been
// drawn, and are away. Who comes after a rollout is complete is compared with
// nobody: none are counted only as long as the harm budget allows them all to
// come at once. A network that fails when few hosts have the release must not
// make it complete.
func (d *decision) away() int {
	t := &d.total
	here := t.drawn + t.later + t.comparable()
	d.s.Seen = max(d.s.Seen, here)
	n := min(d.s.Seen, t.eligible) - here
	if float64(n) <= d.policy.Kappa*float64(t.clean)+float64(d.policy.C0) {
		return 0
	}
	return n
}

func (d *decision) complete() {
	d.s.Phase, d.s.Why, d.s.Delayed = holdfast.Complete, "", 0
	d.do(Complete{Exposed: d.total.drawn})
}

// until is when a block opened now stops drawing: every host asks at least
// once in two heartbeats.
func (d *decision) until() time.Time { return d.now.Add(2 * d.policy.Heartbeat) }
