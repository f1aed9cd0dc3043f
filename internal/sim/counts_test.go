package sim

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

func urgent(kinds []Kind) rollout.Policy {
	p := rollout.DefaultPolicy(holdfast.Urgent)
	p.Release, p.By = "r1", "ada"
	p.Rings = holdfast.RingPlan{{Name: "all", Through: 1_000_000}}
	p.Baselines = Baselines(kinds)
	return p
}

func TestLook(t *testing.T) {
	kinds := ModelFleet(1_000_000, 250, false)
	for seed := range uint64(3) {
		o, err := Counts(urgent(kinds), World{Seed: seed, Kinds: kinds, Until: 4 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("null: %s %s exposed %d at %s 99%% %s steps %d events %d peak %.3g slowest %s", o.Phase, o.Why, o.Exposed, o.Decided, o.Reached99, o.Steps, o.Events, o.Peak, o.Slowest)
		for i, p := range o.Curve {
			if seed == 0 && i%8 == 0 {
				t.Logf("   %s %d pending %d E %.3g", p.At, p.Exposed, p.Pending, p.E)
			}
		}
	}
	for _, f := range []struct {
		name  string
		fault Fault
	}{
		{"100%", Dead(1, nil)},
		{"10% stratum", Dead(1, In(kinds[0].Stratum))},
		{"1% stratum", Dead(1, In(kinds[1].Stratum))},
		{"0.1% stratum", Dead(1, In(kinds[2].Stratum))},
		{"random 10%", Dead(.1, nil)},
		{"random 1%", Dead(.01, nil)},
		{"random .1%", Dead(.001, nil)},
	} {
		for seed := range uint64(3) {
			o, err := Counts(urgent(kinds), World{Seed: seed, Kinds: kinds, Faults: []Fault{f.fault}, Until: 4 * time.Hour, StopAtRecall: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s exposed %d broken %d at %s; slowest %s", f.name, o.Phase, o.Exposed, o.Broken, o.Decided, o.Slowest)
		}
	}
}
