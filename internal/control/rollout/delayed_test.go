package rollout

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

// harmless plays a release that harms nobody, from one time to another; every
// host is drawn at once, and clean when its window closes. delayed says how
// many of the hosts their customers hold back at a moment.
func harmless(p *Policy, s State, in Snapshot, from, to time.Time, delayed func(time.Time) int) (State, Snapshot) {
	hosts := in.Groups[0].Eligible
	opened := map[int]time.Time{}
	for i := range in.Cells {
		opened[in.Cells[i].Block] = from.Add(-p.Fast)
	}
	for now := from; now.Before(to) && !s.Phase.Done(); now = now.Add(30 * time.Second) {
		treated, watched := 0, 0
		for i := range in.Cells {
			c := &in.Cells[i]
			treated += c.Treated.Drawn
			if now.Before(opened[c.Block].Add(p.Fast)) {
				watched += c.Control.Drawn
				continue
			}
			c.Treated.Clean, c.Control.Clean = c.Treated.Drawn, c.Control.Drawn
		}
		g := &in.Groups[0]
		g.Later = delayed(now)
		g.Watching = watched
		g.Waiting = max(0, hosts-treated-watched-g.Later)
		var as []Action
		s, as = Decide(p, s, in, now)
		in.Commands = nil
		for _, m := range admits(as) {
			opened[m.Block] = now
			in = drawn(in, []Admit{m})
		}
	}
	return s, in
}

// TestARolloutWaitsForTheDelayed: they are paced and compared like all others,
// and a person may say that it should not wait.
func TestARolloutWaitsForTheDelayed(t *testing.T) {
	const hosts, held = 200, 50
	for _, finish := range []bool{false, true} {
		p, in := plain(hosts)
		until := begin.Add(24 * time.Hour)
		delayed := func(now time.Time) int {
			if now.Before(until) {
				return held
			}
			return 0
		}
		in.Commands = []Command{{Seq: 1, Kind: Finish, By: "ada"}} // too early: others wait
		s, in := harmless(&p, State{}, in, begin, until, delayed)
		if s.Phase != holdfast.Running || s.Delayed != held || s.Why != "waits for 50 hosts whose organisations allow it later" {
			t.Fatalf("%s, %d delayed: %s", s.Phase, s.Delayed, s.Why)
		}
		given := 0
		for _, c := range in.Cells {
			given += c.Treated.Drawn
		}
		if given != hosts-held {
			t.Fatalf("%d of the %d who may have it have it", given, hosts-held)
		}
		if finish {
			in.Commands = []Command{{Seq: 2, Kind: Finish, By: "ada"}}
			s, as := Decide(&p, s, in, until.Add(-time.Minute))
			if done, ok := find[Complete](as); !ok || s.Phase != holdfast.Complete || done.Exposed != given || s.Delayed != 0 {
				t.Fatalf("%s: %+v", s.Phase, as)
			}
			continue
		}
		blocks := len(s.Blocks)
		s, _ = harmless(&p, s, in, until, until.Add(12*time.Hour), delayed)
		if s.Phase != holdfast.Complete || s.Delayed != 0 || len(s.Blocks) == blocks {
			t.Errorf("after the delay: %s, %d delayed, %d blocks more", s.Phase, s.Delayed, len(s.Blocks)-blocks)
		}
	}
}

// TestHaltAfterAStratumAppeared: hosts may describe themselves anew while a
// rollout runs, and a person's halt looks at them before the step itself does.
func TestHaltAfterAStratumAppeared(t *testing.T) {
	p, in := plain(200)
	s, _ := Decide(&p, State{}, in, begin)
	late := in.Groups[0]
	late.Stratum = "kernel=7.0|distro=other|agent=9|role=server"
	in.Groups = append(in.Groups, late)
	in.Commands = []Command{{Seq: 1, Kind: HaltNow, By: "ada"}}
	s, as := Decide(&p, s, in, begin.Add(time.Minute))
	if _, ok := find[Halt](as); !ok || s.Phase != holdfast.Halted {
		t.Errorf("%s: %+v", s.Phase, as)
	}
}

