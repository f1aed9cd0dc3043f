package drill

import (
	"context"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

var mute = Drill{
	Name:  "mute",
	Short: "a build of the agent works, and never reaches the server",
	Long: `A release of the agent that evaluates every event, finds everything, and believes
no server: it looks for the authority in a pool that is empty. Rehearsal has no
server for it to speak to, and passes it. Hosts that take it fall silent, which
halts the release; but no recall can reach them. Their guards do not believe a
worker that reaches nobody where the one before it did, and go back by themselves.

The seed decides in which order hosts launch what they launch.`,
	bare: true, // so that rehearsal of the build alone is honest
	cast: func(a *act) cast {
		all := cycle()
		a.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return cast{hosts: a.o.Hosts, worker: "holdfast-agent", recording: all, rate: 4}
	},
	play: func(ctx context.Context, a *act) error {
		r, err := a.worker(ctx, a.Program("drill/agent-mute"), "0.2.0-mute")
		if err != nil {
			return err
		}
		a.note("rehearsal found nothing wrong with the build, and it is released")
		d, err := a.watch(ctx, r.ID, 2*time.Minute, func(d view.RolloutDetail) bool { return d.Phase.Done() })
		if err != nil {
			return err
		}
		a.check(d.Phase.Recalling(), "the release was %s with %d of %d hosts admitted: %s", d.Phase, d.Admitted, len(a.hosts), d.Why)
		a.check(d.Harmed <= maxHarmed, "%d hosts were harmed (at most %d)", d.Harmed, maxHarmed)
		if d, err = a.watch(ctx, r.ID, 2*time.Minute, recalled); err != nil {
			return err
		}
		a.times(d)
		took := a.returns(r.Bundle.Digest)
		a.r.Harmed = len(took)
		a.check(len(took) > 0 && !slices.Contains(took, 0), "all %d hosts that ran it went back by themselves, after %.0f s at most", len(took), slices.Max(append(took, 0)).Seconds())
		a.r.HostsNeedingHands = a.hands(ctx, "")
		all, err := a.all(ctx)
		if err != nil {
			return err
		}
		a.check(!slices.ContainsFunc(all, func(h view.HostRow) bool { return h.Report.Running[holdfast.Agent] == r.Bundle.Digest }), "no host runs the build any more")
		return nil
	},
}

// returns lists, for each host that ran a digest on trial, how long it did; zero
// where it still does.
func (a *act) returns(d holdfast.Digest) (all []time.Duration) {
	for _, h := range a.hosts {
		log := h.log()
		if at := log.ran(d); !at.IsZero() {
			all = append(all, max(0, log.left(d).Sub(at)))
		}
	}
	return all
}
