package guard

import (
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/lifeline"
)

// Decide says what follows from an event: the new state, and what is to be done
// in which order. It is pure, and total: any state, with any event, leads to a
// state in which some verified generation, or safe mode, is started or runs.
//
// now comes from the driver's clock, which never goes back while the guard runs
// and may jump when it restarts.
func Decide(p Policy, s State, e Event, now time.Time) (State, []Action) {
	d := &decision{p: p, s: s.clone(), now: now}
	switch e.Kind {
	case Started:
		d.started(e.Boot)
	case Stopping:
		d.s.Clean, d.durable = true, true
	case Proposed:
		d.proposed(e)
	case Reactivated:
		d.reactivated(e)
	case Recalled:
		d.recalled(e.Digest)
	case RetryAllowed:
		d.lift(e.Digest)
	case Finalised:
		d.finalised(e.Digest)
	case IsReady:
		d.ready(e.Slot)
	case Beaten:
		d.beaten(e)
	case Ticked:
		d.probation()
		d.again()
	case Exited:
		d.died(e, ByCrash)
	case Stalled:
		d.died(e, ByStall)
	case Overran:
		d.died(e, ByOverrun)
	case CorruptSlot:
		d.unfit(e, true)
	case Unstartable:
		d.unfit(e, false)
	case WriteFailed:
		d.writeFailed(e)
	}
	return d.done()
}

// decision is one call of Decide.
type decision struct {
	p   Policy
	s   State
	now time.Time

	durable bool // the state must reach the disk
	must    bool // before anything else happens
	told    bool // the workers must hear of it
	start   bool // what is current must be started
	after   time.Duration
	acts    []Action
}

func (d *decision) do(a Action) { d.acts = append(d.acts, a) }

func (d *decision) changed() { d.durable, d.told = true, true }

// done puts the actions in order. A candidate waits for the disk. What leads back
// does not: a disk may take seconds, or fail.
func (d *decision) done() (State, []Action) {
	acts := d.acts
	if d.start {
		a := Action{Kind: Start, Slot: InCurrent, After: d.after, Safe: d.s.Safe != nil}
		if !a.Safe {
			a.Generation = d.s.Current
		}
		acts = append(acts, a)
	}
	switch persist := (Action{Kind: Persist, Must: d.must}); {
	case d.must:
		acts = slices.Insert(acts, 0, persist)
	case d.durable:
		acts = append(acts, persist)
	}
	if d.told {
		acts = append(acts, Action{Kind: Inform})
	}
	return d.s, acts
}

func (d *decision) started(boot string) {
	// A host that cannot tell one boot from another counts each start as one.
	rebooted := d.s.Boot != boot || boot == ""
	first := d.s.Boot == ""
	unclean := rebooted && !first && !d.s.Clean
	d.s.Boot, d.s.Clean = boot, false
	d.changed()
	d.start = true
	switch t := d.s.Trial; {
	case t != nil && rebooted:
		d.cutShort(ByReboot, "the host rebooted during probation")
	case t != nil:
		d.revert("the guard restarted during probation; the content is not blamed for it")
	case unclean && d.s.Safe == nil:
		d.acquit(ByReboot)
		d.death()
		if len(d.s.Deaths) >= d.p.Loop {
			d.fall(ByReboot, true, "the host keeps rebooting")
		}
	}
}

func (d *decision) proposed(e Event) {
	d.heard(e)
	base := d.s.Current
	if d.s.Safe != nil {
		// Nothing is known to be good but the package, so the candidate is
		// built on nothing: what fails then is what was added.
		base = holdfast.Generation{}
	}
	g := base.With(e.Channel, e.Digest)
	switch {
	case d.s.Trial != nil:
		d.refuse(e.ID, "another candidate is on trial")
	case e.Digest == "" || e.Channel == "":
		d.refuse(e.ID, "no digest or no channel")
	case d.s.Shunned(e.Digest):
		d.refuse(e.ID, "this host shuns "+e.Digest.Short())
	case len(d.s.Shuns) >= maxShuns:
		d.refuse(e.ID, "this host shuns too many digests to try another; the publishers can allow a retry of some")
	case len(g) > maxChannels:
		d.refuse(e.ID, "too many channels")
	case d.s.Safe == nil && g.Equal(d.s.Current):
		d.refuse(e.ID, "that runs already")
	default:
		if x := d.s.Doubt; x != nil && x.Digest == e.Digest {
			x.Tries++
			x.Next = d.now.Add(d.pause(x.Tries))
		}
		d.try(Trial{Generation: g, Kind: Candidate, ID: e.ID})
	}
}

