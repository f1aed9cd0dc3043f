package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// Outcome is how a run ended.
type Outcome struct {
	Seed  uint64         `json:"seed"`
	Phase holdfast.Phase `json:"phase"`
	Why   string         `json:"why,omitempty"`
	// Exposed counts hosts that were drawn for the release, Broken those the
	// fault broke, detected or not.
	Exposed int `json:"exposed"`
	Broken  int `json:"broken"`
	// Excess is what a raised crash rate added.
	Excess int `json:"excess"`
	// Decided is when the release was recalled or complete; 0 if neither.
	Decided time.Duration `json:"decided_ns"`
	// Reached99 is when 99 % of the reachable hosts had the release.
	Reached99 time.Duration `json:"reached_99_ns"`
	Evidence  float64       `json:"evidence"`
	Peak      float64       `json:"peak"`
	Steps     int           `json:"steps"`
	Events    int           `json:"events"`
	// Played host by host: broken hosts on proven content again, hosts that
	// need hands (nothing runs, or the release still does after its recall),
	// and why loaders refused offers.
	// Again counts how often a host tried once more what it had taken back for
	// want of contact.
	Returned int            `json:"returned,omitempty"`
	Again    int            `json:"again,omitempty"`
	Hands    int            `json:"hands,omitempty"`
	Refused  map[string]int `json:"refused,omitempty"`
	// OfferedAgain counts offers to hosts that had gone back though nothing
	// failed, TakenAgain those that they carried out.
	OfferedAgain int `json:"offered_again,omitempty"`
	TakenAgain   int `json:"taken_again,omitempty"`
	// Late counts the hosts that were drawn after completion.
	Late int `json:"late,omitempty"`
	// Control counts what came of organisations' policies, host by host: offers
	// that a policy held back, comparisons that waited for a window, releases
	// taken under a policy, and recalls of what it would have held.
	Control map[string]int `json:"control,omitempty"`
	// Groups says what became of the groups of organisations' policies.
	Groups []GroupOutcome `json:"groups,omitempty"`
	// Shown is the share of steps after which the report to people agreed with
	// what the simulator knows, and LeastHU the smallest hU it showed; of goal
	// G7's runs only.
	Shown   float64          `json:"shown,omitempty"`
	LeastHU float64          `json:"least_hu,omitempty"`
	Slowest time.Duration    `json:"-"` // the slowest decision, wall clock
	Curve   []Point          `json:"curve,omitempty"`
	State   rollout.State    `json:"-"`
	Last    rollout.Snapshot `json:"-"`
	Notes   []string         `json:"notes,omitempty"`
}

// Point is one step of a run's curve.
type Point struct {
	At      time.Duration `json:"at_ns"`
	Exposed int           `json:"exposed"`
	Broken  int           `json:"broken"`
	Pending int           `json:"pending"`
	E       float64       `json:"e"`
}

// GroupOutcome is what became of the hosts of a group: the first of a policy's
// that they are in.
type GroupOutcome struct {
	Org   holdfast.OrgID `json:"org"`
	Group string         `json:"group"` // empty: those in no group, or without a policy
	Hosts int            `json:"hosts"` // that can be reached
	Had   int            `json:"had"`   // the release
	// First and Last are when hosts of the group took it, after its approval.
	First time.Duration `json:"first_ns"`
	Last  time.Duration `json:"last_ns"`
}

// Tell adds hosts of a group, of which had took the release between first and
// last.
func (o *Outcome) Tell(org holdfast.OrgID, group string, hosts, had int, first, last time.Duration) {
	i, ok := slices.BinarySearchFunc(o.Groups, GroupOutcome{Org: org, Group: group}, func(a, b GroupOutcome) int {
		return cmp.Or(cmp.Compare(a.Org, b.Org), cmp.Compare(a.Group, b.Group))
	})
	if !ok {
		o.Groups = slices.Insert(o.Groups, i, GroupOutcome{Org: org, Group: group})
	}
	g := &o.Groups[i]
	if had > 0 {
		if g.Had == 0 || first < g.First {
			g.First = first
		}
		g.Last = max(g.Last, last)
	}
	g.Hosts, g.Had = g.Hosts+hosts, g.Had+had
}
