package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
)

// admission is a host's part in one block.
type admission struct {
	holdfast.Admission
	release *release
	cell    *cell
	stored  bool
	kinds   []holdfast.HarmKind // harm it came to
	counted struct{ clean, left bool }
	noisy   []holdfast.Suspension // rules that the host had stopped when it was drawn
	stopped bool                  // counted as a host that stopped rules of the release
	first   *admission            // if the host is offered it again: the one that counts
	undone  bool                  // counted in Undone
	proofs  proofs                // that count it; none if it is offered again, or a placebo
	idle    bool                  // counted in proof.idle
	failed  bool                  // it came late, and did its host harm; counted in cell.failed
}

func (a *admission) had(k holdfast.HarmKind) bool { return slices.Contains(a.kinds, k) }

// cell is what became of the hosts drawn by one opening.
type cell struct {
	key
	arms  [2]Arm
	taken [2]int // drawn, stored or not
	// failed counts late hosts that came to harm: nobody is compared with them,
	// so it is no evidence.
	failed int
}

// Arm counts the hosts of one arm of a cell.
type Arm struct {
	Drawn int
	Clean int // reported after the fast window without harm, and with what they were drawn for
	Left  int // without harm, out of observation before they were clean
	Ended int // clean, and out of observation before the slow window ended
	Gone  int // harmed before it was clean, and out of observation since
	// Undone counts those that went back before they were clean, though nothing
	// failed, and have not proved themselves since. They are in none of the others.
	Undone int
}

func (c *cell) arm(a holdfast.Arm) *Arm {
	if a == holdfast.New {
		return &c.arms[0]
	}
	return &c.arms[1]
}

func (r *release) cell(k key) *cell {
	c := r.cells[k]
	if c == nil {
		c = &cell{key: k}
		r.cells[k] = c
	}
	return c
}

func byOrder(a, b *admission) int {
	if c := compare(a.Release, b.Release); c != 0 {
		return c
	}
	if c := compare(a.Host, b.Host); c != 0 {
		return c
	}
	return a.Block - b.Block
}

// count takes what was marked and is stored into the counters.
func (a *admission) count() {
	arm := a.cell.arm(a.Arm)
	if !a.Clean.IsZero() && !a.counted.clean {
		a.counted.clean = true
		arm.Clean++
		a.proofs.each(func(p *proof) { p.clean++ })
		if a.first != nil {
			a.first.prove()
		}
	}
	if !a.Left.IsZero() && !a.counted.left {
		a.counted.left = true
		switch {
		case a.counted.clean:
			arm.Ended++
		case len(a.kinds) > 0:
			arm.Gone++
		case a.Why == wentBack:
			a.undone = true
			arm.Undone++
		default:
			arm.Left++
			a.proofs.each(func(p *proof) { p.left++ })
		}
	}
}

// admit makes the admission that an offer needs. Its clocks start now.
func (f *Fleet) admit(s *seat, o *opening, block int, arm holdfast.Arm, at time.Time) {
	k := s.group.key
	k.block = block
	if o != nil {
		k.ring, k.cell = o.Ring, o.Cell
	}
	f.offer(s, k, arm, at)
}

func (f *Fleet) offer(s *seat, k key, arm holdfast.Arm, at time.Time) {
	h, r := s.host, s.release
	a := &admission{release: r, cell: r.cell(k), noisy: h.Report.Suspended}
	a.Admission = holdfast.Admission{
		Release: r.ID, Host: h.ID, Org: h.Org, Stratum: k.stratum, Cell: k.cell, Ring: k.ring, Block: k.block, Arm: arm, At: at,
		Before: h.Report.Running[r.Channel], Boot: h.Report.Boot, Crashes: h.Report.Crashes, RSS: h.Report.RSS, CPU: h.Report.CPU,
	}
	if a.Again() && s.treated.Before != "" {
		a.Before = s.treated.Before // what it lost since may be what it had then
	}
	a.Lease = lease(&a.Admission)
	if old := s.current(); old != nil {
		f.leave(old, "drawn anew", at)
	}
	f.seatAdmission(s, a)
	f.changes.drawn = append(f.changes.drawn, a)
	f.settle(s, at)
}

