package rollout

import (
	"fmt"

	"github.com/holdfast-security/holdfast"
)

// mostHarmed is how many harmed hosts a test may take before a person should
// decide instead: beyond it, HALT counts as out of reach.
const mostHarmed = 6

// stop recalls when the test cannot speak: StopAt treated hosts harmed, no
// control harmed, and either no control left in the strata where it happened,
// or HALT out of reach with those that are. A control that came to harm by
// itself must not let a few hosts of a small ring be probed one by one until
// all are harmed: at mostHarmed it also recalls what harms most of whom it
// reaches, and few of the others. No α is claimed for it.
func (d *decision) stop() {
	if !halting || d.s.Phase.Done() {
		return
	}
	for i := range d.s.Evidence {
		ev := &d.s.Evidence[i]
		if i == 0 && len(d.s.Evidence) > 1 || ev.Halted {
			continue // each organisation by itself
		}
		harmed, drawn, controls, compared := 0, 0, 0, 0
		left := 0
		worst := -1
		for j := range d.units {
			u := &d.units[j]
			if ev.Org != "" && u.org != ev.Org {
				continue
			}
			harmed, drawn = harmed+u.harmed, drawn+u.drawn
			controls, compared = controls+u.harmedControl, compared+u.controls
			if u.harmed == 0 {
				continue
			}
			if n := u.comparable(); worst < 0 || n > left {
				worst, left = j, n
			}
		}
		most := harmed >= max(mostHarmed, d.s.StopAt) && 2*harmed > drawn && 10*controls < compared
		if !most && (harmed < d.s.StopAt || controls > 0) {
			continue
		}
		why := fmt.Sprintf("%d hosts with the release were harmed and no other, and no host is left to compare with", harmed)
		switch {
		case most:
			why = fmt.Sprintf("%d of %d hosts with the release were harmed, and %d of %d others", harmed, drawn, controls, compared)
		case left > 0:
			if d.withinReach(i, &d.units[worst], harmed) {
				continue
			}
			why = fmt.Sprintf("%d hosts with the release were harmed and no other, and the %d hosts left to compare with cannot settle it before %d are harmed", harmed, left, max(mostHarmed, harmed)+1)
		}
		ev.Halted = true
		d.recall(ev.Org, holdfast.Stopped, why)
		d.do(Stop{Org: ev.Org, Why: why, Harmed: harmed, Exposed: d.drawnIn(ev.Org), AtEvent: d.s.EventSeq})
	}
}

// comparable counts the hosts of a unit that are controls or could become
// some.
func (t *tally) comparable() int {
	return max(t.waiting+t.last+t.watching, t.atRisk-t.harmedControl)
}

// withinReach reports whether E would reach its limit before more than
// mostHarmed hosts are harmed, if from now on every treated host is: those
// pending first, then probes one at a time.
func (d *decision) withinReach(party int, u *unit, harmed int) bool {
	d.evaluate()
	ev := &d.s.Evidence[party]
	k := d.busiest(party)
	g := fastGridFor(d.policy.rate(u.stratum, d.policy.Signals[k]), d.policy.ThetaFast)
	e, pending, controls := ev.E, u.pending(), u.comparable()
	scopes := d.scopes(u.site)
	ls, values := make([]fastL, len(scopes)), make([]fastScope, len(scopes))
	for i, sc := range scopes {
		ls[i] = ev.L.fast[d.layout.at(sc, k)]
		values[i] = ls[i].scope()
	}
	for harmed < mostHarmed && controls > 0 {
		y := pending
		if y == 0 {
			y = 1
			controls-- // becomes the probe
		} else {
			pending--
		}
		step := g.step(true, share(y, controls, d.policy.ThetaFast))
		for i, sc := range scopes {
			e += d.layout.fastWeight(sc) * values[i].move(&ls[i], &step)
		}
		if harmed++; e >= ev.Limit {
			return true
		}
	}
	return e >= ev.Limit
}

// busiest is the signal with the largest pooled fast value.
func (d *decision) busiest(party int) (k int) {
	best := 0.0
	for i := range d.layout.signals {
		if v := d.values[party].fast[d.layout.at(0, i)].value; v > best {
			best, k = v, i
		}
	}
	return k
}
