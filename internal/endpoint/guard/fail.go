package guard

import (
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// died follows the death of a worker; one that stalled or overran is killed
// first.
func (d *decision) died(e Event, cause Cause) {
	if !d.stands(e.Slot) {
		return
	}
	if cause != ByCrash {
		d.do(Action{Kind: Kill, Slot: e.Slot})
	}
	d.s.Crashes++
	d.changed()
	detail := string(cause) + ": " + e.Detail
	if e.Slot == InTrial {
		d.failTrial(cause, true, detail)
		return
	}
	if d.s.Safe == nil {
		d.acquit(cause)
	}
	d.death()
	if d.s.Safe == nil && len(d.s.Deaths) >= d.p.Loop {
		d.fall(cause, true, detail)
		return
	}
	d.start, d.after = true, backoff(len(d.s.Deaths))
}

// unfit follows a worker that was not started at all. Its content is not to
// blame: the file on this host's disk is, or the host.
func (d *decision) unfit(e Event, corrupt bool) {
	if !d.stands(e.Slot) {
		return
	}
	d.changed()
	switch {
	case e.Slot == InTrial:
		d.failTrial("", false, e.Detail)
	case corrupt && d.s.Safe == nil:
		d.fall("", false, e.Detail)
	default:
		d.s.Reason = clip(e.Detail)
		d.death()
		d.start, d.after = true, max(time.Second, backoff(len(d.s.Deaths)))
	}
}

// stands reports whether anything is started in the slot. What happens in the
// others is an echo of the past.
func (d *decision) stands(slot Slot) bool {
	t := d.s.Trial
	switch slot {
	case InTrial:
		return t != nil
	case InCurrent:
		return t == nil || !t.Active
	}
	return false
}

// death remembers one of what runs as current.
func (d *decision) death() {
	d.s.Deaths = slices.DeleteFunc(d.s.Deaths, func(at time.Time) bool {
		return d.now.Sub(at).Abs() >= d.p.LoopWindow
	})
	d.s.Deaths = append(d.s.Deaths, d.now)
	if n := len(d.s.Deaths); n > maxDeaths {
		d.s.Deaths = d.s.Deaths[n-maxDeaths:]
	}
}

// backoff is the wait before the start that follows the nth death.
func backoff(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	return min(backoffMin<<(n-2), backoffMax)
}

// failTrial ends a trial that did not hold.
func (d *decision) failTrial(cause Cause, blame bool, why string) {
	t := d.s.Trial
	if t.Kind == Candidate {
		d.s.Failed = t.Generation
		if blame {
			d.shun(t.Generation, d.base(), cause)
		}
	}
	placebo := t.Kind == Placebo
	d.revert(why)
	if placebo && blame {
		// The placebo is what runs anyway: it is never shunned for its trial,
		// but its deaths count as they always do.
		d.death()
		if len(d.s.Deaths) >= d.p.Loop {
			d.fall(cause, true, why)
		}
	}
}

// cutShort ends a trial by something it may not have caused, or, the second
// time, has.
func (d *decision) cutShort(cause Cause, why string) {
	t := d.s.Trial
	if t.Active && cause != ByReboot {
		d.do(Action{Kind: Leave, Slot: InTrial}) // it still protects
	}
	if t.Kind != Candidate {
		d.revert(why)
		return
	}
	d.s.Failed = t.Generation
	var again bool
	for _, c := range changed(t.Generation, d.base()) {
		again = d.suspect(t.Generation[c]) || again
	}
	if again {
		d.shun(t.Generation, d.base(), cause)
		why += ", for the second time"
	}
	d.revert(why)
}

// suspect counts x, and reports whether it was suspect before.
func (d *decision) suspect(x holdfast.Digest) bool {
	i := slices.IndexFunc(d.s.Suspects, func(y Suspect) bool { return y.Digest == x })
	if i >= 0 {
		d.s.Suspects[i].Times++
		return true
	}
	d.s.Suspects = slices.Insert(d.s.Suspects, 0, Suspect{Digest: x, Times: 1})
	d.s.Suspects = d.s.Suspects[:min(len(d.s.Suspects), maxSuspects)]
	return false
}

// revert ends the trial and returns to what it was to replace. The worker of a
// trial that was not active yet is gone already, or killed here; the one it was
// to replace has never stopped.
func (d *decision) revert(why string) {
	t := d.s.Trial
	if t.Active {
		d.start = true
	} else {
		d.do(Action{Kind: Kill, Slot: InTrial})
	}
	if f := d.s.Safe; f != nil && t.Kind == Again {
		f.Tries++
		f.Next = d.now.Add(min(safeRetryMin<<min(f.Tries, 10), safeRetryMax))
	}
	d.s.Trial = nil
	d.s.Reason = clip(why)
	d.trim()
	d.changed()
}

// base is what a candidate is built on.
func (d *decision) base() holdfast.Generation {
	if d.s.Safe != nil {
		return holdfast.Generation{}
	}
	return d.s.Current
}

// fall leaves a current generation that does not hold for the one before, else
// for safe mode.
func (d *decision) fall(cause Cause, blame bool, why string) {
	s := &d.s
	d.start, d.after = true, 0
	s.Deaths = nil
	d.unsettle()
	s.Reason = clip(why)
	d.changed()
	if s.Trial != nil { // it was built on what falls
		d.do(Action{Kind: Kill, Slot: InTrial})
		s.Trial = nil
	}
	if len(s.Back) > 0 && blame {
		s.Failed = s.Current
		d.shun(s.Current, s.Back[0], cause)
	}
	if len(s.Back) == 0 {
		d.enterSafe(why)
		return
	}
	s.Current, s.Back = s.Back[0], s.Back[1:]
	d.trim()
}

func (d *decision) enterSafe(why string) {
	d.s.Blame = nil
	d.s.Safe = &Safe{Since: d.now, Reason: clip(why), Next: d.now.Add(safeRetryMin)}
}

// shun remembers what g changed, and takes it off the way back.
func (d *decision) shun(g, base holdfast.Generation, cause Cause) {
	b := Blame{Cause: cause, At: d.now}
	for _, c := range changed(g, base) {
		x := g[c]
		if d.s.Shunned(x) || holds(base, x) {
			continue
		}
		d.s.Shuns = slices.Insert(d.s.Shuns, 0, Shun{Digest: x, Channel: c, Cause: cause, At: d.now})
		b.Digests = append(b.Digests, x)
	}
	d.s.Suspects = slices.DeleteFunc(d.s.Suspects, func(y Suspect) bool { return slices.Contains(b.Digests, y.Digest) })
	if len(b.Digests) > 0 {
		d.s.Blame = &b
	}
	d.dropShunned()
}

// dropShunned takes shunned generations off the way back, and off the way forth:
// what failed in safe mode may be part of what is to lead out of it.
func (d *decision) dropShunned() {
	if d.s.Safe != nil {
		for c, x := range d.s.Current {
			if d.s.Shunned(x) {
				d.s.Current = d.s.Current.With(c, "")
			}
		}
	}
	if x := d.s.Doubt; x != nil && d.s.Shunned(x.Digest) {
		d.s.Doubt = nil
	}
	d.s.Back = slices.DeleteFunc(d.s.Back, func(g holdfast.Generation) bool {
		for _, x := range g {
			if d.s.Shunned(x) {
				return true
			}
		}
		return false
	})
}

// acquit lifts the latest shun if what replaced the shunned content now dies the
// same way: then this host kills the one as well as the other.
func (d *decision) acquit(cause Cause) {
	b := d.s.Blame
	if b == nil {
		return
	}
	d.s.Blame = nil
	if b.Cause != cause || d.now.Sub(b.At).Abs() >= d.p.LoopWindow {
		return
	}
	for _, x := range b.Digests {
		d.s.Shuns = slices.DeleteFunc(d.s.Shuns, func(y Shun) bool { return y.Digest == x && y.Cause == cause })
	}
}
