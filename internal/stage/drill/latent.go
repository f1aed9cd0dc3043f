package drill

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

// latentAfter is how many heartbeats after a worker's start a latent fault
// strikes, at least: the release is on every host by then. In production a
// heartbeat is a minute, so that is more than an hour.
const latentAfter = 65

var latent = Drill{
	Name:  "latent",
	Short: "a fault that shows only long after the release is on every host",
	Long: `The lethal rule of 19 July, but the program it looks for runs only more than an
hour (on the drill's clock: a minute is a second) after each start. By then the
release has passed every window and is on every host; nobody is left to compare
with, and no procedure can tell. What is exposed by then is what such a fault can
harm. A person sees the dead workers, and halts: the recall works late as well.

The seed decides when the fault strikes.`,
	cast: func(a *act) cast {
		return cast{hosts: a.o.Hosts, worker: "drill/agent-twin", recording: a.late(), rate: 4}
	},
	play: func(ctx context.Context, a *act) error {
		r, err := a.forced(ctx, 1+a.o.Seed%1_000_000_000, strikeOf(a.o.Seed))
		if err != nil {
			return err
		}
		d, err := a.watch(ctx, r.ID, 2*time.Minute, func(d view.RolloutDetail) bool { return d.Phase.Done() })
		if err != nil {
			return err
		}
		a.check(d.Phase == holdfast.Complete && d.Harmed == 0, "nothing showed: the release is %s with %d harmed", d.Phase, d.Harmed)
		if d, err = a.watch(ctx, r.ID, 3*time.Minute, func(d view.RolloutDetail) bool { return d.Harmed >= 3 }); err != nil {
			return err
		}
		_, first := a.struck(d.Bundle.Digest)
		known := d.Harms[len(d.Harms)-1].At
		a.note("the fault strikes; the server knows of the first death %.1f s later", known.Sub(first).Seconds())
		if _, err := a.halt(ctx, r.ID, "workers die of it"); err != nil {
			return err
		}
		if d, err = a.watch(ctx, r.ID, time.Minute, recalled); err != nil {
			return err
		}
		a.times(d)
		hurt, _ := a.struck(d.Bundle.Digest)
		a.r.Harmed = len(hurt)
		a.check(len(hurt) < d.Admitted, "of %d hosts exposed, %d were harmed when the recall came", d.Admitted, len(hurt))
		a.r.HostsNeedingHands = a.hands(ctx, a.base.Digest)
		return nil
	},
}

// late is a recording that comes to the point late.
func (a *act) late() []launch {
	beats := time.Duration(latentAfter+a.random.IntN(10)) * a.o.Heartbeat
	return append(slices.Repeat([]launch{idle}, int(4*beats.Seconds())), launch{Image: strikeOf(a.o.Seed).image()})
}
