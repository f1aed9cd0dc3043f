package console

import (
	"slices"

	"github.com/holdfast-security/holdfast"
)

// Permission is one thing a role may or may not do.
type Permission string

// The permissions.
const (
	See      Permission = "see"      // fleet health, rollouts, content, the record
	Inspect  Permission = "inspect"  // findings: they quote command lines
	Halt     Permission = "halt"     // stop a release and call it back
	Approve  Permission = "approve"  // be a release's second person
	Steer    Permission = "steer"    // pause, resume
	Override Permission = "override" // be one of two who let a halted release go on
	Revoke   Permission = "revoke"   // end a host's identity
	People   Permission = "people"   // who may sign in, and as what
)

// permissions is the whole table. Who sees a fire may pull the alarm: halting
// is given more widely than going on.
var permissions = map[holdfast.Role][]Permission{
	holdfast.Viewer:        {See},
	holdfast.Analyst:       {See, Inspect, Halt},
	holdfast.Publisher:     {See, Inspect, Halt, Approve},
	holdfast.Operator:      {See, Inspect, Halt, Approve, Steer, Override, Revoke},
	holdfast.Administrator: {See, Inspect, Halt, Approve, Steer, Override, Revoke, People},
}

// ofOwn is what people may do whose organisation does not run the installation:
// about what is their organisation's own. A release, and whether it goes on, is
// everybody's.
var ofOwn = []Permission{See, Inspect, Revoke}

// roleMeanings say what each role adds to the one before.
var roleMeanings = map[holdfast.Role]string{
	holdfast.Viewer:        "sees the fleet, rollouts, content and the record",
	holdfast.Analyst:       "also sees findings, and may halt",
	holdfast.Publisher:     "also approves releases of others",
	holdfast.Operator:      "also pauses, resumes, takes part in overrides, and revokes hosts",
	holdfast.Administrator: "also decides who may sign in",
}

// May reports whether a role has a permission.
func May(r holdfast.Role, p Permission) bool { return slices.Contains(permissions[r], p) }

func parseRole(s string) (holdfast.Role, error) {
	if r := holdfast.Role(s); slices.Contains(holdfast.Roles, r) {
		return r, nil
	}
	return "", &holdfast.Error{Kind: holdfast.Invalid, What: "there is no role " + s, Where: "role", Do: "choose viewer, analyst, publisher, operator or administrator"}
}
