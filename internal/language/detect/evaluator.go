package detect

import (
	"crypto/rand"
	"encoding/binary"
	"slices"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
)

// Evaluator runs an engine over one stream of events, one at a time. It holds
// what correlations have counted. It is not safe for concurrent use; use one
// per goroutine, with the events of a host all to the same.
type Evaluator struct {
	engine     *Engine
	scratch    *scratch
	counters   []*counter // by correlation
	hash       hasher
	matches    []int32
	match      Match
	events     uint64
	candidates uint64
	costs      costs
}

// NewEvaluator returns an evaluator that has seen nothing.
func (e *Engine) NewEvaluator() *Evaluator {
	v := &Evaluator{engine: e, scratch: newScratch(e.programs...), costs: newCosts(len(e.rules))}
	v.scratch.suspended = v.costs.suspended
	for _, co := range e.correlations {
		v.counters = append(v.counters, newCounter(co))
	}
	var key [16]byte
	rand.Read(key[:]) // never fails
	v.hash = hasher{binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])}
	return v
}

// Evaluate finds the rules and correlations that match the event and calls sink
// for each, in the order of the set. The match is valid during the call only.
// Events of classes the engine was not compiled for match nothing.
func (v *Evaluator) Evaluate(ev *ocsf.Event, sink func(*Match)) {
	n := v.engine.programOf(ev.Class)
	if n < 0 {
		return
	}
	p, s := v.engine.programs[n], v.scratch
	v.events++
	s.begin(n, ev)
	if v.costs.due(v.events) {
		v.matches = v.costs.run(p, s, v.matches[:0])
	} else {
		v.matches = p.run(s, v.matches[:0])
	}
	v.candidates += uint64(len(s.candidates))
	if len(v.matches) == 0 {
		return
	}
	slices.Sort(v.matches)
	for i := 0; i < len(v.matches); i++ { // correlations that fire join the list
		r := v.matches[i]
		if v.costs.suspended[r] {
			continue
		}
		for _, f := range v.engine.feeds[r] {
			if c := v.counters[f.correlation]; c.add(v.hash, ev, v.events, f.input) {
				v.matches = append(v.matches, int32(c.co.rule))
			}
		}
		if rule := v.engine.rules[r]; !rule.Silent {
			v.match = Match{Rule: rule, Event: ev, evaluator: v, program: p}
			sink(&v.match)
		}
	}
}

// Engine returns what the evaluator runs.
func (v *Evaluator) Engine() *Engine { return v.engine }

// Events returns how many events were evaluated.
func (v *Evaluator) Events() uint64 { return v.events }

// CandidateCount returns how many rules were evaluated, over all events: those
// that the index could not rule out.
func (v *Evaluator) CandidateCount() uint64 { return v.candidates }

// Evicted returns, by the id of each correlation that had to forget something
// to stay within its bounds, how many groups or entries it forgot.
func (v *Evaluator) Evicted() map[string]uint64 {
	all := map[string]uint64{}
	for _, c := range v.counters {
		if c.evicted > 0 {
			all[v.engine.rules[c.co.rule].ID] = c.evicted
		}
	}
	return all
}
