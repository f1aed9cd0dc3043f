package rollout

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// suspicious is the evidence in a stratum from which one probe at a time
// settles it.
const suspicious = 50

// admit draws hosts: a probe where a stratum is suspicious, then one host for
// what nothing has covered, then at random within strata; all of it within the
// harm budget, globally and per stratum.
func (d *decision) admit() {
	if d.policy.Unchecked {
		d.everybody()
		return
	}
	if d.gathering() {
		return
	}
	a := allocation{
		d: d, room: d.room(), stage: d.stageRoom(),
		treat: make([]int, len(d.units)), bySite: make([]int, len(d.sites)), why: map[int]AdmitReason{},
	}
	a.probes()
	a.cover()
	a.paced()
	a.grant()
}

// gathering holds back the first block until most hosts have asked, or three
// heartbeats have passed: without them it would have no controls.
func (d *decision) gathering() bool {
	return d.s.NextBlock == 0 && d.now.Before(d.s.Started.Add(3*d.policy.Heartbeat)) &&
		(d.total.waiting+d.total.last)*10 < d.total.eligible*9
}

// kappa is how many hosts one clean host buys.
func (d *decision) kappa() float64 {
	if d.s.Phase == holdfast.Held {
		return d.policy.HoldKappa
	}
	return d.policy.Kappa
}

// room is what the global harm budget still lends, in ordinary hosts: pending
// times the largest lethality still plausible stays below B. With no host
// harmed that is pending ≤ κ·clean + c₀, where κ = B/ln(2/δ).
func (d *decision) room() float64 {
	r := d.kappa()*float64(d.total.clean) + float64(d.policy.C0)
	if x := d.excess(); x > 0 {
		b := d.kappa() * math.Log(2/d.policy.Delta)
		r = min(r, b/HarmBound(d.total.clean, x, d.policy.Delta)+float64(d.policy.C0))
	}
	for i := range d.sites {
		r -= d.policy.weight(d.sites[i].name) * float64(d.sites[i].open())
	}
	return r
}

// excess is how many treated hosts were harmed beyond what the harm among the
// controls of their strata explains within three standard deviations. It only
// sets the pace.
func (d *decision) excess() int {
	if d.total.harmed == 0 {
		return 0
	}
	var expected, variance float64
	for i := range d.sites {
		s := &d.sites[i]
		if s.controls == 0 {
			continue
		}
		ratio, harmed := float64(s.drawn)/float64(s.controls), float64(s.harmedControl)+.5
		expected += ratio * harmed
		variance += ratio*harmed + ratio*ratio*harmed
	}
	return max(0, int(math.Ceil(float64(d.total.harmed)-expected-3*math.Sqrt(variance))))
}

// siteRoom is the same within one stratum. A stratum starts with c₀ in
// proportion to its share of the fleet, but at least StratumC0.
func (d *decision) siteRoom(i int) int {
	s := &d.sites[i]
	first := float64(d.policy.StratumC0)
	if i < len(d.s.Strata) {
		first = max(first, math.Round(float64(d.policy.C0)*float64(d.s.Strata[i].Hosts)/float64(d.s.Fleet)))
	}
	r := (d.kappa()*float64(s.clean) + first) / d.policy.weight(s.name)
	return max(0, int(min(r, 1e12))-s.open())
}

func (p *Policy) weight(s holdfast.Stratum) float64 {
	for _, c := range p.Criticality {
		if c.Stratum == s {
			return c.Weight
		}
	}
	return 1
}

// An allocation decides how many hosts of each unit get the release now.
type allocation struct {
	d       *decision
	room    float64 // left of the global budget
	stage   int     // left of the stage's cap
	treat   []int   // by unit
	bySite  []int   // the same, by stratum
	why     map[int]AdmitReason
	single  []CellState // cells of merged strata, drawn by themselves
	noPaced bool        // the budget is used up: the one probe is all
}

// fits reports whether one more host of a unit fits the budgets.
func (a *allocation) fits(u *unit) bool {
	return a.stage >= 1 && a.room >= a.d.policy.weight(u.stratum) && a.d.siteRoom(u.site) > a.bySite[u.site]
}

// lend takes n hosts of a unit out of the budgets.
func (a *allocation) lend(u *unit, n int) {
	a.bySite[u.site] += n
	a.stage -= n
	a.room -= float64(n) * a.d.policy.weight(u.stratum)
}

func (a *allocation) take(i, n int, why AdmitReason) {
	a.treat[i] += n
	a.lend(&a.d.units[i], n)
	if _, ok := a.why[i]; !ok {
		a.why[i] = why
	}
}

