package rollout

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// Snapshot is what one node has observed of the fleet at one moment: counters,
// never hosts. All counters are cumulative, so that a lost or repeated message
// changes nothing; rows may come in any order, and a row that is missing means
// zeros.
type Snapshot struct {
	// Groups say who could be drawn now.
	Groups []Group `json:"groups"`
	// Cells say what became of those who were drawn. Rows of closed blocks
	// may be left out when nothing in them changes any more.
	Cells []Cell `json:"cells"`
	// Events are the harm rows with Seq > State.EventSeq, in the order of Seq.
	// Simultaneous events must have been given their Seq in random order.
	Events []Event `json:"events,omitempty"`
	// Suspending counts hosts that were drawn for the release and, running it,
	// stopped rules of it. Cumulative for as long as the node listens.
	Suspending []Suspending `json:"suspending,omitempty"`
	// Commands are people's decisions with Seq > State.CommandSeq, in order.
	Commands []Command `json:"commands,omitempty"`
	// Outage says that the control plane itself cannot hear the fleet (its own
	// outage, or a restart less than three heartbeats ago). It silences both
	// arms alike: admission stops, and no evidence moves.
	Outage bool `json:"outage,omitempty"`
}

// Suspending is how many hosts of an organisation stopped rules of the release
// by themselves, because they find too much or take too long.
type Suspending struct {
	Org   holdfast.OrgID `json:"org"`
	Hosts int            `json:"hosts"`
}

// Group is a set of hosts that are alike for the rollout: same ring (which a
// host derives for itself), organisation and stratum.
type Group struct {
	Ring    int              `json:"ring"` // index into Policy.Rings
	Org     holdfast.OrgID   `json:"org"`
	Stratum holdfast.Stratum `json:"stratum"` // as merged by [Merge], if strata were merged
	// Cell is the finer stratum of these hosts (Attributes.Stratum) when
	// Stratum was merged; empty means the same as Stratum.
	Cell holdfast.Stratum `json:"cell,omitempty"`

	// Eligible counts all hosts that this release is meant for and that do
	// not decline it (pin, pause, shun): offline ones and those that have it
	// already included.
	Eligible int `json:"eligible"`
	// Waiting counts those that asked within the last two heartbeats, whose
	// soak has passed, that have not been drawn for the release, and that are
	// not in the open fast window of a block as a control.
	Waiting int `json:"waiting"`
	// Watching counts controls in an open fast window that may be drawn anew
	// (their placebo is active and out of probation). A probe may take them:
	// they then leave their block.
	Watching int `json:"watching,omitempty"`
	// Last counts hosts that would be Waiting but must go last: marked
	// do-not-canary, or in no group of their customer's.
	Last int `json:"last,omitempty"`
	// Later counts hosts that would be one of these and whose customer allows
	// it later: a delay, a maintenance window.
	Later int `json:"later,omitempty"`
}

// Cell is what became of the hosts drawn in one block, in one ring, organisation
// and stratum.
type Cell struct {
	Block   int              `json:"block"`
	Ring    int              `json:"ring"`
	Org     holdfast.OrgID   `json:"org"`
	Stratum holdfast.Stratum `json:"stratum"`
	Cell    holdfast.Stratum `json:"cell,omitempty"` // as in Group, of admissions that named one
	Treated Arm              `json:"treated"`
	Control Arm              `json:"control"`
}

// Arm counts the hosts of one arm of a cell. Every host is counted in Drawn,
// and in at most one of Clean, Left and Undone.
type Arm struct {
	Drawn int `json:"drawn"`
	// Clean counts hosts that reported at or after draw + Policy.Fast without
	// a harm event and with the generation they were drawn for. A silent or
	// unresolved host is never clean.
	Clean int `json:"clean"`
	// Left counts hosts without a harm event that went out of observation
	// before they were clean: drawn anew, retired, declined the offer, said
	// good-bye (shut down in order) before the window closed.
	Left int `json:"left,omitempty"`
	// Ended counts clean hosts whose slow observation ended early: drawn
	// anew, retired, moved to another release.
	Ended int `json:"ended,omitempty"`
	// Gone counts hosts that came to harm before they were clean and whose
	// observation has ended since. They cannot be harmed in another way any
	// more: as controls they must not look as if they could.
	Gone int `json:"gone,omitempty"`
	// Undone counts hosts that went back to what they had before they were
	// clean, though nothing failed, and have not proved themselves since. They
	// are in none of the others and out of observation, but keep their share of
	// the harm budget. One that is offered the release again and is clean at last
	// moves to Clean and Ended.
	Undone int `json:"undone,omitempty"`
}

// Event is one harm event of a host that was drawn: the first of its kind of
// that host in that block.
type Event struct {
	Seq     int64             `json:"seq"`
	Block   int               `json:"block"`
	Ring    int               `json:"ring"`
	Org     holdfast.OrgID    `json:"org"`
	Stratum holdfast.Stratum  `json:"stratum"` // as in the Cell the host was drawn in
	Cell    holdfast.Stratum  `json:"cell,omitempty"`
	Treated bool              `json:"treated"`
	Kind    holdfast.HarmKind `json:"kind"`
	// First says that the host had no harm event of any kind in this block.
	First bool      `json:"first"`
	At    time.Time `json:"at"`
	// After is how long after the draw it happened; the fast window counts
	// events up to Policy.Fast, the slow one up to Policy.Slow.
	After time.Duration `json:"after_ns"`
}

// CommandKind is what a person can tell a rollout.
type CommandKind string

// The commands. A command that does not fit the phase is noted and ignored.
const (
	Approve  CommandKind = "approve"  // the second person of an emergency
	HaltNow  CommandKind = "halt"     // recall, whatever the evidence
	Pause    CommandKind = "pause"    // admit nobody; observation goes on
	Continue CommandKind = "resume"   // end a pause
	Finish   CommandKind = "finish"   // do not wait for those whose customers delay them
	Override CommandKind = "override" // two people go on after HALT or STOP
)

// Command is one person's decision; it is on the record before it counts.
type Command struct {
	Seq  int64       `json:"seq"`
	Kind CommandKind `json:"kind"`
	At   time.Time   `json:"at"`
	By   string      `json:"by"`
	// Second is the second person of an Override; both must differ.
	Second string `json:"second,omitempty"`
	// Acknowledged is the number of harmed hosts that both have seen. An
	// Override must name what the state shows, or it is refused.
	Acknowledged int    `json:"acknowledged,omitempty"`
	Reason       string `json:"reason,omitempty"`
	// Org limits the command to one organisation; empty means all.
	Org holdfast.OrgID `json:"org,omitempty"`
}