// lease names an offer after what makes it unique. It is no secret: only the
// host it is for can use it.
func lease(a *holdfast.Admission) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "holdfast lease v1\n%s\n%s\n%d", a.Release, a.Host, a.Block))
	return hex.EncodeToString(sum[:16])
}

func (f *Fleet) seatAdmission(s *seat, a *admission) {
	if a.Arm == holdfast.New {
		a.cell.taken[0]++
		s.lowest = min(s.lowest, a.Block)
		if was := s.treated; was != nil && a.Again() {
			a.noisy, a.stopped, a.first = was.noisy, was.stopped, was
			if was.first != nil {
				a.first = was.first
			}
		} else {
			a.proofs = s.proofs(a)
			a.proofs.each(func(p *proof) { p.taken++ })
			s.release.outstanding++
			if s.settled { // drawn anew after an override
				s.settled = false
				if s.treated != nil && s.treated.Returned.IsZero() {
					s.release.kept--
				}
			}
		}
		s.treated = a
		if !s.host.treated {
			f.outages.treat(s.host.present)
			s.host.treated = true
		}
		return
	}
	a.cell.taken[1]++
	if s.control == nil || a.Block > s.control.Block {
		s.control = a
	}
}

// RestoreAdmission gives back an admission that is stored, with the kinds of
// harm it came to. The release and the host must be known; others are ignored.
func (f *Fleet) RestoreAdmission(stored holdfast.Admission, kinds []holdfast.HarmKind) {
	r, h := f.release(stored.Release), f.hosts[stored.Host]
	if r == nil || h == nil {
		return
	}
	k := key{stored.Block, stored.Ring, stored.Org, stored.Stratum, stored.Cell}
	a := &admission{Admission: stored, release: r, cell: r.cell(k), stored: true, kinds: kinds}
	a.cell.arm(a.Arm).Drawn++
	s := h.seatOf(r)
	if a.Arm == holdfast.New && s.treated != nil && !s.settled && !a.Again() {
		r.outstanding-- // it had declined, and could then be drawn again
	}
	f.seatAdmission(s, a)
	a.count()
	if a.Arm == holdfast.New {
		switch {
		case a.Why == notCarriedOut:
			r.outstanding--
			s.treated = nil
		case !a.Returned.IsZero() && !s.settled:
			r.outstanding--
			s.settled = true
		}
	}
	f.settle(s, f.now)
	f.wheel.add(h, f.now)
}

func (f *Fleet) mark(a *admission) {
	f.changes.marks = append(f.changes.marks, a)
}

func (f *Fleet) leave(a *admission, why string, at time.Time) {
	if a.Left.IsZero() {
		a.Left, a.Why = at, why
		f.mark(a)
	}
}

// within reports whether a moment lies in the admission's slow window.
func (f *Fleet) within(a *admission, at time.Time) bool {
	return a.Left.IsZero() && a.Block >= 0 && f.Observed(a.At, at) <= a.release.Slow
}

// harm takes note of the first event of a kind.
func (f *Fleet) harm(s *seat, a *admission, kind holdfast.HarmKind, at time.Time, detail string) {
	if a.had(kind) {
		return
	}
	a.kinds = append(a.kinds, kind)
	f.changes.Harms = append(f.changes.Harms, holdfast.Harm{
		Release: a.Release, Host: a.Host, Org: a.Org, Stratum: a.Stratum, Block: a.Block, Arm: a.Arm, Kind: kind, At: at, Detail: detail,
		Ring: a.Ring, Cell: a.Cell, After: f.Observed(a.At, at),
	})
	f.settle(s, f.now)
}

// target is what an admission wants the host to run.
func (a *admission) target() holdfast.Digest {
	if a.Arm == holdfast.New {
		return a.release.Digest
	}
	return a.Before
}

