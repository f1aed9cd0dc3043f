package rollout

import (
	"fmt"

	"github.com/holdfast-security/holdfast"
)

// Storm is how much noise a release may make before a person must look at it.
// Hosts stop a rule by themselves that finds too much or takes too long; that
// alone is no harm, and no evidence: only treated hosts have the new rules. But
// where many do, the release as a whole protects less than it says.
const (
	stormHosts = 3  // hosts that stopped rules, at least
	stormShare = 20 // … and at least one in so many that were drawn
)

// storm pauses the release, for each organisation by its own hosts, where too
// many have stopped rules of it. A person resumes or halts; after a resume it
// takes twice as many.
func (d *decision) storm() {
	if !d.admitting() {
		return
	}
	for i := range d.s.Evidence {
		ev := &d.s.Evidence[i]
		if i == 0 && len(d.s.Evidence) > 1 || ev.Halted {
			continue // each organisation by itself
		}
		n := d.suspending(ev.Org)
		if n < max(stormHosts, 2*ev.Stormed) || n*stormShare < d.drawnIn(ev.Org) {
			continue
		}
		ev.Stormed = n
		why := fmt.Sprintf("%d hosts stopped rules of it, which find too much or take too long: a person decides", n)
		d.s.Paused = append(d.s.Paused, Pausing{Org: ev.Org, By: "holdfast", At: d.now})
		if ev.Org == "" {
			d.s.Phase, d.s.Why = holdfast.Paused, why
		}
		d.do(Storm{Org: ev.Org, Hosts: n, Why: why})
	}
}

func (d *decision) suspending(org holdfast.OrgID) (n int) {
	for _, s := range d.in.Suspending {
		if org == "" || s.Org == org {
			n += s.Hosts
		}
	}
	return n
}
