package rollout

import (
	"cmp"
	"math"
	"slices"

	"github.com/holdfast-security/holdfast"
)

// suspicious is the evidence in a stratum from which one probe at a time
// settles it.
const suspicious = 50

// admit draws hosts: a probe where a stratum is suspicious, then one host for
// what nothing has covered, then at random within strata; all of it within the
// harm budget, globally and per stratum.
func (d *decision) admit() {
	if !halting {
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

// An allocation decides how many hosts of each unit get the release now.
type allocation struct {
	d       *decision
	room    float64 // left of the global budget
	stage   int     // left of the stage's cap
	treat   []int   // by unit
	bySite  []int   // the same, by stratum
	why     map[int]AdmitReason
	single  []single // cells of merged strata, drawn by themselves
	noPaced bool     // the budget is used up: the one probe is all
}

type single struct {
	CellState
	last bool // those who go last are drawn for it
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
	return u.ring >= 0 && u.ring < len(d.s.Rings) && !d.s.Rings[u.ring].Opened.IsZero() && d.allowed(u)
}

// allowed reports whether the unit's organisation has neither paused the
// release nor had it recalled.
func (d *decision) allowed(u *unit) bool {
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

// cover gives one host to each cell of the plan that has none, in its order. Who
// must go last is not asked before all others had theirs.
func (a *allocation) cover() {
	d := a.d
	first := slices.IndexFunc(d.s.Plan, func(c PlanCell) bool { return !c.Tried })
	if first < 0 || a.room < 1 || a.stage < 1 {
		return
	}
	groups := map[holdfast.Stratum][]int{} // unit indices, by stratum or fine cell
	for i := range d.units {
		u := &d.units[i]
		if u.waiting+a.late(u.last) <= a.treat[i] || !d.admissible(u) {
			continue
		}
		for _, g := range u.cells {
			if d.in.Groups[g].Waiting+a.late(d.in.Groups[g].Last) > 0 {
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

// late is how many of n that must go last may be drawn to cover something.
func (a *allocation) late(n int) int {
	if n > 0 && a.d.othersHadTheirs() {
		return n
	}
	return 0
}

// coverFine draws one host of one cell of a merged stratum. Its controls come
// from the same cell, so that like is compared with like.
func (a *allocation) coverFine(u *unit, cell holdfast.Stratum) {
	waiting, last := 0, 0
	for _, g := range u.cells {
		if a.d.in.Groups[g].fine() == cell {
			waiting += a.d.in.Groups[g].Waiting
			last += a.late(a.d.in.Groups[g].Last)
		}
	}
	lastToo := waiting == 0
	if lastToo {
		waiting = last
	}
	placebo := max(0, min(waiting-1, a.d.policy.ControlCap))
	a.lend(u, 1)
	u.promise(1 + placebo)
	a.single = append(a.single, single{CellState{
		Ring: u.ring, Org: u.org, Stratum: u.stratum, Cell: cell,
		Treat: 1, Placebo: placebo, Why: Cover,
	}, lastToo})
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

// stranded reports whether so few of a unit's hosts are there that all of them
// would be kept back, with nobody treated to compare them with: the others are
// away.
func (d *decision) stranded(u *unit) bool {
	n := u.waiting + u.watching + u.last
	return n > 0 && u.drawn+u.outstanding == 0 && u.eligible > n && n <= d.floor(u)
}

// supply is how many hosts of a unit may be treated now. lastToo says that
// those who go last are among them, uncontrolled that nobody is kept back.
func (d *decision) supply(u *unit) (n int, lastToo, uncontrolled bool) {
	waiting := u.waiting
	settled := u.pending()*50 <= u.clean && (u.drawn > 0 || u.eligible <= 1)
	proven := u.clean > 0 || u.eligible <= 1
	floor := d.floor(u)
	if d.stranded(u) && d.othersHadTheirs() {
		if floor = (waiting + u.watching + u.last) / 2; floor == 0 {
			return 1, u.last > 0, true
		}
	}
	free := func(waiting int) int { return min(waiting, waiting+u.watching-floor) }
	if n = free(waiting); n > 0 {
		return n, false, false
	}
	if u.last > 0 && u.drawn == 0 && waiting+u.watching == 0 {
		// Only such as go last, and none was first.
		if !d.othersHadTheirs() {
			return 0, false, false
		}
		settled = true
	}
	if u.last > 0 && settled {
		if n = free(waiting + u.last); n > 0 {
			return n, true, false
		}
	}
	if settled && proven && waiting+u.last > 0 {
		return waiting + u.last, u.last > 0, true
	}
	return 0, false, false
}

// othersHadTheirs reports whether everybody who need not go last was drawn, in
// whatever stratum, ring and organisation, but for the control floors, and has
// proved itself.
func (d *decision) othersHadTheirs() bool {
	if d.others == nil {
		done := d.total.pending()*50 <= d.total.clean
		for i := 0; done && i < len(d.units); i++ {
			u := &d.units[i]
			done = u.waiting == 0 || !d.allowed(u) || u.drawn > 0 && u.waiting+u.watching <= d.floor(u) || d.stranded(u)
		}
		d.others = &done
	}
	return *d.others
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
		d.open(c.CellState, d.byKey(c.CellState).through, false, c.last)
	}
}

// A few treated hosts are best compared with many, so as long as they are few
// in a stratum ControlCap placebos are drawn beside them. Beyond that a ratio
// does: more placebos would only cut short the slow observation of those drawn
// before, all the more when much is proven, or when stages wait for it.
const (
	few         = 100
	fewInStages = 20
	earlyRatio  = 10
	wellProven  = 50_000 // clean hosts
	provenRatio = 3
)

// placebos is how many to draw beside n treated hosts of a stratum.
func (d *decision) placebos(n int) int {
	switch {
	case d.total.clean >= wellProven:
		return provenRatio * n
	case n < fewInStages, n < few && len(d.policy.Stages) == 0:
		return d.policy.ControlCap
	}
	return earlyRatio * n
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
