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

// decoded is an event as a decoder leaves it: the values of the fields it has.
type decoded struct {
	class  int
	fields []uint16
	values []ocsf.Value
}

// layouter turns records into decoded events.
type layouter struct {
	layout   *scan.Layout
	unrouted bool
	event    ocsf.Event
}

func (l *layouter) decode(r *scan.Record) (decoded, bool) {
	class := l.layout.Unknown
	if !l.unrouted {
		class = l.layout.ClassOf(r.Sources)
	}
	if class == nil {
		return decoded{}, false
	}
	l.event.Reset()
	scan.Bind(&l.event, class, r, false)
	d := decoded{class: class.UID}
	for _, o := range l.event.Set {
		d.fields = append(d.fields, o)
		d.values = append(d.values, l.event.Values[o])
	}
	return d, true
}

// chunk is how many events are decoded before the clock runs over them: few
// enough to be in the processor's caches still, as events are that a decoder
// has just written.
const chunk = 256

// collectEvery is how many chunks pass between two garbage collections, which
// run while the clock does not: the garbage is the generator's.
const collectEvery = 64

// measure runs total distinct events through the engine. The clock runs while
// events are laid out from their decoded values and evaluated, not while they
// are generated. The first events only warm up.
func measure(set sigma.Set, g *generator, total int, unrouted bool) (figures, *detect.Evaluator) {
	m := newMeter(set, unrouted)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var f figures
	for n := 0; f.Events < total; n++ {
		if n%collectEvery == 0 {
			runtime.GC()
		}
		m.generate(g)
		if n%collectEvery < 4 { // collecting emptied the pools of package regexp
			m.evaluate()
			continue
		}
		f.BytesPerEvent += m.bytes()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m.hits, m.matches = 0, 0
		c := startClock()
		m.evaluate()
		wall, cpu := c.stop()
		runtime.ReadMemStats(&after)
		f.AllocsPerEvent += float64(after.Mallocs - before.Mallocs)
		m.wall, m.cpu = m.wall+wall, m.cpu+cpu
		f.Events += chunk
		f.HitRate += float64(m.hits)
		f.Matches += m.matches
	}
	events := float64(f.Events)
	f.EventsPerSecond, f.PerCPUSecond = events/m.wall.Seconds(), events/m.cpu.Seconds()
	f.HitRate, f.AllocsPerEvent, f.BytesPerEvent = f.HitRate/events, f.AllocsPerEvent/events, f.BytesPerEvent/events
	f.Candidates = float64(m.evaluator.CandidateCount()) / float64(m.evaluator.Events())
	return f, m.evaluator
}

// guide evaluates the same chunks again and again and adds up the fastest pass
// over each: what an event costs on a machine where nobody else computes. It is
// for comparing two versions of the engine on one where others do.
func guide(set sigma.Set, g *generator, unrouted bool, chunks, passes int) (time.Duration, float64) {
	m := newMeter(set, unrouted)
	var batches [][]decoded
	for range chunks {
		m.batch = nil
		m.generate(g)
		batches = append(batches, m.batch)
	}
	fastest := make([]time.Duration, chunks)
	runtime.GC()
	for pass := range passes {
		for i := range batches {
			m.batch = batches[i]
			start := time.Now()
			m.evaluate()
			if d := time.Since(start); pass == 0 || d < fastest[i] {
				fastest[i] = d
			}
		}
	}
	var sum time.Duration
	for _, d := range fastest {
		sum += d
	}
	return sum / time.Duration(chunks*chunk), float64(m.evaluator.CandidateCount()) / float64(m.evaluator.Events())
}

// meter evaluates one chunk after the other.
type meter struct {
	layouter  *layouter
	evaluator *detect.Evaluator
	event     *ocsf.Event
	batch     []decoded
	wall, cpu time.Duration
	hits      int // events with a match
	matches   int
	hit       bool
}

func newMeter(set sigma.Set, unrouted bool) *meter {
	m := &meter{layouter: &layouter{layout: scan.NewLayout(set), unrouted: unrouted}}
	m.evaluator = compile(set, m.layouter.layout, unrouted).NewEvaluator()
	widest := 0
	for _, c := range m.layouter.layout.Classes {
		widest = max(widest, len(c.Fields))
	}
	m.event = &ocsf.Event{Values: make([]ocsf.Value, widest), Set: make([]uint16, 0, 64)}
	return m
}

func (m *meter) generate(g *generator) {
	m.batch = m.batch[:0]
	for len(m.batch) < chunk {
		d, _ := m.layouter.decode(g.next()) // of class 0 if no rule wants it: then routing was all
		m.batch = append(m.batch, d)
	}
}

func (m *meter) bytes() (n float64) {
	for _, d := range m.batch {
		for _, v := range d.values {
			n += float64(len(v.Str))
		}
	}
	return n
}

func (m *meter) evaluate() {
	sink := func(*detect.Match) { m.hit = true; m.matches++ }
	ev := m.event
	for i := range m.batch {
		d := &m.batch[i]
		if d.class == 0 {
			continue
		}
		ev.Class = d.class
		for j, o := range d.fields {
			ev.Put(int(o), d.values[j])
		}
		m.hit = false
		m.evaluator.Evaluate(ev, sink)
		if m.hit {
			m.hits++
		}
		ev.Reset()
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
