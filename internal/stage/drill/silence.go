package drill

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

var silence = Drill{
	Name:  "silence",
	Short: "hosts are cut off after they took the release, and cannot say so",
	Long: `Every host that takes the release loses its network shortly afterwards. It does
not crash, its guard sees nothing wrong, and nobody reports anything: silence is
the only signal, as it was on 19 July 2024. Later the network is mended.

The seed decides how long after activation the wire is cut.`,
	cast: func(a *act) cast {
		return cast{hosts: a.o.Hosts, worker: "holdfast-agent", recording: cycle(), rate: 4, wires: func(int) bool { return true }}
	},
	play: func(ctx context.Context, a *act) error {
		after := time.Duration(a.random.IntN(1500)) * time.Millisecond
		r, b, err := a.honest(ctx, "severing", quiet(2))
		if err != nil {
			return err
		}
		a.note("a release begins; hosts that take it are cut off %v later", after)
		cut := map[*host]bool{}
		d, err := a.watch(ctx, r.ID, 2*time.Minute, func(d view.RolloutDetail) bool {
			for _, h := range a.hosts {
				if cut[h] {
					continue
				}
				if at := h.log().ran(b.Digest); !at.IsZero() && time.Since(at) >= after {
					h.wire.Sever(true)
					cut[h] = true
				}
			}
			return d.Phase.Done()
		})
		if err != nil {
			return err
		}
		a.r.Harmed = len(cut)
		kinds := harms(d, holdfast.New)
		a.check(d.Phase.Recalling(), "the release was %s with %d hosts cut off: %s", d.Phase, len(cut), d.Why)
		a.check(len(cut) <= maxHarmed, "at most %d hosts were cut off", maxHarmed)
		a.check(len(kinds) == 1 && kinds[holdfast.Silence] > 0, "silence was the only signal")
		a.check(len(harms(d, holdfast.Placebo)) == 0, "no host that kept what it had was judged silent")

		mended := time.Now()
		for _, h := range a.hosts {
			h.wire.Sever(false)
		}
		a.note("the network is mended")
		if d, err = a.watch(ctx, r.ID, 90*time.Second, recalled); err != nil {
			return err
		}
		a.times(d)
		a.r.Recover = since(mended, entry(d, "recalled")) // nobody can be told before
		a.check(d.Recall.Hosts >= len(cut), "all %d hosts that had it gave it back when they could be reached", d.Recall.Back)
		a.r.HostsNeedingHands = a.hands(ctx, a.base.Digest)
		return nil
	},
}
