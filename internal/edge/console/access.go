package console

import (
	"slices"

	"github.com/holdfast-security/holdfast"
)

// Role is what a person is here for. Each person has one.
type Role string

// The roles.
const (
	Viewer        Role = "viewer"
	Analyst       Role = "analyst"
	Publisher     Role = "publisher"
	Operator      Role = "operator"
	Administrator Role = "administrator"
)

// Roles lists the roles, least first.
var Roles = []Role{Viewer, Analyst, Publisher, Operator, Administrator}

// Permission is one thing a role may or may not do.
type Permission string

// The permissions.
const (
	See      Permission = "see"      // fleet health, rollouts, content, the record
	Inspect  Permission = "inspect"  // findings: they quote command lines
	Halt     Permission = "halt"     // stop a release and call it back
	Steer    Permission = "steer"    // pause, resume
	Approve  Permission = "approve"  // be a release's second person
	Override Permission = "override" // be one of two who let a halted release go on
	People   Permission = "people"   // who may sign in, and as what
)

// may is the whole table. Who sees a fire may pull the alarm: halting is given
// more widely than starting again.
var may = map[Role][]Permission{
	Viewer:        {See},
	Analyst:       {See, Inspect, Halt},
	Publisher:     {See, Inspect, Halt, Approve},
	Operator:      {See, Inspect, Halt, Steer, Approve, Override},
	Administrator: {See, Inspect, Halt, Steer, Approve, Override, People},
}

// May reports whether the role has the permission.
func (r Role) May(p Permission) bool { return slices.Contains(may[r], p) }

func parseRole(s string) (Role, error) {
	if r := Role(s); slices.Contains(Roles, r) {
		return r, nil
	}
	return "", &holdfast.Error{Kind: holdfast.Invalid, What: "there is no role " + s, Where: "role", Do: "choose viewer, analyst, publisher, operator or administrator"}
}
