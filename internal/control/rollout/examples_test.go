package rollout

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

// one organisation's fleet of a single stratum, in one ring.
func plain(hosts int) (Policy, Snapshot) {
	p := testPolicy(holdfast.Urgent)
	p.Rings = holdfast.RingPlan{{Name: "all", Through: 1_000_000}}
	return p, Snapshot{Groups: []Group{{Org: "a", Stratum: "6.1|debian-12|1.0|server", Eligible: hosts, Waiting: hosts}}}
}

func admits(as []Action) (ms []Admit) {
	for _, a := range as {
		if m, ok := a.(Admit); ok {
			ms = append(ms, m)
		}
	}
	return ms
}

func find[T Action](as []Action) (found T, ok bool) {
	for _, a := range as {
		if x, is := a.(T); is {
			return x, true
		}
	}
	return found, false
}

// drawn returns the snapshot after every admission was drawn to the full.
func drawn(in Snapshot, ms []Admit) Snapshot {
	out := Snapshot{Groups: append([]Group(nil), in.Groups...), Cells: append([]Cell(nil), in.Cells...)}
	for _, m := range ms {
		out.Cells = append(out.Cells, Cell{Block: m.Block, Ring: m.Ring, Org: m.Org, Stratum: m.Stratum, Cell: m.Cell, Treated: Arm{Drawn: m.Treat}, Control: Arm{Drawn: m.Placebo}})
		for i := range out.Groups {
			if g := &out.Groups[i]; g.Org == m.Org && g.Stratum == m.Stratum {
				g.Waiting -= m.Treat + m.Placebo
				g.Watching += m.Placebo
			}
		}
	}
	return out
}

func crashes(in Snapshot, from int64, n int, after time.Duration) (es []Event) {
	c := in.Cells[len(in.Cells)-1]
	for i := range n {
		es = append(es, Event{Seq: from + int64(i), Block: c.Block, Ring: c.Ring, Org: c.Org, Stratum: c.Stratum, Treated: true, Kind: holdfast.Crash, First: true, At: begin.Add(after), After: after})
	}
	return es
}

// TestEmergencyWaitsForASecondPerson, who must be another than the first.
func TestEmergencyWaitsForASecondPerson(t *testing.T) {
	p, in := plain(60)
	p.Profile = holdfast.Emergency
	s, as := Decide(&p, State{}, in, begin)
	if s.Phase != holdfast.Waiting || len(admits(as)) > 0 {
		t.Fatalf("phase %s with %d admissions", s.Phase, len(admits(as)))
	}
	in.Commands = []Command{{Seq: 1, Kind: Approve, By: "ada"}}
	if s, _ = Decide(&p, s, in, begin); s.Phase != holdfast.Waiting {
		t.Fatal("the first person approved her own release")
	}
	in.Commands = []Command{{Seq: 2, Kind: Approve, By: "bob"}}
	if s, as = Decide(&p, s, in, begin); s.Phase != holdfast.Running || len(admits(as)) == 0 {
		t.Fatalf("approved: phase %s with %d admissions", s.Phase, len(admits(as)))
	}
}

// TestOverrideTakesTwoWhoSawTheHarm and raises the limit, keeping the evidence.
func TestOverrideTakesTwoWhoSawTheHarm(t *testing.T) {
	p, in := plain(60)
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	in.Events = crashes(in, 1, 4, 5*time.Second)
	s, as = Decide(&p, s, in, begin.Add(10*time.Second))
	h, ok := find[Halt](as)
	if !ok || s.Phase != holdfast.Halted || h.Evidence < h.Limit {
		t.Fatalf("four of five treated crashed: phase %s, E=%g", s.Phase, s.Evidence[0].E)
	}
	in.Events = nil
	for i, c := range []Command{
		{By: "ada", Acknowledged: h.Harmed},
		{By: "ada", Second: "ada", Acknowledged: h.Harmed},
		{By: "ada", Second: "bob", Acknowledged: h.Harmed - 1},
	} {
		c.Kind, c.Seq = Override, int64(i+1)
		in.Commands = []Command{c}
		if s, _ = Decide(&p, s, in, begin.Add(time.Minute)); s.Phase != holdfast.Halted {
			t.Fatalf("override %d was accepted", i)
		}
	}
	before := s.Evidence[0]
	in.Commands = []Command{{Kind: Override, Seq: 9, By: "ada", Second: "bob", Acknowledged: h.Harmed}}
	s, _ = Decide(&p, s, in, begin.Add(time.Minute))
	after := s.Evidence[0]
	if s.Phase.Recalling() || after.E != before.E || after.Limit != 2*max(before.Limit, before.E) {
		t.Fatalf("phase %s, E %g → %g, limit %g → %g", s.Phase, before.E, after.E, before.Limit, after.Limit)
	}
}

