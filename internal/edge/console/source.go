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
	Now       time.Time          `json:"now"`
	States    map[HostState]int  `json:"states"`
	Hosts     int                `json:"hosts"`
	Simulated int                `json:"simulated"` // of Hosts
	Rings     []RingStates       `json:"rings"`
	Rollout   *RolloutRow        `json:"rollout,omitempty"` // the latest one, if there is any
	Trend     Trend              `json:"trend"`
	Findings  []holdfast.Finding `json:"findings"`  // the latest few
	Decisions []Entry            `json:"decisions"` // the latest few
	Builds    []BuildCount       `json:"builds"`
	Loss      Loss               `json:"loss"`
}

// RingStates is the hosts of one ring, by state. Of is every host, if the fleet
// is small enough to draw one by one, else nil.
type RingStates struct {
	Name   string            `json:"name"`
	Hosts  int               `json:"hosts"`
	States map[HostState]int `json:"states"`
	Of     []HostDot         `json:"of"`
}

// HostDot is one host on the overview's map.
type HostDot struct {
	ID        holdfast.HostID `json:"id"`
	Hostname  string          `json:"hostname"`
	State     HostState       `json:"state"`
	Simulated bool            `json:"simulated"`
}

// Trend counts findings in equal steps of time, oldest first.
type Trend struct {
	Step time.Duration `json:"step_ns"`
	From time.Time     `json:"from"`
	// By counts by severity; every slice has the same length.
	By map[holdfast.Severity][]int `json:"by"`
}

// BuildCount is how many hosts run a sensor build.
type BuildCount struct {
	Version   string          `json:"version"`
	Digest    holdfast.Digest `json:"digest"`
	Hosts     int             `json:"hosts"`
	Simulated int             `json:"simulated"`
	Sensor    string          `json:"sensor"` // the tiers its hosts use, the most used first
}

// Loss is everything that was dropped, counted.
type Loss struct {
	Events          uint64 `json:"events"`
	EventsDropped   uint64 `json:"events_dropped"`
	FindingsDropped uint64 `json:"findings_dropped"`
	Crashes         uint64 `json:"crashes"`
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
	Hosts []HostRow `json:"hosts"`
	Total int       `json:"total"` // that match
	// What can be chosen, over the whole fleet.
	Rings  []string `json:"rings"`
	Roles  []string `json:"roles"`
	Builds []string `json:"builds"`
}

// HostRow is a host in a list.
type HostRow struct {
	holdfast.Host
	State HostState `json:"state"`
	Ring  string    `json:"ring"`
	// Labels names the versions of what runs ("rules 2026.11.21-1"), for people.
	Labels []string `json:"labels"`
}

// HostDetail is the host page.
type HostDetail struct {
	HostRow
	// Versions names known digests for people.
	Versions map[holdfast.Digest]string `json:"versions"`
	Harms    []holdfast.Harm            `json:"harms"`    // latest first
	Findings []holdfast.Finding         `json:"findings"` // the latest few
	Now      time.Time                  `json:"now"`
}

// BundleRow is a bundle in a list.
type BundleRow struct {
	holdfast.Bundle
	Rules     int                `json:"rules"`
	Rehearsed bool               `json:"rehearsed"`
	Passed    bool               `json:"passed"`
	Builds    int                `json:"builds"`  // rehearsed on
	Release   holdfast.ReleaseID `json:"release"` // the latest release of it, or empty
	Phase     holdfast.Phase     `json:"phase"`   // of that release
	Hosts     int                `json:"hosts"`   // that run it
}

// BundleDetail is the bundle page.
type BundleDetail struct {
	BundleRow
	Contents []RuleRow         `json:"contents"`
	Verdict  *holdfast.Verdict `json:"verdict,omitempty"` // nil if it was never rehearsed
	Signed   time.Time         `json:"signed,omitzero"`   // when a threshold of publishers signed; zero: they did not
}

// RuleRow is a rule in a bundle.
type RuleRow struct {
	ID         string            `json:"id"`
	Title      string            `json:"title"`
	Level      holdfast.Severity `json:"level"`
	Techniques []string          `json:"techniques"`
	LogSource  string            `json:"log_source"`
	File       string            `json:"file"`
}

// RolloutRow is a rollout in a list.
type RolloutRow struct {
	holdfast.Release
	Phase    holdfast.Phase `json:"phase"`
	Started  time.Time      `json:"started"`
	Ended    time.Time      `json:"ended,omitzero"` // zero while it runs
	Eligible int            `json:"eligible"`       // hosts the release is for
	Admitted int            `json:"admitted"`       // hosts that were offered it
	Clean    int            `json:"clean"`          // of those, past their window without harm
	Harmed   int            `json:"harmed"`
	Evidence float64        `json:"evidence"` // E
	Alpha    float64        `json:"alpha"`
	Rings    []RingProgress `json:"rings"`
}

// RingProgress is how far a rollout has come in one ring.
type RingProgress struct {
	holdfast.Ring
	Opens    time.Time `json:"opens"`
	Eligible int       `json:"eligible"`
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
	// Overrides are the people who have asked to override the halt.
	Overrides []string `json:"overrides"`
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
}

// Latent is what a fault that shows only after Delay would harm if it were in
// there: everything exposed by then.
type Latent struct {
	Delay time.Duration `json:"delay_ns"`
	Hosts int           `json:"hosts"`
}

// Recall counts the way back.
type Recall struct {
	Hosts int `json:"hosts"` // that were given the release
	Back  int `json:"back"`  // of those, that cannot have it any more
}

// HarmRow is a harm with its host's name.
type HarmRow struct {
	holdfast.Harm
	Hostname string `json:"hostname"`
	Back     bool   `json:"back"` // the host runs what it had again
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
	Findings []holdfast.Finding `json:"findings"`
	Total    int                `json:"total"`    // that match
	Searched int                `json:"searched"` // only this many of the newest were looked through; 0: all
}

// FindingDetail is the finding page.
type FindingDetail struct {
	holdfast.Finding
	Version   string   `json:"version"`                  // of the rules bundle, for people
	Rule      *RuleRow `json:"rule_in_bundle,omitempty"` // if the bundle is still known
	Simulated bool     `json:"simulated"`                // the host is
	Others    int      `json:"others"`                   // findings of the same rule, this one not counted
}

// RecordQuery selects entries. Before is exclusive; 0 means the newest.
type RecordQuery struct {
	Before int64
	Kind   string
	Size   int
}

// RecordPage is one page of the record, newest first.
type RecordPage struct {
	Entries    []Entry  `json:"entries"`
	Kinds      []string `json:"kinds"`
	Size       int64    `json:"size"`       // of the whole log
	Checkpoint string   `json:"checkpoint"` // the signed note
}

// Entry is one decision on the record.
type Entry struct {
	Index   int64              `json:"index"`
	At      time.Time          `json:"at"`
	Kind    string             `json:"kind"` // "publish", "verdict", "promote", "hold", "halt", …
	By      string             `json:"by"`
	Release holdfast.ReleaseID `json:"release"` // or empty
	Summary string             `json:"summary"` // for people
	Hash    string             `json:"hash"`    // leaf hash, hexadecimal
	Body    string             `json:"body"`    // the entry as logged
}
