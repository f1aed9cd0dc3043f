package sim

import (
	"os"
	"strconv"
	"testing"
)

// TestGoals measures all goals when HOLDFAST_SIM_RUNS says how often, as
// "holdfast sim goals --runs" does. Without it, it measures two cheap ones.
func TestGoals(t *testing.T) {
	o := GoalOptions{Runs: 5, Only: "G2/harmed/60", Progress: func(s string) { t.Log(s) }}
	if s := os.Getenv("HOLDFAST_SIM_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("HOLDFAST_SIM_RUNS=%q is not a number of runs", s)
		}
		o.Runs, o.Only = n, os.Getenv("HOLDFAST_SIM_ONLY")
	}
	goals, err := Goals(o)
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
