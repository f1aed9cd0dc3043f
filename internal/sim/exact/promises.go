package exact

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// watch is what the promises are checked with.
type watch struct {
	violation *sim.Violation
	notes     []note // the latest last
	admitted  int    // admissions looked at
	version   int64  // of the stored rollout, when it was looked at
	recalled  map[holdfast.OrgID]bool
	treated   map[holdfast.HostID]*holdfast.Admission
	late      int // drawn after completion
}

// note is something that happened, to a host or to all.
type note struct {
	step int
	at   time.Duration
	host holdfast.HostID
	what string
}

func (n note) String() string {
	who := "everybody"
	if n.host != "" {
		who = string(n.host)
	}
	return fmt.Sprintf("step %d, %s: %s: %s", n.step, n.at, who, n.what)
}

// mostNotes bounds what is remembered, shownNotes what a violation shows.
const mostNotes, shownNotes = 4096, 16

func (w *world) note(id holdfast.HostID, format string, args ...any) {
	if len(w.watch.notes) >= 2*mostNotes {
		w.watch.notes = slices.Clone(w.watch.notes[mostNotes:])
	}
	w.watch.notes = append(w.watch.notes, note{w.steps, w.since(), id, fmt.Sprintf(format, args...)})
}

func (h *host) note(w *world, format string, args ...any) { w.note(h.id, format, args...) }

// violate notes the first broken promise of a run, with what led to it: what
// happened to the host, to everybody, and what the record says.
func (w *world) violate(promise int, h *host, format string, args ...any) {
	if w.watch.violation != nil {
		return
	}
	v := &sim.Violation{Seed: w.Seed, Step: w.steps, Promise: promise, What: fmt.Sprintf(format, args...)}
	var led []string
	for _, n := range slices.Backward(w.watch.notes) {
		if len(led) == shownNotes {
			break
		}
		if h == nil || n.host == "" || n.host == h.id {
			led = append(led, n.String())
		}
	}
	slices.Reverse(led)
	v.Trace = led
	for _, e := range w.store.record[max(0, len(w.store.record)-5):] {
		v.Trace = append(v.Trace, fmt.Sprintf("record, %s: %s: %s", e.At.Sub(w.begins), e.Kind, e.Text))
	}
	if h != nil {
		v.What = string(h.id) + ": " + v.What
		v.Trace = append(v.Trace, fmt.Sprintf("guard: %+v", h.state))
	}
	v.Trace = append(v.Trace, fmt.Sprintf("step %d, %s: phase %s, %d broken", w.steps, w.since(), w.phase(), w.out.Broken))
	w.watch.violation = v
}

// activated checks what must hold at the moment a host carries an offer out.
func (w *world) activated(h *host, o holdfast.Offer) {
	if o.Arm != holdfast.New || h.lie != "" {
		return
	}
	plan := w.policy.Rings
	ring := plan.Of(h.id)
	if w.now.Before(plan.Opens(ring, w.signed())) {
		w.violate(1, h, "activated before the soak of ring %s had passed", plan[ring].Name)
	}
	if w.phase().Recalling() && w.out.Decided > 0 && w.since() > w.out.Decided+2*w.policy.Heartbeat {
		w.violate(4, h, "activated a recalled release")
	}
}

// check is made after every step, of every host that does not lie and of what
// the control plane stored.
func (w *world) check() {
	beat := w.policy.Heartbeat
	recalled := w.phase().Recalling()
	long := recalled && w.out.Decided > 0 && w.since() > w.out.Decided+15*beat
	for _, h := range w.hosts {
		if h.down || h.offline || h.lie != "" {
			continue
		}
		g, safe := h.state.Running()
		runs := g[holdfast.Rules]
		switch {
		case !safe && runs != w.good && runs != w.bad && runs != "":
			w.violate(1, h, "runs %s, which nobody signed", runs.Short())
		case runs == w.bad && h.state.Shunned(w.bad):
			w.violate(2, h, "runs content that it shuns")
		case !h.broken.IsZero() && !h.proved && h.fault.Kind == holdfast.Crash && w.now.Sub(h.broken) > 2*time.Second+w.tick && h.back.IsZero():
			w.violate(2, h, "nothing proven runs %s after the crash", w.now.Sub(h.broken))
		case h.stuck(w):
			w.violate(4, h, "runs what has reached nobody since %s, and could not be told to give it back", h.broken.Sub(w.begins))
		case long && runs == w.bad && w.reachable(h):
			w.violate(4, h, "still runs the release long after its recall%s", w.held(h))
		}
		if h.running() || h.died {
			h.idle = time.Time{}
		} else if h.idle.IsZero() {
			h.idle = w.now
		} else if blink := w.now.Sub(h.idle); blink > 2*time.Second {
			w.violate(6, h, "nothing evaluates for %s, though no worker died", blink)
		}
	}
	w.checkAdmissions()
	if r := w.store.rollouts[release]; r.Version != w.watch.version {
		w.watch.version = r.Version
		s, err := rollout.Load(r.State)
		if err != nil {
			w.violate(5, nil, "the stored rollout cannot be read: %v", err)
		}
		w.remember(&s)
	}
	if recalled {
		w.onRecord("halt", "stop")
	}
	w.checkPreview()
	if v, ok := w.service.View(release); ok {
		cells := make([]rollout.Cell, len(v.Seen.Cells))
		for i, c := range v.Seen.Cells {
			cells[i] = rollout.Cell{Block: c.Block, Treated: rollout.Arm(c.Treated), Control: rollout.Arm(c.Control)}
		}
		if what := sim.OverBudget(&w.policy, &v.State, cells); what != "" {
			w.violate(3, nil, "%s", what)
		}
	}
}

