package view

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// RolloutRow is a rollout in a list.
type RolloutRow struct {
	holdfast.Release
	Phase    holdfast.Phase `json:"phase"`
	Started  time.Time      `json:"started"`
	Ended    time.Time      `json:"ended,omitzero"` // zero while it runs
	Eligible int            `json:"eligible"`       // hosts that can take the release, now or later
	Held     int            `json:"held,omitempty"` // hosts whose organisation does not allow it: not eligible
	// Delayed counts hosts that nothing but their organisations' delays and
	// windows keeps from it, or that were here and are away, while the rollout
	// waits for nobody else.
	Delayed  int            `json:"delayed,omitempty"`
	Admitted int            `json:"admitted"` // hosts that were offered it
	Clean    int            `json:"clean"`    // of those, past their window without harm
	Harmed   int            `json:"harmed"`
	Evidence float64        `json:"evidence"` // E
	Alpha    float64        `json:"alpha"`
	Rings    []RingProgress `json:"rings"`
	// LateFailed counts hosts that came when the rollout was complete, and came
	// to harm with the release: in none of the others, as nobody is compared with
	// them. LateWaiting counts those that are not given it before some of their
	// kind are clean.
	LateFailed  int `json:"late_failed,omitempty"`
	LateWaiting int `json:"late_waiting,omitempty"`
}

// RingProgress is how far a rollout has come in one ring.
type RingProgress struct {
	holdfast.Ring
	Opens    time.Time `json:"opens"`
	Eligible int       `json:"eligible"`
	Held     int       `json:"held,omitempty"`
	Admitted int       `json:"admitted"` // got the release
	Placebo  int       `json:"placebo"`  // re-activated what they had, to compare with
	Clean    int       `json:"clean"`
	Harmed   int       `json:"harmed"`
	Recalled int       `json:"recalled"`
}

// RolloutDetail is the rollout page.
type RolloutDetail struct {
	RolloutRow
	Now      time.Time `json:"now"`
	Pooled   float64   `json:"pooled"`   // E of the pool, fast: 10 holds
	Exposure []Sample  `json:"exposure"` // admitted hosts, A(t)
	Proof    []Sample  `json:"proof"`    // E over time
	Bound    Bound     `json:"bound"`
	Harms    []HarmRow `json:"harms"`    // latest first
	Timeline []Entry   `json:"timeline"` // latest first
	Why      string    `json:"why"`      // why it stands where it stands, one sentence
	Recall   Recall    `json:"recall"`
	// Preview is who still gets it, and when; nil when nothing is admitted
	// any more.
	Preview *Preview `json:"preview,omitempty"`
	// Overrides are the people who have asked to override the halt.
	Overrides []string `json:"overrides"`
	// Orgs is the evidence of each organisation, where there are several: a
	// release can be halted for one of them alone.
	Orgs []OrgEvidence `json:"organisations,omitempty"`
	// Late is who came when the rollout was complete, by organisation and
	// stratum, the worst first.
	Late []Latecomers `json:"late,omitempty"`
}

// Latecomers are the hosts of one stratum that came when a rollout was complete.
type Latecomers struct {
	Org     holdfast.OrgID   `json:"org"`
	Stratum holdfast.Stratum `json:"stratum"`
	Drawn   int              `json:"admitted"`
	Clean   int              `json:"clean"`   // of those
	Failed  int              `json:"failed"`  // of those
	Waiting int              `json:"waiting"` // until some of those are clean
}

// OrgEvidence is what one organisation's own hosts show. PValue and Ratio are as
// in Bound, for this organisation; looking for the smallest of many p-values
// needs the pool's.
type OrgEvidence struct {
	Org     holdfast.OrgID `json:"org"`
	E       float64        `json:"e"`
	Limit   float64        `json:"limit"`
	Halted  bool           `json:"halted"`
	Treated int            `json:"treated_events"` // harm events among hosts with the release
	Control int            `json:"control_events"` // and among those it is compared with
	PValue  float64        `json:"p_value"`
	Ratio   Range          `json:"hazard_ratio"`
}

// Sample is a value at a moment.
type Sample struct {
	At    time.Time `json:"at"`
	Value float64   `json:"value"`
}

// Bound is what can still not be ruled out (halting.md §3 and goal G7).
type Bound struct {
	Delta     float64  `json:"delta"`     // confidence is 1 − Delta
	HU        float64  `json:"hu"`        // largest lethality still plausible
	Pending   int      `json:"pending"`   // admitted, neither clean nor harmed
	Budget    float64  `json:"budget"`    // B: pending × HU stays below it
	Uncovered float64  `json:"uncovered"` // share of the fleet with a pair of attributes nobody tried
	Controls  int      `json:"controls"`  // hosts left to compare with
	Latent    []Latent `json:"latent"`
	// PValue may be read at any moment: one over the largest E so far. Ratio
	// contains the true ratio of hazards, treated to controls, at all moments,
	// at confidence 1 − Delta; zero bounds are open.
	PValue float64 `json:"p_value"`
	Ratio  Range   `json:"hazard_ratio"`
	// Worst is known before the release begins: how many hosts of this fleet
	// come to harm, at most, if every host that gets it is faulty. Tested says
	// that the test then halts it; otherwise STOP does, without a claim.
	Worst  int  `json:"worst"`
	Tested bool `json:"tested"`
}

// Range is an interval; a zero bound is open.
type Range struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Latent is what a fault that shows only after Delay would harm if it were in
// there: everything exposed by then.
type Latent struct {
	Delay time.Duration `json:"delay_ns"`
	Hosts int           `json:"hosts"`
}

// Recall counts the way back.
type Recall struct {
	Hosts   int `json:"hosts"`             // that were given the release
	Back    int `json:"back"`              // of those, that cannot have it any more
	Revoked int `json:"revoked,omitempty"` // of those, that were revoked before they gave it back; nobody waits for them
}

// Over reports whether nobody is waited for any more.
func (r Recall) Over() bool { return r.Back+r.Revoked >= r.Hosts }

// HarmRow is a harm with its host's name.
type HarmRow struct {
	holdfast.Harm
	Hostname string `json:"hostname"`
	Back     bool   `json:"back"` // the host runs what it had again
}
