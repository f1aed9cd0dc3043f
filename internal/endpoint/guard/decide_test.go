package guard

import (
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"pgregory.net/rapid"
)

var errNone = fs.ErrNotExist

// always checks a property after every event of random lives.
func always(t *testing.T, property func(w *world) error) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for n := range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step(t, n)
			if w.violated == nil {
				w.violated = property(w)
			}
			if w.violated != nil {
				t.Fatalf("after step %d: %v\n%+v", n, w.violated, w.s)
			}
		}
	})
}

func TestSomeVerifiedContentOrSafeModeAlwaysRuns(t *testing.T) {
	always(t, func(w *world) error {
		active := w.s.Trial != nil && w.s.Trial.Active
		slot := InCurrent
		if active {
			slot = InTrial
		}
		n := w.slots[slot]
		switch {
		case n == nil:
			return fmt.Errorf("nothing runs or is about to")
		case active != (slot == InTrial):
			return fmt.Errorf("the wrong slot is active")
		case n.safe:
			if w.s.Safe == nil || len(n.generation) > 0 {
				return fmt.Errorf("safe mode with content, or without need")
			}
		case !active && !w.proven[key(n.generation)]:
			return fmt.Errorf("%v runs as current and never held", n.generation)
		case !active && !n.generation.Equal(w.s.Current):
			return fmt.Errorf("%v runs where %v is current", n.generation, w.s.Current)
		}
		return nil
	})
}

func TestAShunnedDigestNeverActivates(t *testing.T) {
	always(t, func(w *world) error {
		for _, n := range w.started {
			for _, d := range n.generation {
				if w.s.Shunned(d) {
					return fmt.Errorf("%v was started with %s shunned", n.generation, d.Short())
				}
			}
		}
		for slot, n := range w.slots {
			for _, d := range n.generation {
				if w.s.Shunned(d) {
					return fmt.Errorf("%v stands in %s with %s shunned", n.generation, slot, d.Short())
				}
			}
		}
		return w.s.check()
	})
}

// What the guard falls back to must still be on the host: nothing may be needed
// that the loader was not told to keep.
func TestTheWayBackNeedsNoNetwork(t *testing.T) {
	always(t, func(w *world) error {
		if len(w.fetched) > 0 {
			return fmt.Errorf("%v were started, and need not be on the host", w.fetched)
		}
		return nil
	})
}

func TestProbationIsOnDiskBeforeAnythingIsActive(t *testing.T) {
	always(t, func(w *world) error {
		n := w.slots[InTrial]
		if n == nil {
			return nil
		}
		onDisk, err := decode(w.disk)
		if err != nil {
			return err
		}
		if onDisk.Trial == nil || !onDisk.Trial.Generation.Equal(n.generation) {
			return fmt.Errorf("%v runs on trial; the disk says %+v", n.generation, onDisk.Trial)
		}
		return nil
	})
}

func TestTwoRebootsInProbationEndOnThePreviousGenerationAndAShun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for n := range rapid.IntRange(0, 30).Draw(t, "steps") {
			w.step(t, n)
		}
		w.full = false
		w.restart() // ends any trial
		d := holdfast.DigestOf([]byte("new"))
		before := w.s.Current
		safe := w.s.Safe != nil
		for round := range 2 {
			if w.s.Shunned(d) {
				t.Fatalf("shunned after %d reboots", round)
			}
			id := fmt.Sprintf("round-%d", round)
			w.event(Event{Kind: Proposed, Slot: InCurrent, ID: id, Channel: holdfast.Rules, Digest: d})
			if !w.answers[id] {
				t.Fatalf("refused in round %d: %+v", round, w.s)
			}
			if rapid.Bool().Draw(t, "ready") {
				w.event(Event{Kind: IsReady, Slot: InTrial})
			}
			w.reboot()
			if g, inSafe := w.s.Running(); inSafe != safe || !safe && !g.Equal(before) {
				t.Fatalf("%v runs after the reboot, safe %v; before there was %v, safe %v", g, inSafe, before, safe)
			}
		}
		if !w.s.Shunned(d) {
			t.Fatalf("not shunned: %+v", w.s)
		}
	})
}

