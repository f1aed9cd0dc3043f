package rollout

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// Report is what a person is shown about a rollout at one moment. Everything in
// it may be looked at continuously: no figure loses its meaning by being
// watched.
type Report struct {
	Phase   holdfast.Phase `json:"phase"`
	Why     string         `json:"why,omitempty"`
	Fleet   int            `json:"fleet"` // eligible at the start
	Exposed int            `json:"exposed"`
	Clean   int            `json:"clean"`
	Pending int            `json:"pending"`
	Harmed  int            `json:"harmed"`
	// Controls were drawn for the placebo; ControlsHarmed of them were harmed.
	Controls       int `json:"controls"`
	ControlsHarmed int `json:"controls_harmed"`
	// E against Limit; PValue is the anytime p-value 1/max E.
	E      float64 `json:"e"`
	Limit  float64 `json:"limit"`
	PValue float64 `json:"p_value"`
	// Ratio is the confidence sequence of the hazard ratio at level Delta.
	Ratio HazardRatio `json:"hazard_ratio"`
	// HarmBound is hU: the largest share of harmed hosts still plausible.
	HarmBound float64 `json:"harm_bound"`
	Delta     float64 `json:"delta"`
	// Room is how many more hosts the harm budget lends now.
	Room int `json:"room"`
	// Uncovered combinations of attribute values, and the share of the fleet
	// that has one.
	Uncovered     int     `json:"uncovered"`
	UncoveredMass float64 `json:"uncovered_mass"`
	// Latent is what a fault that shows so long after activation would have
	// harmed by now, if it harmed every host that has the release.
	Latent []LatentExposure `json:"latent"`
	Orgs   []OrgReport      `json:"organisations,omitempty"`
}

// LatentExposure is the number of hosts that have had the release for less than
// Delay, at least: a fault that takes Delay to show has not shown on them yet.
type LatentExposure struct {
	Delay time.Duration `json:"delay_ns"`
	Hosts int           `json:"hosts"`
}

// OrgReport is the evidence of one organisation among several, from its own
// hosts alone: its p-value and its interval may be read whenever anybody likes,
// but not the smallest of many, which is the pool's to say.
type OrgReport struct {
	Org    holdfast.OrgID `json:"org"`
	E      float64        `json:"e"`
	Limit  float64        `json:"limit"`
	Halted bool           `json:"halted"`
	// Harm events of treated and control hosts that it rests on.
	Treated int         `json:"treated_events"`
	Control int         `json:"control_events"`
	PValue  float64     `json:"p_value"`
	Ratio   HazardRatio `json:"hazard_ratio"`
}

// Delays of the latent exposure that are shown.
var latentDelays = []time.Duration{10 * time.Minute, time.Hour, 4 * time.Hour, 24 * time.Hour}

// Describe reports on a rollout as of a snapshot.
func Describe(p *Policy, s State, in Snapshot, now time.Time) Report {
	if s.Schema == 0 {
		return Report{Phase: holdfast.Waiting, Limit: 1 / p.Alpha, PValue: 1, HarmBound: 1, Delta: p.Delta, E: 1}
	}
	d := decision{policy: p, s: s, in: in, now: now}
	d.own()
	d.survey()
	t, ev := &d.total, &s.Evidence[0]
	r := Report{
		Phase: s.Phase, Why: s.Why, Fleet: s.Fleet, Exposed: t.drawn, Clean: t.clean, Pending: t.pending() + t.undone, Harmed: t.harmed + t.late,
		Controls: t.controls, ControlsHarmed: t.harmedControl,
		E: ev.E, Limit: ev.Limit, Delta: p.Delta,
		HarmBound: HarmBound(t.clean, t.harmed, p.Delta), Room: max(0, int(min(d.room(), 1e9))),
	}
	r.PValue, r.Ratio = Anytime(p, &s)
	cells := map[holdfast.Stratum]int{}
	for i := range in.Groups {
		cells[in.Groups[i].fine()] += max(0, in.Groups[i].Eligible)
	}
	var tried []holdfast.Stratum
	for _, c := range d.s.Plan {
		if c.Tried {
			tried = append(tried, c.Cell)
		}
	}
	r.Uncovered, r.UncoveredMass = Uncovered(cells, tried)
	for _, delay := range latentDelays {
		r.Latent = append(r.Latent, LatentExposure{delay, d.exposedSince(now.Add(-delay))})
	}
	r.Orgs = ByOrg(p, &s)
	return r
}

// ByOrg reports on each organisation, where there are several.
func ByOrg(p *Policy, s *State) (all []OrgReport) {
	if len(s.Evidence) < 2 {
		return nil
	}
	for i := range s.Evidence[1:] {
		e := &s.Evidence[i+1]
		x := OrgReport{Org: e.Org, E: e.E, Limit: e.Limit, Halted: e.Halted, Treated: e.TreatedEvents, Control: e.ControlEvents}
		x.PValue, x.Ratio = e.anytime(p.Delta)
		all = append(all, x)
	}
	return all
}

// Anytime returns the p-value and the confidence sequence of the hazard ratio,
// at level Delta, of the whole installation: both may be looked at whenever
// anybody likes.
func Anytime(p *Policy, s *State) (pvalue float64, ratio HazardRatio) {
	if len(s.Evidence) == 0 {
		return 1, HazardRatio{}
	}
	return s.Evidence[0].anytime(p.Delta)
}

func (e *Evidence) anytime(delta float64) (pvalue float64, ratio HazardRatio) {
	return min(1, 1/max(1, e.Peak)), e.Ratio.interval(delta)
}

// exposedSince counts hosts drawn for the release in blocks that still drew
// after t: at least those that were drawn after it.
func (d *decision) exposedSince(t time.Time) (n int) {
	for i := range d.in.Cells {
		c := &d.in.Cells[i]
		if c.Block >= 0 && c.Block < len(d.s.Blocks) && d.s.Blocks[c.Block].Until.After(t) {
			n += c.Treated.Drawn
		}
	}
	return n
}
