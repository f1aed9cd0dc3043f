package sim

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// TestPromisesHoldOnRandomFleets runs many small fleets with random faults,
// outages and restarts; Counts checks the promises after every step.
func TestPromisesHoldOnRandomFleets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.SampledFrom([]int{1, 7, 60, 400, 5000, 60_000}).Draw(t, "hosts")
		kinds := ModelFleet(hosts, rapid.SampledFrom([]int{4, 20}).Draw(t, "strata"), rapid.Bool().Draw(t, "laptops"))
		profile := rapid.SampledFrom([]holdfast.Profile{holdfast.Urgent, holdfast.Standard}).Draw(t, "profile")
		p := rollout.DefaultPolicy(profile)
		p.Release, p.By, p.Baselines = "r", "ada", Baselines(kinds)
		if rapid.Bool().Draw(t, "one ring") {
			p.Rings = holdfast.RingPlan{{Name: "all", Through: 1_000_000}}
		}
		w := World{
			Seed: rapid.Uint64().Draw(t, "seed"), Kinds: kinds, Until: 3 * time.Hour, Tick: time.Minute,
			Restart: rapid.SampledFrom([]float64{0, .2}).Draw(t, "restart"),
		}
		if share := rapid.SampledFrom([]float64{0, .01, .3, 1}).Draw(t, "faulty"); share > 0 {
			f := rapid.SampledFrom([]func(float64, func(*Kind) bool) Fault{Dead, Crashing}).Draw(t, "fault")(share, nil)
			if rapid.Bool().Draw(t, "latent") {
				f.Soonest, f.Latest = f.Soonest+time.Hour, f.Latest+time.Hour
			}
			w.Faults = append(w.Faults, f)
		}
		if rapid.Bool().Draw(t, "stress") {
			w.Outage = stresses(w.Seed, kinds)
		}
		if _, err := Counts(p, w); err != nil {
			if v := (*Violation)(nil); errors.As(err, &v) {
				t.Fatalf("%v\n%v", v, v.Trace)
			}
			t.Skip(err) // a fleet of which nobody can be reached
		}
	})
}

// TestFewAreHarmed pins what the procedure is for, on few seeds; holdfast sim
// goals measures it on many.
func TestFewAreHarmed(t *testing.T) {
	small, big := SmallFleet(60), ModelFleet(1_000_000, 250, false)
	for _, c := range []struct {
		name  string
		kinds []Kind
		fault Fault
		most  int
	}{
		{"60 hosts, all crash within seconds", small, Crashing(1, nil), 6},
		{"60 hosts, all fall silent", small, Dead(1, nil), 6},
		{"a million hosts, all fall silent", big, Dead(1, nil), 6},
		{"a million hosts, one stratum of 1 %", big, Dead(1, In(big[HundredthStratum].Stratum)), 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(5) {
				o, err := Counts(UrgentPolicy(c.kinds), World{Seed: seed, Kinds: c.kinds, Faults: []Fault{c.fault}, Until: 3 * time.Hour, StopAtRecall: true})
				if err != nil {
					t.Fatal(err)
				}
				if !o.Phase.Recalling() || o.Broken > c.most {
					t.Errorf("seed %d: %s with %d harmed, want a recall with at most %d", seed, o.Phase, o.Broken, c.most)
				}
			}
		})
	}
}

// TestOutagesAreNoEvidence: seeds whose outages of network and server once made
// controls that were long gone look as if they were well.
func TestOutagesAreNoEvidence(t *testing.T) {
	kinds := ModelFleet(1_000_000, 250, false)
	for _, seed := range []uint64{251, 290} {
		o, err := Counts(UrgentPolicy(kinds), World{Seed: seed, Kinds: kinds, Until: 3 * time.Hour, Tick: 30 * time.Second, Outage: stresses(seed, kinds), StopAtRecall: true})
		if err != nil {
			t.Fatal(err)
		}
		if o.Phase.Recalling() || o.Peak > 100 {
			t.Errorf("seed %d: %s, E reached %.4g", seed, o.Phase, o.Peak)
		}
	}
}