// TestSilenceInOurOutageIsVoid even when it is reported afterwards.
func TestSilenceInOurOutageIsVoid(t *testing.T) {
	p, in := plain(60)
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	in.Outage = true
	s, _ = Decide(&p, s, in, begin.Add(time.Minute))
	in.Outage = false
	in.Events = crashes(in, 1, 5, 2*time.Minute)
	for i := range in.Events {
		in.Events[i].Kind = holdfast.Silence
	}
	s, _ = Decide(&p, s, in, begin.Add(3*time.Minute))
	if s.Phase != holdfast.Running || s.Evidence[0].E > 1+1e-9 || s.EventSeq != 5 {
		t.Fatalf("phase %s, E=%g, seq %d", s.Phase, s.Evidence[0].E, s.EventSeq)
	}
}

// TestOneOrganisationHaltsOnlyItself, whatever its hosts report.
func TestOneOrganisationHaltsOnlyItself(t *testing.T) {
	p, in := plain(2000)
	in.Groups = append(in.Groups, Group{Org: "b", Stratum: in.Groups[0].Stratum, Eligible: 2000, Waiting: 2000})
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	seq := int64(0)
	for round := range 6 {
		for _, c := range in.Cells {
			if c.Org == "b" && c.Treated.Drawn > c.Treated.Clean {
				for range c.Treated.Drawn {
					seq++
					in.Events = append(in.Events, Event{Seq: seq, Block: c.Block, Org: "b", Stratum: c.Stratum, Treated: true, Kind: holdfast.Crash, First: true, At: begin, After: time.Second})
				}
			}
		}
		now := begin.Add(time.Duration(round+1) * 11 * time.Minute)
		s, as = Decide(&p, s, in, now)
		if h, ok := find[Halt](as); ok {
			if h.Org != "b" || s.Phase.Recalling() {
				t.Fatalf("halted %q, phase %s", h.Org, s.Phase)
			}
			for _, m := range admits(as) {
				if m.Org == "b" {
					t.Fatal("b was admitted after its halt")
				}
			}
			orgs := Describe(&p, s, in, now).Orgs
			if len(orgs) != 2 || orgs[0].Org != "a" || orgs[1].Org != "b" {
				t.Fatalf("%+v", orgs)
			}
			a, b := orgs[0], orgs[1]
			if a.Halted || a.PValue != 1 || a.Treated != 0 || a.Ratio.Low != 0 {
				t.Errorf("nothing happened in a, and of it is reported: %+v", a)
			}
			if !b.Halted || b.PValue > p.Alpha || b.PValue != 1/s.Evidence[2].Peak || b.Treated != s.Evidence[2].TreatedEvents || b.Treated == 0 || b.Ratio.Low <= p.ThetaFast {
				t.Errorf("b was halted, and of it is reported: %+v", b)
			}
			return
		}
		in.Events = nil
		for i := range in.Cells {
			if c := &in.Cells[i]; c.Org == "a" {
				c.Treated.Clean = c.Treated.Drawn
			}
		}
		in = drawn(in, admits(as))
	}
	t.Fatalf("b never halted: E=%g", s.Evidence[2].E)
}

// TestStopWhenNobodyIsLeftToCompare: three harmed, no control anywhere.
func TestStopWhenNobodyIsLeftToCompare(t *testing.T) {
	p, in := plain(8)
	var s State
	var as []Action
	now, seq := begin, int64(0)
	for range 12 {
		s, as = Decide(&p, s, in, now)
		if stop, ok := find[Stop](as); ok {
			if stop.Harmed < 3 || stop.Harmed > 6 || s.Phase != holdfast.Stopped {
				t.Fatalf("stopped with %d harmed, phase %s", stop.Harmed, s.Phase)
			}
			return
		}
		ms := admits(as)
		in = drawn(in, ms)
		if len(ms) > 0 {
			n := ms[len(ms)-1].Treat
			in.Events = crashes(in, seq+1, n, time.Second)
			seq += int64(n)
		}
		now = now.Add(time.Minute)
	}
	t.Fatalf("eight hosts, all faulty: phase %s after %d harmed, E=%g", s.Phase, seq, s.Evidence[0].E)
}

// TestReachMatchesTheSection: all faulty, sixty hosts are halted with few
// harmed, ten are out of the test's reach.
func TestReachMatchesTheSection(t *testing.T) {
	p, _ := plain(1)
	p.Signals = []holdfast.HarmKind{holdfast.Crash}
	if r := ReachOf(&p, 60); !r.Halts || r.Events > 4 || r.Harmed > 6 {
		t.Errorf("60 hosts: %+v", r)
	}
	if r := ReachOf(&p, 15); r.Harmed > mostHarmed {
		t.Errorf("15 hosts: %+v", r)
	}
	if r := ReachOf(&p, 6); r.Halts {
		t.Errorf("6 hosts: %+v", r)
	}
}

