package main

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/holdfast-security/holdfast/internal/language/detect"
	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// figures are what one run of one engine measured.
type figures struct {
	Events          int     `json:"events"`
	EventsPerSecond float64 `json:"events_per_second"`
	PerCPUSecond    float64 `json:"events_per_processor_second"` // what others on the machine do is not in it
	HitRate         float64 `json:"hit_rate"`                    // share of events with at least one match
	Matches         int     `json:"matches"`                     //
	Candidates      float64 `json:"candidates"`                  // rules evaluated, per event
	AllocsPerEvent  float64 `json:"allocs_per_event"`
	BytesPerEvent   float64 `json:"text_bytes_per_event"`
}

// measure runs total distinct events through the engine. The clock runs while
// decoded events are evaluated, not while they are generated, decoded, or
// garbage is collected. The first batch only warms up.
func measure(set sigma.Set, g *generator, total int, unrouted bool) (figures, *detect.Evaluator) {
	m := newMeter(set, unrouted)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var f figures
	for warm := false; f.Events < total; warm = true {
		m.batch = m.layouter.generate(g, m.batch)
		runtime.GC()
		m.evaluate(m.batch[:group*8]) // package regexp's pools are empty now
		if !warm {
			m.evaluate(m.batch)
			continue
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m.hits, m.matches = 0, 0
		some := m.batch[group*8:]
		wall, cpu := m.evaluate(some)
		runtime.ReadMemStats(&after)
		f.AllocsPerEvent += float64(after.Mallocs - before.Mallocs)
		m.wall, m.cpu = m.wall+wall, m.cpu+cpu
		f.Events += len(some)
		for i := range some {
			f.BytesPerEvent += float64(some[i].bytes())
		}
		f.HitRate += float64(m.hits)
		f.Matches += m.matches
	}
	events := float64(f.Events)
	f.EventsPerSecond, f.PerCPUSecond = events/m.wall.Seconds(), events/m.cpu.Seconds()
	f.HitRate, f.AllocsPerEvent, f.BytesPerEvent = f.HitRate/events, f.AllocsPerEvent/events, f.BytesPerEvent/events
	f.Candidates = float64(m.evaluator.CandidateCount()) / float64(m.evaluator.Events())
	return f, m.evaluator
}

// guide evaluates the same events again and again and adds up the fastest pass
// over each group: what an event costs on a machine where nobody else computes.
// It is for comparing two versions of the engine on one where others do.
func guide(set sigma.Set, g *generator, unrouted bool, batches, passes int) (time.Duration, float64) {
	m := newMeter(set, unrouted)
	var all []generated
	for range batches {
		all = append(all, m.layouter.generate(g, nil)...)
	}
	fastest := make([]time.Duration, (len(all)+group-1)/group)
	runtime.GC()
	for range passes {
		others := all
		for i := range fastest {
			var events []ocsf.Event
			events, others = m.decoder.decode(others)
			start := time.Now()
			m.run(events)
			if d := time.Since(start); fastest[i] == 0 || d < fastest[i] {
				fastest[i] = d
			}
		}
	}
	var sum time.Duration
	for _, d := range fastest {
		sum += d
	}
	return sum / time.Duration(len(all)), float64(m.evaluator.CandidateCount()) / float64(m.evaluator.Events())
}

// meter decodes and evaluates one group of events after the other.
type meter struct {
	layouter  *layouter
	decoder   *decoder
	evaluator *detect.Evaluator
	batch     []generated
	wall, cpu time.Duration
	hits      int // events with a match
	matches   int
	hit       bool
}

func newMeter(set sigma.Set, unrouted bool) *meter {
	l := &layouter{layout: scan.NewLayout(set), unrouted: unrouted}
	return &meter{layouter: l, decoder: newDecoder(l.layout), evaluator: compile(set, l.layout, unrouted).NewEvaluator()}
}

// evaluate returns how long evaluating took, without decoding.
func (m *meter) evaluate(some []generated) (wall, cpu time.Duration) {
	for len(some) > 0 {
		var events []ocsf.Event
		events, some = m.decoder.decode(some)
		c := startClock()
		m.run(events)
		w, p := c.stop()
		wall, cpu = wall+w, cpu+p
	}
	return wall, cpu
}

func (m *meter) run(events []ocsf.Event) {
	sink := func(*detect.Match) { m.hit = true; m.matches++ }
	for i := range events {
		m.hit = false
		m.evaluator.Evaluate(&events[i], sink)
		if m.hit {
			m.hits++
		}
	}
}

func compile(set sigma.Set, layout *scan.Layout, unrouted bool) *detect.Engine {
	classes := layout.Classes
	if unrouted {
		classes = []*ocsf.Class{layout.Unknown}
	}
	engine, _ := detect.Compile(set, detect.Options{Classes: classes, Unrouted: unrouted})
	return engine
}

func compileFor(set sigma.Set, classes []*ocsf.Class) (*detect.Engine, []sigma.Problem) {
	return detect.Compile(set, detect.Options{Classes: classes})
}
