package detect

import (
	"cmp"
	"slices"
	"time"
)

// sampleEvery is how many events pass between two whose rules are timed one by
// one. It is a power of two.
const sampleEvery = 1024

// costs are what rules take, sampled, and which are suspended.
type costs struct {
	suspended []bool // by rule
	spent     []time.Duration
	asked     []uint64 // in how many sampled events the rule was a candidate
	sampled   uint64
}

func newCosts(rules int) costs {
	return costs{suspended: make([]bool, rules), spent: make([]time.Duration, rules), asked: make([]uint64, rules)}
}

func (c *costs) due(event uint64) bool { return event&(sampleEvery-1) == 0 }

// run is program.run with a clock around each candidate.
func (c *costs) run(p *program, s *scratch, matches []int32) []int32 {
	p.candidates(s)
	c.sampled++
	for _, r := range s.candidates {
		rule := p.rules[r].rule
		if c.suspended[rule] {
			continue
		}
		start := time.Now()
		matched := p.code.eval(s, p.rules[r].root)
		c.spent[rule] += time.Since(start)
		c.asked[rule]++
		if matched {
			matches = append(matches, rule)
		}
	}
	return matches
}

// Cost is what one rule takes.
type Cost struct {
	Rule *Rule
	// NsPerEvent is the time spent in the rule itself, over all sampled events
	// (not only those it was a candidate for). The pass that finds candidates
	// is shared, and in no rule's figure. A predicate shared by several rules
	// counts for the first that needed it.
	NsPerEvent float64
	Candidate  float64 // share of events the rule was evaluated on
	Sampled    uint64  // events
	Suspended  bool
}

// Costs returns the rules that have cost anything, or are suspended, the dearest
// first.
func (v *Evaluator) Costs() []Cost {
	var all []Cost
	for i, spent := range v.costs.spent {
		if spent == 0 && !v.costs.suspended[i] {
			continue
		}
		c := Cost{Rule: v.engine.rules[i], Sampled: v.costs.sampled, Suspended: v.costs.suspended[i]}
		if n := float64(v.costs.sampled); n > 0 {
			c.NsPerEvent, c.Candidate = float64(spent.Nanoseconds())/n, float64(v.costs.asked[i])/n
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b Cost) int { return cmp.Compare(b.NsPerEvent, a.NsPerEvent) })
	return all
}

// OverBudget returns the rules that cost more than budget per event, once
// enough events were sampled to say so. The caller decides: it may Suspend them.
func (v *Evaluator) OverBudget(budget time.Duration) []Cost {
	if v.costs.sampled < 64 {
		return nil
	}
	return slices.DeleteFunc(v.Costs(), func(c Cost) bool { return c.Suspended || c.NsPerEvent <= float64(budget.Nanoseconds()) })
}

// Suspend stops one rule, and only it, by id: it is evaluated no more and makes
// no findings until Resume. It reports whether there is such a rule.
func (v *Evaluator) Suspend(id string) bool { return v.setSuspended(id, true) }

// Resume lets a suspended rule run again.
func (v *Evaluator) Resume(id string) bool { return v.setSuspended(id, false) }

func (v *Evaluator) setSuspended(id string, to bool) bool {
	for i, r := range v.engine.rules {
		if r.ID == id {
			v.costs.suspended[i] = to
			return true
		}
	}
	return false
}
