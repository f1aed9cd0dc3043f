package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Policy is everything about a rollout that is fixed before it starts. The
// guarantees hold because nothing in it can be changed by what is seen later.
type Policy struct {
	Schema  int                `json:"schema"` // PolicySchema
	Release holdfast.ReleaseID `json:"release"`
	Profile holdfast.Profile   `json:"profile"`
	Rings   holdfast.RingPlan  `json:"rings"`
	Signed  time.Time          `json:"signed"` // soaks count from here
	By      string             `json:"by"`     // who released
	// Approved is the second person, if somebody approved before the start; an
	// emergency waits for one.
	Approved string `json:"approved_by,omitempty"`

	// Alpha bounds P(a harmless release is ever halted), over all signals,
	// scopes and moments. Delta is the level of bounds that are only shown or
	// that set the pace.
	Alpha float64 `json:"alpha"`
	Delta float64 `json:"delta"`

	// Kappa hosts may be pending for every clean one, C0 when none is clean
	// yet (StratumC0 within one stratum). HoldKappa replaces Kappa on HOLD,
	// which begins when the pooled fast evidence reaches HoldAt.
	Kappa     float64 `json:"kappa"`
	HoldKappa float64 `json:"hold_kappa"`
	HoldAt    float64 `json:"hold_at"`
	C0        int     `json:"c0"`
	StratumC0 int     `json:"stratum_c0"`

	// Heartbeat is how often a host reports. Fast and Slow are the two
	// windows of observation after a host was drawn. The procedure scales
	// with them: production beats every 60 s with windows of 10 min and 24 h,
	// a drill every second.
	Heartbeat time.Duration `json:"heartbeat_ns"`
	Fast      time.Duration `json:"fast_ns"`
	Slow      time.Duration `json:"slow_ns"`

	// ThetaFast and ThetaSlow are the tolerated hazard ratios.
	ThetaFast float64 `json:"theta_fast"`
	ThetaSlow float64 `json:"theta_slow"`

	// Signals are the kinds of harm that count. Evidence is divided among
	// them, so a small fleet should watch few.
	Signals   []holdfast.HarmKind `json:"signals"`
	Baselines []Baseline          `json:"baselines,omitempty"`

	// ControlFloor and ControlShare: of a large stratum, max(ControlFloor,
	// ControlShare) stays on placebo until its last window has closed, but
	// never more than SmallControlShare. ControlCap bounds the placebos drawn
	// for one stratum in one block; where many are treated it is a multiple of
	// them instead.
	ControlFloor      int     `json:"control_floor"`
	ControlShare      float64 `json:"control_share"`
	SmallControlShare float64 `json:"small_control_share"`
	ControlCap        int     `json:"control_cap"`

	// SmallFleet: below it the rings after the first collapse into one.
	// MediumFleet: below it the control floor is SmallControlShare.
	SmallFleet  int `json:"small_fleet"`
	MediumFleet int `json:"medium_fleet"`

	// Stages hold back the whole rollout at a share of the fleet (STANDARD).
	Stages []Stage `json:"stages,omitempty"`

	// Criticality weighs pending hosts of a stratum; 1 if absent.
	Criticality []Criticality `json:"criticality,omitempty"`
}

// PolicySchema is the version of the form of Policy.
const PolicySchema = 1

// Baseline is the share of hosts of a stratum (all strata, if empty) that show
// a signal within one fast window when nothing is wrong. It only picks the
// alternatives that are tested; the guarantee does not need it.
type Baseline struct {
	Stratum holdfast.Stratum  `json:"stratum,omitempty"`
	Signal  holdfast.HarmKind `json:"signal"`
	Rate    float64           `json:"rate"`
}

// Criticality is how many ordinary hosts one host of a stratum counts for in
// the harm budget.
type Criticality struct {
	Stratum holdfast.Stratum `json:"stratum"`
	Weight  float64          `json:"weight"`
}

// Stage holds the rollout at a number of treated hosts for a time: at
// max(Share of the fleet, Hosts) if Largest, else at min(Share, Hosts); never
// below AtLeast nor (if positive) above AtMost of the fleet.
type Stage struct {
	Share   float64       `json:"share"`
	Hosts   int           `json:"hosts,omitempty"`
	Largest bool          `json:"largest,omitempty"`
	AtLeast int           `json:"at_least,omitempty"`
	AtMost  float64       `json:"at_most,omitempty"`
	Hold    time.Duration `json:"hold_ns"`
}

// DefaultPolicy returns the production policy of a profile: heartbeats every
// 60 s, windows of 10 min and 24 h (72 h for STANDARD), α = 1 in 1,000.
func DefaultPolicy(profile holdfast.Profile) Policy {
	p := Policy{
		Schema: PolicySchema, Profile: profile, Rings: slices.Clone(holdfast.DefaultRings),
		Alpha: 1e-3, Delta: .05,
		Kappa: 5, HoldKappa: .5, HoldAt: 10, C0: 5, StratumC0: 2,
		Heartbeat: time.Minute, Fast: 10 * time.Minute, Slow: 24 * time.Hour,
		ThetaFast: 1.25, ThetaSlow: 1,
		Signals:      slices.Clone(holdfast.HarmKinds),
		ControlFloor: 1000, ControlShare: .01, SmallControlShare: .10, ControlCap: 5000,
		SmallFleet: 1000, MediumFleet: 100_000,
	}
	if profile == holdfast.Standard {
		// Whoever came early in a stage is still observed when it ends, and a
		// stage whose evidence points upward can wait for the answer.
		p.Slow = 72 * time.Hour
		p.Stages = []Stage{
			{Share: .01, Hosts: 1000, AtLeast: 5, Hold: 4 * time.Hour},
			// 85,000 host-days show a doubling of a crash rate of 5e-4 a day.
			{Share: .01, Hosts: 85_000, Largest: true, AtMost: .10, Hold: 24 * time.Hour},
			{Share: .20, Hold: 24 * time.Hour},
		}
	}
	return p
}

