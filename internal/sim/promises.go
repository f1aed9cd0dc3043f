package sim

import (
	"fmt"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// Violation is a promise that a step broke.
type Violation struct {
	Seed    uint64   `json:"seed"`
	Step    int      `json:"step"`
	Promise int      `json:"promise"` // 1 to 6 as in README.md, or Control
	What    string   `json:"what"`
	Trace   []string `json:"trace"`
}

// Control is what docs/consent.md guarantees customers, counted as a promise
// after the six.
const Control = 7

func (v *Violation) Error() string {
	return fmt.Sprintf("promise %d broken at seed %d, step %d: %s", v.Promise, v.Seed, v.Step, v.What)
}

// promises checks, after a step, what can be seen of the promises in counts: a
// bad release stops early (3), a halt is a recall (4).
func (c *counts) promises() error {
	bad := func(promise int, format string, args ...any) error {
		return &Violation{Seed: c.world.Seed, Step: c.out.Steps, Promise: promise, What: fmt.Sprintf(format, args...), Trace: c.trace()}
	}
	recalling := c.state.Phase.Recalling()
	for _, a := range c.actions {
		admit, ok := a.(rollout.Admit)
		if !ok {
			continue
		}
		switch {
		case recalling:
			return bad(4, "hosts are admitted to a recalled release")
		case c.snapshot.Outage:
			return bad(3, "hosts are admitted while the control plane is deaf")
		case c.state.Rings[admit.Ring].Opened.IsZero():
			return bad(1, "ring %d is admitted before it opened", admit.Ring)
		case c.time().Before(c.policy.Rings.Opens(admit.Ring, c.policy.Signed)):
			return bad(1, "ring %d is admitted before its soak passed", admit.Ring)
		}
	}
	if what := OverBudget(&c.policy, &c.state, c.cells); what != "" {
		return bad(3, "%s", what)
	}
	if c.state.Phase != holdfast.Running && len(c.state.Evidence) > 0 && c.state.Evidence[0].E > c.state.Evidence[0].Limit && !recalling && len(c.state.Evidence) == 1 {
		return bad(3, "evidence %.3g passed %.3g and nothing was recalled", c.state.Evidence[0].E, c.state.Evidence[0].Limit)
	}
	return nil
}

// OverBudget says how a rollout exceeds its harm budget, if it does: hosts that
// were harmed anyway never give their share of it back, those that went back not
// before they have proved themselves, and every suspicious
// stratum may send one probe beyond it.
func OverBudget(p *rollout.Policy, s *rollout.State, cells []rollout.Cell) string {
	pending, clean := 0, 0
	for i := range cells {
		t := &cells[i].Treated
		pending += t.Drawn - t.Clean - t.Left
		clean += t.Clean
	}
	known := 0
	for i := range s.Blocks {
		for j := range s.Blocks[i].Cells {
			x := &s.Blocks[i].Cells[j]
			known += x.HarmedTreated + x.Void
			if x.Why == rollout.Probe {
				known += x.Treat
			}
		}
	}
	if limit := p.Kappa*float64(clean) + float64(p.C0); float64(pending-known) > limit {
		return fmt.Sprintf("%d hosts are pending and %d are clean: the harm budget allows %.0f", pending-known, clean, limit)
	}
	return ""
}

// trace is what led to the present step, in few lines.
func (c *counts) trace() (lines []string) {
	n := len(c.out.Curve)
	for _, p := range c.out.Curve[max(0, n-8):] {
		lines = append(lines, fmt.Sprintf("%s: %d exposed, %d broken, %d pending, E=%.3g", p.At, p.Exposed, p.Broken, p.Pending, p.E))
	}
	for _, a := range c.actions {
		lines = append(lines, fmt.Sprintf("%T%+v", a, a))
	}
	return lines
}