// reachable reports whether a host and the control plane could hear each other
// for as long as a recall may take: messages may be lost on the way.
func (w *world) reachable(h *host) bool {
	if w.deaf || w.Messages.Lose > 0 || h.lie != "" {
		return false
	}
	return !w.now.Before(h.cut.Add(10*w.policy.Heartbeat)) && !w.now.Before(h.unheard.Add(10*w.policy.Heartbeat))
}

// checkAdmissions looks at those that were stored since the step before:
// nobody is drawn twice, and nobody after a recall.
func (w *world) checkAdmissions() {
	if w.watch.treated == nil {
		w.watch.treated, w.watch.recalled = map[holdfast.HostID]*holdfast.Admission{}, map[holdfast.OrgID]bool{}
	}
	all := w.store.admissions
	for _, a := range all[min(w.watch.admitted, len(all)):] {
		if a.Arm != holdfast.New {
			continue
		}
		h := w.host(a.Host)
		if w.watch.recalled[""] || w.watch.recalled[a.Org] {
			w.violate(4, h, "was drawn for the release after its recall")
		}
		if before := w.watch.treated[a.Host]; before != nil && before.Left.IsZero() {
			w.violate(4, h, "was drawn for the release twice")
		}
		switch before := w.watch.treated[a.Host]; {
		case a.Again() && (before == nil || before.Activated.IsZero()):
			w.violate(3, h, "is offered again what it never had")
		case a.Block >= 0 && before != nil && (before.Again() || !before.Activated.IsZero()):
			w.violate(3, h, "counts twice in the comparison")
		case a.Again() && h.lie == "" && h.state.Shunned(w.bad) && !w.deaf && !w.now.Before(h.cut) && w.Messages == (sim.Messages{}):
			w.violate(4, h, "is offered again what it shuns")
		}
		w.watch.treated[a.Host] = a
		if a.Block == holdfast.LateBlock {
			w.watch.late++
			w.checkLate(a, h)
		}
	}
	w.watch.admitted = len(all)
}

// checkLate sees that who is drawn after completion keeps to the harm budget, among
// the hosts of its own kind and among all: with c of them clean, no more than
// 5 + 5c have the release and are not. Who left without harm is not counted, nor
// who was drawn late and had not carried it out for three windows.
func (w *world) checkLate(a *holdfast.Admission, h *host) {
	type part struct {
		host  holdfast.HostID
		block int
	}
	harmed, proved := map[part]bool{}, map[holdfast.HostID]bool{}
	for _, x := range w.store.harms {
		harmed[part{x.Host, x.Block}] = true
	}
	for _, x := range w.store.admissions {
		proved[x.Host] = proved[x.Host] || x.Arm == holdfast.New && !x.Clean.IsZero()
	}
	var pending, clean [2]int // of its kind, and of all
	for _, x := range w.store.admissions {
		until := x.Activated
		if until.IsZero() {
			until = w.now
		}
		idle := x.Block == holdfast.LateBlock && until.Sub(x.At) >= 3*w.policy.Fast
		left := !x.Left.IsZero() && !harmed[part{x.Host, x.Block}] && !strings.HasPrefix(x.Why, "went back")
		of := w.host(x.Host)
		if x.Arm != holdfast.New || x.Again() {
			continue
		}
		for i, counts := range []bool{of.attr.Stratum() == h.attr.Stratum(), true} {
			switch {
			case !counts:
			case proved[x.Host]: // by its own word, which a liar gives too
				clean[i]++
			case !left && !idle && (of.lie == "" || i == 1): // what a liar says it has, it may give back
				pending[i]++
			}
		}
	}
	for i, of := range []string{"of its kind", "of all"} {
		if pending[i] > w.policy.C0+int(w.policy.Kappa)*clean[i] {
			w.violate(3, h, "was drawn after completion, when %d %s have not proved themselves and %d are clean", pending[i], of, clean[i])
		}
	}
}

func (w *world) host(id holdfast.HostID) *host {
	i := slices.IndexFunc(w.hosts, func(h *host) bool { return h.id == id })
	if i < 0 {
		return nil
	}
	return w.hosts[i]
}

// remember keeps from whom the release is recalled.
func (w *world) remember(s *rollout.State) {
	if s.Phase.Recalling() {
		w.watch.recalled[""] = true
	}
	for _, e := range s.Evidence {
		if e.Halted {
			w.watch.recalled[e.Org] = true
		}
	}
}

// onRecord checks that a recall is an entry of the record.
func (w *world) onRecord(kinds ...string) {
	for _, e := range w.store.record {
		if e.Release == release && slices.Contains(kinds, e.Kind) {
			return
		}
	}
	w.violate(5, nil, "the release was recalled, and the record does not say so")
}