// admissible reports whether hosts of the unit may be drawn at all now.
func (d *decision) admissible(u *unit) bool {
	if u.ring < 0 || u.ring >= len(d.s.Rings) || d.s.Rings[u.ring].Opened.IsZero() {
		return false
	}
	if d.s.Evidence[d.partyOf(u.org)].Halted {
		return false
	}
	return !slices.ContainsFunc(d.s.Paused, func(p Pausing) bool { return p.Org == "" || p.Org == u.org })
}

// probes gives one host to each suspicious stratum that has nothing pending:
// the halt must not wait for the pace. When the budget is used up, one probe in
// the whole fleet, and only when nothing at all is pending.
func (a *allocation) probes() {
	d := a.d
	var found []int
	for i := range d.sites {
		s := &d.sites[i]
		if s.harmed > 0 && s.pending() == 0 && (s.clean == 0 || d.siteEvidence(i) >= suspicious) {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(x, y int) int {
		return cmp.Or(cmp.Compare(d.siteEvidence(y), d.siteEvidence(x)), cmp.Compare(d.sites[y].eligible, d.sites[x].eligible))
	})
	for n, i := range found {
		last := a.room < d.policy.weight(d.sites[i].name)
		if last && (n > 0 || d.total.pending() > 0) {
			return
		}
		best := -1
		for j := range d.units {
			u := &d.units[j]
			if u.site == i && d.admissible(u) && u.waiting+u.watching+u.last > 0 && (best < 0 || u.waiting+u.watching > d.units[best].waiting+d.units[best].watching) {
				best = j
			}
		}
		if best >= 0 {
			a.take(best, 1, Probe)
			a.noPaced = a.noPaced || last
		}
	}
}

// siteEvidence is the largest fast e-value of a stratum over signals.
func (d *decision) siteEvidence(i int) float64 {
	if i >= len(d.s.Strata) {
		return 1
	}
	best, sc := 1.0, d.layout.stratum(i)
	for k := range d.layout.signals {
		best = max(best, d.s.Evidence[0].L.fast[d.layout.at(sc, k)].value())
	}
	return best
}

// cover gives one host to each cell of the plan that has none, in its order.
func (a *allocation) cover() {
	d := a.d
	first := slices.IndexFunc(d.s.Plan, func(c PlanCell) bool { return !c.Tried })
	if first < 0 || a.room < 1 || a.stage < 1 {
		return
	}
	groups := map[holdfast.Stratum][]int{} // unit indices, by stratum or fine cell
	for i := range d.units {
		u := &d.units[i]
		if u.waiting <= a.treat[i] || !d.admissible(u) {
			continue
		}
		for _, g := range u.cells {
			if d.in.Groups[g].Waiting > 0 {
				f := d.in.Groups[g].fine()
				groups[f] = append(groups[f], i)
			}
		}
	}
	for _, c := range d.s.Plan[first:] {
		if c.Tried || d.trying[c.Cell] {
			continue
		}
		for _, j := range groups[c.Cell] {
			if u := &d.units[j]; a.fits(u) {
				if u.stratum == c.Cell {
					a.take(j, 1, Cover)
				} else {
					a.coverFine(u, c.Cell)
				}
				break
			}
		}
		if a.room < 1 || a.stage < 1 {
			return
		}
	}
}

// coverFine draws one host of one cell of a merged stratum. Its controls come
// from the same cell, so that like is compared with like.
func (a *allocation) coverFine(u *unit, cell holdfast.Stratum) {
	waiting := 0
	for _, g := range u.cells {
		if a.d.in.Groups[g].fine() == cell {
			waiting += a.d.in.Groups[g].Waiting
		}
	}
	placebo := max(0, min(waiting-1, a.d.policy.ControlCap))
	a.lend(u, 1)
	u.promise(1 + placebo)
	a.single = append(a.single, CellState{
		Ring: u.ring, Org: u.org, Stratum: u.stratum, Cell: cell,
		Treat: 1, Placebo: placebo, Why: Cover,
	})
}

// floor is how many hosts of a unit stay on placebo until the others' windows
// have closed.
func (d *decision) floor(u *unit) int {
	p, n := d.policy, float64(u.eligible)
	small := math.Ceil(p.SmallControlShare * n)
	if d.s.Fleet < p.MediumFleet {
		return max(1, int(small))
	}
	return max(1, int(min(max(float64(p.ControlFloor), math.Ceil(p.ControlShare*n)), small)))
}

// supply is how many hosts of a unit may be treated now. lastToo says that
// those who go last are among them, uncontrolled that nobody is kept back.
func (d *decision) supply(u *unit) (n int, lastToo, uncontrolled bool) {
	waiting := u.waiting
	settled := u.pending()*50 <= u.clean && (u.drawn > 0 || u.eligible <= 1)
	proven := u.clean > 0 || u.eligible <= 1
	free := func(waiting int) int { return min(waiting, waiting+u.watching-d.floor(u)) }
	if n = free(waiting); n > 0 {
		return n, false, false
	}
	if u.last > 0 && (settled || u.eligible == u.last) {
		if n = free(waiting + u.last); n > 0 {
			return n, true, false
		}
	}
	if settled && proven && waiting+u.last > 0 {
		return waiting + u.last, u.last > 0, true
	}
	return 0, false, false
}

// paced shares what is left of the budget among strata, in proportion to who
// waits, within the budget of each.
func (a *allocation) paced() {
	d := a.d
	total := int(min(a.room, float64(a.stage), 1e9))
	if total < 1 || a.noPaced {
		return
	}
	want := make([]int, len(d.units))
	sum := 0
	siteLeft := make([]int, len(d.sites))
	for i := range d.sites {
		siteLeft[i] = max(0, d.siteRoom(i)-a.bySite[i])
	}
	for i := range d.units {
		u := &d.units[i]
		if !d.admissible(u) {
			continue
		}
		n, lastToo, alone := d.supply(u)
		if !alone && d.total.clean < wellProven {
			// At least one control for each treated host, or harm shows late.
			waiting := u.waiting
			if lastToo {
				waiting += u.last
			}
			n = min(n, max(1, waiting/2))
		}
		want[i] = max(0, min(n-a.treat[i], siteLeft[u.site]))
		siteLeft[u.site] -= want[i]
		sum += want[i]
	}
	if sum == 0 || !a.worthwhile(min(sum, total)) {
		return
	}
	for i, n := range apportion(want, min(total, sum)) {
		if n > 0 {
			why := Paced
			if _, _, alone := d.supply(&d.units[i]); alone {
				why = NoControl
			}
			a.take(i, n, why)
		}
	}
}

// worthwhile avoids splintering the controls over many tiny blocks: a paced
// block is opened for a twentieth of the clean hosts or of those that still
// wait, or twice a window.
func (a *allocation) worthwhile(n int) bool {
	d := a.d
	last := len(d.s.Blocks) - 1
	untreated := d.total.waiting + d.total.watching + d.total.last
	return last < 0 || n*20 >= min(d.total.clean, untreated) || !d.now.Before(d.s.Blocks[last].Opened.Add(d.policy.Fast/2))
}

// apportion divides total in proportion to want, by largest remainder, giving
// nobody more than he wants. total must not exceed the sum of want.
func apportion(want []int, total int) []int {
	sum := 0
	for _, w := range want {
		sum += w
	}
	got := make([]int, len(want))
	if sum == 0 {
		return got
	}
	type rest struct {
		i int
		r int64
	}
	var rests []rest
	left := total
	for i, w := range want {
		exact := int64(w) * int64(total)
		got[i] = int(exact / int64(sum))
		left -= got[i]
		if r := exact % int64(sum); r > 0 {
			rests = append(rests, rest{i, r})
		}
	}
	slices.SortStableFunc(rests, func(x, y rest) int { return cmp.Compare(y.r, x.r) })
	for _, x := range rests {
		if left == 0 {
			break
		}
		got[x.i]++
		left--
	}
	return got
}

// grant writes the cells of the block that is opened now.
func (a *allocation) grant() {
	d := a.d
	for i, n := range a.treat {
		if n == 0 {
			continue
		}
		u := &d.units[i]
		_, lastToo, alone := d.supply(u)
		why := a.why[i]
		waiting := u.waiting
		if why == Probe {
			waiting += u.watching
		}
		lastToo = lastToo || waiting < n && u.last > 0
		if lastToo {
			waiting += u.last
		}
		placebo := 0
		if why != NoControl || !alone {
			placebo = max(0, min(waiting-n, d.placebos(n)))
		}
		d.open(CellState{Ring: u.ring, Org: u.org, Stratum: u.stratum, Treat: n, Placebo: placebo, Why: why}, u.through, why == Probe, lastToo)
	}
	for _, c := range a.single {
		d.open(c, d.byKey(c).through, false, false)
	}
}

// While fewer hosts than wellProven are clean, a fault may still hide in few of
// them, and a few treated are best compared with many. Later a few placebos for
// each treated host do: more of them would only cut short the slow observation
// of those drawn before.
const (
	wellProven  = 50_000
	earlyRatio  = 10
	provenRatio = 2
)

// placebos is how many to draw beside n treated hosts of a stratum.
func (d *decision) placebos(n int) int {
	if d.total.clean >= wellProven {
		return provenRatio * n
	}
	return max(d.policy.ControlCap, earlyRatio*n)
}

func (d *decision) byKey(c CellState) *unit { return d.unit(unitKey{c.Ring, c.Org, c.Stratum}) }

func (d *decision) open(c CellState, through int, redraw, last bool) {
	d.granted = append(d.granted, c)
	d.do(Admit{
		Block: d.s.NextBlock, Ring: c.Ring, Through: through, Org: c.Org, Stratum: c.Stratum, Cell: c.Cell,
		Treat: c.Treat, Placebo: c.Placebo, Until: d.until(), Why: c.Why, Redraw: redraw, Last: last,
	})
}

// everybody is the rule of 19 July: all at once, no control, no check.
func (d *decision) everybody() {
	for i := range d.units {
		u := &d.units[i]
		if n := u.waiting + u.last - u.outstanding; n > 0 && d.admissible(u) {
			d.open(CellState{Ring: u.ring, Org: u.org, Stratum: u.stratum, Treat: n, Why: Anyway}, u.through, false, true)
		}
	}
}

// allOpen reports whether every ring is open.
func (d *decision) allOpen() bool {
	return !slices.ContainsFunc(d.s.Rings, func(r RingState) bool { return r.Opened.IsZero() })
}

// openRings opens the next ring when its publishers' soak has passed and the
// rings before it have done their part: nobody of them waits but the control
// floor, and their windows have closed. On HOLD it opens too, at HOLD's pace: a
// ring that is used up cannot settle what it raised.
func (d *decision) openRings() {
	for i := range d.s.Rings {
		if !d.s.Rings[i].Opened.IsZero() {
			continue
		}
		if d.now.Before(d.policy.Rings.Opens(i, d.policy.Signed)) {
			return
		}
		if !d.policy.Unchecked && !(d.s.Collapsed && i > 1) && i > 0 && !d.ringDone(i-1) {
			return
		}
		d.s.Rings[i].Opened = d.now
		d.do(OpenRing{Ring: i, Name: d.policy.Rings[i].Name})
	}
}

// ringDone reports whether ring r and those before it have shown what they
// can.
func (d *decision) ringDone(r int) bool {
	eligible, waiting, pending, drawn := 0, 0, 0, 0
	for i := range d.units {
		u := &d.units[i]
		if u.ring > r {
			continue
		}
		eligible += u.eligible
		pending += u.pending()
		drawn += u.drawn
		if n, _, _ := d.supply(u); n > 0 {
			waiting += n
		}
	}
	if eligible == 0 {
		return true
	}
	return waiting*100 <= eligible && pending*100 <= drawn && !d.now.Before(d.s.Rings[r].Opened.Add(d.policy.Fast))
}

// stageCap is how many hosts may be treated in the current stage.
func (d *decision) stageCap() int {
	if d.s.Stage >= len(d.policy.Stages) {
		return math.MaxInt32
	}
	st, n := d.policy.Stages[d.s.Stage], float64(d.s.Fleet)
	c := st.Share * n
	switch {
	case st.Hosts > 0 && st.Largest:
		c = max(c, float64(st.Hosts))
	case st.Hosts > 0:
		c = min(c, float64(st.Hosts))
	}
	if st.AtMost > 0 {
		c = min(c, st.AtMost*n)
	}
	return max(int(c), st.AtLeast, 1)
}

func (d *decision) stageRoom() int {
	return max(0, d.stageCap()-d.total.drawn-d.total.outstanding)
}

// slowEvidence is the pool's largest slow e-value over signals.
func (d *decision) slowEvidence() float64 {
	best := 1.0
	for k := range d.layout.signals {
		best = max(best, d.s.Evidence[0].L.slow[d.layout.at(0, k)].value())
	}
	return best
}

// advanceStage moves on when the stage's cap was reached, its hosts proved
// themselves, and its time has passed since. A stage is not left while its slow
// evidence points upward: the controls it has would be drawn anew.
func (d *decision) advanceStage() {
	if d.s.Stage >= len(d.policy.Stages) || d.policy.Unchecked {
		return
	}
	t := &d.total
	full := d.stageRoom() == 0 || t.waiting+t.last+t.watching == 0 && t.drawn > 0
	if d.s.StageFull.IsZero() {
		if full && t.pending()*100 <= t.drawn {
			d.s.StageFull = d.now
			d.note("stage %d of %d: %d hosts have the release, for %s", d.s.Stage+1, len(d.policy.Stages), t.drawn, d.policy.Stages[d.s.Stage].Hold.Round(time.Second))
		}
		return
	}
	if !d.now.Before(d.s.StageFull.Add(d.policy.Stages[d.s.Stage].Hold)) && d.s.Phase != holdfast.Held && d.slowEvidence() < d.policy.HoldAt {
		d.s.Stage++
		d.s.StageFull = time.Time{}
	}
}