// TestSmallFleetsStayWithinTheirReach: what a person is told before a release is
// what happens at worst, when every host is faulty and nothing else goes wrong.
func TestSmallFleetsStayWithinTheirReach(t *testing.T) {
	for _, n := range []int{8, 15, 30, 60, 120, 400, 1000} {
		for _, rings := range []holdfast.RingPlan{{{Name: "all", Through: 1_000_000}}, holdfast.DefaultRings} {
			for _, f := range []Fault{Crashing(1, nil), Dead(1, nil)} {
				kinds := SmallFleet(n)
				p := UrgentPolicy(kinds)
				p.Rings = rings
				kinds[0].Silence, kinds[0].Crash = 0, 0
				most := rollout.ReachOf(&p, n).Harmed
				for seed := range uint64(8) {
					o, err := Counts(p, World{Seed: seed, Kinds: kinds, Faults: []Fault{f}, Until: 6 * time.Hour, StopAtRecall: true})
					if err != nil {
						t.Fatal(err)
					}
					if !o.Phase.Recalling() || o.Broken > most {
						t.Errorf("%d hosts, %d rings, %s, seed %d: %s with %d harmed, and %d were promised", n, len(rings), f.Name, seed, o.Phase, o.Broken, most)
					}
				}
			}
		}
	}
}

// TestDrillClock scales the procedure to a drill's clock of one second, with a
// first ring that may hold a host or two.
func TestDrillClock(t *testing.T) {
	kinds := SmallFleet(60)
	for _, rings := range []holdfast.RingPlan{
		{{Name: "all", Through: 1_000_000}},
		{{Name: "internal", Through: 20_000}, {Name: "early", Through: 100_000, Soak: 2 * time.Second}, {Name: "general", Through: 1_000_000, Soak: 4 * time.Second}},
	} {
		for seed := range uint64(40) {
			p := UrgentPolicy(kinds).WithClock(time.Second)
			p.Rings = rings
			o, err := Counts(p, World{Seed: seed, Kinds: kinds, Faults: []Fault{Crashing(1, nil)}, Until: 5 * time.Minute, StopAtRecall: true})
			if err != nil {
				t.Fatal(err)
			}
			if !o.Phase.Recalling() || o.Broken > 6 {
				t.Errorf("%d rings, seed %d: %s with %d harmed", len(rings), seed, o.Phase, o.Broken)
			}
		}
	}
}

// TestCleanReleaseCompletes reaches every host when nothing is wrong.
func TestCleanReleaseCompletes(t *testing.T) {
	for _, n := range []int{1, 3, 60, 900, 30_000} {
		kinds := ModelFleet(n, 12, false)
		p := UrgentPolicy(kinds)
		p.Rings = holdfast.RingPlan{{Name: "internal", Through: 10_000}, {Name: "all", Through: 1_000_000, Soak: 5 * time.Minute}}
		o, err := Counts(p, World{Seed: 3, Kinds: kinds, Until: 8 * time.Hour, Restart: .1})
		if err != nil {
			t.Fatal(err)
		}
		if o.Phase != holdfast.Complete || o.Exposed < n*99/100 {
			t.Errorf("%d hosts: %s with %d exposed", n, o.Phase, o.Exposed)
		}
	}
}

// TestPeersAgreeWithTheirRules compares with what follows from each rule by
// hand, at 8.5 M hosts of which all, or a tenth, break and report.
func TestPeersAgreeWithTheirRules(t *testing.T) {
	want := map[string][2]int{
		"19 July 2024":                      {8_500_000, 850_000},
		"hawkBit, 10 groups":                {850_000, 850_000},
		"hawkBit, 20,000 a group at 5 %":    {20_000, 2000},
		"AWS IoT Jobs, 100 / 20 %":          {267, 850_000},
		"AWS IoT Jobs, 100 / 5 %":           {267, 27},
		"Argo Rollouts, documented example": {5_100_000, 510_000},
		"Docker swarm, default":             {1, 1},
		"24 h soak with a person":           {85_000, 8500},
	}
	for _, p := range Peers() {
		w, ok := want[p.Name]
		if !ok {
			continue
		}
		for i, share := range []float64{1, .1} {
			got := p.play(newRandom(1, 1), 8_500_000, share, false, fortnight).harmed
			if float64(got) < .8*float64(w[i])-8 || float64(got) > 1.2*float64(w[i])+12 {
				t.Errorf("%s, %g broken: %d harmed, by its rule about %d", p.Name, share, got, w[i])
			}
		}
	}
}
