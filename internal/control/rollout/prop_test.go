package rollout

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func testPolicy(profile holdfast.Profile) Policy {
	p := DefaultPolicy(profile)
	p.Release, p.By, p.Signed = "r", "ada", begin
	p.Rings = holdfast.RingPlan{{Name: "internal", Through: 100_000}, {Name: "general", Through: 1_000_000, Soak: 10 * time.Minute}}
	return p
}

var compare = cmp.Options{cmp.AllowUnexported(Likelihoods{}), cmpopts.EquateEmpty()}

// A toy fleet obeys the controller: it draws what was admitted, and its hosts
// then prove clean, fall to harm, or leave, as the generator says.
type toy struct {
	policy Policy
	groups []Group
	cells  map[cellKey]*Cell
	order  []cellKey
	harmed map[cellKey][2]int
	events []Event
	seq    int64
	cmds   int64
	drawn  int
}

func drawToy(t *rapid.T) *toy {
	profile := rapid.SampledFrom([]holdfast.Profile{holdfast.Urgent, holdfast.Standard, holdfast.Emergency}).Draw(t, "profile")
	y := &toy{policy: testPolicy(profile), cells: map[cellKey]*Cell{}, harmed: map[cellKey][2]int{}}
	y.policy.Signals = []holdfast.HarmKind{holdfast.Crash, holdfast.Silence}
	orgs := []holdfast.OrgID{"a"}
	if rapid.Bool().Draw(t, "two organisations") {
		orgs = append(orgs, "b")
	}
	strata := rapid.SampledFrom([]int{1, 2, 7}).Draw(t, "strata")
	size := rapid.SampledFrom([]int{1, 3, 60, 900, 200_000}).Draw(t, "hosts a stratum")
	for _, o := range orgs {
		for i := range strata {
			s := holdfast.Stratum("6." + string(rune('0'+i)) + "|debian-12|1.0|server")
			for ring := range y.policy.Rings {
				n := size/10 + (size-2*(size/10))*ring
				y.groups = append(y.groups, Group{Ring: ring, Org: o, Stratum: s, Eligible: n, Waiting: n - n/20, Last: n / 20})
			}
		}
	}
	return y
}

func (y *toy) snapshot(t *rapid.T, now time.Time) Snapshot {
	in := Snapshot{Groups: append([]Group(nil), y.groups...), Outage: rapid.IntRange(0, 9).Draw(t, "outage") == 0}
	for i := range in.Groups {
		if g := &in.Groups[i]; now.Before(y.policy.Rings.Opens(g.Ring, y.policy.Signed)) {
			g.Waiting, g.Watching, g.Last = 0, 0, 0
		}
	}
	for _, k := range y.order {
		in.Cells = append(in.Cells, *y.cells[k])
	}
	in.Events, y.events = y.events, nil
	if rapid.IntRange(0, 7).Draw(t, "command") == 0 {
		y.cmds++
		in.Commands = append(in.Commands, Command{
			Seq:    y.cmds,
			Kind:   rapid.SampledFrom([]CommandKind{Approve, HaltNow, Pause, Continue, Override, "nonsense"}).Draw(t, "kind"),
			By:     rapid.SampledFrom([]string{"", "ada", "bob"}).Draw(t, "by"),
			Second: rapid.SampledFrom([]string{"", "ada", "cyd"}).Draw(t, "second"),
			Org:    rapid.SampledFrom([]holdfast.OrgID{"", "", "a", "b", "z"}).Draw(t, "org"),
			At:     now, Acknowledged: rapid.IntRange(0, 3).Draw(t, "acknowledged"),
		})
	}
	return in
}

func (y *toy) carryOut(as []Action) {
	for _, a := range as {
		m, ok := a.(Admit)
		if !ok {
			continue
		}
		k := cellKey{m.Block, m.Ring, m.Org, m.Stratum, m.Cell}
		c := y.cells[k]
		if c == nil {
			c = &Cell{Block: m.Block, Ring: m.Ring, Org: m.Org, Stratum: m.Stratum, Cell: m.Cell}
			y.cells[k] = c
			y.order = append(y.order, k)
		}
		treat, placebo := m.Treat, m.Placebo
		for i := range y.groups {
			g := &y.groups[i]
			if g.Ring < m.Ring || g.Ring > m.Through || g.Org != m.Org || g.Stratum != m.Stratum {
				continue
			}
			for _, pool := range []*int{&g.Waiting, &g.Watching, &g.Last} {
				if pool == &g.Last && !m.Last || pool == &g.Watching && !m.Redraw {
					continue
				}
				n := min(*pool, treat)
				*pool, treat = *pool-n, treat-n
				c.Treated.Drawn += n
				y.drawn += n
			}
			n := min(g.Waiting, placebo)
			g.Waiting, placebo = g.Waiting-n, placebo-n
			c.Control.Drawn += n
		}
	}
}

