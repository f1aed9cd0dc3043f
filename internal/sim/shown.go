package sim

import (
	"fmt"
	"math"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/control/rollout"
)

// playShown plays a run of goal G7: after every step the report to people is
// compared with what the simulator knows by itself.
func playShown(p rollout.Policy, w World) (Outcome, error) {
	c, err := newCounts(p, w)
	if err != nil {
		return Outcome{}, err
	}
	s := shown{counts: c, leastHU: 1}
	out, err := c.play(s.look)
	out.Shown, out.LeastHU = float64(s.right)/float64(max(1, s.steps)), s.leastHU
	out.Notes = append(out.Notes, s.wrong...)
	return out, err
}

// shown checks what is shown.
type shown struct {
	*counts
	steps, right int
	harmed       int     // treated hosts noticed as harmed within their fast window
	curve        []Point // A(t), at every step
	leastHU      float64
	wrong        []string
}

func (s *shown) look() {
	if s.state.Schema == 0 {
		return
	}
	r := rollout.Describe(&s.policy, s.state, s.snapshot, s.time())
	for i := range s.snapshot.Events {
		e := &s.snapshot.Events[i]
		late := s.policy.Fast
		if e.Kind == holdfast.Silence {
			late += 3 * s.policy.Heartbeat
		}
		if e.Treated && e.First && e.After <= late {
			s.harmed++
		}
	}
	s.curve = append(s.curve, Point{At: s.now, Exposed: s.out.Exposed})
	s.leastHU = min(s.leastHU, r.HarmBound)
	s.steps++
	if why := s.differs(&r); why == "" {
		s.right++
	} else if len(s.wrong) < 5 {
		s.wrong = append(s.wrong, fmt.Sprintf("%s: %s", s.now, why))
	}
}

// differs names the first figure that is not as it should be.
func (s *shown) differs(r *rollout.Report) string {
	granted, clean := 0, 0
	for i := range s.grants {
		granted += s.grants[i].treat
	}
	for i := range s.cells {
		clean += s.cells[i].Treated.Clean
	}
	pending := s.out.Exposed - clean - s.harmed + granted
	budget := s.policy.Kappa*math.Log(2/s.policy.Delta) + float64(s.policy.C0)
	switch {
	case r.Exposed != s.out.Exposed:
		return fmt.Sprintf("%d hosts are said to be exposed, and %d are", r.Exposed, s.out.Exposed)
	case !s.state.Phase.Done() && r.Pending != pending:
		return fmt.Sprintf("%d hosts are said to be pending, and %d are", r.Pending, pending)
	case !(r.HarmBound > 0 && r.HarmBound <= 1):
		return fmt.Sprintf("hU is %g", r.HarmBound)
	case r.Harmed == 0 && float64(r.Pending)*r.HarmBound > budget:
		return fmt.Sprintf("%d pending hosts times hU %g exceed the budget of %.1f", r.Pending, r.HarmBound, budget)
	}
	if mass := s.uncovered(); math.Abs(mass-r.UncoveredMass) > 1e-9 {
		return fmt.Sprintf("%g of the fleet are said to be uncovered, and %g are", r.UncoveredMass, mass)
	}
	return s.latent(r.Latent)
}

// latent checks the exposure that is too young to have shown a late fault: it
// must not be understated, nor overstated by more than a block draws in.
func (s *shown) latent(all []rollout.LatentExposure) string {
	if len(all) == 0 {
		return "no latent exposure is shown"
	}
	for _, l := range all {
		least, most := s.out.Exposed-s.exposedBy(s.now-l.Delay), s.out.Exposed-s.exposedBy(s.now-l.Delay-2*s.policy.Heartbeat-s.tick)
		if l.Hosts < least || l.Hosts > most {
			return fmt.Sprintf("%d hosts are said to be exposed for less than %s, and %d to %d are", l.Hosts, l.Delay, least, most)
		}
	}
	return ""
}

// exposedBy is A(t).
func (s *shown) exposedBy(t time.Duration) (n int) {
	for _, p := range s.curve {
		if p.At > t {
			break
		}
		n = p.Exposed
	}
	return n
}

// uncovered is the share of the fleet with a pair of attribute values (or a
// kernel, agent and role) that no host with the release has.
func (s *shown) uncovered() float64 {
	tried := map[string]bool{}
	combos := func(k *Kind) []string {
		f := k.Stratum.Factors()
		all := []string{f[0] + f[2] + f[3]}
		for i := range f {
			for j := range i {
				all = append(all, f[j]+"&"+f[i])
			}
		}
		return all
	}
	given := map[holdfast.Stratum]bool{}
	for i := range s.cells {
		if c := &s.cells[i]; c.Treated.Drawn > 0 {
			given[c.Stratum], given[c.Cell] = true, true
		}
	}
	for i := range s.world.Kinds {
		if k := &s.world.Kinds[i]; given[k.Stratum] {
			for _, c := range combos(k) {
				tried[c] = true
			}
		}
	}
	open, all := 0, 0
	for i := range s.groups {
		g := &s.groups[i]
		all += g.online
		for _, c := range combos(&s.world.Kinds[g.kind]) {
			if !tried[c] {
				open += g.online
				break
			}
		}
	}
	return float64(open) / float64(all)
}
