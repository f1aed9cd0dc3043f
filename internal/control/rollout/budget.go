package rollout

import (
	"math"

	"github.com/holdfast-security/holdfast"
)

// kappa is how many hosts one clean host buys.
func (d *decision) kappa() float64 {
	if d.s.Phase == holdfast.Held {
		return d.policy.HoldKappa
	}
	return d.policy.Kappa
}

// room is what the global harm budget still lends, in ordinary hosts: pending
// times the largest lethality still plausible stays below B. With no host
// harmed that is pending ≤ κ·clean + c₀, where κ = B/ln(2/δ).
func (d *decision) room() float64 {
	r := d.kappa()*float64(d.total.clean) + float64(d.policy.C0)
	if x := d.excess(); x > 0 {
		b := d.kappa() * math.Log(2/d.policy.Delta)
		r = min(r, b/HarmBound(d.total.clean, x, d.policy.Delta)+float64(d.policy.C0))
	}
	for i := range d.sites {
		r -= d.policy.weight(d.sites[i].name) * float64(d.sites[i].open())
	}
	return r
}

// excess is how many treated hosts were harmed beyond what the harm among the
// controls of their strata explains within three standard deviations. It only
// sets the pace.
func (d *decision) excess() int {
	if d.total.harmed == 0 {
		return 0
	}
	var expected, variance float64
	for i := range d.sites {
		s := &d.sites[i]
		if s.controls == 0 {
			continue
		}
		ratio, harmed := float64(s.drawn)/float64(s.controls), float64(s.harmedControl)+.5
		expected += ratio * harmed
		variance += ratio*harmed + ratio*ratio*harmed
	}
	return max(0, int(math.Ceil(float64(d.total.harmed)-expected-3*math.Sqrt(variance))))
}

// siteRoom is the same within one stratum. A stratum starts with c₀ in
// proportion to its share of the fleet, but at least StratumC0.
func (d *decision) siteRoom(i int) int {
	s := &d.sites[i]
	first := float64(d.policy.StratumC0)
	if i < len(d.s.Strata) {
		first = max(first, math.Round(float64(d.policy.C0)*float64(d.s.Strata[i].Hosts)/float64(d.s.Fleet)))
	}
	r := (d.kappa()*float64(s.clean) + first) / d.policy.weight(s.name)
	return max(0, int(min(r, 1e12))-s.open())
}

func (p *Policy) weight(s holdfast.Stratum) float64 {
	for _, c := range p.Criticality {
		if c.Stratum == s {
			return c.Weight
		}
	}
	return 1
}