// WithClock returns the policy on another heartbeat: every duration but the
// rings' soaks keeps its proportion to it. The procedure stays the same.
func (p Policy) WithClock(heartbeat time.Duration) Policy {
	scale := func(d time.Duration) time.Duration {
		return time.Duration(float64(d) * float64(heartbeat) / float64(p.Heartbeat))
	}
	p.Fast, p.Slow = scale(p.Fast), scale(p.Slow)
	p.Stages = slices.Clone(p.Stages)
	for i := range p.Stages {
		p.Stages[i].Hold = scale(p.Stages[i].Hold)
	}
	p.Heartbeat = heartbeat
	return p
}

// BadSignal returns the first kind of harm in a list that is unknown or named
// twice, or -1.
func BadSignal(signals []holdfast.HarmKind) int {
	for i, k := range signals {
		if slices.Contains(signals[:i], k) || !slices.Contains(holdfast.HarmKinds, k) {
			return i
		}
	}
	return -1
}

// Validate reports the first thing that makes the policy unusable or breaks
// its guarantees.
func (p *Policy) Validate() error {
	bad := func(field, what, do string) error {
		return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: "policy." + field, Do: do}
	}
	share := func(x float64) bool { return x > 0 && x < 1 }
	switch {
	case p.Schema != PolicySchema:
		return bad("schema", fmt.Sprintf("is %d, and this version knows %d", p.Schema, PolicySchema), "upgrade holdfastd")
	case p.Profile != holdfast.Standard && p.Profile != holdfast.Urgent && p.Profile != holdfast.Emergency:
		return bad("profile", fmt.Sprintf("%q is not a profile", p.Profile), "use standard, urgent or emergency")
	case !share(p.Alpha) || p.Alpha > .05:
		return bad("alpha", "must be above 0 and at most 0.05", "the default is 0.001")
	case !share(p.Delta):
		return bad("delta", "must lie between 0 and 1", "the default is 0.05")
	case !(p.Kappa > 0 && p.Kappa <= 20) || !(p.HoldKappa > 0 && p.HoldKappa <= p.Kappa):
		return bad("kappa", "must be above 0 and at most 20, and hold_kappa at most kappa", "the defaults are 5 and 0.5")
	case p.HoldAt < 1:
		return bad("hold_at", "must be at least 1", "the default is 10")
	case p.C0 < 1 || p.C0 > 100 || p.StratumC0 < 1 || p.StratumC0 > p.C0:
		return bad("c0", "must be 1 to 100, and stratum_c0 1 to c0", "the defaults are 5 and 2")
	case p.Heartbeat <= 0 || p.Fast < 5*p.Heartbeat:
		return bad("fast_ns", "must be at least five heartbeats, or silence cannot show in it", "the default is ten heartbeats")
	case p.Slow < p.Fast:
		return bad("slow_ns", "must not be shorter than the fast window", "the default is 24 h")
	case !(p.ThetaFast >= 1 && p.ThetaFast <= 10) || !(p.ThetaSlow >= 1 && p.ThetaSlow <= 10):
		return bad("theta_fast", "tolerated hazard ratios must be 1 to 10", "the defaults are 1.25 and 1")
	case len(p.Signals) == 0 || len(p.Signals) > 16:
		return bad("signals", "must name 1 to 16 kinds of harm", "")
	case p.ControlFloor < 0 || !share(p.ControlShare) || !share(p.SmallControlShare) || p.ControlCap < 1:
		return bad("control_floor", "shares must lie between 0 and 1, and the cap be at least 1", "")
	}
	if i := BadSignal(p.Signals); i >= 0 {
		return bad(fmt.Sprintf("signals[%d]", i), fmt.Sprintf("%q is unknown or named twice", p.Signals[i]), "")
	}
	for i, b := range p.Baselines {
		if !(b.Rate > 0 && b.Rate < 1) {
			return bad(fmt.Sprintf("baselines[%d].rate", i), "must lie between 0 and 1", "it is a share of hosts per fast window")
		}
	}
	for i, c := range p.Criticality {
		if !(c.Weight >= 1 && c.Weight <= 1e6) {
			return bad(fmt.Sprintf("criticality[%d].weight", i), "must be 1 to 1,000,000", "1 is an ordinary host")
		}
	}
	for i, s := range p.Stages {
		if !(s.Share >= 0 && s.Share <= 1) || s.Hosts < 0 || s.Hold < 0 || s.AtMost < 0 || s.AtMost > 1 {
			return bad(fmt.Sprintf("stages[%d]", i), "shares must lie in 0 to 1, and numbers must not be negative", "")
		}
	}
	return p.Rings.Validate()
}