// examine compares what a host reports with how it was when it was drawn.
func (f *Fleet) examine(s *seat, a *admission, at time.Time) {
	h, r := s.host, s.release
	rep := &h.Report
	if a.Activated.IsZero() && (rep.Activation == a.Lease || a.Again() && rep.Running[r.Channel] == r.Digest) {
		a.Activated = at
		f.mark(a)
	}
	if !f.within(a, at) {
		return
	}
	target := a.target()
	reverted := target != "" && rep.Failed[r.Channel] == target && (a.Arm == holdfast.New || rep.Activation == a.Lease)
	switch {
	case rep.Crashes > a.Crashes:
		f.harm(s, a, holdfast.Crash, at, fmt.Sprintf("%d worker deaths since it was drawn: %s", rep.Crashes-a.Crashes, rep.Reason))
	case reverted:
		f.harm(s, a, holdfast.Crash, at, "reverted by the guard: "+rep.Reason)
	}
	if rep.Boot != "" && a.Boot != "" && rep.Boot != a.Boot {
		f.harm(s, a, holdfast.Reboot, at, "restarted since it was drawn")
	}
	// A new worker is busy for a while: regressions are looked for in the
	// second half of the window, in both arms alike.
	if limits, ok := r.Baseline.Limits[a.Stratum]; ok && !a.Activated.IsZero() && 2*f.Observed(a.At, at) >= r.Fast {
		if a.RSS > 0 && rep.RSS > a.RSS+limits.RSS {
			f.harm(s, a, holdfast.Memory, at, fmt.Sprintf("resident memory grew by %d KiB, and 99 of 100 such hosts by at most %d", (rep.RSS-a.RSS)>>10, limits.RSS>>10))
		}
		if a.CPU > 0 && rep.CPU > a.CPU+limits.CPU {
			f.harm(s, a, holdfast.CPU, at, fmt.Sprintf("uses %d m more of a core, and 99 of 100 such hosts at most %d", rep.CPU-a.CPU, limits.CPU))
		}
	}
}

// settle brings a seat up to date: what became of its admission, whether its
// host may still have what was recalled, and what the host is to the release.
func (f *Fleet) settle(s *seat, at time.Time) {
	h, r := s.host, s.release
	if a := s.current(); a != nil {
		if h.Revoked {
			f.leave(a, "revoked", at)
		}
		s.fails()
		since := a.At
		if a.Again() {
			since = a.Activated
		}
		if a.Left.IsZero() && a.Clean.IsZero() && len(a.kinds) == 0 && !s.died(a) && !a.Activated.IsZero() &&
			h.heard.Equal(at) && !f.outages.open && !h.Report.Probation &&
			h.Report.Running[r.Channel] == a.target() && f.Observed(since, at) >= r.Fast {
			a.Clean = at
			f.mark(a)
		}
	}
	s.noise()
	f.lapse(s, at)
	f.lag(s, at)
	f.returned(s, at)
	f.idle(s)
	f.classify(s, at)
}

// noise counts a host that stopped rules of the release which it runs, and had
// not stopped them before. What was stopped before is not stored: a server that
// starts anew may count an old rule once.
func (s *seat) noise() {
	a, r, rep := s.treated, s.release, &s.host.Report
	if a == nil || a.stopped || len(rep.Suspended) == 0 || rep.Running[r.Channel] != r.Digest {
		return
	}
	for _, x := range rep.Suspended {
		if !slices.ContainsFunc(a.noisy, func(y holdfast.Suspension) bool { return y.Rule == x.Rule }) {
			a.stopped = true
			r.suspending[s.host.Org]++
			return
		}
	}
}

// notCarriedOut is why an admission ended whose host beats, and says that it
// runs something else, long after it was drawn. It may be drawn again.
const notCarriedOut = "not carried out"

// lapse withdraws an offer that its host does not take up: it cannot fetch the
// content, perhaps. It would be pending for ever, and hold up the others.
func (f *Fleet) lapse(s *seat, at time.Time) {
	a, h, r := s.treated, s.host, s.release
	if a == nil || !a.stored || !a.Left.IsZero() || !a.Activated.IsZero() || len(a.kinds) > 0 || a.Block < 0 ||
		!h.heard.Equal(at) || f.outages.open || h.Report.Running[r.Channel] == r.Digest || f.Observed(a.At, at) < 3*r.Fast || r.recalled(h.Org) {
		return
	}
	f.leave(a, notCarriedOut, at)
	s.treated = nil
	r.outstanding--
}