// live lets what was drawn prove itself or not.
func (y *toy) live(t *rapid.T, now time.Time, lethal bool) {
	for _, k := range y.order {
		c := y.cells[k]
		h := y.harmed[k]
		for arm, a := range []*Arm{&c.Treated, &c.Control} {
			if a.Undone > 0 && rapid.IntRange(0, 3).Draw(t, "proves itself") == 0 {
				a.Undone, a.Clean, a.Ended = a.Undone-1, a.Clean+1, a.Ended+1
			}
			open := a.Drawn - a.Clean - a.Left - a.Undone - h[arm]
			if open <= 0 {
				continue
			}
			switch rapid.IntRange(0, 5).Draw(t, "fate") {
			case 0, 1:
				if arm == 1 || !lethal {
					a.Clean += open
					if arm == 1 {
						y.back(c, open)
					}
				}
			case 2:
				if arm == 0 || rapid.IntRange(0, 4).Draw(t, "control harm") == 0 {
					n := min(open, rapid.IntRange(1, 3).Draw(t, "harmed"))
					for range n {
						y.seq++
						y.events = append(y.events, Event{
							Seq: y.seq, Block: c.Block, Ring: c.Ring, Org: c.Org, Stratum: c.Stratum, Cell: c.Cell, Treated: arm == 0,
							Kind:  rapid.SampledFrom([]holdfast.HarmKind{holdfast.Crash, holdfast.Silence, holdfast.Memory}).Draw(t, "harm"),
							First: true, At: now, After: time.Duration(rapid.IntRange(0, 1500).Draw(t, "after")) * time.Minute,
						})
					}
					h[arm] += n
					y.harmed[k] = h
				}
			case 3:
				a.Left++
			case 4:
				if arm == 0 {
					a.Undone++
				}
			}
		}
	}
}

func (y *toy) back(c *Cell, n int) {
	for i := range y.groups {
		if g := &y.groups[i]; g.Org == c.Org && g.Stratum == c.Stratum && g.Ring == c.Ring {
			g.Waiting += n
			return
		}
	}
}

// TestRolloutProperties steps a toy fleet through random fates and checks the
// named properties after every step.
func TestRolloutProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := drawToy(t)
		lethal := rapid.Bool().Draw(t, "lethal")
		var s State
		now := begin
		granted := map[cellKey]bool{}
		for step := range rapid.IntRange(1, 25).Draw(t, "steps") {
			in := y.snapshot(t, now)
			before, _ := json.Marshal(s)
			inBefore, _ := json.Marshal(in)
			next, actions := Decide(&y.policy, s, in, now)

			pure(t, y, s, before, in, inBefore, next, actions, now)
			survivesStorage(t, y, next, now)
			outageMovesNoEvidence(t, s, in, next, actions)
			noAdmissionOutOfPlace(t, y, s, in, next, actions, now)
			neverGrantedTwice(t, y, next, in, actions, granted, now)
			withinTheBudget(t, y, next)
			haltsAtTheLimit(t, y, next)

			s = next
			y.carryOut(actions)
			now = now.Add(time.Duration(rapid.IntRange(1, 300).Draw(t, "seconds")) * time.Second)
			y.live(t, now, lethal)
			_ = step
		}
	})
}

// pure: Decide changes none of its arguments, and gives the same answer twice.
func pure(t *rapid.T, y *toy, s State, before []byte, in Snapshot, inBefore []byte, next State, actions []Action, now time.Time) {
	if after, _ := json.Marshal(s); string(after) != string(before) {
		t.Fatalf("Decide changed the state it was given")
	}
	if after, _ := json.Marshal(in); string(after) != string(inBefore) {
		t.Fatalf("Decide changed the snapshot it was given")
	}
	again, same := Decide(&y.policy, s, in, now)
	if d := cmp.Diff(next, again, compare); d != "" {
		t.Fatalf("the same step gave another state:\n%s", d)
	}
	if d := cmp.Diff(actions, same); d != "" {
		t.Fatalf("the same step gave other actions:\n%s", d)
	}
}

