package sim

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// TestGoals measures all goals when HOLDFAST_SIM_RUNS says how often, as
// "holdfast sim goals --runs" does. Without it, it measures two cheap ones.
func TestGoals(t *testing.T) {
	o := GoalOptions{Runs: 5, Only: "G2/harmed/60", Progress: func(goal string, begun, runs int) {
		if begun == 0 {
			t.Logf("%s: %d runs", goal, runs)
		}
	}}
	if s := os.Getenv("HOLDFAST_SIM_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("HOLDFAST_SIM_RUNS=%q is not a number of runs", s)
		}
		o.Runs, o.Only = n, os.Getenv("HOLDFAST_SIM_ONLY")
	}
	goals, err := Goals(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(goals) == 0 {
		t.Fatal("nothing was measured")
	}
	for _, g := range goals {
		t.Logf("%-20s %8.4g (median %.4g, %.4g – %.4g) of %.4g, %d runs, %s", g.Name, g.Figure, g.Median, g.Low, g.High, g.Target, g.Runs, g.Unit)
		if !g.Pass {
			t.Errorf("%s was missed: %.4g, target %.4g", g.Name, g.Figure, g.Target)
		}
	}
}

// TestWhatIsShownIsTrue is goal G7 on smaller fleets: every figure that people
// are shown agrees, after every step, with what the simulator knows.
func TestWhatIsShownIsTrue(t *testing.T) {
	kinds := ModelFleet(60_000, 40, false)
	for seed := range uint64(4) {
		for _, faults := range [][]Fault{nil, {Dead(.01, nil)}} {
			o, err := playShown(UrgentPolicy(kinds), World{Seed: seed, Kinds: kinds, Faults: faults, Until: 2 * time.Hour, StopAtRecall: true})
			if err != nil {
				t.Fatal(err)
			}
			if o.Shown != 1 || o.LeastHU >= 1 {
				t.Errorf("seed %d, %d faults: right after %.4f of the steps, least hU %g: %v", seed, len(faults), o.Shown, o.LeastHU, o.Notes)
			}
		}
	}
}