func (d *decision) reactivated(e Event) {
	d.heard(e)
	switch {
	case d.s.Trial != nil:
		d.refuse(e.ID, "another candidate is on trial")
	case d.s.Safe != nil:
		d.refuse(e.ID, "safe mode has nothing to re-activate")
	default:
		d.try(Trial{Generation: d.s.Current, Kind: Placebo, ID: e.ID})
	}
}

// again tries the way out of safe mode, from time to time.
func (d *decision) again() {
	f := d.s.Safe
	if f == nil || d.s.Trial != nil {
		return
	}
	// A wait longer than any we set means that the clock was put back.
	if wait := f.Next.Sub(d.now); wait <= 0 || wait > safeRetryMax {
		d.try(Trial{Generation: d.s.Current, Kind: Again})
	}
}

// try puts a generation on trial: first on disk, then beside what runs.
func (d *decision) try(t Trial) {
	t.Since = d.now
	d.s.Trial = &t
	if t.Kind != Again {
		d.s.Attempted, d.s.Activation = t.Generation, t.ID
		d.do(Action{Kind: Reply, ID: t.ID, Accepted: true})
	}
	d.must = true
	d.changed()
	d.do(Action{Kind: Start, Slot: InTrial, Generation: t.Generation})
}

func (d *decision) refuse(id, why string) {
	d.do(Action{Kind: Reply, ID: id, Reason: why})
}

func (d *decision) writeFailed(e Event) {
	d.s.Reason = clip("nothing was activated, because the guard cannot write its state: " + e.Detail)
	d.told = true
	if e.ID != "" {
		d.refuse(e.ID, d.s.Reason)
	}
	if d.s.Safe != nil {
		d.s.Safe.Next = d.now.Add(safeRetryMin)
	}
}

func (d *decision) ready(slot Slot) {
	t := d.s.Trial
	switch {
	case slot == InTrial && t != nil && !t.Active:
		t.Active, t.Since, t.Evaluated = true, d.now, 0
		d.told = true // the mark of probation is on disk since the proposal
		d.do(Action{Kind: Leave, Slot: InCurrent})
		d.do(Action{Kind: Drain})
	case slot == InCurrent:
		d.do(Action{Kind: Drain})
		if x := d.s.Doubt; x != nil && !x.Judged && x.Until.IsZero() {
			x.Until, d.durable = d.now.Add(d.p.Probation), true
		}
	}
}

// probation ends a trial that has proved itself, or never will.
func (d *decision) probation() {
	t := d.s.Trial
	if t == nil || !t.Active {
		return
	}
	switch lasted := d.now.Sub(t.Since); {
	case lasted < d.p.Probation:
	case t.Evaluated >= d.p.ProbationEvents && !d.wanting(*t):
		d.promote(*t)
	case lasted >= MuteAfter*d.p.Probation && d.wanting(*t):
		d.mute()
	case lasted >= idleAfter*d.p.Probation:
		d.cutShort(ByIdle, "too few events were evaluated to end probation")
	}
}

