package main

import (
	"unsafe"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
)

// An event is generated as text, in batches; then decoded, some at a time, into
// what the engine takes; then evaluated while the clock runs.
const (
	// batch is how many events are generated at a time. Generating empties the
	// caches of what the engine keeps in them, as nothing on a host does between
	// every few events; in a batch this large that hardly shows.
	batch = 16384
	// group is how many events stand decoded: few enough to be in the nearest
	// caches still, as events are that a decoder has just written.
	group = 32
)

// generated is an event before it is decoded: the values of the fields it has.
type generated struct {
	class  int
	fields []uint16
	values []ocsf.Value
}

func (g generated) bytes() (n int) {
	for _, v := range g.values {
		n += len(v.Str)
	}
	return n
}

// layouter gives records the layout of their class.
type layouter struct {
	layout   *scan.Layout
	unrouted bool
	event    ocsf.Event
}

// lay returns the record as an event of its class; of class 0 if there is none:
// then routing was all there was to do.
func (l *layouter) lay(r *scan.Record) generated {
	class := l.layout.Unknown
	if !l.unrouted {
		class = l.layout.ClassOf(r.Sources)
	}
	if class == nil {
		return generated{}
	}
	l.event.Reset()
	scan.Bind(&l.event, class, r, false)
	d := generated{class: class.UID}
	for _, o := range l.event.Set {
		d.fields = append(d.fields, o)
		d.values = append(d.values, l.event.Values[o])
	}
	return d
}

func (l *layouter) generate(g *generator, into []generated) []generated {
	into = into[:0]
	for len(into) < batch {
		into = append(into, l.lay(g.next()))
	}
	return into
}

// decoder decodes groups of events, as the agent's does: their texts one behind
// the other in a buffer that is used again, their values in events that are.
type decoder struct {
	events []ocsf.Event
	texts  []byte
}

func newDecoder(layout *scan.Layout) *decoder {
	widest := 0
	for _, c := range layout.Classes {
		widest = max(widest, len(c.Fields))
	}
	d := &decoder{events: make([]ocsf.Event, group)}
	for i := range d.events {
		d.events[i].Values, d.events[i].Set = make([]ocsf.Value, widest), make([]uint16, 0, 64)
	}
	return d
}

// decode returns the first events of some, a group at most, and the others. The
// events are valid until the next call.
func (d *decoder) decode(some []generated) (events []ocsf.Event, others []generated) {
	now := some[:min(group, len(some))]
	need := 0
	for i := range now {
		need += now[i].bytes()
	}
	if cap(d.texts) < need {
		d.texts = make([]byte, 0, 2*need)
	}
	text := d.texts[:0]
	for i := range now {
		ev := &d.events[i]
		ev.Reset()
		ev.Class = now[i].class
		for j, o := range now[i].fields {
			v := now[i].values[j]
			if n := len(v.Str); n > 0 {
				text = append(text, v.Str...)
				v.Str = unsafe.String(&text[len(text)-n], n)
			}
			ev.Put(int(o), v)
		}
	}
	return d.events[:len(now)], some[len(now):]
}
