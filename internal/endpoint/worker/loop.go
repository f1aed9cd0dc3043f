package worker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/endpoint/sensor"
	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// tick is how often the loop turns without events. The guard expects four beats
// a second.
const tick = 100 * time.Millisecond

// look is how often budgets and drop counts are looked at.
const look = time.Second

// tellCosts is how often what rules cost is worked out anew.
const tellCosts = 10 * time.Second

// source is what the loop needs of a sensor. Its event is valid until the next
// call of Next, which returns nil if none came until then.
type source interface {
	Next(until time.Time) (*ocsf.Event, error)
	Tree(depth int) []holdfast.Process
	Counters() sensor.Counters
}

// Counters are what the loop publishes. They only grow.
type Counters struct {
	Evaluated  atomic.Uint64 // self-tests included
	Events     atomic.Uint64
	Dropped    atomic.Uint64 // events the sensor lost
	Unenriched atomic.Uint64
	Findings   atomic.Uint64
	Lost       atomic.Uint64 // findings there was no room for
	Suspended  atomic.Pointer[[]holdfast.Suspension]
	Costs      atomic.Pointer[Costs]
}

// Costs are what evaluating takes, and what correlations had to forget.
type Costs struct {
	Event     time.Duration
	Rules     []holdfast.RuleCost
	Forgotten []holdfast.Forgotten
}

// loop evaluates events: it and nothing else beats, so that a beat says that
// evaluation goes on. It never waits for a disk or the network.
type loop struct {
	source    source
	evaluator *detect.Evaluator
	test      *selfTest
	budgets   budgets
	beat      func(evaluated uint64)
	found     chan<- holdfast.Finding // never waited for
	counters  *Counters
	keeper    *keeper          // nil if nothing is counted
	label     holdfast.Finding // what is the same in every finding of this worker

	evaluated uint64
	now       time.Time
	told      time.Time // when costs were published
	sink      func(*detect.Match)
}

// run turns until ctx ends or the sensor fails.
func (l *loop) run(ctx context.Context) error {
	l.sink = l.match
	var beaten, looked time.Time
	var before uint64
	for ctx.Err() == nil {
		l.now = time.Now()
		if l.now.Sub(beaten) >= tick {
			if short := selfTestRound - int(min(l.evaluated-before, selfTestRound)); short > 0 {
				l.test.run(short)
				l.evaluated += uint64(short)
			}
			before, beaten = l.evaluated, l.now
			l.counters.Evaluated.Store(l.evaluated)
			l.beat(l.evaluated)
		}
		if l.now.Sub(looked) >= look {
			looked = l.now
			l.look()
		}
		if l.keeper != nil {
			l.keeper.look(l.evaluator, l.now)
		}
		e, err := l.source.Next(l.now.Add(tick))
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		l.evaluator.Evaluate(e, l.sink)
		l.evaluated++
		l.counters.Events.Add(1)
	}
	l.look()
	return nil
}

// match makes a finding of a match, if the rule has any left.
func (l *loop) match(m *detect.Match) {
	if !l.budgets.spend(m.Rule, l.now) {
		l.suspend(m.Rule, l.budgets.tooMany())
		return
	}
	f := l.label
	f.ID = findingID(f.Host, m.Rule.ID, m.Event)
	f.Rule, f.Title, f.Severity, f.Techniques = m.Rule.ID, m.Rule.Title, m.Rule.Severity, m.Rule.Techniques
	f.At = m.Event.Time
	f.Event = facts(m.Event)
	f.Matched, f.Why = m.Why()
	for i := range f.Matched {
		f.Matched[i].Value = printable(f.Matched[i].Value)
	}
	f.Tree = l.source.Tree(treeDepth)
	for i := range f.Tree {
		f.Tree[i].Path, f.Tree[i].CmdLine = printable(f.Tree[i].Path), printable(f.Tree[i].CmdLine)
	}
	l.counters.Findings.Add(1)
	select {
	case l.found <- f:
	default:
		l.counters.Lost.Add(1)
	}
}

// look suspends rules that are too slow, and publishes what is counted
// elsewhere.
func (l *loop) look() {
	c := l.source.Counters()
	l.counters.Dropped.Store(c.Dropped)
	l.counters.Unenriched.Store(c.Unenriched)
	for _, c := range l.evaluator.OverBudget(l.budgets.budget.Time) {
		l.suspend(c.Rule, l.budgets.tooSlow(c))
	}
	if l.now.Sub(l.told) >= tellCosts {
		l.told = l.now
		l.counters.Costs.Store(costsOf(l.evaluator))
	}
}

func (l *loop) suspend(r *detect.Rule, reason string) {
	if !l.evaluator.Suspend(r.ID) {
		return
	}
	l.budgets.suspend(r, reason)
	list := append([]holdfast.Suspension(nil), l.budgets.suspended...)
	l.counters.Suspended.Store(&list)
}