// returned notices that a host cannot have a recalled release any more: it
// says that it runs something else, later than any lease could have lasted. One
// that was revoked says nothing any more, and is not waited for.
func (f *Fleet) returned(s *seat, at time.Time) {
	a, r := s.treated, s.release
	if a != nil && s.settled && !r.recalled(s.host.Org) {
		// Two people overrode the recall: the host may be drawn again.
		if a.Returned.IsZero() {
			r.kept--
		}
		s.treated, s.settled = nil, false
		return
	}
	if a == nil || s.settled || !r.recalled(s.host.Org) {
		return
	}
	if s.host.Revoked {
		s.settled = true // nobody can call it back
		r.outstanding--
		r.kept++
		return
	}
	if s.host.heard.After(r.RecalledAt.Add(f.clock.Lease)) && s.host.Report.Running[r.Channel] != r.Digest {
		s.settled = true
		r.outstanding--
		f.leave(a, "recalled", at)
		for _, x := range []*admission{a, a.first} {
			if x != nil && x.Returned.IsZero() {
				x.Returned = at
				f.mark(x)
			}
		}
	}
}

func (f *Fleet) classify(s *seat, at time.Time) {
	f.consult(s, at)
	g := s.home
	if s.treated != nil && s.group != nil {
		g = s.group
	}
	c, eligible := f.classOf(s, at)
	if g == s.group && c == s.class && eligible == s.counted {
		return
	}
	if s.group != nil {
		s.group.by[s.class]--
		if s.counted {
			s.group.eligible--
		}
		if s.group != g && s.group.by == ([classes]int{}) {
			// Hosts choose their attributes: groups that nobody is in must not
			// pile up.
			delete(s.release.groups, s.group.key)
		}
	}
	if s.release.groups[g.key] != g {
		g = s.release.group(s.host, s.ring)
		s.home = g
	}
	s.group, s.class, s.counted = g, c, eligible
	g.by[c]++
	if eligible {
		g.eligible++
	}
}

func (f *Fleet) classOf(s *seat, at time.Time) (c class, eligible bool) {
	h, r := s.host, s.release
	switch {
	case !r.meant(h), s.treated == nil && (slices.Contains(h.Report.Shunned, r.Digest) || s.declines()):
		return neither, false
	case s.treated == nil && s.forbids():
		if h.Report.Running[r.Channel] == r.Digest {
			return neither, false // by an earlier release of it
		}
		return held, false
	case s.treated != nil, !h.present, !h.fresh, h.Report.Running[r.Channel] == r.Digest, h.Report.Probation, r.recalled(h.Org), f.busyElsewhere(s, at):
		return neither, true
	}
	if s.delays(at) {
		return later, true
	}
	if a := s.control; a != nil && a.Left.IsZero() && f.Observed(a.At, at) < r.Fast {
		if a.stored && len(a.kinds) == 0 && !a.Activated.IsZero() {
			return watching, true
		}
		return neither, true
	}
	if h.NoCanary || h.Report.SafeMode || s.say != nil && s.say.Last {
		return last, true
	}
	return waiting, true
}

// declinedBecause begins why an admission ended that its host refused.
const declinedBecause = "declined: "

// declines reports whether the host refused this release.
func (s *seat) declines() bool {
	return s.control != nil && strings.HasPrefix(s.control.Why, declinedBecause)
}

// busyElsewhere reports whether the host is in the open window of another
// release: one experiment at a time, or neither could be read.
func (f *Fleet) busyElsewhere(s *seat, at time.Time) bool {
	for _, o := range s.host.seats {
		if o == s {
			continue
		}
		if a := o.current(); a != nil && a.Block >= 0 && a.Left.IsZero() && !o.release.recalled(s.host.Org) && f.Observed(a.At, at) < o.release.Fast {
			return true
		}
	}
	return false
}