// survivesStorage: a state that was stored and loaded decides the same.
func survivesStorage(t *rapid.T, y *toy, s State, now time.Time) {
	if s.Schema == 0 {
		return
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatalf("a state could not be stored: %v", err)
	}
	loaded, err := Load(b)
	if err != nil {
		t.Fatalf("a state could not be loaded: %v", err)
	}
	if d := cmp.Diff(s, loaded, compare); d != "" {
		t.Fatalf("storage changed the state:\n%s", d)
	}
}

// outageMovesNoEvidence: the control plane's own outage is not evidence, and
// admits nobody.
func outageMovesNoEvidence(t *rapid.T, s State, in Snapshot, next State, actions []Action) {
	if !in.Outage || s.Schema == 0 {
		return
	}
	for i := range s.Evidence {
		if s.Evidence[i].E != next.Evidence[i].E {
			t.Fatalf("evidence moved from %g to %g in an outage", s.Evidence[i].E, next.Evidence[i].E)
		}
	}
	if next.EventSeq != s.EventSeq {
		t.Fatalf("harm rows were taken in an outage")
	}
	for _, a := range actions {
		if _, ok := a.(Admit); ok {
			t.Fatalf("hosts were admitted in an outage")
		}
	}
}

// noAdmissionOutOfPlace: nobody is admitted after HALT or STOP, while paused or
// waiting, to a ring that is closed or soaks, or to an organisation whose part
// was recalled.
func noAdmissionOutOfPlace(t *rapid.T, y *toy, s State, in Snapshot, next State, actions []Action, now time.Time) {
	for _, a := range actions {
		if r, ok := a.(OpenRing); ok && now.Before(y.policy.Rings.Opens(r.Ring, y.policy.Signed)) {
			t.Fatalf("ring %s opened before its soak had passed", r.Name)
		}
		m, ok := a.(Admit)
		if !ok {
			continue
		}
		switch {
		case next.Phase != holdfast.Running && next.Phase != holdfast.Held:
			t.Fatalf("admission in phase %s", next.Phase)
		case next.Rings[m.Ring].Opened.IsZero() || now.Before(y.policy.Rings.Opens(m.Ring, y.policy.Signed)):
			t.Fatalf("admission to ring %d before it opened", m.Ring)
		case m.Treat < 1 || m.Placebo < 0 || m.Treat > 1<<30:
			t.Fatalf("admission of %d and %d hosts", m.Treat, m.Placebo)
		}
		for i, e := range next.Evidence {
			if e.Halted && (i == 0 || e.Org == m.Org) {
				t.Fatalf("admission to %q, which was recalled", m.Org)
			}
		}
		for _, p := range next.Paused {
			if p.Org == "" || p.Org == m.Org {
				t.Fatalf("admission while paused")
			}
		}
	}
}

// neverGrantedTwice: a cell is opened at most once, and the same observation
// seen again admits nobody more.
func neverGrantedTwice(t *rapid.T, y *toy, next State, in Snapshot, actions []Action, granted map[cellKey]bool, now time.Time) {
	admitted := map[unitKey]int{}
	for _, a := range actions {
		if m, ok := a.(Admit); ok {
			k := cellKey{m.Block, m.Ring, m.Org, m.Stratum, m.Cell}
			if granted[k] {
				t.Fatalf("cell %+v was opened twice", k)
			}
			granted[k] = true
			admitted[unitKey{m.Ring, m.Org, m.Stratum}] += m.Treat + m.Placebo
		}
	}
	_, more := Decide(&y.policy, next, in, now)
	for _, a := range more {
		if m, ok := a.(Admit); ok && m.Why != Probe && admitted[unitKey{m.Ring, m.Org, m.Stratum}] > 0 {
			available := 0
			for _, g := range in.Groups {
				if g.Org == m.Org && g.Stratum == m.Stratum && g.Ring >= m.Ring && g.Ring <= m.Through {
					available += g.Waiting + g.Watching + g.Last
				}
			}
			before := admitted[unitKey{m.Ring, m.Org, m.Stratum}]
			if before+m.Treat+m.Placebo > available {
				t.Fatalf("the same snapshot drew %d hosts and then %d, of %d", before, m.Treat+m.Placebo, available)
			}
		}
	}
}

// withinTheBudget: pending hosts never exceed κ·clean + c₀, counting what is
// granted and not yet drawn; a probe may go beyond it, alone.
func withinTheBudget(t *rapid.T, y *toy, s State) {
	if s.Schema == 0 {
		return
	}
	var granted, drawn, clean, left, harmed, probes, void int
	for _, b := range s.Blocks {
		for _, c := range b.Cells {
			granted += c.Treat
			harmed += c.HarmedTreated
			void += c.Void
			if c.Why == Probe {
				probes += c.Treat
			}
		}
	}
	for _, k := range y.order {
		drawn += y.cells[k].Treated.Drawn
		clean += y.cells[k].Treated.Clean
		left += y.cells[k].Treated.Left
	}
	if pending := granted - clean - left - harmed - void - probes; float64(pending) > y.policy.Kappa*float64(clean)+float64(y.policy.C0) {
		t.Fatalf("%d pending, %d clean (granted %d, drawn %d)", pending, clean, granted, drawn)
	}
}

