package holdfast

import (
	"encoding/json"
	"time"
)

// Rollout is where a release stands on its way through the fleet, as stored.
// State belongs to package rollout; Version is what a compare-and-swap
// compares.
type Rollout struct {
	Release ReleaseID       `json:"release"`
	Version int64           `json:"version"` // 0 before it is first stored
	Phase   Phase           `json:"phase"`
	State   json.RawMessage `json:"state,omitempty"`
	// Policy is what was fixed before it began (package rollout), Baseline the
	// 99th percentiles that regressions are measured against (package fleet).
	// Both are empty until it begins.
	Policy   json.RawMessage `json:"policy,omitempty"`
	Baseline json.RawMessage `json:"baseline,omitempty"`
	Updated  time.Time       `json:"updated"`
}

// Admission says that a host takes part in a rollout, on which arm and in
// which randomised block. It is a row before it is an offer; the host's own
// poll is what draws it. A host has at most one admission per release and
// block, and at most one on the arm New, unless that was never carried out, or
// was recalled and two people overrode the recall, or the host is offered again
// what it went back from (Again).
type Admission struct {
	Release ReleaseID `json:"release"`
	Host    HostID    `json:"host"`
	Org     OrgID     `json:"org"`
	Stratum Stratum   `json:"stratum"`        // frozen here
	Cell    Stratum   `json:"cell,omitempty"` // the finer stratum, if Stratum is merged of several
	Ring    int       `json:"ring"`
	Block   int       `json:"block"`
	Arm     Arm       `json:"arm"`
	At      time.Time `json:"at"` // both arms' clocks start here
	// Lease names the offer. It is what a host reports in
	// HostReport.Activation once it has carried the offer out.
	Lease string `json:"lease"`
	// Before is what the host had in the release's channel: what a recall puts
	// back. Boot and Crashes are the baseline that harm is measured from, RSS
	// and CPU the one for regressions.
	Before  Digest `json:"before"`
	Boot    string `json:"boot"`
	Crashes uint64 `json:"crashes"`
	RSS     uint64 `json:"rss"`
	CPU     uint64 `json:"cpu_milli"`
	// What became of it, each set once. Activated is when the host first
	// reported the offer carried out. Clean is when it reported at or after the
	// end of the fast window without harm. Left is when it went out of
	// observation (drawn anew, retired, declined), and Why. Returned is when,
	// after a recall, it could no longer have the release.
	Activated time.Time `json:"activated,omitzero"`
	Clean     time.Time `json:"clean,omitzero"`
	Left      time.Time `json:"left,omitzero"`
	Why       string    `json:"why,omitempty"`
	Returned  time.Time `json:"returned,omitzero"`
}

// LateBlock is the block of admissions made after a release was complete: there is
// nobody to compare them with.
const LateBlock = -1

// Again says that the host had activated the release before, went back though
// nothing failed for good, and is offered it once more. It is the same host: such
// an admission, of a block below LateBlock, is outside of every comparison, and
// no second host.
func (a *Admission) Again() bool { return a.Block < LateBlock }

// Entry is one decision on the record.
type Entry struct {
	Seq     int64           `json:"seq"` // position in the log, from 0
	At      time.Time       `json:"at"`
	Kind    string          `json:"kind"` // "release", "approve", "halt", …
	Org     OrgID           `json:"org"`
	By      string          `json:"by"` // a person, or "holdfast" when the procedure decided
	Release ReleaseID       `json:"release,omitempty"`
	Bundle  Digest          `json:"bundle,omitempty"`
	Text    string          `json:"text"` // one sentence for people
	Detail  json.RawMessage `json:"detail,omitempty"`
}

// Command is an order for one host, stored until the host has carried it out.
type Command struct {
	ID      string          `json:"id"`
	Host    HostID          `json:"host"`
	Kind    string          `json:"kind"`
	Args    json.RawMessage `json:"args,omitempty"`
	By      string          `json:"by"`
	At      time.Time       `json:"at"`
	Done    time.Time       `json:"done,omitzero"`
	Outcome string          `json:"outcome,omitempty"`
}
