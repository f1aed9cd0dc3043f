package sim

import (
	"os"
	"strconv"
	"testing"
	"time"
)

func TestGoalsLook(t *testing.T) {
	runs, _ := strconv.Atoi(os.Getenv("RUNS"))
	if runs == 0 {
		t.Skip("set RUNS")
	}
	last := time.Now()
	for _, only := range []string{os.Getenv("ONLY")} {
		goals, err := Goals(GoalOptions{Runs: runs, Only: only, Progress: func(s string) { t.Logf("%6.1fs %s", time.Since(last).Seconds(), s) }})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range goals {
			t.Logf("%-22s %10.4g (median %.4g, %.4g-%.4g) target %.4g %v  %s", g.Name, g.Figure, g.Median, g.Low, g.High, g.Target, g.Pass, g.Unit)
		}
	}
}
