package rollout

import "time"

// Decide takes one step: people's commands, then new harm events in order,
// then (if nothing recalled the release) rings, stages, probes, coverage and
// pacing. It is total: every state and snapshot yields a state and actions,
// and rows that make no sense are noted and ignored. It never changes its
// arguments. The caller stores the state and carries the actions out in one
// transaction; a step that was not stored did not happen.
//
// A zero State begins the rollout. The policy must be valid, and the same in
// every step.
func Decide(p *Policy, s State, in Snapshot, now time.Time) (State, []Action) {
	d := begin(p, s, in, now)
	return d.next, d.actions
}

type decision struct {
	policy  *Policy
	next    State
	in      Snapshot
	now     time.Time
	actions []Action
}

func begin(p *Policy, s State, in Snapshot, now time.Time) *decision {
	return &decision{policy: p, next: s, in: in, now: now}
}
