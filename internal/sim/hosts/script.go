package hosts

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// Fault is how a played worker fails.
type Fault string

// The faults.
const (
	Crash   Fault = "crash"   // it exits
	Stall   Fault = "stall"   // its evaluation loop stands still
	Reboot  Fault = "reboot"  // the machine goes down with it, and comes up again
	Silence Fault = "silence" // the machine goes down with it, and stays down
	CPU     Fault = "cpu"     // it takes half a core more
	Memory  Fault = "memory"  // it takes 64 MiB more
)

// Faults lists the faults.
var Faults = []Fault{Crash, Stall, Reboot, Silence, CPU, Memory}

// Script says which hosts fail under which content. It is a JSON list.
type Script []Scene

// Scene is one line of a script: hosts that match Hosts fail with Fault so
// long after a worker with Digest was ready.
type Scene struct {
	Digest holdfast.Digest `json:"digest"`
	Fault  Fault           `json:"fault"`
	After  string          `json:"after,omitempty"` // a duration; at once if empty
	// Share is the part of the matching hosts that fail, 0 to 1; all if absent.
	Share *float64 `json:"share,omitempty"`
	// Kernel, Distro and Role must match, if given.
	Kernel string `json:"kernel,omitempty"`
	Distro string `json:"distro,omitempty"`
	Role   string `json:"role,omitempty"`
}

// ParseScript reads a script.
func ParseScript(b []byte) (Script, error) {
	var s Script
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, &holdfast.Error{Kind: holdfast.Invalid, Where: "script", Err: err}
	}
	return s, s.Check()
}

// Check reports what is wrong with a script.
func (s Script) Check() error {
	for i, c := range s {
		bad := func(what string) error {
			return &holdfast.Error{Kind: holdfast.Invalid, What: what, Where: fmt.Sprintf("script, scene %d", i+1)}
		}
		if _, err := holdfast.ParseDigest(string(c.Digest)); err != nil {
			return bad("names no digest")
		}
		if !slices.Contains(Faults, c.Fault) {
			return bad(fmt.Sprintf("no fault is called %q; there are %v", c.Fault, Faults))
		}
		if c.After != "" {
			if d, err := time.ParseDuration(c.After); err != nil || d < 0 {
				return bad(`"after" is no duration, such as "2s"`)
			}
		}
		if c.Share != nil && (*c.Share < 0 || *c.Share > 1) {
			return bad(`"share" is not between 0 and 1`)
		}
	}
	return nil
}

// faultOf returns what happens to a host that runs g, and when after it is
// ready. The share is drawn by the host's name and the content, so that the
// same hosts fail again.
func (s Script) faultOf(a holdfast.Attributes, g holdfast.Generation) (Fault, time.Duration, bool) {
	for _, c := range s {
		if !slices.ContainsFunc(holdfast.Channels, func(ch holdfast.Channel) bool { return g[ch] == c.Digest }) {
			continue
		}
		if c.Kernel != "" && c.Kernel != a.Kernel || c.Distro != "" && c.Distro != a.Distro || c.Role != "" && c.Role != a.Role {
			continue
		}
		if c.Share != nil {
			sum := fnv.New64a()
			fmt.Fprint(sum, a.Hostname, c.Digest)
			if float64(sum.Sum64()>>11)/(1<<53) >= *c.Share {
				continue
			}
		}
		after, err := time.ParseDuration(c.After)
		if err != nil { // empty; Check took it
			after = 0
		}
		return c.Fault, after, true
	}
	return "", 0, false
}
