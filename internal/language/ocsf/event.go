// Package ocsf holds events as the engine reads them: a class and a slice of
// values, each at the ordinal of its field. There are no maps and nothing is
// boxed on the way of an event, so that a host can evaluate hundreds of
// thousands of them a second.
//
// Field names are paths of the Open Cybersecurity Schema Framework
// (https://schema.ocsf.io, version 1.4); Sigma's own names are mapped to them
// by a table (taxonomy.go).
package ocsf

import "time"

// Event is one thing that happened. Values are indexed by the ordinal of their
// field in the Class; the slice is as long as its producer made it, and whoever
// reads it indexes it plainly.
//
// An event belongs to its producer, who may use it again as soon as Evaluate
// has returned.
type Event struct {
	Class  int // UID of its class
	Values []Value
	// Lists holds the elements of values of kind List.
	Lists [][]Value
	// Set names the ordinals that are present, for classes so wide that looking
	// at each field would cost more than the event. If nil, every ordinal of
	// the class may be present.
	Set []uint16
	// Message is the event as one log line. Keyword searches read it; if it is
	// empty they read each value.
	Message string
	// Time is when it happened. Correlations count by it.
	Time time.Time
}

// Put sets a value of a sparse event, and remembers that it is set.
func (e *Event) Put(ordinal int, v Value) {
	e.Values[ordinal] = v
	e.Set = append(e.Set, uint16(ordinal))
}

// PutList sets a value of several elements.
func (e *Event) PutList(ordinal int, elements []Value) {
	e.Lists = append(e.Lists, elements)
	e.Put(ordinal, Value{Kind: List, Num: int64(len(e.Lists) - 1)})
}

// Reset empties a sparse event for its next use.
func (e *Event) Reset() {
	for _, o := range e.Set {
		e.Values[o] = Value{}
	}
	e.Set, e.Lists, e.Message, e.Time = e.Set[:0], e.Lists[:0], "", time.Time{}
}

// Texts returns the texts of the value at ordinal: none if it is absent or
// null, several if it is a list. It allocates; the engine does not use it.
func (e *Event) Texts(ordinal int) []string {
	switch v := e.Values[ordinal]; v.Kind {
	case Absent, Null:
		return nil
	case List:
		var all []string
		for _, el := range e.Lists[v.Num] {
			if el.Kind != Null && el.Kind != Absent {
				all = append(all, el.Text())
			}
		}
		return all
	default:
		return []string{v.Text()}
	}
}