// TestFewThatAreThereAreNotStranded: where most hosts of a kind are away, those
// that are there would all be kept to compare with, and the rollout would wait
// for the others for ever.
func TestFewThatAreThereAreNotStranded(t *testing.T) {
	for there := 1; there <= 3; there++ {
		p, in := plain(60)
		in.Groups = append(in.Groups, Group{Org: "b", Stratum: in.Groups[0].Stratum, Eligible: 30, Waiting: there})
		present := map[holdfast.OrgID]int{"a": 60, "b": there}
		s, closes := State{}, map[int]time.Time{}
		for now := begin; now.Before(begin.Add(4*time.Hour)) && !s.Phase.Done(); now = now.Add(30 * time.Second) {
			var as []Action
			s, as = Decide(&p, s, in, now)
			for _, m := range admits(as) {
				closes[m.Block] = now.Add(p.Fast)
				in = drawn(in, []Admit{m})
			}
			for i := range in.Groups {
				g := &in.Groups[i]
				treated, watched := 0, 0
				for j := range in.Cells {
					c := &in.Cells[j]
					if c.Org != g.Org {
						continue
					}
					treated += c.Treated.Drawn
					if now.Before(closes[c.Block]) {
						watched += c.Control.Drawn
					} else {
						c.Treated.Clean, c.Control.Clean = c.Treated.Drawn, c.Control.Drawn
					}
				}
				g.Watching, g.Waiting = watched, max(0, present[g.Org]-treated-watched)
			}
		}
		given := map[holdfast.OrgID]int{}
		for _, c := range in.Cells {
			given[c.Org] += c.Treated.Drawn
		}
		if s.Phase != holdfast.Complete || given["a"] != 60 || given["b"] != there {
			t.Errorf("%d there: %s, %v have it", there, s.Phase, given)
		}
	}
}

// TestARolloutWaitsForThoseWhoWentAway: it is not complete because nobody is
// left to ask. Whoever was here and comes back is paced and compared, unless so
// few are away that the harm budget would let them all come at once; nor does it
// wait for hosts that were never here, for longer than the slow window, or when a
// person says so.
func TestARolloutWaitsForThoseWhoWentAway(t *testing.T) {
	for _, c := range []struct {
		name             string
		hosts, here      int // eligible, and here when it begins
		clean            bool
		after            time.Duration // the last block closed
		finish, complete bool
	}{
		{"nobody is proved, all others went away", 60, 60, false, time.Hour, false, false},
		{"five are, and 55 went away", 60, 60, true, time.Hour, false, false},
		{"five are, and 25 went away", 30, 30, true, time.Hour, false, true},
		{"five are, and others were never here", 500, 30, true, time.Hour, false, true},
		{"they stay away for longer than is observed", 60, 60, false, 25 * time.Hour, false, true},
		{"a person does not want to wait", 60, 60, false, time.Hour, true, true},
	} {
		p, in := plain(c.here)
		s, as := Decide(&p, State{}, in, begin)
		if len(admits(as)) != 1 {
			t.Fatalf("%s: %+v", c.name, as)
		}
		in = drawn(in, admits(as))
		in.Groups[0].Eligible, in.Groups[0].Waiting, in.Groups[0].Watching = c.hosts, 0, 0
		for i := range in.Cells {
			x := &in.Cells[i]
			x.Control.Clean = x.Control.Drawn
			if x.Treated.Clean = x.Treated.Drawn; !c.clean {
				x.Treated.Clean, x.Treated.Left = 0, x.Treated.Drawn
			}
		}
		now := s.Blocks[len(s.Blocks)-1].Until.Add(p.Fast + c.after)
		s, _ = Decide(&p, s, in, now)
		if c.finish {
			if s.Delayed != 55 || s.Phase != holdfast.Running {
				t.Errorf("%s: %s, waits for %d", c.name, s.Phase, s.Delayed)
			}
			in.Commands = []Command{{Seq: 1, Kind: Finish, By: "ada"}}
			s, _ = Decide(&p, s, in, now.Add(time.Minute))
		}
		if got := s.Phase == holdfast.Complete; got != c.complete || !got && s.Delayed != 55 {
			t.Errorf("%s: %s, waits for %d: %s", c.name, s.Phase, s.Delayed, s.Why)
		}
	}
}
