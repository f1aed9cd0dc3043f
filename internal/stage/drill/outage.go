package drill

import (
	"context"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

var outage = Drill{
	Name:  "outage",
	Short: "the server cannot hear the fleet in the middle of a rollout, and later is down",
	Long: `While a good release is on its way the network between all hosts and the server
fails for eight heartbeats, and later the server is down for twelve. That is our
own outage, and no evidence: nobody is judged silent, nothing is offered twice,
and the release goes on where it was.

The seed decides when each of the two happens.`,
	cast: func(a *act) cast {
		return cast{hosts: a.o.Hosts, worker: "holdfast-agent", recording: cycle(), rate: 4, wires: func(int) bool { return true }}
	},
	play: func(ctx context.Context, a *act) error {
		r, b, err := a.honest(ctx, "good", quiet(2))
		if err != nil {
			return err
		}
		admitted := func(n int) func(view.RolloutDetail) bool {
			return func(d view.RolloutDetail) bool { return d.Admitted >= n || d.Phase.Done() }
		}
		if _, err := a.watch(ctx, r.ID, time.Minute, admitted(1+a.random.IntN(4))); err != nil {
			return err
		}
		severed := time.Now()
		for _, h := range a.hosts {
			h.wire.Sever(true)
		}
		a.note("the network fails")
		if err := pause(ctx, 8*a.o.Heartbeat); err != nil {
			return err
		}
		deaf, err := a.Rollout(ctx, r.ID)
		if err != nil {
			return err
		}
		for _, h := range a.hosts {
			h.wire.Sever(false)
		}
		mended := time.Now()
		a.note("the network is back")
		said := noted(deaf, "cannot hear the fleet", severed)
		a.r.Detect = since(severed, said)
		a.check(!said.IsZero(), "the server says that it cannot hear the fleet")

		d, err := a.watch(ctx, r.ID, 2*time.Minute, admitted(len(a.hosts)/2+a.random.IntN(len(a.hosts)/4)))
		if err != nil {
			return err
		}
		a.r.Recover = since(mended, noted(d, "hears the fleet again", mended))
		a.Server.Stop(10 * time.Second)
		a.note("the server is down, with %d of %d hosts admitted", d.Admitted, len(a.hosts))
		if err := pause(ctx, 12*a.o.Heartbeat); err != nil {
			return err
		}
		if err := a.StartServer(ctx, "holdfastd"); err != nil {
			return err
		}
		a.note("the server is up again")
		return a.completes(ctx, r.ID, b)
	},
}

// noted returns when a note of a rollout's first said something, since a moment.
func noted(d view.RolloutDetail, what string, since time.Time) (at time.Time) {
	for _, e := range d.Timeline { // latest first
		if e.Kind == "note" && strings.Contains(e.Summary, what) && e.At.After(since) {
			at = e.At
		}
	}
	return at
}

// completes follows a good release to its end, through whatever was done to the
// server: it is complete, nobody was harmed, and no host ran it twice.
func (a *act) completes(ctx context.Context, id holdfast.ReleaseID, b holdfast.Bundle) error {
	d, err := a.watch(ctx, id, 3*time.Minute, over)
	if err != nil {
		return err
	}
	a.check(d.Phase == holdfast.Complete, "the release went on, and is %s", d.Phase)
	a.check(len(d.Harms) == 0, "nobody was judged harmed: %d events", len(d.Harms))
	a.r.HostsNeedingHands = a.hands(ctx, b.Digest)
	ran, again := a.tried(b.Digest)
	a.r.Exposed = ran
	a.check(ran == len(a.hosts) && again == 0, "every host was given it, and none twice: %d and %d", ran, again)
	return nil
}