// TestCoverageCoversEveryPair and says what a prefix leaves uncovered.
func TestCoverageCoversEveryPair(t *testing.T) {
	cells := map[holdfast.Stratum]int{}
	for i := range 400 {
		s := holdfast.Stratum(fmt.Sprintf("6.%d|d%d|1.%d|%s", i%9, i/9%11, i/99%5, []string{"server", "laptop", "kiosk"}[i%3]))
		cells[s] += 500 - i
	}
	plan := PlanCoverage(cells, 200_000)
	if len(plan.Order) != len(cells) {
		t.Fatalf("%d of %d cells are in the plan", len(plan.Order), len(cells))
	}
	if n, mass := Uncovered(cells, plan.Order[:plan.Needed]); n != 0 || mass != 0 {
		t.Errorf("%d combinations and %g of the fleet are uncovered by the first %d", n, mass, plan.Needed)
	}
	if n, _ := Uncovered(cells, plan.Order[:plan.Needed-1]); n == 0 {
		t.Errorf("the first %d cover all already", plan.Needed-1)
	}
	seen := map[string]bool{}
	for _, s := range plan.Order[:5] {
		for _, f := range s.Factors() {
			seen[f] = true
		}
	}
	if len(seen) < 16 {
		t.Errorf("the first five hosts show only %d attribute values", len(seen))
	}
}

// TestMergeGathersSmallStrata into parents of at least 200 hosts where it can.
func TestMergeGathersSmallStrata(t *testing.T) {
	to := Merge(map[holdfast.Stratum]int{
		"6.1|debian-12|1.0|server": 5000,
		"6.1|debian-12|1.1|server": 150,
		"6.1|debian-12|1.2|server": 120,
		"6.8|arch|1.0|kiosk":       3,
	}, MergeBelow)
	want := map[holdfast.Stratum]holdfast.Stratum{
		"6.1|debian-12|1.0|server": "6.1|debian-12|1.0|server",
		"6.1|debian-12|1.1|server": "6.1|debian-12|*|server",
		"6.1|debian-12|1.2|server": "6.1|debian-12|*|server",
		"6.8|arch|1.0|kiosk":       "6.8|arch|1.0|kiosk", // alone, whatever it gives up
	}
	for s, w := range want {
		if to[s] != w {
			t.Errorf("%s merges into %s, want %s", s, to[s], w)
		}
	}
}

// TestConfidenceSequenceFindsTheRatio of a release that triples harm.
func TestConfidenceSequenceFindsTheRatio(t *testing.T) {
	var s spectrum
	if h := s.interval(.05); h.Low != 0 || h.High != 0 {
		t.Errorf("without events the ratio is bounded: %+v", h)
	}
	for i := range 400 {
		s.step(i%4 != 0, 1000, 1000) // three of four fall on the treated
	}
	if h := s.interval(.05); h.Low < 1 || h.Low > 3 || h.High < 3 || h.High > 8 {
		t.Errorf("hazard ratio 3 is estimated as %+v", h)
	}
}

