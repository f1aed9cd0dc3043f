package fleet

import (
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// A host can lose what it activated, though nothing failed: its guard restarts in
// probation, the machine reboots, a file or the guard's state cannot be read. It is
// then behind, and nobody is to blame. It is offered the release again, as the same
// host: what it did the first time is counted, and its observation has ended; what
// it does then is compared with nobody. It still owes the proof that the harm
// budget waits for, and gives it when it is clean at last.

// wentBack is why the observation of a host ended that activated the release, and
// has said for long that it runs something else.
const wentBack = "went back, and nothing failed"

// patience is how long a host must say that it runs something else before that is
// believed to last: so long that a failure is told first, and that the host itself
// tries what it owes. It doubles with each attempt.
func (s *seat) patience() time.Duration {
	return 3 * s.release.Fast << min(-min(s.lowest, Late)-1, 10)
}

// behind reports whether a host that should have the release says that it runs
// something else, and could take it. Who failed waits until the release is complete,
// which says that others did not.
func (f *Fleet) behind(s *seat) bool {
	a, h, r := s.treated, s.host, s.release
	rep := &h.Report
	if a == nil || !a.stored || s.settled || a.Activated.IsZero() || !h.fresh || rep.Probation || rep.Running[r.Channel] == r.Digest ||
		slices.Contains(rep.Shunned, r.Digest) || r.recalled(h.Org) || !f.latest(r, h) {
		return false
	}
	return r.Phase == holdfast.Complete || len(a.kinds) == 0 && rep.Failed[r.Channel] != r.Digest
}

// lag notices who went back.
func (f *Fleet) lag(s *seat, at time.Time) {
	a := s.treated
	switch {
	case a == nil || !a.Left.IsZero() || !f.behind(s):
		s.since = time.Time{}
	case !s.host.heard.Equal(at):
	case s.since.IsZero():
		s.since = at
	case !f.outages.open && f.Observed(s.since, at) >= s.patience():
		f.leave(a, wentBack, at)
	}
}

// again offers the release once more to a host that went back. If it runs the
// release by now, by its own doing, there is nothing to carry out, and it is
// observed all the same.
func (f *Fleet) again(s *seat, at time.Time) {
	a, h, r := s.treated, s.host, s.release
	if a == nil || a.Why != wentBack || !a.counted.left || f.outages.open || r.Paused || !r.Approved[s.ring] ||
		s.forbids() || s.delays(at) || f.busyElsewhere(s, at) || h.Report.Running[r.Channel] != r.Digest && !f.behind(s) {
		return
	}
	k := a.cell.key
	k.block = min(s.lowest, Late) - 1
	f.offer(s, k, holdfast.New, at)
}

// prove takes a host that went back, and is clean since, among those that are. Its
// observation has ended.
func (a *admission) prove() {
	if a.undone {
		a.undone = false
		arm := a.cell.arm(a.Arm)
		arm.Undone--
		arm.Clean++
		a.proofs.each(func(p *proof) { p.clean++ })
		arm.Ended++
	}
}
