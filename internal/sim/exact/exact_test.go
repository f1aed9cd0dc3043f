package exact

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// drill is a small fleet on a drill's clock.
func drill(hosts int, seed uint64) (rollout.Policy, sim.World) {
	kinds := sim.SmallFleet(hosts)
	for i := range kinds {
		kinds[i].Silence, kinds[i].Crash = 0, 0
	}
	return sim.UrgentPolicy(kinds).WithClock(time.Second), sim.World{Seed: seed, Kinds: kinds, Until: 10 * time.Minute}
}

func crash(share float64) []sim.Fault {
	return []sim.Fault{{Name: "crash", Share: share, Kind: holdfast.Crash, Soonest: 500 * time.Millisecond, Latest: 1500 * time.Millisecond}}
}

type fataler interface {
	Helper()
	Context() context.Context
	Fatal(...any)
	Fatalf(string, ...any)
}

func play(t fataler, p rollout.Policy, w sim.World) sim.Outcome {
	t.Helper()
	o, err := Run(t.Context(), p, w)
	if v := (*sim.Violation)(nil); errors.As(err, &v) {
		t.Fatalf("%v\n%s", v, strings.Join(v.Trace, "\n"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestDrillHarmsFew is the drill's wall (b) in virtual time: sixty hosts whose
// workers all crash within seconds; and a third of them.
func TestDrillHarmsFew(t *testing.T) {
	for seed := range uint64(10) {
		p, w := drill(60, seed)
		w.Faults = crash(1)
		o := play(t, p, w)
		if o.Phase != holdfast.Halted || o.Broken > 6 || o.Hands > 0 || o.Returned != o.Broken {
			t.Errorf("seed %d: %+v", seed, o)
		}
		w.Faults = crash(1. / 3)
		if o := play(t, p, w); !o.Phase.Recalling() || o.Hands > 0 {
			t.Errorf("seed %d, a third faulty: %+v", seed, o)
		}
	}
}

// TestCleanReleaseReachesAll, through lost, repeated and late messages.
func TestCleanReleaseReachesAll(t *testing.T) {
	p, w := drill(300, 1)
	w.Messages = sim.Messages{Lose: .02, Duplicate: .2, Reorder: .05}
	if o := play(t, p, w); o.Phase != holdfast.Complete || o.Exposed < 297 {
		t.Errorf("%s (%s) with %d exposed", o.Phase, o.Why, o.Exposed)
	}
}

// TestBothFidelitiesDecideAlike plays the same fleet and fault host by host and
// in counts.
func TestBothFidelitiesDecideAlike(t *testing.T) {
	for _, share := range []float64{0, 1} {
		p, w := drill(400, 3)
		w.StopAtRecall = true
		w.Faults = []sim.Fault{{Name: "crash", Share: share, Kind: holdfast.Crash, Soonest: time.Second, Latest: 2 * time.Second}}
		e := play(t, p, w)
		o, err := sim.Counts(p, w)
		if err != nil {
			t.Fatal(err)
		}
		if e.Phase != o.Phase || e.Broken != o.Broken {
			t.Errorf("share %g: exact %s with %d broken, counts %s with %d", share, e.Phase, e.Broken, o.Phase, o.Broken)
		}
	}
}

// TestRegressionsAreSeen: a release that makes workers take more than 99 of 100
// such hosts would is recalled, where there are hosts enough to know that.
func TestRegressionsAreSeen(t *testing.T) {
	for _, kind := range []holdfast.HarmKind{holdfast.CPU, holdfast.Memory} {
		p, w := drill(300, 5)
		w.Faults = []sim.Fault{{Name: "swells", Share: 1, Kind: kind}}
		if o := play(t, p, w); !o.Phase.Recalling() || o.Broken > 12 {
			t.Errorf("%s: %s with %d broken", kind, o.Phase, o.Broken)
		}
	}
}

// TestLiarsHaltOnlyTheirOwn: hosts of one organisation that claim harm recall
// the release from it, and from nobody else.
func TestLiarsHaltOnlyTheirOwn(t *testing.T) {
	p, w := drill(100, 2)
	w.Until = 2 * time.Minute
	hostile := w.Kinds[0]
	hostile.Org = "hostile"
	w.Kinds = append(w.Kinds, hostile)
	w.Hostile = []sim.Hostility{{Share: 1, Lie: sim.ClaimsHarm, Where: func(k *sim.Kind) bool { return k.Org == "hostile" }}}
	o := play(t, p, w)
	if o.Phase.Recalling() || len(o.State.Evidence) != 3 || !o.State.Evidence[2].Halted || o.State.Evidence[1].Halted || o.State.Evidence[0].Halted {
		t.Errorf("%s: %s", o.Phase, o.Why)
		for _, e := range o.State.Evidence {
			t.Errorf("%q: E=%.3g, halted: %v, %d treated and %d control events", e.Org, e.E, e.Halted, e.TreatedEvents, e.ControlEvents)
		}
	}
}
