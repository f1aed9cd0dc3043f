package drill

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

var leader = Drill{
	Name:  "leader",
	Short: "holdfastd is killed in the middle of rollouts, of a good release and of a lethal one",
	Long: `The server is killed with SIGKILL, and started again, three times while a good
release is on its way; then twice more around the halt of a lethal one: when the
first harm is known, and when the recall begins. Nothing is forgotten, and nothing
is done twice.

The seed decides when the good release is interrupted, and when the lethal one
strikes.`,
	bare: true, // the good release is their first
	cast: func(a *act) cast {
		return cast{hosts: a.o.Hosts, worker: "drill/agent-twin", recording: cycle(), rate: 4}
	},
	play: func(ctx context.Context, a *act) error {
		r, b, err := a.honest(ctx, "base", quiet(1))
		if err != nil {
			return err
		}
		a.base = b
		for i := range 3 {
			n := 1 + (i*len(a.hosts)+a.random.IntN(len(a.hosts)))/3
			if err := a.killAt(ctx, r.ID, func(d view.RolloutDetail) bool { return d.Admitted >= n || d.Phase.Done() }); err != nil {
				return err
			}
		}
		if err := a.completes(ctx, r.ID, b); err != nil {
			return err
		}

		s := strikeOf(a.o.Seed)
		if r, err = a.forced(ctx, 1+a.o.Seed%1_000_000_000, s); err != nil {
			return err
		}
		a.note("a lethal release begins")
		if err := a.killAt(ctx, r.ID, func(d view.RolloutDetail) bool { return d.Harmed > 0 }); err != nil {
			return err
		}
		if err := a.killAt(ctx, r.ID, func(d view.RolloutDetail) bool { return d.Phase.Recalling() }); err != nil {
			return err
		}
		d, err := a.watch(ctx, r.ID, 2*time.Minute, recalled)
		if err != nil {
			return err
		}
		a.times(d)
		hurt, _ := a.struck(d.Bundle.Digest)
		a.r.Harmed = len(hurt)
		_, again := a.tried(d.Bundle.Digest)
		a.check(len(hurt) > 0 && len(hurt) <= maxHarmed, "it was %s with %d harmed (at most %d)", d.Phase, len(hurt), maxHarmed)
		a.check(again == 0, "no host was given it twice")
		a.r.HostsNeedingHands += a.hands(ctx, b.Digest)
		return nil
	},
}

// killAt kills the server at a moment of a rollout, as a crash would, and
// starts it again.
func (a *act) killAt(ctx context.Context, id holdfast.ReleaseID, when func(view.RolloutDetail) bool) error {
	d, err := a.watch(ctx, id, 2*time.Minute, when)
	if err != nil {
		return err
	}
	a.Server.Kill()
	killed := time.Now()
	if err := a.StartServer(ctx, "holdfastd"); err != nil {
		return err
	}
	a.note("the server was killed with %d admitted and %d harmed (%s), and answers again after %.1f s", d.Admitted, d.Harmed, d.Phase, time.Since(killed).Seconds())
	return nil
}
