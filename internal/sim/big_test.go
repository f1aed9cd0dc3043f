package sim

import (
	"testing"
	"time"
)

func TestBig(t *testing.T) {
	kinds := ModelFleet(8_500_000, 250, false)
	o, err := Counts(urgent(kinds), World{Seed: 1, Kinds: kinds, Until: 2*time.Hour + 30*time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("null: %s %s exposed %d at %s 99%% %s steps %d events %d peak %.3g slowest %s", o.Phase, o.Why, o.Exposed, o.Decided, o.Reached99, o.Steps, o.Events, o.Peak, o.Slowest)
	for i, p := range o.Curve {
		if i%3 == 0 {
			t.Logf("   %s %d pending %d E %.3g", p.At, p.Exposed, p.Pending, p.E)
		}
	}
	for i, b := range o.State.Blocks {
		n, pl := 0, 0
		for _, c := range b.Cells {
			n += c.Treat
			pl += c.Placebo
		}
		t.Logf("block %d %s treat %d placebo %d cells %d %s", i, b.Opened.Sub(epoch), n, pl, len(b.Cells), b.Cells[0].Why)
	}
}