// TestBadPolicyIsRefused with the field and what to do.
func TestBadPolicyIsRefused(t *testing.T) {
	for field, spoil := range map[string]func(*Policy){
		"policy.alpha":           func(p *Policy) { p.Alpha = .5 },
		"policy.fast_ns":         func(p *Policy) { p.Fast = p.Heartbeat },
		"policy.signals[1]":      func(p *Policy) { p.Signals[1] = p.Signals[0] },
		"policy.baselines[0]":    func(p *Policy) { p.Baselines = []Baseline{{Rate: 2}} },
		"policy.kappa":           func(p *Policy) { p.Kappa = -1 },
		"policy.profile":         func(p *Policy) { p.Profile = "hasty" },
		"policy.criticality[0].": func(p *Policy) { p.Criticality = []Criticality{{Weight: 0}} },
	} {
		p := testPolicy(holdfast.Urgent)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		spoil(&p)
		err := p.Validate()
		if err == nil || !strings.Contains(err.Error(), field) || holdfast.KindOf(err) != holdfast.Invalid {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestReportOfARunningRollout shows the first block.
func TestReportOfARunningRollout(t *testing.T) {
	p, in := plain(5000)
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	r := Describe(&p, s, in, begin.Add(time.Minute))
	if r.Exposed != 5 || r.Pending != 5 || r.HarmBound != 1 || r.PValue != 1 || r.Uncovered != 0 || r.Latent[0].Hosts != 5 {
		t.Errorf("%+v", r)
	}
}

// TestWhoIsGoneIsNoControl: treated hosts that fall silent when every control
// of their block was harmed in another way and is observed no more say nothing,
// however many they are.
func TestWhoIsGoneIsNoControl(t *testing.T) {
	p, in := plain(5000)
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	cell := &in.Cells[0]
	n := cell.Control.Drawn
	cell.Treated.Clean, cell.Control.Gone = cell.Treated.Drawn, n-10
	cell.Control.Clean, cell.Control.Ended = 10, 10
	now := begin.Add(time.Hour)
	s, _ = Decide(&p, s, in, now)
	before := s.Evidence[0].E
	for i := range 4 {
		in.Events = append(in.Events, Event{
			Seq: int64(i) + 1, Block: cell.Block, Org: cell.Org, Stratum: cell.Stratum, Treated: true, Kind: holdfast.Silence,
			First: true, At: now, After: time.Hour,
		})
	}
	if s, _ = Decide(&p, s, in, now.Add(time.Minute)); s.Evidence[0].E > before*(1+1e-9) {
		t.Errorf("E rose from %g to %g, and there was nobody to compare with", before, s.Evidence[0].E)
	}
	in.Cells[0].Control.Gone = 0
	for i := range in.Events {
		in.Events[i].Seq += 4
	}
	if s, _ = Decide(&p, s, in, now.Add(2*time.Minute)); s.Evidence[0].E <= before*1.01 {
		t.Errorf("with controls E stays at %g", s.Evidence[0].E)
	}
}

// TestWhoWentBackKeepsItsShare of the harm budget, is no longer at risk, and holds
// up nobody's completion: once it has proved itself it buys its five like another.
func TestWhoWentBackKeepsItsShare(t *testing.T) {
	p, in := plain(200)
	s, as := Decide(&p, State{}, in, begin)
	in = drawn(in, admits(as))
	arm := &in.Cells[0].Treated
	if arm.Drawn != p.C0 {
		t.Fatalf("%d were drawn at first", arm.Drawn)
	}
	in.Cells[0].Control.Clean, in.Groups[0].Waiting = in.Cells[0].Control.Drawn, in.Cells[0].Control.Drawn
	arm.Undone = arm.Drawn
	now := begin.Add(2 * p.Fast)
	s, as = Decide(&p, s, in, now)
	if len(admits(as)) > 0 || !strings.Contains(s.Why, "5 hosts went back") {
		t.Errorf("%+v were admitted, and the rollout says %q", admits(as), s.Why)
	}
	if r := Describe(&p, s, in, now); r.Pending != arm.Drawn || r.Clean != 0 {
		t.Errorf("%d are shown as pending, %d as clean", r.Pending, r.Clean)
	}

	// Nobody of the treated is at risk: a control's crash speaks for nobody.
	control := in
	control.Events = []Event{{Seq: 1, Org: in.Cells[0].Org, Stratum: in.Cells[0].Stratum, Kind: holdfast.Crash, First: true, At: now, After: p.Fast}}
	if after, _ := Decide(&p, s, control, now); math.Abs(after.Evidence[0].E-s.Evidence[0].E) > 1e-9 {
		t.Errorf("E went from %g to %g, and nobody was treated", s.Evidence[0].E, after.Evidence[0].E)
	}

	arm.Undone, arm.Clean, arm.Ended = arm.Undone-1, 1, 1
	s, as = Decide(&p, s, in, now.Add(p.Heartbeat))
	treat := 0
	for _, m := range admits(as) {
		treat += m.Treat
	}
	if want := int(p.Kappa) + p.C0 - (arm.Drawn - 1); treat != want || s.Why != "" {
		t.Errorf("%d are drawn, not %d; %q", treat, want, s.Why)
	}
}

// TestOneOrganisationCannotOverrideForAll: what is recalled from everybody goes on
// when two people override that, and not when they do for one organisation.
func TestOneOrganisationCannotOverrideForAll(t *testing.T) {
	p, in := plain(60)
	other := in.Groups[0]
	other.Org = "b"
	in.Groups = append(in.Groups, other)
	s, _ := Decide(&p, State{}, in, begin)
	in.Commands = []Command{{Seq: 1, Kind: HaltNow, By: "ada"}}
	s, _ = Decide(&p, s, in, begin.Add(time.Second))
	for i, org := range []holdfast.OrgID{"b", ""} {
		in.Commands = []Command{{Seq: int64(2 + i), Kind: Override, Org: org, By: "bob", Second: "cyd"}}
		s, _ = Decide(&p, s, in, begin.Add(2*time.Second))
		if going := s.Phase == holdfast.Running; going != (org == "") {
			t.Errorf("overridden for %q: %s", org, s.Phase)
		}
	}
}