func (d *decision) promote(t Trial) {
	s := &d.s
	if x := s.Doubt; x != nil && t.Kind != Placebo && (s.Safe != nil || x.Kind == Placebo || s.Current[x.Channel] != t.Generation[x.Channel]) {
		s.Doubt = nil // it was about another way forth
	}
	switch {
	case t.Kind == Placebo:
	case s.Safe != nil:
		// What ran before safe mode is no way back, unless it is what has now
		// proved itself; in that case its own way back has been used up.
		s.Current, s.Back, s.Safe = t.Generation, nil, nil
	default:
		s.Back = slices.Insert(s.Back, 0, s.Current)
		s.Current = t.Generation
	}
	if t.Kind != Placebo {
		s.Blame, s.Deaths = nil, nil
		s.Reached = t.Contact == lifeline.HadContact
		s.Suspects = slices.DeleteFunc(s.Suspects, func(x Suspect) bool { return holds(t.Generation, x.Digest) })
		if s.Failed.Equal(t.Generation) {
			s.Failed, s.Reason = nil, ""
		}
	}
	s.Trial = nil
	d.trim()
	d.changed()
	d.do(Action{Kind: Adopt})
}

// trim cuts the way back to what Back promises, and forgets what is no longer
// on it.
func (d *decision) trim() {
	s := &d.s
	if i := slices.IndexFunc(s.Back, s.isFinal); i >= 0 {
		s.Back = s.Back[:i+1]
	}
	for len(s.Back) > maxBack {
		s.Back = slices.Delete(s.Back, maxBack-2, maxBack-1) // never the last: it is the one most is known of
	}
	s.Final = slices.DeleteFunc(s.Final, func(x holdfast.Digest) bool { return !s.inSlots(x) })
}

func (d *decision) finalised(x holdfast.Digest) {
	if !d.s.inSlots(x) || slices.Contains(d.s.Final, x) {
		return
	}
	d.s.Final = append(d.s.Final, x)
	d.trim()
	d.changed()
}

// recalled leads back to what ran without x: nobody died, so the worker that
// runs goes on until the other is ready.
func (d *decision) recalled(x holdfast.Digest) {
	s := &d.s
	if !s.inSlots(x) {
		return
	}
	why := "recalled: " + x.Short()
	c, running := s.channelOf(x), holds(s.Current, x)
	s.Shuns = slices.Insert(s.Shuns, 0, Shun{Digest: x, Channel: c, Cause: ByRecall, At: d.now})
	s.Reason = why
	d.dropShunned()
	d.changed()
	if t := s.Trial; t != nil && (holds(t.Generation, x) || running && s.Safe == nil) {
		if t.Active {
			d.do(Action{Kind: Leave, Slot: InTrial})
			d.start = true
		} else {
			d.do(Action{Kind: Kill, Slot: InTrial})
		}
		s.Trial = nil
	}
	if !running {
		return
	}
	if len(s.Back) > 0 {
		s.Current, s.Back = s.Back[0], s.Back[1:]
	} else {
		s.Current = s.Current.With(c, "")
		for c, y := range s.Current { // the same bytes on two channels
			if y == x {
				s.Current = s.Current.With(c, "")
			}
		}
	}
	s.Deaths, s.Blame = nil, nil
	d.unsettle()
	d.trim()
	if s.Safe == nil && !d.start {
		d.do(Action{Kind: Leave, Slot: InCurrent})
		d.start = true
	}
}

// lift forgets a shun.
func (d *decision) lift(x holdfast.Digest) {
	n := len(d.s.Shuns) + len(d.s.Suspects)
	d.s.Shuns = slices.DeleteFunc(d.s.Shuns, func(y Shun) bool { return y.Digest == x })
	d.s.Suspects = slices.DeleteFunc(d.s.Suspects, func(y Suspect) bool { return y.Digest == x })
	if len(d.s.Shuns)+len(d.s.Suspects) != n {
		d.changed()
	}
}

func (s State) channelOf(x holdfast.Digest) holdfast.Channel {
	gs := append([]holdfast.Generation{s.Current}, s.Back...)
	if s.Trial != nil {
		gs = append(gs, s.Trial.Generation)
	}
	for _, g := range gs {
		for c, y := range g {
			if y == x {
				return c
			}
		}
	}
	if s.Doubt != nil && s.Doubt.Digest == x {
		return s.Doubt.Channel
	}
	return ""
}
