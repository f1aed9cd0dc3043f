package console

import (
	"context"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Source is everything the pages read. Its methods are safe for concurrent use
// and return holdfast.NotFound for an id that does not exist. What they return
// may be some seconds old, and is the caller's.
type Source interface {
	OverviewSource
	FleetSource
	ContentSource
	RolloutSource
	FindingSource
	RecordSource
}

// OverviewSource feeds the overview page.
type OverviewSource interface {
	Overview(ctx context.Context) (Overview, error)
}

// FleetSource feeds the fleet list and the host page.
type FleetSource interface {
	Hosts(ctx context.Context, q HostQuery) (HostPage, error)
	Host(ctx context.Context, id holdfast.HostID) (HostDetail, error)
}

// ContentSource feeds the list of bundles and the bundle page.
type ContentSource interface {
	Bundles(ctx context.Context) ([]BundleRow, error)
	Bundle(ctx context.Context, d holdfast.Digest) (BundleDetail, error)
}

// RolloutSource feeds the rollout list and page.
type RolloutSource interface {
	Rollouts(ctx context.Context) ([]RolloutRow, error)
	Rollout(ctx context.Context, id holdfast.ReleaseID) (RolloutDetail, error)
}

// FindingSource feeds the findings list and page.
type FindingSource interface {
	Findings(ctx context.Context, q FindingQuery) (FindingPage, error)
	Finding(ctx context.Context, id string) (FindingDetail, error)
}

// RecordSource feeds the record page.
type RecordSource interface {
	Record(ctx context.Context, q RecordQuery) (RecordPage, error)
	// ExportRecord returns what `holdfast log verify` checks offline: a ZIP
	// archive of the checkpoint and the tiles up to it.
	ExportRecord(ctx context.Context) ([]byte, error)
}

// Actions are the decisions a person may take about a rollout. Each is
// idempotent, is on the record under the name by when it returns nil, and
// returns holdfast.Conflict if the rollout's phase forbids it and
// holdfast.Denied if by may not take it (a second person is needed and by is
// the first).
type Actions interface {
	Halt(ctx context.Context, id holdfast.ReleaseID, by, reason string) error
	Pause(ctx context.Context, id holdfast.ReleaseID, by, reason string) error
	Resume(ctx context.Context, id holdfast.ReleaseID, by string) error
	Approve(ctx context.Context, id holdfast.ReleaseID, by string) error
	// Override lets a halted rollout go on. It takes effect only when a second
	// person has called it too; acknowledged is what by says was seen.
	Override(ctx context.Context, id holdfast.ReleaseID, by, acknowledged string) error
}

// Topic is what a hint is about. Pages that show it load themselves again.
type Topic string

// The topics.
const (
	TopicFleet    Topic = "fleet"
	TopicRollouts Topic = "rollouts"
	TopicFindings Topic = "findings"
	TopicRecord   Topic = "record"
)

// Topics lists the topics.
var Topics = []Topic{TopicFleet, TopicRollouts, TopicFindings, TopicRecord}

// Hints says that something may have changed. A lost hint only delays a page:
// every live page also asks by itself now and then.
type Hints interface {
	// Listen calls f, from one goroutine, for each hint until ctx ends. f does
	// not block.
	Listen(ctx context.Context, f func(Topic))
}

// Clock is the clock profile in force. The procedure that halts is the same
// under each; only its windows differ.
type Clock struct {
	Name      string        // "production", "local"
	Heartbeat time.Duration // between two heartbeats of a host
	Window    time.Duration // the fast window W
}

// HostState is how a host stands, as one word for lists and colours.
type HostState string

// The host states.
const (
	Protected HostState = "protected" // runs content that has proved itself
	Probation HostState = "probation" // runs content that is proving itself
	PutBack   HostState = "putback"   // its latest candidate failed; runs what it had
	SafeMode  HostState = "safe"      // runs no content, still reachable
	Bare      HostState = "bare"      // enrolled, nothing to run yet
	Silent    HostState = "silent"    // not connected
)

// HostStates lists the states in the order pages show them.
var HostStates = []HostState{Protected, Probation, PutBack, SafeMode, Bare, Silent}

// StateOf derives the state of a host from what it last reported.
func StateOf(h holdfast.Host) HostState {
	r := h.Report
	switch {
	case !h.Connected:
		return Silent
	case r.SafeMode:
		return SafeMode
	case r.Probation:
		return Probation
	case len(r.Running) == 0:
		return Bare
	case len(r.Failed) > 0 && r.Failed.Equal(r.Attempted) && !r.Failed.Equal(r.Running):
		return PutBack
	}
	return Protected
}

// IsProtected reports whether content evaluates events on the host right now.
func (s HostState) IsProtected() bool { return s == Protected || s == Probation || s == PutBack }

// Overview is the first page.
type Overview struct {
	Now       time.Time
	States    map[HostState]int
	Hosts     int
	Simulated int // of Hosts
	Rings     []RingStates
	Rollout   *RolloutRow // the latest one, if there is any
	Trend     Trend
	Findings  []holdfast.Finding // the latest few
	Decisions []Entry            // the latest few
	Builds    []BuildCount
	Loss      Loss
}

// RingStates is the hosts of one ring, by state. Of is every host, if the fleet
// is small enough to draw one by one, else nil.
type RingStates struct {
	Name   string
	Hosts  int
	States map[HostState]int
	Of     []HostDot
}

// HostDot is one host on the overview's map.
type HostDot struct {
	ID        holdfast.HostID
	Hostname  string
	State     HostState
	Simulated bool
}

// Trend counts findings in equal steps of time, oldest first.
type Trend struct {
	Step time.Duration
	From time.Time
	// By counts by severity; every slice has the same length.
	By map[holdfast.Severity][]int
}

// BuildCount is how many hosts run a sensor build.
type BuildCount struct {
	Version   string
	Digest    holdfast.Digest
	Hosts     int
	Simulated int
	Sensor    string // the tier most of them use
}

// Loss is everything that was dropped, counted.
type Loss struct {
	Events, EventsDropped, FindingsDropped uint64
	Crashes                                uint64
}

// HostQuery selects hosts. The zero value selects all.
type HostQuery struct {
	Text  string // in host name, id, or any attribute
	State HostState
	Ring  string
	Role  string
	Build string // version
	Kind  string // "real", "simulated", or empty
	Page  int    // from 1
	Size  int    // hosts a page
}

// HostPage is one page of hosts, by name.
type HostPage struct {
	Hosts []HostRow
	Total int // that match
	// What can be chosen, over the whole fleet.
	Rings, Roles, Builds []string
}

// HostRow is a host in a list.
type HostRow struct {
	holdfast.Host
	State HostState
	Ring  string
	// Labels names the versions of what runs ("rules 2026.11.21-1"), for people.
	Labels []string
}

// HostDetail is the host page.
type HostDetail struct {
	HostRow
	// Versions names known digests for people.
	Versions map[holdfast.Digest]string
	Harms    []holdfast.Harm    // latest first
	Findings []holdfast.Finding // the latest few
	Now      time.Time
}

// BundleRow is a bundle in a list.
type BundleRow struct {
	holdfast.Bundle
	Rules     int
	Rehearsed bool
	Passed    bool
	Builds    int                // rehearsed on
	Release   holdfast.ReleaseID // the latest release of it, or empty
	Phase     holdfast.Phase     // of that release
	Hosts     int                // that run it
}

// BundleDetail is the bundle page.
type BundleDetail struct {
	BundleRow
	Contents []RuleRow
	Verdict  *holdfast.Verdict // nil if it was never rehearsed
	Signed   time.Time         // when a threshold of publishers signed; zero: they did not
}

// RuleRow is a rule in a bundle.
type RuleRow struct {
	ID         string
	Title      string
	Level      holdfast.Severity
	Techniques []string
	LogSource  string
	File       string
}

// RolloutRow is a rollout in a list.
type RolloutRow struct {
	holdfast.Release
	Phase    holdfast.Phase
	Started  time.Time
	Ended    time.Time // zero while it runs
	Eligible int       // hosts the release is for
	Admitted int       // hosts that were offered it
	Clean    int       // of those, past their window without harm
	Harmed   int
	Evidence float64 // E
	Alpha    float64
	Rings    []RingProgress
}

// RingProgress is how far a rollout has come in one ring.
type RingProgress struct {
	holdfast.Ring
	Opens    time.Time
	Eligible int
	Admitted int // got the release
	Placebo  int // re-activated what they had, to compare with
	Clean    int
	Harmed   int
	Recalled int
}

// RolloutDetail is the rollout page.
type RolloutDetail struct {
	RolloutRow
	Now      time.Time
	Pooled   float64  // E of the pool, fast: 10 holds
	Exposure []Sample // admitted hosts, A(t)
	Proof    []Sample // E over time
	Bound    Bound
	Harms    []HarmRow // latest first
	Timeline []Entry   // latest first
	Why      string    // why it stands where it stands, one sentence
	Recall   Recall
	// Overrides are the people who have asked to override the halt.
	Overrides []string
}

// Sample is a value at a moment.
type Sample struct {
	At    time.Time
	Value float64
}

// Bound is what can still not be ruled out (halting.md §3 and goal G7).
type Bound struct {
	Delta     float64 // confidence is 1 − Delta
	HU        float64 // largest lethality still plausible
	Pending   int     // admitted, neither clean nor harmed
	Budget    float64 // B: pending × HU stays below it
	Uncovered float64 // share of the fleet with a pair of attributes nobody tried
	Controls  int     // hosts left to compare with
	Latent    []Latent
}

// Latent is what a fault that shows only after Delay would harm if it were in
// there: everything exposed by then.
type Latent struct {
	Delay time.Duration
	Hosts int
}

// Recall counts the way back.
type Recall struct{ Hosts, Back int }

// HarmRow is a harm with its host's name.
type HarmRow struct {
	holdfast.Harm
	Hostname string
	Back     bool // the host runs what it had again
}

// FindingQuery selects findings. The zero value selects all.
type FindingQuery struct {
	Text      string // in title, host name, command lines
	Severity  holdfast.Severity
	Technique string
	Host      holdfast.HostID
	Page      int // from 1
	Size      int
}

// FindingPage is one page of findings, latest first.
type FindingPage struct {
	Findings []holdfast.Finding
	Total    int // that match
	Searched int // only this many of the newest were looked through; 0: all
}

// FindingDetail is the finding page.
type FindingDetail struct {
	holdfast.Finding
	Version   string   // of the rules bundle, for people
	Rule      *RuleRow // if the bundle is still known
	Simulated bool     // the host is
	Others    int      // findings of the same rule, this one not counted
}

// RecordQuery selects entries. Before is exclusive; 0 means the newest.
type RecordQuery struct {
	Before int64
	Kind   string
	Size   int
}

// RecordPage is one page of the record, newest first.
type RecordPage struct {
	Entries    []Entry
	Kinds      []string
	Size       int64  // of the whole log
	Checkpoint string // the signed note
}

// Entry is one decision on the record.
type Entry struct {
	Index   int64
	At      time.Time
	Kind    string // "publish", "verdict", "promote", "hold", "halt", …
	By      string
	Release holdfast.ReleaseID // or empty
	Summary string             // for people
	Hash    string             // leaf hash, hexadecimal
	Body    string             // the entry as logged
}
