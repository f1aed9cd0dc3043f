package exact

import (
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// TestWhoWasNeverHereComesInSteps: laptops of a kernel that nobody else has are
// off while a release goes to all others, and come back at one moment when it is
// long complete. If it breaks them, five have it; if not, all get it soon.
func TestWhoWasNeverHereComesInSteps(t *testing.T) {
	laptops := sim.In("6.8|debian-12|1.11.0|laptop")
	breaks := crash(1)[0]
	dies := sim.Fault{Name: "dies", Share: 1, Kind: holdfast.Silence, Soonest: 4 * time.Second, Latest: 5 * time.Second}
	for _, c := range []struct {
		name   string
		faults []sim.Fault
		most   int // broken
		least  int // that have it
	}{
		{"it breaks them", []sim.Fault{breaks}, 5, 60},
		{"it kills them", []sim.Fault{dies}, 5, 60},
		{"it is good for them", nil, 0, 119},
	} {
		for seed := range uint64(3) {
			p, w := drill(60, seed)
			away := w.Kinds[0]
			away.Stratum, away.Offline, away.Back = "6.8|debian-12|1.11.0|laptop", 60, 5*time.Minute
			w.Kinds = append(w.Kinds, away)
			w.Until = 10 * time.Minute
			for i := range c.faults {
				c.faults[i].Where = laptops
			}
			w.Faults = c.faults
			o := play(t, p, w)
			if o.Phase != holdfast.Complete || o.Broken > c.most || c.most > 0 && o.Broken == 0 || o.Exposed < c.least {
				t.Errorf("%s, seed %d: %s (%s), %d broken, %d have it", c.name, seed, o.Phase, o.Why, o.Broken, o.Exposed)
			}
		}
	}
}
