package rollout

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

// Action is one thing to carry out. Actions are absolute, never increments:
// carrying one out twice changes nothing. The set is closed.
type Action interface{ action() }

// Admit opens one cell of a block for drawing. Until the time Until, hosts of
// the rings Ring to Through, the organisation and the stratum (and of Cell, if
// it is not empty) that ask are drawn: with t treatments and p placebos of this
// cell still to give, a host gets the release with probability t/(t+p). That is
// a random order, so the arms are exchangeable. What is not drawn by Until is
// void. There is at most one Admit for each (Block, Ring, Org, Stratum, Cell).
//
// Through differs from Ring only in a small fleet, whose rings after the first
// are paced as one; what becomes of the drawn is reported under Ring.
type Admit struct {
	Block   int              `json:"block"`
	Ring    int              `json:"ring"`
	Through int              `json:"through"`
	Org     holdfast.OrgID   `json:"org"`
	Stratum holdfast.Stratum `json:"stratum"`
	Cell    holdfast.Stratum `json:"cell,omitempty"`
	Treat   int              `json:"treat"`
	Placebo int              `json:"placebo"`
	Until   time.Time        `json:"until"`
	Why     AdmitReason      `json:"why"`
	// Redraw also draws controls that are Watching; they leave their block.
	Redraw bool `json:"redraw,omitempty"`
	// Last draws the hosts that must go last.
	Last bool `json:"last,omitempty"`
}

// AdmitReason says why hosts are drawn.
type AdmitReason string

// The reasons to draw.
const (
	Paced     AdmitReason = "paced"           // at random, within the harm budget
	Cover     AdmitReason = "cover"           // a stratum or attribute pair nobody has tried
	Probe     AdmitReason = "probe"           // a suspicious stratum with nothing pending
	NoControl AdmitReason = "without control" // the last hosts: nobody is left to compare with
	Anyway    AdmitReason = "unchecked"       // only by a build without the halting test
)

// OpenRing lets the director approve the release for a ring.
type OpenRing struct {
	Ring int    `json:"ring"`
	Name string `json:"name"`
}

// CloseBlock says that the block's fast window is over: its controls may be
// drawn anew. Slow observation goes on.
type CloseBlock struct {
	Block int `json:"block"`
}

// Hold and Resume report a change of pace; admission follows by itself.
type (
	Hold   struct{ Evidence float64 }
	Resume struct{ Evidence float64 }
)

// Halt recalls the release: stop offers, revoke leases, return every host that
// has it, never offer the digest again. Org limits it to one organisation.
type Halt struct {
	Org      holdfast.OrgID `json:"org,omitempty"` // empty: all
	By       string         `json:"by,omitempty"`  // the person, if it was one
	Why      string         `json:"why"`
	Evidence float64        `json:"evidence"` // E, at the moment it crossed
	Limit    float64        `json:"limit"`    // what it crossed
	Signal   string         `json:"signal,omitempty"`
	Scope    string         `json:"scope,omitempty"` // the scope that contributed most
	Harmed   int            `json:"harmed"`          // treated hosts harmed
	Exposed  int            `json:"exposed"`         // hosts drawn for the release
	AtEvent  int64          `json:"at_event"`        // Seq of the event that decided
}

// Stop recalls like Halt, without a claim at level α: the test cannot speak,
// and a person decides.
type Stop struct {
	Org     holdfast.OrgID `json:"org,omitempty"`
	Why     string         `json:"why"`
	Harmed  int            `json:"harmed"`
	Exposed int            `json:"exposed"`
	AtEvent int64          `json:"at_event"`
}

// Storm says that the release is paused, for an organisation or for all, until a
// person has looked: too many hosts stopped rules of it.
type Storm struct {
	Org   holdfast.OrgID `json:"org,omitempty"`
	Hosts int            `json:"hosts"`
	Why   string         `json:"why"`
}

// Complete says that every host that can be reached has the release.
type Complete struct {
	Exposed int `json:"exposed"`
}

// Note is for the timeline: something a person should know.
type Note struct {
	What string `json:"what"`
}

func (Admit) action()      {}
func (OpenRing) action()   {}
func (CloseBlock) action() {}
func (Hold) action()       {}
func (Resume) action()     {}
func (Halt) action()       {}
func (Stop) action()       {}
func (Storm) action()      {}
func (Complete) action()   {}
func (Note) action()       {}
