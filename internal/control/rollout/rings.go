package rollout

import (
	"math"
	"slices"
	"time"

	"github.com/holdfast-security/holdfast"
)

// allOpen reports whether every ring is open.
func (d *decision) allOpen() bool {
	return !slices.ContainsFunc(d.s.Rings, func(r RingState) bool { return r.Opened.IsZero() })
}

// openRings opens the next ring when its publishers' soak has passed and the
// rings before it have done their part: nobody of them waits but the control
// floor, and their windows have closed. On HOLD it opens too, at HOLD's pace: a
// ring that is used up cannot settle what it raised.
func (d *decision) openRings() {
	for i := range d.s.Rings {
		if !d.s.Rings[i].Opened.IsZero() {
			continue
		}
		if d.now.Before(d.policy.Rings.Opens(i, d.policy.Signed)) {
			return
		}
		if halting && !(d.s.Collapsed && i > 1) && i > 0 && !d.ringDone(i-1) {
			return
		}
		d.s.Rings[i].Opened = d.now
		d.do(OpenRing{Ring: i, Name: d.policy.Rings[i].Name})
	}
}

// ringDone reports whether ring r and those before it have shown what they
// can.
func (d *decision) ringDone(r int) bool {
	eligible, waiting, pending, drawn := 0, 0, 0, 0
	for i := range d.units {
		u := &d.units[i]
		if u.ring > r {
			continue
		}
		eligible += u.eligible
		pending += u.pending()
		drawn += u.drawn
		if n, _, _ := d.supply(u); n > 0 {
			waiting += n
		}
	}
	if eligible == 0 {
		return true
	}
	return waiting*100 <= eligible && pending*100 <= drawn && !d.now.Before(d.s.Rings[r].Opened.Add(d.policy.Fast))
}

// stageCap is how many hosts may be treated in the current stage.
func (d *decision) stageCap() int {
	if d.s.Stage >= len(d.policy.Stages) {
		return math.MaxInt32
	}
	st, n := d.policy.Stages[d.s.Stage], float64(d.s.Fleet)
	c := st.Share * n
	switch {
	case st.Hosts > 0 && st.Largest:
		c = max(c, float64(st.Hosts))
	case st.Hosts > 0:
		c = min(c, float64(st.Hosts))
	}
	if st.AtMost > 0 {
		c = min(c, st.AtMost*n)
	}
	return max(int(c), st.AtLeast, 1)
}

func (d *decision) stageRoom() int {
	return max(0, d.stageCap()-d.total.drawn-d.total.outstanding)
}

// slowEvidence is the pool's largest slow e-value over signals.
func (d *decision) slowEvidence() float64 {
	best := 1.0
	for k := range d.layout.signals {
		best = max(best, d.s.Evidence[0].L.slow[d.layout.at(0, k)].value())
	}
	return best
}

// advanceStage moves on when the stage's cap was reached, its hosts proved
// themselves, and its time has passed since. While its evidence points upward a
// stage is not left, for as long as its slow window can still settle it: the
// controls it has would be drawn anew.
func (d *decision) advanceStage() {
	if d.s.Stage >= len(d.policy.Stages) || !halting {
		return
	}
	t := &d.total
	full := d.stageRoom() == 0 || t.waiting+t.last+t.watching == 0 && t.drawn > 0
	if d.s.StageFull.IsZero() {
		if full && t.pending()*100 <= t.drawn {
			d.s.StageFull = d.now
			d.note("stage %d of %d: %d hosts have the release, for %s", d.s.Stage+1, len(d.policy.Stages), t.drawn, d.policy.Stages[d.s.Stage].Hold.Round(time.Second))
		}
		return
	}
	since := d.now.Sub(d.s.StageFull)
	upward := d.s.Phase == holdfast.Held || d.slowEvidence() >= d.policy.HoldAt
	if since >= d.policy.Stages[d.s.Stage].Hold && (!upward || since >= d.policy.Slow) {
		d.s.Stage++
		d.s.StageFull = time.Time{}
	}
}