// haltsAtTheLimit: evidence at its limit has recalled the release, unless the
// pool has a single witness.
func haltsAtTheLimit(t *rapid.T, y *toy, s State) {
	for i, e := range s.Evidence {
		if math.IsNaN(e.E) || math.IsInf(e.E, 0) || e.E < 0 {
			t.Fatalf("evidence is %g", e.E)
		}
		if e.E < e.Limit || e.Halted || s.Phase.Recalling() {
			continue
		}
		if i == 0 && len(s.Evidence) > 1 {
			if n := (&decision{s: s}).witnesses(); n < 2 {
				continue
			}
		}
		t.Fatalf("evidence %g reached %g and nothing was recalled (phase %s)", e.E, e.Limit, s.Phase)
	}
}

// TestFactorIsFair: under exchangeability with tolerance θ the expectation of
// every factor is 1, and below the tolerated hazard ratio it is at most 1.
func TestFactorIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := math.Pow(10, rapid.Float64Range(-6, -.4).Draw(t, "log10 q"))
		theta := rapid.Float64Range(1, 3).Draw(t, "theta")
		y := rapid.IntRange(1, 1_000_000).Draw(t, "y")
		c := rapid.IntRange(0, 10_000_000).Draw(t, "c")
		ratio := rapid.Float64Range(.01, 1).Draw(t, "hazard ratio / theta")
		expect := func(hr float64, treated, control float64) float64 {
			p := hr * float64(y) / (hr*float64(y) + float64(c))
			return p*math.Exp(treated) + (1-p)*math.Exp(control)
		}
		g := fastGridFor(q, theta)
		pi := share(y, c, theta)
		up, down := g.step(true, pi), g.step(false, pi)
		upS, downS := stepSlow(true, pi), stepSlow(false, pi)
		check := func(up, down float64) {
			if e := expect(theta, up, down); math.Abs(e-1) > 1e-9 {
				t.Fatalf("the factor's expectation at the boundary is %.12f", e)
			}
			if e := expect(theta*ratio, up, down); e > 1+1e-9 {
				t.Fatalf("the factor's expectation below the boundary is %.12f", e)
			}
		}
		for i := range up.log {
			check(up.log[i], down.log[i])
			check(math.Log(up.factor[i]), math.Log(down.factor[i]))
		}
		for i := range upS.log {
			check(upS.log[i], downS.log[i])
		}
	})
}

// TestWeightsSumToOne: the combination is an average, so it is an e-value.
func TestWeightsSumToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := layout{rapid.IntRange(0, 40).Draw(t, "levels"), rapid.IntRange(1, 300).Draw(t, "strata"), rapid.IntRange(1, 8).Draw(t, "signals")}
		var sum float64
		for sc := range a.scopes() {
			sum += float64(a.signals) * (a.fastWeight(sc) + a.slowWeight(sc))
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Fatalf("weights sum to %.12f", sum)
		}
	})
}

// TestTenantsSumToPool: the likelihoods of organisations add up to the pool's.
func TestTenantsSumToPool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := drawToy(t)
		y.policy.Alpha = 1e-300 // never halt: halted parties stop listening
		var s State
		now := begin
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			in := y.snapshot(t, now)
			in.Commands = nil
			var as []Action
			s, as = Decide(&y.policy, s, in, now)
			if s.Phase.Recalling() {
				break
			}
			y.carryOut(as)
			now = now.Add(2 * time.Minute)
			y.live(t, now, false)
		}
		if len(s.Evidence) < 2 {
			return
		}
		sum := newLikelihoods(len(s.Evidence[0].L.fast)/2, 2)
		for _, e := range s.Evidence[1:] {
			if e.Halted {
				return
			}
			if err := sum.Add(e.L); err != nil {
				t.Fatal(err)
			}
		}
		for i, l := range s.Evidence[0].L.fast {
			for j := range l {
				if math.Abs(l[j]-sum.fast[i][j]) > 1e-6*(1+math.Abs(l[j])) {
					t.Fatalf("scope %d: the pool has %g, its organisations %g", i, l[j], sum.fast[i][j])
				}
			}
		}
	})
}
