package view

import (
	"time"

	"github.com/holdfast-security/holdfast"
)

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
	Revoked   HostState = "revoked"   // not of the fleet any more
)

// HostStates lists the states that hosts of the fleet can be in, in the order
// pages show them.
var HostStates = []HostState{Protected, Probation, PutBack, SafeMode, Bare, Silent}

// StateOf derives the state of a host from what it last reported.
func StateOf(h holdfast.Host) HostState {
	r := h.Report
	switch {
	case h.Revoked:
		return Revoked
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

// HostQuery selects hosts. The zero value selects all of the fleet.
type HostQuery struct {
	Text  string    // in host name, id, or any attribute
	State HostState // Revoked selects those that are no longer of the fleet
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
	// Revocation says why it is not of the fleet any more; nil while it is.
	Revocation *holdfast.Revocation `json:"revocation,omitempty"`
	// Versions names known digests for people.
	Versions map[holdfast.Digest]string `json:"versions"`
	// Titles names the rules of the report for people, as far as the content it
	// runs is known.
	Titles   map[string]string  `json:"titles,omitempty"`
	Harms    []holdfast.Harm    `json:"harms"`    // latest first
	Findings []holdfast.Finding `json:"findings"` // the latest few
	Now      time.Time          `json:"now"`
}
