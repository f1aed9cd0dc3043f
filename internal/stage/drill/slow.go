package drill

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/stage"
	"github.com/holdfast-security/holdfast/internal/view"
)

var slow = Drill{
	Name:  "slow",
	Short: "a build of the agent works, and takes far more of the processor",
	Long: `A release of the agent whose evaluation loop turns hundreds of times too often. It
finds everything, answers everything, and passes rehearsal; it just takes a good
part of a core on every host. The server watches processor time as well, against
what hosts of this fleet took when nothing was released to them.

The seed decides in which order hosts launch what they launch.`,
	bare:  true, // the fleet is left alone until its percentiles are known
	serve: []string{"--signals", "crash,reboot,silence,cpu"},
	cast: func(a *act) cast {
		all := cycle()
		a.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return cast{hosts: a.o.Hosts, worker: "holdfast-agent", recording: all, rate: 4}
	},
	play: func(ctx context.Context, a *act) error {
		// A percentile needs 200 samples of undisturbed hosts, one in ten
		// heartbeats of each.
		samples := time.Duration(220/len(a.hosts)+2) * 10 * a.o.Heartbeat
		a.note("the fleet is watched for %v, to know what it takes when nothing is released", samples)
		if err := pause(ctx, samples); err != nil {
			return err
		}
		r, err := a.worker(ctx, a.Program("drill/agent-slow"), "0.2.0-slow")
		if err != nil {
			return err
		}
		a.note("rehearsal found nothing wrong with the build, and it is released")
		d, err := a.watch(ctx, r.ID, 2*time.Minute, func(d view.RolloutDetail) bool { return d.Phase.Done() })
		if err != nil {
			return err
		}
		kinds := harms(d, holdfast.New)
		a.check(d.Phase.Recalling(), "the release was %s with %d of %d hosts admitted: %s", d.Phase, d.Admitted, len(a.hosts), d.Why)
		a.check(kinds[holdfast.CPU] > 0 && len(kinds) == 1, "processor time was the only signal: %v", kinds)
		a.check(d.Harmed <= maxHarmed, "%d hosts were harmed (at most %d)", d.Harmed, maxHarmed)
		if d, err = a.watch(ctx, r.ID, time.Minute, recalled); err != nil {
			return err
		}
		a.times(d)
		a.r.Harmed = d.Harmed
		a.r.HostsNeedingHands = a.hands(ctx, "")
		all, err := a.all(ctx)
		if err != nil {
			return err
		}
		a.check(!slices.ContainsFunc(all, func(h view.HostRow) bool { return h.Report.Running[holdfast.Agent] == r.Bundle.Digest }), "no host runs the build any more")
		return nil
	},
}

// worker rehearses a worker, honestly, and releases it.
func (a *act) worker(ctx context.Context, worker, version string) (r holdfast.Release, err error) {
	file := a.Path(filepath.Base(worker))
	if err := stage.CopyFile(worker, file); err != nil {
		return r, err
	}
	if _, err := a.Register(ctx, file); err != nil {
		return r, err
	}
	verdict, err := a.Rehearse(ctx, file, string(holdfast.Agent), a.builds()...)
	if err != nil {
		return r, err
	}
	return a.Release(ctx, file, verdict, string(holdfast.Agent), version, "drill: "+version)
}
