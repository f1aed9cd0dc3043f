package rollout

import (
	"slices"

	"github.com/holdfast-security/holdfast"
)

// commands carries out what people decided. A command that does not fit is
// noted with the reason and changes nothing.
func (d *decision) commands() {
	for _, c := range d.in.Commands {
		if c.Seq <= d.s.CommandSeq {
			continue
		}
		d.s.CommandSeq = c.Seq
		if why := d.command(c); why != "" {
			d.note("%s by %s was refused: %s", c.Kind, c.By, why)
		}
	}
}

func (d *decision) command(c Command) (refused string) {
	switch {
	case c.By == "":
		return "nobody put a name to it"
	case c.Org != "" && len(d.s.Evidence) > 1 && !slices.Contains(d.s.Orgs, c.Org):
		return "this release does not reach organisation " + string(c.Org)
	}
	switch c.Kind {
	case Approve:
		return d.approve(c)
	case HaltNow:
		return d.haltNow(c)
	case Pause:
		return d.pause(c)
	case Continue:
		return d.resume(c)
	case Finish:
		return d.finishNow(c)
	case Override:
		return d.override(c)
	}
	return "it is not a command"
}

func (d *decision) approve(c Command) string {
	switch {
	case d.s.Phase != holdfast.Waiting:
		return "the release is not waiting for approval"
	case c.By == d.policy.By:
		return "the second person must be another than the first"
	}
	d.s.Phase, d.s.Why = holdfast.Running, ""
	d.note("approved by %s", c.By)
	return ""
}

// partyOf returns the index of the evidence a command is about; with a single
// organisation that is the installation's.
func (d *decision) partyOf(org holdfast.OrgID) int {
	for i := range d.s.Evidence {
		if i > 0 && d.s.Evidence[i].Org == org {
			return i
		}
	}
	return 0
}

// haltNow works in every phase, also after completion.
func (d *decision) haltNow(c Command) string {
	i := d.partyOf(c.Org)
	ev := &d.s.Evidence[i]
	if d.s.Phase.Recalling() || ev.Halted {
		return "it is recalled already"
	}
	ev.Halted, ev.HaltedBy = true, c.By
	why := c.Reason
	if why == "" {
		why = "a person decided"
	}
	d.survey()
	d.recall(ev.Org, holdfast.Halted, "halted by "+c.By+": "+why)
	d.do(Halt{
		Org: ev.Org, By: c.By, Why: why, Evidence: ev.E, Limit: ev.Limit,
		Harmed: d.harmedIn(ev.Org), Exposed: d.drawnIn(ev.Org), AtEvent: d.s.EventSeq,
	})
	return ""
}

func (d *decision) pause(c Command) string {
	if d.s.Phase.Done() || d.s.Phase == holdfast.Waiting {
		return "nothing is being admitted"
	}
	if slices.ContainsFunc(d.s.Paused, func(p Pausing) bool { return p.Org == c.Org }) {
		return "it is paused already"
	}
	d.s.Paused = append(d.s.Paused, Pausing{Org: c.Org, By: c.By, At: c.At})
	if c.Org == "" {
		d.s.Phase, d.s.Why = holdfast.Paused, "paused by "+c.By
	}
	d.note("paused by %s%s", c.By, about(c.Org))
	return ""
}

func (d *decision) resume(c Command) string {
	i := slices.IndexFunc(d.s.Paused, func(p Pausing) bool { return p.Org == c.Org })
	if i < 0 {
		return "it is not paused"
	}
	d.s.Paused = slices.Delete(d.s.Paused, i, i+1)
	if d.s.Phase == holdfast.Paused && c.Org == "" {
		d.s.Phase, d.s.Why = holdfast.Running, ""
	}
	d.note("resumed by %s%s", c.By, about(c.Org))
	return ""
}

// finishNow completes a rollout that only waits for hosts that are delayed or
// away, so that the next release of the channel need not.
func (d *decision) finishNow(c Command) string {
	if d.s.Delayed == 0 || d.s.Phase != holdfast.Running && d.s.Phase != holdfast.Held {
		return "it waits for others than those whose customers delay them, or who are away"
	}
	d.survey()
	d.note("finished by %s, without %d hosts whose customers delay it, or that are away", c.By, d.s.Delayed)
	d.complete()
	return ""
}

func about(org holdfast.OrgID) string {
	if org == "" {
		return ""
	}
	return " for " + string(org)
}

// override goes on after a recall. Two people must name the harm they have
// seen; the evidence stays, and its limit becomes twice what it is, or twice
// what it was, whichever is more.
func (d *decision) override(c Command) string {
	i := d.partyOf(c.Org)
	ev := &d.s.Evidence[i]
	d.survey()
	harmed := d.harmedIn(ev.Org)
	switch {
	case !d.s.Phase.Recalling() && !ev.Halted:
		return "nothing is recalled"
	case i > 0 && d.s.Evidence[0].Halted:
		return "it is recalled from everybody, and one organisation cannot override that"
	case c.Second == "" || c.Second == c.By:
		return "it takes two people"
	case c.Acknowledged != harmed:
		return "the number of harmed hosts that was acknowledged is not the number that was harmed"
	}
	for j := range d.s.Evidence {
		if e := &d.s.Evidence[j]; j == i || i == 0 {
			e.Limit = 2 * max(e.Limit, e.E)
			e.Halted, e.HaltedBy = false, ""
		}
	}
	d.s.StopAt = 2 * max(d.s.StopAt, harmed)
	if d.s.Phase.Recalling() {
		d.s.Phase, d.s.Why = holdfast.Running, ""
	}
	d.note("overridden by %s and %s, who acknowledged %d harmed hosts%s: the limit is now %.4g", c.By, c.Second, harmed, about(c.Org), ev.Limit)
	return ""
}
