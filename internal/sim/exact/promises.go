package exact

import (
	"fmt"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// violate notes the first broken promise of a run.
func (w *world) violate(promise int, h *host, format string, args ...any) {
	if w.violation != nil {
		return
	}
	v := &sim.Violation{Seed: w.Seed, Step: w.steps, Promise: promise, What: fmt.Sprintf(format, args...)}
	if h != nil {
		v.What = string(h.id) + ": " + v.What
		v.Trace = append(v.Trace, fmt.Sprintf("guard: %+v", h.state))
	}
	v.Trace = append(v.Trace, fmt.Sprintf("time %s, phase %s, %d broken", w.now.Sub(epoch), w.phase(), w.broken))
	for _, e := range w.store.record[max(0, len(w.store.record)-5):] {
		v.Trace = append(v.Trace, "record: "+e.Kind+" "+e.Text)
	}
	w.violation = v
}

// activated checks what must hold at the moment a host carries an offer out.
func (w *world) activated(h *host, o holdfast.Offer) {
	if o.Arm != holdfast.New {
		return
	}
	plan := w.Config.Policy.Rings
	ring := plan.Of(h.id)
	if w.now.Before(plan.Opens(ring, epoch)) {
		w.violate(1, h, "activated before the soak of ring %s had passed", plan[ring].Name)
	}
	if w.phase().Recalling() && w.out.Decided > 0 && w.now.Sub(epoch) > w.out.Decided+2*w.Config.Policy.Heartbeat {
		w.violate(4, h, "activated a recalled release")
	}
}

// check is made after every step, of every host.
func (w *world) check() {
	recalledLong := w.phase().Recalling() && w.out.Decided > 0 && w.now.Sub(epoch) > w.out.Decided+15*w.Config.Policy.Heartbeat
	for _, h := range w.hosts {
		if h.down {
			continue
		}
		g, safe := h.state.Running()
		runs := g[holdfast.Rules]
		switch {
		case !safe && runs != w.good && runs != w.bad && runs != "":
			w.violate(1, h, "runs %s, which nobody signed", runs.Short())
		case runs == w.bad && h.state.Shunned(w.bad):
			w.violate(2, h, "runs content that it shuns")
		case !h.broken.IsZero() && !h.proved && w.now.Sub(h.broken) > 2*time.Second+w.tick && h.back.IsZero() && w.fault.Kind == holdfast.Crash:
			w.violate(2, h, "nothing proven runs %s after the crash", w.now.Sub(h.broken))
		case recalledLong && runs == w.bad && !w.deaf && !w.now.Before(h.cut.Add(10*w.Config.Policy.Heartbeat)):
			w.violate(4, h, "still runs the release long after its recall")
		}
	}
	if w.phase().Recalling() {
		w.onRecord("halt", "stop")
	}
}

// onRecord checks that a recall is an entry of the record.
func (w *world) onRecord(kinds ...string) {
	for _, e := range w.store.record {
		for _, k := range kinds {
			if e.Kind == k && e.Release == release {
				return
			}
		}
	}
	w.violate(5, nil, "the release was recalled, and the record does not say so")
}
