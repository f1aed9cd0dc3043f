package drill

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/stage"
	"github.com/holdfast-security/holdfast/internal/view"
)

// stormRate is launches a second: a busy host.
const stormRate = 80

var storm = Drill{
	Name:  "storm",
	Short: "a rule takes what this fleet does all day for an attack",
	Long: `A new rule passes its own tests and rehearsal, whose benign events do not hold what
every host of this fleet launches all day. Each host that has it stops that rule,
and only that, as soon as it has spent its budget of findings. When three hosts
have, the release is paused until a person has looked; here the person halts it.

The seed decides which of the recorded programs the rule is about, and in which
order hosts launch them.`,
	cast: func(a *act) cast {
		all := cycle()
		a.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for i := range all { // half of what runs is what the rule is about
			if all[i] == idle {
				all[i].Image = stormOf(a.o.Seed)
			}
		}
		return cast{hosts: a.o.Hosts, worker: "holdfast-agent", recording: all, rate: stormRate}
	},
	play: func(ctx context.Context, a *act) error {
		r, b, err := a.honest(ctx, "noisy", noisy(stormOf(a.o.Seed)))
		if err != nil {
			return err
		}
		a.note("rehearsal found nothing wrong with a rule about %s, and it is released", stormOf(a.o.Seed))
		stopped, err := a.stopping(ctx, r.ID, 1)
		if err != nil {
			return err
		}
		noticed := time.Now()
		a.note("%d hosts stopped the rule by themselves", stopped)
		d, err := a.watch(ctx, r.ID, time.Minute, func(d view.RolloutDetail) bool { return d.Phase == holdfast.Paused || d.Phase.Done() })
		if err != nil {
			return err
		}
		a.check(d.Phase == holdfast.Paused, "with %d of %d hosts admitted the release is %s, for a person to look", d.Admitted, len(a.hosts), d.Phase)
		a.check(d.Harmed == 0, "no host was harmed: its other rules and its events go on")
		a.r.Detect, a.r.Halt = since(d.Started, noticed), since(d.Started, entry(d, "storm"))

		if _, err := a.halt(ctx, r.ID, "the rule finds what we do all day"); err != nil {
			return err
		}
		if d, err = a.watch(ctx, r.ID, time.Minute, recalled); err != nil {
			return err
		}
		a.r.Exposed = d.Admitted
		a.r.Recover = since(entry(d, "halt"), entry(d, "recalled"))
		most, err := a.findings(ctx, b.Digest)
		if err != nil {
			return err
		}
		a.check(most > 0 && most <= findingsBudget, "the noisiest host sent %d findings of it, and stopped", most)
		a.r.HostsNeedingHands = a.hands(ctx, a.base.Digest)
		return nil
	},
}

// findingsBudget is what a rule may find on one host before it is stopped: 200 at
// once, and 20 a minute.
const findingsBudget = 220

func stormOf(seed uint64) string {
	return programs[rand.New(rand.NewPCG(seed, 7)).IntN(len(programs))]
}

// stopping waits until hosts report that they stopped rules.
func (a *act) stopping(ctx context.Context, id holdfast.ReleaseID, want int) (n int, err error) {
	err = stage.Until(ctx, time.Minute, 200*time.Millisecond, "hosts to stop the rule", []*stage.Process{a.Server}, func() (bool, error) {
		all, err := a.all(ctx)
		n = 0
		for _, h := range all {
			if len(h.Report.Suspended) > 0 {
				n++
			}
		}
		return n >= want, err
	})
	return n, err
}

// findings returns the largest number of findings that one host sent of a
// bundle.
func (a *act) findings(ctx context.Context, b holdfast.Digest) (most int, err error) {
	by := map[holdfast.HostID]int{}
	for page := 1; ; page++ {
		var p view.FindingPage
		if err := a.Admin.Get(ctx, "/api/v1/findings?size=500&page="+strconv.Itoa(page), &p); err != nil {
			return 0, err
		}
		for _, f := range p.Findings {
			if f.Bundle == b {
				by[f.Host]++
				most = max(most, by[f.Host])
			}
		}
		if len(p.Findings) == 0 {
			return most, nil
		}
	}
}
