package detect

import (
	"cmp"
	"slices"
	"time"
)

// Of an evaluator's first events, one in sampleFirst is timed rule by rule, so
// that an idle host too can say what its rules cost; of all later ones, one in
// sampleEvery. Both are powers of two.
const (
	sampleFirst = 16
	sampleEvery = 1024
	enough      = 64 // samples, to judge by
)

// A host that is busy takes the processor away in the middle of a sample. That
// is no rule's doing: a sample counts for longest at most, and a rule is not
// judged by fewer than fewest samples that took it dear or more.
const (
	dear    = 10 * time.Microsecond
	longest = time.Millisecond
	fewest  = 5
)

// costs are what rules take, sampled, and which are suspended.
type costs struct {
	suspended []bool // by rule
	spent     []time.Duration
	asked     []uint64          // in how many sampled events the rule was a candidate
	dear      []uint64          // in how many of them it took dear or more
	recent    [63]time.Duration // of whole events, a ring
	sampled   uint64
}

func newCosts(rules int) costs {
	return costs{
		suspended: make([]bool, rules), spent: make([]time.Duration, rules),
		asked: make([]uint64, rules), dear: make([]uint64, rules),
	}
}

func (c *costs) due(event uint64) bool {
	return event&(sampleEvery-1) == 0 || c.sampled < enough && event&(sampleFirst-1) == 0
}

// run is program.run with a clock around each candidate.
func (c *costs) run(p *program, s *scratch, matches []int32) []int32 {
	begun := time.Now()
	p.candidates(s)
	last := time.Now()
	for _, r := range s.candidates {
		rule := p.rules[r].rule
		if c.suspended[rule] {
			continue
		}
		matched := p.code.eval(s, p.rules[r].root)
		now := time.Now()
		took := min(now.Sub(last), longest)
		last = now
		c.spent[rule] += took
		c.asked[rule]++
		if took >= dear {
			c.dear[rule]++
		}
		if matched {
			matches = append(matches, rule)
		}
	}
	c.recent[c.sampled%uint64(len(c.recent))] = last.Sub(begun)
	c.sampled++
	return matches
}

// EventCost returns how long an event takes, correlations aside: the median of
// the last samples, because a mean would tell of the few that were interrupted.
// It also returns how many events were sampled in all.
func (v *Evaluator) EventCost() (median time.Duration, sampled uint64) {
	some := v.costs.recent[:min(v.costs.sampled, uint64(len(v.costs.recent)))]
	if len(some) == 0 {
		return 0, 0
	}
	return slices.Sorted(slices.Values(some))[len(some)/2], v.costs.sampled
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
		all = append(all, v.cost(i))
	}
	slices.SortStableFunc(all, func(a, b Cost) int { return cmp.Compare(b.NsPerEvent, a.NsPerEvent) })
	return all
}

func (v *Evaluator) cost(rule int) Cost {
	n := float64(max(v.costs.sampled, 1))
	return Cost{
		Rule: v.engine.rules[rule], Sampled: v.costs.sampled, Suspended: v.costs.suspended[rule],
		NsPerEvent: float64(v.costs.spent[rule].Nanoseconds()) / n, Candidate: float64(v.costs.asked[rule]) / n,
	}
}

// OverBudget returns the rules that cost more than budget per event, once
// enough events were sampled to say so. The caller decides: it may Suspend them.
func (v *Evaluator) OverBudget(budget time.Duration) []Cost {
	var all []Cost
	if v.costs.sampled < enough {
		return nil
	}
	for i, spent := range v.costs.spent {
		if !v.costs.suspended[i] && v.costs.dear[i] >= fewest && spent > budget*time.Duration(v.costs.sampled) {
			all = append(all, v.cost(i))
		}
	}
	return all
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
