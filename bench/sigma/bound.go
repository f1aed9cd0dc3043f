package main

import (
	"time"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// bound is what the simplest thing that could find candidates takes.
type bound struct {
	Literals        int     `json:"literals"`
	EventsPerSecond float64 `json:"events_per_second"`
	Ratio           float64 `json:"ratio"` // of the whole engine to it
}

// automaton is a plain Aho-Corasick automaton, a full table over bytes, letters
// of both cases together.
type automaton struct {
	next [][256]int32
	ends []bool
}

func newAutomaton(lits []string) *automaton {
	a := &automaton{next: make([][256]int32, 1), ends: make([]bool, 1)}
	for _, lit := range lits {
		s := int32(0)
		for i := range len(lit) {
			c := lit[i]
			if a.next[s][c] == 0 {
				a.next[s][c] = int32(len(a.next))
				a.next, a.ends = append(a.next, [256]int32{}), append(a.ends, false)
			}
			s = a.next[s][c]
		}
		a.ends[s] = true
	}
	fail := make([]int32, len(a.next))
	var queue []int32
	for c := range 256 {
		if s := a.next[0][c]; s != 0 {
			queue = append(queue, s)
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		a.ends[s] = a.ends[s] || a.ends[fail[s]]
		for c := range 256 {
			if n := a.next[s][c]; n != 0 {
				fail[n] = a.next[fail[s]][c]
				queue = append(queue, n)
			} else {
				a.next[s][c] = a.next[fail[s]][c]
			}
		}
	}
	for s := range a.next {
		for c := 'A'; c <= 'Z'; c++ {
			a.next[s][c] = a.next[s][c+'a'-'A']
		}
	}
	return a
}

func (a *automaton) count(text string) (n int) {
	s := int32(0)
	for i := range len(text) {
		if s = a.next[s][text[i]]; a.ends[s] {
			n++
		}
	}
	return n
}

// plainPass scans the same fields of the same events for the literals that the
// engine's index looks for, one automaton a field, and does nothing else.
func plainPass(engine *detect.Engine, set sigma.Set, g *generator, total int, ours float64) bound {
	l := &layouter{layout: scan.NewLayout(set)}
	automata := map[int][]*automaton{}
	var b bound
	for _, c := range l.layout.Classes {
		byField := engine.Literals(c.UID)
		automata[c.UID] = make([]*automaton, len(c.Fields))
		for field, lits := range byField {
			if field >= 0 {
				automata[c.UID][field] = newAutomaton(lits)
				if c != l.layout.Unknown {
					b.Literals = max(b.Literals, 0) + len(lits)
				}
			}
		}
	}
	var spent time.Duration
	var all []generated
	dec, found, done := newDecoder(l.layout), 0, 0
	for ; done < total; done += len(all) {
		all = l.generate(g, all)
		for others := all; len(others) > 0; {
			var events []ocsf.Event
			events, others = dec.decode(others)
			c := startClock()
			for i := range events {
				ev := &events[i]
				by := automata[ev.Class]
				for _, o := range ev.Set {
					if a := by[o]; a != nil {
						found += a.count(ev.Values[o].Str)
					}
				}
			}
			wall, _ := c.stop()
			spent += wall
		}
	}
	if found == 0 {
		panic("bench/sigma: the automata found nothing")
	}
	b.EventsPerSecond = float64(done) / spent.Seconds()
	b.Ratio = ours / b.EventsPerSecond
	return b
}
