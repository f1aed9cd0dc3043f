package exact

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim"
)

func config(hosts int, seed uint64) Config {
	kinds := sim.SmallFleet(hosts)
	p := sim.UrgentPolicy(kinds).WithClock(time.Second)
	return Config{Seed: seed, Kinds: kinds, Policy: p, Until: 10 * time.Minute}
}

func run(t *testing.T, c Config) Outcome {
	t.Helper()
	o, err := Run(t.Context(), c)
	if v := (*sim.Violation)(nil); errors.As(err, &v) {
		t.Fatalf("%v\n%v", v, v.Trace)
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
		c := config(60, seed)
		c.Fault = Fault{Share: 1, Kind: holdfast.Crash, After: 500 * time.Millisecond, Spread: time.Second}
		o := run(t, c)
		if o.Phase != holdfast.Halted || o.Broken > 6 || o.Hands > 0 || o.Returned != o.Broken {
			t.Errorf("seed %d: %+v", seed, o)
		}
		c.Fault.Share = 1. / 3
		if o := run(t, c); !o.Phase.Recalling() || o.Hands > 0 {
			t.Errorf("seed %d, a third faulty: %+v", seed, o)
		}
	}
}

// TestCleanReleaseReachesAll, through lost and repeated messages.
func TestCleanReleaseReachesAll(t *testing.T) {
	c := config(300, 1)
	c.Duplicate, c.Lose = .2, .2
	if o := run(t, c); o.Phase != holdfast.Complete || o.Exposed < 297 {
		t.Errorf("%+v", o)
	}
}

// TestBothFidelitiesDecideAlike plays the same fleet and fault host by host and
// in counts.
func TestBothFidelitiesDecideAlike(t *testing.T) {
	for _, share := range []float64{0, 1} {
		c := config(400, 3)
		c.Fault = Fault{Share: share, Kind: holdfast.Crash, After: time.Second, Spread: time.Second}
		e := run(t, c)
		o, err := sim.Counts(c.Policy, sim.World{Seed: 3, Kinds: c.Kinds, Until: c.Until, StopAtRecall: true, Faults: []sim.Fault{
			{Name: "crash", Share: share, Kind: holdfast.Crash, Soonest: time.Second, Latest: 2 * time.Second},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if e.Phase != o.Phase || e.Broken != o.Broken {
			t.Errorf("share %g: exact %s with %d broken, counts %s with %d", share, e.Phase, e.Broken, o.Phase, o.Broken)
		}
	}
}

// TestPromisesHold runs random small fleets with everything that can go wrong.
func TestPromisesHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := config(rapid.SampledFrom([]int{1, 5, 30, 60}).Draw(t, "hosts"), rapid.Uint64().Draw(t, "seed"))
		c.Until = time.Duration(rapid.IntRange(10, 90).Draw(t, "seconds")) * time.Second
		c.Policy.Rings = rapid.SampledFrom([]holdfast.RingPlan{
			c.Policy.Rings,
			{{Name: "internal", Through: 100_000}, {Name: "all", Through: 1_000_000, Soak: 5 * time.Second}},
		}).Draw(t, "rings")
		c.Fault = Fault{
			Share: rapid.SampledFrom([]float64{0, .2, 1}).Draw(t, "faulty"),
			Kind:  rapid.SampledFrom([]holdfast.HarmKind{holdfast.Crash, holdfast.Reboot, holdfast.Silence}).Draw(t, "kind"),
			After: rapid.SampledFrom([]time.Duration{0, 2 * time.Second, 20 * time.Second}).Draw(t, "after"), Spread: time.Second,
		}
		chance := func(name string, p float64) float64 {
			return rapid.SampledFrom([]float64{0, p}).Draw(t, name)
		}
		c.Duplicate, c.Lose, c.Restart, c.StoreFails = chance("duplicate", .3), chance("lose", .3), chance("restart", .03), chance("store fails", .05)
		c.CutOff = rapid.Bool().Draw(t, "cut off")
		if rapid.Bool().Draw(t, "deaf") {
			c.Deaf = []sim.Outage{{From: 8 * time.Second, For: 6 * time.Second, Server: true}}
		}
		_, err := Run(t.Context(), c)
		if v := (*sim.Violation)(nil); errors.As(err, &v) {
			t.Fatalf("%v\n%v", v, v.Trace)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}
