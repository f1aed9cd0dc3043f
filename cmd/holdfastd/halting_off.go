//go:build holdfast_unhalted

package main

import "github.com/holdfast-security/holdfast/internal/control/rollout"

// halting switches the halting test off, in the build that the drill uses to
// show that its content is lethal.
func halting(p rollout.Policy) rollout.Policy {
	p.Drill, p.Unchecked = true, true
	return p
}
