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

// chunk is how many events are decoded before the clock runs over them.
const chunk = 10_000

// measure runs total distinct events through the engine. The clock runs while
// events are laid out from their decoded values and evaluated, not while they
// are generated.
func measure(set sigma.Set, g *generator, total int, unrouted bool) (figures, *detect.Evaluator) {
	l := &layouter{layout: scan.NewLayout(set), unrouted: unrouted}
	engine := compile(set, l.layout, unrouted)
	v := engine.NewEvaluator()
	widest := 0
	for _, c := range l.layout.Classes {
		widest = max(widest, len(c.Fields))
	}
	ev := &ocsf.Event{Values: make([]ocsf.Value, widest), Set: make([]uint16, 0, 64)}
	var (
		f             figures
		spent, cpu    time.Duration
		hits          int
		bytes         int
		hit           bool
		before, after runtime.MemStats
		mallocs       uint64
		batch         []decoded
		sink          = func(*detect.Match) { hit = true; f.Matches++ }
		warm          = 2 * chunk
	)
	for f.Events < total {
		batch = batch[:0]
		for len(batch) < chunk {
			d, _ := l.decode(g.next()) // of class 0 if no rule wants it: then routing was all
			for _, v := range d.values {
				bytes += len(v.Str)
			}
			batch = append(batch, d)
		}
		// The generator's garbage is collected before the clock starts, and not
		// on the engine's time: it makes none itself.
		runtime.GC()
		percent := debug.SetGCPercent(-1)
		runtime.ReadMemStats(&before)
		c := startClock()
		for i := range batch {
			d := &batch[i]
			if d.class == 0 {
				continue
			}
			ev.Class = d.class
			for j, o := range d.fields {
				ev.Put(int(o), d.values[j])
			}
			hit = false
			v.Evaluate(ev, sink)
			if hit {
				hits++
			}
			ev.Reset()
		}
		wall, used := c.stop()
		runtime.ReadMemStats(&after)
		debug.SetGCPercent(percent)
		if warm > 0 {
			warm -= len(batch)
		} else {
			mallocs += after.Mallocs - before.Mallocs
			f.AllocsPerEvent += float64(len(batch))
		}
		spent, cpu = spent+wall, cpu+used
		f.Events += len(batch)
	}
	f.EventsPerSecond = float64(f.Events) / spent.Seconds()
	f.PerCPUSecond = float64(f.Events) / cpu.Seconds()
	f.HitRate = float64(hits) / float64(f.Events)
	f.Candidates = float64(v.CandidateCount()) / float64(f.Events)
	if f.AllocsPerEvent > 0 {
		f.AllocsPerEvent = float64(mallocs) / f.AllocsPerEvent
	}
	f.BytesPerEvent = float64(bytes) / float64(f.Events)
	return f, v
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