func TestThePlaceboIsNeverShunnedForItsTrial(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for n := range rapid.IntRange(0, 40).Draw(t, "steps") {
			w.step(t, n)
		}
		w.full = false
		w.restart()
		if w.s.Safe != nil {
			t.Skip("safe mode refuses the placebo")
		}
		w.s.Deaths = nil
		before, shuns := w.s.Current, len(w.s.Shuns)
		w.event(Event{Kind: Reactivated, ID: "placebo"})
		if !w.answers["placebo"] || !w.s.Trial.Generation.Equal(before) {
			t.Fatalf("not accepted: %+v", w.s)
		}
		if rapid.Bool().Draw(t, "ready") {
			w.event(Event{Kind: IsReady, Slot: InTrial})
		}
		w.event(Event{Kind: rapid.SampledFrom([]EventKind{Exited, Stalled, Overran, CorruptSlot, Unstartable}).Draw(t, "end"), Slot: InTrial})
		if g, safe := w.s.Running(); safe || !g.Equal(before) || len(w.s.Shuns) > shuns || w.s.Trial != nil {
			t.Fatalf("the placebo left %+v", w.s)
		}
	})
}

// Every state with every event, named or not, leads on without a panic, to a
// state that can be written and read.
func TestDecideIsTotal(t *testing.T) {
	a, b, c := contents[0], contents[1], contents[2]
	g := func(ds ...holdfast.Digest) holdfast.Generation {
		out := holdfast.Generation{}
		for i, d := range ds {
			out[holdfast.Channels[i]] = d
		}
		return out
	}
	now := time.Date(2026, 11, 21, 4, 9, 0, 0, time.UTC)
	var states []State
	for _, current := range []holdfast.Generation{nil, g(), g(a), g(a, b), g(a, a)} {
		for _, back := range [][]holdfast.Generation{nil, {g()}, {g(c)}, {g(c, b), g(b)}, {g(a)}, {nil, nil, nil, nil}} {
			for _, trial := range []*Trial{nil, {}, {Kind: Candidate, Generation: g(c, b)}, {Kind: Candidate, Active: true, Generation: g(c, c)}, {Kind: Placebo, Active: true, Generation: current}, {Kind: Again, Generation: current}} {
				for _, safe := range []*Safe{nil, {}, {Next: now.Add(1000 * time.Hour), Tries: 1 << 40}} {
					for _, deaths := range [][]time.Time{nil, {now, now}, {now.Add(time.Hour), {}, now}} {
						states = append(states, State{
							Schema: Schema, Boot: "1", Current: current, Back: back, Trial: trial, Safe: safe, Deaths: deaths,
							Blame: &Blame{Digests: []holdfast.Digest{c}, Cause: ByCrash, At: now}, Shuns: []Shun{{Digest: contents[5], Cause: ByCrash}},
							Suspects: []Suspect{{Digest: c, Times: 1}}, Final: []holdfast.Digest{b},
						})
					}
				}
			}
		}
	}
	doubts := []*Doubt{nil, {}, {Kind: Candidate, Channel: holdfast.Rules, Digest: c, ID: "x", Until: now.Add(time.Second)}, {Kind: Placebo}, {Kind: Candidate, Channel: holdfast.Agent, Digest: b, Judged: true, Tries: -1 << 60}}
	n := 0
	for i, s := range append(states, State{}) {
		s.Doubt, s.Reached = doubts[i%len(doubts)], i%2 == 0
		for _, kind := range append(slices.Clone(EventKinds), "", "unheard of") {
			for _, slot := range []Slot{InCurrent, InTrial, "", "elsewhere"} {
				for _, d := range []holdfast.Digest{"", a, b, c, "not a digest"} {
					next, acts := Decide(testPolicy, s, Event{Kind: kind, Slot: slot, Digest: d, Channel: holdfast.Rules, ID: "x", Boot: "2", Evaluated: 1 << 63, Contact: contacts[n%len(contacts)]}, now)
					for i, act := range acts {
						if act.Kind == Persist && act.Must && i > 0 {
							t.Fatalf("%+v, %s: the state is written after something was done", s, kind)
						}
					}
					if n++; n%32 == 0 {
						if _, err := encode(next); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
	}
	t.Logf("%d states, %d decisions", len(states), n)
}

// The same facts lead to the same decision, read from disk or not.
func TestDecideForgetsNothingOnDisk(t *testing.T) {
	always(t, func(w *world) error {
		data, err := encode(w.s)
		if err != nil {
			return err
		}
		read, err := decode(data)
		if err != nil {
			return err
		}
		e := Event{Kind: Exited, Slot: InCurrent, Detail: "test"}
		s1, a1 := Decide(w.p, w.s, e, w.now)
		s2, a2 := Decide(w.p, read, e, w.now)
		d1, _ := encode(s1)
		d2, _ := encode(s2)
		if string(d1) != string(d2) || !reflect.DeepEqual(kinds(a1), kinds(a2)) {
			return fmt.Errorf("%s\n%s", d1, d2)
		}
		return nil
	})
}

func kinds(acts []Action) (out []ActionKind) {
	for _, a := range acts {
		out = append(out, a.Kind)
	}
	return out
}
