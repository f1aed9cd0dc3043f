package rollout

import (
	"encoding/json"
	"time"

	"github.com/holdfast-security/holdfast"
)

// StateSchema is the version of the form of State.
const StateSchema = 1

// State is all that a rollout must remember between decisions. It is plain
// data, stored as JSON in the transaction that carries the actions out. Only
// [Decide] makes one; everybody else may read it.
type State struct {
	Schema     int            `json:"schema"` // StateSchema
	Phase      holdfast.Phase `json:"phase"`
	Why        string         `json:"why,omitempty"` // of the phase, for people
	Started    time.Time      `json:"started"`
	EventSeq   int64          `json:"event_seq"`   // the last harm row that was taken into account
	CommandSeq int64          `json:"command_seq"` // the last command that was

	// Strata, Levels and Orgs are frozen at the start, because the weights of
	// the combination depend on their number. A stratum that appears later
	// counts in the pool alone.
	Strata []StratumState   `json:"strata"`
	Levels []string         `json:"levels"`
	Orgs   []holdfast.OrgID `json:"orgs"`

	Rings     []RingState  `json:"rings"`
	Stage     int          `json:"stage"`               // index into Policy.Stages; their number when past all
	StageFull time.Time    `json:"stage_full,omitzero"` // when the stage's cap was reached and its hosts were clean
	NextBlock int          `json:"next_block"`
	Blocks    []BlockState `json:"blocks"`

	// Collapsed says that the rings after the first are paced as one, because
	// the fleet was small at the start. Fleet is its eligible size then.
	Collapsed bool `json:"collapsed,omitempty"`
	Fleet     int  `json:"fleet"`

	// Plan is the coverage array: cells in the order in which they get their
	// first host.
	Plan []PlanCell `json:"plan,omitempty"`

	// StopAt is how many treated hosts harmed, and no control, make STOP.
	StopAt int `json:"stop_at"`

	// Evidence of the whole installation, and of each organisation where
	// there are several.
	Evidence []Evidence `json:"evidence"`

	// Outages of the control plane, the latest last. Silence in them is void.
	Outages []Interval `json:"outages,omitempty"`
	Paused  []Pausing  `json:"paused,omitempty"`

	// Delayed counts the hosts that a rollout still waits for when it waits
	// for nobody else: their customers allow the release later, or they were
	// here and are away. Seen is the most hosts that were here at once, with
	// those that have the release.
	Delayed int `json:"delayed,omitempty"`
	Seen    int `json:"seen,omitempty"`
}

// StratumState is a stratum as frozen at the start.
type StratumState struct {
	Name   holdfast.Stratum `json:"name"`
	Levels []int            `json:"levels"` // indices into State.Levels
	Hosts  int              `json:"hosts"`  // eligible at the start
}

// RingState says when a ring opened; zero if it has not.
type RingState struct {
	Opened time.Time `json:"opened,omitzero"`
}

// PlanCell is a cell of the coverage array.
type PlanCell struct {
	Cell  holdfast.Stratum `json:"cell"`
	Tried bool             `json:"tried,omitempty"` // a treatment was granted in it
}

// BlockState is one randomised block.
type BlockState struct {
	Block  int         `json:"block"`
	Opened time.Time   `json:"opened"`
	Until  time.Time   `json:"until"` // no draws after it
	Closed bool        `json:"closed,omitempty"`
	Cells  []CellState `json:"cells"`
}

// CellState is what was granted in one cell of a block and what harm its hosts
// came to. The slices are indexed like Policy.Signals and nil while nothing
// happened; events after the fast window are counted apart, as late ones.
type CellState struct {
	Ring        int              `json:"ring"`
	Org         holdfast.OrgID   `json:"org"`
	Stratum     holdfast.Stratum `json:"stratum"`
	Cell        holdfast.Stratum `json:"cell,omitempty"`
	Treat       int              `json:"treat"`
	Placebo     int              `json:"placebo"`
	Why         AdmitReason      `json:"why"`
	Treated     []int            `json:"treated,omitempty"`
	Control     []int            `json:"control,omitempty"`
	LateTreated []int            `json:"late_treated,omitempty"`
	LateControl []int            `json:"late_control,omitempty"`
	// Harmed counts hosts, whatever the kinds of their events. Void counts
	// treated hosts whose silence fell into an outage of the control plane.
	HarmedTreated     int `json:"harmed_treated,omitempty"`
	HarmedControl     int `json:"harmed_control,omitempty"`
	LateHarmedTreated int `json:"late_harmed_treated,omitempty"`
	LateHarmedControl int `json:"late_harmed_control,omitempty"`
	Void              int `json:"void,omitempty"`
}

// Evidence is the e-process of one party: the installation (Org empty) or one
// organisation.
type Evidence struct {
	Org holdfast.OrgID `json:"org,omitempty"`
	// Limit is what E must reach to halt: 1/α, more after an override.
	Limit float64 `json:"limit"`
	E     float64 `json:"e"`
	Peak  float64 `json:"peak"` // the largest E so far; 1/Peak is the anytime p-value
	// HaltedBy is set when this party's part was recalled.
	Halted   bool   `json:"halted,omitempty"`
	HaltedBy string `json:"halted_by,omitempty"`
	// Stormed is how many hosts had stopped rules of the release when it was
	// last paused for that.
	Stormed int `json:"stormed,omitempty"`
	// Pooled is the pool's fast e-value, which HOLD looks at.
	Pooled float64 `json:"pooled"`
	// TreatedEvents and ControlEvents count events that moved it.
	TreatedEvents int `json:"treated_events"`
	ControlEvents int `json:"control_events"`
	// L holds the log-likelihood ratios by window, scope and signal.
	L Likelihoods `json:"l"`
	// Ratio holds the log-likelihoods of hazard ratios, for the report.
	Ratio spectrum `json:"ratio"`
}

// Interval is a span of time; To is zero while it lasts.
type Interval struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
}

// Pausing says that a person, or a storm of findings, paused the rollout for an organisation (all, if
// empty).
type Pausing struct {
	Org holdfast.OrgID `json:"org,omitempty"`
	By  string         `json:"by"`
	At  time.Time      `json:"at"`
}

// Load decodes a stored state; nil or empty bytes are a rollout that has not
// begun.
func Load(b []byte) (State, error) {
	var s State
	if len(b) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, &holdfast.Error{Kind: holdfast.Internal, What: "the stored rollout cannot be read", Err: err}
	}
	if s.Schema != StateSchema {
		return State{}, &holdfast.Error{Kind: holdfast.Conflict, What: "the stored rollout has another schema version", Do: "finish it with the holdfastd that began it"}
	}
	return s, nil
}
