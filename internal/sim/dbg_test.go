package sim

import (
	"testing"
	"time"
)

func TestDbg(t *testing.T) {
	kinds := ModelFleet(8_500_000, 250, false)
	o, err := Counts(urgent(kinds), World{Seed: 1, Kinds: kinds, Until: 100 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var T, C, HT, HC, L int
	for _, b := range o.State.Blocks {
		for _, c := range b.Cells {
			HT += c.HarmedTreated
			HC += c.HarmedControl
			L += c.LateHarmedTreated
		}
	}
	var left, clean, cl, cc int
	for _, c := range o.Last.Cells {
		T += c.Treated.Drawn
		C += c.Control.Drawn
		left += c.Treated.Left
		clean += c.Treated.Clean
		cl += c.Control.Left
		cc += c.Control.Clean
	}
	w, wt := 0, 0
	for _, g := range o.Last.Groups {
		w += g.Waiting
		wt += g.Watching
	}
	t.Logf("T %d clean %d left %d harmed %d late %d | C %d clean %d left %d harmed %d | waiting %d watching %d rates %.6f %.6f", T, clean, left, HT, L, C, cc, cl, HC, w, wt, float64(HT)/float64(T), float64(HC)/float64(C))
	for _, x := range o.Notes {
		t.Log(x)
	}
}
